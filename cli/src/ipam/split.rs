//! `margayctl ipam split`: the steps of [`margay_ipam::split`] on an API server.

use std::time::{Duration, Instant};

use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use margay_crds::{BLOCKS_FINALIZER, IPPool, IPPoolSpec};
use margay_ipam::Timestamp;
use margay_ipam::split::{ENABLE, SPLIT_FROM, halves};
use serde_json::json;

use super::cluster::list;
use super::{Answer, Whom};

/// How often it is looked whether the pool is gone.
const LOOK: Duration = Duration::from_millis(250);
/// How long the controller may take to let the pool go.
const PATIENCE: Duration = Duration::from_secs(60);
/// The Lease that the controller which leads keeps.
const CONTROLLER_LEASE: &str = "margay-controller";
/// A Lease that was renewed so many seconds ago has a controller behind it: it renews every two,
/// and the clocks may differ.
const ALIVE: i64 = 30;
/// The annotations by which pods and namespaces name pools: ours and Calico's.
const NAMING: [&str; 4] = [
    "margay.dev/ipv4-pools",
    "margay.dev/ipv6-pools",
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
    /// Where the controller's Lease is
    #[arg(long, value_name = "NAME", default_value = "margay-system")]
    controller_namespace: String,
    /// Only shows the two pools that would be made
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(options: Options) -> Result<Answer, String> {
    let client = options.whom.client().await?;
    let pools: Api<IPPool> = Api::all(client.clone());
    let name = &options.pool;
    let found = pools
        .get_opt(name)
        .await
        .map_err(|error| of(name, &error))?;
    let going = |pool: &IPPool| pool.metadata.deletion_timestamp.is_some();
    let mut text = String::new();
    let pool = match found {
        Some(pool) if !going(&pool) => {
            let halves = halves(&pool).map_err(|error| error.to_string())?;
            if options.dry_run {
                let texts: Result<Vec<String>, String> = halves.iter().map(super::json).collect();
                return Ok(Answer::well(texts?.concat()));
            }
            if !options.force {
                ensure_unnamed(&client, &pool).await?;
            }
            ensure_controller(&client, &pool, &options.controller_namespace).await?;
            for half in &halves {
                make(&pools, half).await?;
                let name = half.name_any();
                text.push_str(&format!("IPPool {name} ({}) made\n", half.spec.cidr));
            }
            delete(&pools, &pool).await?;
            Some(pool)
        }
        // An earlier try came this far.
        other => other,
    };
    for index in 0..2 {
        enable(&pools, name, &format!("{name}-{index}")).await?;
    }
    if let Some(pool) = pool {
        wait(&pools, &pool).await?;
    }
    let blocks = "its blocks are the halves' now, and every address stays where it is";
    text.push_str(&format!("IPPool {name} is gone; {blocks}\n"));
    Ok(Answer::well(text))
}

fn of(name: &str, error: &kube::Error) -> String {
    format!("IPPool {name}: {}", super::words(error))
}

/// The finalizer is the controller's to take away: without one the pool would stay half deleted,
/// and nobody would get new blocks of it.
async fn ensure_controller(client: &Client, pool: &IPPool, namespace: &str) -> Result<(), String> {
    if !pool.finalizers().iter().any(|one| one == BLOCKS_FINALIZER) {
        return Ok(());
    }
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = leases.get_opt(CONTROLLER_LEASE).await;
    let lease = lease.map_err(|error| {
        format!(
            "Lease {namespace}/{CONTROLLER_LEASE}: {}",
            super::words(&error)
        )
    })?;
    let spec = lease.and_then(|lease| lease.spec);
    let renewed = spec.and_then(|spec| spec.renew_time.zip(spec.holder_identity));
    let alive = renewed.is_some_and(|(at, holder)| {
        let age = Timestamp::now().duration_since(at.0).as_secs();
        !holder.is_empty() && age.abs() < ALIVE
    });
    if alive {
        return Ok(());
    }
    Err(format!(
        "no controller is running (Lease {namespace}/{CONTROLLER_LEASE}), and IPPool {} waits \
         for one by its finalizer: start margay controller; nothing has changed yet",
        pool.name_any()
    ))
}

/// Deletes this very pool, not one that somebody made meanwhile by its name.
async fn delete(pools: &Api<IPPool>, pool: &IPPool) -> Result<(), String> {
    let name = pool.name_any();
    let parameters = DeleteParams::default().preconditions(Preconditions {
        uid: pool.metadata.uid.clone(),
        resource_version: None,
    });
    let deleted = pools.delete(&name, &parameters).await;
    deleted.map(drop).map_err(|error| of(&name, &error))
}

/// Takes a half into use, if it is one and waits for that.
async fn enable(pools: &Api<IPPool>, from: &str, name: &str) -> Result<(), String> {
    let half = pools
        .get_opt(name)
        .await
        .map_err(|error| of(name, &error))?;
    let half =
        half.filter(|half| half.annotations().get(SPLIT_FROM).map(String::as_str) == Some(from));
    let Some(half) = half else {
        return Err(format!(
            "IPPool {from}: there is none of this name, and no half of it ({name}) either"
        ));
    };
    if !half.annotations().contains_key(ENABLE) {
        return Ok(());
    }
    let patch = json!({
        "metadata": {"annotations": {ENABLE: null}},
        "spec": {"disabled": false},
    });
    let parameters = PatchParams::default();
    let patched = pools.patch(name, &parameters, &Patch::Merge(patch)).await;
    patched.map(drop).map_err(|error| of(name, &error))
}

/// Makes a half, or finds it made by an earlier try.
async fn make(pools: &Api<IPPool>, half: &IPPool) -> Result<(), String> {
    let name = half.name_any();
    match pools.create(&PostParams::default(), half).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let there = pools.get(&name).await.map_err(|error| of(&name, &error))?;
            // Enabled already, or not yet.
            let same = IPPoolSpec {
                disabled: half.spec.disabled,
                ..there.spec
            };
            if same == half.spec {
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

async fn ensure_unnamed(client: &Client, pool: &IPPool) -> Result<(), String> {
    let mut naming = Vec::new();
    for pod in list::<Pod>(client, "Pods").await? {
        if names(&pod, pool) {
            let namespace = pod.namespace().unwrap_or_default();
            naming.push(format!("Pod {namespace}/{}", pod.name_any()));
        }
    }
    for namespace in list::<Namespace>(client, "Namespaces").await? {
        if names(&namespace, pool) {
            naming.push(format!("Namespace {}", namespace.name_any()));
        }
    }
    if naming.is_empty() {
        return Ok(());
    }
    let name = pool.name_any();
    let shown: Vec<&str> = naming.iter().take(5).map(String::as_str).collect();
    Err(format!(
        "IPPool {name} is named by an annotation of {} objects ({}): name {name}-0 or {name}-1 \
         there too, or --force",
        naming.len(),
        shown.join(", ")
    ))
}

/// Whether an annotation names the pool, by name or CIDR: in a JSON list, or between commas.
fn names<K: Resource>(object: &K, pool: &IPPool) -> bool {
    let annotations = object.annotations();
    let values = NAMING.iter().filter_map(|key| annotations.get(*key));
    let outside = |c: char| !(c.is_ascii_alphanumeric() || "-./:".contains(c));
    let mut words = values.flat_map(|value| value.split(outside));
    words.any(|word| word == pool.name_any() || word == pool.spec.cidr)
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
        let spec = serde_json::from_value(json!({"cidr": "10.0.0.0/16"})).unwrap();
        let web = IPPool::new("web", spec);
        assert!(names(&pod(NAMING[2], r#"["web", "db"]"#), &web));
        assert!(names(&pod(NAMING[0], "db, web"), &web));
        assert!(names(&pod(NAMING[0], "10.0.0.0/16"), &web));
        assert!(!names(&pod(NAMING[2], r#"["web-0"]"#), &web));
        assert!(!names(&pod("other", r#"["web"]"#), &web));
    }
}
