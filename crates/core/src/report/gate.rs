//! Rates that an eval must reach: what it misses, as text, as Markdown and as JUnit XML.

use serde_json::json;

use super::eval_results::EvalResult;
use crate::format::{counted, percent, percent_interval};
use crate::page::markdown::{line, table};
use crate::run::{EvalRecord, filled_of};

#[derive(Clone, Debug)]
pub struct Threshold {
    /// `parse`, `valid`, `exact`, `tolerant` or `invented`.
    pub metric: String,
    bound: f64,
    /// Whether the rate may not be higher, instead of lower.
    is_highest: bool,
}

impl Threshold {
    /// Parses `valid=0.9`, a rate that may not be lower.
    ///
    /// # Errors
    /// What is wrong, and how to write it.
    pub fn lowest(text: &str) -> Result<Self, String> {
        Self::parse(text, &["parse", "valid", "exact", "tolerant"], false)
    }

    /// Parses `invented=0.05`, a rate that may not be higher.
    ///
    /// # Errors
    /// As [`Self::lowest`].
    pub fn highest(text: &str) -> Result<Self, String> {
        Self::parse(text, &["invented"], true)
    }

    fn parse(text: &str, names: &[&str], is_highest: bool) -> Result<Self, String> {
        let example = if is_highest {
            "invented=0.05"
        } else {
            "valid=0.9"
        };
        let (metric, bound) = text
            .split_once('=')
            .ok_or_else(|| format!("write it as RATE=X, for example {example}"))?;
        if !names.contains(&metric) {
            return Err(format!("unknown rate `{metric}`: use {}", names.join(", ")));
        }
        match bound.parse::<f64>() {
            Ok(bound) if (0.0..=1.0).contains(&bound) => Ok(Self {
                metric: metric.to_owned(),
                bound,
                is_highest,
            }),
            Ok(percent) if percent > 1.0 && percent <= 100.0 => Err(format!(
                "a rate is a number from 0 to 1; for {percent}% write {metric}={}",
                percent / 100.0
            )),
            _ => Err(format!("`{bound}` is not a number from 0 to 1")),
        }
    }

    /// How an eval misses it. A missing rate misses every threshold.
    pub fn missed(&self, eval: &EvalResult) -> Option<String> {
        let rate = eval.summary.metric(&self.metric);
        let (over, side) = match self.is_highest {
            true => (rate - self.bound, "above the"),
            false => (self.bound - rate, "below the"),
        };
        if rate.is_nan() && self.is_highest {
            return Some(format!(
                "{}: {} is unknown, since no row expects null; `grpo-tui dataset hide` makes such rows",
                eval.name, self.metric
            ));
        }
        let option = if self.is_highest {
            "--fail-over"
        } else {
            "--fail-under"
        };
        (rate.is_nan() || over > 0.0).then(|| {
            format!(
                "{}: {}, is {:.1} points {side} {} of {option}",
                eval.name,
                self.measured(eval),
                100.0 * over,
                percent(self.bound)
            )
        })
    }

    /// `valid 62.0% [48.2, 74.1], n = 50`.
    fn measured(&self, eval: &EvalResult) -> String {
        let (metric, summary) = (&self.metric, &eval.summary);
        let rate = percent_interval(summary.metric(metric), summary.interval(metric));
        format!("{metric} {rate}, n = {}", summary.rows_of(metric))
    }

    /// `valid >= 0.9`.
    fn name(&self) -> String {
        let sign = if self.is_highest { "<=" } else { ">=" };
        format!("{} {sign} {}", self.metric, self.bound)
    }

    fn fails(&self, record: &EvalRecord) -> bool {
        match self.metric.as_str() {
            "parse" => !record.parses(),
            "exact" => record.exact == Some(false),
            "tolerant" => !record.tolerant,
            "invented" => filled_of(record).0 > 0,
            _ => !record.is_valid(),
        }
    }

    /// The completions that fail it, a line each, and how many more there are.
    fn failures(&self, eval: &EvalResult) -> Vec<String> {
        const SHOWN: usize = 50;
        const MAX_MESSAGE_CHARS: usize = 300;
        let of = |record: &&EvalRecord| !record.is_error() && self.fails(record);
        let failed: Vec<_> = eval.records.iter().filter(of).collect();
        let text = |record: &&EvalRecord| {
            let sample = if eval.summary.samples.is_some() {
                format!(" sample {}", record.sample)
            } else {
                String::new()
            };
            let reason = record.score["errors"][0]["message"].as_str();
            let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
            let exact = if record.is_valid() && record.exact == Some(false) {
                ", not exact"
            } else {
                ""
            };
            let text = format!(
                "{}{sample}: {}{exact}{reason}",
                record.prompt_id, record.tier
            );
            text.chars().take(MAX_MESSAGE_CHARS).collect()
        };
        let more = failed.len().saturating_sub(SHOWN);
        let more = (more > 0).then(|| format!("and {} more", counted(more, "completion")));
        failed.iter().take(SHOWN).map(text).chain(more).collect()
    }
}

/// For a pull request: one row per threshold. The caller masks secrets.
pub fn thresholds_markdown(thresholds: &[Threshold], eval: &EvalResult) -> String {
    let row = |threshold: &Threshold| {
        let outcome = if threshold.missed(eval).is_some() {
            "**missed**"
        } else {
            "met"
        };
        vec![
            threshold.name(),
            line(&threshold.measured(eval)),
            outcome.to_owned(),
        ]
    };
    let rows: Vec<_> = thresholds.iter().map(row).collect();
    let titles = [
        format!("threshold for {}", line(&eval.name)),
        "measured".to_owned(),
        "outcome".to_owned(),
    ];
    if rows.is_empty() {
        String::new()
    } else {
        table(&titles, &rows, "lll")
    }
}

/// The values of `templates/junit.xml`: a suite for the eval, a test case for each threshold, so that a report of a
/// later commit has the same names.
pub(super) fn junit_values(thresholds: &[Threshold], eval: &EvalResult) -> serde_json::Value {
    let case = |threshold: &Threshold| {
        let failure = threshold.missed(eval);
        let lines = if failure.is_some() {
            threshold.failures(eval)
        } else {
            Vec::new()
        };
        json!({"name": threshold.name(), "failure": failure, "lines": lines})
    };
    json!({
        "suite": format!("{}.{}.{}", eval.task, eval.id.set, eval.name),
        "failures": thresholds.iter().filter(|threshold| threshold.missed(eval).is_some()).count(),
        "cases": thresholds.iter().map(case).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::facts::Tier;
    use crate::report::html::junit;
    use crate::run::EvalSummary;

    #[test]
    fn a_rate_may_have_a_highest_value() {
        let record = |index: usize| EvalRecord {
            prompt_id: format!("p{index}"),
            tier: Tier::Valid,
            score: json!({"leaves": {"credit": 1.0, "counts": {"a": {"blank": 1, "filled": u32::from(index < 10)}}}}),
            ..EvalRecord::default()
        };
        let result = |records: Vec<EvalRecord>| EvalResult {
            name: "x".to_owned(),
            summary: EvalSummary::from_records(&records),
            records,
            ..EvalResult::default()
        };
        let eval = result((0..100).map(record).collect());
        let missed = |text: &str| Threshold::highest(text).unwrap().missed(&eval);
        assert_eq!(missed("invented=0.1"), None);
        assert_eq!(
            missed("invented=0.05").as_deref(),
            Some(
                "x: invented 10.0% [5.5, 17.4], n = 100, is 5.0 points above the 5.0% of --fail-over"
            )
        );
        assert_eq!(
            Threshold::highest("invented=0.05")
                .unwrap()
                .failures(&eval)
                .len(),
            10
        );
        let none = result(vec![EvalRecord::default()]);
        let unknown = Threshold::highest("invented=1").unwrap().missed(&none);
        assert!(unknown.is_some_and(|text| text.contains("no row expects null")));
        assert_eq!(
            Threshold::highest("valid=1").unwrap_err(),
            "unknown rate `valid`: use invented"
        );
        assert!(Threshold::lowest("invented=1").is_err());
    }

    #[test]
    fn a_missed_threshold_is_a_failed_test_case_with_its_completions() {
        // Not a real token, and assembled here so that no scanner reports it.
        let token = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
        let message = format!("<a> & \u{1b}[31m\u{FFFE} {token}");
        let record = |index: usize| EvalRecord {
            prompt_id: format!("p{index}"),
            tier: if index < 40 {
                Tier::Valid
            } else {
                Tier::Invalid
            },
            exact: Some(index < 30),
            score: json!({"errors": [{"message": message}]}),
            ..EvalRecord::default()
        };
        let records: Vec<EvalRecord> = (0..100).map(record).collect();
        let summary = EvalSummary::from_records(&records);
        let name = "a<\"b\">".to_owned();
        let eval = EvalResult {
            name,
            task: "invoice".to_owned(),
            records,
            summary,
            ..EvalResult::default()
        };
        let thresholds =
            ["parse=1", "valid=0.9", "exact=0.3"].map(|text| Threshold::lowest(text).unwrap());
        let page = junit(&thresholds, &eval).unwrap();
        let text = &page.text;
        let failure = "a&lt;&quot;b&quot;&gt;: valid 40.0% [30.9, 49.8], n = 100, is 50.0 points below the 90.0% of --fail-under";
        assert!(
            text.contains(&format!(
                "<failure type=\"threshold\" message=\"{failure}\">{failure}</failure>"
            )),
            "{text}"
        );
        assert!(
            text.contains("tests=\"3\" failures=\"1\"") && text.matches("<failure").count() == 1,
            "{text}"
        );
        assert!(
            text.contains("p40: invalid: &lt;a&gt; &amp; ␛[31m\u{FFFD} ghp_…(40 characters)\n"),
            "{text}"
        );
        assert!(
            text.contains("p89: ")
                && !text.contains("p90: ")
                && text.contains("and 10 completions more\n"),
            "{text}"
        );
        assert!(
            !text.contains(&token[4..20]) && page.masked == 50,
            "{}",
            page.masked
        );
        let rows = thresholds_markdown(&thresholds, &eval);
        let expected = "| parse >= 1 | parse 100.0% \\[96.3, 100.0\\], n = 100 | met |\n| valid >= 0.9 | valid 40.0% \\[30.9, 49.8\\], n = 100 | **missed** |\n";
        assert!(rows.contains(expected), "{rows}");
    }
}
