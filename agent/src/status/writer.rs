//! Writes statuses to the datastore: only what differs, and counters that moved no more often
//! than every few seconds, since a thousand nodes may see the same route come.
//!
//! A task of its own: a datastore that is away must not hold up the agent's loop.

use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use margay_crds::node_status::NodeStatusStatus;
use margay_crds::{BGPPeer, Condition, IPPool, NodeStatus, NodeStatusSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::datastore::Kind;
use crate::status::conditions;
use crate::status::node::without_counters;

/// How long a change of counters alone may wait.
const COUNTER_DELAY: Duration = Duration::from_secs(5);
/// How long one write may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What should stand in the datastore.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    /// The NodeStatus, its conditions aside.
    pub node: NodeStatusStatus,
    /// The NodeStatus's one condition; none while there is nothing to say yet.
    pub ready: Option<Condition>,
    /// Conditions of objects that do not stand there as they should.
    pub accepted: Vec<(Kind, String, Vec<Condition>)>,
}

/// Starts the writer of one node's statuses.
pub fn start(client: Client, node: String) -> watch::Sender<Wish> {
    let (sender, wishes) = watch::channel(Wish::default());
    let writer = StatusWriter {
        client,
        node,
        written: None,
    };
    tokio::spawn(writer.run(wishes));
    sender
}

struct StatusWriter {
    client: Client,
    node: String,
    written: Option<(Instant, NodeStatusStatus)>,
}

impl StatusWriter {
    async fn run(mut self, mut wishes: watch::Receiver<Wish>) {
        while wishes.changed().await.is_ok() {
            let wish = wishes.borrow_and_update().clone();
            let Some(ready) = wish.ready else { continue };
            if let Err(error) = self.write_node(wish.node, ready).await {
                tracing::warn!("NodeStatus {}: cannot be written: {error}", self.node);
                continue;
            }
            for (kind, name, conditions) in wish.accepted {
                if let Err(error) = self.write_accepted(kind, &name, &conditions).await {
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
        let standing = self
            .written
            .as_ref()
            .map_or(&[][..], |(_, status)| &status.conditions);
        status.conditions = conditions::with(standing, ready).unwrap_or_else(|| standing.to_vec());
        if let Some((at, written)) = &self.written {
            let only_counters = without_counters(written) == without_counters(&status);
            if *written == status || (only_counters && at.elapsed() < COUNTER_DELAY) {
                return Ok(());
            }
        }
        let api: Api<NodeStatus> = Api::all(self.client.clone());
        match patch_status(&api, &self.node, &status).await {
            Err(WriteError::Refused(kube::Error::Api(refused))) if refused.is_not_found() => {
                let object = NodeStatus::new(&self.node, NodeStatusSpec::default());
                api.create(&PostParams::default(), &object).await?;
                patch_status(&api, &self.node, &status).await?;
            }
            other => other?,
        }
        self.written = Some((Instant::now(), status));
        Ok(())
    }

    async fn write_accepted(
        &self,
        kind: Kind,
        name: &str,
        conditions: &[Condition],
    ) -> Result<(), WriteError> {
        let status = serde_json::json!({"conditions": conditions});
        match kind {
            Kind::IPPool => {
                let api: Api<IPPool> = Api::all(self.client.clone());
                patch_status(&api, name, &status).await
            }
            Kind::BGPPeer => {
                let api: Api<BGPPeer> = Api::all(self.client.clone());
                patch_status(&api, name, &status).await
            }
            // The other kinds have no status of ours.
            _ => Ok(()),
        }
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

async fn patch_status<K>(
    api: &Api<K>,
    name: &str,
    status: &impl Serialize,
) -> Result<(), WriteError>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let body = Patch::Merge(serde_json::json!({"status": status}));
    let parameters = PatchParams::default();
    let request = api.patch_status(name, &parameters, &body);
    tokio::time::timeout(TIMEOUT, request)
        .await
        .map_err(|_| WriteError::Timeout)??;
    Ok(())
}
