//! Counts, bytes and seconds as a person reads them: three digits and a unit.

/// 1,234,567 as "1.23 M".
pub fn human_count(number: usize) -> String {
    scaled(number as f64, &["", " k", " M", " G", " T"])
}

/// 16,381,470,720 bytes as "16.4 GB"; a kB is 1000 bytes.
pub fn human_bytes(number: u64) -> String {
    scaled(number as f64, &[" B", " kB", " MB", " GB", " TB"])
}

/// Seconds as "42 ms", "61.0 s", "10 min" or "2.5 h".
pub fn human_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", 1000.0 * s),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn scaled(number: f64, units: &[&str]) -> String {
    let mut number = number;
    let mut index = 0;
    while number >= 999.5 && index + 1 < units.len() {
        number /= 1000.0;
        index += 1;
    }
    let digits = if index == 0 || number >= 99.5 {
        0
    } else if number >= 9.95 {
        1
    } else {
        2
    };
    format!("{number:.digits$}{}", units[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_a_person_reads_them() {
        let check = |found: String, expected: &str| assert_eq!(found, expected);
        check(human_count(999), "999");
        check(human_count(1_103_232), "1.10 M");
        check(human_bytes(16_381_470_720), "16.4 GB");
        check(human_bytes(999_600), "1.00 MB");
        check(human_bytes(150_800_000_000), "151 GB");
        check(human_seconds(0.0421), "42 ms");
        check(human_seconds(61.0), "61.0 s");
        check(human_seconds(600.0), "10 min");
        check(human_seconds(9000.0), "2.5 h");
    }
}
