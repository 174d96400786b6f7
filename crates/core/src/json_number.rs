//! A JSON number as written, of any magnitude and precision.

use std::borrow::Cow;

/// A number literal, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<'t> {
    text: &'t str,
}

/// Exponents beyond this are not written out: nobody divides such a number.
const MAX_WRITTEN_EXPONENT: i64 = 5_000;

impl<'t> Number<'t> {
    /// Wraps a literal; the caller has checked its grammar.
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text }
    }

    /// As written.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// The value, when it is written as an integer and fits.
    pub fn as_u64(&self) -> Option<u64> {
        self.text.parse().ok()
    }

    /// The value, when it is written as an integer and fits.
    pub fn as_i64(&self) -> Option<i64> {
        self.text.parse().ok()
    }

    /// The nearest 64-bit float; `None` beyond their range. A number too small for them keeps its sign and does not
    /// become zero.
    pub fn as_f64(&self) -> Option<f64> {
        let value: f64 = self.text.parse().ok()?;
        if value == 0.0 && !self.significant_digits().0.is_empty() {
            return Some(if self.text.starts_with('-') {
                -f64::from_bits(1)
            } else {
                f64::from_bits(1)
            });
        }
        value.is_finite().then_some(value)
    }

    /// Whether the value is a whole number, exactly: `1.0` and `1e400` are, `1e-1` and `1.0000000000000000001` are not.
    pub fn is_integer(&self) -> bool {
        let (digits, exponent) = self.significant_digits();
        digits.is_empty() || exponent >= 0
    }

    /// Neither a fraction nor an exponent is written (what draft 4 calls an integer).
    pub fn is_written_as_integer(&self) -> bool {
        !self
            .text
            .bytes()
            .any(|byte| matches!(byte, b'.' | b'e' | b'E'))
    }

    /// Exact equality of values, however written.
    pub fn equals(&self, other: &Number<'_>) -> bool {
        let (left, right) = (self.significant_digits(), other.significant_digits());
        left == right
            && (left.0.is_empty() || self.text.starts_with('-') == other.text.starts_with('-'))
    }

    /// Exact equality with a number of a schema or of an expected answer (which serde_json may have rounded to a
    /// float).
    pub fn equals_serde(&self, other: &serde_json::Number) -> bool {
        match (self.as_i64(), other.as_i64()) {
            (Some(left), Some(right)) => left == right,
            _ => self.equals(&Number {
                text: &other.to_string(),
            }),
        }
    }

    /// Appends a text that equal numbers share.
    pub fn write_canonical(&self, text: &mut String) {
        let (digits, exponent) = self.significant_digits();
        let sign = if self.text.starts_with('-') && !digits.is_empty() {
            "-"
        } else {
            ""
        };
        text.push_str(&format!("#{sign}{digits}e{exponent}"));
    }

    /// Plain digits without an exponent, where that is of a sensible length.
    pub fn plain(&self) -> Cow<'t, str> {
        let (digits, exponent) = self.significant_digits();
        if self.is_written_as_integer() || !(0..=MAX_WRITTEN_EXPONENT).contains(&exponent) {
            return Cow::Borrowed(self.text);
        }
        let sign = if self.text.starts_with('-') { "-" } else { "" };
        let digits = if digits.is_empty() { "0" } else { &digits };
        Cow::Owned(format!(
            "{sign}{digits}{}",
            "0".repeat(usize::try_from(exponent).unwrap_or(0))
        ))
    }

    /// The value is `digits * 10^exponent`, the digits without zeros at either end (empty for zero, then with exponent
    /// 0).
    fn significant_digits(&self) -> (Cow<'t, str>, i64) {
        let unsigned = self.text.strip_prefix('-').unwrap_or(self.text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Cow<'t, str> = if fraction.is_empty() {
            Cow::Borrowed(whole)
        } else {
            Cow::Owned(format!("{whole}{fraction}"))
        };
        let zeros = digits.len() - digits.trim_end_matches('0').len();
        let significant = match digits {
            Cow::Borrowed(digits) => Cow::Borrowed(digits.trim_matches('0')),
            Cow::Owned(digits) => Cow::Owned(digits.trim_matches('0').to_owned()),
        };
        if significant.is_empty() {
            return (significant, 0);
        }
        let exponent = exponent
            .parse::<i64>()
            .unwrap_or(if exponent.starts_with('-') {
                i64::MIN / 2
            } else {
                i64::MAX / 2
            });
        let shift = i64::try_from(zeros).unwrap_or(0) - i64::try_from(fraction.len()).unwrap_or(0);
        (significant, exponent.saturating_add(shift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_told_exactly() {
        for (text, whole, written) in [
            ("0", true, true),
            ("-0", true, true),
            ("1.0", true, false),
            ("1e2", true, false),
            ("1E-1", false, false),
            ("10e-1", true, false),
            ("1e400", true, false),
            ("1e-400", false, false),
            ("0e-400", true, false),
            ("1.0000000000000000001", false, false),
            ("123456789012345678901234567890", true, true),
            ("1.50e1", true, false),
            ("1.55e1", false, false),
            ("1e99999999999999999999", true, false),
        ] {
            assert_eq!(
                (
                    Number::new(text).is_integer(),
                    Number::new(text).is_written_as_integer()
                ),
                (whole, written),
                "{text}"
            );
        }
    }

    #[test]
    fn equality_is_of_values() {
        for (left, right, equal) in [
            ("1", "1.0", true),
            ("100", "1e2", true),
            ("-0", "0", true),
            ("0.10", "1e-1", true),
            ("1", "-1", false),
            ("1e400", "10e399", true),
            ("9007199254740993", "9007199254740992", false),
            ("9007199254740993", "9007199254740993.0", true),
            ("0.1", "0.10000000000000001", false),
        ] {
            assert_eq!(
                Number::new(left).equals(&Number::new(right)),
                equal,
                "{left} {right}"
            );
        }
    }

    #[test]
    fn floats_and_plain_digits() {
        for (text, float, plain) in [
            ("1e400", None, None),
            ("-1e400", None, None),
            ("1.5", Some(1.5), Some("1.5")),
            ("12e2", Some(1200.0), Some("1200")),
            ("-1.20e2", Some(-120.0), Some("-120")),
        ] {
            assert_eq!(Number::new(text).as_f64(), float, "{text}");
            if let Some(plain) = plain {
                assert_eq!(Number::new(text).plain(), plain);
            }
        }
        assert!(
            Number::new("1e-400")
                .as_f64()
                .is_some_and(|value| value > 0.0)
        );
        assert!(
            Number::new("-1e-400")
                .as_f64()
                .is_some_and(|value| value < 0.0)
        );
        assert_eq!(Number::new("1e400").plain().len(), 401);
    }
}
