//! A JSON number as written, of any magnitude and precision.

use std::borrow::Cow;
use std::cmp::Ordering;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<'t> {
    text: &'t str,
}

/// Larger exponents are not written out: such numbers are not divided.
const MAX_WRITTEN_EXPONENT: i64 = 5_000;

/// Decimal digits that a 64-bit float keeps apart, whatever they are.
const MAX_FLOAT_DIGITS: usize = 15;

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

    pub fn equals(&self, other: &Number<'_>) -> bool {
        let (left, right) = (self.significant_digits(), other.significant_digits());
        left == right
            && (left.0.is_empty() || self.text.starts_with('-') == other.text.starts_with('-'))
    }

    pub fn compare(&self, other: &Number<'_>) -> Ordering {
        let (left, right) = (self.significant_digits(), other.significant_digits());
        let sign = |number: &Number<'_>, digits: &str| match digits.is_empty() {
            true => 0,
            false if number.text.starts_with('-') => -1,
            false => 1,
        };
        let (sign, other_sign) = (sign(self, &left.0), sign(other, &right.0));
        // The place of the first digit, then all of them.
        let first = |digits: &str, exponent: i64| exponent.saturating_add(digits.len() as i64);
        let size = first(&left.0, left.1)
            .cmp(&first(&right.0, right.1))
            .then_with(|| left.0.cmp(&right.0));
        sign.cmp(&other_sign).then(match sign {
            -1 => size.reverse(),
            0 => Ordering::Equal,
            _ => size,
        })
    }

    /// Whether a whole number times the other one gives this one, exactly. The other one is not 0 and has at most 37
    /// digits.
    pub fn is_multiple_of(&self, other: &Number<'_>) -> bool {
        // Zeros that leave no factor of two or five in any divisor.
        const MAX_ZEROS: i64 = 128;
        let ((digits, exponent), (divisor, other_exponent)) =
            (self.significant_digits(), other.significant_digits());
        let (Ok(divisor), zeros) = (
            divisor.parse::<u128>(),
            exponent.saturating_sub(other_exponent),
        ) else {
            return false;
        };
        // The last digit is not 0, so ten divides the digits never.
        if digits.is_empty() || zeros < 0 {
            return digits.is_empty();
        }
        let zeros = std::iter::repeat_n(0, zeros.min(MAX_ZEROS) as usize);
        let digits = digits.bytes().map(|digit| u128::from(digit - b'0'));
        let remainder = digits.chain(zeros).try_fold(0, |rest: u128, digit| {
            (rest * 10 + digit).checked_rem(divisor)
        });
        remainder == Some(0)
    }

    pub(crate) fn digit_count(&self) -> usize {
        self.significant_digits().0.len()
    }

    /// Exact equality with a number of a schema or of an expected answer (which serde_json may have rounded to a
    /// float).
    pub fn equals_serde(&self, other: &serde_json::Number) -> bool {
        match (self.as_i64(), other.as_i64()) {
            (Some(left), Some(right)) => left == right,
            // Two numbers of so few digits are never the same float.
            _ if self.text.len() <= MAX_FLOAT_DIGITS && !self.text.contains(['e', 'E']) => {
                self.text.parse().ok() == other.as_f64()
            }
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
    fn equality_with_a_parsed_number_is_of_values() {
        for (left, right) in [
            ("58463.87", "58463.87"),
            ("58463.870", "58463.87"),
            ("58463.88", "58463.87"),
            ("0.3", "0.30000000000000004"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("1.0", "1"),
            ("-1.0", "1"),
            ("-0.0", "0"),
            ("1e2", "100"),
            ("1e-320", "1.1e-320"),
            ("9007199254740993.0", "9007199254740992"),
            ("12345678.901234", "12345678.901234"),
            ("12345678.901235", "12345678.901234"),
            ("3.0", "18446744073709551615"),
        ] {
            let parsed: serde_json::Number = serde_json::from_str(right).unwrap();
            assert_eq!(
                Number::new(left).equals_serde(&parsed),
                Number::new(left).equals(&Number::new(&parsed.to_string())),
                "{left} {right}"
            );
        }
    }

    #[test]
    fn order_and_multiples_are_of_values() {
        use Ordering::{Equal, Greater, Less};
        for (left, right, order) in [
            ("1", "1.0", Equal),
            ("-0", "0", Equal),
            ("9007199254740993", "9007199254740992", Greater),
            ("0.09999999999999999999", "0.1", Less),
            ("-0.09999999999999999999", "-0.1", Greater),
            ("-1", "1e-400", Less),
            ("1e400", "9e399", Greater),
            ("12", "123", Less),
            ("0", "-1e-9", Greater),
        ] {
            assert_eq!(
                Number::new(left).compare(&Number::new(right)),
                order,
                "{left} {right}"
            );
        }
        for (number, divisor, is_multiple) in [
            ("19.99", "0.01", true),
            ("19.999", "0.01", false),
            ("0", "7", true),
            ("-21", "7", true),
            ("9007199254740993", "2", false),
            ("1e400", "3", false),
            ("3e400", "0.3", true),
            ("1e400", "1024", true),
            ("0.3", "3", false),
            ("123456789012345678901234567890", "10", true),
            ("12", "24", false),
        ] {
            assert_eq!(
                Number::new(number).is_multiple_of(&Number::new(divisor)),
                is_multiple,
                "{number} {divisor}"
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
