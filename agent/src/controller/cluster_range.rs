//! Whether a pool lies in the cluster's range, as other parts of Kubernetes know it.
//!
//! kube-proxy (`--cluster-cidr`) takes an address outside it for an outsider's and masquerades,
//! and some clouds route nothing else. The range is what the controller was told, or else what the
//! controller manager gave to nodes (`spec.podCIDRs`): of that only parts are known, so a pool
//! counts as outside only if it has nothing in common with any of them.
//!
//! It is a warning: pods get addresses all the same.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;
use margay_crds::{AllowedUse, Condition, Pool};

/// The condition's type.
pub(super) const IN_CLUSTER_RANGE: &str = "InClusterCIDR";

/// The range as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClusterRange {
    /// What the controller was told.
    told: Vec<IpNetwork>,
    /// What nodes were given, by node.
    nodes: BTreeMap<String, Vec<IpNetwork>>,
}

impl ClusterRange {
    /// A range that was told; empty if none was.
    pub(super) fn new(told: Vec<IpNetwork>) -> Self {
        Self {
            told,
            ..Self::default()
        }
    }

    /// Takes in a node, or that it is gone; true if the range has changed.
    pub(super) fn handle_node(&mut self, name: &str, node: Option<&Node>) -> bool {
        let given = node.map(pod_cidrs).filter(|given| !given.is_empty());
        let before = match given {
            Some(given) => self.nodes.insert(name.to_owned(), given.clone()) != Some(given),
            None => self.nodes.remove(name).is_some(),
        };
        before && self.told.is_empty()
    }

    /// The condition that should stand on a pool: none where nothing is known of its family, or
    /// pods get no addresses from it.
    pub(super) fn condition(
        &self,
        pool: &Pool,
        generation: Option<i64>,
        now: &str,
    ) -> Option<Condition> {
        if !pool.allowed_uses.contains(&AllowedUse::Workload) {
            return None;
        }
        let cidr = pool.cidr;
        let same_family = |range: &&IpNetwork| range.is_ipv4() == cidr.is_ipv4();
        let told: Vec<&IpNetwork> = self.told.iter().filter(same_family).collect();
        let given = self.nodes.values().flatten().find(same_family);
        let problem = if let Some(first) = told.first() {
            let inside = told.iter().any(|range| covers(range, &cidr));
            (!inside).then(|| format!("the cluster's range {first}"))
        } else {
            let first = given?;
            let mut all = self.nodes.values().flatten();
            let touches = all.any(|range| covers(range, &cidr) || covers(&cidr, range));
            (!touches).then(|| format!("the podCIDRs of the nodes, such as {first}"))
        };
        let (status, reason, message) = match problem {
            None => (
                "True",
                "Inside",
                "in the range that the cluster knows".to_owned(),
            ),
            Some(what) => (
                "False",
                "Outside",
                format!(
                    "{cidr} is outside {what}: kube-proxy with --cluster-cidr takes its pods for \
                     outsiders; let both agree, or tell the controller with --cluster-cidr"
                ),
            ),
        };
        Some(Condition {
            type_: IN_CLUSTER_RANGE.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: now.to_owned(),
        })
    }
}

fn pod_cidrs(node: &Node) -> Vec<IpNetwork> {
    let spec = node.spec.as_ref();
    let many = spec.and_then(|spec| spec.pod_cidrs.clone());
    let one = || {
        spec.and_then(|spec| spec.pod_cidr.clone())
            .into_iter()
            .collect()
    };
    let texts: Vec<String> = many.unwrap_or_else(one);
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn covers(outer: &IpNetwork, inner: &IpNetwork) -> bool {
    outer.is_ipv4() == inner.is_ipv4()
        && outer.prefix() <= inner.prefix()
        && outer.contains(inner.ip())
}

#[cfg(test)]
mod tests {
    use margay_crds::IPPool;
    use serde_json::{Value, json};

    use super::*;

    fn pool(spec: Value) -> Pool {
        let object = IPPool::new("p", serde_json::from_value(spec).unwrap());
        object.check().unwrap()
    }

    fn told(ranges: &[&str]) -> ClusterRange {
        ClusterRange::new(ranges.iter().map(|range| range.parse().unwrap()).collect())
    }

    fn node(ranges: &[&str]) -> Node {
        serde_json::from_value(json!({"spec": {"podCIDRs": ranges}})).unwrap()
    }

    fn status(range: &ClusterRange, cidr: &str) -> Option<String> {
        let pool = pool(json!({"cidr": cidr}));
        range.condition(&pool, None, "t").map(|one| one.status)
    }

    #[test]
    fn what_was_told_is_the_range() {
        let range = told(&["10.244.0.0/16", "10.96.0.0/16"]);
        for (cidr, wanted) in [
            ("10.244.0.0/16", Some("True")),
            ("10.244.128.0/17", Some("True")),
            ("10.240.0.0/12", Some("False")),
            ("10.9.0.0/16", Some("False")),
            // Nothing is known of this family.
            ("fd00:10::/64", None),
        ] {
            assert_eq!(status(&range, cidr).as_deref(), wanted, "{cidr}");
        }
    }

    #[test]
    fn otherwise_nodes_show_it() {
        let mut range = told(&[]);
        assert_eq!(status(&range, "10.9.0.0/16"), None);
        assert!(range.handle_node("n1", Some(&node(&["10.244.1.0/24", "fd00::/80"]))));
        assert!(!range.handle_node("n1", Some(&node(&["10.244.1.0/24", "fd00::/80"]))));
        assert_eq!(status(&range, "10.244.0.0/16").as_deref(), Some("True"));
        assert_eq!(status(&range, "10.9.0.0/16").as_deref(), Some("False"));
        assert_eq!(status(&range, "fd00:9::/64").as_deref(), Some("False"));
        assert!(range.handle_node("n1", None));
        assert_eq!(status(&range, "10.9.0.0/16"), None);
    }

    #[test]
    fn addresses_of_services_need_not_be_pods() {
        let range = told(&["10.244.0.0/16"]);
        let spec = json!({"cidr": "192.0.2.0/24", "allowedUses": ["LoadBalancer"]});
        assert_eq!(range.condition(&pool(spec), None, "t"), None);
    }

    #[test]
    fn the_words_name_both_and_the_way_out() {
        let pool = pool(json!({"cidr": "10.9.0.0/16"}));
        let condition = told(&["10.244.0.0/16"]).condition(&pool, Some(3), "t");
        let condition = condition.unwrap();
        for part in ["10.9.0.0/16", "10.244.0.0/16", "--cluster-cidr"] {
            assert!(condition.message.contains(part), "{}", condition.message);
        }
        assert_eq!(condition.observed_generation, Some(3));
    }
}
