//! The agent's command line (door 1).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::NonEmptyStringValueParser;
use ipnetwork::IpNetwork;
use margay_policy::{FailsafeError, FailsafePort, Failsafes};

/// `margay agent`: the node daemon.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentOptions {
    /// The Kubernetes API server to work from, as a kubeconfig file
    #[arg(long, value_name = "FILE", conflicts_with = "datastore")]
    pub kubeconfig: Option<PathBuf>,

    /// A store of its own instead of a Kubernetes API server: `embedded:DIR`
    #[arg(long, value_name = "embedded:DIR")]
    pub datastore: Option<Datastore>,

    /// The name of this node's Node object
    #[arg(long, env = "NODE_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub node_name: String,

    /// The namespace of the Secrets with the passwords of BGP sessions
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAME",
        default_value = "margay-system"
    )]
    pub namespace: String,

    /// Where the sockets live
    #[arg(long, value_name = "DIR", default_value = "/var/run/margay")]
    pub run_dir: PathBuf,

    /// Where the last-known state and the CNI delete journal live
    #[arg(long, value_name = "DIR", default_value = "/var/lib/margay")]
    pub state_dir: PathBuf,

    /// Address of the health endpoints (/livez, /readyz)
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9190")]
    pub health: SocketAddr,

    /// Address of the Prometheus metrics
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9191")]
    pub metrics: SocketAddr,

    /// Ports of the node that no policy of a HostEndpoint closes to others, as PROTOCOL:PORT or
    /// PROTOCOL:NETWORK:PORT, or `none` [default: those of Calico, SSH and BGP among them]
    #[arg(long, value_name = "PORT[,PORT]", value_parser = failsafes)]
    pub failsafe_inbound: Option<FailsafeList>,

    /// Ports of others that no policy of a HostEndpoint closes to the node, likewise
    #[arg(long, value_name = "PORT[,PORT]", value_parser = failsafes)]
    pub failsafe_outbound: Option<FailsafeList>,

    /// Where the kernel's settings are mounted; a container without privileges cannot write to the
    /// usual place
    #[arg(long, value_name = "DIR", default_value = "/proc/sys")]
    pub proc_sys: PathBuf,
}

/// A list of failsafe ports as one value of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailsafeList(pub Vec<FailsafePort>);

fn failsafes(text: &str) -> Result<FailsafeList, FailsafeError> {
    Failsafes::list(text).map(FailsafeList)
}

impl AgentOptions {
    /// The failsafe ports of host endpoints.
    pub fn failsafes(&self) -> Failsafes {
        let given = |list: &Option<FailsafeList>, default| match list {
            Some(list) => list.0.clone(),
            None => default,
        };
        let default = Failsafes::default();
        Failsafes {
            inbound: given(&self.failsafe_inbound, default.inbound),
            outbound: given(&self.failsafe_outbound, default.outbound),
        }
    }
}

/// `margay controller`: what is done once for the whole cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct ControllerOptions {
    /// The API server to work from, as a kubeconfig file; without it, as a pod in its cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The namespace of the Lease by which one of several controllers leads
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAME",
        default_value = "margay-system"
    )]
    pub namespace: String,

    /// This controller's name in the Lease, which no other has [default: the host's name and
    /// something random]
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,

    /// Seconds for which an address must seem to be of nobody before it is taken back
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub leak_grace_period: u64,

    /// Give addresses to Services that name no loadBalancerClass too
    #[arg(long)]
    pub default_load_balancer: bool,

    /// The range of pods that kube-proxy and the controller manager were given; a pool outside it
    /// gets a warning. May be given several times [default: what Nodes say in podCIDRs]
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Vec<IpNetwork>,

    /// Address of the health endpoints (/livez, /readyz)
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9192")]
    pub health: SocketAddr,

    /// Address of the Prometheus metrics
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9193")]
    pub metrics: SocketAddr,
}

/// A datastore that is not a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datastore {
    /// The embedded store in this folder, run within the agent.
    Embedded(PathBuf),
}

impl FromStr for Datastore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("embedded:") {
            Some("") | None => Err(
                "must be embedded:DIR, such as embedded:/var/lib/margay/store \
                                    (for a Kubernetes API server use --kubeconfig FILE)"
                    .to_owned(),
            ),
            Some(folder) => Ok(Self::Embedded(folder.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datastore_is_a_folder() {
        assert_eq!(
            "embedded:/x".parse(),
            Ok(Datastore::Embedded(PathBuf::from("/x")))
        );
        assert!("embedded:".parse::<Datastore>().is_err());
        assert!(
            "etcd:/x"
                .parse::<Datastore>()
                .unwrap_err()
                .contains("--kubeconfig")
        );
    }
}
