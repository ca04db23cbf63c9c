//! Writes statuses to the datastore: only what differs, and counters that moved no more often
//! than every few seconds, and less often where they move all the time, since a thousand nodes may
//! see the same route come.
//!
//! A task of its own: a datastore that is away must not hold up the agent's loop. What could not
//! be written is tried again, ever more slowly, and always in its latest form.

use std::collections::VecDeque;
use std::time::Duration;

use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use margay_crds::node_status::NodeStatusStatus;
use margay_crds::{
    BGPFilter, BGPPeer, Condition, IPPool, IPReservation, NodeStatus, NodeStatusSpec,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::datastore::Kind;
use crate::status::conditions;
use crate::status::node::without_counters;
use crate::status::wish::{Accepted, Wish};

/// How long a change of counters alone may wait.
const COUNTER_DELAY: Duration = Duration::from_secs(5);
/// No more writes for counters alone than these in so long: where pods come and go all the time,
/// each node would else write as often as it has pods to count.
const COUNTER_WRITES: (usize, Duration) = (3, Duration::from_secs(90));
/// How often a status is written although nothing differs: somebody may have removed it.
const REFRESH: Duration = Duration::from_secs(300);
/// How long one write may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failure the next write is tried, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Starts the writer of one node's statuses.
pub fn start(client: Client, node: String) -> watch::Sender<Wish> {
    let (sender, wishes) = watch::channel(Wish::default());
    let writer = StatusWriter {
        client,
        node,
        written: None,
        counted: Counted::default(),
    };
    tokio::spawn(writer.run(wishes));
    sender
}

struct StatusWriter {
    client: Client,
    node: String,
    written: Option<(Instant, NodeStatusStatus)>,
    counted: Counted,
}

impl StatusWriter {
    async fn run(mut self, mut wishes: watch::Receiver<Wish>) {
        let mut patience = Patience::default();
        // A wish comes every second, so what had to wait is looked at again soon.
        while wishes.changed().await.is_ok() {
            let wish = wishes.borrow_and_update().clone();
            let Some(ready) = wish.ready else { continue };
            if let Err(error) = self.write_node(wish.node, ready).await {
                if patience.failures == 0 {
                    tracing::warn!(
                        "NodeStatus {}: cannot be written, trying again: {error}",
                        self.node
                    );
                }
                tokio::time::sleep(patience.fail()).await;
                continue;
            }
            patience = Patience::default();
            for accepted in wish.accepted {
                if let Err(error) = self.write_accepted(&accepted).await {
                    let Accepted { kind, name, .. } = accepted;
                    tracing::debug!("{kind} {name}: status cannot be written: {error}");
                }
            }
        }
    }

    async fn write_node(
        &mut self,
        mut status: NodeStatusStatus,
        ready: Condition,
    ) -> Result<(), WriteError> {
        let api: Api<NodeStatus> = Api::all(self.client.clone());
        let standing = match &self.written {
            Some((_, written)) => written.conditions.clone(),
            None => self.standing(&api).await?,
        };
        status.conditions = conditions::with(&standing, ready).unwrap_or(standing);
        let mut due = Due::Now;
        if let Some((at, written)) = &self.written {
            due = Due::of(written, &status, at.elapsed());
        }
        match due {
            Due::Not => return Ok(()),
            Due::ForCounters if !self.counted.allows(Instant::now()) => return Ok(()),
            Due::ForCounters | Due::Now => {}
        }
        let body = json!({"status": status});
        match patch_status(&api, &self.node, &body).await {
            Err(WriteError::Refused(kube::Error::Api(refused))) if refused.is_not_found() => {
                let object = NodeStatus::new(&self.node, NodeStatusSpec::default());
                in_time(api.create(&PostParams::default(), &object)).await?;
                patch_status(&api, &self.node, &body).await?;
            }
            other => other?,
        }
        let now = Instant::now();
        if due == Due::ForCounters {
            self.counted.0.push_back(now);
        }
        self.written = Some((now, status));
        Ok(())
    }

    /// The conditions that an earlier agent left, so that a restart is no transition.
    async fn standing(&self, api: &Api<NodeStatus>) -> Result<Vec<Condition>, WriteError> {
        let object = in_time(api.get_opt(&self.node)).await?;
        let status = object.and_then(|object| object.status);
        Ok(status.map(|status| status.conditions).unwrap_or_default())
    }

    async fn write_accepted(&self, accepted: &Accepted) -> Result<(), WriteError> {
        let mut status = json!({"conditions": accepted.conditions});
        if let Some(sessions) = &accepted.sessions {
            status["nodes"] = json!(sessions.nodes);
            status["notEstablished"] = json!(sessions.not_established);
            status["sessions"] = json!(sessions.sessions);
        }
        let body = json!({
            "metadata": {"resourceVersion": accepted.version},
            "status": status,
        });
        match accepted.kind {
            Kind::IPPool => {
                let api: Api<IPPool> = Api::all(self.client.clone());
                patch_status(&api, &accepted.name, &body).await
            }
            Kind::IPReservation => {
                let api: Api<IPReservation> = Api::all(self.client.clone());
                patch_status(&api, &accepted.name, &body).await
            }
            Kind::BGPPeer => {
                let api: Api<BGPPeer> = Api::all(self.client.clone());
                patch_status(&api, &accepted.name, &body).await
            }
            Kind::BGPFilter => {
                let api: Api<BGPFilter> = Api::all(self.client.clone());
                patch_status(&api, &accepted.name, &body).await
            }
            // The other kinds have no status of ours.
            _ => Ok(()),
        }
    }
}

/// Whether a status is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Not,
    ForCounters,
    Now,
}

impl Due {
    /// `since` the last one was written.
    fn of(written: &NodeStatusStatus, status: &NodeStatusStatus, since: Duration) -> Self {
        if since >= REFRESH {
            return Self::Now;
        }
        if written == status {
            return Self::Not;
        }
        if without_counters(written) != without_counters(status) {
            return Self::Now;
        }
        if since >= COUNTER_DELAY {
            Self::ForCounters
        } else {
            Self::Not
        }
    }
}

/// When a status was written for counters alone, of late.
#[derive(Debug, Default)]
struct Counted(VecDeque<Instant>);

impl Counted {
    /// Whether it may be written once more.
    fn allows(&mut self, now: Instant) -> bool {
        let (most, window) = COUNTER_WRITES;
        self.0
            .retain(|at| now.saturating_duration_since(*at) < window);
        self.0.len() < most
    }
}

/// How long to wait after failures in a row.
#[derive(Debug, Default)]
struct Patience {
    failures: u32,
}

impl Patience {
    fn fail(&mut self) -> Duration {
        let (first, longest) = RETRY;
        let wait = first.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        wait.min(longest)
    }
}

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Refused(#[from] kube::Error),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

async fn patch_status<K>(api: &Api<K>, name: &str, body: &Value) -> Result<(), WriteError>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let body = Patch::Merge(body);
    let parameters = PatchParams::default();
    in_time(api.patch_status(name, &parameters, &body)).await?;
    Ok(())
}

async fn in_time<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, WriteError> {
    let answer = tokio::time::timeout(TIMEOUT, request).await;
    Ok(answer.map_err(|_| WriteError::Timeout)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_wait_and_the_rest_does_not() {
        let written = NodeStatusStatus::default();
        let mut counted = written.clone();
        counted.pod_count = 1;
        let mut other = written.clone();
        other.tunnel = "vxlan".to_owned();
        let second = Duration::from_secs(1);
        for (status, since, due) in [
            (&written, second, Due::Not),
            (&counted, second, Due::Not),
            (&counted, COUNTER_DELAY, Due::ForCounters),
            (&other, Duration::ZERO, Due::Now),
            (&written, REFRESH, Due::Now),
        ] {
            assert_eq!(Due::of(&written, status, since), due, "{status:?}");
        }
    }

    #[test]
    fn counters_that_move_all_the_time_are_written_less_often() {
        let mut counted = Counted::default();
        let start = Instant::now();
        let every_five = (0..36).map(|turn| start + COUNTER_DELAY * turn);
        let written = every_five.filter(|now| {
            let allows = counted.allows(*now);
            // One that fails does not count.
            assert_eq!(counted.allows(*now), allows);
            if allows {
                counted.0.push_back(*now);
            }
            allows
        });
        assert_eq!(written.count(), 6, "in three minutes");
    }

    #[test]
    fn failures_in_a_row_are_tried_ever_more_slowly() {
        let mut patience = Patience::default();
        let waits: Vec<u64> = (0..8).map(|_| patience.fail().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
