//! Garbage collection: which addresses and blocks nobody holds any more.
//!
//! A DEL that never came, a node that never came back, a Service deleted while nobody watched:
//! each leaves an allocation behind. The way from a suspicion to a release has four steps, and
//! each can only take the suspicion back:
//!
//! 1. [`Collector::handle_scan`] compares every allocation with what the watches know ([`Facts`]);
//!    what seems to be of nobody becomes a suspect;
//! 2. it must stay one for the whole grace period, in every scan;
//! 3. what is due is judged again by facts read from the API server at that moment, with no cache
//!    in between ([`Collector::handle_verdict`]);
//! 4. the release names the block by uid and the allocation by address *and sequence*
//!    ([`Order`]), and is written with the resourceVersion that was read: an address that was
//!    given to somebody else meanwhile has another sequence, and stays with him.
//!
//! Time is an argument and monotonic, so a clock that is set never shortens the grace period.
//! The suspicions live in memory: a new leader begins its own grace period.
//!
//! Not here: watching, reading, writing (the controller), empty blocks of living nodes
//! ([`crate::tidy`]).

mod collector;
mod facts;
mod order;

pub use collector::{Case, Collector, Settings, Subject};
pub use facts::{
    CLASS_ANNOTATION, Facts, Holder, LOAD_BALANCER_CLASS, NodeFacts, PodFacts, Reason,
    Replacements, ServiceFacts,
};
pub use order::Order;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
