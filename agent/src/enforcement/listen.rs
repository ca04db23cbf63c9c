//! The thread that reads what the table reports of packets.
//!
//! It takes in a bounded number of reports a second, however many packets are denied: what is beyond waits in the
//! kernel's bounded queue, and what does not fit there is dropped by the kernel and counted. The packets' own way never
//! waits for it.

use std::time::{Duration, Instant};

use margay_policy::writer::{PacketLog, Reports};
use tokio::sync::mpsc;

/// How long reports are gathered before they are handed on.
const GATHER: Duration = Duration::from_millis(250);
/// How many are handed on at once; with [`GATHER`] it bounds them to about a thousand a second.
const BATCH: usize = 256;
/// How long it takes until a log that cannot be read is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// How long reports are waited for before it is looked whether anybody still wants them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts the thread in the network namespace of the calling one. It ends with the receiver.
pub(super) fn start() -> mpsc::Receiver<Reports> {
    let (batches, receiver) = mpsc::channel(1);
    let thread = std::thread::Builder::new().name("policy-log".to_owned());
    if let Err(error) = thread.spawn(move || listen(&batches)) {
        tracing::warn!("policy: denied packets are not told: no thread: {error}");
    }
    receiver
}

fn listen(batches: &mpsc::Sender<Reports>) {
    while !batches.is_closed() {
        let failure = match PacketLog::open() {
            Ok(log) => match pass_on(log, batches) {
                Ok(()) => return,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            "policy: denied packets are not told: netlink's log, group 90, cannot be read ({failure}); \
             end the other program that reads it, or load nfnetlink_log"
        );
        std::thread::sleep(RETRY);
    }
}

fn pass_on(mut log: PacketLog, batches: &mpsc::Sender<Reports>) -> std::io::Result<()> {
    while !batches.is_closed() {
        let mut batch = log.receive(PATIENCE)?;
        let started = Instant::now();
        while !batch.packets.is_empty() && started.elapsed() < GATHER {
            let left = GATHER.saturating_sub(started.elapsed());
            if batch.packets.len() >= BATCH {
                std::thread::sleep(left);
                break;
            }
            let more = log.receive(left.max(Duration::from_millis(1)))?;
            batch.packets.extend(more.packets);
            batch.lost += more.lost;
        }
        let is_news = !batch.packets.is_empty() || batch.lost > 0;
        if is_news && batches.blocking_send(batch).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
