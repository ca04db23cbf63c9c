//! Who leads, by a Lease (coordination.k8s.io/v1): the state machine, without IO.
//!
//! The protocol is that of Kubernetes' own controllers. The leader renews the Lease; the others
//! watch it, and take it when it has not changed for as long as it says it lasts, *by their own
//! clock*: two machines' clocks are never compared. The leader stops leading when it could not
//! renew for [`Settings::renew_deadline`], counted from before the last renewal that worked was
//! sent, which is before anybody else may take over.
//!
//! That two believe to lead for a moment can still happen (a process stopped for a minute). It
//! does no harm here: every write names the version it was made from.
//!
//! Not here: the API server ([`super::lease`]).

use std::time::{Duration, Instant};

/// Times of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a Lease lasts that is not renewed.
    pub duration: Duration,
    /// After how long without a renewal the leader stops leading; shorter than `duration`.
    pub renew_deadline: Duration,
    /// How often the Lease is looked at and renewed.
    pub retry: Duration,
}

impl Default for Settings {
    /// 15 s, 10 s and 2 s, as Kubernetes' own controllers have it.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What a Lease says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty if nobody does.
    pub holder: String,
    /// How long it lasts, in seconds.
    pub seconds: u64,
    /// How often it has gone from one to another.
    pub transitions: i32,
    /// The object's resourceVersion, empty for one that is not there yet.
    pub version: String,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until then.
    Wait(Instant),
    /// Read the Lease.
    Read,
    /// Make it.
    Create(Record),
    /// Write it, if it is still of the version in the record.
    Update(Record),
}

/// How a write came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is there, in this version.
    Done(String),
    /// Somebody else has written it, or it is gone.
    Lost,
    /// Nobody knows.
    Unknown,
}

#[derive(Debug, Clone)]
struct Seen {
    record: Record,
    /// When this version was seen first.
    at: Instant,
}

/// One candidate.
#[derive(Debug)]
pub struct Election {
    identity: String,
    settings: Settings,
    seen: Option<Seen>,
    /// When the last renewal that worked was sent.
    renewed: Option<Instant>,
    /// A write that is to follow the read.
    write: Option<Step>,
    /// When the write under way was sent.
    sent: Option<Instant>,
    next: Option<Instant>,
    resigning: bool,
}

impl Election {
    /// A candidate of this name, which no other has.
    pub fn new(identity: &str, settings: Settings) -> Self {
        Self {
            identity: identity.to_owned(),
            settings,
            seen: None,
            renewed: None,
            write: None,
            sent: None,
            next: None,
            resigning: false,
        }
    }

    /// Whether this candidate leads.
    pub fn leads(&self, now: Instant) -> bool {
        let fresh = |renewed: Instant| {
            now.saturating_duration_since(renewed) < self.settings.renew_deadline
        };
        !self.resigning && self.renewed.is_some_and(fresh)
    }

    /// When this candidate leads no longer, should nothing happen.
    pub fn leads_until(&self) -> Option<Instant> {
        self.renewed?.checked_add(self.settings.renew_deadline)
    }

    /// Who leads, as far as is known; empty if nobody.
    pub fn leader(&self) -> &str {
        self.seen.as_ref().map_or("", |seen| &seen.record.holder)
    }

    /// Gives the Lease back at the next step: the process ends.
    pub fn resign(&mut self) {
        self.resigning = true;
        self.next = None;
    }

    /// What to do at this moment.
    pub fn poll_step(&mut self, now: Instant) -> Step {
        if self.resigning {
            return self.give_back(now);
        }
        if let Some(write) = self.write.take() {
            self.sent = Some(now);
            return write;
        }
        if let Some(next) = self.next.filter(|next| now < *next) {
            return Step::Wait(next);
        }
        // Who leads knows the version that he wrote: there is nothing to read.
        let own = self.seen.as_ref().filter(|_| self.renewed.is_some());
        let Some(seen) = own.filter(|seen| seen.record.holder == self.identity) else {
            return Step::Read;
        };
        let renewal = self.record(seen.record.transitions, seen.record.version.clone());
        self.sent = Some(now);
        Step::Update(renewal)
    }

    /// The Lease as this candidate would have it.
    fn record(&self, transitions: i32, version: String) -> Record {
        Record {
            holder: self.identity.clone(),
            seconds: self.settings.duration.as_secs(),
            transitions,
            version,
        }
    }

    fn give_back(&mut self, now: Instant) -> Step {
        let held = self
            .seen
            .take()
            .filter(|seen| seen.record.holder == self.identity);
        match held {
            Some(seen) if self.renewed.take().is_some() => Step::Update(Record {
                holder: String::new(),
                // As short as it can be, for those who only look at the time.
                seconds: 1,
                ..seen.record
            }),
            _ => Step::Wait(now + self.settings.duration),
        }
    }

    /// What a read found: `None` for no Lease.
    pub fn handle_read(&mut self, now: Instant, found: Option<Record>) {
        let Some(record) = found else {
            self.seen = None;
            self.write = Some(Step::Create(self.record(0, String::new())));
            return;
        };
        let known = self.seen.as_ref().filter(|seen| seen.record == record);
        let at = known.map_or(now, |seen| seen.at);
        self.seen = Some(Seen {
            record: record.clone(),
            at,
        });
        if record.holder == self.identity {
            self.write = Some(Step::Update(
                self.record(record.transitions, record.version),
            ));
            return;
        }
        // It is another's: this one leads no more, whatever it believed.
        self.renewed = None;
        let lasts = Duration::from_secs(record.seconds);
        if record.holder.is_empty() || now.saturating_duration_since(at) >= lasts {
            let transitions = record.transitions.saturating_add(1);
            self.write = Some(Step::Update(self.record(transitions, record.version)));
            return;
        }
        self.later(now);
    }

    /// A read that was not answered, or refused.
    pub fn handle_read_failed(&mut self, now: Instant) {
        self.later(now);
    }

    /// How the write came out.
    pub fn handle_written(&mut self, now: Instant, record: &Record, written: Written) {
        let sent = self.sent.take().unwrap_or(now);
        match written {
            Written::Done(version) => {
                let record = Record {
                    version,
                    ..record.clone()
                };
                self.renewed = (record.holder == self.identity).then_some(sent);
                self.seen = Some(Seen { record, at: now });
            }
            Written::Lost => {
                self.renewed = None;
                self.seen = None;
            }
            // If it arrived, the next read shows it; if not, the time until the deadline goes on.
            Written::Unknown => self.seen = None,
        }
        self.later(now);
    }

    fn later(&mut self, now: Instant) {
        self.next = Some(now + self.settings.retry);
    }
}

#[cfg(test)]
#[path = "tests/election.rs"]
mod tests;
