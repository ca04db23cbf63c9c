//! Routes: what peers gave us, which of it is best, and what every view of it still has to be told.
//!
//! The three RIBs of RFC 4271 section 3.2 are one [`Table`]: a destination holds its paths from all peers (Adj-RIBs-In), the
//! decision process marks the best among them (Loc-RIB), and what a peer has been told (Adj-RIB-Out) is a [`View`], two bits
//! a destination; what exactly it was told follows from the table and the policy and is computed when it is sent. Attribute
//! sets are shared through an [`Interner`].
//!
//! This module knows nothing of sessions, policies and messages.

mod best;
mod loc;
mod path;
mod table;
mod view;

pub use best::{DEFAULT_LOCAL_PREF, Neighbor, local_pref};
pub use loc::{Counts, Rib};
pub use path::{Interner, Path, Paths, Route, Source};
pub use table::{Destination, DestinationId, Table};
pub use view::View;
