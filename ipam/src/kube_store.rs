//! The store over a Kubernetes API server, or anything that speaks its language.

use std::time::Duration;

use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, Error};
use margay_crds::IPAMBlock;

use crate::store::{Store, StoreError};

/// How long a call may take before it counts as unanswered.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Blocks on an API server.
#[derive(Debug, Clone)]
pub struct KubeStore {
    blocks: Api<IPAMBlock>,
}

impl KubeStore {
    /// A store over a client.
    pub fn new(client: Client) -> Self {
        Self {
            blocks: Api::all(client),
        }
    }
}

impl Store for KubeStore {
    async fn get(&self, name: &str) -> Result<Option<IPAMBlock>, StoreError> {
        bounded(self.blocks.get_opt(name)).await
    }

    async fn create(&self, block: &IPAMBlock) -> Result<IPAMBlock, StoreError> {
        bounded(self.blocks.create(&PostParams::default(), block)).await
    }

    async fn update(&self, block: &IPAMBlock) -> Result<IPAMBlock, StoreError> {
        let name = block.metadata.name.as_deref().unwrap_or_default();
        bounded(self.blocks.replace(name, &PostParams::default(), block)).await
    }

    async fn delete(&self, block: &IPAMBlock) -> Result<(), StoreError> {
        let name = block.metadata.name.as_deref().unwrap_or_default();
        let unchanged = Preconditions {
            resource_version: block.metadata.resource_version.clone(),
            uid: block.metadata.uid.clone(),
        };
        let params = DeleteParams::default().preconditions(unchanged);
        bounded(self.blocks.delete(name, &params)).await.map(|_| ())
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| store_error(&error)),
        Err(_) => Err(StoreError::Unavailable(format!(
            "no answer within {} s",
            TIMEOUT.as_secs()
        ))),
    }
}

/// Two different things come as 409: a name that is taken and a version that is stale. Only the
/// reason tells them apart.
fn store_error(error: &Error) -> StoreError {
    let Error::Api(status) = error else {
        return StoreError::Unavailable(chain(error));
    };
    match (status.code, status.reason.as_str()) {
        (409, "AlreadyExists") => StoreError::AlreadyExists,
        (409, _) => StoreError::Conflict,
        (404, _) => StoreError::NotFound,
        (408 | 429 | 500..=599, _) => StoreError::Unavailable(status.message.clone()),
        // Credentials that have run out are renewed; the next try may pass.
        (401, _) => StoreError::Unavailable(format!("not authorised: {}", status.message)),
        _ => StoreError::Refused(status.message.clone()),
    }
}

/// An error with its causes: the outermost alone says only that a service failed.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
