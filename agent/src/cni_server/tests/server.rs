//! The socket: the plugin's own client on one side, the wiring over fakes on the other.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use margay_cni::config::Attachment;
use margay_cni::protocol::{Command, Reply, Request};
use margay_cni::{CniError, Code, NetworkConfig, client, journal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fakes::{World, add, attachment};
use crate::cni_server::network::{AddRequest, Added, DelOutcome, DelRequest, PodNetwork};
use crate::cni_server::server::{Limits, Server, listen};

/// A server on a socket in a directory of its own.
struct Running<N> {
    place: tempfile::TempDir,
    server: Arc<Server<N>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl<N: PodNetwork> Running<N> {
    fn start(network: impl FnOnce(PathBuf) -> N, limits: Limits) -> Self {
        let place = tempfile::tempdir().unwrap();
        let network = Arc::new(network(place.path().join("journal")));
        let server = Arc::new(Server::with_limits(network, limits));
        let stop = CancellationToken::new();
        let listener = listen(&place.path().join("run/cni.sock")).unwrap();
        let task = tokio::spawn(Arc::clone(&server).serve(listener, stop.clone()));
        Self {
            place,
            server,
            stop,
            task,
        }
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("run/cni.sock")
    }

    fn journal(&self) -> PathBuf {
        self.place.path().join("journal")
    }

    async fn ask(&self, request: Request) -> Reply {
        let socket = self.socket();
        let ask = move || client::ask(&socket, &request, Duration::from_secs(10));
        tokio::task::spawn_blocking(ask).await.unwrap().unwrap()
    }

    /// Sends bytes; answers the line that comes back.
    async fn send(&self, bytes: &[u8]) -> Reply {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        // The server may have seen enough before the end.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        // Not to the end: what the server did not read resets the connection after its answer.
        let mut line = Vec::new();
        let mut reader = BufReader::new(stream);
        reader.read_until(b'\n', &mut line).await.unwrap();
        serde_json::from_slice(&line).unwrap()
    }
}

fn wired() -> (World, Running<impl PodNetwork>) {
    let world = World::default();
    let fakes = world.clone();
    let running = Running::start(move |journal| fakes.wiring(&journal), Limits::default());
    (world, running)
}

fn request(command: Command, container: &str, pod: &str) -> Request {
    let pairs = [("K8S_POD_NAMESPACE", "default"), ("K8S_POD_NAME", pod)];
    let args = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Request {
        command,
        container_id: container.into(),
        netns: Some("/var/run/netns/x".into()),
        ifname: "eth0".into(),
        args: args.into(),
        config: NetworkConfig::default(),
        prev_result: None,
    }
}

fn error(reply: Reply) -> CniError {
    match reply {
        Reply::Error(error) => error,
        Reply::Result(value) => panic!("no error but {value}"),
    }
}

fn result(reply: Reply) -> serde_json::Value {
    match reply {
        Reply::Result(value) => value,
        Reply::Error(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn all_commands_over_the_socket() {
    let (world, running) = wired();
    let added = result(running.ask(request(Command::Add, "c1", "web")).await);
    assert_eq!(added["ips"][0]["address"], "10.0.0.1/32");
    result(running.ask(request(Command::Check, "c1", "web")).await);
    result(running.ask(request(Command::Status, "", "")).await);
    let mut gc = request(Command::Gc, "", "");
    let code = error(running.ask(gc.clone()).await).code;
    assert_eq!(
        code,
        Code::INVALID_CONFIG,
        "GC without a list would remove all"
    );
    gc.config.valid_attachments = Some(vec![attachment("c1")]);
    result(running.ask(gc.clone()).await);
    assert!(!world.is_clean());
    gc.config.valid_attachments = Some(vec![]);
    result(running.ask(gc).await);
    assert!(world.is_clean());
    result(running.ask(request(Command::Del, "c1", "web")).await);
    let code = error(running.ask(request(Command::Version, "", "")).await).code;
    assert_eq!(code, Code::INVALID_ENVIRONMENT);
}

#[tokio::test]
async fn gc_tells_what_it_could_not_remove() {
    let (world, running) = wired();
    result(running.ask(request(Command::Add, "c1", "web")).await);
    world.break_steps(&["remove"]);
    let mut gc = request(Command::Gc, "", "");
    gc.config.valid_attachments = Some(vec![]);
    let error = error(running.ask(gc).await);
    assert_eq!(error.code, Code::TRY_AGAIN);
    assert!(error.details.contains("c1") && error.details.contains("remove is broken"));
}

#[tokio::test]
async fn requests_are_checked_again() {
    let (world, running) = wired();
    type Spoil = fn(&mut Request);
    let cases: [(Spoil, Code, &str); 8] = [
        (
            |r| r.container_id = "../x".into(),
            Code::INVALID_ENVIRONMENT,
            "CNI_CONTAINERID",
        ),
        (
            |r| r.ifname = "a/b".into(),
            Code::INVALID_ENVIRONMENT,
            "CNI_IFNAME",
        ),
        (|r| r.netns = None, Code::INVALID_ENVIRONMENT, "CNI_NETNS"),
        (
            |r| r.args.clear(),
            Code::INVALID_ENVIRONMENT,
            "K8S_POD_NAME",
        ),
        (
            |r| drop(r.args.insert("K8S_POD_NAME".into(), "a b".into())),
            Code::INVALID_ENVIRONMENT,
            "K8S_POD_NAME",
        ),
        (
            |r| drop(r.args.insert("K8S_POD_NAMESPACE".into(), "é".repeat(300))),
            Code::INVALID_ENVIRONMENT,
            "K8S_POD_NAMESPACE",
        ),
        (|r| r.config.mtu = 100, Code::INVALID_CONFIG, "mtu 100"),
        (|r| r.config.mtu = 70_000, Code::INVALID_CONFIG, "mtu 70000"),
    ];
    for (spoil, code, part) in cases {
        let mut request = request(Command::Add, "c1", "web");
        spoil(&mut request);
        let error = error(running.ask(request).await);
        assert_eq!(error.code, code, "{error}");
        assert!(error.msg.contains(part), "{error}");
    }
    assert!(world.diary().is_empty());
}

#[tokio::test]
async fn babble_is_answered_and_bounded() {
    let limits = Limits {
        message: 1000,
        transfer: Duration::from_millis(200),
        ..Limits::default()
    };
    let world = World::default();
    let running = Running::start(|journal| world.wiring(&journal), limits);
    for bytes in [
        &b"hello\n"[..],
        b"{}\n",
        b"",
        b"{\"command\":\"ADD\"}",
        &[b'x'; 5000],
    ] {
        assert_eq!(
            error(running.send(bytes).await).code,
            Code::DECODE,
            "{bytes:.20?}"
        );
    }
    // One that says nothing at all and does not go.
    let mut silent = UnixStream::connect(running.socket()).await.unwrap();
    let mut line = Vec::new();
    silent.read_to_end(&mut line).await.unwrap();
    assert_eq!(error(serde_json::from_slice(&line).unwrap()).code, Code::IO);
}

#[tokio::test]
async fn the_socket_is_roots_alone_and_is_replaced() {
    let (_world, running) = wired();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(running.socket()), 0o600);
    assert_eq!(mode(running.place.path().join("run")), 0o755);
    // The next agent takes the place over; nothing but the socket is in the directory.
    let _next = listen(&running.socket()).unwrap();
    let entries = std::fs::read_dir(running.place.path().join("run")).unwrap();
    assert_eq!(entries.count(), 1);
}

/// Counts how many operations run at once; each takes a while.
#[derive(Debug, Default)]
struct Slow {
    running: AtomicUsize,
    most: AtomicUsize,
    ended: AtomicUsize,
}

impl Slow {
    async fn work(&self) {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl PodNetwork for Slow {
    async fn add(&self, _: AddRequest) -> Result<Added, CniError> {
        self.work().await;
        Err(CniError::new(Code::WIRING, "done"))
    }

    async fn del(&self, _: DelRequest) -> Result<DelOutcome, CniError> {
        self.work().await;
        Ok(DelOutcome::Done)
    }

    async fn check(&self, _: AddRequest) -> Result<(), CniError> {
        panic!("a bug in an operation")
    }

    async fn status(&self, _: Option<u32>) -> Result<(), CniError> {
        Ok(())
    }

    async fn stale(&self, _: &HashSet<Attachment>) -> Vec<DelRequest> {
        Vec::new()
    }
}

#[tokio::test]
async fn one_operation_at_a_time_for_a_container_and_for_a_pod() {
    let cases = [
        // The same container; two sandboxes of one pod; strangers.
        ([("c1", "a"), ("c1", "a"), ("c1", "b")], 1),
        ([("c1", "a"), ("c2", "a"), ("c3", "a")], 1),
        ([("c1", "a"), ("c2", "b"), ("c3", "c")], 3),
    ];
    for (requests, expected) in cases {
        let running = Running::start(|_| Slow::default(), Limits::default());
        let asks = requests.map(|(container, pod)| {
            let server = Arc::clone(&running.server);
            let request = request(Command::Del, container, pod);
            tokio::spawn(async move { server.handle(request).await })
        });
        for ask in asks {
            result(ask.await.unwrap());
        }
        let most = running.server.network().most.load(Ordering::SeqCst);
        assert_eq!(most, expected, "{requests:?}");
    }
}

#[tokio::test]
async fn a_slow_operation_goes_on_and_the_next_one_waits() {
    let limits = Limits {
        operation: Duration::from_millis(30),
        ..Limits::default()
    };
    let running = Running::start(|_| Slow::default(), limits);
    let late = error(running.ask(request(Command::Add, "c1", "a")).await);
    assert_eq!(late.code, Code::TRY_AGAIN);
    assert!(late.msg.contains("goes on"), "{late}");
    let slow = running.server.network();
    assert_eq!(slow.ended.load(Ordering::SeqCst), 0);
    while slow.ended.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_bug_in_one_operation_ends_only_that() {
    let running = Running::start(|_| Slow::default(), Limits::default());
    let broken = error(running.ask(request(Command::Check, "c1", "a")).await);
    assert_eq!(broken.code, Code::WIRING);
    result(running.ask(request(Command::Del, "c1", "a")).await);
}

#[tokio::test]
async fn connections_are_bounded_and_all_are_served() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let running = Running::start(|_| Slow::default(), limits);
    let asks =
        (0..6).map(|n| running.ask(request(Command::Del, &format!("c{n}"), &format!("p{n}"))));
    let replies = futures::future::join_all(asks).await;
    assert_eq!(replies.into_iter().map(result).count(), 6);
    assert!(running.server.network().most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn stopping_lets_open_operations_end() {
    let running = Running::start(|_| Slow::default(), Limits::default());
    let socket = running.socket();
    let ask = tokio::task::spawn_blocking(move || {
        client::ask(
            &socket,
            &request(Command::Del, "c1", "a"),
            Duration::from_secs(5),
        )
    });
    while running.server.network().running.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.stop.cancel();
    running.task.await.unwrap();
    result(ask.await.unwrap().unwrap());
    assert_eq!(running.server.network().ended.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn deletes_that_were_written_down_are_caught_up_with() {
    let (world, running) = wired();
    for (container, name) in [("c1", "a"), ("c2", "b")] {
        running
            .server
            .network()
            .add(add(container, name))
            .await
            .unwrap();
    }
    let directory = running.journal();
    assert_eq!(running.server.replay(&directory).await.unwrap().done, 0);
    journal::write(&directory, &request(Command::Del, "c1", "a")).unwrap();
    journal::write(&directory, &request(Command::Del, "unknown", "x")).unwrap();
    journal::write(&directory, &request(Command::Add, "c2", "b")).unwrap();
    std::fs::write(directory.join("half@eth0.json"), "{").unwrap();

    // Without an API server they wait on.
    world.break_steps(&["release"]);
    let replayed = running.server.replay(&directory).await.unwrap();
    assert_eq!(
        (replayed.done, replayed.waiting, replayed.unreadable),
        (0, 2, 2)
    );
    world.break_steps(&[]);
    let replayed = running.server.replay(&directory).await.unwrap();
    assert_eq!(
        (replayed.done, replayed.waiting, replayed.unreadable),
        (2, 0, 0)
    );
    assert!(journal::read(&directory).unwrap().is_empty());
    let held: Vec<String> = world.with(|state| {
        let all = state.held.keys();
        all.map(|one| one.container_id.clone()).collect()
    });
    assert_eq!(held, ["c2"]);
}

#[tokio::test]
async fn a_delete_that_was_dropped_meanwhile_is_not_done() {
    let (world, running) = wired();
    running.server.network().add(add("c1", "a")).await.unwrap();
    let delete = super::fakes::del("c1", Some("a"));
    let outcome = running.server.delete_if(delete, || false).await;
    assert_eq!(outcome, Ok(DelOutcome::Done));
    assert!(!world.is_clean());
}
