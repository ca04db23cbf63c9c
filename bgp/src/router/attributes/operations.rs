//! A filter's operations on a route.

use crate::policy::Operation;
use crate::rib::Route;
use crate::types::Asn;

/// Applies operations in order; `own` is the AS to prepend where an operation names none.
pub(super) fn apply(operations: &[Operation], own: Asn, route: &mut Route) {
    let attributes = &mut route.attributes;
    for operation in operations {
        match operation {
            Operation::SetLocalPref(value) => attributes.local_pref = Some(*value),
            Operation::SetMed(value) => attributes.med = Some(*value),
            Operation::SetMetric(value) => route.metric = Some(*value),
            Operation::AddCommunity(one) => add(&mut attributes.communities, *one),
            Operation::AddLargeCommunity(one) => add(&mut attributes.large_communities, *one),
            Operation::AddExtendedCommunity(one) => {
                add(&mut attributes.extended_communities, *one);
            }
            Operation::SetCommunities(all) => attributes.communities.clone_from(all),
            Operation::SetLargeCommunities(all) => attributes.large_communities.clone_from(all),
            Operation::SetExtendedCommunities(all) => {
                attributes.extended_communities.clone_from(all);
            }
            Operation::RemoveCommunities(pattern) => {
                attributes.communities.retain(|c| !pattern.matches(*c));
            }
            Operation::RemoveLargeCommunities(pattern) => {
                attributes
                    .large_communities
                    .retain(|c| !pattern.matches(*c));
            }
            Operation::RemoveExtendedCommunities(pattern) => {
                attributes
                    .extended_communities
                    .retain(|c| !pattern.matches(*c));
            }
            Operation::Prepend { asn, count } => {
                let asn = asn.unwrap_or(own);
                attributes.as_path = attributes.as_path.prepended(asn, usize::from(*count));
            }
            Operation::PrependPath(asns) => {
                for asn in asns.iter().rev() {
                    attributes.as_path = attributes.as_path.prepended(*asn, 1);
                }
            }
        }
    }
}

/// Adds what is not there yet.
pub(in crate::router) fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}
