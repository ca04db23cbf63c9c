//! `margay install-crds`: the kinds, as this program knows them.
//!
//! Helm makes what lies in a chart's `crds/` at the first installation and never touches it again,
//! so an upgrade runs this before anything else. Kinds of other groups than our own are made where
//! they are missing, and left as they are where somebody else has brought them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames,
};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use crate::datastore;

/// The group of our own kinds.
const GROUP: &str = "margay.dev";
/// How long a kind may take until it is served.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often a kind that somebody else writes at the same time is tried.
const TRIES: usize = 5;

/// `margay install-crds`: makes or updates the kinds.
#[derive(Debug, Clone, clap::Args)]
pub struct InstallCrdsOptions {
    /// The API server, as a kubeconfig file; without it, as a pod in its cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// Makes or updates each kind, and waits until all are served.
///
/// # Errors
/// A kind that the API server refuses, by name; one that is not served in time.
pub async fn install_crds(options: InstallCrdsOptions) -> anyhow::Result<()> {
    let client = datastore::client(options.kubeconfig.as_deref()).await?;
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let wanted = margay_crds::manifests::all();
    for crd in &wanted {
        let name = crd.name_any();
        bring(&api, crd)
            .await
            .with_context(|| format!("CustomResourceDefinition {name}"))?;
    }
    let limit = Instant::now() + PATIENCE;
    for crd in &wanted {
        let name = crd.name_any();
        while !is_served(&api.get(&name).await?) {
            anyhow::ensure!(
                Instant::now() < limit,
                "CustomResourceDefinition {name} is not served after {} s",
                PATIENCE.as_secs()
            );
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

async fn bring(
    api: &Api<CustomResourceDefinition>,
    wanted: &CustomResourceDefinition,
) -> anyhow::Result<()> {
    let name = wanted.name_any();
    let params = PostParams::default();
    for _ in 0..TRIES {
        let written = match api.get_opt(&name).await? {
            None => api.create(&params, wanted).await.map(|_| "made"),
            Some(found) => match updated(&found, wanted) {
                None => Ok("as it should be"),
                Some(update) => api
                    .replace(&name, &params, &update)
                    .await
                    .map(|_| "updated"),
            },
        };
        match written {
            Ok(what) => {
                tracing::info!("CustomResourceDefinition {name}: {what}");
                return Ok(());
            }
            // Somebody else was faster: what they wrote is looked at.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("somebody else writes it all the time")
}

/// What `found` should become: everything that others wrote beside the definition stays.
fn updated(
    found: &CustomResourceDefinition,
    wanted: &CustomResourceDefinition,
) -> Option<CustomResourceDefinition> {
    if wanted.spec.group != GROUP {
        return None;
    }
    let mut update = found.clone();
    update.spec = wanted.spec.clone();
    // What the server filled in, and a webhook of somebody's, is none of our business.
    update.spec.conversion.clone_from(&found.spec.conversion);
    update.spec.names = names(found, wanted);
    if !wanted.annotations().is_empty() {
        let annotations = wanted.annotations().clone();
        update.annotations_mut().extend(annotations);
    }
    (update != *found).then_some(update)
}

/// The names as wanted, with what the server fills in where we leave it open.
fn names(
    found: &CustomResourceDefinition,
    wanted: &CustomResourceDefinition,
) -> CustomResourceDefinitionNames {
    let mut names = wanted.spec.names.clone();
    let known = &found.spec.names;
    names.list_kind = names.list_kind.or_else(|| known.list_kind.clone());
    names.singular = names.singular.or_else(|| known.singular.clone());
    names
}

fn is_served(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.iter().flat_map(|status| &status.conditions);
    let mut all = conditions.flatten();
    all.any(|one| one.type_ == "Established" && one.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<CustomResourceDefinition> {
        margay_crds::manifests::all()
    }

    #[test]
    fn a_kind_as_it_should_be_is_left_alone() {
        for crd in all() {
            assert!(updated(&crd, &crd).is_none(), "{}", crd.name_any());
        }
    }

    #[test]
    fn an_older_kind_is_updated_and_what_others_wrote_stays() {
        let wanted = all().remove(0);
        let mut found = wanted.clone();
        found.spec.versions[0].additional_printer_columns = None;
        found.metadata.resource_version = Some("7".to_owned());
        found
            .labels_mut()
            .insert("theirs".to_owned(), "x".to_owned());
        let update = updated(&found, &wanted).unwrap();
        assert_eq!(update.spec.versions, wanted.spec.versions);
        assert_eq!(update.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(update.labels()["theirs"], "x");
    }

    #[test]
    fn a_kind_of_another_group_is_its_owners() {
        let wanted = all()
            .into_iter()
            .find(|crd| crd.spec.group != GROUP)
            .unwrap();
        let mut found = wanted.clone();
        found.spec.versions.clear();
        assert!(updated(&found, &wanted).is_none());
    }
}
