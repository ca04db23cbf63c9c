//! The BGP speaker alone (door 2): `margay bgp`, and the program `margay-bgp`.
//!
//! [`bgp`] runs the speaker of a file until it is told to end, [`install`] puts its best routes
//! into the kernel, and [`program`] is what this program and `margay` have in common. It is a crate
//! of its own so that the program holds nothing of Kubernetes.
//!
//! Not here: BGP (the crate margay-bgp), and how the node daemon uses a speaker.

pub mod bgp;
mod config_file;
pub mod install;
pub mod program;
pub mod restart;
