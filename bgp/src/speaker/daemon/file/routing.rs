//! What the file says about routes outside filters: what is done to them per neighbor, and aggregates.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::Aggregate;
use crate::types::{Community, ExtendedCommunity, LargeCommunity, Prefix};

/// A route to originate as long as there is a more specific one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AggregateEntry {
    /// The destination.
    pub prefix: Prefix,
    /// Give no neighbor the more specific routes.
    #[serde(default)]
    pub summary_only: bool,
    /// LOCAL_PREF; left out: 100.
    #[serde(default)]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC; left out: none.
    #[serde(default)]
    pub med: Option<u32>,
    /// Communities.
    #[serde(default)]
    pub communities: BTreeSet<Community>,
    /// Large communities.
    #[serde(default)]
    pub large_communities: BTreeSet<LargeCommunity>,
    /// Extended communities.
    #[serde(default)]
    pub extended_communities: BTreeSet<ExtendedCommunity>,
}

impl AggregateEntry {
    pub(super) fn aggregate(&self) -> Aggregate {
        Aggregate {
            summary_only: self.summary_only,
            local_pref: self.local_pref,
            med: self.med,
            communities: self.communities.clone(),
            large_communities: self.large_communities.clone(),
            extended_communities: self.extended_communities.clone(),
        }
    }
}
