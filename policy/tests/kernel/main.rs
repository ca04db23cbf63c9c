//! The compiled ruleset in a real kernel, seen from pods made of network namespaces.
//!
//! Needs root, `ip` and `nft`. All traffic stays in namespaces made here, whose names begin with `mgy-pol-`; they are
//! deleted when a test ends, passed or not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests fail by panicking, their helpers too"
)]

mod cases;
mod hosts;
mod lab;
mod sctp;
mod table;
mod told;
mod verdicts;
