//! The tokio shell around [`crate::router::Router`]: sockets, timers, tasks.
//!
//! Everything runs on one thread of its own, so that nothing else in the process can keep a session waiting and no lock is
//! needed: one owner task holds the router and everything it knows; a task per connection moves bytes through bounded
//! buffers; a task per listener accepts. A [`Speaker`] is a handle to the owner task, a [`RouteStream`] a bounded view of its
//! routes. Nothing here decides anything about BGP.
//!
//! Kernel routes are not installed here: that is for whoever subscribes.

mod admission;
mod bfd;
pub mod daemon;
mod flow;
mod handle;
mod io;
mod keys;
mod links;
mod listen;
pub mod monitor;
mod owner;
mod recording;
mod stream;
mod unnumbered;
mod watch;

pub use handle::{Shutdown, Speaker, SpeakerError};
pub use keys::NO_TCP_AO;
pub use recording::Recording;
pub use stream::RouteStream;
pub use watch::{ObservationBatch, Observations, Watching};

pub use crate::config::{
    Announcement, ConfigError, GracefulRestart, NextHopMode, NextHops, PeerConfig, SpeakerConfig,
};
pub use crate::router::{
    Agreed, BestPath, FamilySummary, FaultCounts, MessageCounts, PeerSummary, RibEntry, RibPrefix,
    RibQuery, RibSlice, RouteBatch, RouteChange,
};
