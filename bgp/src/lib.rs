//! Margay's BGP speaker.
//!
//! The protocol is pure: [`wire`] turns octets into messages and back, [`fsm`] runs the sessions of one peer, [`rib`] holds
//! routes and chooses between them, [`policy`] filters them, and [`router`] joins these into one speaker. None of it opens a
//! socket, starts a task or reads a clock: input comes in through `handle_*` methods with the time as an argument, output is
//! taken with `poll_*` methods. The tokio shell that gives it sockets is `speaker`, behind the feature of that name.
//!
//! The crate knows nothing of Kubernetes or of the kernel's routing table.

#![deny(missing_docs)]

pub mod bfd;
pub mod config;
pub mod discovery;
pub mod fsm;
pub mod jitter;
pub mod observe;
pub mod policy;
pub mod rib;
pub mod router;
#[cfg(feature = "speaker")]
pub mod speaker;
pub mod types;
pub mod wire;
