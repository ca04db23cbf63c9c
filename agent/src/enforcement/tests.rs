//! The policy edge over a table in memory that can be made to fail.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::runtime::watcher::Event;
use margay_dataplane::FakeKernel;
use margay_policy::ruleset::Command;
use margay_policy::writer::{Applied, Audit, Error, Memory, Writer};
use margay_policy::{Ruleset, Transaction};
use tokio::sync::{Notify, mpsc};

use super::*;

/// A table in memory with failures to come, shared with the test.
#[derive(Default)]
struct Table {
    memory: Memory,
    failures: Mutex<Vec<Error>>,
    tries: AtomicUsize,
    /// Held back until told to go on.
    hold: Mutex<Option<Arc<Notify>>>,
    /// What the next reading back tells.
    found: Mutex<(Vec<String>, Transaction)>,
    /// The addresses that have connections before the agent starts.
    tracked: Mutex<Option<BTreeSet<IpAddr>>>,
    forgotten: Mutex<Vec<String>>,
    /// Ending connections takes until this is false.
    slow: AtomicBool,
}

struct Shared(Arc<Table>);

impl Writer for Shared {
    fn apply<'a>(&'a self, transaction: &'a Transaction) -> Applied<'a> {
        Box::pin(async move {
            self.0.tries.fetch_add(1, Ordering::Relaxed);
            let hold = self.0.hold.lock().unwrap().clone();
            if let Some(hold) = hold {
                hold.notified().await;
            }
            let failure = self.0.failures.lock().unwrap().pop();
            match failure {
                Some(error) => Err(error),
                None => self.0.memory.apply(transaction).await,
            }
        })
    }

    fn audit(&self, _: &Ruleset) -> Result<Audit, Error> {
        let (differences, repair) = std::mem::take(&mut *self.0.found.lock().unwrap());
        Ok(Audit {
            differences,
            repair,
        })
    }

    fn tracked(&self, _: usize) -> Result<Option<BTreeSet<IpAddr>>, Error> {
        Ok(self.0.tracked.lock().unwrap().clone())
    }

    fn forget(&self, addresses: &BTreeSet<IpAddr>) -> Result<usize, Error> {
        let mut forgotten = self.0.forgotten.lock().unwrap();
        forgotten.extend(addresses.iter().map(ToString::to_string));
        while self.0.slow.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(0)
    }
}

impl Table {
    fn forgotten(&self) -> Vec<String> {
        self.forgotten.lock().unwrap().clone()
    }

    /// The next writes fail like this, in order.
    fn fail(&self, mut failures: Vec<Error>) {
        failures.reverse();
        *self.failures.lock().unwrap() = failures;
    }

    fn tries(&self) -> usize {
        self.tries.load(Ordering::Relaxed)
    }

    fn holds(&self, text: &str) -> bool {
        format!("{:?}", self.memory.table()).contains(text)
    }
}

const INTERFACE: &str = "mgy0123456789a";

fn endpoint() -> Endpoint {
    endpoint_of("web", INTERFACE, "10.244.0.1")
}

fn endpoint_of(pod: &str, interface: &str, address: &str) -> Endpoint {
    Endpoint {
        container_id: "c1".into(),
        interface: "eth0".into(),
        namespace: "default".into(),
        pod: pod.into(),
        uid: None,
        host_interface: interface.into(),
        netns: "/run/netns/web".into(),
        addresses: vec![address.parse().unwrap()],
        mtu: 1450,
        device: margay_policy::compile::stand_in(interface),
    }
}

struct Test {
    table: Arc<Table>,
    edge: Enforcement,
    changes: mpsc::Sender<Box<Change>>,
}

impl Test {
    fn start(endpoints: &[Endpoint]) -> Self {
        Self::start_among(endpoints, Some(&[]))
    }

    /// With connections of these addresses; without any, of more than can be named.
    fn start_among(endpoints: &[Endpoint], tracked: Option<&[&str]>) -> Self {
        let table = Arc::new(Table::default());
        let tracked = tracked.map(|them| them.iter().map(|one| one.parse().unwrap()).collect());
        *table.tracked.lock().unwrap() = tracked;
        let (changes, events) = mpsc::channel(16);
        let writer = Shared(Arc::clone(&table));
        Self {
            edge: Enforcement::start_with(
                "n1",
                endpoints,
                events,
                watch::Sender::new(false),
                writer,
            ),
            table,
            changes,
        }
    }

    /// With every list, empty, and the table written.
    async fn ready(endpoints: &[Endpoint]) -> Self {
        Self::start(endpoints).with_lists().await
    }

    async fn with_lists(self) -> Self {
        self.lists().await;
        self.settle().await;
        assert!(self.edge.is_programmed());
        self
    }

    async fn lists(&self) {
        for change in [
            Change::Namespace(Event::Init),
            Change::Namespace(Event::InitDone),
            Change::Pod(Event::Init),
            Change::Pod(Event::InitDone),
            Change::NetworkPolicy(Event::Init),
            Change::NetworkPolicy(Event::InitDone),
            Change::OwnNetworkPolicy(Event::Init),
            Change::OwnNetworkPolicy(Event::InitDone),
            Change::GlobalNetworkPolicy(Event::Init),
            Change::GlobalNetworkPolicy(Event::InitDone),
            Change::ClusterNetworkPolicy(Event::Init),
            Change::ClusterNetworkPolicy(Event::InitDone),
            Change::Tier(Event::Init),
            Change::Tier(Event::InitDone),
            Change::NetworkSet(Event::Init),
            Change::NetworkSet(Event::InitDone),
            Change::GlobalNetworkSet(Event::Init),
            Change::GlobalNetworkSet(Event::InitDone),
            Change::HostEndpoint(Event::Init),
            Change::HostEndpoint(Event::InitDone),
            Change::ServiceAccount(Event::Init),
            Change::ServiceAccount(Event::InitDone),
        ] {
            self.changes.send(Box::new(change)).await.unwrap();
        }
        self.edge.configure(&[]);
    }

    /// Waits until everything under way is done. Time is virtual: it passes when nobody works.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn missing() -> Error {
    Error::Missing("no such set".to_owned())
}

fn full() -> Error {
    Error::Full("too many".to_owned())
}

fn refused() -> Error {
    Error::Refused("out of memory".to_owned())
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_before_every_list_has_arrived() {
    let test = Test::start(&[]);
    let refused = test.edge.put(&endpoint()).await.unwrap_err();
    assert!(
        refused.contains("list of IPPool objects has not arrived"),
        "{refused}"
    );
    assert_eq!(test.edge.report().waiting_for, Some(Kind::IPPool));
    assert_eq!(test.table.tries(), 0);
    assert!(!test.edge.is_programmed());

    test.lists().await;
    test.settle().await;
    assert_eq!(test.edge.report().waiting_for, None);
    test.edge.put(&endpoint()).await.unwrap();
    assert!(test.table.holds(INTERFACE));

    test.edge.take(INTERFACE).await.unwrap();
    test.settle().await;
    assert!(!test.table.holds(INTERFACE));
}

#[tokio::test(start_paused = true)]
async fn pods_of_an_earlier_agent_are_in_the_first_commit() {
    let test = Test::ready(&[endpoint()]).await;
    assert_eq!(test.table.tries(), 1);
    assert!(test.table.holds(INTERFACE));
}

#[tokio::test(start_paused = true)]
async fn a_pods_end_waits_neither_for_lists_nor_for_the_kernel() {
    let test = Test::start(&[endpoint()]);
    test.edge.take(INTERFACE).await.unwrap();
    test.lists().await;
    test.settle().await;
    assert!(!test.table.holds(INTERFACE));

    *test.table.hold.lock().unwrap() = Some(Arc::new(Notify::new()));
    let putting = test.edge.clone();
    tokio::spawn(async move { putting.put(&endpoint()).await });
    test.settle().await;
    test.edge.take(INTERFACE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_table_does_not_hold_up_those_who_only_tell() {
    let test = Test::ready(&[]).await;
    let hold = Arc::new(Notify::new());
    *test.table.hold.lock().unwrap() = Some(Arc::clone(&hold));
    let putting = test.edge.clone();
    let put = tokio::spawn(async move { putting.put(&endpoint()).await });
    test.settle().await;
    for round in 0..10_000_u32 {
        let modes: &[TunnelMode] = if round % 2 == 0 {
            &[TunnelMode::Ipip]
        } else {
            &[]
        };
        test.edge.set_tunnels(modes);
        test.edge.configure(&[]);
    }
    assert!(!put.is_finished());
    *test.table.hold.lock().unwrap() = None;
    hold.notify_one();
    put.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_table_that_somebody_changed_is_replaced_as_a_whole() {
    for failure in [missing(), full(), refused()] {
        let test = Test::ready(&[]).await;
        test.table.fail(vec![failure]);
        test.edge.put(&endpoint()).await.unwrap();
        assert_eq!(test.table.tries(), 3, "first, difference, whole");
        assert!(test.table.holds(INTERFACE));
        assert_eq!(test.edge.report().problem, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_commit_is_told_tried_again_and_overcome() {
    let test = Test::ready(&[]).await;
    test.table.fail(vec![refused(), refused(), refused()]);
    let error = test.edge.put(&endpoint()).await.unwrap_err();
    assert!(error.contains("out of memory"), "{error}");
    assert!(
        test.edge
            .report()
            .problem
            .unwrap()
            .contains("out of memory")
    );
    assert!(test.edge.is_programmed(), "the last table is in force");

    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(test.edge.report().problem, None);
    assert!(test.table.holds(INTERFACE));
    let tries = test.table.tries();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(test.table.tries(), tries, "nothing to do, nothing done");
}

#[tokio::test(start_paused = true)]
async fn a_missing_program_is_not_asked_for_the_whole_table_too() {
    let test = Test::ready(&[]).await;
    let gone = || Error::Run(std::io::ErrorKind::NotFound.into());
    test.table.fail(vec![gone()]);
    test.edge.put(&endpoint()).await.unwrap_err();
    assert_eq!(test.table.tries(), 2);
    let other = endpoint_of("db", "mgy0123456789b", "10.244.0.2");
    test.edge.put(&other).await.unwrap();
    assert!(test.table.holds(INTERFACE) && test.table.holds("mgy0123456789b"));
}

#[tokio::test(start_paused = true)]
async fn an_edge_outlives_its_watches() {
    let Test {
        table,
        edge,
        changes,
    } = Test::ready(&[]).await;
    drop(changes);
    edge.put(&endpoint()).await.unwrap();
    assert!(table.holds(INTERFACE) && !edge.has_ended());
}

#[tokio::test(start_paused = true)]
async fn a_table_that_others_changed_is_repaired() {
    let test = Test::ready(&[endpoint()]).await;
    let tries = test.table.tries();
    let flush = Transaction {
        commands: vec![Command::FlushChain("forward".to_owned())],
    };
    let forward = test.table.memory.table().chains["forward"].rules.clone();
    let rules = forward
        .iter()
        .map(|rule| Command::AddRule("forward".to_owned(), rule.clone()));
    let repair = Transaction {
        commands: rules.collect(),
    };
    test.table.memory.apply(&flush).await.unwrap();
    let words = vec!["chain forward: 0 rules instead of 5".to_owned()];
    *test.table.found.lock().unwrap() = (words.clone(), repair);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(test.table.tries(), tries + 1, "by the difference alone");
    assert_eq!(test.edge.report().repairs, 1);
    assert_eq!(test.table.memory.table().chains["forward"].rules, forward);

    // What is more than the difference can repair is written anew.
    let missing = Transaction {
        commands: vec![Command::FlushChain("gone".to_owned())],
    };
    *test.table.found.lock().unwrap() = (words, missing);
    tokio::time::sleep(Duration::from_secs(200)).await;
    let tries = tries + 2;
    assert_eq!(test.table.tries(), tries + 1, "the difference, the whole");
    assert_eq!(test.edge.report().repairs, 2);
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(
        test.table.tries(),
        tries + 1,
        "nothing is written when nothing differs"
    );
}

#[tokio::test(start_paused = true)]
async fn connections_end_with_the_address_they_belong_to() {
    let test = Test::ready(&[endpoint()]).await;
    assert_eq!(
        test.table.forgotten(),
        Vec::<String>::new(),
        "a restart ends none"
    );
    test.edge.take(INTERFACE).await.unwrap();
    test.settle().await;
    assert_eq!(test.table.forgotten(), ["10.244.0.1"]);
    let other = endpoint_of("other", "mgy99999999999", "10.244.0.7");
    test.edge.put(&other).await.unwrap();
    test.settle().await;
    assert_eq!(test.table.forgotten(), ["10.244.0.1"], "nobody had it");
}

#[tokio::test(start_paused = true)]
async fn a_reused_address_waits_until_the_connections_have_ended() {
    let test = Test::ready(&[endpoint()]).await;
    test.table.slow.store(true, Ordering::Relaxed);
    test.edge.take(INTERFACE).await.unwrap();
    let again = endpoint_of("again", "mgy99999999999", "10.244.0.1");
    let putting = test.edge.clone();
    let put = tokio::spawn(async move { putting.put(&again).await });
    let other = endpoint_of("other", "mgy88888888888", "10.244.0.8");
    test.edge.put(&other).await.unwrap();
    assert!(!put.is_finished(), "the other did not wait");
    test.table.slow.store(false, Ordering::Relaxed);
    put.await.unwrap().unwrap();
    assert_eq!(test.table.forgotten(), ["10.244.0.1"], "once");
}

#[tokio::test(start_paused = true)]
async fn connections_from_before_the_agent_end_before_their_address_is_given() {
    let cases: [(Option<&[&str]>, _, &[&str]); 3] = [
        (Some(&["10.244.0.7"]), "10.244.0.7", &["10.244.0.7"]),
        (Some(&["10.244.0.7"]), "10.244.0.8", &[]),
        (None, "10.244.0.8", &["10.244.0.8"]),
    ];
    for (tracked, address, ended) in cases {
        let test = Test::start_among(&[], tracked).with_lists().await;
        let other = endpoint_of("other", "mgy99999999999", address);
        test.edge.put(&other).await.unwrap();
        assert_eq!(test.table.forgotten(), ended, "{address} of {tracked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_table_follows_the_nodes_interfaces_as_soon_as_they_change() {
    let test = Test::start(&[endpoint()]);
    let kernel = FakeKernel::new();
    kernel.add_interface("kube-ipvs0", 1500, None);
    let (changed, changes) = watch::channel(());
    let followed = test.edge.follow_interfaces(kernel.clone(), changes);
    followed.await.unwrap();
    let test = test.with_lists().await;
    assert_eq!(test.table.tries(), 1, "the first table has it already");
    assert!(test.table.holds("balanced"));

    let test = Test::ready(&[endpoint()]).await;
    let (kernel, changes) = (FakeKernel::new(), changed.subscribe());
    let followed = test.edge.follow_interfaces(kernel.clone(), changes);
    followed.await.unwrap();
    test.settle().await;
    assert!(!test.table.holds("balanced"));
    kernel.add_interface("kube-ipvs0", 1500, None);
    changed.send_replace(());
    test.settle().await;
    assert!(test.table.holds("balanced"));
}

#[tokio::test(start_paused = true)]
async fn interfaces_are_looked_at_from_time_to_time_too() {
    let test = Test::ready(&[endpoint()]).await;
    let kernel = FakeKernel::new();
    let (_, changes) = watch::channel(());
    let followed = test.edge.follow_interfaces(kernel.clone(), changes);
    followed.await.unwrap();
    kernel.add_interface("kube-ipvs0", 1500, None);
    test.settle().await;
    assert!(!test.table.holds("balanced"));
    tokio::time::sleep(INTERFACES).await;
    assert!(test.table.holds("balanced"));
}

#[tokio::test]
async fn pods_interfaces_are_not_the_nodes() {
    let kernel = FakeKernel::new();
    kernel.add_interface(INTERFACE, 1500, None);
    kernel.add_interface("dummy0", 1500, None);
    kernel.add_interface("eth0", 1500, Some("192.0.2.1/24".parse().unwrap()));
    let known = interfaces(&kernel).await.unwrap();
    assert_eq!(known["eth0"], ["192.0.2.1".parse().unwrap()].into());
    assert_eq!(known["dummy0"], BTreeSet::new(), "one without an address");
    assert!(!known.contains_key(INTERFACE));
}
