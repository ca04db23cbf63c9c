//! A part of a whole, drawn in characters.

/// How many characters a bar has.
const WIDTH: usize = 20;
/// The eighths of a character (Unicode block elements).
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// A bar and the figure, such as `█████▌              ▏ 27.5 %`. A part that is not nothing is
/// never drawn as nothing.
pub(super) fn bar(fraction: f64) -> String {
    let fraction = fraction.clamp(0.0, 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "from 0 to 160"
    )]
    let eighths = (fraction * (WIDTH * 8) as f64).floor() as usize;
    let eighths = if fraction > 0.0 { eighths.max(1) } else { 0 };
    let mut text = "█".repeat(eighths / 8);
    let rest = EIGHTHS.get(eighths % 8).copied().unwrap_or(' ');
    if eighths / 8 < WIDTH {
        text.push(rest);
    }
    let missing = WIDTH.saturating_sub(text.chars().count());
    let figure = match fraction * 100.0 {
        percent if percent > 0.0 && percent < 0.05 => "<0.1".to_owned(),
        percent => format!("{percent:.1}"),
    };
    format!("{text}{}▏{figure:>5} %", " ".repeat(missing))
}

/// A number of addresses: a power of two where it is too long to be read.
pub(super) fn count(number: u64) -> String {
    match number {
        u64::MAX => "≥2^64".to_owned(),
        large if large >= 1 << 32 && large.is_power_of_two() => format!("2^{}", large.ilog2()),
        large if large >= 1 << 32 => format!("~2^{}", large.ilog2()),
        small => small.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let cases = [
            (0.0, "                    ▏  0.0 %"),
            (0.000_01, "▏                   ▏ <0.1 %"),
            (0.275, "█████▌              ▏ 27.5 %"),
            (1.0, "████████████████████▏100.0 %"),
            (7.0, "████████████████████▏100.0 %"),
        ];
        for (fraction, expected) in cases {
            assert_eq!(bar(fraction), expected);
        }
    }

    #[test]
    fn large_numbers() {
        let cases = [
            (65_536, "65536"),
            (1 << 48, "2^48"),
            ((1 << 48) - 3, "~2^47"),
            (u64::MAX, "≥2^64"),
        ];
        for (number, expected) in cases {
            assert_eq!(count(number), expected);
        }
    }
}
