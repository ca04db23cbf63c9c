//! Getting a client: from a kubeconfig, from within a pod, or from an embedded store.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use margay_apiserver::options::ListenAddress;
use margay_apiserver::{Server, ServerBuilder};
use margay_speaker::program::UsageError;

use super::embedded::margay_store;
use crate::options::{AgentOptions, Datastore};

/// Where an agent's own store listens: the port of a Kubernetes API server, for itself alone.
const EMBEDDED_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6443);

/// A client, and the embedded store behind it if this agent runs one.
pub struct Connection {
    /// The client.
    pub client: Client,
    store: Option<Server>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Ends the embedded store, if there is one, with every write on disk.
    pub async fn close(self) {
        if let Some(store) = self.store {
            store.stop().await;
        }
    }
}

/// Connects as the options say; without any, as a pod in its cluster does.
///
/// # Errors
/// A file that is missing or makes no sense, an embedded store that cannot start. A server that
/// does not answer is no error here: the watches wait for it.
pub async fn connect(options: &AgentOptions) -> anyhow::Result<Connection> {
    let (config, store) = match (&options.kubeconfig, &options.datastore) {
        (Some(file), _) => (from_kubeconfig(file).await?, None),
        (None, Some(Datastore::Embedded(folder))) => {
            let store = start_store(folder).await?;
            (from_kubeconfig(&store.kubeconfig()).await?, Some(store))
        }
        (None, None) => {
            let config = Config::incluster()
                .context("neither --kubeconfig nor --datastore is given, and this is not a pod")?;
            (config, None)
        }
    };
    let client = Client::try_from(config).context("cannot make a client")?;
    Ok(Connection { client, store })
}

/// A client by a kubeconfig file; without one, as a pod in its cluster has it.
///
/// # Errors
/// A file that is missing or makes no sense; not being a pod.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(file) => from_kubeconfig(file).await?,
        None => Config::incluster()
            .context("--kubeconfig is not given, and this is not a pod of a cluster")?,
    };
    Client::try_from(config).context("cannot make a client")
}

async fn start_store(folder: &Path) -> anyhow::Result<Server> {
    let builder = ServerBuilder::new(folder).listen(ListenAddress::Address(EMBEDDED_LISTEN));
    margay_store(builder)?
        .start()
        .await
        .with_context(|| format!("--datastore embedded:{}", folder.display()))
}

async fn from_kubeconfig(file: &Path) -> anyhow::Result<Config> {
    let wrong = |error: KubeconfigError| {
        // Its words hold those of its source already.
        UsageError(format!("kubeconfig {}: {error}", file.display()))
    };
    let kubeconfig = Kubeconfig::read_from(file).map_err(wrong)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Ok(config.map_err(wrong)?)
}
