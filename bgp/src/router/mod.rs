//! The speaker without its sockets: peers, RIB and policies joined into one value.

mod view;

pub use view::{
    BestPath, FamilySummary, MessageCounts, PeerSummary, RibEntry, RouteBatch, RouteChange,
};
