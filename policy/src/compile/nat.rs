//! Outgoing NAT: what pods of a pool with `natOutgoing` send out of all pools leaves with the node's address.
//!
//! Not towards a pool, nor towards the node addresses in [`NodeInput::node_addresses`], nor through a tunnel device: there
//! the other side routes back to the pod itself.

use std::collections::BTreeSet;

use super::{NodeInput, Pool, emit::add_set};
use crate::{
    identity::{address, bounds},
    ruleset::{Action, Chain, Family, Field, Hook, Key, KeyType, Match, Rule, Ruleset, Verdict},
};

const TUNNELS: &str = "tunnels";
const POSTROUTING: &str = "postrouting";

/// Whether a chain or set is NAT's: it has no part in what is judged.
pub(crate) fn is_nat(name: &str) -> bool {
    name == POSTROUTING
        || name == TUNNELS
        || ["nat-sources", "pools", "nodes"].iter().any(|prefix| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.len() == 1)
        })
}

/// The names of everything that [`emit`] may add: its chain and its sets.
pub(crate) fn names() -> (&'static str, Vec<String>) {
    let sets = Family::ALL.into_iter().flat_map(|family| {
        ["nat-sources", "pools", "nodes"].map(|name| format!("{name}{}", family.digit()))
    });
    (POSTROUTING, sets.chain([TUNNELS.to_owned()]).collect())
}

/// Adds the chain and its sets. Without a pool that wants NAT there is neither: a NAT chain costs every connection.
pub(crate) fn emit(node: &NodeInput, ruleset: &mut Ruleset) {
    if !node.pools.iter().any(|pool| pool.nat_outgoing) {
        return;
    }
    let devices = node
        .tunnel_devices
        .iter()
        .map(|name| Key::interface(name))
        .collect();
    add_set(ruleset, TUNNELS, KeyType::Interface, devices);
    let tunnelled = Match::In(vec![Field::OutInterface], TUNNELS.to_owned());
    let mut rules = vec![Rule::new([tunnelled], Verdict::Accept)];
    for family in Family::ALL {
        let in_family = |pool: &&Pool| Family::of(pool.cidr.network()) == family;
        let pools: Vec<&Pool> = node.pools.iter().filter(in_family).collect();
        if !pools.iter().any(|pool| pool.nat_outgoing) {
            continue;
        }
        let digit = family.digit();
        let (sources, all, nodes) = (
            format!("nat-sources{digit}"),
            format!("pools{digit}"),
            format!("nodes{digit}"),
        );
        let wanting = pools.iter().filter(|pool| pool.nat_outgoing);
        add_set(
            ruleset,
            &sources,
            KeyType::Range(family),
            ranges(family, wanting.copied()),
        );
        add_set(
            ruleset,
            &all,
            KeyType::Range(family),
            ranges(family, pools.iter().copied()),
        );
        let addresses = node
            .node_addresses
            .iter()
            .filter(|address| Family::of(**address) == family);
        add_set(
            ruleset,
            &nodes,
            KeyType::Address(family),
            addresses.map(|address| Key::Address(*address)).collect(),
        );
        let conditions = [
            Match::In(vec![Field::Source(family)], sources),
            Match::NotIn(vec![Field::Destination(family)], all),
            Match::NotIn(vec![Field::Destination(family)], nodes),
        ];
        rules.push(Rule::new(conditions, Action::Masquerade));
    }
    let chain = Chain {
        hook: Some(Hook::PostroutingNat),
        rules,
    };
    ruleset.chains.insert(POSTROUTING.to_owned(), chain);
}

/// The pools' networks as disjoint intervals: the kernel refuses overlapping ones, and pools may be nested.
fn ranges<'a>(family: Family, pools: impl Iterator<Item = &'a Pool>) -> BTreeSet<Key> {
    let mut bounds: Vec<_> = pools.map(|pool| bounds(&pool.cidr)).collect();
    bounds.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in bounds {
        match merged.last_mut() {
            Some(previous) if first <= previous.1 => previous.1 = previous.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let range = |(first, last)| Key::range(address(family, first), address(family, last));
    merged.into_iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_pools_are_one_interval() {
        let pool = |cidr: &str| Pool {
            cidr: cidr.parse().unwrap(),
            nat_outgoing: true,
        };
        let pools = [
            pool("10.1.0.0/16"),
            pool("10.0.0.0/8"),
            pool("192.168.0.0/24"),
        ];
        assert_eq!(
            ranges(Family::V4, pools.iter()),
            BTreeSet::from([
                Key::range(
                    "10.0.0.0".parse().unwrap(),
                    "10.255.255.255".parse().unwrap()
                ),
                Key::range(
                    "192.168.0.0".parse().unwrap(),
                    "192.168.0.255".parse().unwrap()
                ),
            ])
        );
    }

    #[test]
    fn without_a_pool_that_wants_it_there_is_no_nat_chain() {
        let mut ruleset = Ruleset::new();
        emit(&NodeInput::default(), &mut ruleset);
        assert_eq!(ruleset, Ruleset::new());
    }
}
