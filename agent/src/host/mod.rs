//! The node itself, outside the agent's life: what is installed before it starts, and what is
//! taken away when Margay goes for good.

mod cni;
mod uninstall;

pub use cni::{CONFLIST, CniPlace, InstallCniOptions, PLUGIN, install as install_cni};
pub use uninstall::{UninstallOptions, uninstall};
