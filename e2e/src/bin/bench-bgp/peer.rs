//! The far end of a session, by hand: handshake, octets out, prefixes in counted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrV4, SocketType};

const HEADER: usize = 19;

/// What a peer has heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    announced: AtomicU64,
    withdrawn: AtomicU64,
    /// Nanoseconds after `Peer::begun` of the last prefix announced and the first one withdrawn.
    last_announced: AtomicU64,
    first_withdrawn: AtomicU64,
    last_withdrawn: AtomicU64,
}

/// An established session.
pub(crate) struct Peer {
    stream: TcpStream,
    heard: Arc<Heard>,
    begun: Instant,
}

/// How to open a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    pub(crate) local: Ipv4Addr,
    pub(crate) remote: Ipv4Addr,
    pub(crate) asn: u32,
    pub(crate) hold: u16,
}

impl Session {
    /// Opens the session from the calling thread's namespace and reads from then on, on a thread
    /// of its own; tries again until `deadline`.
    pub(crate) fn open(self, deadline: Instant) -> Result<Peer> {
        loop {
            match self.try_open() {
                Ok(stream) => return Peer::start(stream),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(format!("{} → {}", self.local, self.remote)));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn try_open(self) -> Result<TcpStream> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(self.local, 0))?;
        sockopt::set_socket_timeout(
            &socket,
            sockopt::Timeout::Send,
            Some(Duration::from_secs(2)),
        )?;
        rustix::net::connect(&socket, &SocketAddrV4::new(self.remote, 179))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, None)?;
        let mut stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&self.open_message())?;
        expect(&mut stream, 1)?;
        stream.write_all(&KEEPALIVE)?;
        expect(&mut stream, 4)?;
        stream.set_read_timeout(None)?;
        Ok(stream)
    }

    fn open_message(self) -> Vec<u8> {
        let short = u16::try_from(self.asn).unwrap_or(23_456);
        let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
        capabilities.extend(self.asn.to_be_bytes());
        let mut body = vec![4];
        body.extend(short.to_be_bytes());
        body.extend(self.hold.to_be_bytes());
        body.extend(self.local.octets());
        body.extend([capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
        body.extend(capabilities);
        message(1, &body)
    }
}

/// A KEEPALIVE.
pub(crate) const KEEPALIVE: [u8; HEADER] = {
    let mut octets = [0xff; HEADER];
    octets[16] = 0;
    octets[17] = 19;
    octets[18] = 4;
    octets
};

/// A message with its header.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend(((HEADER + body.len()) as u16).to_be_bytes());
    octets.push(kind);
    octets.extend(body);
    octets
}

/// Reads one message, which must be of this kind.
fn expect(stream: &mut TcpStream, wanted: u8) -> Result<()> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let mut body = vec![0; length.saturating_sub(HEADER)];
    stream.read_exact(&mut body)?;
    if header[18] != wanted {
        bail!(
            "message of type {} ({body:?}) instead of {wanted}",
            header[18]
        );
    }
    Ok(())
}

impl Peer {
    fn start(stream: TcpStream) -> Result<Self> {
        let begun = Instant::now();
        let heard = Arc::new(Heard::default());
        let (mut reader, sink) = (stream.try_clone()?, Arc::clone(&heard));
        std::thread::Builder::new()
            .stack_size(128 * 1024)
            .spawn(move || {
                // What a busy machine adds to a time must not be the observer's own waiting.
                let _ = rustix::process::setpriority_process(None, -19);
                listen(&mut reader, &sink, begun);
            })?;
        Ok(Self {
            stream,
            heard,
            begun,
        })
    }

    pub(crate) fn send(&mut self, octets: &[u8]) -> Result<()> {
        self.stream
            .write_all(octets)
            .context("the daemon closed the session")
    }

    /// Prefixes announced to this peer.
    pub(crate) fn announced(&self) -> u64 {
        self.heard.announced.load(Ordering::Acquire)
    }

    /// Prefixes withdrawn from this peer.
    pub(crate) fn withdrawn(&self) -> u64 {
        self.heard.withdrawn.load(Ordering::Acquire)
    }

    /// When the last announcement came.
    pub(crate) fn last_announced(&self) -> Instant {
        self.at(&self.heard.last_announced)
    }

    /// When the first and the last withdrawal came.
    pub(crate) fn withdrawals(&self) -> (Instant, Instant) {
        (
            self.at(&self.heard.first_withdrawn),
            self.at(&self.heard.last_withdrawn),
        )
    }

    fn at(&self, nanoseconds: &AtomicU64) -> Instant {
        self.begun + Duration::from_nanos(nanoseconds.load(Ordering::Acquire))
    }

    /// Ends the connection with a RST, which disconnecting sends at once, whoever else holds the
    /// socket (the reader does).
    pub(crate) fn reset(self) -> Result<()> {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?;
        rustix::net::connect_unspec(&self.stream)?;
        Ok(())
    }

    /// Ends the connection with a FIN.
    pub(crate) fn finish(&self) -> Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)?;
        Ok(())
    }

    /// The way out, for a thread of its own.
    pub(crate) fn sink(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ends the reader, too.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn listen(stream: &mut TcpStream, heard: &Heard, begun: Instant) {
    let mut buffer = vec![0; 128 * 1024];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => return,
            Ok(count) => filled += count,
        }
        let now = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut start = 0;
        while filled - start >= HEADER {
            let length = usize::from(u16::from_be_bytes([buffer[start + 16], buffer[start + 17]]));
            if length < HEADER || filled - start < length {
                break;
            }
            if buffer[start + 18] == 2 {
                count(&buffer[start + HEADER..start + length], heard, now);
            }
            start += length;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

fn count(body: &[u8], heard: &Heard, now: u64) {
    let number = |at: usize| {
        body.get(at..at + 2)
            .map(|two| usize::from(u16::from_be_bytes([two[0], two[1]])))
    };
    let Some(withdrawn) = number(0) else { return };
    let Some(attributes) = number(2 + withdrawn) else {
        return;
    };
    let gone = prefixes(body.get(2..2 + withdrawn).unwrap_or_default());
    let come = prefixes(body.get(4 + withdrawn + attributes..).unwrap_or_default());
    if come > 0 {
        heard.last_announced.store(now, Ordering::Release);
        heard.announced.fetch_add(come, Ordering::AcqRel);
    }
    if gone > 0 {
        let _ = heard
            .first_withdrawn
            .compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
        heard.last_withdrawn.store(now, Ordering::Release);
        heard.withdrawn.fetch_add(gone, Ordering::AcqRel);
    }
}

fn prefixes(mut nlri: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(bits) = nlri.first() {
        nlri = nlri
            .get(1 + usize::from(*bits).div_ceil(8)..)
            .unwrap_or_default();
        count += 1;
    }
    count
}
