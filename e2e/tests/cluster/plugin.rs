//! The plugin called as a runtime calls it: what it says when all is well, and the codes of the
//! specification when it is not.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use margay_e2e::cluster::machine::Machine;
use margay_e2e::cluster::workload;
use margay_e2e::cluster::{Cluster, helm};
use margay_e2e::lab::command::finish;
use margay_e2e::lab::objects;
use margay_e2e::lab::patience::patience;
use serde_json::{Value, json};

use crate::steps;

/// The codes of the specification (section "Error") that a runtime acts on.
const INVALID_CONFIG: i64 = 7;
const TRY_AGAIN: i64 = 11;
const NOT_AVAILABLE: i64 = 50;

/// One call: on which machine, for which container.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub machine: &'a Machine,
    /// The name of the pod in the namespace `default`, and of its network namespace.
    pub pod: &'a str,
}

/// What came of a call: what was printed, or the error's code and message.
pub type Outcome = Result<Value, (i64, String)>;

impl Call<'_> {
    /// Executes a plugin.
    ///
    /// # Errors
    /// When it cannot be executed, or fails without an error object.
    pub fn run(
        self,
        plugin: &str,
        verb: &str,
        interface: &str,
        config: &Value,
    ) -> anyhow::Result<Outcome> {
        let mut command: Command = self.machine.command("env");
        command.args([
            &format!("CNI_COMMAND={verb}"),
            "CNI_PATH=/opt/cni/bin",
            &format!("CNI_CONTAINERID={}0001", self.pod),
            &format!("CNI_NETNS=/run/netns/{}", self.pod),
            &format!("CNI_IFNAME={interface}"),
            &format!(
                "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}",
                self.pod
            ),
            &format!("/opt/cni/bin/{plugin}"),
        ]);
        let output = finish(command, Some(config.to_string().as_bytes()), patience(20))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let value: Value = serde_json::from_str(&said).unwrap_or(Value::Null);
        if output.status.success() {
            return Ok(Ok(value));
        }
        let Some(code) = value["code"].as_i64() else {
            bail!(
                "{plugin} {verb} failed without an error object: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        Ok(Err((code, said)))
    }

    /// The same, for what must succeed.
    ///
    /// # Errors
    /// Also when the plugin says so.
    pub fn must(
        self,
        plugin: &str,
        verb: &str,
        interface: &str,
        config: &Value,
    ) -> anyhow::Result<Value> {
        match self.run(plugin, verb, interface, config)? {
            Ok(value) => Ok(value),
            Err((_, said)) => bail!("{plugin} {verb}: {said}"),
        }
    }

    fn ours(self, verb: &str, config: &Value) -> anyhow::Result<Outcome> {
        self.run("margay-cni", verb, "eth0", config)
    }
}

fn expect_code(what: &str, outcome: &Outcome, code: i64) -> anyhow::Result<()> {
    match outcome {
        Err((seen, _)) if *seen == code => Ok(()),
        other => bail!("{what}: {other:?} instead of code {code}"),
    }
}

/// STATUS with an agent that is ready, without an agent, and again with one; ADD with a wrong
/// configuration, and at a moment at which there is no agent.
pub async fn codes(cluster: &Cluster) -> anyhow::Result<String> {
    const POD: &str = "status";
    let machine = &cluster.nodes[0].machine;
    let call = Call { machine, pod: POD };
    let good = json!({"cniVersion": "1.1.0", "name": "margay", "type": "margay-cni"});
    let status = call.ours("STATUS", &good)?;
    ensure!(
        status == Ok(Value::Null),
        "STATUS with an agent that is ready: {status:?}"
    );

    // Nobody schedules it, so that this test plays its runtime.
    let pods: Api<Pod> = Api::namespaced(cluster.client().await?, workload::NAMESPACE);
    let object = json!({
        "metadata": {"name": POD},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "x", "image": "x"}]},
    });
    objects::ensure(&pods, object).await?;
    machine.run("ip", &["netns", "add", POD])?;
    let mut wrong = good.clone();
    wrong["mtu"] = json!(100);
    expect_code(
        "ADD with an MTU of 100",
        &call.ours("ADD", &wrong)?,
        INVALID_CONFIG,
    )?;
    wrong["mtu"] = json!("many");
    expect_code(
        "ADD with an MTU that is no number",
        &call.ours("ADD", &wrong)?,
        INVALID_CONFIG,
    )?;

    let said = without_agent(cluster, call, &good).await?;
    machine.run("ip", &["netns", "delete", POD])?;
    pods.delete(POD, &DeleteParams::default().grace_period(0))
        .await?;
    Ok(said)
}

/// The node's agent ends, and until the next is ready STATUS and ADD say that it is not.
async fn without_agent(
    cluster: &Cluster,
    call: Call<'_>,
    config: &Value,
) -> anyhow::Result<String> {
    let agents: Api<Pod> = Api::namespaced(cluster.client().await?, helm::NAMESPACE);
    let ours = ListParams::default().labels("app.kubernetes.io/component=agent");
    let ours = agents.list(&ours).await?;
    let agent = ours.iter().find(|pod| {
        let spec = pod.spec.as_ref();
        spec.and_then(|spec| spec.node_name.as_deref()) == Some(call.machine.name.as_str())
    });
    let agent = agent.context("a node without an agent")?.name_any();
    agents.delete(&agent, &DeleteParams::default()).await?;

    let limit = Instant::now() + patience(60);
    let refused = loop {
        match call.ours("STATUS", config)? {
            Ok(_) if Instant::now() > limit => bail!("STATUS was never refused"),
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            refused => break refused,
        }
    };
    expect_code("STATUS without an agent", &refused, NOT_AVAILABLE)?;
    // It is a race with the next agent: an ADD that it wins is undone.
    let add = call.ours("ADD", config)?;
    if add.is_err() {
        expect_code("ADD without an agent", &add, TRY_AGAIN)?;
    }
    let mut absent = config.clone();
    absent["socket"] = json!("/run/margay/nobody.sock");
    let add_to_nobody = call.ours("ADD", &absent)?;
    expect_code("ADD where nobody listens", &add_to_nobody, TRY_AGAIN)?;
    let del = call.ours("DEL", config)?;
    ensure!(
        del.is_ok(),
        "DEL must succeed whatever the agent does: {del:?}"
    );

    steps::agents_ready(cluster).await?;
    let limit = Instant::now() + patience(30);
    while let Err(refused) = call.ours("STATUS", config)? {
        expect_code("STATUS", &Err(refused.clone()), NOT_AVAILABLE)?;
        ensure!(
            Instant::now() < limit,
            "STATUS stays refused: {}",
            refused.1
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let added = call.ours("ADD", config)?;
    ensure!(
        added.is_ok(),
        "ADD as soon as STATUS says yes again: {added:?}"
    );
    call.must("margay-cni", "DEL", "eth0", config)?;
    let first = match add {
        Ok(_) => "ADD was faster than the agent's end",
        Err(_) => "ADD 11",
    };
    Ok(format!("STATUS 50, {first}, wrong configuration 7"))
}
