//! The node's side of the CNI: what the plugin asks over the unix socket, and how it is done.
//!
//! ```text
//! plugin ── line of JSON ──> server ──> request (typed) ──> PodNetwork
//!                                                              │ Wiring
//!                         Addresses ── Links ── Policy ────────┘
//! ```
//!
//! - [`server`]: the socket, its bounds, one operation at a time for each container;
//! - [`request`]: from the protocol's words to typed requests;
//! - [`network`]: the trait [`PodNetwork`] that does the operations;
//! - [`wiring`]: the journey of an address, over the three traits of [`edges`];
//! - [`addresses`]: [`edges::Addresses`] over the node's allocator;
//! - [`replay`]: deletes that were written down while the agent was away.
//!
//! Not here: the kernel, the policy table, blocks.

pub mod addresses;
pub mod edges;
pub mod locks;
pub mod network;
pub mod replay;
pub mod request;
pub mod server;
#[cfg(test)]
mod tests;
pub mod wiring;

pub use addresses::{PodNote, assign as assign_addresses};
pub use edges::{Addresses, BoxError, Holder, LinkMade, LinkSpec, Links, Policy};
pub use network::{AddRequest, Added, DelOutcome, DelRequest, PodIdentity, PodNetwork};
pub use replay::Replayed;
pub use server::{Limits, Server, listen};
pub use wiring::Wiring;
