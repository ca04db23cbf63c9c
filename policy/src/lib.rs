//! Margay's policy compiler.
//!
//! [`Cluster`] holds what policy knows of the cluster; [`Compiler::compile`] turns it, with one node's endpoints, into a
//! [`Ruleset`] value; [`diff`] finds the [`Transaction`] from one ruleset to the next; a [`writer`] commits it to the
//! kernel. Beside that, and independent of the compiler, [`evaluate`] judges single connections by the API's text:
//! [`matrix`] is built on it, and the compiler's tests hold the compiled ruleset against it.
//!
//! Everything but [`writer::Nft`] is pure: no sockets, no clock, no Kubernetes client.

pub mod compile;
mod decision;
mod engine;
pub mod evaluate;
mod identity;
mod labels;
pub mod lint;
pub mod load;
pub mod matrix;
pub mod model;
mod numbering;
pub mod origin;
pub mod packet;
pub mod port;
pub mod problem;
mod region;
pub mod ruleset;
pub mod selector;
#[cfg(test)]
mod tests;
pub mod writer;

pub use compile::{
    Compiler, FailsafeError, FailsafePort, Failsafes, LocalEndpoint, NodeInput, Pool,
};
pub use engine::Engine;
pub use model::Cluster;
pub use origin::{Origin, RuleId};
pub use problem::Problem;
pub use ruleset::{Ruleset, Transaction, diff};
