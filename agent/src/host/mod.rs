//! The node itself, outside the agent's life: what is installed before it starts.

mod cni;

pub use cni::{CONFLIST, InstallCniOptions, PLUGIN, install as install_cni};
