//! How fast and how small: the figures under "How good", measured in this very lab.

use std::time::Duration;

use super::checks::Checks;
use crate::lab::bench::{Figures, measure};
use crate::lab::error::LabError;
use crate::lab::report::{Screen, Step};
use crate::lab::up::{Cluster, Lab};

/// How often each thing is measured here; `lab bench` lets people choose.
const REPEATS: usize = 11;

pub(super) async fn show(
    lab: &mut Lab,
    cluster: &Cluster,
    checks: &mut Checks,
    screen: Screen,
) -> Result<(), LabError> {
    screen.title("Figures");
    let step = Step::begin(screen, "measuring");
    let figures: Figures = match measure(lab, cluster, REPEATS).await {
        Ok(figures) => figures,
        Err(LabError::Deadline {
            what, waited, seen, ..
        }) => {
            step.failed();
            checks.that(&what, false, &format!("within {waited:?}"), &seen);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    step.done("measured");
    figures.table().print(screen);
    Ok(())
}

/// A time as people read it.
pub(in crate::lab) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
