//! Filters: which routes pass, and what is changed on the way.
//!
//! A [`Filter`] is a value: an ordered list of rules, the first that matches decides. The RIB applies it to whole attribute
//! sets; nothing here knows peers, sessions or the decision process.

mod filter;
mod prefix;
mod refusal;

pub use filter::{Filter, Operation, Rule, Verdict};
pub use prefix::{MatchOperator, PrefixMatch};
pub use refusal::Refusal;
