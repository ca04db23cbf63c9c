//! Getting a client for the cluster that an operator means.

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client by a kubeconfig file; without one, by KUBECONFIG, ~/.kube/config or as a pod.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, String> {
    let config = match kubeconfig {
        None => Config::infer().await.map_err(|error| error.to_string())?,
        Some(file) => {
            let wrong = |error| format!("--kubeconfig {}: {error}", file.display());
            let kubeconfig = Kubeconfig::read_from(file).map_err(wrong)?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            config.map_err(wrong)?
        }
    };
    Client::try_from(config).map_err(|error| error.to_string())
}
