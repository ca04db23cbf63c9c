//! The commands: from environment and standard input to what is printed and the exit code.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{self, ClientError};
use crate::config::{MAX_CONFIG, NetworkConfig};
use crate::environment::{self, Environment};
use crate::error::{CniError, Code};
use crate::journal;
use crate::protocol::{Command, Reply, Request};
use crate::result::CniResult;
use crate::version::Version;

/// What the process prints and how it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// For standard output; nothing if `None`.
    pub json: Option<Value>,
    /// For standard error, where runtimes collect logs.
    pub log: Option<String>,
    /// The exit code: 0, or 1 with an error object in `json`.
    pub code: u8,
}

/// What a command that succeeded has to say.
#[derive(Debug, Default)]
struct Success {
    json: Option<Value>,
    log: Option<String>,
}

/// Runs the plugin: `look_up` is the environment, `input` is standard input.
pub fn run(look_up: impl Fn(&str) -> Option<String>, input: impl Read) -> Output {
    // The version in which errors are reported is known only once the input is read.
    let mut version = Version::NEWEST;
    match execute(look_up, input, &mut version) {
        Ok(success) => Output {
            json: success.json,
            log: success.log,
            code: 0,
        },
        Err(error) => Output {
            json: Some(json!({
                "cniVersion": version.as_str(),
                "code": error.code,
                "msg": error.msg,
                "details": error.details,
            })),
            log: Some(error.to_string()),
            code: 1,
        },
    }
}

fn execute(
    look_up: impl Fn(&str) -> Option<String>,
    input: impl Read,
    version: &mut Version,
) -> Result<Success, CniError> {
    let command = environment::command(&look_up)?;
    let text = read_bounded(input)?;
    if command == Command::Version {
        return print_versions(&text);
    }
    let environment = Environment::read(command, look_up);
    let (mut config, configured) = NetworkConfig::parse(&text)?;
    *version = configured;
    let environment = environment?;
    config.check()?;
    check_command(command, configured)?;
    let previous = config.prev_result.take();
    let previous = previous.filter(|value| !value.is_null());
    let previous = previous.as_ref().map(CniResult::parse).transpose()?;
    if command == Command::Check && previous.is_none() {
        return Err(CniError::new(
            Code::INVALID_CONFIG,
            "network configuration's prevResult is missing: CHECK compares with it",
        ));
    }
    let request = Request {
        command,
        container_id: environment.container_id,
        netns: environment.netns,
        ifname: environment.ifname,
        args: environment.args,
        prev_result: previous
            .as_ref()
            .map(|result| result.to_version(Version::NEWEST)),
        config,
    };
    match command {
        Command::Add => add(&request, previous, configured),
        Command::Del => delete(&request),
        _ => ask_plainly(&request),
    }
}

fn read_bounded(input: impl Read) -> Result<Vec<u8>, CniError> {
    let mut text = Vec::new();
    let limit = u64::try_from(MAX_CONFIG).unwrap_or(u64::MAX);
    let read = input.take(limit + 1).read_to_end(&mut text);
    read.map_err(|error| {
        CniError::new(Code::IO, "standard input cannot be read").with_details(error.to_string())
    })?;
    if text.len() > MAX_CONFIG {
        return Err(CniError::new(
            Code::DECODE,
            format!("network configuration is longer than {MAX_CONFIG} bytes"),
        ));
    }
    Ok(text)
}

/// Commands that came to the specification after the version that the configuration is written
/// in are not served: their rules are not those of that version.
fn check_command(command: Command, version: Version) -> Result<(), CniError> {
    let since = match command {
        Command::Check => Version::V0_4_0,
        Command::Gc | Command::Status => Version::V1_1_0,
        _ => return Ok(()),
    };
    if version >= since {
        return Ok(());
    }
    Err(CniError::new(
        Code::INCOMPATIBLE_VERSION,
        format!(
            "cniVersion {version} has no command {}: it came with {since}",
            command.as_str()
        ),
    ))
}

fn print_versions(text: &[u8]) -> Result<Success, CniError> {
    // The runtime says in its version what it expects to read; the answer is the same in all.
    let asked = serde_json::from_slice::<Value>(text).ok();
    let asked = asked.as_ref().and_then(|value| value.get("cniVersion"));
    let known = asked.and_then(Value::as_str).and_then(Version::parse);
    let all: Vec<&str> = Version::ALL.iter().map(|one| one.as_str()).collect();
    Ok(Success {
        json: Some(json!({
            "cniVersion": known.unwrap_or(Version::NEWEST).as_str(),
            "supportedVersions": all,
        })),
        log: None,
    })
}

// ===== the commands that reach the agent =====

fn add(
    request: &Request,
    previous: Option<CniResult>,
    version: Version,
) -> Result<Success, CniError> {
    let value = send(request).map_err(|failure| failure.into_error(Code::TRY_AGAIN))?;
    let result = CniResult::parse(&value).map_err(|error| {
        CniError::new(Code::DECODE, "the agent's result is not understood")
            .with_details(error.details)
    })?;
    let result = match previous {
        Some(previous) => result.after(previous),
        None => result,
    };
    Ok(Success {
        json: Some(result.to_version(version)),
        log: None,
    })
}

/// A pod's end does not wait: without an agent the delete is written down.
fn delete(request: &Request) -> Result<Success, CniError> {
    let failure = match send(request) {
        Ok(_) => return Ok(Success::default()),
        Err(Failure::Agent(error)) => return Err(error),
        Err(Failure::Transport(failure)) => failure,
    };
    let directory = request.config.journal();
    journal::write(&directory, request)
        .map(|path| Success {
            json: None,
            log: Some(format!(
                "{failure}; the delete waits in {} until the agent is back",
                path.display()
            )),
        })
        .map_err(|error| cannot_journal(&directory, &error, &failure))
}

fn cannot_journal(directory: &Path, error: &std::io::Error, failure: &ClientError) -> CniError {
    let msg = format!(
        "cannot write the delete to {}: {error}",
        directory.display()
    );
    CniError::new(Code::IO, msg).with_details(format!("tried because of: {failure}"))
}

fn ask_plainly(request: &Request) -> Result<Success, CniError> {
    let unreachable = match request.command {
        Command::Status => Code::NOT_AVAILABLE,
        _ => Code::TRY_AGAIN,
    };
    send(request)
        .map(|_| Success::default())
        .map_err(|failure| failure.into_error(unreachable))
}

/// Why a request came to nothing.
enum Failure {
    /// The agent said no.
    Agent(CniError),
    /// The agent said nothing.
    Transport(ClientError),
}

impl Failure {
    fn into_error(self, unreachable: Code) -> CniError {
        match self {
            Self::Agent(error) => error,
            Self::Transport(error) => {
                let msg = "the Margay agent on this node does not answer";
                let way_out = "is the margay pod on this node running and ready?";
                CniError::new(unreachable, msg).with_details(format!("{error}; {way_out}"))
            }
        }
    }
}

fn send(request: &Request) -> Result<Value, Failure> {
    let seconds = match request.command {
        // Below the runtime's own limits, so that it is our message that people read.
        Command::Add => 60,
        Command::Del | Command::Check | Command::Gc => 30,
        Command::Status | Command::Version => 5,
    };
    let timeout = request.config.timeout_or(Duration::from_secs(seconds));
    match client::ask(&request.config.socket(), request, timeout) {
        Ok(Reply::Result(value)) => Ok(value),
        Ok(Reply::Error(error)) => Err(Failure::Agent(error)),
        Err(error) => Err(Failure::Transport(error)),
    }
}
