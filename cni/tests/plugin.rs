//! The binary as a runtime calls it: environment and standard input in, JSON and exit code out,
//! with an agent that is played by the test.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

struct Answer {
    json: Option<Value>,
    code: i32,
    log: String,
}

fn run(env: &[(&str, &str)], input: &[u8]) -> Answer {
    let mut child = Command::new(env!("CARGO_BIN_EXE_margay-cni"))
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The plugin may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let json = (!stdout.is_empty()).then(|| serde_json::from_slice(&stdout).unwrap());
    Answer {
        json,
        code: status.code().unwrap(),
        log: String::from_utf8(stderr).unwrap(),
    }
}

/// A runtime's call for a container.
fn call(command: &str, config: &Value) -> Answer {
    let env = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c0ffee"),
        ("CNI_NETNS", "/var/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u-1",
        ),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    run(&env, config.to_string().as_bytes())
}

fn error_of(answer: &Answer) -> (u64, String) {
    assert_eq!(answer.code, 1, "{}", answer.log);
    let json = answer.json.as_ref().unwrap();
    assert!(
        json["cniVersion"].is_string() && json["details"].is_string(),
        "{json}"
    );
    assert!(!answer.log.is_empty());
    let text = format!(
        "{} | {}",
        json["msg"].as_str().unwrap(),
        json["details"].as_str().unwrap()
    );
    (json["code"].as_u64().unwrap(), text)
}

/// The test's directory with socket and journal.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("cni.sock")
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("state/cni-delete")
    }

    fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "name": "margay",
            "type": "margay-cni",
            "socket": self.socket(),
            "journal": self.journal(),
            "timeout": 2,
            "mtu": 1450,
        })
    }

    /// An agent that gives one reply; answers what it was asked.
    fn agent(&self, reply: &Value) -> mpsc::Receiver<Value> {
        self.raw_agent(format!("{reply}\n").into_bytes(), true)
    }

    fn raw_agent(&self, reply: Vec<u8>, close: bool) -> mpsc::Receiver<Value> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let (asked, requests) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap())
                .read_line(&mut line)
                .unwrap();
            asked.send(serde_json::from_str(&line).unwrap()).unwrap();
            stream.write_all(&reply).unwrap();
            if !close {
                // Held open until the test ends.
                std::thread::sleep(Duration::from_secs(60));
            }
        });
        requests
    }

    fn journalled(&self) -> Vec<Value> {
        let entries = margay_cni::journal::read(&self.journal()).unwrap();
        entries
            .into_iter()
            .map(|entry| serde_json::to_value(entry.request.unwrap()).unwrap())
            .collect()
    }
}

/// What the agent answers to ADD: the newest form.
fn added() -> Value {
    json!({"result": {
        "interfaces": [
            {"name": "mgy0123456789a", "mac": "ee:ee:ee:ee:ee:ee", "mtu": 1450},
            {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1450, "sandbox": "/var/run/netns/x"}
        ],
        "ips": [
            {"interface": 1, "address": "10.244.0.5/32", "gateway": "169.254.1.1"},
            {"interface": 1, "address": "fd00::5/128", "gateway": "fe80::ecee:eeff:feee:eeee"}
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
            {"dst": "::/0", "gw": "fe80::ecee:eeff:feee:eeee"}
        ]
    }})
}

#[test]
fn add_asks_the_agent_and_prints_the_result() {
    let place = Place::new();
    let requests = place.agent(&added());
    let answer = call("ADD", &place.config("1.1.0"));
    assert_eq!(answer.code, 0, "{}", answer.log);
    let mut expected = added()["result"].clone();
    expected["cniVersion"] = json!("1.1.0");
    expected["dns"] = json!({});
    assert_eq!(answer.json.unwrap(), expected);

    let request = requests.recv().unwrap();
    assert_eq!(request["command"], "ADD");
    assert_eq!(request["containerId"], "c0ffee");
    assert_eq!(request["netns"], "/var/run/netns/x");
    assert_eq!(request["ifname"], "eth0");
    assert_eq!(request["args"]["K8S_POD_NAME"], "web-0");
    assert_eq!(request["args"]["K8S_POD_UID"], "u-1");
    assert_eq!(request["config"]["mtu"], 1450);
}

#[test]
fn every_version_has_its_form() {
    for version in VERSIONS {
        let place = Place::new();
        let _requests = place.agent(&added());
        let answer = call("ADD", &place.config(version));
        assert_eq!(answer.code, 0, "{version}: {}", answer.log);
        let result = answer.json.unwrap();
        assert_eq!(result["cniVersion"], version);
        if version <= "0.2.0" {
            let expected = json!({
                "cniVersion": version,
                "ip4": {
                    "ip": "10.244.0.5/32", "gateway": "169.254.1.1",
                    "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]
                },
                "ip6": {
                    "ip": "fd00::5/128", "gateway": "fe80::ecee:eeff:feee:eeee",
                    "routes": [{"dst": "::/0", "gw": "fe80::ecee:eeff:feee:eeee"}]
                },
                "dns": {}
            });
            assert_eq!(result, expected);
            continue;
        }
        let newest = version == "1.1.0";
        assert_eq!(
            result["interfaces"][1].get("mtu").is_some(),
            newest,
            "{version}"
        );
        let family = result["ips"][1].get("version").and_then(Value::as_str);
        assert_eq!(family, (version < "1.0.0").then_some("6"), "{version}");
        assert_eq!(result["ips"][0]["address"], "10.244.0.5/32");
        assert_eq!(result["interfaces"][1]["sandbox"], "/var/run/netns/x");
    }
}

#[test]
fn a_version_or_none_that_is_old_means_the_oldest() {
    let place = Place::new();
    let _requests = place.agent(&added());
    let mut config = place.config("");
    config.as_object_mut().unwrap().remove("cniVersion");
    let result = call("ADD", &config).json.unwrap();
    assert_eq!(result["cniVersion"], "0.1.0");
    assert!(result["ip4"].is_object());
}

#[test]
fn in_a_chain_the_previous_result_comes_first() {
    let previous = json!({
        "interfaces": [{"name": "lo0", "sandbox": "/var/run/netns/x"}],
        "ips": [{"version": "4", "interface": 0, "address": "192.0.2.7/24", "gateway": "192.0.2.1"}],
        "routes": [{"dst": "198.51.100.0/24"}],
        "dns": {"nameservers": ["192.0.2.53"]}
    });
    let oldest =
        json!({"ip4": {"ip": "192.0.2.7/24", "routes": [{"dst": "198.51.100.0/24"}]}, "dns": {}});
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        for (previous, shift) in [(&previous, 1), (&oldest, 0)] {
            let place = Place::new();
            let requests = place.agent(&added());
            let mut config = place.config(version);
            config["prevResult"] = previous.clone();
            let answer = call("ADD", &config);
            assert_eq!(answer.code, 0, "{version}: {}", answer.log);
            let result = answer.json.unwrap();
            assert_eq!(result["ips"][0]["address"], "192.0.2.7/24");
            assert_eq!(result["ips"][1]["address"], "10.244.0.5/32");
            assert_eq!(result["ips"][1]["interface"], 1 + shift);
            assert_eq!(result["interfaces"][1 + shift]["name"], "eth0");
            assert_eq!(result["routes"][0]["dst"], "198.51.100.0/24");
            assert_eq!(result["routes"].as_array().unwrap().len(), 3);
            if shift == 1 {
                assert_eq!(result["dns"]["nameservers"][0], "192.0.2.53");
            }
            let request = requests.recv().unwrap();
            assert_eq!(request["prevResult"]["cniVersion"], "1.1.0");
            assert_eq!(request["prevResult"]["ips"][0]["address"], "192.0.2.7/24");
            assert!(request["config"].get("prevResult").is_none());
        }
    }
    let place = Place::new();
    let mut config = place.config("1.1.0");
    config["prevResult"] = json!({"ips": [{"address": "nonsense"}]});
    assert_eq!(error_of(&call("ADD", &config)).0, 6);
    config["prevResult"] = json!({"cniVersion": "9.0.0"});
    assert_eq!(error_of(&call("ADD", &config)).0, 1);
}

#[test]
fn the_agents_errors_are_passed_on() {
    for (command, version) in [("ADD", "0.3.1"), ("DEL", "1.0.0"), ("STATUS", "1.1.0")] {
        let place = Place::new();
        let error = json!({"code": 11, "msg": "no free IPv4 address in IPPool p", "details": "d"});
        let _requests = place.agent(&json!({"error": error}));
        let answer = call(command, &place.config(version));
        let json = answer.json.unwrap();
        assert_eq!(answer.code, 1);
        assert_eq!(
            json,
            json!({"cniVersion": version, "code": 11, "msg": "no free IPv4 address in IPPool p", "details": "d"})
        );
    }
}

#[test]
fn without_an_agent_add_is_to_be_tried_again() {
    let place = Place::new();
    let (code, text) = error_of(&call("ADD", &place.config("1.1.0")));
    assert_eq!(code, 11);
    assert!(
        text.contains("agent on this node does not answer"),
        "{text}"
    );
    assert!(text.contains(place.socket().to_str().unwrap()), "{text}");
    assert_eq!(error_of(&call("STATUS", &place.config("1.1.0"))).0, 50);
    // A socket that a dead agent left behind.
    drop(UnixListener::bind(place.socket()).unwrap());
    assert_eq!(error_of(&call("ADD", &place.config("1.1.0"))).0, 11);
    assert_eq!(error_of(&call("STATUS", &place.config("1.1.0"))).0, 50);
    assert!(place.journalled().is_empty());
}

#[test]
fn without_an_agent_del_is_written_down() {
    let place = Place::new();
    for _ in 0..2 {
        let answer = call("DEL", &place.config("1.1.0"));
        assert_eq!((answer.code, answer.json), (0, None));
        assert!(answer.log.contains("the delete waits in"), "{}", answer.log);
    }
    // The second one replaces the first; nothing half-written is left.
    let journalled = place.journalled();
    assert_eq!(journalled.len(), 1);
    assert_eq!(journalled[0]["command"], "DEL");
    assert_eq!(journalled[0]["containerId"], "c0ffee");
    assert_eq!(journalled[0]["args"]["K8S_POD_NAME"], "web-0");
    assert_eq!(std::fs::read_dir(place.journal()).unwrap().count(), 1);
}

#[test]
fn a_delete_that_cannot_be_written_down_is_an_error() {
    let place = Place::new();
    let mut config = place.config("1.1.0");
    config["journal"] = json!("/proc/margay-nowhere");
    let (code, text) = error_of(&call("DEL", &config));
    assert_eq!(code, 5);
    assert!(text.contains("/proc/margay-nowhere"), "{text}");
}

#[test]
fn an_agent_that_hangs_or_babbles() {
    let cases: [(&[u8], bool); 4] = [
        (b"", false),
        (b"", true),
        (b"{\"result\": {}", true),
        (b"hello\n", true),
    ];
    for (reply, close) in cases {
        let begin = Instant::now();
        let place = Place::new();
        let _requests = place.raw_agent(reply.to_vec(), close);
        let (code, _) = error_of(&call("ADD", &place.config("1.1.0")));
        assert_eq!(code, 11, "{reply:?}");
        assert!(begin.elapsed() < Duration::from_secs(10));

        let place = Place::new();
        let _requests = place.raw_agent(reply.to_vec(), close);
        assert_eq!(call("DEL", &place.config("1.1.0")).code, 0);
        assert_eq!(place.journalled().len(), 1);
    }
    let place = Place::new();
    let _requests = place.agent(&json!({"result": {"ips": "none"}}));
    assert_eq!(error_of(&call("ADD", &place.config("1.1.0"))).0, 6);
}

#[test]
fn del_check_gc_and_status_print_nothing() {
    for command in ["DEL", "CHECK", "GC", "STATUS"] {
        let place = Place::new();
        let requests = place.agent(&json!({"result": {}}));
        let mut config = place.config("1.1.0");
        config["prevResult"] = added()["result"].clone();
        config["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
        let answer = call(command, &config);
        assert_eq!(
            (answer.code, answer.json, answer.log.as_str()),
            (0, None, ""),
            "{command}"
        );
        let request = requests.recv().unwrap();
        assert_eq!(request["command"], command);
        let valid = &request["config"]["cni.dev/valid-attachments"];
        assert_eq!(valid[0]["containerID"], "c1");
    }
}

#[test]
fn del_needs_no_namespace() {
    let place = Place::new();
    let requests = place.agent(&json!({"result": {}}));
    let env = [
        ("CNI_COMMAND", "DEL"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", ""),
    ];
    let config = place.config("0.3.1").to_string();
    assert_eq!(run(&env, config.as_bytes()).code, 0);
    assert!(requests.recv().unwrap().get("netns").is_none());
}

#[test]
fn version_needs_nothing() {
    for (input, version) in [
        ("", "1.1.0"),
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        ("{", "1.1.0"),
    ] {
        let answer = run(&[("CNI_COMMAND", "VERSION")], input.as_bytes());
        assert_eq!(answer.code, 0);
        let expected = json!({"cniVersion": version, "supportedVersions": VERSIONS});
        assert_eq!(answer.json.unwrap(), expected);
    }
}

#[test]
fn wrong_environments_are_named() {
    let long = "x".repeat(5000);
    let good = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/n"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "A=1"),
    ];
    let cases = [
        ("CNI_COMMAND", vec!["", "add", "ADDD"]),
        (
            "CNI_CONTAINERID",
            vec!["", "../../etc/x", "-c", "a b", long.as_str()],
        ),
        ("CNI_NETNS", vec!["", long.as_str()]),
        (
            "CNI_IFNAME",
            vec!["", "a/b", "a:b", "a b", ".", "..", "sixteencharacter"],
        ),
        ("CNI_ARGS", vec!["A", "=1", "A=1;B", long.as_str()]),
    ];
    let place = Place::new();
    let config = place.config("1.0.0").to_string();
    for (variable, values) in cases {
        for value in values {
            let mut env = good.to_vec();
            env.retain(|(key, _)| *key != variable);
            env.push((variable, value));
            let answer = run(&env, config.as_bytes());
            let (code, text) = error_of(&answer);
            assert_eq!(code, 4, "{variable}={value:.20}: {text}");
            assert!(text.contains(variable), "{text}");
        }
        let mut env = good.to_vec();
        env.retain(|(key, _)| *key != variable);
        if variable != "CNI_ARGS" {
            assert_eq!(
                error_of(&run(&env, config.as_bytes())).0,
                4,
                "{variable} missing"
            );
        }
    }
}

#[test]
fn wrong_configurations_are_named() {
    let place = Place::new();
    let with = |key: &str, value: Value| {
        let mut config = place.config("1.1.0");
        config[key] = value;
        config.to_string()
    };
    let cases = [
        (String::new(), 6, "not JSON"),
        ("{".to_owned(), 6, "not JSON"),
        ("[1]".to_owned(), 7, "not valid"),
        (with("mtu", json!("big")), 7, "not valid"),
        (with("mtu", json!(-1)), 7, "not valid"),
        (with("name", json!("")), 7, "name"),
        (with("name", json!("a/b")), 7, "name"),
        (with("cniVersion", json!("2.0.0")), 1, "\"2.0.0\""),
        (with("cniVersion", json!(1)), 7, "not valid"),
        (
            with("ipam", json!({"type": "host-local"})),
            2,
            "ipam: {\"type\":\"host-local\"}",
        ),
        (" ".repeat(2 << 20), 6, "longer than"),
    ];
    for (text, expected, part) in cases {
        let env = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/n"),
            ("CNI_IFNAME", "eth0"),
        ];
        let (code, message) = error_of(&run(&env, text.as_bytes()));
        assert_eq!(code, expected, "{text:.60}: {message}");
        assert!(message.contains(part), "{message}");
    }
    // An empty section says nothing.
    let (code, _) = error_of(&call(
        "ADD",
        &serde_json::from_str(&with("ipam", json!({}))).unwrap(),
    ));
    assert_eq!(code, 11);
}

#[test]
fn commands_younger_than_the_configuration_are_refused() {
    let place = Place::new();
    for (command, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "0.4.0")] {
        let answer = call(command, &place.config(version));
        let (code, text) = error_of(&answer);
        assert_eq!(code, 1);
        assert!(text.contains(command), "{text}");
        assert_eq!(answer.json.unwrap()["cniVersion"], version);
    }
    // CHECK without anything to compare with.
    assert_eq!(error_of(&call("CHECK", &place.config("1.0.0"))).0, 7);
}

#[test]
fn journal_entries_are_read_back_and_spoiled_ones_are_told() {
    let place = Place::new();
    assert_eq!(call("DEL", &place.config("1.1.0")).code, 0);
    let directory: &Path = &place.journal();
    std::fs::write(directory.join("broken@eth0.json"), b"{\"comm").unwrap();
    std::fs::write(directory.join(".c1@eth0.7.half"), b"{").unwrap();
    let entries = margay_cni::journal::read(directory).unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries[0].request.is_err());
    assert!(entries[1].request.is_ok());
    for entry in &entries {
        margay_cni::journal::remove(entry).unwrap();
        margay_cni::journal::remove(entry).unwrap();
    }
    assert!(margay_cni::journal::read(directory).unwrap().is_empty());
    assert_eq!(call("DEL", &place.config("1.1.0")).code, 0);
    for _ in 0..2 {
        margay_cni::journal::discard(directory, "c0ffee", "eth0").unwrap();
    }
    assert!(margay_cni::journal::read(directory).unwrap().is_empty());
    assert!(margay_cni::journal::discard(directory, "../x", "eth0").is_err());
    let nowhere = directory.join("nowhere");
    assert!(margay_cni::journal::read(&nowhere).unwrap().is_empty());
}
