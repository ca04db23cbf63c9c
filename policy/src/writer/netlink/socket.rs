//! The socket: a batch out, the kernel's answer in.

use std::{io, time::Duration};

use rustix::{
    fd::OwnedFd,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, sendto, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::{
    super::Error,
    message::{Attributes, Batch, write},
};

/// How long the kernel may take. It answers within the system call; only an answer lost takes longer, and then for ever.
const PATIENCE: Duration = Duration::from_secs(10);
/// The type of an acknowledgement or an error (linux/netlink.h).
const NLMSG_ERROR: u16 = 2;
/// The type of a dump's end (linux/netlink.h).
const NLMSG_DONE: u16 = 3;
/// An answer ends with an acknowledgement (`NLM_F_ACK`).
pub(super) const ACKNOWLEDGED: u16 = 4;
/// Everything there is (`NLM_F_DUMP`).
pub(super) const DUMP: u16 = 0x300;
/// The length of a message's header (linux/netlink.h).
const HEADER: usize = 16;

#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    next: u32,
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self {
            fd,
            buffer: vec![0; 32 * 1024],
            next: 1,
        })
    }

    /// Sends the batch and waits for what the kernel says to it.
    pub(super) fn send(&mut self, batch: Batch) -> Result<(), Error> {
        let first = self.next;
        let (bytes, last) = batch.finish(first);
        self.next = last.wrapping_add(2);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.fd, &bytes, SendFlags::empty(), &kernel).map_err(refused)?;
        let result = self.answer(first, last);
        if result.is_err() {
            // Further errors about the same batch must not be taken for answers to the next one.
            while recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        }
        result
    }

    /// Everything the kernel lists for a question: for each entry what follows its headers.
    pub(super) fn dump(
        &mut self,
        kind: u16,
        family: u8,
        question: &Attributes,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let mut entries = Vec::new();
        self.each((kind, DUMP), family, question, |entry| {
            entries.push(entry.to_vec());
        })?;
        Ok(entries)
    }

    /// Shows each entry of the kernel's answer, which may be longer than what memory should be taken for.
    pub(super) fn each(
        &mut self,
        (kind, flags): (u16, u16),
        family: u8,
        question: &Attributes,
        mut show: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let sequence = self.ask(kind, flags, family, question)?;
        loop {
            let length = self.receive()?;
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while let Some((kind, number, payload, after)) = split(rest) {
                rest = after;
                if number != sequence {
                    continue;
                }
                let code = payload
                    .first_chunk()
                    .map(|bytes| i32::from_ne_bytes(*bytes));
                match (kind, code) {
                    (NLMSG_DONE, _) | (NLMSG_ERROR, Some(0)) => return Ok(()),
                    (NLMSG_ERROR, Some(code)) => {
                        return Err(refused(rustix::io::Errno::from_raw_os_error(-code)));
                    }
                    _ => show(payload.get(4..).unwrap_or_default()),
                }
            }
        }
    }

    /// Sends one message outside of a batch and waits until it is done.
    pub(super) fn order(&mut self, kind: u16, family: u8, order: &Attributes) -> Result<(), Error> {
        let sequence = self.ask(kind, ACKNOWLEDGED, family, order)?;
        self.answer(sequence, sequence)
    }

    /// As [`Self::order`], of a family and a resource, which is what logs are told apart by.
    pub(super) fn order_of(
        &mut self,
        kind: u16,
        about: (u8, u16),
        order: &Attributes,
    ) -> Result<(), Error> {
        let sequence = self.ask_of(kind, ACKNOWLEDGED, about, order)?;
        self.answer(sequence, sequence)
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// What is needed to read from it otherwise.
    pub(super) fn parts(&mut self) -> (&OwnedFd, &mut [u8]) {
        (&self.fd, &mut self.buffer)
    }

    fn ask(&mut self, kind: u16, flags: u16, family: u8, body: &Attributes) -> Result<u32, Error> {
        self.ask_of(kind, flags, (family, 0), body)
    }

    fn ask_of(
        &mut self,
        kind: u16,
        flags: u16,
        about: (u8, u16),
        body: &Attributes,
    ) -> Result<u32, Error> {
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        let mut bytes = Vec::new();
        write(&mut bytes, kind, flags, sequence, about, body.bytes());
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.fd, &bytes, SendFlags::empty(), &kernel).map_err(refused)?;
        Ok(sequence)
    }

    fn receive(&mut self) -> Result<usize, Error> {
        let received = recv(&self.fd, &mut self.buffer[..], RecvFlags::empty());
        match received {
            Ok((length, _)) => Ok(length),
            Err(rustix::io::Errno::AGAIN) => Err(Error::Timeout(PATIENCE)),
            Err(errno) => Err(refused(errno)),
        }
    }

    fn answer(&mut self, first: u32, last: u32) -> Result<(), Error> {
        loop {
            let length = self.receive()?;
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while let Some((kind, sequence, payload, after)) = split(rest) {
                rest = after;
                let code = payload
                    .first_chunk()
                    .map(|bytes| i32::from_ne_bytes(*bytes));
                // Answers to an earlier batch that was given up.
                let ours = sequence.wrapping_sub(first) <= last.wrapping_sub(first).wrapping_add(1);
                match code {
                    Some(code) if kind == NLMSG_ERROR && ours => {
                        if code != 0 {
                            return Err(refused(rustix::io::Errno::from_raw_os_error(-code)));
                        }
                        if sequence == last {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A message's type, number and payload, and what follows it.
pub(super) fn split(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    let payload = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, sequence, payload, after))
}

fn refused(errno: rustix::io::Errno) -> Error {
    use rustix::io::Errno;
    let text = io::Error::from(errno).to_string();
    match errno {
        Errno::NOENT => Error::Missing(text),
        Errno::EXIST => Error::Exists(text),
        Errno::BUSY => Error::Busy(text),
        Errno::NFILE => Error::Full(text),
        Errno::PERM | Errno::ACCESS => Error::Permission(text),
        _ => Error::Refused(text),
    }
}
