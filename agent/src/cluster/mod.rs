//! What is done to the cluster once, by the chart's jobs: bringing the kinds up to date before an
//! upgrade, and taking Margay's marks away after it was uninstalled.

mod cleanup;
mod kinds;

pub use cleanup::{CleanupOptions, cleanup};
pub use kinds::{InstallCrdsOptions, install_crds};
