//! A number in few columns: three figures that count, and an exponent only where nothing else would do.

/// The number as text, at most eight columns wide: `0.731`, `12.4`, `184`, `1.5e-5`, `nan`.
pub fn amount(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value.is_nan() => "nan".to_owned(),
        _ if !value.is_finite() => if value > 0.0 { "inf" } else { "-inf" }.to_owned(),
        0.0 => "0".to_owned(),
        // What rounding leaves of a sum that is nought.
        _ if size < 1e-12 => "~0".to_owned(),
        _ if !(0.000_95..999_950.0).contains(&size) => {
            let text = format!("{value:.1e}");
            text.replace(".0e", "e")
        }
        _ if size < 0.1 => trimmed(format!("{value:.4}")),
        _ if size < 9.9995 => trimmed(format!("{value:.3}")),
        _ if size < 99.95 => trimmed(format!("{value:.1}")),
        _ => format!("{value:.0}"),
    }
}

/// A share as per cent: `97 %`, and one more figure below ten: `2.5 %`.
pub fn percent(share: f64) -> String {
    let value = 100.0 * share;
    match value.is_finite() {
        false => "nan %".to_owned(),
        true if value.abs() < 9.95 && (value - value.round()).abs() >= 0.05 => format!("{value:.1} %"),
        true => format!("{value:.0} %"),
    }
}

/// Seconds as a person says them: `24 ms`, `0.4 s`, `12 s`, `3 m 20 s`, `1 h 26 m`, `2 d 3 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".to_owned();
    }
    if seconds > 0.0 && seconds < 0.0995 {
        return format!("{:.0} ms", (seconds * 1000.0).max(1.0));
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} m {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

fn trimmed(text: String) -> String {
    let short = text.trim_end_matches('0').trim_end_matches('.');
    short.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let check = |value: f64, expected: &str| assert_eq!(amount(value), expected, "{value}");
        check(0.0, "0");
        check(1.0, "1");
        check(0.7312, "0.731");
        check(0.02314, "0.0231");
        check(-2.4749, "-2.475");
        check(12.44, "12.4");
        check(9800.0, "9800");
        check(1.5e-5, "1.5e-5");
        check(-1.4e-17, "~0");
        check(2e9, "2e9");
        check(f64::NAN, "nan");
        check(f64::NEG_INFINITY, "-inf");
    }

    #[test]
    fn shares_and_times() {
        for (share, expected) in [(0.0, "0 %"), (0.025, "2.5 %"), (0.03, "3 %"), (0.9721, "97 %"), (f64::NAN, "nan %")] {
            assert_eq!(percent(share), expected);
        }
        for (seconds, expected) in [
            (0.0, "0.0 s"),
            (0.0002, "1 ms"),
            (0.0241, "24 ms"),
            (0.0998, "0.1 s"),
            (0.42, "0.4 s"),
            (12.4, "12 s"),
            (200.0, "3 m 20 s"),
            (5160.0, "1 h 26 m"),
            (90_000.0, "1 d 1 h"),
            (f64::INFINITY, "-"),
            (-1.0, "-"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
