//! [`replay`]: the inputs of a recording once more, and whether the same comes out.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::complete::complete;
use super::recorded::value;
use super::{Entry, What, from_hex, notification_of, to_hex};
use crate::router::Router;

/// How much of what differs is shown.
const SHOWN: usize = 160;

/// Why a recording could not be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A line that is not one of a recording.
    #[error(
        "line {line}: {source}; a recording that was cut off may be replayed without its last line"
    )]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The first line must say how the router was made.
    #[error("line {line}: a recording begins with one \"start\", and has no other")]
    Start {
        /// Counted from 1.
        line: usize,
    },
    /// The router could not be made, or reconfigured, as it was then.
    #[error("line {line}: the configuration is refused: {reason}")]
    Config {
        /// Counted from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// The router does something else than it did then.
    #[error("line {line}: {what}: {difference}")]
    Differs {
        /// Counted from 1.
        line: usize,
        /// What was compared.
        what: &'static str,
        /// What came out then, and now.
        difference: Difference,
    },
}

/// What came out then and what comes out now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Then.
    pub recorded: String,
    /// Now.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.recorded.chars().zip(self.now.chars());
        let same = pairs.take_while(|(then, now)| then == now).count();
        let from = same.saturating_sub(SHOWN / 4);
        let excerpt = |text: &str| -> String { text.chars().skip(from).take(SHOWN).collect() };
        let start = if from > 0 { "…" } else { "" };
        write!(
            f,
            "recorded {start}{}, now {start}{} (they differ from character {} on)",
            excerpt(&self.recorded),
            excerpt(&self.now),
            same + 1
        )
    }
}

/// A recording that was replayed to its end without a difference.
#[derive(Debug)]
pub struct Replayed {
    /// The router as it was at the end.
    pub router: Router,
    /// How many lines there were.
    pub lines: usize,
    /// How much time they span.
    pub time: Duration,
    /// Why the recording ended, if it says so.
    pub ended: Option<String>,
}

/// Feeds a recording to a new router and checks that what comes out is what came out then.
///
/// # Errors
/// A [`ReplayError`] with the line.
pub fn replay<T: AsRef<str>>(
    recording: impl IntoIterator<Item = T>,
) -> Result<Replayed, ReplayError> {
    let base = Instant::now();
    let mut lines = recording.into_iter().zip(1..);
    let first = lines.next();
    let first = first.as_ref().map_or("", |(text, _)| text.as_ref());
    let router = match parse(1, first)?.what {
        What::Start { seed, config } => {
            Router::new(base, *config, seed).map_err(|error| refused(1, &error))?
        }
        _ => return Err(ReplayError::Start { line: 1 }),
    };
    let mut replay = Replay {
        router,
        base,
        line: 1,
    };
    let mut time = Duration::ZERO;
    let mut ended = None;
    for (text, line) in lines {
        let entry = parse(line, text.as_ref())?;
        replay.line = line;
        match entry.what {
            // Who writes it may not know the time.
            What::End(reason) => ended = Some(reason),
            what => {
                time = Duration::from_nanos(entry.at);
                replay.step(base.checked_add(time).unwrap_or(base), what)?;
            }
        }
    }
    Ok(Replayed {
        router: replay.router,
        lines: replay.line,
        time,
        ended,
    })
}

fn parse(line: usize, text: &str) -> Result<Entry, ReplayError> {
    let read = || {
        let mut entry = serde_json::from_str(text)?;
        complete(&mut entry)?;
        serde_json::from_value(entry)
    };
    read().map_err(|source| ReplayError::Line { line, source })
}

fn refused(line: usize, error: &dyn fmt::Display) -> ReplayError {
    ReplayError::Config {
        line,
        reason: error.to_string(),
    }
}

struct Replay {
    router: Router,
    base: Instant,
    line: usize,
}

impl Replay {
    fn step(&mut self, now: Instant, what: What) -> Result<(), ReplayError> {
        let router = &mut self.router;
        match what {
            What::Start { .. } => return Err(ReplayError::Start { line: self.line }),
            What::Configure(config) => router
                .configure(now, *config)
                .map_err(|error| refused(self.line, &error))?,
            What::Incoming {
                remote,
                local,
                connection,
            } => {
                let given = router.handle_incoming(now, remote, local);
                return self.same("an incoming connection", &connection, &given);
            }
            What::Connected { connection, local } => {
                router.handle_connected(now, connection, local);
            }
            What::Octets { connection, octets } => {
                router.handle_octets(now, connection, &from_hex(&octets));
            }
            What::Written {
                connection,
                outstanding,
            } => router.handle_written(now, connection, outstanding),
            What::Closed { connection, reason } => router.handle_closed(now, connection, reason),
            What::Timeout => router.handle_timeout(now),
            What::PeerLost { address, lost } => router.handle_peer_lost(now, address, &lost),
            What::Bfd { address, up } => router.handle_bfd(now, address, up),
            What::Hint { connection, hint } => router.add_hint(connection, &hint),
            What::NextHopCosts(costs) => router.set_next_hop_costs(costs),
            What::Bar(barred) => router.bar(barred.into_iter().collect()),
            What::Unsubscribe(id) => router.unsubscribe(id),
            What::Stop { notification } => {
                router.stop(now, notification.as_deref().map(notification_of));
            }
            What::Subscribe(id) => {
                let given = router.subscribe();
                return self.same("a subscriber", &id, &given);
            }
            What::Refresh { address, asked } => {
                let given = router.refresh(address);
                return self.same("a refresh", &asked, &given);
            }
            What::Transmit { connection, octets } => {
                let given = router.transmit(connection);
                let given = given.map_or_else(String::new, |octets| to_hex(&octets.into_bytes()));
                return self.same_text("octets to send", octets.unwrap_or_default(), given);
            }
            What::Routes { subscriber, batch } => {
                let given = value(router.poll_routes(subscriber).as_ref());
                return self.same_value("routes", batch, given);
            }
            What::Output(recorded) => {
                let given = value(router.poll_output().as_ref());
                return self.same_value("an output", recorded, given);
            }
            What::Wake(at) => return self.wake(at),
            What::End(_) => {}
        }
        Ok(())
    }

    fn wake(&mut self, at: Option<u64>) -> Result<(), ReplayError> {
        let since = |wake: Instant| wake.saturating_duration_since(self.base).as_nanos();
        let now = self.router.poll_timeout().map(since);
        self.same("the next timer", &at.map(u128::from), &now)
    }

    fn same<T: fmt::Debug + PartialEq>(
        &self,
        what: &'static str,
        recorded: &T,
        now: &T,
    ) -> Result<(), ReplayError> {
        if recorded == now {
            return Ok(());
        }
        self.same_text(what, format!("{recorded:?}"), format!("{now:?}"))
    }

    /// A field that is new does not count.
    fn same_value(
        &self,
        what: &'static str,
        recorded: Option<Value>,
        now: Option<Value>,
    ) -> Result<(), ReplayError> {
        let (recorded, now) = (recorded.unwrap_or_default(), now.unwrap_or_default());
        if is_in(&recorded, &now) {
            return Ok(());
        }
        self.same_text(what, recorded.to_string(), now.to_string())
    }

    fn same_text(
        &self,
        what: &'static str,
        recorded: String,
        now: String,
    ) -> Result<(), ReplayError> {
        if recorded == now {
            return Ok(());
        }
        Err(ReplayError::Differs {
            line: self.line,
            what,
            difference: Difference { recorded, now },
        })
    }
}

/// Whether everything that was recorded is there now.
fn is_in(recorded: &Value, now: &Value) -> bool {
    match (recorded, now) {
        (Value::Object(recorded), Value::Object(now)) => recorded.iter().all(|(key, value)| {
            let now = now.get(key);
            now.is_some_and(|now| is_in(value, now))
        }),
        (Value::Array(recorded), Value::Array(now)) => {
            let pairs = || recorded.iter().zip(now);
            recorded.len() == now.len() && pairs().all(|(then, now)| is_in(then, now))
        }
        (recorded, now) => recorded == now,
    }
}
