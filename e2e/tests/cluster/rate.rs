//! The chain's `bandwidth` plugin, by what arrives: how many bytes a second a pod with a limit takes
//! in and gives out, and one without.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use margay_e2e::cluster::Cluster;
use margay_e2e::cluster::workload::{self, Place};
use margay_e2e::lab::patience::patience;
use serde_json::json;

/// What the annotation asks for, and as a number: bits a second.
const RATE: &str = "10M";
const RATE_BITS: f64 = 10e6;
/// What headers take, and what a second's edges may add.
const TOLERANCE: std::ops::RangeInclusive<f64> = 0.7..=1.2;
/// What a pod without a limit takes at least, as a multiple of the limit.
const WITHOUT: f64 = 5.0;
/// Seconds in a row that must be within the limit.
const IN_A_ROW: usize = 3;
/// Where a pod takes in what it is sent.
const PORT: u16 = 5001;

/// The way of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Into the pod.
    In,
    /// Out of it.
    Out,
}

/// A pod whose traffic is limited gets what it may and no more; its twin gets all.
pub async fn limited(cluster: &Cluster) -> anyhow::Result<String> {
    let client = cluster.client().await?;
    let spec = workload::pod_spec(cluster.ground.lab.plan.store.address.ip());
    let limits = json!({
        "kubernetes.io/ingress-bandwidth": RATE, "kubernetes.io/egress-bandwidth": RATE,
    });
    for (name, annotations) in [("slow", limits), ("fast", json!({}))] {
        let mut object = workload::deployment(name, 1, &spec);
        object["spec"]["template"]["metadata"]["annotations"] = annotations;
        workload::deploy(&client, object).await?;
    }
    let slow = workload::until_ready(cluster, &client, "app=slow", 1, patience(60)).await?;
    let fast = workload::until_ready(cluster, &client, "app=fast", 1, patience(60)).await?;
    let mut words = vec![format!("limit {RATE}bit/s")];
    for way in [Way::In, Way::Out] {
        let (rate, burst) = until_limited(cluster, &slow[0], way)?;
        let mut seconds = Stream::start(cluster, &fast[0], way)?;
        let mut free: f64 = 0.0;
        for _ in 0..IN_A_ROW {
            free = free.max(seconds.second()?);
        }
        ensure!(
            free > WITHOUT * RATE_BITS,
            "{way:?} of a pod without a limit go {free:.0} bit/s only: the other's says nothing"
        );
        words.push(format!(
            "{way:?} {:.1} Mbit/s after a burst of {:.0} Mbit, without a limit {:.0} Mbit/s",
            rate / 1e6,
            burst / 1e6,
            free / 1e6
        ));
    }
    for name in ["slow", "fast"] {
        workload::delete(&client, name).await?;
    }
    Ok(words.join("; "))
}

/// Waits until a pod with a limit has some seconds within it: first comes what the bucket holds,
/// and containerd asks for the largest there is. The rate, and how many bits came before.
fn until_limited(cluster: &Cluster, pod: &Place, way: Way) -> anyhow::Result<(f64, f64)> {
    let (mut seconds, mut calm) = (Stream::start(cluster, pod, way)?, Vec::new());
    let limit = Instant::now() + patience(90);
    let mut burst = 0.0;
    while calm.len() < IN_A_ROW {
        let bits = seconds.second()?;
        if TOLERANCE.contains(&(bits / RATE_BITS)) {
            calm.push(bits);
        } else {
            burst += bits + calm.drain(..).sum::<f64>();
        }
        ensure!(
            Instant::now() < limit,
            "{way:?} of a pod with a limit of {RATE}bit/s go {bits:.0} after {burst:.0} bits"
        );
    }
    let count: f64 = calm.iter().map(|_| 1.0).sum();
    Ok((calm.iter().sum::<f64>() / count, burst))
}

/// Bytes that flow into a pod or out of it as fast as they can, to or from outside of the cluster:
/// this process is on the API server's machine.
struct Stream {
    inside: Child,
    socket: TcpStream,
    way: Way,
}

impl Stream {
    fn start(cluster: &Cluster, pod: &Place, way: Way) -> anyhow::Result<Self> {
        let mut command = workload::inside(cluster, pod, "busybox")?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let port = PORT.to_string();
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        let (mut inside, socket) = match way {
            Way::In => {
                command.args(["nc", "-l", "-p", &port]).stdin(Stdio::null());
                let inside = command.spawn().context("cannot start nc")?;
                (inside, connect(pod.address))
            }
            Way::Out => {
                let here = cluster.ground.lab.plan.store.address.ip().to_string();
                let listener = TcpListener::bind(any).context("cannot listen")?;
                command.args(["nc", &here, &port]);
                command.stdin(std::fs::File::open("/dev/zero")?);
                let inside = command.spawn().context("cannot start nc")?;
                (inside, accept(&listener))
            }
        };
        let ready = socket.and_then(|socket| {
            // A second's end is looked at also when nothing moves.
            let often = Some(Duration::from_millis(100));
            socket.set_write_timeout(often)?;
            socket.set_read_timeout(often)?;
            // Small, so that what is taken is what arrives: 1 Mbit at the most.
            rustix::net::sockopt::set_socket_send_buffer_size(&socket, 64 << 10)?;
            Ok(socket)
        });
        match ready {
            Ok(socket) => Ok(Self {
                inside,
                socket,
                way,
            }),
            Err(error) => {
                end(&mut inside);
                Err(error)
            }
        }
    }

    /// Bits of a second.
    fn second(&mut self) -> anyhow::Result<f64> {
        let mut chunk = [0; 16 << 10];
        let (began, mut moved) = (Instant::now(), 0.0);
        while began.elapsed() < Duration::from_secs(1) {
            let done = match self.way {
                Way::In => self.socket.write(&chunk),
                Way::Out => self.socket.read(&mut chunk),
            };
            match done {
                Ok(0) => bail!("the pod's end is closed"),
                Ok(count) => moved += f64::from(u32::try_from(count)?),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("the pod's end is gone"),
            }
        }
        Ok(moved * 8.0 / began.elapsed().as_secs_f64())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        end(&mut self.inside);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn connect(address: IpAddr) -> anyhow::Result<TcpStream> {
    let limit = Instant::now() + patience(10);
    let to = SocketAddr::new(address, PORT);
    loop {
        match TcpStream::connect_timeout(&to, Duration::from_millis(500)) {
            Ok(socket) => return Ok(socket),
            Err(error) if Instant::now() > limit => bail!("nothing takes bytes on {to}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn accept(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    let limit = Instant::now() + patience(10);
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false)?;
                return Ok(socket);
            }
            Err(error) if Instant::now() > limit => bail!("the pod sends nothing: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
