//! Requests by the batch: many messages in one system call, one acknowledgement for all of them.
//!
//! The kernel works through a datagram's messages in order, answers a refused one with an error
//! that carries its number whether it asked for an answer or not, and goes on. So only the last
//! message asks: what was not named before it answers has been done. Not for dumps or events.

use std::future::poll_fn;
use std::time::Duration;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

use super::super::error::{Errno, KernelError};

/// Messages in one system call. If the kernel refuses every one of them, its answers must fit
/// the default receive buffer (212,992 bytes, about 768 a message).
const BATCH: usize = 128;
/// How long the kernel may take over a batch. It answers within the system call; only an answer
/// lost to a full buffer takes longer, and then for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// The length of a message's header, which an error message repeats (linux/netlink.h).
const HEADER: usize = 16;
/// The type of an acknowledgement or error (linux/netlink.h).
const NLMSG_ERROR: u16 = 2;
/// The attribute of an error message that holds the kernel's sentence (linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A socket for batches, in the network namespace of the thread that opened it.
pub(super) struct BatchSocket {
    socket: TokioSocket,
    /// Number of the last message sent.
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for BatchSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchSocket").finish_non_exhaustive()
    }
}

impl BatchSocket {
    /// Opens a socket; gives it and its port number.
    pub(super) fn open() -> std::io::Result<(Self, u32)> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        inner.set_ext_ack(true)?;
        inner.set_cap_ack(true)?;
        let port = inner.bind_auto()?.port_number();
        inner.connect(&SocketAddr::new(0, 0))?;
        let batch = Self {
            socket,
            sequence: 0,
            buffer: Vec::new(),
        };
        Ok((batch, port))
    }

    /// Sends the messages in order and gives one result for each.
    pub(super) async fn send(
        &mut self,
        messages: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Vec<Result<(), KernelError>> {
        let mut results = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter();
        loop {
            let batch: Vec<_> = messages.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return results;
            }
            results.extend(self.send_batch(batch).await);
        }
    }

    async fn send_batch(
        &mut self,
        batch: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Vec<Result<(), KernelError>> {
        let count = batch.len();
        let first = self.sequence.wrapping_add(1);
        self.write(batch);
        let mut answers = Answers {
            first,
            results: (0..count).map(|_| Ok(())).collect(),
            answered: 0,
        };
        let trouble = match tokio::time::timeout(PATIENCE, self.exchange(&mut answers)).await {
            Ok(Ok(())) => return answers.results,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        for result in answers.results.iter_mut().skip(answers.answered) {
            if result.is_ok() {
                *result = Err(KernelError::Unexpected(format!(
                    "{trouble}; the change may or may not have been made"
                )));
            }
        }
        answers.results
    }

    /// Puts the messages into the buffer, numbered; only the last one asks for an answer.
    fn write(&mut self, batch: Vec<(RouteNetlinkMessage, u16)>) {
        self.buffer.clear();
        let last = batch.len().saturating_sub(1);
        for (position, (message, flags)) in batch.into_iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let mut request = NetlinkMessage::from(message);
            request.header.sequence_number = self.sequence;
            request.header.flags = NLM_F_REQUEST | flags;
            if position == last {
                request.header.flags |= NLM_F_ACK;
            }
            request.finalize();
            let start = self.buffer.len();
            let end = start + request.buffer_len();
            self.buffer.resize(end, 0);
            request.serialize(&mut self.buffer[start..end]);
            self.buffer.resize(end.next_multiple_of(4), 0);
        }
    }

    /// Sends the buffer and reads until the last message of the batch has been answered.
    async fn exchange(&mut self, answers: &mut Answers) -> std::io::Result<()> {
        poll_fn(|context| self.socket.poll_send(context, &self.buffer)).await?;
        while !answers.is_complete() {
            self.buffer.clear();
            self.buffer.reserve(8192);
            poll_fn(|context| self.socket.poll_recv(context, &mut self.buffer)).await?;
            answers.take(&self.buffer);
        }
        Ok(())
    }
}

/// The results of one batch as answers come in.
struct Answers {
    /// Number of the batch's first message.
    first: u32,
    results: Vec<Result<(), KernelError>>,
    /// How many of the messages are known to have been worked through.
    answered: usize,
}

impl Answers {
    fn is_complete(&self) -> bool {
        self.answered == self.results.len()
    }

    /// Takes in a datagram of answers; those to earlier batches are passed over.
    fn take(&mut self, mut datagram: &[u8]) {
        while let Some(header) = datagram.get(..HEADER) {
            let length = number(header, 0).max(HEADER as u32) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let position = number(header, 8).wrapping_sub(self.first) as usize;
            let body = datagram.get(HEADER..length).unwrap_or_default();
            if kind == NLMSG_ERROR && position < self.results.len() && body.len() >= 4 {
                self.answered = self.answered.max(position + 1);
                self.results[position] = outcome(number(body, 0).cast_signed(), &body[4..]);
            }
            datagram = datagram
                .get(length.next_multiple_of(4)..)
                .unwrap_or_default();
        }
    }
}

/// The number of four bytes at `offset`, which must be there.
fn number(bytes: &[u8], offset: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_ne_bytes(four)
}

/// What an error code means; `request` is the repeated header with the attributes after it.
pub(super) fn outcome(code: i32, request: &[u8]) -> Result<(), KernelError> {
    match code {
        0 => Ok(()),
        code => Err(KernelError::Refused {
            errno: Errno(code.saturating_abs()),
            message: sentence(request),
        }),
    }
}

/// The kernel's sentence in an error message: attributes follow the repeated request header,
/// each a length and a kind of two bytes, padded to four.
fn sentence(message: &[u8]) -> Option<String> {
    let mut rest = message.get(HEADER..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind == NLMSGERR_ATTR_MSG {
            let text = String::from_utf8_lossy(value);
            return Some(text.trim_end_matches(['\0', '.']).to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(value.len() + 4)
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// An answer to the message `sequence`.
    fn answer(sequence: u32, code: i32, attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + 4 + HEADER + attributes.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(code.to_ne_bytes());
        bytes.extend([0; HEADER]);
        bytes.extend(attributes);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn batch_of(count: usize, first: u32) -> Answers {
        Answers {
            first,
            results: (0..count).map(|_| Ok(())).collect(),
            answered: 0,
        }
    }

    #[test]
    fn a_refused_message_is_told_from_the_others_by_its_number() {
        let mut answers = batch_of(4, u32::MAX);
        answers.take(&answer(u32::MAX - 1, -22, &[]));
        assert!(
            answers.results.iter().all(Result::is_ok),
            "of an earlier batch"
        );
        let why = attribute(NLMSGERR_ATTR_MSG, b"Nexthop has invalid gateway.\0");
        answers.take(&answer(0, -101, &why));
        assert!(!answers.is_complete());
        // Two answers in one datagram.
        let mut both = answer(1, -17, &[]);
        both.extend(answer(2, 0, &[]));
        answers.take(&both);
        assert!(answers.is_complete());
        let refused: Vec<bool> = answers.results.iter().map(Result::is_err).collect();
        assert_eq!(refused, [false, true, true, false]);
        let text = answers.results[1].as_ref().unwrap_err().to_string();
        assert!(text.contains("Nexthop has invalid gateway"), "{text}");
    }

    #[test]
    fn answers_cut_short_do_no_harm() {
        let whole = answer(7, -22, &attribute(NLMSGERR_ATTR_MSG, b"text"));
        for length in 0..whole.len() {
            let mut answers = batch_of(1, 7);
            answers.take(&whole[..length]);
        }
        let mut zero = whole.clone();
        zero[..4].fill(0);
        batch_of(1, 7).take(&zero);
        for length in 0..whole.len() - HEADER - 4 {
            sentence(&whole[HEADER + 4..][..length]);
        }
    }
}
