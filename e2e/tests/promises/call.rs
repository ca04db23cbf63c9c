//! The plugin called word by word, for what a well-behaved runtime would not do.

use std::process::Command;
use std::time::{Duration, Instant};

use margay_e2e::lab::cni::{Plugin, Sandbox};
use margay_e2e::lab::command::finish;
use margay_e2e::lab::namespaces;
use margay_e2e::lab::patience::patience;
use margay_e2e::lab::spec::POD_NAMESPACE;
use serde_json::{Value, json};

/// One call of the plugin.
#[derive(Debug, Clone)]
pub struct Call {
    pub plugin: Plugin,
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
    pub pod: String,
    pub version: String,
    pub previous: Option<Value>,
}

/// What it said.
#[derive(Debug)]
pub struct Answer {
    pub ok: bool,
    pub json: Value,
    pub took: Duration,
}

impl Call {
    /// A call for a sandbox, as the runtime would make it.
    pub fn new(plugin: Plugin, sandbox: &Sandbox) -> Self {
        Self {
            plugin,
            container_id: sandbox.container_id.clone(),
            netns: namespaces::path(&sandbox.namespace).display().to_string(),
            ifname: "eth0".to_owned(),
            pod: sandbox.pod.clone(),
            version: "1.1.0".to_owned(),
            previous: None,
        }
    }

    pub fn run(&self, verb: &str) -> Answer {
        let Self {
            pod, container_id, ..
        } = self;
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={POD_NAMESPACE};K8S_POD_NAME={pod};\
             K8S_POD_INFRA_CONTAINER_ID={container_id}"
        );
        let mut command = Command::new(&self.plugin.program);
        command
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_CONTAINERID", container_id)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", &self.ifname)
            .env("CNI_ARGS", arguments);
        let mut config = self.plugin.config(&self.version);
        if let Some(previous) = &self.previous {
            config["prevResult"] = previous.clone();
        }
        let config = config.to_string();
        let start = Instant::now();
        let output = namespaces::inside(&self.plugin.node, || {
            finish(command, Some(config.as_bytes()), patience(60))
        })
        .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        Answer {
            ok: output.status.success(),
            json: serde_json::from_str(&text).unwrap_or(json!(null)),
            took: start.elapsed(),
        }
    }
}

impl Answer {
    /// The result of a call that must have gone well.
    pub fn result(self) -> Value {
        assert!(self.ok, "{self:?}");
        self.json
    }

    /// The code of a call that must have failed.
    pub fn code(&self) -> u64 {
        assert!(!self.ok, "{self:?}");
        self.json["code"].as_u64().unwrap()
    }

    /// The words of an error.
    pub fn words(&self) -> String {
        let word = |field: &str| self.json[field].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", word("msg"), word("details"))
    }

    /// The first address of a result.
    pub fn address(&self) -> String {
        assert!(self.ok, "{self:?}");
        self.json["ips"][0]["address"].as_str().unwrap().to_owned()
    }
}

impl Call {
    /// The name of the pod's namespace for `ip`.
    pub fn netns_name(&self) -> String {
        self.netns.rsplit('/').next().unwrap().to_owned()
    }
}
