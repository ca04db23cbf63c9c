//! Writes the CRD manifests, and the chart's copies of them, or with `--check` says which are stale
//! (exit 1).

use std::path::PathBuf;
use std::process::ExitCode;

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

fn run(check: bool) -> Result<usize, String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut stale = 0;
    for crd in margay_crds::manifests::all() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let wanted = margay_crds::manifests::yaml(&crd)?;
        // Helm packs no file from outside a chart's folder.
        for folder in ["crds/manifests", "charts/margay/crds"] {
            let file = format!("{folder}/{name}.yaml");
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
    }
    Ok(if check { stale } else { 0 })
}
