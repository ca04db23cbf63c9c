//! From what is known to what should be: pure functions, one file an edge.
//!
//! Each takes the [`crate::view::View`] (or part of it) and gives a whole desired value; the
//! edge that owns the value works out what differs and applies that.

pub mod routes;
pub mod speaker;
