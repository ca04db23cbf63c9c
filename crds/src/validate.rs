//! The checks of every kind behind one door, for a store that has no CEL engine.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::field::FieldError;
use crate::{
    BGPConfiguration, BGPFilter, BGPPeer, ClusterNetworkPolicy, GlobalNetworkPolicy,
    GlobalNetworkSet, HostEndpoint, IPAMBlock, IPAMConfiguration, IPPool, IPReservation,
    NetworkPolicy, NetworkSet, Tier,
};

/// Every field of `new` that is wrong by the rules of its kind, and on an update (`old` given)
/// every field that may not change. Kinds that are not ours have no rules here.
pub fn validate(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match kind {
        "IPPool" => checked(
            new,
            old,
            |object: &IPPool| object.check().err(),
            IPPool::check_update,
        ),
        "IPReservation" => checked(
            new,
            old,
            |object: &IPReservation| object.check().err(),
            |_, _| Vec::new(),
        ),
        "IPAMBlock" => checked(
            new,
            old,
            |object: &IPAMBlock| object.check().err(),
            IPAMBlock::check_update,
        ),
        "IPAMConfiguration" => checked(
            new,
            old,
            |object: &IPAMConfiguration| object.check().err(),
            |_, _| Vec::new(),
        ),
        "BGPConfiguration" => checked(
            new,
            old,
            |object: &BGPConfiguration| object.check().err(),
            |_, _| Vec::new(),
        ),
        "BGPFilter" => checked(
            new,
            old,
            |object: &BGPFilter| object.check().err(),
            |_, _| Vec::new(),
        ),
        "BGPPeer" => checked(
            new,
            old,
            |object: &BGPPeer| object.check().err(),
            |_, _| Vec::new(),
        ),
        "NetworkPolicy" => checked(
            new,
            old,
            |object: &NetworkPolicy| object.check().err(),
            NetworkPolicy::check_update,
        ),
        "GlobalNetworkPolicy" => checked(
            new,
            old,
            |object: &GlobalNetworkPolicy| object.check().err(),
            GlobalNetworkPolicy::check_update,
        ),
        "ClusterNetworkPolicy" => checked(
            new,
            old,
            |object: &ClusterNetworkPolicy| object.check().err(),
            |_, _| Vec::new(),
        ),
        "HostEndpoint" => checked(
            new,
            old,
            |object: &HostEndpoint| object.check().err(),
            |_, _| Vec::new(),
        ),
        "Tier" => checked(
            new,
            old,
            |object: &Tier| object.check().err(),
            |_, _| Vec::new(),
        ),
        "NetworkSet" => checked(
            new,
            old,
            |object: &NetworkSet| object.check().err(),
            |_, _| Vec::new(),
        ),
        "GlobalNetworkSet" => checked(
            new,
            old,
            |object: &GlobalNetworkSet| object.check().err(),
            |_, _| Vec::new(),
        ),
        _ => Vec::new(),
    }
}

/// Every field of `new` that is wrong beside the objects of its kind that are there, an older
/// version of itself among them. Objects that do not decode are passed over.
pub fn validate_beside(
    kind: &str,
    new: &Value,
    others: impl FnOnce() -> Vec<Value>,
) -> Vec<FieldError> {
    if kind != "IPPool" {
        return Vec::new();
    }
    let Ok(pool) = serde_json::from_value::<IPPool>(new.clone()) else {
        return Vec::new();
    };
    let others = others().into_iter();
    let others: Vec<IPPool> = others
        .filter_map(|other| serde_json::from_value(other).ok())
        .collect();
    // What stands already, such as a pool made before the other was switched on, may be written
    // on: its labels, its finalizers. Only what newly gives addresses is looked at.
    let name = &pool.metadata.name;
    let stands = others
        .iter()
        .any(|other| other.metadata.name == *name && other.spec.disabled == pool.spec.disabled);
    match stands {
        true => Vec::new(),
        false => crate::ip_pool::allocatable::check_beside(&pool, &others),
    }
}

fn checked<K: DeserializeOwned>(
    new: &Value,
    old: Option<&Value>,
    check: impl Fn(&K) -> Option<Vec<FieldError>>,
    check_update: impl Fn(&K, &K) -> Vec<FieldError>,
) -> Vec<FieldError> {
    let object: K = match serde_json::from_value(new.clone()) {
        Ok(object) => object,
        Err(error) => {
            return vec![FieldError::invalid(
                "spec",
                new.get("spec"),
                error.to_string(),
            )];
        }
    };
    let mut errors = check(&object).unwrap_or_default();
    // An old object that does not decode cannot hold back its own repair.
    if let Some(old) = old.and_then(|old| serde_json::from_value::<K>(old.clone()).ok()) {
        errors.extend(check_update(&object, &old));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_checked_beside_the_others() {
        let pool = |name: &str, cidr: &str, disabled: bool| {
            serde_json::json!({
                "apiVersion": "margay.dev/v1", "kind": "IPPool", "metadata": {"name": name},
                "spec": {"cidr": cidr, "disabled": disabled},
            })
        };
        let there = || {
            vec![
                pool("a", "10.0.0.0/8", false),
                pool("b", "10.1.0.0/16", true),
            ]
        };
        let errors = |new: &Value| validate_beside("IPPool", new, there).len();
        assert_eq!(errors(&pool("c", "10.2.0.0/16", false)), 1);
        assert_eq!(errors(&pool("c", "10.2.0.0/16", true)), 0);
        assert_eq!(errors(&pool("c", "11.0.0.0/16", false)), 0);
        // Switched on beside another; written on while it stands.
        assert_eq!(errors(&pool("b", "10.1.0.0/16", false)), 1);
        assert_eq!(errors(&pool("b", "10.1.0.0/16", true)), 0);
        assert_eq!(errors(&pool("a", "10.0.0.0/8", false)), 0);
        assert!(validate_beside("IPAMBlock", &pool("c", "10.2.0.0/16", false), there).is_empty());
    }

    #[test]
    fn a_pool_is_checked_on_create_and_update() {
        let pool = |cidr: &str| {
            serde_json::json!({
                "apiVersion": "margay.dev/v1", "kind": "IPPool", "metadata": {"name": "p"},
                "spec": {"cidr": cidr},
            })
        };
        assert!(validate("IPPool", &pool("10.0.0.0/16"), None).is_empty());
        assert_eq!(validate("IPPool", &pool("10.0.0.1/16"), None).len(), 1);
        let errors = validate("IPPool", &pool("10.1.0.0/16"), Some(&pool("10.0.0.0/16")));
        assert_eq!(errors[0].path, "spec.cidr");
        assert!(validate("Pod", &serde_json::json!({}), None).is_empty());
    }
}
