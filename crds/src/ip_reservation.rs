//! IPReservation: addresses that are not given to anyone new.
//!
//! For a handful of addresses inside pools that something else uses, such as a gateway or a
//! virtual address. Addresses that are held already stay with their holders.

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::field::{Errors, FieldError, cidrs};

/// What people write.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "IPReservation",
    plural = "ipreservations",
    shortname = "ipr",
    category = "margay",
    status = "IPReservationStatus",
    derive = "PartialEq",
    printcolumn(name = "CIDRs", type_ = "string", json_path = ".spec.reservedCIDRs"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPReservationSpec {
    /// Ranges no address of which is given any more, such as 10.244.0.1/32. A pod that asks for
    /// one of them by its annotation gets it.
    #[serde(default, rename = "reservedCIDRs")]
    #[schemars(length(max = 256))]
    pub reserved_cidrs: Vec<String>,
}

/// What Margay found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPReservationStatus {
    /// `Accepted`: whether the ranges are kept free, and if not, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl IPReservation {
    /// The ranges, or every one that is wrong.
    ///
    /// # Errors
    /// Each range that is no CIDR, by its place in the list.
    pub fn check(&self) -> Result<Vec<IpNetwork>, Vec<FieldError>> {
        let mut errors = Errors::default();
        let ranges = cidrs(&mut errors, "spec.reservedCIDRs", &self.spec.reserved_cidrs);
        errors.finish(Some(ranges))
    }

    /// The ranges that can be read, whatever the others are.
    pub fn ranges(&self) -> Vec<IpNetwork> {
        let mut errors = Errors::default();
        cidrs(&mut errors, "spec.reservedCIDRs", &self.spec.reserved_cidrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_range_is_named_by_its_place() {
        let reservation = |ranges: &[&str]| {
            let spec = serde_json::json!({"reservedCIDRs": ranges});
            IPReservation::new("r", serde_json::from_value(spec).unwrap())
        };
        assert_eq!(
            reservation(&["10.0.0.1/32", "fd00::/120"])
                .check()
                .unwrap()
                .len(),
            2
        );
        let errors = reservation(&["10.0.0.1/32", "10.0.0.1/24"])
            .check()
            .unwrap_err();
        let text = crate::field::join(&errors);
        assert!(text.contains("spec.reservedCIDRs[1]"), "{text}");
        assert!(text.contains("did you mean 10.0.0.0/24?"), "{text}");
    }
}
