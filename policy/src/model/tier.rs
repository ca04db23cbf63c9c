//! Tiers, and the order of policies: what comes before what.

use std::fmt;

use margay_crds as crds;
use margay_crds::tier::DefaultAction;
use serde::Serialize;

use crate::problem::{Problem, Problems};

/// A kind of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// `margay.dev/v1` NetworkPolicy.
    #[serde(rename = "NetworkPolicy.margay.dev")]
    OwnNetworkPolicy,
    /// `margay.dev/v1` GlobalNetworkPolicy.
    GlobalNetworkPolicy,
}

impl PolicyKind {
    /// The kind as manifests name it, with the group where another has the same name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::OwnNetworkPolicy => "NetworkPolicy.margay.dev",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
        }
    }
}

/// Which policy. The order of references decides between policies of the same place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRef {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PolicyRef {
    /// A reference.
    pub fn new(kind: PolicyKind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.as_str())?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A place among others: lower comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(u64);

impl Order {
    /// After everything that has a number.
    pub const LAST: Self = Self(u64::MAX);
    /// The place of Kubernetes' NetworkPolicies in their tier.
    pub const NETWORK_POLICY: f64 = 1000.0;

    /// The place with this number, or the last one without.
    pub fn of(number: Option<f64>) -> Self {
        let Some(number) = number.filter(|number| number.is_finite()) else {
            return Self::LAST;
        };
        // IEEE 754's own order of bit patterns, once the sign is out of the way; -0 is 0.
        let bits = (number + 0.0).to_bits();
        let sign = 1 << 63;
        Self(if bits & sign == 0 { bits | sign } else { !bits })
    }
}

/// A group of policies and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The name.
    pub name: String,
    /// The place; tiers of the same place are in the order of their names.
    pub order: Order,
    /// Whether traffic about which the tier has not decided goes on to the next tier, and is not dropped, for endpoints
    /// that one of its policies selects.
    pub passes: bool,
}

impl Tier {
    /// A tier that is always there, by its name.
    pub fn built_in(name: &str) -> Option<Self> {
        let tiers = crds::Tier::BUILT_IN.iter();
        let found = tiers.copied().find(|(there, ..)| *there == name)?;
        let (_, order, action) = found;
        Some(Self {
            name: name.to_owned(),
            order: Order::of(Some(order)),
            passes: action == DefaultAction::Pass,
        })
    }

    /// What stands for a tier that nothing describes.
    pub(super) fn unknown(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            order: Order::LAST,
            passes: false,
        }
    }

    /// What tiers are sorted by.
    pub fn place(&self) -> (Order, &str) {
        (self.order, &self.name)
    }
}

pub(super) fn read(object: &crds::Tier) -> (Option<Tier>, Vec<Problem>) {
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut problems = Problems::of("Tier", "", &name);
    if let Err(errors) = object.check() {
        problems.fields(&errors, "");
    }
    let tier = Tier {
        order: Order::of(object.spec.order),
        passes: object.spec.default_action == DefaultAction::Pass,
        name,
    };
    let usable = Tier::built_in(&tier.name).is_none() && !tier.name.is_empty();
    (usable.then_some(tier), problems.into_found())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_the_order_of_their_numbers() {
        let numbers = [-1e300, -2.5, -1.0, 0.0, 1e-300, 1.0, 2.0, 1e9];
        let mut places: Vec<_> = numbers.map(|number| Order::of(Some(number))).into();
        places.push(Order::of(None));
        assert!(places.is_sorted() && places.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(Order::of(Some(-0.0)), Order::of(Some(0.0)));
        assert_eq!(Order::of(Some(f64::NAN)), Order::LAST);
    }
}
