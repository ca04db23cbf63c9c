//! Filters: which routes pass, and what is changed on the way.
//!
//! A [`Filter`] is a value: an ordered list of rules, the first that matches decides. A rule asks for prefixes
//! ([`PrefixMatch`]) and for attributes ([`Conditions`]), and lists changes ([`Operation`]). Nothing here knows peers,
//! sessions or the decision process, and nothing here changes a route: that is `router::attributes`.

mod as_path;
mod community;
mod conditions;
mod filter;
mod index;
mod operation;
mod prefix;
mod refusal;
mod refusal_counts;

pub use as_path::{AsPathPattern, ParseAsPathError};
pub use community::{
    CommunityMatch, CommunityPattern, ExtendedCommunityPattern, LargeCommunityPattern,
    ParsePatternError,
};
pub use conditions::{Conditions, PeerType, RouteSource, Subject};
pub use filter::{Filter, Prepared, Rule, Verdict};
pub use operation::{MAX_PREPEND, Operation};
pub use prefix::{MatchOperator, PrefixMatch};
pub use refusal::Refusal;
pub use refusal_counts::RefusalCounts;
