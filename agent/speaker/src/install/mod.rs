//! Best routes into the kernel, for the speaker that runs alone (`install` in its file).
//!
//! Desired → diff → plan → apply, as the node daemon does it, but by single prefixes: a full table
//! comes in batches, and each batch costs what it changes. `table` knows what should be and what
//! the kernel holds, `edge` asks the kernel about next hops and drives it, `applier` has
//! it make the changes while the next ones are decided on. Only routes with
//! protocol 90 in the one table are looked at or touched. What an earlier process left stays until
//! the sessions are up and have sent all they have, and is then removed.
//!
//! An aggregate of the speaker's own is a blackhole as long as it is announced, under its more
//! specific routes; a link-local next hop is taken on the link it was heard on, for IPv4 routes too
//! (RFC 8950).
//!
//! Not here: tunnels, pods (the agent's), and which route is best (the speaker's).

mod applier;
mod edge;
mod table;
#[cfg(test)]
mod tests;

use std::thread::JoinHandle;

use margay_bgp::speaker::Speaker;
use margay_dataplane::{KernelError, Monitor, NetlinkKernel, ReachCache};
use tokio::sync::oneshot;

use self::edge::Edge;
use self::table::Table;

/// Where routes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The routing table's number; 254 is table main.
    pub table: u32,
    /// The metric of routes; none is the kernel's own, 0 for IPv4 and 1024 for IPv6.
    pub metric: Option<u32>,
}

/// Installs routes until it is told to stop.
#[derive(Debug)]
pub struct Installer {
    /// Whether routes stay.
    stop: oneshot::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Installer {
    /// Starts installing the routes of `speaker` into the calling thread's network namespace, on
    /// a thread of its own: the kernel's work on a full table must not delay a keepalive.
    ///
    /// # Errors
    /// No netlink socket can be had, or routes may not be changed.
    pub async fn start(speaker: Speaker, options: Options) -> Result<Self, KernelError> {
        let (stop, stopped) = oneshot::channel();
        let (started, begun) = oneshot::channel();
        let failed = |source| KernelError::Io {
            what: "cannot start the thread that installs routes".to_owned(),
            source,
        };
        let thread = std::thread::Builder::new()
            .name("install".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => runtime.block_on(run(speaker, options, started, stopped)),
                    Err(error) => drop(started.send(Err(failed(error)))),
                }
            })
            .map_err(failed)?;
        begun.await.unwrap_or(Err(KernelError::Closed))?;
        Ok(Self { stop, thread })
    }

    /// Ends; removes the routes unless they are to be kept, for whoever takes over.
    pub async fn stop(self, keep: bool) {
        // The thread may have ended with the speaker.
        let _ = self.stop.send(keep);
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
    }
}

async fn run(
    speaker: Speaker,
    options: Options,
    started: oneshot::Sender<Result<(), KernelError>>,
    mut stopped: oneshot::Receiver<bool>,
) {
    let reach = ReachCache::default();
    let opened = NetlinkKernel::open_table(options.table).and_then(|kernel| {
        let monitor = Monitor::open(kernel.port(), reach.invalidator())?;
        Ok((kernel.with_next_hop_objects(), monitor))
    });
    let (kernel, monitor) = match opened {
        Ok(opened) => opened,
        Err(error) => return drop(started.send(Err(error))),
    };
    let mut edge = Edge::new(kernel, reach, Table::new(options.metric));
    if let Err(error) = edge.begin().await {
        return drop(started.send(Err(error)));
    }
    // Whoever waited for it may be gone, and will say so by the other channel.
    let _ = started.send(Ok(()));
    let keep = tokio::select! {
        // The speaker has ended; what becomes of its routes is said afterwards.
        () = edge.run(&speaker, monitor) => stopped.await,
        keep = &mut stopped => keep,
    };
    // Whoever dropped the other end without a word wants no routes touched any more.
    if !keep.unwrap_or(true) {
        edge.remove_all().await;
    }
}
