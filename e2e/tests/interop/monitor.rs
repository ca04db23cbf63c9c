//! The third peer: a BGP session that writes down what it is told. It shares no code with the speaker that is tested, and knows
//! just enough of RFC 4271, 4760, 5492 and 6793 for that.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use margay_e2e::lab::namespaces;
use rustix::net::{AddressFamily, SocketType};

use crate::process::wait;

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

/// How the session is made.
#[derive(Debug, Clone)]
pub struct Plan {
    pub namespace: String,
    pub local: String,
    pub remote: String,
    pub asn: u32,
    pub hold_time: u16,
    /// IPv4 prefixes to announce.
    pub announce: Vec<String>,
    /// On iBGP routes carry LOCAL_PREF and no AS.
    pub internal: bool,
}

impl Plan {
    pub fn new(namespace: &str, local: &str, remote: &str, asn: u32) -> Self {
        Self {
            namespace: namespace.to_owned(),
            local: local.to_owned(),
            remote: remote.to_owned(),
            asn,
            hold_time: 90,
            announce: Vec::new(),
            internal: false,
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Up,
    Announced(String, Attributes),
    Withdrawn(String),
    EndOfRib,
    /// Code and subcode.
    Notified(u8, u8),
    Down(String),
}

/// What of a route's attributes is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    pub as_path: Vec<u32>,
    pub originator: Option<Ipv4Addr>,
    pub clusters: Vec<Ipv4Addr>,
}

/// A running session.
pub struct Monitor {
    events: Arc<Mutex<Vec<Event>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Dials until somebody answers, and again whenever the session ends.
    pub fn start(plan: Plan) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, ended) = (events.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            if let Err(error) = namespaces::enter(&plan.namespace) {
                return note(&log, Event::Down(error.to_string()));
            }
            while !ended.load(Ordering::Relaxed) {
                let session = dial(&plan).and_then(|stream| converse(stream, &plan, &log, &ended));
                if let Err(error) = session
                    && error.kind() != std::io::ErrorKind::ConnectionRefused
                {
                    note(&log, Event::Down(error.to_string()));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self {
            events,
            stop,
            thread: Some(thread),
        }
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// Forgets what was so far.
    pub fn forget(&self) {
        self.events.lock().unwrap().clear();
    }

    /// The prefixes that have been announced and not withdrawn.
    pub fn held(&self) -> BTreeSet<String> {
        let mut held = BTreeSet::new();
        for event in self.events() {
            match event {
                Event::Announced(prefix, _) => _ = held.insert(prefix),
                Event::Withdrawn(prefix) => _ = held.remove(&prefix),
                Event::Up | Event::Down(_) => held.clear(),
                Event::EndOfRib | Event::Notified(..) => {}
            }
        }
        held
    }

    pub fn has(&self, prefix: &str) -> Result<Attributes, String> {
        wait(&format!("{prefix} at the third peer"), || {
            if self.held().contains(prefix) {
                Ok(())
            } else {
                Err(format!("{:?}", self.events()))
            }
        })?;
        let announced = self
            .events()
            .into_iter()
            .rev()
            .find_map(|event| match event {
                Event::Announced(name, attributes) if name == prefix => Some(attributes),
                _ => None,
            });
        announced.ok_or_else(|| format!("{prefix} went away"))
    }

    /// An error if a route went away, or the session.
    pub fn lost_nothing(&self) -> Result<(), String> {
        let lost = |event: &Event| {
            matches!(
                event,
                Event::Withdrawn(_) | Event::Down(_) | Event::Notified(..)
            )
        };
        match self.events().into_iter().find(lost) {
            Some(event) => Err(format!("the third peer saw {event:?}")),
            None => Ok(()),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn note(log: &Mutex<Vec<Event>>, event: Event) {
    log.lock().unwrap().push(event);
}

fn dial(plan: &Plan) -> std::io::Result<TcpStream> {
    let parse = |text: &str, port| {
        let address: Result<IpAddr, _> = text.parse();
        address
            .map(|address| SocketAddr::new(address, port))
            .map_err(std::io::Error::other)
    };
    let (local, remote) = (parse(&plan.local, 0)?, parse(&plan.remote, 179)?);
    let family = if local.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket: OwnedFd = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &local)?;
    rustix::net::connect(&socket, &remote)?;
    Ok(socket.into())
}

/// One session, to its end.
fn converse(
    mut stream: TcpStream,
    plan: &Plan,
    log: &Mutex<Vec<Event>>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.write_all(&open(plan))?;
    let mut octets = Vec::new();
    let mut up = false;
    let mut spoke = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if spoke.elapsed() > Duration::from_secs(2) && up {
            stream.write_all(&message(KEEPALIVE, &[]))?;
            spoke = Instant::now();
        }
        let mut buffer = [0; 8192];
        match stream.read(&mut buffer) {
            Ok(0) => return Err(std::io::Error::other("the peer closed the connection")),
            Ok(length) => octets.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        while let Some((kind, body)) = take(&mut octets) {
            match kind {
                OPEN => stream.write_all(&message(KEEPALIVE, &[]))?,
                KEEPALIVE if !up => {
                    up = true;
                    note(log, Event::Up);
                    for prefix in &plan.announce {
                        stream.write_all(&announcement(plan, prefix))?;
                    }
                    stream.write_all(&message(UPDATE, &[0; 4]))?;
                }
                UPDATE => update(&body, log),
                NOTIFICATION => note(log, Event::Notified(octet(&body, 0), octet(&body, 1))),
                _ => {}
            }
        }
    }
    Ok(())
}

fn octet(body: &[u8], at: usize) -> u8 {
    body.get(at).copied().unwrap_or_default()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut all = vec![0xff; 16];
    all.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    all.push(kind);
    all.extend(body);
    all
}

/// Takes one message off the front.
fn take(octets: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let length = usize::from(u16::from_be_bytes([*octets.get(16)?, *octets.get(17)?]));
    if length < 19 || octets.len() < length {
        return None;
    }
    let message: Vec<u8> = octets.drain(..length).collect();
    Some((message[18], message[19..].to_vec()))
}

fn open(plan: &Plan) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 65, 4];
    capabilities.extend(plan.asn.to_be_bytes());
    // Graceful restart without a family: it promises an End-of-RIB and nothing else (RFC 4724 section 4).
    capabilities.extend([64, 2, 0, 0]);
    let mut body = vec![4];
    body.extend(u16::try_from(plan.asn).unwrap_or(23456).to_be_bytes());
    body.extend(plan.hold_time.to_be_bytes());
    let id: Ipv4Addr = plan.local.parse().unwrap_or(Ipv4Addr::new(10, 96, 0, 1));
    body.extend(id.octets());
    let length = u8::try_from(capabilities.len()).unwrap();
    body.extend([length + 2, 2, length]);
    body.extend(capabilities);
    message(OPEN, &body)
}

fn announcement(plan: &Plan, prefix: &str) -> Vec<u8> {
    let mut attributes = vec![0x40, 1, 1, 0];
    if plan.internal {
        attributes.extend([0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100]);
    } else {
        attributes.extend([0x40, 2, 6, 2, 1]);
        attributes.extend(plan.asn.to_be_bytes());
    }
    let next_hop: Ipv4Addr = plan.local.parse().unwrap();
    attributes.extend([0x40, 3, 4]);
    attributes.extend(next_hop.octets());
    let (address, length) = prefix.split_once('/').unwrap();
    let (address, length): (Ipv4Addr, u8) = (address.parse().unwrap(), length.parse().unwrap());
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.push(length);
    body.extend(&address.octets()[..usize::from(length).div_ceil(8)]);
    message(UPDATE, &body)
}

/// Notes the routes of an UPDATE. What cannot be read is noted as the end of the session, which fails the cell.
fn update(body: &[u8], log: &Mutex<Vec<Event>>) {
    if read_update(body, log).is_none() {
        note(
            log,
            Event::Down(format!("an UPDATE that cannot be read: {body:02x?}")),
        );
    }
}

fn read_update(body: &[u8], log: &Mutex<Vec<Event>>) -> Option<()> {
    let (withdrawn, rest) = sized(body)?;
    let (attributes, routes) = sized(rest)?;
    if withdrawn.is_empty() && attributes.is_empty() && routes.is_empty() {
        note(log, Event::EndOfRib);
    }
    for prefix in prefixes(withdrawn, false)? {
        note(log, Event::Withdrawn(prefix));
    }
    let mut kept = Attributes::default();
    let mut reached = prefixes(routes, false)?;
    let mut rest = attributes;
    while !rest.is_empty() {
        let (kind, value);
        (kind, value, rest) = attribute(rest)?;
        match kind {
            2 => kept.as_path = as_path(value)?,
            9 => kept.originator = Some(address(value)?),
            10 => kept.clusters = value.chunks(4).map(address).collect::<Option<_>>()?,
            14 => {
                let next_hop = usize::from(*value.get(3)?);
                reached.extend(prefixes(
                    value.get(5 + next_hop..)?,
                    value.get(1) == Some(&2),
                )?);
            }
            15 => {
                let routes = value.get(3..)?;
                if routes.is_empty() {
                    note(log, Event::EndOfRib);
                }
                for prefix in prefixes(routes, value.get(1) == Some(&2))? {
                    note(log, Event::Withdrawn(prefix));
                }
            }
            _ => {}
        }
    }
    for prefix in reached {
        note(log, Event::Announced(prefix, kept.clone()));
    }
    Some(())
}

/// A field that begins with its length in two octets, and what follows.
fn sized(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_be_bytes([*octets.first()?, *octets.get(1)?]));
    octets.get(2..)?.split_at_checked(length)
}

/// One attribute: type, value, what follows.
fn attribute(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let kind = *octets.get(1)?;
    let (value, rest) = if octets.first()? & 0x10 != 0 {
        sized(&octets[2..])?
    } else {
        octets
            .get(3..)?
            .split_at_checked(usize::from(*octets.get(2)?))?
    };
    Some((kind, value, rest))
}

fn address(octets: &[u8]) -> Option<Ipv4Addr> {
    let four: [u8; 4] = octets.try_into().ok()?;
    Some(four.into())
}

fn as_path(mut octets: &[u8]) -> Option<Vec<u32>> {
    let mut path = Vec::new();
    while let Some(count) = octets.get(1) {
        let (segment, rest) = octets.get(2..)?.split_at_checked(usize::from(*count) * 4)?;
        path.extend(
            segment
                .chunks(4)
                .map(|asn| u32::from_be_bytes([asn[0], asn[1], asn[2], asn[3]])),
        );
        octets = rest;
    }
    Some(path)
}

fn prefixes(mut octets: &[u8], v6: bool) -> Option<Vec<String>> {
    let mut all = Vec::new();
    while let Some(&length) = octets.first() {
        let (short, rest) = octets
            .get(1..)?
            .split_at_checked(usize::from(length).div_ceil(8))?;
        let mut full = [0; 16];
        full.get_mut(..short.len())?.copy_from_slice(short);
        let address: IpAddr = if v6 {
            Ipv6Addr::from(full).into()
        } else {
            Ipv4Addr::new(full[0], full[1], full[2], full[3]).into()
        };
        all.push(format!("{address}/{length}"));
        octets = rest;
    }
    Some(all)
}
