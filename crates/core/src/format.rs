//! Numbers and names as a person reads them: shares, bytes, times, counts, ids, places in a text, misspelt names. What
//! is not known is `n/a`.

use std::borrow::Borrow;

pub fn or_na<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "n/a".to_owned(), show)
}

/// Three significant digits in at most eight columns: `0.731`, `12.4`, `184`, `1.5e-5`. `nan` is a value that was
/// measured.
pub fn amount(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value.is_nan() => "nan".to_owned(),
        _ if !value.is_finite() => if value > 0.0 { "inf" } else { "-inf" }.to_owned(),
        0.0 => "0".to_owned(),
        // The rounding error of a sum that is 0.
        _ if size < 1e-12 => "~0".to_owned(),
        _ if !(0.000_95..999_950.0).contains(&size) => format!("{value:.1e}").replace(".0e", "e"),
        _ if size < 0.1 => trimmed(&format!("{value:.4}")),
        _ if size < 9.9995 => trimmed(&format!("{value:.3}")),
        _ if size < 99.95 => trimmed(&format!("{value:.1}")),
        _ => format!("{value:.0}"),
    }
}

/// `59.4%`
pub fn percent(share: f64) -> String {
    if share.is_finite() {
        format!("{:.1}%", 100.0 * share)
    } else {
        "n/a".to_owned()
    }
}

/// Two significant digits: `97%`, `2.5%`.
pub fn percent_short(share: f64) -> String {
    let value = 100.0 * share;
    match value.abs() {
        size if size < 9.95 && (value - value.round()).abs() >= 0.05 => percent(share),
        size if size.is_finite() => format!("{value:.0}%"),
        _ => "n/a".to_owned(),
    }
}

/// A probability with two decimals, or two digits of its distance from 0 or 1 where that is below
/// 0.01: `0.93`, `0.99987`.
pub fn probability(value: f64) -> String {
    let margin = value.min(1.0 - value);
    let decimals = if margin > 0.0 && margin < 0.01 {
        (1.0 - margin.log10().floor()) as usize
    } else {
        2
    };
    format!("{value:.*}", decimals.min(9))
}

/// A rate with its 95% interval: `59.4% [55.0, 63.6]`.
pub fn percent_interval(rate: f64, interval: [f64; 2]) -> String {
    format!("{} {}", percent(rate), rate_interval(interval))
}

/// The 95% interval of a rate in percent, `[55.0, 63.6]`; of several completions of one prompt there is none.
pub fn rate_interval(interval: [f64; 2]) -> String {
    match interval {
        [0.0, 1.0] => "[no interval]".to_owned(),
        [low, high] => format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high),
    }
}

/// A difference of rates in percentage points, and its 95% interval: `+40.6`, `[+36.1, +45.0]`.
pub fn points_interval(difference: f64, [low, high]: [f64; 2]) -> [String; 2] {
    [
        format!("{:+.1}", 100.0 * difference),
        format!("[{:+.1}, {:+.1}]", 100.0 * low, 100.0 * high),
    ]
}

/// `0.0300`, or `1.6e-61`; of one that is too small for a number `< 1e-300`.
pub fn p_value(p: f64) -> String {
    if p < 1e-300 {
        "< 1e-300".to_owned()
    } else if p < 1e-4 {
        format!("{p:.1e}")
    } else if p > 0.99995 {
        "1".to_owned()
    } else {
        format!("{p:.4}")
    }
}

/// `p = 0.0300`, or `p < 1e-300`.
pub fn p_equals(p: f64) -> String {
    let value = p_value(p);
    let sign = if value.starts_with('<') { "" } else { "= " };
    format!("p {sign}{value}")
}

/// Decimal units, as disks and accelerators are sold: `16.4 GB`.
pub fn bytes(number: u64) -> String {
    scaled(number as f64, &[" B", " kB", " MB", " GB", " TB"])
}

/// `1.23M`
pub fn count(number: usize) -> String {
    scaled(number as f64, &["", "k", "M", "G", "T"])
}

/// `1 step`, `12 steps`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The first `most` characters, and `…` where there are more.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The last characters of a text, `most` of them with the `…` where there are more.
pub fn shortened_start(text: &str, most: usize) -> String {
    match text.chars().count().checked_sub(most) {
        None | Some(0) => text.to_owned(),
        Some(over) => format!("…{}", text.chars().skip(over + 1).collect::<String>()),
    }
}

/// The first `most` names, and how many more there are: `a, b and 3 more`.
pub fn listed<S: Borrow<str>>(names: &[S], most: usize) -> String {
    let (shown, more) = names.split_at(names.len().min(most));
    match more.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The first of some lines, in words.
pub fn shown_lines(lines: &[usize]) -> String {
    const MAX_SHOWN: usize = 5;
    let shown: Vec<String> = lines.iter().take(MAX_SHOWN).map(usize::to_string).collect();
    let more = if lines.len() > MAX_SHOWN { ".." } else { "" };
    let word = if lines.len() == 1 { "line" } else { "lines" };
    format!("{word} {}{more}", shown.join(", "))
}

/// `1,134,240`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

/// `24 ms`, `0.4 s`, `12 s`, `3m 20s`, `1h 26m`, `2d 3h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "n/a".to_owned();
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
        60..3_600 => format!("{}m {}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h {}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// An estimate between two times: `18 to 25 min`, `40 s to 2.2 min`, `about 18 min`.
pub fn duration_range(least: f64, most: f64) -> String {
    let rounded = |seconds: f64| match seconds {
        _ if !seconds.is_finite() || seconds < 0.0 => ("n/a".to_owned(), ""),
        ..0.9995 => (format!("{:.0}", (seconds * 1000.0).max(1.0)), " ms"),
        ..9.95 => (format!("{seconds:.1}"), " s"),
        ..59.5 => (format!("{seconds:.0}"), " s"),
        ..570.0 => (format!("{:.1}", seconds / 60.0), " min"),
        ..5_370.0 => (format!("{:.0}", seconds / 60.0), " min"),
        ..86_400.0 => (format!("{:.1}", seconds / 3_600.0), " h"),
        _ => (format!("{:.1}", seconds / 86_400.0), " days"),
    };
    let ((low, low_unit), (high, unit)) = (rounded(least), rounded(most));
    match (low == high, low_unit == unit) {
        (true, true) => format!("about {high}{unit}"),
        (_, true) => format!("{low} to {high}{unit}"),
        _ => format!("{low}{low_unit} to {high}{unit}"),
    }
}

/// How long ago, in the largest unit that is filled: `59s`, `3h`, `2w`.
pub fn age(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    let units = [
        (604_800, "w"),
        (86_400, "d"),
        (3_600, "h"),
        (60, "m"),
        (1, "s"),
    ];
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| seconds >= *unit)
        .unwrap_or((1, "s"));
    format!("{}{name}", seconds / unit)
}

/// `14:03:59`, in the machine's time zone.
pub fn clock(time_ms: u64) -> String {
    local(time_ms, "%H:%M:%S")
}

/// `2026-11-20 14:03:59`, in the machine's time zone.
pub fn date_time(time_ms: u64) -> String {
    local(time_ms, "%Y-%m-%d %H:%M:%S")
}

/// A word for a shell.
pub fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty()
        && word
            .chars()
            .all(|letter| letter.is_alphanumeric() || "-_=./@:+".contains(letter));
    if is_plain {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The last part of a generated id (date, time, task, letters), which tells runs apart; of a folder with another name,
/// such as a recorded run, the whole name.
pub fn short_id(id: &str) -> &str {
    let mut parts = id.split('-');
    let mut is_number = |digits| {
        parts.next().is_some_and(|part| {
            part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    if is_number(8) && is_number(6) {
        id.rsplit('-').next().unwrap_or(id)
    } else {
        id
    }
}

/// Line and column of a byte of a text, such as a span of `toml`; both from 1, columns in characters.
pub fn line_column(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// Two lower-case digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Longer texts are not misspelt names; the comparison takes time in proportion.
const MAX_NAME_BYTES: usize = 400;

/// The order of two numbers in a list, ascending or descending; one that is not known comes last either way.
pub fn unknown_last(a: f64, b: f64, is_descending: bool) -> std::cmp::Ordering {
    let order = if is_descending {
        b.total_cmp(&a)
    } else {
        a.total_cmp(&b)
    };
    a.is_nan().cmp(&b.is_nan()).then(order)
}

pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let name = plain(name);
    let likeness = |known: &str| {
        let known = plain(known);
        let contained = name.len() >= 4 && (known.contains(&name) || name.contains(&known));
        let distance = strsim::normalized_damerau_levenshtein(&name, &known);
        strsim::jaro_winkler(&name, &known).max(distance) + if contained { 0.3 } else { 0.0 }
    };
    let ranked = known
        .into_iter()
        .map(|known| (likeness(known), known))
        .filter(|(likeness, _)| *likeness >= 0.75);
    ranked
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// As [`nearest`], where a name need not be one of the known: only what is one or two edits away, and mostly the same.
pub fn slip_of<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let near = known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min();
    near.filter(|(edits, _)| (1..=2).contains(edits) && 2 * edits < name.chars().count())
        .map(|(_, known)| known)
}

/// The end of a message about a misspelt name, ``; did you mean `x`?``; empty where no known name is like it.
pub fn did_you_mean<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

fn local(time_ms: u64, format: &str) -> String {
    let time = i64::try_from(time_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    or_na(time, |time| {
        time.to_zoned(jiff::tz::TimeZone::system())
            .strftime(format)
            .to_string()
    })
}

fn trimmed(text: &str) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn scaled(mut number: f64, units: &[&str]) -> String {
    let mut index = 0;
    while number >= 999.5 && index + 1 < units.len() {
        number /= 1000.0;
        index += 1;
    }
    let digits = match number {
        _ if index == 0 => 0,
        number if number >= 99.5 => 0,
        number if number >= 9.95 => 1,
        _ => 2,
    };
    format!("{number:.digits$}{}", units[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Copy + std::fmt::Debug>(show: impl Fn(T) -> String, cases: &[(T, &str)]) {
        for (value, expected) in cases {
            assert_eq!(show(*value), *expected, "{value:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_sorted_last() {
        for (is_descending, expected) in [(false, "[1.0, 2.0, NaN]"), (true, "[2.0, 1.0, NaN]")] {
            for mut numbers in [[f64::NAN, 1.0, 2.0], [2.0, -f64::NAN, 1.0]] {
                numbers.sort_by(|a, b| unknown_last(*a, *b, is_descending));
                assert_eq!(format!("{numbers:?}"), expected);
            }
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
        check("seed=7", "seed=7");
        check("stop_when=valid>=0.99", "'stop_when=valid>=0.99'");
        check("base_model=it's", "'base_model=it'\\''s'");
        check("", "''");
    }

    #[test]
    fn probabilities_are_told_from_zero_and_one() {
        check(
            probability,
            &[
                (0.93, "0.93"),
                (0.5, "0.50"),
                (0.999_87, "0.99987"),
                (0.004_21, "0.0042"),
                (1.0, "1.00"),
                (0.0, "0.00"),
                (1.0 - 1e-12, "1.000000000"),
            ],
        );
    }

    #[test]
    fn numbers_are_short() {
        let small = [
            (0.0, "0"),
            (1.0, "1"),
            (0.7312, "0.731"),
            (0.02314, "0.0231"),
            (-2.4749, "-2.475"),
            (1.5e-5, "1.5e-5"),
        ];
        let large = [
            (12.44, "12.4"),
            (9800.0, "9800"),
            (2e9, "2e9"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
            (-1.4e-17, "~0"),
        ];
        check(amount, &small);
        check(amount, &large);
        check(
            percent,
            &[(0.594, "59.4%"), (1.0, "100.0%"), (f64::NAN, "n/a")],
        );
        check(
            percent_short,
            &[
                (0.0, "0%"),
                (0.025, "2.5%"),
                (0.03, "3%"),
                (0.9721, "97%"),
                (f64::NAN, "n/a"),
            ],
        );
        assert_eq!(percent_interval(0.594, [0.55, 0.636]), "59.4% [55.0, 63.6]");
        check(count, &[(999, "999"), (1_103_232, "1.10M")]);
        check(
            bytes,
            &[
                (12, "12 B"),
                (16_381_470_720, "16.4 GB"),
                (999_600, "1.00 MB"),
                (150_800_000_000, "151 GB"),
            ],
        );
        check(
            grouped,
            &[
                (0, "0"),
                (999, "999"),
                (1000, "1,000"),
                (1_134_240, "1,134,240"),
            ],
        );
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbour() {
        let known = ["learning_rate", "max_steps", "kl_beta"];
        let check =
            |name: &str, expected: &str| assert_eq!(did_you_mean(name, known), expected, "{name}");
        check("learning-rat", "; did you mean `learning_rate`?");
        check("STEPS", "; did you mean `max_steps`?");
        check("zzz", "");
        let slip = |name: &str| slip_of(name, ["if", "type", "train"]);
        assert_eq!(
            ["tpye", "tran", "trnia", "type", "i", "tree", "my-train"].map(slip),
            [
                Some("type"),
                Some("train"),
                Some("train"),
                None,
                None,
                None,
                None
            ]
        );
        assert_eq!(hex(&[0, 10, 255]), "000aff");
    }

    #[test]
    fn only_generated_ids_are_shortened() {
        check(
            |id| short_id(id).to_owned(),
            &[
                ("20261120-143205-invoice-k7f3a2", "k7f3a2"),
                ("20261120-143205-my-task-k7f3a2", "k7f3a2"),
                ("finished-run", "finished-run"),
                ("2026-run", "2026-run"),
                ("k7f3a2", "k7f3a2"),
            ],
        );
    }

    #[test]
    fn a_byte_has_a_line_and_a_column() {
        check(
            |byte| format!("{:?}", line_column("ä = 1\n\nb", byte)),
            &[
                (0, "(1, 1)"),
                (2, "(1, 2)"),
                (7, "(2, 1)"),
                (8, "(3, 1)"),
                (9, "(3, 2)"),
            ],
        );
    }

    #[test]
    fn times_are_short() {
        let seconds = [
            (0.0, "0.0 s"),
            (0.0002, "1 ms"),
            (0.0241, "24 ms"),
            (0.0998, "0.1 s"),
            (0.42, "0.4 s"),
            (12.4, "12 s"),
        ];
        let hours = [
            (200.0, "3m 20s"),
            (5160.0, "1h 26m"),
            (90_000.0, "1d 1h"),
            (f64::INFINITY, "n/a"),
            (-1.0, "n/a"),
        ];
        check(duration, &seconds);
        check(duration, &hours);
        let ranges = [
            ((1080.0, 1500.0), "18 to 25 min"),
            ((1080.0, 1085.0), "about 18 min"),
            ((40.0, 130.0), "40 s to 2.2 min"),
            ((0.2, 0.25), "200 to 250 ms"),
            ((5_000.0, 90_000.0), "83 min to 1.0 days"),
            ((1.0, f64::NAN), "1.0 s to n/a"),
        ];
        check(|(least, most)| duration_range(least, most), &ranges);
        let ages = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (3_600, "1h"),
            (90_000, "1d"),
            (604_800 * 3, "3w"),
        ];
        check(|seconds: u64| age(seconds * 1000 + 5, 5), &ages);
        assert_eq!(age(0, 10), "0s");
    }
}
