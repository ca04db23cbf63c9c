//! What can go wrong in the lab, in words that say what to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Any failure of the lab.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The lab was asked for with values that make no lab.
    #[error("{field}: {message}")]
    Spec {
        /// The flag.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// The caller may not make network namespaces.
    #[error(
        "the lab makes network namespaces and needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run it as root"
    )]
    NotRoot,
    /// A lab of this name is up.
    #[error(
        "lab {name} is running: end it with `margayctl lab down --name {name}`, or start another with --name"
    )]
    Running {
        /// The lab.
        name: String,
    },
    /// There is no lab of this name.
    #[error("lab {name} is not running: start it with `margayctl lab up --name {name}`")]
    NotRunning {
        /// The lab.
        name: String,
    },
    /// Another margayctl has the lab in hand.
    #[error("lab {name} is in the hands of another margayctl (process {owner})")]
    Busy {
        /// The lab.
        name: String,
        /// That process, if it said so.
        owner: String,
    },
    /// A file or folder could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried, such as `cannot write`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}{hint}")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
        /// Where the program comes from.
        hint: &'static str,
    },
    /// A program ended badly.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// A program did not end in time.
    #[error("`{command}` was still running after {waited:?}")]
    Hung {
        /// The command line.
        command: String,
        /// How long it had.
        waited: Duration,
    },
    /// A program said something that is not understood.
    #[error("the answer of {program} is not understood: {message}")]
    Answer {
        /// The program.
        program: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A namespace could not be entered.
    #[error("cannot enter network namespace {namespace}: {source}")]
    Namespace {
        /// Which.
        namespace: String,
        /// Why not.
        source: io::Error,
    },
    /// A namespace of that name is there already and not the lab's.
    #[error(
        "network namespace {namespace} exists already and no lab has made it: remove it (`ip netns delete {namespace}`) or choose another --name"
    )]
    Taken {
        /// Which.
        namespace: String,
    },
    /// A thread of the lab ended without an answer.
    #[error("a thread that worked in {namespace} died")]
    Thread {
        /// Where it worked.
        namespace: String,
    },
    /// The state file says something this version does not understand.
    #[error("{} is not a lab's state file: {message}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The store refused something.
    #[error("the store did not {action}: {source}")]
    Store {
        /// What it was asked, such as `create IPPool default`.
        action: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// The kubeconfig is unusable.
    #[error("{}: {message}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The CNI plugin answered with an error, or with nothing understandable.
    #[error("CNI {command} for pod {pod}: {message}")]
    Cni {
        /// The CNI command.
        command: &'static str,
        /// The pod.
        pod: String,
        /// What the plugin said.
        message: String,
    },
    /// Something that should have become true did not.
    #[error("waited {waited:?} for {what}; seen instead: {seen} (logs: {})", logs.display())]
    Deadline {
        /// The condition.
        what: String,
        /// How long.
        waited: Duration,
        /// What was there instead.
        seen: String,
        /// Where to look.
        logs: PathBuf,
    },
    /// A process of the lab ended when it should run.
    #[error("{name} ended at once: {tail} (log: {})", log.display())]
    Died {
        /// The process.
        name: String,
        /// The end of its log.
        tail: String,
        /// Its log.
        log: PathBuf,
    },
    /// No such node, router or pod.
    #[error("nothing in the lab is called {name}: there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Several things of a teardown failed; the rest was done.
    #[error("some of lab {name} is left: {problems}")]
    Leftovers {
        /// The lab.
        name: String,
        /// What and why, joined.
        problems: String,
    },
}

impl LabError {
    /// For `map_err` on file operations.
    pub(crate) fn file(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> LabError {
        let path = path.as_ref().to_owned();
        move |source| LabError::File {
            action,
            path,
            source,
        }
    }

    /// For `map_err` on requests to the store.
    pub(crate) fn store(action: impl Into<String>) -> impl FnOnce(kube::Error) -> LabError {
        let action = action.into();
        move |source| LabError::Store {
            action,
            source: Box::new(source),
        }
    }
}
