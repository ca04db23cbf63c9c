//! A small lab with its objects on the real server, for tests that need pods and packets.

use std::path::PathBuf;

use margay_e2e::lab::report::Screen;
use margay_e2e::lab::state::{Folder, Lock};
use margay_e2e::lab::up::{self, Cluster, Lab, Options};
use margay_e2e::lab::{LabSpec, demo, down};

use super::same::programs;

/// The lab, which ends with this.
pub(crate) struct SmallLab {
    pub(crate) lab: Lab,
    pub(crate) cluster: Cluster,
    _ending: Ending,
    _lock: Lock,
}

struct Ending(Folder);

impl Drop for Ending {
    fn drop(&mut self) {
        let logs = match std::thread::panicking() {
            true => down::Logs::Keep,
            false => down::Logs::Remove,
        };
        down::after_failure(&self.0, logs, Screen::plain().silenced());
    }
}

impl SmallLab {
    /// Two nodes and a BIRD ToR, once their routes have settled.
    pub(crate) async fn build(name: &str, kubeconfig: PathBuf) -> Self {
        let options = Options {
            spec: LabSpec::segment(name, 2),
            binaries: Some(programs()),
            datastore: Some(kubeconfig),
            underlay_only: false,
        };
        let screen = Screen::plain().silenced();
        let (lock, plan) = up::prepare(&options, screen).unwrap();
        let ending = Ending(Folder::of(name));
        let lab = up::build(&options, plan, screen).await.unwrap();
        let cluster = lab.cluster.clone().unwrap();
        let settled = demo::wait_until_settled(&lab, &cluster, screen).await;
        settled.unwrap();
        Self {
            lab,
            cluster,
            _ending: ending,
            _lock: lock,
        }
    }
}
