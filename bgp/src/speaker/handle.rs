//! [`Speaker`], the handle through which a program uses the speaker.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::owner::{self, Command};
use super::recording::{self, Recording};
use super::stream::RouteStream;
use super::watch::{Observations, Watching};
use crate::config::{Announcement, ConfigError, SpeakerConfig};
use crate::observe::{MonitoredPeer, Timestamp, bmp};
use crate::rib::DestinationId;
use crate::router::{CountWalk, DumpWalk, PeerSummary, RibEntry, RibQuery, RibSlice, sort_entries};
use crate::types::Prefix;

/// How a speaker ends its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shutdown {
    /// Cease, Administrative Shutdown (RFC 4486) with a message for the peer's operator (RFC 9003; may be empty). Peers
    /// drop our routes at once.
    Cease {
        /// Up to 255 octets of UTF-8; longer text is cut.
        message: String,
    },
    /// Close the TCP connections without a NOTIFICATION, so that peers with graceful restart keep our routes (RFC 4724).
    Graceful,
}

/// Why a speaker could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpeakerError {
    /// The configuration cannot be used; the old one stays in force.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener could not be opened.
    #[error(
        "listen {address}: {source}; another BGP speaker may hold the port, or ports below 1024 may need privileges"
    )]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The speaker's thread could not be started.
    #[error("cannot start the speaker's thread: {source}")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
    /// The speaker has been shut down.
    #[error("the speaker has been shut down")]
    Stopped,
}

/// A running speaker. Cloned handles are the same speaker; dropping the last one ends it as [`Shutdown::Graceful`] does.
#[derive(Debug, Clone)]
pub struct Speaker {
    commands: mpsc::Sender<Command>,
}

impl Speaker {
    /// Opens the listeners and starts the speaker on the current tokio runtime.
    ///
    /// # Errors
    /// [`SpeakerError::Config`] for a value that cannot be used, [`SpeakerError::Listen`] if a listener cannot be opened.
    pub async fn start(config: SpeakerConfig) -> Result<Self, SpeakerError> {
        let commands = owner::start(config, None).await?;
        Ok(Self { commands })
    }

    /// As [`start`](Self::start), and everything that goes into the router and comes out of it is recorded: see
    /// [`crate::observe::record`].
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_recorded(config: SpeakerConfig) -> Result<(Self, Recording), SpeakerError> {
        let (sink, recording) = recording::channel();
        let commands = owner::start(config, Some(sink)).await?;
        Ok((Self { commands }, recording))
    }

    /// Makes `config`, the whole desired state, the one in force. Only peers whose configuration changed are touched; a change
    /// of announcements never touches a session.
    ///
    /// # Errors
    /// As [`Speaker::start`], and [`SpeakerError::Stopped`]. After an error the previous configuration is in force.
    pub async fn configure(&self, config: SpeakerConfig) -> Result<(), SpeakerError> {
        self.ask(|reply| Command::Configure {
            config: Box::new(config),
            reply,
        })
        .await?
    }

    /// Makes these the routes that are announced, with the rest of the configuration as it is. However many peers there are, it
    /// costs what the difference costs.
    ///
    /// # Errors
    /// As [`Speaker::configure`].
    pub async fn announce(
        &self,
        announcements: BTreeMap<Prefix, Announcement>,
    ) -> Result<(), SpeakerError> {
        self.ask(|reply| Command::Announce {
            announcements,
            reply,
        })
        .await?
    }

    /// All best routes now, and every change from now on.
    ///
    /// # Errors
    /// [`SpeakerError::Stopped`].
    pub async fn subscribe(&self) -> Result<RouteStream, SpeakerError> {
        self.ask(|reply| Command::Subscribe { reply }).await
    }

    /// One line per peer, from counters, ordered by address.
    ///
    /// # Errors
    /// [`SpeakerError::Stopped`].
    pub async fn summary(&self) -> Result<Vec<PeerSummary>, SpeakerError> {
        self.ask(|reply| Command::Summary { reply }).await
    }

    /// Every path held, ordered by prefix, slice by slice. As many as there are routes: see [`Speaker::rib_slice`].
    ///
    /// # Errors
    /// [`SpeakerError::Stopped`].
    pub async fn rib(&self) -> Result<Vec<RibEntry>, SpeakerError> {
        let mut entries = Vec::new();
        let mut next = Some(DestinationId(0));
        while let Some(from) = next {
            let slice = self.rib_slice(RibQuery::default(), from).await?;
            entries.extend(slice.entries);
            next = slice.next;
        }
        sort_entries(&mut entries);
        Ok(entries)
    }

    /// Some of the paths asked for, beginning with a destination: 0, or where the slice before says. Each slice keeps the
    /// sessions waiting for a millisecond at most.
    ///
    /// # Errors
    /// [`SpeakerError::Stopped`].
    pub async fn rib_slice(
        &self,
        query: RibQuery,
        from: DestinationId,
    ) -> Result<RibSlice, SpeakerError> {
        self.ask(|reply| Command::Rib { query, from, reply }).await
    }

    /// Observations for a monitor.
    ///
    /// # Errors
    /// [`SpeakerError::Stopped`].
    pub async fn watch(&self, how: Watching) -> Result<Observations, SpeakerError> {
        let given = self.ask(|reply| Command::Watch { how, reply }).await?;
        Ok(Observations::new(self.commands.clone(), given))
    }

    /// Counters of every established session for monitors. Counts the destinations slice by slice.
    ///
    /// # Errors
    /// [`SpeakerError::Stopped`].
    pub async fn statistics(&self) -> Result<Vec<(MonitoredPeer, bmp::Statistics)>, SpeakerError> {
        let mut walk = CountWalk::default();
        let mut more = true;
        while more {
            (walk, more) = self.ask(|reply| Command::Count { walk, reply }).await?;
        }
        let loc_rib = walk.found;
        self.ask(|reply| Command::Statistics { loc_rib, reply })
            .await
    }

    /// A dump of the RIB in MRT's TABLE_DUMP_V2, made slice by slice: each time where to go on (at first `None`), records, and
    /// whether there is more.
    ///
    /// # Errors
    /// [`SpeakerError::Stopped`].
    pub async fn dump(
        &self,
        at: Timestamp,
        walk: Option<DumpWalk>,
    ) -> Result<(DumpWalk, Bytes, bool), SpeakerError> {
        let slice = self.ask(|reply| Command::Dump { walk, at, reply }).await?;
        Ok((slice.walk, slice.octets, slice.more))
    }

    /// Says what it costs to reach next hops; `None`: it cannot be reached, and no path over it is used. A next hop that was
    /// never told of is reachable at cost 0. One call for many is one walk over the table.
    ///
    /// # Errors
    /// [`SpeakerError::Stopped`].
    pub async fn set_next_hop_costs(
        &self,
        costs: Vec<(IpAddr, Option<u32>)>,
    ) -> Result<(), SpeakerError> {
        self.ask(|reply| Command::NextHopCosts { costs, reply })
            .await
    }

    /// Asks a peer to send all its routes again (RFC 2918). False if it cannot be asked: no session, or a peer that does not
    /// understand the question.
    ///
    /// # Errors
    /// [`SpeakerError::Stopped`].
    pub async fn refresh(&self, address: IpAddr) -> Result<bool, SpeakerError> {
        self.ask(|reply| Command::Refresh { address, reply }).await
    }

    /// The addresses the listeners are bound to, with the ports the system chose where port 0 was asked for.
    ///
    /// # Errors
    /// [`SpeakerError::Stopped`].
    pub async fn listening(&self) -> Result<Vec<SocketAddr>, SpeakerError> {
        self.ask(|reply| Command::Listening { reply }).await
    }

    /// Ends all sessions as `how` says and stops. Returns when the connections are closed. Shutting down twice is no error.
    pub async fn shutdown(&self, how: Shutdown) {
        let _ = self.ask(|reply| Command::Shutdown { how, reply }).await;
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, SpeakerError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| SpeakerError::Stopped)?;
        answer.await.map_err(|_| SpeakerError::Stopped)
    }
}
