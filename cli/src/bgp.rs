//! `margayctl bgp …`: what a running speaker says of itself, by the unix socket of `margay bgp`.
//!
//! One question, one answer, printed as it came with `-o json` and as tables otherwise. Nothing is worked out here: a field
//! that the speaker does not send is left blank.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use margay_e2e::lab::report::{Align, Screen, Table};
use serde_json::{Map, Value, json};

/// How long the speaker may take to answer. A summary takes it milliseconds, a large table some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The arguments of `margayctl bgp`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A line for each neighbor: state, since when, how many prefixes, what went wrong last
    Summary {
        #[command(flatten)]
        whom: Whom,
    },
    /// Everything known of each neighbor: timers, families, counters, what was negotiated
    Neighbors {
        #[command(flatten)]
        whom: Whom,
        /// Only this one, by address or name
        neighbor: Option<String>,
    },
    /// The paths held, best ones marked
    Rib {
        #[command(flatten)]
        whom: Whom,
        /// Only the paths to this prefix, or to the longest one that covers this address
        prefix: Option<String>,
        /// Only paths learned from this neighbor's address
        #[arg(long, value_name = "ADDRESS")]
        neighbor: Option<String>,
    },
    /// Asks a neighbor for all its routes again (RFC 2918)
    Refresh {
        #[command(flatten)]
        whom: Whom,
        /// Its address
        neighbor: String,
    },
    /// Writes the RIB to a file in MRT (TABLE_DUMP_V2), for bgpdump, GoBGP and the like
    Dump {
        /// The socket that the speaker's configuration names
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
        /// The file, written by the speaker; `{time}` in it stands for the time
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Has the speaker read its configuration file again; a file in error changes nothing
    Reload {
        #[command(flatten)]
        whom: Whom,
    },
}

/// Whom to ask and how to print the answer.
#[derive(Debug, Args)]
struct Whom {
    /// The socket that the speaker's configuration names
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Runs the command; 0 when it was answered, 1 when the speaker could not be asked or refused, 2 for a neighbor it does not
/// know.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let (answer, code) = match answer(&arguments.command) {
        Ok(text) => (text, 0),
        Err(Failure { text, code }) => {
            eprintln!("margayctl bgp: {text}");
            return ExitCode::from(code);
        }
    };
    // A reader that has seen enough (`| head`) is no failure.
    let _ = std::io::stdout().write_all(answer.as_bytes());
    ExitCode::from(code)
}

struct Failure {
    text: String,
    code: u8,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, code: 1 }
    }
}

/// Has the speaker write its RIB.
fn dump(socket: &Path, output: &Path) -> Result<String, Failure> {
    // The speaker's directory is another one.
    let output = std::path::absolute(output)
        .map_err(|error| format!("--output {}: {error}", output.display()))?;
    let reply = ask(socket, &json!({ "query": "mrt", "path": output }))?;
    let field = |name| text(&reply, name);
    Ok(format!(
        "{}: {} prefixes, {} octets\n",
        field("path"),
        field("prefixes"),
        field("octets")
    ))
}

fn answer(command: &Command) -> Result<String, Failure> {
    let (whom, reply) = match command {
        Command::Dump { socket, output } => return dump(socket, output),
        Command::Summary { whom } => (whom, ask(&whom.socket, &json!({ "query": "summary" }))?),
        Command::Neighbors { whom, neighbor } => {
            let reply = ask(&whom.socket, &json!({ "query": "neighbors" }))?;
            (whom, only(reply, neighbor.as_deref())?)
        }
        Command::Rib {
            whom,
            prefix,
            neighbor,
        } => {
            let request = rib_request(prefix.as_deref(), neighbor.as_deref());
            let mut reply = ask(&whom.socket, &request)?;
            if let Some(routes) = reply.get_mut("routes").and_then(Value::as_array_mut) {
                // The speaker tells them in the order of their arrival; the paths of one prefix are together, best first.
                routes.sort_by_cached_key(prefix_key);
            }
            (whom, reply)
        }
        Command::Refresh { whom, neighbor } => {
            let request = json!({ "query": "refresh", "neighbor": neighbor });
            (whom, ask(&whom.socket, &request)?)
        }
        Command::Reload { whom } => (whom, ask(&whom.socket, &json!({ "query": "reload" }))?),
    };
    if whom.output == Output::Json {
        return Ok(format!("{reply:#}\n"));
    }
    Ok(match command {
        Command::Summary { .. } => summary(&reply),
        Command::Neighbors { .. } => neighbors(&reply),
        Command::Rib { .. } => rib(&reply),
        Command::Refresh { neighbor, .. } => format!("{neighbor} was asked for its routes\n"),
        Command::Reload { .. } => "configuration read and in force\n".to_owned(),
        // Answered above.
        Command::Dump { .. } => String::new(),
    })
}

fn rib_request(prefix: Option<&str>, neighbor: Option<&str>) -> Value {
    let mut request = json!({ "query": "rib" });
    for (key, value) in [("prefix", prefix), ("neighbor", neighbor)] {
        if let Some(value) = value {
            request[key] = json!(value);
        }
    }
    request
}

/// Sends the request and reads the one line of the reply.
fn ask(socket: &Path, request: &Value) -> Result<Value, String> {
    let name = socket.display();
    let failed = |error: std::io::Error| {
        format!(
            "{name}: {error}; is `margay bgp` running, and does its configuration say `socket: {name}`?"
        )
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    stream
        .write_all(format!("{request}\n").as_bytes())
        .map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .map_err(|error| format!("{name}: no answer: {error}"))?;
    let reply: Value = serde_json::from_str(&line)
        .map_err(|error| format!("{name}: the answer is not JSON: {error}"))?;
    match reply.get("error").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned()),
        None => Ok(reply),
    }
}

/// Leaves the neighbor of this name or address only.
fn only(mut reply: Value, wanted: Option<&str>) -> Result<Value, Failure> {
    let Some(wanted) = wanted else {
        return Ok(reply);
    };
    if let Some(list) = reply.get_mut("neighbors").and_then(Value::as_array_mut) {
        list.retain(|n| text(n, "address") == wanted || text(n, "name") == wanted);
        if list.is_empty() {
            return Err(Failure {
                text: format!(
                    "no neighbor is called {wanted:?}; `margayctl bgp summary` lists them"
                ),
                code: 2,
            });
        }
    }
    Ok(reply)
}

// ===== tables =====

fn summary(reply: &Value) -> String {
    let mut table = Table::new(&[
        ("NEIGHBOR", Align::Left),
        ("NAME", Align::Left),
        ("AS", Align::Right),
        ("STATE", Align::Left),
        ("SINCE", Align::Left),
        ("RECEIVED", Align::Right),
        ("ACCEPTED", Align::Right),
        ("SENT", Align::Right),
        ("FLAPS", Align::Right),
        ("LAST ERROR", Align::Left),
    ]);
    for neighbor in list(reply, "neighbors") {
        let fields = [
            "address",
            "name",
            "asn",
            "state",
            "since",
            "prefixesReceived",
            "prefixesAccepted",
            "prefixesSent",
            "flaps",
            "lastError",
        ];
        table.row(fields.map(|field| text(neighbor, field).into()));
    }
    let head = format!(
        "AS {}, router id {}\n\n",
        text(reply, "asn"),
        text(reply, "routerId")
    );
    head + &lines(&table) + &monitors(reply)
}

/// BMP stations and MRT files, if there are any.
fn monitors(reply: &Value) -> String {
    let mut table = Table::new(&[
        ("MONITOR", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Left),
        ("MESSAGES", Align::Right),
        ("LOST", Align::Right),
        ("FAILURES", Align::Right),
        ("LAST ERROR", Align::Left),
    ]);
    let stations = list(reply, "stations").iter();
    let name = |s| format!("bmp {} port {}", text(s, "address"), text(s, "port"));
    let mut all: Vec<_> = stations.map(|station| (name(station), station)).collect();
    if let Some(files) = reply.get("mrt").and_then(Value::as_object) {
        let name = |kind: &str, file| format!("mrt {kind} {}", text(file, "target"));
        all.extend(files.iter().map(|(kind, file)| (name(kind, file), file)));
    }
    if all.is_empty() {
        return String::new();
    }
    for (name, monitor) in all {
        let fields = [
            "state",
            "since",
            "messages",
            "lost",
            "failures",
            "lastError",
        ];
        let fields = fields.map(|field| text(monitor, field).into());
        table.row(std::iter::once(name.into()).chain(fields));
    }
    format!("\n{}", lines(&table))
}

fn neighbors(reply: &Value) -> String {
    let mut out = String::new();
    for neighbor in list(reply, "neighbors") {
        out += &format!("{}\n", text(neighbor, "address"));
        if let Value::Object(fields) = neighbor {
            describe(fields, 1, &mut out);
        }
        out.push('\n');
    }
    out
}

/// A field a line, groups indented.
fn describe(fields: &Map<String, Value>, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    for (key, value) in fields {
        match value {
            Value::Null => {}
            Value::Object(group) => {
                *out += &format!("{indent}{key}:\n");
                describe(group, depth + 1, out);
            }
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(plain).collect();
                *out += &format!("{indent}{key}: {}\n", items.join(", "));
            }
            value => *out += &format!("{indent}{key}: {}\n", plain(value)),
        }
    }
}

fn rib(reply: &Value) -> String {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("PREFIX", Align::Left),
        ("NEXT HOP", Align::Left),
        ("FROM", Align::Left),
        ("PREF", Align::Right),
        ("MED", Align::Right),
        ("AS PATH", Align::Left),
        ("COMMUNITIES", Align::Left),
    ]);
    for route in list(reply, "routes") {
        let own = route.get("peer").is_none_or(Value::is_null);
        let communities: Vec<_> = ["communities", "largeCommunities", "extendedCommunities"]
            .iter()
            .flat_map(|field| list(route, field))
            .map(plain)
            .collect();
        table.row([
            mark(route).into(),
            text(route, "prefix").into(),
            text(route, "nextHop").into(),
            if own {
                "here".into()
            } else {
                text(route, "peer").into()
            },
            text(route, "localPref").into(),
            text(route, "med").into(),
            text(route, "asPath").into(),
            communities.join(" ").into(),
        ]);
    }
    lines(&table)
        + "\n> best, = equal for multipath, ! not eligible, s stale, S long-lived stale (RFC 9494)\n"
}

/// Sorts IPv4 before IPv6, then by address and length.
fn prefix_key(route: &Value) -> Option<(std::net::IpAddr, u8)> {
    let (address, length) = route.get("prefix")?.as_str()?.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok()?))
}

fn lines(table: &Table) -> String {
    let lines = table.render(Screen::plain());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn mark(route: &Value) -> String {
    let is = |field: &str| route.get(field).and_then(Value::as_bool) == Some(true);
    let choice = match () {
        () if is("best") => ">",
        () if is("multipath") => "=",
        () if route.get("accepted").and_then(Value::as_bool) == Some(false) => "!",
        () => "",
    };
    let age = match () {
        () if is("longLivedStale") => "S",
        () if is("stale") => "s",
        () => "",
    };
    format!("{choice}{age}")
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    let items = value.get(field).and_then(Value::as_array);
    items.map_or(&[], Vec::as_slice)
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).map_or_else(String::new, plain)
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(key, value)| format!("{key} {}", plain(value)))
                .collect();
            fields.join(" ")
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_a_line_for_each_neighbor() {
        let reply = json!({ "asn": 65000, "routerId": "10.0.0.1", "neighbors": [
            { "address": "10.0.0.2", "name": "tor", "asn": 65001, "state": "Established", "since": "2026-01-01T00:00:00Z",
              "prefixesReceived": 3, "prefixesAccepted": 2, "prefixesSent": 1, "flaps": 0, "lastError": null },
        ]});
        let shown = summary(&reply);
        assert!(
            shown.starts_with("AS 65000, router id 10.0.0.1\n"),
            "{shown}"
        );
        let line = shown.lines().find(|line| line.contains("tor")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "10.0.0.2",
                "tor",
                "65001",
                "Established",
                "2026-01-01T00:00:00Z",
                "3",
                "2",
                "1",
                "0"
            ]
        );
    }

    #[test]
    fn monitors_have_a_line_each() {
        let reply = json!({
            "stations": [{ "address": "10.0.0.9", "port": 11019, "state": "waiting", "messages": 4, "lost": 0,
                           "failures": 2, "lastError": "refused" }],
            "mrt": { "updates": { "state": "up", "target": "/var/log/updates.mrt", "messages": 7 } },
        });
        let shown = monitors(&reply);
        assert!(shown.contains("bmp 10.0.0.9 port 11019"), "{shown}");
        assert!(shown.contains("refused"), "{shown}");
        assert!(
            shown.contains("mrt updates /var/log/updates.mrt"),
            "{shown}"
        );
        assert_eq!(monitors(&json!({ "neighbors": [] })), "");
    }

    #[test]
    fn paths_are_marked() {
        for (route, expected) in [
            (json!({ "best": true, "multipath": true }), ">"),
            (json!({ "best": false, "multipath": true }), "="),
            (
                json!({ "best": false, "multipath": false, "accepted": false }),
                "!",
            ),
            (
                json!({ "best": false, "multipath": false, "accepted": true }),
                "",
            ),
            (json!({ "best": true, "stale": true }), ">s"),
            (
                json!({ "best": true, "stale": true, "longLivedStale": true }),
                ">S",
            ),
        ] {
            assert_eq!(mark(&route), expected, "{route}");
        }
    }

    #[test]
    fn one_neighbor_is_found_by_name_or_address() {
        let reply = json!({ "neighbors": [{ "address": "10.0.0.2", "name": "a" }, { "address": "10.0.0.3", "name": "b" }] });
        for wanted in ["b", "10.0.0.3"] {
            let found = only(reply.clone(), Some(wanted)).ok().unwrap();
            assert_eq!(list(&found, "neighbors").len(), 1);
        }
        assert_eq!(only(reply, Some("c")).err().unwrap().code, 2);
    }
}
