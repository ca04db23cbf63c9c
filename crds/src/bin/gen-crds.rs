//! Writes the CRD manifests, or with `--check` says which are stale (exit 1).

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
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let mut stale = 0;
    for crd in margay_crds::manifests::all() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let path = folder.join(format!("{name}.yaml"));
        let wanted = margay_crds::manifests::yaml(&crd)?;
        if std::fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
            continue;
        }
        stale += 1;
        if check {
            eprintln!("gen-crds: {name}.yaml differs from the types");
        } else {
            std::fs::write(&path, wanted).map_err(|error| format!("{name}.yaml: {error}"))?;
            println!("wrote crds/manifests/{name}.yaml");
        }
    }
    Ok(if check { stale } else { 0 })
}
