//! Where the time of a pod's start goes, by the words of containerd's log: its sandbox, in which
//! the network is made, then its container. Not here: the first packet, which is heard outside.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use margay_e2e::cluster::Cluster;

/// The moments of one pod's start on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moments {
    sandbox_asked: Timestamp,
    sandbox_made: Timestamp,
    container_started: Option<Timestamp>,
}

/// The parts of the way from a pod's creation to its first packet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stages {
    /// From the request that creates the pod until kubelet asks for its sandbox.
    pub(crate) until_kubelet: Duration,
    /// The sandbox: its first process, its namespaces, and the network's ADD.
    pub(crate) sandbox: Duration,
    /// From the sandbox until containerd says that the container was started.
    pub(crate) container: Duration,
    /// From the sandbox to the first packet: the container's start overlaps with it.
    pub(crate) packet: Duration,
}

/// The stages of pods by their uid: when each was created, and when it was first heard.
///
/// # Errors
/// A log that cannot be read, or a pod that is not in any.
pub(crate) fn of(
    cluster: &Cluster,
    pods: &[(String, Timestamp, Timestamp)],
) -> Result<Vec<Stages>> {
    let mut known = BTreeMap::new();
    for node in &cluster.nodes {
        let logs = node.logs();
        let log = logs.first().context("containerd has no log")?;
        known.extend(read(&String::from_utf8_lossy(&fs::read(log)?)));
    }
    let stages = pods.iter().map(|(uid, created, heard)| {
        let moments = known.get(uid);
        let moments = moments.with_context(|| format!("containerd knows nothing of pod {uid}"))?;
        let made = moments.sandbox_made;
        Ok(Stages {
            until_kubelet: between(*created, moments.sandbox_asked),
            sandbox: between(moments.sandbox_asked, made),
            container: between(made, moments.container_started.unwrap_or(*heard)),
            packet: between(made, *heard),
        })
    });
    stages.collect()
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The moments in a log, by the pods' uid; of a pod that was tried several times,
/// the first that came to something.
fn read(log: &str) -> BTreeMap<String, Moments> {
    let mut found: BTreeMap<String, Moments> = BTreeMap::new();
    // Sandboxes and containers, by their id, to the pod.
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for line in log.lines() {
        let Some((at, words)) = entry(line) else {
            continue;
        };
        if let Some(uid) = words.strip_prefix("RunPodSandbox for ").and_then(uid_of) {
            match id_after(words, "returns sandbox id ") {
                None => {
                    let fresh = Moments {
                        sandbox_asked: at,
                        sandbox_made: at,
                        container_started: None,
                    };
                    // A try that failed is of no interest; nor is what kubelet does to a pod that it
                    // has not yet heard to be gone.
                    let known = found.entry(uid).or_insert(fresh);
                    if known.sandbox_made == known.sandbox_asked {
                        *known = fresh;
                    }
                }
                Some(id) => {
                    if let Some(moments) = found.get_mut(&uid) {
                        moments.sandbox_made = at;
                    }
                    owners.insert(id, uid);
                }
            }
        } else if let Some(sandbox) = id_after(words, "CreateContainer within sandbox ") {
            let container = id_after(words, "returns container id ");
            if let (Some(uid), Some(container)) = (owners.get(&sandbox).cloned(), container) {
                owners.insert(container, uid);
            }
        } else if let Some(container) = id_after(words, "StartContainer for ")
            && words.ends_with("returns successfully")
            && let Some(moments) = owners.get(&container).and_then(|uid| found.get_mut(uid))
        {
            moments.container_started.get_or_insert(at);
        }
    }
    found
}

/// The time and the words of a line of logrus' text format.
fn entry(line: &str) -> Option<(Timestamp, &str)> {
    let (time, rest) = line.strip_prefix("time=\"")?.split_once('"')?;
    let (_, words) = rest.split_once("msg=\"")?;
    Some((time.parse().ok()?, words.strip_suffix('"')?))
}

fn uid_of(words: &str) -> Option<String> {
    let (uid, _) = words.split_once("Uid:")?.1.split_once(',')?;
    Some(uid.to_owned())
}

/// What is quoted after these words. Quotes within a message are escaped.
fn id_after(words: &str, before: &str) -> Option<String> {
    let (_, after) = words.split_once(before)?;
    let (id, _) = after.strip_prefix("\\\"")?.split_once("\\\"")?;
    Some(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_containerd() {
        let pod = "&PodSandboxMetadata{Name:a,Uid:u-1,Namespace:default,Attempt:0,}";
        let line = |second: &str, words: &str| {
            format!("time=\"2026-11-21T19:31:{second}Z\" level=info msg=\"{words}\"\n")
        };
        let log = [
            line("00", &format!("RunPodSandbox for {pod}")),
            "time=\"half".to_owned() + "\n",
            line("01.5", &format!("RunPodSandbox for {pod}")),
            line(
                "02",
                &format!("RunPodSandbox for {pod} returns sandbox id \\\"s1\\\""),
            ),
            line(
                "02.1",
                "CreateContainer within sandbox \\\"s1\\\" for container &ContainerMetadata{Name:web,Attempt:0,}",
            ),
            line(
                "02.2",
                "CreateContainer within sandbox \\\"s1\\\" for &ContainerMetadata{Name:web,Attempt:0,} returns container id \\\"c1\\\"",
            ),
            line("02.3", "StartContainer for \\\"c1\\\""),
            line("02.4", "StartContainer for \\\"c1\\\" returns successfully"),
            line("02.9", "StartContainer for \\\"c1\\\" returns successfully"),
            line("03", &format!("RunPodSandbox for {pod}")),
        ];
        let found = read(&log.concat());
        let moments = found["u-1"];
        let milliseconds = |from, to| between(from, to).as_millis();
        assert_eq!(
            milliseconds(moments.sandbox_asked, moments.sandbox_made),
            500
        );
        assert_eq!(
            milliseconds(moments.sandbox_made, moments.container_started.unwrap()),
            400
        );
        assert_eq!(found.len(), 1);
    }
}
