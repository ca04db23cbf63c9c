//! Candidates in virtual time on one Lease: one leads at a time, whatever fails.

use std::collections::BTreeMap;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// The Lease on a server that may be away, and candidates that look at it.
struct World {
    now: Instant,
    lease: Option<Record>,
    version: u64,
    /// Whose requests do not arrive.
    cut: Vec<usize>,
    /// Whose writes arrive without an answer.
    deaf: Vec<usize>,
    candidates: BTreeMap<usize, Election>,
}

impl World {
    fn new(candidates: usize) -> Self {
        let election = |n: usize| Election::new(&format!("c{n}"), Settings::default());
        Self {
            now: Instant::now(),
            lease: None,
            version: 0,
            cut: Vec::new(),
            deaf: Vec::new(),
            candidates: (0..candidates).map(|n| (n, election(n))).collect(),
        }
    }

    fn leaders(&self) -> Vec<usize> {
        let all = self.candidates.iter();
        let leaders = all.filter(|(_, one)| one.leads(self.now));
        leaders.map(|(n, _)| *n).collect()
    }

    /// Each candidate does what it has to do at this moment.
    fn turn(&mut self) {
        let mut candidates = std::mem::take(&mut self.candidates);
        for (n, election) in &mut candidates {
            for _ in 0..3 {
                match election.poll_step(self.now) {
                    Step::Wait(_) => break,
                    Step::Read if self.cut.contains(n) => election.handle_read_failed(self.now),
                    Step::Read => election.handle_read(self.now, self.lease.clone()),
                    Step::Create(record) => {
                        let free = self.lease.is_none();
                        let written = self.write(*n, free, &record);
                        election.handle_written(self.now, &record, written);
                    }
                    Step::Update(record) => {
                        let known = self.lease.as_ref().map(|lease| &lease.version);
                        let current = known == Some(&record.version);
                        let written = self.write(*n, current, &record);
                        election.handle_written(self.now, &record, written);
                    }
                }
            }
        }
        self.candidates = candidates;
        assert!(self.leaders().len() <= 1, "{:?}", self.leaders());
    }

    fn write(&mut self, n: usize, current: bool, record: &Record) -> Written {
        if self.cut.contains(&n) {
            return Written::Unknown;
        }
        if !current {
            return Written::Lost;
        }
        self.version += 1;
        let version = self.version.to_string();
        self.lease = Some(Record {
            version: version.clone(),
            ..record.clone()
        });
        if self.deaf.contains(&n) {
            return Written::Unknown;
        }
        Written::Done(version)
    }

    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds * 2 {
            self.now += SECOND / 2;
            self.turn();
        }
    }
}

#[test]
fn the_first_leads_and_goes_on() {
    let mut world = World::new(3);
    world.turn();
    assert_eq!(world.leaders(), [0]);
    world.pass(120);
    assert_eq!(world.leaders(), [0]);
    assert_eq!(world.candidates[&2].leader(), "c0");
    assert_eq!(world.lease.as_ref().unwrap().transitions, 0);
}

#[test]
fn a_leader_that_is_cut_off_stops_before_another_begins() {
    let mut world = World::new(2);
    world.turn();
    world.cut = vec![0];
    world.pass(9);
    assert_eq!(
        world.leaders(),
        [0],
        "it has renewed less than ten seconds ago"
    );
    world.pass(2);
    assert!(world.leaders().is_empty());
    world.pass(6);
    assert_eq!(world.leaders(), [1]);
    // It comes back as one of many.
    world.cut.clear();
    world.pass(60);
    assert_eq!(world.leaders(), [1]);
    assert_eq!(world.lease.as_ref().unwrap().transitions, 1);
}

#[test]
fn who_resigns_is_followed_at_once() {
    let mut world = World::new(2);
    world.turn();
    world.candidates.get_mut(&0).unwrap().resign();
    world.turn();
    assert!(world.leaders().is_empty());
    assert_eq!(world.lease.as_ref().unwrap().holder, "");
    world.pass(2);
    assert_eq!(world.leaders(), [1]);
}

#[test]
fn who_is_killed_is_followed_after_the_lease() {
    let mut world = World::new(2);
    world.turn();
    world.candidates.remove(&0);
    world.pass(14);
    assert!(world.leaders().is_empty());
    world.pass(4);
    assert_eq!(world.leaders(), [1]);
}

#[test]
fn an_old_lease_is_given_its_time_by_the_own_clock() {
    let mut world = World::new(1);
    world.lease = Some(Record {
        holder: "somebody long gone".into(),
        seconds: 15,
        transitions: 7,
        version: "x".into(),
    });
    world.turn();
    world.pass(14);
    assert!(world.leaders().is_empty());
    world.pass(3);
    assert_eq!(world.leaders(), [0]);
    assert_eq!(world.lease.as_ref().unwrap().transitions, 8);
}

#[test]
fn a_write_without_an_answer_is_seen_by_the_next_read() {
    let mut world = World::new(2);
    world.deaf = vec![0];
    world.turn();
    assert!(world.leaders().is_empty(), "it does not know");
    world.pass(2);
    assert_eq!(world.lease.as_ref().unwrap().holder, "c0");
    world.deaf.clear();
    world.pass(3);
    assert_eq!(world.leaders(), [0]);
}

#[test]
fn a_deleted_lease_is_made_again() {
    let mut world = World::new(2);
    world.turn();
    world.lease = None;
    world.pass(3);
    assert_eq!(world.leaders().len(), 1);
    world.pass(30);
    assert_eq!(world.leaders().len(), 1);
}

#[test]
fn a_process_that_slept_does_not_lead_when_it_wakes() {
    let mut world = World::new(2);
    world.turn();
    // Stopped, as by SIGSTOP: it does nothing at all for a minute.
    let sleeper = world.candidates.remove(&0).unwrap();
    world.pass(60);
    assert_eq!(world.leaders(), [1]);
    world.candidates.insert(0, sleeper);
    assert_eq!(world.leaders(), [1]);
    world.pass(10);
    assert_eq!(world.leaders(), [1]);
}

#[test]
fn leading_ends_at_a_known_moment() {
    let mut world = World::new(1);
    world.turn();
    let until = world.candidates[&0].leads_until().unwrap();
    assert_eq!(until, world.now + Settings::default().renew_deadline);
    assert!(!world.candidates[&0].leads(until));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Action {
        Pass(u32),
        Cut(usize),
        Deaf(usize),
        Heal,
        Resign(usize),
        Restart(usize),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            8 => (1u32..20).prop_map(Action::Pass),
            2 => (0usize..3).prop_map(Action::Cut),
            2 => (0usize..3).prop_map(Action::Deaf),
            3 => Just(Action::Heal),
            1 => (0usize..3).prop_map(Action::Resign),
            2 => (0usize..3).prop_map(Action::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
        /// `World::turn` asserts that no two lead. A Lease deleted by hand is left out: then two
        /// may, for the time of a retry.
        #[test]
        fn at_most_one_leads_and_in_peace_one_does(actions in prop::collection::vec(action(), 1..40)) {
            let mut world = World::new(3);
            let mut births = 3;
            for action in actions {
                match action {
                    Action::Pass(seconds) => world.pass(seconds),
                    Action::Cut(n) => world.cut.push(n),
                    Action::Deaf(n) => world.deaf.push(n),
                    Action::Heal => {
                        world.cut.clear();
                        world.deaf.clear();
                    }
                    Action::Resign(n) => {
                        if let Some(one) = world.candidates.get_mut(&n) {
                            one.resign();
                        }
                        world.turn();
                    }
                    Action::Restart(n) => {
                        births += 1;
                        let fresh = Election::new(&format!("c{births}"), Settings::default());
                        world.candidates.insert(n, fresh);
                    }
                }
            }
            world.cut.clear();
            world.deaf.clear();
            let fresh = Election::new("last", Settings::default());
            world.candidates.insert(9, fresh);
            world.pass(40);
            prop_assert_eq!(world.leaders().len(), 1);
        }
    }
}
