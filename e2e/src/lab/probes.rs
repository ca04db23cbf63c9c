//! Probes: can this machine or pod reach that address?
//!
//! Many run at once, each on a thread of its own inside the asking namespace. A ping is the
//! system's `ping`; TCP and UDP are plain sockets, since a socket belongs to the namespace of the
//! thread that opens it.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use super::command::finish;
use super::error::LabError;
use super::namespaces;
use super::patience::{patience, slowness};
use super::pod_server::parse_answer;

/// Probes that run at the same time.
const AT_ONCE: usize = 32;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// One ICMP echo.
    Ping,
    /// A connection to this port of a [`super::pod_server`].
    Tcp(u16),
    /// A datagram to this port of one.
    Udp(u16),
}

/// One probe.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The network namespace that asks.
    pub namespace: String,
    /// Whom it asks.
    pub to: IpAddr,
    /// What.
    pub question: Question,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A ping came back.
    Echo,
    /// A pod's server answered.
    Answer {
        /// The pod that says it answered.
        by: String,
        /// The source address it saw.
        seen: IpAddr,
    },
    /// Nothing came back in time, or an error did.
    Nothing(String),
}

impl Outcome {
    /// Whether something came back.
    pub fn reached(&self) -> bool {
        !matches!(self, Outcome::Nothing(_))
    }
}

/// How long an answer may take: everything is on one machine.
pub fn answer_time() -> Duration {
    Duration::from_millis(1000).mul_f64(slowness().min(5.0))
}

/// Asks all of them, many at once, and gives the outcomes in order.
pub async fn ask_all(probes: Vec<Probe>) -> Vec<Outcome> {
    let count = probes.len();
    let work = tokio::task::spawn_blocking(move || {
        let chunks = probes.chunks(AT_ONCE);
        chunks.flat_map(ask_together).collect()
    });
    let broken = |_| vec![Outcome::Nothing("the probe's thread died".to_owned()); count];
    work.await.unwrap_or_else(broken)
}

fn ask_together(probes: &[Probe]) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = probes
            .iter()
            .map(|probe| scope.spawn(|| ask(probe)))
            .collect();
        let answers = threads.into_iter().map(|thread| {
            let died = |_| Outcome::Nothing("the probe's thread died".to_owned());
            thread.join().unwrap_or_else(died)
        });
        answers.collect()
    })
}

/// Asks once. Blocks for at most about [`answer_time`].
pub fn ask(probe: &Probe) -> Outcome {
    let to = probe.to;
    let asked = namespaces::inside(&probe.namespace, || match probe.question {
        Question::Ping => ping(to),
        Question::Tcp(port) => Ok(tcp(SocketAddr::new(to, port))),
        Question::Udp(port) => Ok(udp(SocketAddr::new(to, port))),
    });
    asked.unwrap_or_else(|error| Outcome::Nothing(error.to_string()))
}

fn ping(to: IpAddr) -> Result<Outcome, LabError> {
    let mut command = Command::new("ping");
    let seconds = answer_time().as_secs().max(1).to_string();
    command
        .args(["-n", "-q", "-c", "1", "-W", &seconds])
        .arg(to.to_string());
    let output = finish(command, None, patience(15))?;
    if output.status.success() {
        return Ok(Outcome::Echo);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("no echo");
    Ok(Outcome::Nothing(said.to_owned()))
}

fn tcp(to: SocketAddr) -> Outcome {
    let limit = answer_time();
    let mut text = String::new();
    let told = TcpStream::connect_timeout(&to, limit).and_then(|mut stream| {
        stream.set_read_timeout(Some(limit))?;
        stream.by_ref().take(256).read_to_string(&mut text)
    });
    outcome(told.map(|_| text))
}

fn udp(to: SocketAddr) -> Outcome {
    let any: IpAddr = match to.ip() {
        IpAddr::V4(_) => [0; 4].into(),
        IpAddr::V6(_) => [0; 16].into(),
    };
    let told = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        socket.set_read_timeout(Some(answer_time()))?;
        socket.connect(to)?;
        socket.send(b"who?")?;
        let mut answer = [0; 256];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
    });
    outcome(told)
}

fn outcome(told: std::io::Result<String>) -> Outcome {
    match told {
        Ok(text) => match parse_answer(&text) {
            Some((by, seen)) => Outcome::Answer { by, seen },
            None => Outcome::Nothing(format!("an answer that no pod gives: {text:?}")),
        },
        Err(error) => Outcome::Nothing(error.to_string()),
    }
}
