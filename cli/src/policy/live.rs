//! What the agent on this node has seen: denied and logged packets, and what rules have counted, by its admin socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use margay_e2e::lab::report::{Align, Screen, Table};
use serde_json::{Value, json};

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the agent is asked for more.
const EVERY: Duration = Duration::from_millis(500);

/// Which agent to ask.
#[derive(Debug, Args)]
pub(super) struct Agent {
    /// The agent's admin socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/var/run/margay/admin.sock"
    )]
    socket: PathBuf,
}

impl Agent {
    fn ask(&self, request: &Value) -> Result<Value, String> {
        let path = self.socket.display();
        let failed = |error: std::io::Error| {
            format!("{path}: {error}: is the agent running on this node, and are you root?")
        };
        let mut stream = UnixStream::connect(&self.socket).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream
            .write_all(format!("{request}\n").as_bytes())
            .map_err(failed)?;
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .map_err(failed)?;
        let answer: Value = serde_json::from_str(&line)
            .map_err(|error| format!("{path}: not an agent's answer: {error}"))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(format!("{path}: {error}")),
            None => Ok(answer),
        }
    }
}

/// The packets, and with `follow` those to come, which it prints itself.
pub(super) fn denials(agent: &Agent, follow: bool, as_json: bool) -> Result<String, String> {
    let mut answer = agent.ask(&json!({"query": "denials"}))?;
    let write = |answer: &Value| match as_json {
        true => lines(answer),
        false => list(answer).iter().map(sentence).collect(),
    };
    if !follow {
        return Ok(match as_json {
            true => lines(&answer),
            false => table(&answer),
        });
    }
    loop {
        let mut out = std::io::stdout().lock();
        // Nobody reads any more.
        if out
            .write_all(write(&answer).as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            return Ok(String::new());
        }
        drop(out);
        let shown = list(&answer).last().and_then(|one| one["number"].as_u64());
        let last = shown.or(answer["last"].as_u64()).unwrap_or_default();
        std::thread::sleep(EVERY);
        answer = agent.ask(&json!({"query": "denials", "after": last}))?;
        // A new agent counts from 1.
        if answer["last"].as_u64().unwrap_or_default() < last {
            answer = agent.ask(&json!({"query": "denials"}))?;
        }
    }
}

fn list(answer: &Value) -> &[Value] {
    answer["denials"].as_array().map_or(&[], Vec::as_slice)
}

fn lines(answer: &Value) -> String {
    list(answer).iter().map(|one| format!("{one}\n")).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn end(end: &Value) -> String {
    let name = end["endpoint"].as_str().or(end["address"].as_str());
    let name = name.unwrap_or_default();
    match end["port"].as_u64() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    }
}

/// The policy and the rule.
fn by(denial: &Value) -> (String, String) {
    let by = &denial["by"];
    if by.is_null() {
        return ("-".to_owned(), "no policy".to_owned());
    }
    (policy(by), text(by, "rule").to_owned())
}

fn policy(rule: &Value) -> String {
    let (kind, namespace, name) = (
        text(rule, "kind"),
        text(rule, "namespace"),
        text(rule, "name"),
    );
    match namespace.is_empty() {
        true => format!("{kind} {name}"),
        false => format!("{kind} {namespace}/{name}"),
    }
}

fn sentence(denial: &Value) -> String {
    let (policy, rule) = by(denial);
    format!(
        "{} {} {} {} -> {} by {policy} {rule}\n",
        text(denial, "time"),
        text(denial, "verdict"),
        text(denial, "protocol"),
        end(&denial["from"]),
        end(&denial["to"]),
    )
}

fn table(answer: &Value) -> String {
    let heads = [
        "TIME", "VERDICT", "PROTOCOL", "FROM", "TO", "POLICY", "RULE",
    ];
    let mut table = Table::new(&heads.map(|head| (head, Align::Left)));
    for denial in list(answer) {
        let (policy, rule) = by(denial);
        table.row([
            text(denial, "time").into(),
            text(denial, "verdict").into(),
            text(denial, "protocol").into(),
            end(&denial["from"]).into(),
            end(&denial["to"]).into(),
            policy.into(),
            rule.into(),
        ]);
    }
    let mut text = render(&table);
    if let Some(lost @ 1..) = answer["lost"].as_u64() {
        text.push_str(&format!(
            "{lost} more were lost because there were too many at once; `margayctl policy counters` counts all\n"
        ));
    }
    text
}

fn render(table: &Table) -> String {
    let lines = table.render(Screen::plain());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What rules have counted.
pub(super) fn counters(agent: &Agent, as_json: bool) -> Result<String, String> {
    let answer = agent.ask(&json!({"query": "counters"}))?;
    if as_json {
        return Ok(format!("{answer}\n"));
    }
    let left = |head| (head, Align::Left);
    let right = |head| (head, Align::Right);
    let mut table = Table::new(&[
        left("TIER"),
        left("POLICY"),
        left("RULE"),
        left("ACTION"),
        right("PACKETS"),
        right("BYTES"),
    ]);
    let counters = answer["counters"].as_array().map_or(&[][..], Vec::as_slice);
    for rule in counters {
        let staged = rule["staged"].as_bool().unwrap_or_default();
        let action = text(rule, "action");
        let action = match staged {
            true => format!("{action} (staged)"),
            false => action.to_owned(),
        };
        let number = |field: &str| rule[field].as_u64().unwrap_or_default().to_string();
        table.row([
            text(rule, "tier").into(),
            policy(rule).into(),
            text(rule, "rule").into(),
            action.into(),
            number("packets").into(),
            number("bytes").into(),
        ]);
    }
    Ok(render(&table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_told_in_a_line() {
        let denial = json!({
            "number": 1, "time": "2026-01-01T00:00:00Z", "verdict": "deny", "protocol": "TCP",
            "from": {"address": "10.0.0.1", "port": 40000, "endpoint": "shop/web"},
            "to": {"address": "192.0.2.1", "port": 5432},
            "by": {"kind": "NetworkPolicy", "namespace": "shop", "name": "db", "rule": "egress"},
        });
        assert_eq!(
            sentence(&denial),
            "2026-01-01T00:00:00Z deny TCP shop/web:40000 -> 192.0.2.1:5432 by NetworkPolicy shop/db egress\n"
        );
        let answer = json!({"denials": [denial], "last": 1, "lost": 4});
        let text = table(&answer);
        assert!(
            text.contains("shop/web:40000") && text.contains("4 more were lost"),
            "{text}"
        );
    }
}
