//! Routes: what peers gave us, which of it is best, and what every view of it still has to be told.
//!
//! The three RIBs of RFC 4271 section 3.2 are one [`Table`]: a destination holds its paths from all peers (Adj-RIBs-In), the
//! decision process marks the best among them (Loc-RIB), and what a peer has been told (Adj-RIB-Out) is a [`View`], two bits
//! a destination; what exactly it was told follows from the table and the policy and is computed when it is sent. Attribute
//! sets are kept once, in [`Routes`], and paths name them by number.
//!
//! This module knows nothing of sessions, policies and messages.

mod best;
mod facts;
mod loc;
mod next_hops;
mod path;
mod pending;
mod routes;
mod slab;
mod source;
mod table;
mod task;
mod view;

pub use best::{DEFAULT_LOCAL_PREF, Multipath, Neighbor};
pub use facts::Facts;
pub use loc::{MAX_PATHS, Rib};
pub use next_hops::NextHopId;
pub use path::{Path, Route, Source};
pub use pending::{Bits, Pending};
pub use routes::{Decider, RouteId, Routes};
pub use source::Counts;
pub use table::{Destination, DestinationId, Table};
pub use task::Task;
pub use view::View;

#[cfg(test)]
mod tests;
