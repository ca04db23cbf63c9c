//! The recorder: everything that goes into a [`Router`] and comes out of it, a JSON object a line, and the way back.
//!
//! The router is a function of its inputs and its seed, so a recording made in the field runs again at a desk, message by
//! message, with the same timers: [`replay`] feeds the inputs to a new router and checks that it does the same. Times are
//! nanoseconds since the recording began. Octets are hexadecimal. Secrets are no part of a recording, and nothing is lost
//! with them: they belong to the sockets.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::SpeakerConfig;
use crate::router::{ConnectionId, Router};
use crate::wire::Notification;

/// One line of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Nanoseconds since the recording began.
    pub at: u64,
    /// What went in or came out.
    #[serde(flatten)]
    pub what: What,
}

/// What one line is about: an input, or an output in the words of its `Debug` form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// The router was made.
    Start {
        /// Where its jitter comes from.
        seed: u64,
        /// Its configuration, without secrets.
        config: Box<SpeakerConfig>,
    },
    /// [`Router::configure`].
    Configure(Box<SpeakerConfig>),
    /// [`Router::handle_incoming`].
    Incoming {
        /// The peer's end.
        remote: SocketAddr,
        /// Our end.
        local: SocketAddr,
    },
    /// [`Router::handle_connected`].
    Connected {
        /// Which connection.
        connection: ConnectionId,
        /// Our end.
        local: SocketAddr,
    },
    /// [`Router::handle_octets`].
    Octets {
        /// Which connection.
        connection: ConnectionId,
        /// The octets, hexadecimal.
        octets: String,
    },
    /// [`Router::handle_written`].
    Written {
        /// Which connection.
        connection: ConnectionId,
        /// Not all has been taken.
        outstanding: bool,
    },
    /// [`Router::handle_closed`].
    Closed {
        /// Which connection.
        connection: ConnectionId,
        /// Why, for people.
        reason: String,
    },
    /// [`Router::handle_timeout`].
    Timeout,
    /// [`Router::stop`].
    Stop {
        /// Code, subcode and data, hexadecimal; nothing for a silent stop.
        notification: Option<String>,
    },
    /// [`Router::transmit`], and the octets it gave, hexadecimal.
    Transmit {
        /// Which connection.
        connection: ConnectionId,
        /// The octets; nothing if there were none.
        octets: Option<String>,
    },
    /// What [`Router::poll_output`] gave.
    Output(String),
}

/// Collects the lines of a recording until somebody takes them.
#[derive(Debug)]
pub struct Tape {
    began: Instant,
    lines: Vec<u8>,
    /// Lines that were not kept because nobody took the earlier ones.
    lost: u64,
}

/// Most octets a tape holds. Whoever records takes them after every event; a recording with a gap is of no use, so when
/// this is not enough the recording ends and says so.
const TAPE: usize = 64 << 20;

impl Tape {
    /// An empty tape that begins now.
    #[must_use]
    pub fn new(began: Instant) -> Self {
        Self {
            began,
            lines: Vec::new(),
            lost: 0,
        }
    }

    /// Writes a line.
    pub fn write(&mut self, now: Instant, what: What) {
        if self.lost > 0 || self.lines.len() > TAPE {
            self.lost += 1;
            return;
        }
        let since = now.saturating_duration_since(self.began).as_nanos();
        let entry = Entry {
            at: u64::try_from(since).unwrap_or(u64::MAX),
            what,
        };
        // Plain data with string keys cannot fail to be written to memory.
        if serde_json::to_writer(&mut self.lines, &entry).is_ok() {
            self.lines.push(b'\n');
        }
    }

    /// The lines written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }

    /// How many lines did not fit. More than 0: the recording ended there.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// Why a recording could not be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A line that is not one of a recording.
    #[error("line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The first line must say how the router was made.
    #[error("line 1: a recording begins with \"start\"")]
    Start,
    /// The router could not be made, or reconfigured, as it was then.
    #[error("line {line}: the configuration is refused: {reason}")]
    Config {
        /// Counted from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// The router does something else than it did then.
    #[error("line {line}: recorded {recorded}, now {now}")]
    Differs {
        /// Counted from 1.
        line: usize,
        /// What came out then.
        recorded: String,
        /// What comes out now.
        now: String,
    },
}

/// Feeds a recording to a new router and checks that what comes out is what came out then.
///
/// # Errors
/// A [`ReplayError`] with the line.
pub fn replay(recording: &str) -> Result<Router, ReplayError> {
    let base = Instant::now();
    let mut lines = recording.lines().enumerate();
    let first = lines.next().map_or("", |(_, text)| text);
    let mut router = match parse(1, first)?.what {
        What::Start { seed, config } => {
            Router::new(base, *config, seed).map_err(|error| refused(1, &error))?
        }
        _ => return Err(ReplayError::Start),
    };
    for (index, text) in lines {
        let entry = parse(index + 1, text)?;
        let now = base
            .checked_add(Duration::from_nanos(entry.at))
            .unwrap_or(base);
        step(&mut router, now, index + 1, entry.what)?;
    }
    Ok(router)
}

fn parse(line: usize, text: &str) -> Result<Entry, ReplayError> {
    serde_json::from_str(text).map_err(|source| ReplayError::Line { line, source })
}

fn refused(line: usize, error: &dyn std::fmt::Display) -> ReplayError {
    ReplayError::Config {
        line,
        reason: error.to_string(),
    }
}

fn step(router: &mut Router, now: Instant, line: usize, what: What) -> Result<(), ReplayError> {
    match what {
        What::Start { .. } => return Err(ReplayError::Start),
        What::Configure(config) => router
            .configure(now, *config)
            .map_err(|error| refused(line, &error))?,
        What::Incoming { remote, local } => drop(router.handle_incoming(now, remote, local)),
        What::Connected { connection, local } => router.handle_connected(now, connection, local),
        What::Octets { connection, octets } => {
            router.handle_octets(now, connection, &from_hex(&octets));
        }
        What::Written {
            connection,
            outstanding,
        } => router.handle_written(now, connection, outstanding),
        What::Closed { connection, reason } => router.handle_closed(now, connection, reason),
        What::Timeout => router.handle_timeout(now),
        What::Stop { notification } => {
            let notification = notification.map(|text| notification_of(&from_hex(&text)));
            router.stop(now, notification);
        }
        What::Transmit { connection, octets } => {
            let given = router.transmit(connection).map(|octets| to_hex(&octets));
            same(line, format!("{octets:?}"), format!("{given:?}"))?;
        }
        What::Output(recorded) => {
            let output = router.poll_output();
            let given = output.map_or_else(String::new, |output| format!("{output:?}"));
            same(line, recorded, given)?;
        }
    }
    Ok(())
}

fn same(line: usize, recorded: String, now: String) -> Result<(), ReplayError> {
    if recorded == now {
        return Ok(());
    }
    Err(ReplayError::Differs {
        line,
        recorded,
        now,
    })
}

/// Code, subcode and data as octets.
#[must_use]
pub fn notification_octets(notification: &Notification) -> Vec<u8> {
    let mut octets = vec![notification.code, notification.subcode];
    octets.extend_from_slice(&notification.data);
    octets
}

fn notification_of(octets: &[u8]) -> Notification {
    let (head, data) = octets.split_at_checked(2).unwrap_or((&[0, 0], &[]));
    Notification {
        code: head.first().copied().unwrap_or_default(),
        subcode: head.get(1).copied().unwrap_or_default(),
        data: bytes::Bytes::copy_from_slice(data),
    }
}

/// Octets as hexadecimal digits.
#[must_use]
pub fn to_hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    octets
        .iter()
        .flat_map(|octet| [digit(octet >> 4), digit(*octet)])
        .collect()
}

/// Hexadecimal digits as octets; stops at what is none.
#[must_use]
pub fn from_hex(text: &str) -> Vec<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map_while(|pair| match pair {
            // Two digits below 16 make one octet.
            [high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
            _ => None,
        })
        .collect()
}

/// The address of nobody in particular, for recordings that have none.
#[must_use]
pub fn nowhere() -> IpAddr {
    std::net::Ipv4Addr::UNSPECIFIED.into()
}
