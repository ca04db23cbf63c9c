//! What the tests of the allocator share: virtual time, and pools and pods by their names.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this"
)]

use std::time::Duration;

use margay_crds::{IPPool, Owner, Pool};
use margay_ipam::{Clock, Timestamp};

/// Virtual time: tokio's paused clock, counted from a fixed moment.
#[derive(Debug, Clone)]
pub struct PausedClock(pub tokio::time::Instant);

impl PausedClock {
    /// The moment counted from.
    pub fn start() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Self::start() + self.0.elapsed()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// A pool of this name.
pub fn pool(name: &str, spec: serde_json::Value) -> Pool {
    let spec = serde_json::from_value(spec).unwrap();
    IPPool::new(name, spec).check().unwrap()
}

/// A pod of this name, whose container is `c-NAME`.
pub fn owner(name: &str) -> Owner {
    Owner {
        namespace: "default".into(),
        pod: name.into(),
        container_id: format!("c-{name}"),
        interface: "eth0".into(),
        ..Owner::default()
    }
}
