//! The socket that the plugin speaks to: one line of JSON in, one out, then the end.
//!
//! The socket is for root alone. Sizes, times and the number of connections are bounded all the
//! same. Operations of one container come one after the other; an operation that is slower than
//! its caller waits is still brought to its end, and the caller's next one waits for it.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use margay_cni::protocol::{MAX_MESSAGE, Reply, Request};
use margay_cni::{CniError, Code};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::locks::Locks;
use super::network::{DelOutcome, DelRequest, PodNetwork};
use super::request::{Typed, keys};

/// The bounds of the server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest request in bytes, its newline included.
    pub message: usize,
    /// Connections served at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// For reading a request, and for writing a reply.
    pub transfer: Duration,
    /// For an operation, until the caller is told to try again later.
    pub operation: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: MAX_MESSAGE,
            connections: 256,
            transfer: Duration::from_secs(10),
            // Below the plugin's own patience, so that the agent's words reach the runtime.
            operation: Duration::from_secs(50),
        }
    }
}

/// Serves a [`PodNetwork`].
#[derive(Debug)]
pub struct Server<N> {
    network: Arc<N>,
    locks: Arc<Locks>,
    limits: Limits,
}

/// Makes the socket: its directory for all to enter (other sockets are there), the socket itself
/// for root alone. A socket that is there is replaced without a moment in which there is none.
///
/// # Errors
/// Any of the file system's.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o755).create(directory)?;
    }
    // Made under another name: under its own it is never open to others, not even for a moment.
    let half = path.with_extension(format!("{}.half", std::process::id()));
    match std::fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&half)?;
    std::fs::set_permissions(&half, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&half, path)?;
    Ok(listener)
}

impl<N: PodNetwork> Server<N> {
    /// A server with the usual bounds.
    pub fn new(network: Arc<N>) -> Self {
        Self::with_limits(network, Limits::default())
    }

    /// A server with bounds of one's own.
    pub fn with_limits(network: Arc<N>, limits: Limits) -> Self {
        Self {
            network,
            locks: Arc::default(),
            limits,
        }
    }

    /// What does the operations.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// Serves until `stop`, then lets the connections that are open come to their end.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let server = Arc::clone(&self);
                    tokio::spawn(async move {
                        server.connection(stream).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of the CNI plugin");
                    // Out of descriptors, most likely: spinning would not help.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let drained = slots.acquire_many(all);
        if tokio::time::timeout(self.limits.operation, drained)
            .await
            .is_err()
        {
            tracing::warn!("operations of the CNI plugin are still under way at the end");
        }
    }

    async fn connection(&self, stream: UnixStream) {
        if let Err(error) = self.exchange(stream).await {
            tracing::debug!(%error, "a connection of the CNI plugin broke");
        }
    }

    async fn exchange(&self, mut stream: UnixStream) -> io::Result<()> {
        let request = self.read(&mut stream).await;
        let reply = match request {
            Ok(request) => self.handle(request).await,
            Err(error) => Reply::Error(error),
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        let write = async {
            stream.write_all(&line).await?;
            stream.shutdown().await
        };
        tokio::time::timeout(self.limits.transfer, write).await?
    }

    async fn read(&self, stream: &mut UnixStream) -> Result<Request, CniError> {
        let limit = u64::try_from(self.limits.message).unwrap_or(u64::MAX);
        let mut line = Vec::new();
        let mut reader = BufReader::new(stream.take(limit));
        let read = reader.read_until(b'\n', &mut line);
        match tokio::time::timeout(self.limits.transfer, read).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(CniError::new(Code::IO, "the request cannot be read")
                    .with_details(error.to_string()));
            }
            Err(_) => {
                return Err(CniError::new(
                    Code::IO,
                    "the request did not arrive in time",
                ));
            }
        }
        if line.last() != Some(&b'\n') {
            let msg = format!(
                "the request has no newline at its end, or more than {} bytes",
                self.limits.message
            );
            return Err(CniError::new(Code::DECODE, msg));
        }
        serde_json::from_slice(&line).map_err(|error| {
            CniError::new(Code::DECODE, "the request is not understood")
                .with_details(error.to_string())
        })
    }

    /// Does one request.
    pub async fn handle(&self, request: Request) -> Reply {
        let command = request.command.as_str();
        let container = request.container_id.clone();
        let begin = tokio::time::Instant::now();
        let outcome = match Typed::read(&request) {
            Ok(typed) => self.perform(typed).await,
            Err(error) => Err(error),
        };
        let milliseconds = begin.elapsed().as_millis();
        match outcome {
            Ok(value) => {
                tracing::debug!(command, container, milliseconds, "done");
                Reply::Result(value)
            }
            Err(error) => {
                tracing::warn!(command, container, milliseconds, %error, "not done");
                Reply::Error(error)
            }
        }
    }

    async fn perform(&self, typed: Typed) -> Result<Value, CniError> {
        let network = Arc::clone(&self.network);
        let names = typed.lock_keys();
        match typed {
            Typed::Status(mtu) => network.status(mtu).await.map(|()| json!({})),
            Typed::Gc(valid) => {
                self.collect(&valid).await?;
                Ok(json!({}))
            }
            Typed::Del(request) => {
                self.delete(request).await?;
                Ok(json!({}))
            }
            Typed::Check(request) => {
                let check = async move { network.check(request).await };
                self.alone(names, check).await.map(|()| json!({}))
            }
            Typed::Add(request) => {
                let asked = request.clone();
                let add = async move { network.add(request).await };
                let added = self.alone(names, add).await?;
                serde_json::to_value(added.to_result(&asked))
                    .map_err(|error| CniError::new(Code::DECODE, error.to_string()))
            }
        }
    }

    /// Detaches, alone with the container.
    async fn delete(&self, request: DelRequest) -> Result<DelOutcome, CniError> {
        self.delete_if(request, || true).await
    }

    /// Detaches, alone with the container, if that is still wanted when its turn has come.
    pub(crate) async fn delete_if(
        &self,
        request: DelRequest,
        is_wanted: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<DelOutcome, CniError> {
        let network = Arc::clone(&self.network);
        let names = keys(&request.attachment, request.pod.as_ref());
        let delete = async move {
            if !is_wanted() {
                return Ok(DelOutcome::Done);
            }
            network.del(request).await
        };
        self.alone(names, delete).await
    }

    async fn collect(
        &self,
        valid: &std::collections::HashSet<margay_cni::config::Attachment>,
    ) -> Result<(), CniError> {
        let mut failed = Vec::new();
        for request in self.network.stale(valid).await {
            let container = request.attachment.container_id.clone();
            match self.delete(request).await {
                Ok(_) => tracing::info!(container, "removed what a dead container left"),
                Err(error) => failed.push(format!("{container}: {error}")),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(CniError::new(
            Code::TRY_AGAIN,
            format!("{} containers' remains could not be removed", failed.len()),
        )
        .with_details(failed.join("; ")))
    }

    /// Runs an operation in a task of its own, alone with its names. Nobody's giving up stops it
    /// half way.
    async fn alone<T: Send + 'static>(
        &self,
        names: Vec<String>,
        operation: impl Future<Output = Result<T, CniError>> + Send + 'static,
    ) -> Result<T, CniError> {
        let locks = Arc::clone(&self.locks);
        let task = tokio::spawn(async move {
            let held = locks.hold(&names).await;
            let outcome = operation.await;
            drop(held);
            outcome
        });
        match tokio::time::timeout(self.limits.operation, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(CniError::new(Code::WIRING, "the operation broke off")
                .with_details(error.to_string())),
            Err(_) => Err(CniError::new(
                Code::TRY_AGAIN,
                format!(
                    "the operation takes longer than {} s and goes on; try again later",
                    self.limits.operation.as_secs()
                ),
            )),
        }
    }
}
