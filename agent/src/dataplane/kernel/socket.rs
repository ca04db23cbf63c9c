//! A netlink socket for requests: batches with one acknowledgement each, and dumps.
//!
//! rtnetlink's own requests wait for each acknowledgement in turn and take a closed connection
//! for success, so messages are sent here as they are. Not for events; see
//! [`super::super::monitor`].

use std::time::Duration;

use futures::StreamExt;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::ConnectionHandle;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

use super::super::error::{Errno, KernelError};

/// How many requests are sent before their acknowledgements are read: what the kernel queues for
/// us meanwhile must fit the default receive buffer (212,992 bytes, about 768 a message).
const BATCH: usize = 128;
/// How long the kernel may take over a batch or a dump. It answers within the system call; only
/// an answer lost to a full buffer takes longer, and then for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a dump is begun anew when the table changed under it.
const DUMP_ATTEMPTS: usize = 3;
/// The flag of a dump that the table changed under (linux/netlink.h).
const NLM_F_DUMP_INTR: u16 = 0x10;
/// The length of the request's header, which an error message repeats.
const REQUEST_HEADER: usize = 16;
/// The attribute of an error message that holds the kernel's sentence (linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A socket in the network namespace of the thread that opened it. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    connection: ConnectionHandle<RouteNetlinkMessage>,
    port: u32,
}

impl Socket {
    /// Opens a socket and spawns its task on the current tokio runtime.
    pub(super) fn open() -> Result<Self, KernelError> {
        let failed = |source| KernelError::Io {
            what: "cannot open a netlink socket".to_owned(),
            source,
        };
        let (mut connection, handle, _) = rtnetlink::proto::new_connection_with_socket::<
            RouteNetlinkMessage,
            TokioSocket,
        >(NETLINK_ROUTE)
        .map_err(failed)?;
        // An acknowledgement that is passed on tells success from a closed connection.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let socket = connection.socket_mut().socket_mut();
        // Without this a dump ignores its filter and returns every table.
        socket.set_netlink_get_strict_chk(true).map_err(failed)?;
        socket.set_ext_ack(true).map_err(failed)?;
        socket.set_cap_ack(true).map_err(failed)?;
        let port = socket.bind_auto().map_err(failed)?.port_number();
        tokio::spawn(connection);
        Ok(Self {
            connection: handle,
            port,
        })
    }

    /// The socket's port number, which the kernel puts into the events this socket causes.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Sends the messages in order and gives one result for each.
    pub(super) async fn send(
        &self,
        messages: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Vec<Result<(), KernelError>> {
        let mut results = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter();
        loop {
            let batch: Vec<_> = messages.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return results;
            }
            let expected = results.len() + batch.len();
            let gave_up = tokio::time::timeout(PATIENCE, self.send_batch(batch, &mut results))
                .await
                .is_err();
            while results.len() < expected {
                results.push(Err(if gave_up { lost() } else { KernelError::Closed }));
            }
        }
    }

    async fn send_batch(
        &self,
        batch: Vec<(RouteNetlinkMessage, u16)>,
        results: &mut Vec<Result<(), KernelError>>,
    ) {
        let count = batch.len();
        let requests = batch.into_iter().map(|(message, flags)| {
            let mut request = NetlinkMessage::from(message);
            request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
            request
        });
        let destination = SocketAddr::new(0, 0);
        let Ok(mut responses) = self.connection.request_batch(requests, destination) else {
            return;
        };
        // The kernel works through a socket's requests in order, so the n-th acknowledgement is
        // the n-th request's.
        let mut answered = 0;
        while answered < count {
            let Some(response) = responses.next().await else {
                return;
            };
            if let NetlinkPayload::Error(error) = response.payload {
                answered += 1;
                results.push(outcome(&error));
            }
        }
    }

    /// Sends one message.
    pub(super) async fn send_one(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), KernelError> {
        let results = self.send(vec![(message, flags)]).await;
        results
            .into_iter()
            .next()
            .unwrap_or(Err(KernelError::Closed))
    }

    /// Everything the kernel lists for `message`; begun anew when the table changed meanwhile.
    pub(super) async fn dump(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        let mut attempt = 1;
        loop {
            let (items, interrupted) = self
                .collect(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)
                .await?;
            // A table that changes all the time is taken as it is: the next resync sees the rest.
            if !interrupted || attempt == DUMP_ATTEMPTS {
                return Ok(items);
            }
            attempt += 1;
        }
    }

    /// The one answer to `message`.
    pub(super) async fn get(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, KernelError> {
        let (items, _) = self.collect(message, NLM_F_REQUEST).await?;
        items.into_iter().next().ok_or(KernelError::Closed)
    }

    async fn collect(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), KernelError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let read = self.read_answer(request, flags & NLM_F_DUMP == NLM_F_DUMP);
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(result) => result,
            Err(_) => Err(lost()),
        }
    }

    async fn read_answer(
        &self,
        request: NetlinkMessage<RouteNetlinkMessage>,
        dump: bool,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), KernelError> {
        let mut responses = self
            .connection
            .request(request, SocketAddr::new(0, 0))
            .map_err(|_| KernelError::Closed)?;
        let mut items = Vec::new();
        let mut interrupted = false;
        while let Some(response) = responses.next().await {
            interrupted |= response.header.flags & NLM_F_DUMP_INTR != 0;
            match response.payload {
                NetlinkPayload::InnerMessage(item) => {
                    items.push(item);
                    if !dump {
                        return Ok((items, false));
                    }
                }
                NetlinkPayload::Done(_) => return Ok((items, interrupted)),
                NetlinkPayload::Error(error) => {
                    outcome(&error)?;
                }
                _ => {}
            }
        }
        Err(KernelError::Closed)
    }
}

fn lost() -> KernelError {
    KernelError::Unexpected(format!(
        "no answer within {} s; the change may or may not have been made",
        PATIENCE.as_secs()
    ))
}

fn outcome(error: &ErrorMessage) -> Result<(), KernelError> {
    match error.code {
        None => Ok(()),
        Some(code) => Err(KernelError::Refused {
            errno: Errno(code.get().saturating_abs()),
            message: sentence(&error.header),
        }),
    }
}

/// The kernel's sentence in an error message: attributes follow the repeated request header,
/// each a length and a kind of two bytes, padded to four.
fn sentence(message: &[u8]) -> Option<String> {
    let mut rest = message.get(REQUEST_HEADER..)?;
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

    #[test]
    fn the_kernels_sentence_is_found_behind_other_attributes() {
        let mut message = vec![0; REQUEST_HEADER];
        message.extend(attribute(2, &[1, 2, 3, 4]));
        message.extend(attribute(
            NLMSGERR_ATTR_MSG,
            b"Nexthop has invalid gateway.\0",
        ));
        assert_eq!(
            sentence(&message).as_deref(),
            Some("Nexthop has invalid gateway")
        );
    }

    #[test]
    fn truncated_error_messages_have_no_sentence_and_do_no_harm() {
        let mut message = vec![0; REQUEST_HEADER];
        message.extend(attribute(NLMSGERR_ATTR_MSG, b"text"));
        for length in 0..message.len() {
            assert_eq!(sentence(&message[..length]), None, "{length} bytes");
        }
        let mut zero = vec![0; REQUEST_HEADER];
        zero.extend([0; 8]);
        assert_eq!(sentence(&zero), None);
    }
}
