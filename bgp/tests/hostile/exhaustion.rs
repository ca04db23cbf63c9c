//! A process without file descriptors left.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::field::{Field, Visit};
use tracing::span;

use super::case::{ATTACKER, ATTACKER_ID, From, OBSERVER, OBSERVER_ID, start};
use super::messages::message;
use super::peer::{Peer, socket};

/// Set in the process that is to run out of descriptors: other tests of this program must not.
const CHILD: &str = "MARGAY_TEST_EXHAUSTED";

/// Counts what is said about accepting.
struct Listener {
    complaints: Arc<AtomicU32>,
    relief: Arc<AtomicU32>,
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl tracing::Subscriber for Listener {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        if text.0.starts_with("cannot accept connections") {
            self.complaints.fetch_add(1, Ordering::Relaxed);
        }
        if text.0.starts_with("connections are accepted again") {
            self.relief.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn without_descriptors_the_listener_waits_says_so_once_and_goes_on() {
    if std::env::var_os(CHILD).is_some() {
        return exhausted();
    }
    let name = "exhaustion::without_descriptors_the_listener_waits_says_so_once_and_goes_on";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("accepted after all"), "{text}");
    eprint!("{text}");
}

/// What the process has used; the file has to be open already.
fn processor_time(stat: &mut File) -> Duration {
    let mut text = String::new();
    stat.rewind().unwrap();
    stat.read_to_string(&mut text).unwrap();
    let fields: Vec<_> = text
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn exhausted() {
    let (complaints, relief) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let listener = Listener {
        complaints: complaints.clone(),
        relief: relief.clone(),
    };
    tracing::subscriber::set_global_default(listener).unwrap();
    let runtime = super::incidents::runtime();
    let (daemon, address) = start(&runtime, From::External);
    let mut observer = Peer::connect(OBSERVER.into(), address);
    observer.establish(&Peer::short_open(65002, OBSERVER_ID), true);

    // The attacker's socket is there already; what is left is taken.
    let waiting = socket(ATTACKER.into());
    let mut stat = File::open("/proc/self/stat").unwrap();
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(200),
        ..limit
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let hoard: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(hoard.len() > 50, "{}", hoard.len());

    let mut attacker = Peer::connect_from(waiting, address);
    attacker.send(&Peer::usual_open(65001, ATTACKER_ID));
    let before = processor_time(&mut stat);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        observer.send(&message(4, &[]));
        observer.drain();
        std::thread::sleep(Duration::from_millis(300));
    }
    let used = processor_time(&mut stat) - before;
    assert_eq!(
        observer.ended, None,
        "a session ended for want of descriptors"
    );
    assert_eq!(complaints.load(Ordering::Relaxed), 1);
    assert!(
        used < Duration::from_secs(1),
        "{used:?} of processor time: a busy loop"
    );
    attacker.drain();
    assert_eq!(attacker.ended, None);

    drop(hoard);
    attacker.establish(&[], true);
    assert_eq!(relief.load(Ordering::Relaxed), 1);
    observer.drain();
    assert_eq!(observer.ended, None);
    eprintln!(
        "accepted after all; {used:?} of processor time in {:?}",
        began.elapsed()
    );
    runtime.block_on(daemon.shutdown());
}
