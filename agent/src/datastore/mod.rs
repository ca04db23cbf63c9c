//! The one datastore code path: a `kube` client, whether Kubernetes or the embedded store
//! answers it.
//!
//! Not here: what the objects mean ([`crate::view`]).

mod connect;
mod embedded;
mod light_pod;
mod mirror;
mod retry;
mod roster;
mod watch;

pub use connect::{Connection, client, connect};
pub use embedded::{margay_store, serve};
pub use light_pod::LightPod;
pub use mirror::Mirror;
pub(crate) use retry::Retry;
pub use roster::{Roster, RosterChange};
pub use watch::{Change, Failures, Kind, Watches, watch_all};
pub(crate) use watch::{Ended, Follower};
