//! Margay's Kubernetes API (`margay.dev/v1`) as Rust types.
//!
//! Each kind has a file of its own: the type as people write it, its CEL rules and printer
//! columns, and a `check()` that turns it into a typed, validated value. The CEL rules guard at
//! the API server; `check()` guards again in whoever uses the object, because servers before
//! Kubernetes 1.25 drop the rules, and because the embedded store has no CEL engine and calls
//! [`validate::validate`] instead.
//!
//! The fields hold strings where a wrong value is possible on such a server (addresses, CIDRs,
//! selectors): a value that does not parse must spoil one object, never the decoding of a whole
//! watch.
//!
//! Not here: anything that acts on the objects.

#![expect(
    unreachable_pub,
    reason = "the derive of CustomResource wraps the spec types in a private module"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "each printer column repeats the keys name, type_ and json_path"
)]

pub mod as_number;
pub mod bgp_configuration;
pub mod bgp_filter;
pub mod bgp_peer;
pub mod cluster_network_policy;
pub mod condition;
pub mod drain;
pub mod field;
pub mod host_endpoint;
pub mod ip_pool;
pub mod ip_reservation;
pub mod ipam_block;
pub mod ipam_configuration;
pub mod manifests;
pub mod network_policy;
pub mod network_set;
pub mod node_status;
pub mod policy_rule;
pub mod prefix_advertisement;
pub mod seconds;
pub mod selector;
pub mod tier;
pub mod validate;

pub use as_number::{PeerAs, parse_own_as_number};
pub use bgp_configuration::{BGPConfiguration, BGPConfigurationSpec, BgpSettings, NodeBgpSettings};
pub use bgp_filter::{BGPFilter, BGPFilterSpec, BGPFilterStatus, PeerFilter};
pub use bgp_peer::{BGPPeer, BGPPeerSpec, BGPPeerStatus, Peer};
pub use cluster_network_policy::{ClusterNetworkPolicy, ClusterNetworkPolicySpec};
pub use condition::Condition;
pub use drain::{DrainRequest, DrainStage};
pub use field::FieldError;
pub use host_endpoint::{HostEndpoint, HostEndpointSpec, HostInterface};
pub use ip_pool::{
    AllowedUse, AssignmentMode, EncapsulationMode, IPPool, IPPoolSpec, IPPoolStatus, Pool,
};
pub use ip_reservation::{IPReservation, IPReservationSpec, IPReservationStatus};
pub use ipam_block::{Allocation, Block, IPAMBlock, IPAMBlockSpec, Owner, OwnerKind, Released};
pub use ipam_configuration::{IPAMConfiguration, IPAMConfigurationSpec, IpamSettings};
pub use network_policy::{
    GlobalNetworkPolicy, GlobalNetworkPolicySpec, HostStage, HostUse, NetworkPolicy,
    NetworkPolicySpec, PolicyStatus,
};
pub use network_set::{GlobalNetworkSet, GlobalNetworkSetSpec, NetworkSet, NetworkSetSpec};
pub use node_status::{NodeStatus, NodeStatusSpec, NodeStatusStatus};
pub use prefix_advertisement::{
    Aggregation, CommunityValue, PrefixAdvertisement, ServiceRange, ServiceRanges,
};
pub use selector::Selector;
pub use tier::{Tier, TierSpec};

/// The API group of every kind of ours.
pub const GROUP: &str = "margay.dev";
/// The one version served today.
pub const VERSION: &str = "v1";
/// The label on an IPAMBlock that names the node it belongs to (field selectors on custom
/// resources came only with Kubernetes 1.30).
pub const NODE_LABEL: &str = "margay.dev/node";
/// The pseudo-node that holds the blocks of LoadBalancer addresses. No node may bear the name;
/// nobody routes or announces its blocks as a node's.
pub const LOAD_BALANCER_NODE: &str = "margay-loadbalancer";
/// The finalizer on an IPPool that waits for the pool's last block.
pub const BLOCKS_FINALIZER: &str = "margay.dev/blocks";
/// The name of the singletons IPAMConfiguration and BGPConfiguration.
pub const DEFAULT_NAME: &str = "default";
