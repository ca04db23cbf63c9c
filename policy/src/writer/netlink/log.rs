//! Packets that the table reports (linux/netfilter/nfnetlink_log.h), read by group.
//!
//! The kernel queues a bounded number of bytes for a reader and drops what is beyond; the numbers it gives the reports
//! tell how many. One program at a time reads a group of a network namespace.

use std::{io, time::Duration};

use rustix::{
    io::Errno,
    net::{
        RecvFlags, recv,
        sockopt::{Timeout, set_socket_recv_buffer_size, set_socket_timeout},
    },
};

use super::{
    super::Error,
    message::{Attributes, attribute, text},
    socket::{Socket, split},
};
use crate::{packet::Headers, ruleset::Report};

const SUBSYSTEM: u16 = 4 << 8;
const PACKET: u16 = SUBSYSTEM;
const CONFIG: u16 = SUBSYSTEM | 1;

// Attributes of a configuration.
const COMMAND: u16 = 1;
const MODE: u16 = 2;
const TIMEOUT: u16 = 4;
const FLAGS: u16 = 6;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// Reports are numbered.
const NUMBERED: u16 = 1;

// Attributes of a report.
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
const NUMBER: u16 = 12;

/// How many bytes the kernel queues for us.
const QUEUE: usize = 512 * 1024;
/// How long the kernel may gather reports, in hundredths of a second.
const GATHER: u32 = 10;

/// A reported packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Why it is reported.
    pub report: Report,
    /// What it was.
    pub headers: Headers,
}

/// What one look at the queue brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// The packets, in their order.
    pub packets: Vec<Logged>,
    /// How many reports the kernel dropped before or among them.
    pub lost: u64,
}

/// A reader of the table's reports.
#[derive(Debug)]
pub struct PacketLog {
    socket: Socket,
    /// The number that the next report should have.
    next: Option<u32>,
}

impl PacketLog {
    /// Reads the group of our reports in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel has no nfnetlink_log, another program reads the group, or a right is missing.
    pub fn open() -> Result<Self, Error> {
        let opened = |error: io::Error| Error::Refused(format!("netlink socket: {error}"));
        let mut socket = Socket::open().map_err(opened)?;
        let configure = |socket: &mut Socket, kind: u16, value: &[u8]| {
            let mut order = Attributes::default();
            order.put(kind, value);
            socket.order_of(CONFIG, (0, Report::GROUP), &order)
        };
        configure(&mut socket, COMMAND, &[BIND])?;
        let [a, b, c, d] = Report::SNAPLEN.to_be_bytes();
        configure(&mut socket, MODE, &[a, b, c, d, COPY_PACKET, 0])?;
        configure(&mut socket, TIMEOUT, &GATHER.to_be_bytes())?;
        configure(&mut socket, FLAGS, &NUMBERED.to_be_bytes())?;
        // A smaller queue loses sooner, no more.
        let _ = set_socket_recv_buffer_size(socket.fd(), QUEUE);
        Ok(Self { socket, next: None })
    }

    /// Waits for reports for at most this long; none may come.
    ///
    /// # Errors
    /// The socket fails for good.
    pub fn receive(&mut self, patience: Duration) -> io::Result<Reports> {
        set_socket_timeout(self.socket.fd(), Timeout::Recv, Some(patience))?;
        let mut reports = Reports::default();
        let (fd, buffer) = self.socket.parts();
        let length = match recv(fd, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => length,
            // What was lost shows in the numbers of the next ones.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => return Ok(reports),
            Err(error) => return Err(error.into()),
        };
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, _, payload, after)) = split(rest) {
            rest = after;
            let (PACKET, Some(body)) = (kind, payload.get(4..)) else {
                continue;
            };
            if let Some(number) = attribute(body, NUMBER).and_then(<[u8]>::first_chunk) {
                let number = u32::from_be_bytes(*number);
                if let Some(expected) = self.next {
                    reports.lost += u64::from(number.wrapping_sub(expected));
                }
                self.next = Some(number.wrapping_add(1));
            }
            reports.packets.extend(read(body));
        }
        Ok(reports)
    }
}

fn read(body: &[u8]) -> Option<Logged> {
    let prefix = text(attribute(body, PREFIX)?);
    Some(Logged {
        report: prefix.parse().ok()?,
        headers: Headers::read(attribute(body, PAYLOAD)?)?,
    })
}
