//! How long the lab waits for things, and the one way it waits: for a condition, with a deadline.
//!
//! `MARGAY_LAB_SLOW` multiplies every deadline, for a machine without hardware virtualisation;
//! inside `scripts/vm.sh` (`MARGAY_VM=1`) the factor is 10 unless it is given.

use std::path::Path;
use std::time::{Duration, Instant};

use super::error::LabError;

/// How often a condition is looked at that nothing announces.
const POLL: Duration = Duration::from_millis(25);

/// A deadline of so many seconds on an ordinary machine.
pub fn patience(seconds: u32) -> Duration {
    Duration::from_secs(1).mul_f64(f64::from(seconds) * slowness())
}

/// The factor by which this machine is slower than an ordinary one, 1 to 1000.
pub fn slowness() -> f64 {
    match std::env::var("MARGAY_LAB_SLOW") {
        Ok(factor) => parse_slowness(Some(&factor)),
        Err(_) if std::env::var_os("MARGAY_VM").is_some() => 10.0,
        Err(_) => parse_slowness(None),
    }
}

fn parse_slowness(text: Option<&str>) -> f64 {
    let factor = text.and_then(|text| text.trim().parse::<f64>().ok());
    factor
        .filter(|f| f.is_finite())
        .map_or(1.0, |f| f.clamp(1.0, 1000.0))
}

/// Polls `look` until it gives a value; what it says otherwise is what the error tells.
///
/// # Errors
/// [`LabError::Deadline`] when the time is over.
pub async fn until<T, F>(
    what: &str,
    limit: Duration,
    logs: &Path,
    mut look: impl FnMut() -> F,
) -> Result<T, LabError>
where
    F: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        let seen = match look().await {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if start.elapsed() >= limit {
            return Err(LabError::Deadline {
                what: what.to_owned(),
                waited: limit,
                seen,
                logs: logs.to_owned(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The same for code that may not await.
///
/// # Errors
/// [`LabError::Deadline`] when the time is over.
pub fn until_blocking<T>(
    what: &str,
    limit: Duration,
    logs: &Path,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, LabError> {
    let start = Instant::now();
    loop {
        let seen = match look() {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if start.elapsed() >= limit {
            return Err(LabError::Deadline {
                what: what.to_owned(),
                waited: limit,
                seen,
                logs: logs.to_owned(),
            });
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowness_is_bounded() {
        for (text, wanted) in [
            (None, 1.0),
            (Some("10"), 10.0),
            (Some("0.1"), 1.0),
            (Some("nan"), 1.0),
            (Some("1e9"), 1000.0),
            (Some("fast"), 1.0),
        ] {
            assert!((parse_slowness(text) - wanted).abs() < 1e-9, "{text:?}");
        }
    }

    #[test]
    fn a_missed_deadline_says_what_was_seen() {
        let error = until_blocking("rain", Duration::ZERO, Path::new("/logs"), || {
            Err::<(), _>("sun".to_owned())
        });
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("rain") && text.contains("sun") && text.contains("/logs"),
            "{text}"
        );
    }
}
