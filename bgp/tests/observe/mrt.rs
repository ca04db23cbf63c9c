//! MRT files, read by bgpdump and by GoBGP.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::lab::{Lab, PATIENCE, announcements};

const ROUTES: [&str; 3] = ["10.1.0.0/16", "10.2.0.0/16", "2001:db8:1::/48"];

/// Whether a reader is there; where it must be, its absence is a failure.
fn has(reader: &str, test: &str) -> bool {
    let found = Command::new(reader).arg("--help").output().is_ok();
    if !found {
        assert!(
            std::env::var_os("MARGAY_REQUIRE_PRIVILEGED").is_none(),
            "{reader} is not there: scripts/packages.sh interop"
        );
        println!("SKIPPED (needs {reader}): {test}");
    }
    found
}

/// What bgpdump makes of a file: a line for each route or message, in fields.
fn bgpdump(file: &Path) -> Vec<Vec<String>> {
    let output = Command::new("bgpdump")
        .arg("-m")
        .arg(file)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(
        !errors.contains("rror") && !errors.contains("arn"),
        "{errors}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let fields = |line: &str| line.split('|').map(str::to_owned).collect();
    text.lines().map(fields).collect()
}

async fn grown(file: &Path, enough: impl Fn() -> bool) {
    let wait = async {
        while !file.exists() || !enough() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_the_rib_is_read_by_others() {
    let own = json!([{"prefix": "10.9.0.0/16", "nextHop": "192.0.2.9"}]);
    let lab = Lab::start(json!({ "announce": own }), announcements(&ROUTES)).await;
    lab.received(3).await;
    let file = lab.path("rib.mrt");
    let reply = lab.ask(json!({"query": "mrt", "path": file})).await;
    assert_eq!(
        (&reply["prefixes"], &reply["path"]),
        (&json!(4), &json!(file))
    );
    assert_eq!(reply["octets"], std::fs::metadata(&file).unwrap().len());
    for (wrong, expected) in [
        (json!("rib.mrt"), "say where to"),
        (
            json!(lab.path("nowhere/rib.mrt")),
            "its directory must exist",
        ),
    ] {
        let reply = lab.ask(json!({"query": "mrt", "path": wrong})).await;
        let error = reply["error"].as_str().unwrap();
        assert!(error.contains(expected), "{error}");
    }
    let left = std::fs::read_dir(lab.folder.path()).unwrap().count();
    assert_eq!(left, 2, "the socket and the dump, nothing unfinished");

    if has("bgpdump", "a_dump_of_the_rib_is_read_by_others") {
        let lines = bgpdump(&file);
        let seen: Vec<_> = lines
            .iter()
            .map(|l| {
                (
                    &l[0][..],
                    &l[2][..],
                    &l[3][..],
                    &l[4][..],
                    &l[5][..],
                    &l[6][..],
                )
            })
            .collect();
        let kind = "TABLE_DUMP2";
        for prefix in ROUTES {
            assert!(
                seen.contains(&(kind, "B", "127.0.0.2", "64513", prefix, "64513")),
                "{seen:?}"
            );
        }
        assert!(
            seen.contains(&(kind, "B", "0.0.0.0", "64512", "10.9.0.0/16", "")),
            "{seen:?}"
        );
        assert_eq!(seen.len(), 4);
        let ipv6 = lines.iter().find(|line| line[5] == ROUTES[2]).unwrap();
        assert_eq!((&ipv6[8][..], &ipv6[11][..]), ("2001:db8::1", "64513:7"));
    }
    lab.watched.shutdown().await;
    lab.other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_are_made_at_intervals() {
    let mrt = json!({"rib": {"path": "FOLDER/rib.{time}.mrt", "interval": 10}});
    let lab = Lab::start(json!({ "mrt": mrt }), announcements(&ROUTES)).await;
    let summary = lab.ask(json!({"query": "summary"})).await;
    assert_eq!(summary["mrt"]["rib"]["state"], "waiting");
    // A shorter interval is refused, and nothing changes.
    let refused = lab
        .reload(|file| file["mrt"]["rib"]["interval"] = json!(3))
        .await;
    let error = refused.unwrap_err();
    assert!(
        error.contains("mrt.rib.interval: must be at least 10 seconds"),
        "{error}"
    );
    let there = || {
        let files = std::fs::read_dir(lab.folder.path()).unwrap();
        let mut names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.any(|name| name.starts_with("rib.2") && name.ends_with("Z.mrt"))
    };
    grown(lab.folder.path(), there).await;
    lab.watched.shutdown().await;
    lab.other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_states_are_read_by_others() {
    let mrt = json!({"updates": {"path": "FOLDER/updates.mrt", "sent": true}});
    let own = json!([{"prefix": "10.9.0.0/16", "nextHop": "192.0.2.9"}]);
    let lab = Lab::start(json!({ "mrt": mrt, "announce": own }), announcements(&[])).await;
    // From the first message of a session on.
    for disabled in [true, false] {
        let change =
            |file: &mut serde_json::Value| file["neighbors"][0]["disabled"] = json!(disabled);
        lab.reload(change).await.unwrap();
    }
    lab.established().await;
    lab.announce(announcements(&ROUTES)).await;
    lab.received(3).await;
    lab.announce(announcements(&ROUTES[1..])).await;
    lab.received(2).await;
    let summary = lab.ask(json!({"query": "summary"})).await;
    assert_eq!(summary["mrt"]["updates"]["state"], "up");
    assert_eq!(summary["mrt"]["updates"]["lost"], 0);
    // Another file from here on, with whole seconds.
    let other = lab.path("other.mrt");
    let path = json!(other);
    lab.reload(|file| file["mrt"]["updates"] = json!({"path": path, "extended": false}))
        .await
        .unwrap();
    grown(&other, || true).await;
    lab.announce(announcements(&ROUTES)).await;
    lab.received(3).await;
    let file = lab.path("updates.mrt");
    lab.watched.shutdown().await;
    lab.other.shutdown().await;
    if !has("bgpdump", "messages_and_states_are_read_by_others") {
        return;
    }
    let lines = bgpdump(&file);
    let seen: Vec<_> = lines.iter().map(|line| line[2..].join("|")).collect();
    let announced = |prefix: &str| format!("A|127.0.0.2|64513|{prefix}|64513|IGP|");
    for prefix in ROUTES {
        assert!(
            seen.iter().any(|line| line.starts_with(&announced(prefix))),
            "{prefix}: {seen:#?}"
        );
    }
    assert!(
        seen.contains(&"W|127.0.0.2|64513|10.1.0.0/16".to_owned()),
        "{seen:#?}"
    );
    assert!(
        seen.contains(&"STATE|127.0.0.2|64513|5|6".to_owned()),
        "{seen:#?}"
    );
    // What was sent, too.
    assert!(
        seen.iter()
            .any(|line| line.contains("|10.9.0.0/16|64512|IGP|")),
        "{seen:#?}"
    );
    let lines = bgpdump(&other);
    let line = lines.iter().find(|line| line[5] == ROUTES[0]).unwrap();
    assert_eq!(&line[0], "BGP4MP");
    assert!(!line[1].contains('.'), "{line:?}");
}
