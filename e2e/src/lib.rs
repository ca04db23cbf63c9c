//! Margay's lab: a whole cluster (nodes, racks, routers, pods) as network namespaces on one
//! machine, and the end-to-end tests that run in it.
//!
//! The lab drives Margay only through its doors: the binaries `margay`, `margay-cni` and
//! `margayctl`, the store's API, and the kernel's own tools. It links none of the agent's code,
//! so what it shows is what an operator would see.

pub mod cluster;
pub mod kube;
pub mod lab;
pub mod paired;
