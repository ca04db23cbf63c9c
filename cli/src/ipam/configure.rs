//! `margayctl ipam configure`.

use clap::Args;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use margay_crds::field::join;
use margay_crds::{DEFAULT_NAME, IPAMConfiguration, IPAMConfigurationSpec};
use serde_json::{Map, Value, json};

use super::{Answer, Output, Whom};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    whom: Whom,
    /// Whether a node gives addresses of its own blocks only
    #[arg(long, value_name = "true|false")]
    strict_affinity: Option<bool>,
    /// Whether nodes claim blocks by themselves; false needs strict affinity
    #[arg(long, value_name = "true|false")]
    auto_allocate_blocks: Option<bool>,
    /// How many blocks of a family a node may hold; 0 is no limit
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    max_blocks_per_host: Option<u32>,
    /// Seconds for which a released address is not given again
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=1200))]
    cooldown: Option<u32>,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Options {
    /// The fields that are to change.
    fn wanted(&self) -> Map<String, Value> {
        let fields = [
            ("strictAffinity", self.strict_affinity.map(Value::from)),
            (
                "autoAllocateBlocks",
                self.auto_allocate_blocks.map(Value::from),
            ),
            (
                "maxBlocksPerHost",
                self.max_blocks_per_host.map(Value::from),
            ),
            ("ipCooldownSeconds", self.cooldown.map(Value::from)),
        ];
        let set = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        set.collect()
    }
}

pub(super) async fn run(options: Options) -> Result<Answer, String> {
    let client = options.whom.client().await?;
    let api: Api<IPAMConfiguration> = Api::all(client);
    let of =
        |error: kube::Error| format!("IPAMConfiguration {DEFAULT_NAME}: {}", super::words(&error));
    let wanted = options.wanted();
    let standing = api.get_opt(DEFAULT_NAME).await.map_err(of)?;
    let (standing, is_there) = match standing {
        Some(object) => (object, true),
        None => (IPAMConfiguration::new(DEFAULT_NAME, defaults()?), false),
    };
    if wanted.is_empty() {
        let text = show(&standing.spec, is_there, options.output)?;
        return Ok(Answer::well(text));
    }
    let merged = merged(&standing, &wanted)?;
    let stored = if is_there {
        let patch = Patch::Merge(json!({ "spec": wanted }));
        let parameters = PatchParams::default();
        api.patch(DEFAULT_NAME, &parameters, &patch).await
    } else {
        api.create(&PostParams::default(), &merged).await
    };
    let stored = stored.map_err(of)?;
    Ok(Answer::well(show(&stored.spec, true, options.output)?))
}

fn defaults() -> Result<IPAMConfigurationSpec, String> {
    serde_json::from_value(json!({})).map_err(|error| error.to_string())
}

/// What it will be, checked here too: a server before 1.25 drops the rules.
fn merged(
    standing: &IPAMConfiguration,
    wanted: &Map<String, Value>,
) -> Result<IPAMConfiguration, String> {
    let mut spec = serde_json::to_value(&standing.spec).map_err(|error| error.to_string())?;
    if let Some(fields) = spec.as_object_mut() {
        fields.extend(wanted.clone());
    }
    let spec = serde_json::from_value(spec).map_err(|error| error.to_string())?;
    let merged = IPAMConfiguration::new(DEFAULT_NAME, spec);
    match merged.check() {
        Ok(_) => Ok(merged),
        Err(errors) => Err(join(&errors)),
    }
}

fn show(spec: &IPAMConfigurationSpec, is_there: bool, output: Output) -> Result<String, String> {
    if output == Output::Json {
        return super::json(spec);
    }
    let limit = match spec.max_blocks_per_host {
        0 => "no limit".to_owned(),
        limit => limit.to_string(),
    };
    let note = if is_there {
        ""
    } else {
        "(there is no IPAMConfiguration default: these are the defaults)\n"
    };
    Ok(format!(
        "strict affinity       {}\nauto-allocate blocks  {}\nmax blocks per host   {limit}\n\
         cooldown              {} s\n{note}",
        spec.strict_affinity, spec.auto_allocate_blocks, spec.ip_cooldown_seconds
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_merged_and_checked() {
        let standing = IPAMConfiguration::new(DEFAULT_NAME, defaults().unwrap());
        let wanted = |json: Value| json.as_object().unwrap().clone();
        let merged_with = |json| merged(&standing, &wanted(json));
        let spec = merged_with(json!({"ipCooldownSeconds": 30})).unwrap().spec;
        assert_eq!(
            (spec.ip_cooldown_seconds, spec.strict_affinity),
            (30, false)
        );
        assert!(show(&spec, true, Output::Table).unwrap().contains("30 s"));
        let error = merged_with(json!({"autoAllocateBlocks": false})).unwrap_err();
        assert!(error.contains("strictAffinity"), "{error}");
    }
}
