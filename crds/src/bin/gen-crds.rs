//! Writes the CRD manifests, the chart's copies of them, and in the chart's schema what objects in
//! values may hold; or with `--check` says which are stale (exit 1).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

fn main() -> ExitCode {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            eprintln!("gen-crds: unknown argument {other}: the only one is --check");
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(stale) => {
            eprintln!("gen-crds: {stale} stale: run make generate");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("gen-crds: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Holds the schema of the chart's values; what is not under `$defs` is written by hand.
const SCHEMA: &str = "charts/margay/values.schema.json";

fn run(check: bool) -> Result<usize, String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut stale = 0;
    let mut files = vec![(SCHEMA.to_owned(), values_schema(&root)?)];
    for crd in margay_crds::manifests::all() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let wanted = margay_crds::manifests::yaml(&crd)?;
        // Helm packs no file from outside a chart's folder.
        for folder in ["crds/manifests", "charts/margay/crds"] {
            files.push((format!("{folder}/{name}.yaml"), wanted.clone()));
        }
    }
    for (file, wanted) in files {
        let path = root.join(&file);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
            continue;
        }
        stale += 1;
        if check {
            eprintln!("gen-crds: {file} differs from the types");
        } else {
            std::fs::write(&path, &wanted).map_err(|error| format!("{file}: {error}"))?;
            println!("wrote {file}");
        }
    }
    Ok(if check { stale } else { 0 })
}

/// The schema as it stands, with the objects that it names as the types have them.
fn values_schema(root: &Path) -> Result<String, String> {
    let wrong = |error: String| format!("{SCHEMA}: {error}");
    let text = std::fs::read_to_string(root.join(SCHEMA));
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let mut schema: Value =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let Some(Value::Object(definitions)) = schema.get_mut("$defs") else {
        return Err(wrong("has no $defs".to_owned()));
    };
    let crds = margay_crds::manifests::all();
    for (kind, definition) in definitions {
        let ours = |crd: &&CustomResourceDefinition| {
            crd.spec.names.kind == *kind && crd.spec.group == "margay.dev"
        };
        let crd = crds.iter().find(ours);
        *definition = crd
            .and_then(margay_crds::manifests::spec_schema)
            .ok_or_else(|| wrong(format!("$defs.{kind}: there is no such kind")))?;
    }
    let text = serde_json::to_string_pretty(&schema).map_err(|error| wrong(error.to_string()))?;
    Ok(text + "\n")
}
