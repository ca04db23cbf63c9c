//! A filter's operations on attributes.

use crate::policy::Operation;
use crate::wire::PathAttributes;

/// Applies operations in order.
pub(super) fn apply(operations: &[Operation], attributes: &mut PathAttributes) {
    for operation in operations {
        match operation {
            Operation::SetLocalPref(value) => attributes.local_pref = Some(*value),
            Operation::SetMed(value) => attributes.med = Some(*value),
            Operation::AddCommunity(community) => {
                if !attributes.communities.contains(community) {
                    attributes.communities.push(*community);
                }
            }
            Operation::AddLargeCommunity(community) => {
                if !attributes.large_communities.contains(community) {
                    attributes.large_communities.push(*community);
                }
            }
        }
    }
}
