//! Files: their names, and how one takes the place of another.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(super) use crate::speaker::daemon::rfc3339;

/// In a path: the time, as in `20260102T030405Z`.
pub const TIME: &str = "{time}";

/// Whether a path has [`TIME`] in it.
#[must_use]
pub fn has_time(path: &Path) -> bool {
    path.to_string_lossy().contains(TIME)
}

/// The path of a file that is begun at this time.
pub(super) fn at(path: &Path, time: SystemTime) -> PathBuf {
    match path.to_str() {
        Some(text) if text.contains(TIME) => {
            let time: String = rfc3339(time)
                .chars()
                .filter(|character| !matches!(character, '-' | ':'))
                .collect();
            text.replace(TIME, &time).into()
        }
        _ => path.to_owned(),
    }
}

/// What went wrong with a file, for people.
pub(super) fn problem(path: &Path, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "; its directory must exist",
        std::io::ErrorKind::PermissionDenied => "; its directory must be writable for the speaker",
        _ => "",
    };
    format!("{}: {error}{hint}", path.display())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_in_a_name() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        let path = Path::new("/x/updates.{time}.mrt");
        assert!(has_time(path));
        assert_eq!(at(path, time), Path::new("/x/updates.20260102T030405Z.mrt"));
        assert_eq!(at(Path::new("/x/y"), time), Path::new("/x/y"));
    }
}
