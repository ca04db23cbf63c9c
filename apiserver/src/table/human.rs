//! Ages as kubectl prints them: at most two units, coarser as they grow.

use k8s_openapi::jiff::Timestamp;

/// The time from `then` to `now`, such as `45s`, `5m30s`, `3h2m`, `4d`, `2y3d`.
pub fn duration(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, sub: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{sub}"),
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        for (ago, expected) in [
            (-10, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (3600, "60m"),
            (10_920, "3h2m"),
            (30_000, "8h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (63_158_400, "2y1d"),
            (400_000_000, "12y"),
        ] {
            let then = Timestamp::from_second(now.as_second() - ago).unwrap();
            assert_eq!(duration(then, now), expected, "{ago}");
        }
    }
}
