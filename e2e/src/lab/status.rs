//! `margayctl lab status`: what of a lab runs.

use super::error::LabError;
use super::process;
use super::report::{Align, Cell, Screen, Table, Tone};
use super::state::{Folder, Phase, State};

/// Prints what the lab consists of; whether all of it runs.
///
/// # Errors
/// When there is no such lab.
pub fn status(name: &str, screen: Screen) -> Result<bool, LabError> {
    let folder = Folder::of(name);
    let Some(state) = folder.read()? else {
        return Err(LabError::NotRunning {
            name: name.to_owned(),
        });
    };
    let spec = &state.spec;
    let phase = match state.phase {
        Phase::Running => "running",
        Phase::Starting => "being built or shown (or ended badly: then `lab up` clears it away)",
    };
    screen.line(&format!(
        "lab {name}: {phase}; {} nodes, {} segments, {}",
        spec.nodes,
        spec.segments,
        spec.tor.words()
    ));
    screen.line(&format!("kubeconfig {}", folder.kubeconfig().display()));
    screen.line(&format!("logs       {}", folder.logs().display()));
    screen.line("");
    processes(&state).print(screen);
    if !state.pods.is_empty() {
        screen.line("");
        pods(&state).print(screen);
    }
    Ok(state.alive().count() == state.processes.len())
}

fn processes(state: &State) -> Table {
    let mut table = Table::new(&[
        ("process", Align::Left),
        ("pid", Align::Right),
        ("state", Align::Left),
        ("memory", Align::Right),
        ("namespace", Align::Left),
    ]);
    let here = state.is_of_this_boot();
    for record in &state.processes {
        let alive = here && process::is_alive(record);
        let memory = process::resident_kib(record.pid).filter(|_| alive);
        table.row([
            record.name.as_str().into(),
            record.pid.to_string().into(),
            if alive {
                Cell::new(Tone::Good, "runs")
            } else {
                Cell::new(Tone::Bad, "ended")
            },
            memory.map_or(String::new(), mebibytes).into(),
            Cell::new(Tone::Dim, &record.namespace),
        ]);
    }
    table
}

/// KiB as people read them.
pub fn mebibytes(kib: u64) -> String {
    let tenths = kib * 10 / 1024;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn pods(state: &State) -> Table {
    let mut table = Table::new(&[
        ("pod", Align::Left),
        ("node", Align::Left),
        ("address", Align::Left),
    ]);
    for pod in &state.pods {
        let address = pod
            .address
            .map_or("none yet".to_owned(), |address| address.to_string());
        table.row([
            pod.name.as_str().into(),
            pod.node.as_str().into(),
            address.into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_readable() {
        assert_eq!(mebibytes(0), "0.0 MiB");
        assert_eq!(mebibytes(12_698), "12.4 MiB");
    }
}
