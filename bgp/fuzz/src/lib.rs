//! What must hold for whatever a peer, a neighbour on the link or a file brings: the fuzz targets.
//!
//! Each target is a function of any octets that panics when something does not hold. A fuzzer searches for octets that make it
//! panic (`make fuzz`, with the thin programs in `libfuzzer/`), and `tests/corpus.rs` runs the targets over the corpora that are
//! checked in, with every input that ever found something. Nothing here is part of the speaker.
//!
//! | target | octets are |
//! |---|---|
//! | [`codec`] | what a session negotiated, and a message or a stream of them |
//! | [`session`] | a script: what peers send, when they connect and read and go, time, configuration |
//! | [`config`] | the text of a configuration file |
//! | [`bfd`] | a script of BFD packets, time and configuration |
//! | [`discovery`] | a message of router discovery |

#![deny(missing_docs)]
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "to panic is how a target reports what it found"
)]

mod bfd;
mod codec;
mod config;
mod discovery;
mod input;
mod session;

pub use bfd::bfd;
pub use codec::codec;
pub use config::config;
pub use discovery::discovery;
pub use session::session;

/// Every program with these targets counts what they allocate.
#[global_allocator]
static ALLOCATOR: margay_bgp_sys::CountingAllocator = margay_bgp_sys::CountingAllocator;

/// A target and the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 5] = [
    ("codec", codec),
    ("session", session),
    ("config", config),
    ("bfd", bfd),
    ("discovery", discovery),
];
