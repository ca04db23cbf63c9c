//! The lab: `margayctl lab up|down|status|exec|demo|bench`.
//!
//! Read in this order: [`spec`] says what a lab is, as values only; [`state`] is the record on
//! disk that makes every end a clean one; [`topology`] and [`fabric`] build what
//! is between the nodes; [`objects`]
//! is the cluster's content; [`pods`] plays kubelet and container runtime; [`up`] and [`down`] put
//! these together; [`demo`] looks at the result from outside and says whether it holds.

pub mod bench;
pub mod bird;
pub mod capture;
pub mod cluster;
pub mod cni;
pub mod command;
pub mod datastore;
pub mod demo;
pub mod diagnosis;
pub mod down;
pub mod error;
pub mod exec;
pub mod fabric;
pub mod frr;
pub mod kernel;
pub mod latency;
pub mod namespaces;
pub mod objects;
pub mod patience;
pub mod pod_server;
pub mod pods;
pub mod probes;
pub mod process;
pub mod report;
pub mod routes;
pub mod spec;
pub mod state;
pub mod status;
pub mod topology;
pub mod up;

pub use error::LabError;
pub use spec::{LabSpec, Plan, Tor};
