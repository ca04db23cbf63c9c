//! The CNI plugin `margay-cni`: see the library for what it does.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let look_up = |name: &str| std::env::var(name).ok();
    let output = margay_cni::plugin::run(look_up, std::io::stdin().lock());
    if let Some(log) = output.log {
        // Nothing can be done about a log that nobody takes.
        let _ = writeln!(std::io::stderr(), "margay-cni: {log}");
    }
    if let Some(json) = output.json
        && writeln!(std::io::stdout(), "{json}").is_err()
    {
        return ExitCode::FAILURE;
    }
    ExitCode::from(output.code)
}
