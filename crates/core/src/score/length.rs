//! The reward part `length`: a soft limit as in DAPO, or a target.

/// How a completion's length is worth something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LengthRule {
    pub aim: LengthAim,
    pub unit: LengthUnit,
    /// Units over which the value falls from 1 to 0.
    pub buffer: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LengthAim {
    /// No more than that.
    Max(f64),
    /// As near as possible.
    Target(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LengthUnit {
    /// As sampled, the stop token included; not known of a text alone.
    Tokens,
    /// Of the text in UTF-8.
    Bytes,
}

impl LengthRule {
    /// In [0, 1]. With a maximum it is DAPO's punishment (arXiv 2503.14476, equation 13) plus 1, which changes no
    /// advantage.
    pub(super) fn value(&self, length: usize) -> f64 {
        let length = length as f64;
        match self.aim {
            LengthAim::Max(most) if length > most => 0.0,
            LengthAim::Max(most) if length <= most - self.buffer => 1.0,
            LengthAim::Max(most) => (most - length) / self.buffer,
            LengthAim::Target(target) => (1.0 - (length - target).abs() / self.buffer).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_over_the_buffer() {
        let rule = |aim, buffer| LengthRule {
            aim,
            unit: LengthUnit::Tokens,
            buffer,
        };
        for (rule, length, value) in [
            // As TRL's get_soft_overlong_punishment(100, 20), plus 1.
            (rule(LengthAim::Max(100.0), 20.0), 0, 1.0),
            (rule(LengthAim::Max(100.0), 20.0), 80, 1.0),
            (rule(LengthAim::Max(100.0), 20.0), 85, 0.75),
            (rule(LengthAim::Max(100.0), 20.0), 90, 0.5),
            (rule(LengthAim::Max(100.0), 20.0), 100, 0.0),
            (rule(LengthAim::Max(100.0), 20.0), 101, 0.0),
            // Without a buffer the limit itself is still free.
            (rule(LengthAim::Max(100.0), 0.0), 100, 1.0),
            (rule(LengthAim::Max(100.0), 0.0), 101, 0.0),
            (rule(LengthAim::Target(40.0), 40.0), 40, 1.0),
            (rule(LengthAim::Target(40.0), 40.0), 30, 0.75),
            (rule(LengthAim::Target(40.0), 40.0), 50, 0.75),
            (rule(LengthAim::Target(40.0), 10.0), 45, 0.5),
            (rule(LengthAim::Target(40.0), 10.0), 60, 0.0),
        ] {
            assert_eq!(rule.value(length), value, "{rule:?} {length}");
        }
    }
}
