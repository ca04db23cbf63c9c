//! `margayctl ipam split`: the steps of [`margay_ipam::split`] on an API server.

use std::time::{Duration, Instant};

use clap::Args;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use margay_crds::{BLOCKS_FINALIZER, IPPool};
use margay_ipam::split::{SPLIT_FROM, halves};

use super::cluster::list;
use super::{Answer, Whom};

/// How often it is looked whether the pool is gone.
const LOOK: Duration = Duration::from_millis(250);
/// How long the controller may take to let the pool go.
const PATIENCE: Duration = Duration::from_secs(60);
/// The annotations by which pods and namespaces name pools: ours and Calico's.
const NAMING: [&str; 4] = [
    "margay.dev/ipv4pools",
    "margay.dev/ipv6pools",
    "cni.projectcalico.org/ipv4pools",
    "cni.projectcalico.org/ipv6pools",
];

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    whom: Whom,
    /// The IPPool's name
    pool: String,
    /// Although pods or namespaces name the pool in an annotation: new pods that do so wait
    /// until the annotation names a half
    #[arg(long)]
    force: bool,
    /// Only shows the two pools that would be made
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(options: Options) -> Result<Answer, String> {
    let client = options.whom.client().await?;
    let pools: Api<IPPool> = Api::all(client.clone());
    let name = &options.pool;
    let Some(pool) = pools
        .get_opt(name)
        .await
        .map_err(|error| of(name, &error))?
    else {
        return resume(&pools, name).await;
    };
    let halves = halves(&pool).map_err(|error| error.to_string())?;
    if options.dry_run {
        let texts: Result<Vec<String>, String> = halves.iter().map(super::json).collect();
        return Ok(Answer::well(texts?.concat()));
    }
    if !options.force {
        ensure_unnamed(&client, name).await?;
    }
    let mut text = String::new();
    for half in &halves {
        make(&pools, half).await?;
        let name = half.name_any();
        text.push_str(&format!("IPPool {name} ({}) made\n", half.spec.cidr));
    }
    // Of this very pool, not of one that somebody made meanwhile by its name.
    let parameters = DeleteParams::default().preconditions(Preconditions {
        uid: pool.metadata.uid.clone(),
        resource_version: None,
    });
    let deleted = pools.delete(name, &parameters).await;
    deleted.map_err(|error| of(name, &error))?;
    wait(&pools, &pool).await?;
    let blocks = "its blocks are the halves' now, and every address stays where it is";
    text.push_str(&format!("IPPool {name} is gone; {blocks}\n"));
    Ok(Answer::well(text))
}

fn of(name: &str, error: &kube::Error) -> String {
    format!("IPPool {name}: {error}")
}

/// A split that was stopped at its very end leaves the halves and no pool.
async fn resume(pools: &Api<IPPool>, name: &str) -> Result<Answer, String> {
    let half = pools.get_opt(&format!("{name}-0")).await;
    let half = half.map_err(|error| of(name, &error))?;
    let from = half.and_then(|half| half.annotations().get(SPLIT_FROM).cloned());
    if from.as_deref() == Some(name) {
        let text = format!("IPPool {name} has been split already: {name}-0 and {name}-1\n");
        return Ok(Answer::well(text));
    }
    Err(format!("IPPool {name}: there is none of this name"))
}

/// Makes a half, or finds it made by an earlier try.
async fn make(pools: &Api<IPPool>, half: &IPPool) -> Result<(), String> {
    let name = half.name_any();
    match pools.create(&PostParams::default(), half).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let there = pools.get(&name).await.map_err(|error| of(&name, &error))?;
            if there.spec == half.spec {
                return Ok(());
            }
            Err(format!(
                "IPPool {name} is there already and says something else: rename or delete it, \
                 then split again; nothing has changed yet"
            ))
        }
        Err(error) => Err(of(&name, &error)),
    }
}

async fn ensure_unnamed(client: &Client, name: &str) -> Result<(), String> {
    let mut naming = Vec::new();
    for pod in list::<Pod>(client, "Pods").await? {
        if names(&pod, name) {
            let namespace = pod.namespace().unwrap_or_default();
            naming.push(format!("Pod {namespace}/{}", pod.name_any()));
        }
    }
    for namespace in list::<Namespace>(client, "Namespaces").await? {
        if names(&namespace, name) {
            naming.push(format!("Namespace {}", namespace.name_any()));
        }
    }
    if naming.is_empty() {
        return Ok(());
    }
    let shown: Vec<&str> = naming.iter().take(5).map(String::as_str).collect();
    Err(format!(
        "IPPool {name} is named by an annotation of {} objects ({}): name {name}-0 or {name}-1 \
         there too, or --force",
        naming.len(),
        shown.join(", ")
    ))
}

/// Whether an annotation names the pool: a JSON list of names.
fn names<K: Resource>(object: &K, pool: &str) -> bool {
    let quoted = format!("\"{pool}\"");
    let annotations = object.annotations();
    NAMING.iter().any(|key| {
        let value = annotations.get(*key);
        value.is_some_and(|value| value.contains(&quoted))
    })
}

/// Waits until the finalizer has let the pool go.
async fn wait(pools: &Api<IPPool>, pool: &IPPool) -> Result<(), String> {
    let name = pool.name_any();
    let start = Instant::now();
    loop {
        let now = pools
            .get_opt(&name)
            .await
            .map_err(|error| of(&name, &error))?;
        if now.is_none_or(|now| now.metadata.uid != pool.metadata.uid) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(format!(
                "IPPool {name}: its halves are made and it is being deleted, but its finalizer \
                 {BLOCKS_FINALIZER} is still there after {} seconds: is a controller running \
                 (margay controller)? Until it has done its part the nodes claim no new blocks \
                 from this range",
                PATIENCE.as_secs()
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_name_pools() {
        let pod = |key: &str, value: &str| {
            let mut pod = Pod::default();
            pod.annotations_mut().insert(key.into(), value.into());
            pod
        };
        assert!(names(&pod(NAMING[0], r#"["web", "db"]"#), "web"));
        assert!(!names(&pod(NAMING[2], r#"["web-0"]"#), "web"));
        assert!(!names(&pod("other", r#"["web"]"#), "web"));
    }
}
