//! The node daemon of Margay as a library: what the binary `margay agent` is made of.
//!
//! Watches feed one picture of the cluster; reconcilers turn it into desired states of the
//! speaker, the kernel and the policy table; each edge applies only what differs.

pub mod cni_server;
pub mod dataplane;
