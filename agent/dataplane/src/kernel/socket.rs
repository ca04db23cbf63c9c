//! Netlink sockets for requests: changes by the batch, and dumps.
//!
//! rtnetlink's own requests wait for each acknowledgement in turn and take a closed connection
//! for success, so messages are sent here as they are: changes through a socket of their own
//! ([`super::batch`]), questions through rtnetlink's connection. Not for events; see
//! [`super::super::monitor`].

use std::num::NonZeroI32;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::ConnectionHandle;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

use tokio::sync::Mutex;

use super::super::error::KernelError;
use super::batch::{BatchSocket, outcome};

/// How long the kernel may take over a dump. It answers within the system call; only
/// an answer lost to a full buffer takes longer, and then for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a dump is begun anew when the table changed under it.
const DUMP_ATTEMPTS: usize = 3;
/// The flag of a dump that the table changed under (linux/netlink.h).
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A socket in the network namespace of the thread that opened it. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    connection: ConnectionHandle<RouteNetlinkMessage>,
    batches: Arc<Mutex<BatchSocket>>,
    /// Held while a dump is under way: the kernel refuses a second one on the same socket (EBUSY).
    dumping: Arc<Mutex<()>>,
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
        tokio::spawn(connection);
        let (batches, port) = BatchSocket::open().map_err(failed)?;
        Ok(Self {
            connection: handle,
            batches: Arc::new(Mutex::new(batches)),
            dumping: Arc::default(),
            port,
        })
    }

    /// The port number that the kernel puts into the events our changes cause.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Sends the messages in order and gives one result for each.
    pub(super) async fn send(
        &self,
        messages: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Vec<Result<(), KernelError>> {
        self.batches.lock().await.send(messages).await
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
        let _alone = self.dumping.lock().await;
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
                    outcome(error.code.map_or(0, NonZeroI32::get), &error.header)?;
                }
                _ => {}
            }
        }
        Err(KernelError::Closed)
    }
}

fn lost() -> KernelError {
    KernelError::Unexpected(format!("no answer within {} s", PATIENCE.as_secs()))
}
