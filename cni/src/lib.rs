//! Margay's CNI plugin as a library: the CNI specification's types, and what plugin and agent say
//! to each other.
//!
//! The plugin is as small as it can be: it reads the environment and the network configuration,
//! checks them, hands the request to the agent over a unix socket and prints the answer in the
//! version of the specification that the runtime asked for. No Kubernetes client, no async
//! runtime, no kernel interface.
//!
//! - [`version`], [`config`], [`environment`]: what the runtime says;
//! - [`result`], [`error`]: what the plugin answers;
//! - [`protocol`]: the request and the reply between plugin and agent;
//! - [`client`], [`journal`]: the two ways a request leaves the plugin;
//! - [`plugin`]: the commands.
//!
//! Not here: anything that makes an interface or gives an address; that is the agent.

pub mod client;
pub mod config;
pub mod environment;
pub mod error;
pub mod journal;
pub mod plugin;
pub mod protocol;
pub mod result;
pub mod version;

pub use config::NetworkConfig;
pub use error::{CniError, Code};
pub use protocol::{Command, Reply, Request};
pub use result::CniResult;
pub use version::Version;
