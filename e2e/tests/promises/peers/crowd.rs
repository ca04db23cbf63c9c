//! Simulated peers: one thread in a namespace answers for a thousand addresses, each a node that
//! announces one block and listens to what it is told. It shares no code with the speaker.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use margay_e2e::lab::namespaces;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const MARKER: [u8; 16] = [0xff; 16];
const AS: u16 = 64512;
/// Seconds; nobody is to fall silent in a test.
const HOLD: u16 = 240;

/// What the crowd has been told.
#[derive(Debug, Default)]
pub struct Told {
    /// Sessions that are up.
    pub up: usize,
    /// How many have a route to a prefix, by `address/length`, and since when the last one has.
    pub routes: BTreeMap<String, (usize, Option<Instant>)>,
}

/// The crowd; it disperses when this is dropped.
pub struct Crowd {
    pub told: Arc<Mutex<Told>>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Crowd {
    /// Listens in a namespace, at whatever addresses it has.
    pub fn gather(namespace: &str) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (namespace, shared) = (namespace.to_owned(), Arc::clone(&told));
        let thread = std::thread::spawn(move || {
            namespaces::enter(&namespace).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("0.0.0.0:179").await.unwrap();
                tokio::select! {
                    _ = ended => {}
                    () = listen(listener, shared) => {}
                }
            });
        });
        Self {
            told,
            end: Some(end),
            thread: Some(thread),
        }
    }

    pub fn up(&self) -> usize {
        self.told.lock().unwrap().up
    }

    /// How many have a route, and since when the last of them has.
    pub fn with_route(&self, prefix: &str) -> (usize, Option<Instant>) {
        let told = self.told.lock().unwrap();
        told.routes.get(prefix).copied().unwrap_or_default()
    }
}

async fn listen(listener: TcpListener, told: Arc<Mutex<Told>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            let mut is_up = false;
            // A session that ends is seen by the count going down.
            let _ = speak(stream, &told, &mut is_up).await;
            if is_up {
                told.lock().unwrap().up -= 1;
            }
        });
    }
}

/// One session from its OPEN to its end.
async fn speak(mut stream: TcpStream, told: &Mutex<Told>, is_up: &mut bool) -> std::io::Result<()> {
    let IpAddr::V4(own) = stream.local_addr()?.ip() else {
        return Ok(());
    };
    stream.write_all(&open(own)).await?;
    stream.write_all(&message(4, &[])).await?;
    let mut alive = tokio::time::interval(Duration::from_secs(u64::from(HOLD) / 3));
    let (mut reader, mut writer) = stream.split();
    let mut header = [0; 19];
    let mut filled = 0;
    loop {
        tokio::select! {
            _ = alive.tick() => {
                if *is_up {
                    writer.write_all(&message(4, &[])).await?;
                }
                continue;
            }
            // Cancelling loses nothing: what has been read is in `header`.
            read = reader.read(&mut header[filled..]) => match read? {
                0 => return Ok(()),
                octets => filled += octets,
            },
        }
        if filled < header.len() {
            continue;
        }
        filled = 0;
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length.saturating_sub(19)];
        reader.read_exact(&mut body).await?;
        match header[18] {
            4 if !*is_up => {
                *is_up = true;
                told.lock().unwrap().up += 1;
                writer.write_all(&update(own)).await?;
                // End-of-RIB.
                writer.write_all(&message(2, &[0; 4])).await?;
            }
            2 => take(&body, told),
            3 => return Ok(()),
            _ => {}
        }
    }
}

/// The block that the node at an address announces, within 10.200.0.0/14.
pub fn block_of(address: Ipv4Addr) -> Ipv4Addr {
    let [_, _, high, low] = address.octets();
    let number = (u32::from(high) << 8) | u32::from(low);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 200, 0, 0)) + (number << 6))
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    [&MARKER[..], &length.to_be_bytes(), &[kind], body].concat()
}

/// OPEN with the capabilities for IPv4 unicast and AS numbers of four octets.
fn open(own: Ipv4Addr) -> Vec<u8> {
    let asn = u32::from(AS).to_be_bytes();
    let capabilities = [&[1, 4, 0, 1, 0, 1, 65, 4][..], &asn].concat();
    let length = u8::try_from(capabilities.len()).unwrap();
    let body = [
        &[4][..],
        &AS.to_be_bytes(),
        &HOLD.to_be_bytes(),
        &own.octets(),
        &[length + 2, 2, length],
        &capabilities,
    ];
    message(1, &body.concat())
}

/// ORIGIN, an empty AS_PATH, NEXT_HOP, LOCAL_PREF, and the block.
fn update(own: Ipv4Addr) -> Vec<u8> {
    let attributes = [
        &[0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4][..],
        &own.octets(),
        &[0x40, 5, 4, 0, 0, 0, 100],
    ]
    .concat();
    let length = u16::try_from(attributes.len()).unwrap();
    let block = block_of(own).octets();
    let body = [
        &[0, 0][..],
        &length.to_be_bytes(),
        &attributes,
        &[26],
        &block,
    ];
    message(2, &body.concat())
}

/// Takes down what an UPDATE withdraws and announces.
fn take(body: &[u8], told: &Mutex<Told>) {
    let word = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    let withdrawn = word(0);
    let attributes = word(2 + withdrawn);
    let (gone, come) = (&body[2..2 + withdrawn], &body[4 + withdrawn + attributes..]);
    let mut told = told.lock().unwrap();
    for prefix in prefixes(gone) {
        let entry = told.routes.entry(prefix).or_default();
        *entry = (entry.0.saturating_sub(1), Some(Instant::now()));
    }
    for prefix in prefixes(come) {
        let entry = told.routes.entry(prefix).or_default();
        *entry = (entry.0 + 1, Some(Instant::now()));
    }
}

fn prefixes(mut octets: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((length, rest)) = octets.split_first() {
        let count = usize::from(length.div_ceil(8));
        let mut address = [0; 4];
        address[..count].copy_from_slice(&rest[..count]);
        found.push(format!("{}/{length}", Ipv4Addr::from(address)));
        octets = &rest[count..];
    }
    found
}
