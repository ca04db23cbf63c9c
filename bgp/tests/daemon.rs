//! The daemon's control socket: questions and answers over a real unix socket.

#![cfg(feature = "speaker")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use margay_bgp::speaker::daemon::{Daemon, File};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A socket path of this test's own, removed at the end.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        let file = format!("margay-bgp-{name}-{}.sock", std::process::id());
        Self(std::env::temp_dir().join(file))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn file(socket: &Socket) -> File {
    serde_json::from_value(json!({
        "asn": 64512,
        "routerId": "10.0.0.1",
        "listen": [{"address": "127.0.0.1", "port": 0}],
        "neighbors": [{"address": "127.0.0.9", "asn": 64513, "passive": true, "name": "rack"}],
        "announce": [{"prefix": "10.1.0.0/24"}],
        "socket": socket.0,
    }))
    .unwrap()
}

async fn ask(stream: &mut BufReader<UnixStream>, request: &str) -> Value {
    stream
        .get_mut()
        .write_all(format!("{request}\n").as_bytes())
        .await
        .unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap()
}

#[tokio::test]
async fn questions_are_answered_one_line_each() {
    let socket = Socket::new("questions");
    // What a killed daemon leaves behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&socket.0).unwrap());
    let daemon = Daemon::start(&file(&socket)).await.unwrap();
    let mut stream = BufReader::new(UnixStream::connect(&socket.0).await.unwrap());

    let summary = ask(&mut stream, r#"{"query":"summary"}"#).await;
    assert_eq!(
        (summary["asn"].clone(), summary["routerId"].clone()),
        (json!(64512), json!("10.0.0.1"))
    );
    let neighbor = &summary["neighbors"][0];
    assert_eq!(neighbor["address"], "127.0.0.9");
    assert_eq!(neighbor["name"], "rack");
    assert_eq!(neighbor["state"], "Active");
    assert_eq!(neighbor["lastError"], Value::Null);
    assert_eq!(neighbor["prefixesReceived"], 0);
    assert!(neighbor["since"].as_str().unwrap().ends_with('Z'));

    let neighbors = ask(&mut stream, r#"{"query":"neighbors"}"#).await;
    assert_eq!(
        neighbors["neighbors"][0]["messagesSentByType"]["routeRefresh"],
        0
    );

    let rib = ask(&mut stream, r#"{"query":"rib"}"#).await;
    assert_eq!(rib["routes"][0]["prefix"], "10.1.0.0/24");
    assert_eq!(rib["routes"][0]["best"], true);

    let error = ask(&mut stream, "what?").await;
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .starts_with("request not understood")
    );

    daemon.shutdown().await;
    assert!(!socket.0.exists());
}

#[tokio::test]
async fn a_second_daemon_does_not_steal_the_socket() {
    let socket = Socket::new("second");
    let first = Daemon::start(&file(&socket)).await.unwrap();
    let error = Daemon::start(&file(&socket)).await.unwrap_err().to_string();
    assert!(error.starts_with("socket "), "{error}");
    assert!(UnixStream::connect(&socket.0).await.is_ok());
    first.shutdown().await;
}

#[tokio::test]
async fn a_reload_changes_what_differs_and_a_mistake_changes_nothing() {
    let socket = Socket::new("reload");
    let first = file(&socket);
    let next = std::sync::Arc::new(std::sync::Mutex::new(Err(
        "line 3: no such field".to_owned()
    )));
    let source = {
        let next = std::sync::Arc::clone(&next);
        std::sync::Arc::new(move || next.lock().unwrap().clone())
    };
    let daemon = Daemon::start_from(&first, Some(source)).await.unwrap();
    let mut stream = BufReader::new(UnixStream::connect(&socket.0).await.unwrap());
    let names = async |stream: &mut BufReader<UnixStream>| {
        let summary = ask(stream, r#"{"query":"summary"}"#).await;
        summary["neighbors"][0]["name"].clone()
    };

    let refused = ask(&mut stream, r#"{"query":"reload"}"#).await;
    assert_eq!(refused["error"], "line 3: no such field");
    assert_eq!(names(&mut stream).await, "rack");

    let mut wrong = first.clone();
    wrong.neighbors[0].import = Some("nosuch".to_owned());
    *next.lock().unwrap() = Ok(wrong);
    let refused = ask(&mut stream, r#"{"query":"reload"}"#).await;
    let error = refused["error"].as_str().unwrap();
    assert!(
        error.starts_with("neighbors[0].import: no filter named"),
        "{error}"
    );
    assert_eq!(names(&mut stream).await, "rack");

    let mut better = first.clone();
    better.neighbors[0].name = Some("tor".to_owned());
    *next.lock().unwrap() = Ok(better);
    let reply = ask(&mut stream, r#"{"query":"reload"}"#).await;
    assert_eq!(reply, json!({ "reloaded": true }));
    assert_eq!(names(&mut stream).await, "tor");
    daemon.shutdown().await;
}
