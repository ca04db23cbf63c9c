//! What the agent tells the cluster: its NodeStatus, and an `Accepted` condition on the pools and
//! peers it read.
//!
//! Pure parts say what should be written ([`node`], [`conditions`], [`wish`]); [`writer`] writes
//! it, at most once a second and only what differs.

pub mod conditions;
pub mod node;
pub mod peers;
pub mod wish;
pub mod writer;
