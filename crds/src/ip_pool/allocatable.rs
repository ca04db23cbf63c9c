//! Whether new addresses may come from a pool, seen beside all other pools.
//!
//! No rule of the API server's can compare two objects, so two pools may overlap there. Then one
//! of them gives addresses and the others say whose way they are in: the one that is in use goes
//! before one that is disabled or being deleted, then the older, then the lower name. A disabled
//! pool is thus in nobody's way, which is how a pool is replaced by its parts.
//!
//! Not here: writing the condition.

use std::fmt;

use ipnetwork::IpNetwork;
use k8s_openapi::jiff::Timestamp;

use super::{IPPool, Pool, overlap};
use crate::field::FieldError;

/// Why no new address comes from a pool, although its object is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// `spec.disabled`.
    Disabled,
    /// The object waits for its last block to be deleted.
    Terminating,
    /// Another pool has the addresses.
    Overlaps {
        /// The other pool's name.
        other: String,
        /// Its range.
        range: IpNetwork,
    },
}

impl Closed {
    /// The reason of the condition `Allocatable`, as Calico names it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Disabled => "PoolDisabled",
            Self::Terminating => "Terminating",
            Self::Overlaps { .. } => "CIDROverlap",
        }
    }
}

/// What follows the pool's name in a sentence.
impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("is disabled"),
            Self::Terminating => f.write_str("is being deleted"),
            Self::Overlaps { other, range } => write!(
                f,
                "overlaps IPPool {other} ({range}), which was there first: delete one of the two"
            ),
        }
    }
}

/// The reason of the condition `Allocatable` of a pool that gives addresses.
pub const OK: &str = "OK";

impl Pool {
    /// What the condition `Allocatable` says: whether it is true, its reason and its message.
    pub fn allocatable(&self) -> (bool, &'static str, String) {
        match &self.closed {
            None => (true, OK, format!("gives addresses of {}", self.cidr)),
            Some(closed) => {
                let message = format!("IPPool {} ({}) {closed}", self.name, self.cidr);
                (false, closed.reason(), message)
            }
        }
    }
}

/// The pools that are right, in the order of their names, each with what closes it, the other
/// pools considered. Wrong objects are left out.
pub fn resolve<'a>(objects: impl IntoIterator<Item = &'a IPPool>) -> Vec<Pool> {
    let right = objects
        .into_iter()
        .filter_map(|object| Some((created(object), object.check().ok()?)));
    let mut right: Vec<(Option<Timestamp>, Pool)> = right.collect();
    // An object that was never stored is younger than all that were.
    right.sort_by(|(left_age, left), (right_age, right)| {
        let key = |age: &Option<Timestamp>, pool: &Pool| {
            (
                pool.closed.is_some(),
                age.is_none(),
                *age,
                pool.name.clone(),
            )
        };
        key(left_age, left).cmp(&key(right_age, right))
    });
    let mut resolved: Vec<Pool> = Vec::new();
    for (_, mut pool) in right {
        if pool.closed.is_none() {
            let first = resolved
                .iter()
                .find(|other| other.closed.is_none() && overlap(other.cidr, pool.cidr));
            pool.closed = first.map(|other| Closed::Overlaps {
                other: other.name.clone(),
                range: other.cidr,
            });
        }
        resolved.push(pool);
    }
    resolved.sort_by(|left, right| left.name.cmp(&right.name));
    resolved
}

/// What is wrong with a pool beside those that are there already, for a store that can refuse it.
pub fn check_beside<'a>(
    new: &IPPool,
    others: impl IntoIterator<Item = &'a IPPool>,
) -> Vec<FieldError> {
    let Ok(pool) = new.check() else {
        return Vec::new();
    };
    if pool.closed.is_some() {
        return Vec::new();
    }
    let others = others.into_iter().filter_map(|other| other.check().ok());
    let in_the_way = others.filter(|other| {
        other.name != pool.name && other.closed.is_none() && overlap(other.cidr, pool.cidr)
    });
    let words = |other: Pool| {
        FieldError::invalid(
            "spec.cidr",
            &new.spec.cidr,
            format!(
                "must not overlap IPPool {} ({}): delete or disable that one first",
                other.name, other.cidr
            ),
        )
    };
    in_the_way.map(words).collect()
}

fn created(object: &IPPool) -> Option<Timestamp> {
    object
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn pool(name: &str, cidr: &str, born: i64) -> IPPool {
        let spec = serde_json::json!({ "cidr": cidr });
        let mut pool = IPPool::new(name, serde_json::from_value(spec).unwrap());
        let at = Timestamp::from_second(1_800_000_000 + born).unwrap();
        pool.metadata.creation_timestamp = Some(Time(at));
        pool
    }

    fn reasons(pools: &[IPPool]) -> Vec<&'static str> {
        let resolved = resolve(pools);
        resolved.iter().map(|pool| pool.allocatable().1).collect()
    }

    #[test]
    fn the_older_of_two_gives_addresses() {
        let mut pools = vec![
            pool("a", "10.1.0.0/16", 2),
            pool("b", "10.0.0.0/8", 1),
            pool("c", "fd00::/48", 3),
        ];
        assert_eq!(reasons(&pools), ["CIDROverlap", "OK", "OK"]);
        let message = resolve(&pools)[0].allocatable().2;
        assert_eq!(
            message,
            "IPPool a (10.1.0.0/16) overlaps IPPool b (10.0.0.0/8), which was there first: delete \
             one of the two"
        );
        // Disabled, or on its way out, the older one is in nobody's way.
        pools[1].spec.disabled = true;
        assert_eq!(reasons(&pools), ["OK", "PoolDisabled", "OK"]);
        pools[1].spec.disabled = false;
        pools[1].metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(reasons(&pools), ["OK", "Terminating", "OK"]);
    }

    #[test]
    fn a_pool_that_is_closed_itself_closes_no_other() {
        // c overlaps b only, and b gives nothing because of a.
        let pools = [
            pool("a", "10.0.0.0/16", 1),
            pool("b", "10.0.0.0/15", 2),
            pool("c", "10.1.0.0/16", 3),
        ];
        assert_eq!(reasons(&pools), ["OK", "CIDROverlap", "OK"]);
    }

    #[test]
    fn a_store_refuses_what_overlaps() {
        let there = [pool("there", "10.0.0.0/8", 1)];
        let errors = check_beside(&pool("new", "10.1.0.0/16", 2), &there);
        let text = crate::field::join(&errors);
        assert!(
            text.contains("must not overlap IPPool there (10.0.0.0/8)"),
            "{text}"
        );
        assert!(check_beside(&pool("there", "10.0.0.0/8", 1), &there).is_empty());
        assert!(check_beside(&pool("new", "11.0.0.0/16", 2), &there).is_empty());
        let mut off = pool("new", "10.1.0.0/16", 2);
        off.spec.disabled = true;
        assert!(check_beside(&off, &there).is_empty());
    }
}
