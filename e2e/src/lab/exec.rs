//! `margayctl lab exec NAME -- COMMAND`: a command inside a machine or pod.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::command::start_error;
use super::error::LabError;
use super::namespaces;
use super::state::Folder;

/// Becomes the command, in the network namespace of a machine or pod. Returns only on failure.
///
/// Must be called before any other thread exists: the calling thread moves.
pub fn exec(lab: &str, name: &str, command: &[OsString]) -> LabError {
    match prepare(lab, name) {
        Err(error) => error,
        Ok(()) => {
            let Some((program, arguments)) = command.split_first() else {
                return LabError::Spec {
                    field: "exec",
                    message: "needs a command after --".to_owned(),
                };
            };
            let source = Command::new(program).args(arguments).exec();
            start_error(&program.to_string_lossy())(source)
        }
    }
}

fn prepare(lab: &str, name: &str) -> Result<(), LabError> {
    super::up::require_root()?;
    let state = Folder::of(lab)
        .read()?
        .ok_or_else(|| LabError::NotRunning {
            name: lab.to_owned(),
        })?;
    let plan = state.spec.plan()?;
    let mut known = plan.machines();
    let is_machine = known.iter().any(|machine| machine == name);
    known.extend(state.pods.iter().map(|pod| pod.name.clone()));
    if !known.iter().any(|one| one == name) {
        return Err(LabError::Unknown {
            name: name.to_owned(),
            known: known.join(", "),
        });
    }
    let namespace = if is_machine {
        plan.namespace(name)
    } else {
        plan.pod_namespace(name)
    };
    namespaces::enter(&namespace)
}
