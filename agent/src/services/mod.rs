//! What this node announces of the cluster's Services.
//!
//! The core, [`Services`], is pure: it takes in watch events and settings and holds the prefixes
//! to announce, worked out anew only for the Services an event touches. [`ServiceWatches`] is its
//! edge: it watches Services and EndpointSlices while BGPConfiguration names a range, and nothing
//! otherwise.
//!
//! | what | is announced |
//! |---|---|
//! | a range of `serviceClusterIPs`, `serviceExternalIPs`, `serviceLoadBalancerIPs` | whole, by every node |
//! | a Service's address in such a range, policy `Cluster` | by the range |
//! | the same, policy `Local` | as a /32 or /128, by the nodes that have a usable endpoint |
//! | an address in a range of one address, policy `Cluster` | as itself, by every node, as long as a Service has it |
//! | a load balancer's address with `serviceLoadBalancerAggregation: Disabled`, policy `Cluster` | as itself, by every node, as long as there is a usable endpoint anywhere; its range is not |
//!
//! The policy of external IPs and load balancers' addresses is `externalTrafficPolicy`. A cluster
//! IP is `Local` if either policy of the Service is: `internalTrafficPolicy` says what the node
//! does with such packets, and with `externalTrafficPolicy` Calico's users ask for these routes.
//!
//! An endpoint is usable if it is ready, or terminating and still serving (KEP-1669: the proxy
//! sends to those when no ready one is left on the node). So a node that drains keeps the route
//! until its last endpoint has stopped serving, and loses it in that moment. Conditions that are
//! absent are `ready`, `serving` and not `terminating`, as the API defines them. Only endpoints of
//! the address's own family count, over all EndpointSlices of the Service.
//!
//! Addresses of a load balancer are those in `status.loadBalancer.ingress`; `spec.loadBalancerIP`
//! counts as long as the status names none. Addresses with `ipMode: Proxy` belong to somebody
//! else's machine and are not announced. Nothing is announced of Services of type ExternalName and
//! of headless ones.
//!
//! A node with the label `node.kubernetes.io/exclude-from-external-load-balancers` (any value but
//! `false`) announces neither ranges nor addresses. A Service with the label or annotation
//! `margay.dev/advertise: "false"` has none of its addresses announced as such; a range that
//! covers them stays, for BGP has no way to take an address out of it.
//!
//! What several Services ask for is announced until none does. Whatever is wrong with an object is
//! said once, and the rest of it counts.
//!
//! Not here: packets. The node's service proxy must know the addresses; no route to them is ever
//! put in the kernel ([`crate::reconcile::routes`]).

mod communities;
mod core;
mod edge;
mod ranges;
mod service;
mod slice;
#[cfg(test)]
mod tests;

pub use self::communities::announcement;
pub use self::core::{Change, Reason, Services};
pub use self::edge::{ServiceEvent, ServiceWatches, Watching};
pub use self::ranges::is_service_space;
pub use self::service::ADVERTISE;
pub use self::slice::{EndpointSlice, SliceVersion};
