//! The promises of Margay, each broken on purpose on the real thing: real agents, BIRD, the
//! plugin, the store and the kernel, in labs of their own that are gone afterwards.
//!
//! Every wait is for a condition and has a deadline; figures are printed.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::panic, reason = "helpers of tests fail as tests do")]
#![expect(unreachable_pub, reason = "the test is a crate of its own")]

mod addresses;
mod call;
mod commands;
mod drain;
mod flow;
mod ground;
mod input;
mod peers;
mod policy;
mod reflectors;
mod restart;
mod services;
mod store;
mod together;
mod two_tors;
mod wiring;
