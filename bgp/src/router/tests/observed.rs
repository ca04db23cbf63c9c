//! What monitors are told, and that nobody waits for them.

use std::time::Duration;

use super::super::Router;
use super::super::observed::QUEUE;
use super::super::pair::{Lab, address, prefix};
use crate::fsm::State;
use crate::observe::{DownReason, Interest, Observation, Stage, Timestamp, split};
use crate::policy::Filter;
use crate::types::FamilySet;
use crate::wire::{self, Context, Message, SessionKind};

const ALL: Interest = Interest {
    sessions: true,
    states: true,
    received: true,
    sent: true,
    before_policy: true,
    after_policy: true,
};

fn taken(router: &mut Router) -> Vec<Observation> {
    std::iter::from_fn(|| router.poll_observation()).collect()
}

/// The prefixes announced and withdrawn by the messages of a stage, `+` and `-`; `.` for an End-of-RIB.
fn routes(observations: &[Observation], wanted: Stage) -> Vec<String> {
    let context = Context {
        four_octet_asn: true,
        families: FamilySet::ALL,
        session: SessionKind::Internal,
        ..Context::default()
    };
    let mut found = Vec::new();
    for observation in observations {
        let Observation::Routes {
            stage, messages, ..
        } = observation
        else {
            continue;
        };
        if *stage != wanted {
            continue;
        }
        for message in split(messages) {
            match wire::decode(message, &context).unwrap().message {
                Message::Update(update) => {
                    let withdrawn = update.withdrawn.iter();
                    found.extend(withdrawn.map(|nlri| format!("-{}", nlri.prefix)));
                    let reach = update.reach.iter().flat_map(|reach| &reach.nlri);
                    found.extend(reach.map(|nlri| format!("+{}", nlri.prefix)));
                }
                Message::EndOfRib(_) => found.push(".".to_owned()),
                other => panic!("{other:?}"),
            }
        }
    }
    found
}

#[test]
fn a_session_is_observed_from_its_first_message_to_its_end() {
    let mut lab = Lab::mesh(&[65000, 65001]);
    lab.routers[0].observe(ALL);
    lab.announce(1, "10.1.0.0/16");
    lab.establish();
    lab.run(Duration::from_secs(1));
    let seen = taken(&mut lab.routers[0]);
    let states: Vec<_> = seen
        .iter()
        .filter_map(|o| match o {
            Observation::State { new, .. } => Some(*new),
            _ => None,
        })
        .collect();
    assert_eq!(states.last(), Some(&State::Established));
    assert!(states.contains(&State::OpenConfirm), "{states:?}");
    let Some(Observation::Up {
        peer,
        sent,
        received,
    }) = seen.iter().find(|o| matches!(o, Observation::Up { .. }))
    else {
        panic!("no session");
    };
    assert_eq!((peer.address, peer.asn.0), (address(1), 65001));
    assert_eq!((peer.local_address, peer.local_asn.0), (address(0), 65000));
    assert!([peer.port, peer.local_port].contains(&179), "{peer:?}");
    assert_eq!(peer.router_id.0, 2);
    for open in [sent, received] {
        let open = wire::decode(open, &Context::default()).unwrap().message;
        assert!(matches!(open, Message::Open(_)));
    }
    let received = |o: &&Observation| matches!(o, Observation::Received { .. });
    let summary = lab.summary(0, 1);
    let count = seen.iter().filter(received).count() as u64;
    assert_eq!(count, summary.messages_received.total());
    let sent = seen.iter().filter_map(|o| match o {
        Observation::Sent { messages, .. } => Some(split(messages).count() as u64),
        _ => None,
    });
    assert_eq!(sent.sum::<u64>(), summary.messages_sent.total());
    for stage in [Stage::BeforePolicy, Stage::AfterPolicy] {
        assert_eq!(routes(&seen, stage), ["+10.1.0.0/16", "."], "{stage:?}");
    }

    lab.reconfigure(1, |config| {
        config.peers.clear();
    });
    lab.run(Duration::from_secs(1));
    let seen = taken(&mut lab.routers[0]);
    let down = seen.iter().find_map(|o| match o {
        Observation::Down { peer, reason } => Some((peer, reason)),
        _ => None,
    });
    let (peer, reason) = down.unwrap();
    assert!(
        matches!(reason, DownReason::Received(n) if n.code == 6),
        "{reason:?}"
    );
    assert_eq!((peer.address, peer.router_id.0), (address(1), 2));
    assert_eq!(lab.routers[0].take_lost_observations(), 0);
}

#[test]
fn ends_are_told_apart() {
    let end = |act: fn(&mut Lab)| {
        let mut lab = Lab::mesh(&[65000, 65001]);
        lab.establish();
        lab.routers[0].observe(ALL);
        act(&mut lab);
        lab.run(Duration::from_secs(200));
        let seen = taken(&mut lab.routers[0]);
        let mut downs = seen.into_iter().filter_map(|o| match o {
            Observation::Down { reason, .. } => Some(reason),
            _ => None,
        });
        downs.next().unwrap()
    };
    let stopped = |lab: &mut Lab| {
        let now = lab.now;
        lab.routers[0].stop(now, None);
    };
    assert_eq!(end(stopped), DownReason::Closed { event: 2 });
    assert_eq!(end(|lab| lab.kill_connections(1)), DownReason::Lost);
    let cut = |lab: &mut Lab| {
        lab.cut.insert(1);
    };
    assert!(matches!(end(cut), DownReason::Sent(n) if n.code == 4));
}

#[test]
fn nobody_asking_costs_nothing_and_nobody_taking_is_counted() {
    let mut lab = Lab::mesh(&[65000, 65001]);
    lab.establish();
    assert!(taken(&mut lab.routers[0]).is_empty());
    lab.routers[0].observe(ALL);
    lab.routers[0].observe(Interest::default());
    lab.announce(1, "10.1.0.0/16");
    lab.run(Duration::from_secs(1));
    assert!(taken(&mut lab.routers[0]).is_empty());

    lab.routers[0].observe(ALL);
    for round in 0..u32::MAX {
        lab.reconfigure(1, |config| {
            config.announcements.clear();
            for number in 0..2000_u32 {
                let text = format!(
                    "10.{}.{}.{}/32",
                    1 + round % 200,
                    number / 250,
                    number % 250
                );
                config
                    .announcements
                    .insert(prefix(&text), Default::default());
            }
        });
        lab.run(Duration::from_secs(1));
        if lab.routers[0].take_lost_observations() > 0 {
            break;
        }
    }
    // The session has not noticed.
    assert_eq!(lab.summary(0, 1).prefixes_received, 2000);
    assert!(
        taken(&mut lab.routers[0])
            .iter()
            .map(Observation::weight)
            .sum::<usize>()
            <= QUEUE
    );
}

#[test]
fn the_adj_rib_in_is_told_in_slices() {
    let mut lab = Lab::mesh(&[65000, 65001, 65002]);
    let text = |number: u32| format!("10.1.{}.{}/32", number / 250, number % 250);
    lab.reconfigure(1, |config| {
        for number in 0..1500 {
            config
                .announcements
                .insert(prefix(&text(number)), Default::default());
        }
    });
    lab.establish();
    lab.run(Duration::from_secs(2));
    let mut walk = lab.routers[0].walk_adj_in(ALL);
    let mut seen = Vec::new();
    let mut slices = 1;
    while lab.routers[0].adj_in_slice(&mut walk, &mut seen) {
        slices += 1;
    }
    assert!(slices >= 3, "{slices}");
    for stage in [Stage::BeforePolicy, Stage::AfterPolicy] {
        let of_first = seen.iter().filter(|o| o.peer().address == address(1));
        let found = routes(&of_first.cloned().collect::<Vec<_>>(), stage);
        assert_eq!(found.iter().filter(|r| r.starts_with('+')).count(), 1500);
        assert_eq!(found.last().map(String::as_str), Some("."));
    }
    let mut count = super::super::CountWalk::default();
    while lab.routers[0].count_slice(&mut count) {}
    assert_eq!(count.found, 1500);
    let statistics = lab.routers[0].statistics(count.found);
    assert_eq!(statistics.len(), 2);
    assert_eq!(statistics[0].1.adj_rib_in, 1500);

    let mut out = bytes::BytesMut::new();
    let mut walk = lab.routers[0].walk_dump(Timestamp::default(), &mut out);
    while lab.routers[0].dump_slice(&mut walk, &mut out) {}
    assert_eq!(walk.prefixes(), 1500);
}

#[test]
fn a_changed_policy_is_told_after_it() {
    let mut lab = Lab::mesh(&[65000, 65001]);
    lab.announce(1, "10.1.0.0/16");
    lab.establish();
    lab.run(Duration::from_secs(1));
    lab.routers[0].observe(ALL);
    lab.reconfigure(0, |config| {
        let peer = config.peers.get_mut(&address(1)).unwrap();
        peer.import = Some(Filter::reject_all());
    });
    let seen = taken(&mut lab.routers[0]);
    let told = |o: &Observation| matches!(o, Observation::Reconsidered { .. });
    assert!(seen.iter().any(told), "{seen:?}");
    let mut walk = lab.routers[0].walk_after_policy();
    let mut again = Vec::new();
    while lab.routers[0].adj_in_slice(&mut walk, &mut again) {}
    assert_eq!(routes(&again, Stage::AfterPolicy), ["-10.1.0.0/16"]);
    // What comes now is refused at once.
    lab.announce(1, "10.2.0.0/16");
    lab.run(Duration::from_secs(1));
    let seen = taken(&mut lab.routers[0]);
    assert_eq!(routes(&seen, Stage::BeforePolicy), ["+10.2.0.0/16"]);
    assert_eq!(routes(&seen, Stage::AfterPolicy), ["-10.2.0.0/16"]);
}

#[test]
fn what_is_treated_as_withdrawn_is_told_as_withdrawn() {
    let mut lab = Lab::mesh(&[65000, 65001]);
    lab.announce(1, "10.1.0.0/16");
    lab.establish();
    lab.run(Duration::from_secs(1));
    lab.routers[0].observe(ALL);
    // ORIGIN 9 of 10.1.0.0/16, AS_PATH 65001, NEXT_HOP 10.0.0.2.
    let attributes = [
        0x40, 1, 1, 9, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9, 0x40, 3, 4, 10, 0, 0, 2,
    ];
    let mut update = vec![0xff; 16];
    let length = 19 + 4 + attributes.len() + 3;
    update.extend([0, length as u8, 2, 0, 0, 0, attributes.len() as u8]);
    update.extend(attributes);
    update.extend([16, 10, 1]);
    lab.inject(0, 1, &update);
    let seen = taken(&mut lab.routers[0]);
    assert_eq!(routes(&seen, Stage::BeforePolicy), ["-10.1.0.0/16"]);
    let raw = seen
        .iter()
        .any(|o| matches!(o, Observation::Received { message, .. } if **message == *update));
    assert!(raw, "messages are as they came");
    assert_eq!(lab.routers[0].statistics(0)[0].1.treated_as_withdraw, 1);
}
