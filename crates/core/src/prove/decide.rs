//! Facts -> checks, and the cause of what differs. Nothing is equal that was not compared.

use super::facts::{EXPLAINED, Facts, IdFacts, LogProbFacts, SchemaFact, SettingFacts};
use crate::format::{counted, percent};
use crate::report::{Metric, MetricVerdict};
use crate::run::CheckOutcome::{Differs, Equal, NotCompared};
use crate::run::{
    CheckOutcome, Comparison, ServingCheck, ServingFault, ServingFinding, SettingResult,
};
use crate::statistics::Verdict;

/// A server may answer so many of a hundred prompts otherwise without a cause of its own.
const MAX_OTHER_PERCENT: usize = 10;
/// Weights whose log-probs are this unlike the run's are not roundings of them. Where most tokens are certain, a few
/// outliers decide the correlation: it counts from this distance on.
const MIN_CORRELATION: f64 = 0.5;
const MIN_OTHER_NATS: f64 = 0.5;
const MAX_NOISE_NATS: f64 = 2.0;

#[derive(Default)]
struct Decision {
    checks: Vec<ServingCheck>,
    findings: Vec<ServingFinding>,
}

impl Decision {
    fn check(&mut self, name: &str, outcome: CheckOutcome, detail: impl Into<String>) {
        self.checks.push(ServingCheck {
            name: name.to_owned(),
            outcome,
            detail: detail.into(),
        });
    }

    fn find(&mut self, fault: ServingFault, sentence: impl Into<String>) {
        if self.findings.iter().all(|finding| finding.fault != fault) {
            self.findings.push(ServingFinding {
                fault,
                sentence: sentence.into(),
            });
        }
    }
}

pub(super) fn decide(facts: &Facts) -> (Vec<ServingCheck>, Vec<ServingFinding>) {
    let mut found = Decision::default();
    prompts(facts, &mut found);
    log_probs(facts, &mut found);
    schema(facts, &mut found);
    compare_answers(facts, &facts.chat, false, &mut found);
    compare_answers(facts, &facts.format, true, &mut found);
    (found.checks, found.findings)
}

fn prompts(facts: &Facts, found: &mut Decision) {
    let name = "prompt tokens";
    let IdFacts {
        channel,
        compared,
        differ,
        fault,
    } = match &facts.ids {
        Ok(ids) => ids,
        Err(reason) => return found.check(name, NotCompared, reason),
    };
    let compared = counted(*compared, "prompt");
    let Some((fault, example)) = fault else {
        return found.check(name, Equal, format!("{compared}, by {channel}"));
    };
    let detail = format!("{differ} of {compared}, by {channel}; {example}");
    found.check(name, Differs, detail);
    let with_kwargs = facts.ids_with_kwargs.as_ref();
    let sentence = match fault {
        // The switch is only not sent: whatever it changes is a variable of the template.
        _ if with_kwargs.is_some_and(|ids| ids.fault.is_none()) => format!(
            "requests without chat_template_kwargs are rendered otherwise than in training; with {} they are the same",
            facts.kwargs
        ),
        ServingFault::Context => format!("prompts are cut to the server's context ({example})"),
        ServingFault::Tokenizer => {
            format!("the server has another tokenizer: a plain text has other ids ({example})")
        }
        _ => format!("the server renders prompts otherwise than in training ({example})"),
    };
    found.find(*fault, sentence);
}

fn log_probs(facts: &Facts, found: &mut Decision) {
    let name = "log-probs";
    let measured = match &facts.log_probs {
        Ok(measured) => measured,
        Err(reason) => return found.check(name, NotCompared, reason),
    };
    let LogProbFacts {
        channel,
        tokens,
        answers,
        mean,
        max,
        ..
    } = measured;
    let detail = format!(
        "mean |difference| {mean:.4} nats/token, limit {} (max {max:.3}; {} of {}, by {channel})",
        facts.max_nats,
        counted(*tokens, "token"),
        counted(*answers, "answer"),
    );
    let is_far = *mean > facts.max_nats;
    found.check(name, if is_far { Differs } else { Equal }, detail);
    let is_base = weights(facts, measured, found);
    if is_far && !is_base {
        let (fault, sentence) = weights_fault(facts, measured);
        found.find(fault, sentence);
    }
}

/// Checks whether the server is the run's model, and returns whether it is the one that training started from.
fn weights(facts: &Facts, measured: &LogProbFacts, found: &mut Decision) -> bool {
    let name = "trained weights";
    let base = match &measured.base {
        Ok(base) => base,
        Err(reason) => {
            found.check(name, NotCompared, reason);
            return false;
        }
    };
    let mean = measured.mean;
    let detail = format!(
        "{:.4} nats/token from the base's log-probs, {mean:.4} from the run's; these are {:.4} apart",
        base.of_server, base.of_run
    );
    match measured.is_base() {
        None => found.check(name, NotCompared, format!("too close to tell: {detail}")),
        Some(false) => found.check(name, Equal, detail),
        Some(true) => {
            let what = if facts.has_adapter {
                "the adapter is not applied"
            } else {
                "the base is served, not the trained weights"
            };
            let fault = match facts.has_adapter {
                true => ServingFault::Adapter,
                false => ServingFault::OtherWeights,
            };
            found.find(fault, format!("{what}: {detail}"));
            found.check(name, Differs, detail);
        }
    }
    measured.is_base() == Some(true)
}

fn weights_fault(facts: &Facts, measured: &LogProbFacts) -> (ServingFault, String) {
    let LogProbFacts {
        mean, correlation, ..
    } = *measured;
    let explains = |distance: Option<f64>| {
        distance.filter(|distance| {
            *distance <= facts.max_nats.max(EXPLAINED * mean) && *distance < EXPLAINED.sqrt() * mean
        })
    };
    if let Some(distance) = explains(measured.twice) {
        return (
            ServingFault::Adapter,
            format!(
                "the adapter is applied twice: log-probs are {distance:.4} nats/token from those with it doubled, and {mean:.4} from the run's"
            ),
        );
    }
    if let Some((step, distance)) = measured.other_step
        && explains(Some(distance)).is_some()
    {
        return (
            ServingFault::OtherWeights,
            format!(
                "step {step} of the run is served: log-probs are {distance:.4} nats/token from those of its checkpoint, and {mean:.4} from the run's"
            ),
        );
    }
    let is_unlike = correlation < MIN_CORRELATION && mean > MIN_OTHER_NATS;
    if is_unlike || mean > MAX_NOISE_NATS {
        return (
            ServingFault::OtherWeights,
            format!(
                "the weights are not the run's: log-probs differ by {mean:.2} nats/token, with a correlation of {correlation:.2}"
            ),
        );
    }
    (ServingFault::Quantised, rounded(facts, measured))
}

fn rounded(facts: &Facts, measured: &LogProbFacts) -> String {
    let LogProbFacts {
        mean, correlation, ..
    } = measured;
    let cost = facts.chat.as_ref().map(|chat| rates(&chat.result));
    let cost = cost.unwrap_or_else(|_| "not measured".to_owned());
    format!(
        "likely rounded weights, by nothing but this: log-probs scatter around the run's by {mean:.3} nats/token (correlation {correlation:.3}); cost: {cost}"
    )
}

/// The server's rates against the run's.
fn rates(result: &SettingResult) -> String {
    // Asks a server again for what was evaluated, so it is no look at the test set.
    let verdict = |metric, found| MetricVerdict::from_comparison(metric, found, None);
    let exact = result.exact.as_ref();
    MetricVerdict::sentence(
        verdict(Metric::Valid, &result.valid),
        exact.map(|exact| verdict(Metric::Exact, exact)),
    )
}

/// Whether more than a server may do otherwise without a cause of its own.
fn is_beyond_limit(count: usize, all: usize) -> bool {
    100 * count > MAX_OTHER_PERCENT * all
}

fn schema(facts: &Facts, found: &mut Decision) {
    let name = "response_format";
    let followed = "a schema that no model follows by itself is followed";
    match &facts.schema {
        Ok(SchemaFact::Followed) => found.check(name, Equal, followed),
        Ok(SchemaFact::Reordered) => {
            let order = "with keys in another order than its own";
            found.check(name, Equal, format!("{followed}, {order}"));
        }
        Ok(SchemaFact::Ignored) => {
            let sentence = "a json_schema that allows one value is not followed";
            found.check(name, Differs, sentence);
            found.find(ServingFault::SchemaIgnored, sentence);
        }
        Err(reason) => found.check(name, NotCompared, reason),
    }
}

/// `is_format`: answers with `response_format`.
fn compare_answers(
    facts: &Facts,
    answers: &Result<SettingFacts, String>,
    is_format: bool,
    found: &mut Decision,
) {
    let name = match is_format {
        true => "answers, chat with response_format",
        false => "answers, chat",
    };
    let answers = match answers {
        Ok(answers) => answers,
        Err(reason) => return found.check(name, NotCompared, reason),
    };
    let result = &answers.result;
    // A schema that is enforced may well make answers valid that were not.
    let is_other = |comparison: &Comparison| match is_format {
        true => comparison.verdict() == Verdict::Worse,
        false => comparison.verdict() != Verdict::NoDifference,
    };
    let is_paired_other = is_other(&result.valid) || result.exact.as_ref().is_some_and(is_other);
    let is_text_other = is_beyond_limit(answers.others(), result.comparable);
    let texts = match result.comparable {
        0 => String::new(),
        count => format!(
            "{} of {} as the run's; ",
            percent(result.same as f64 / count as f64),
            counted(count, "text")
        ),
    };
    let unanswered = result.prompts - result.answered;
    let failed = match unanswered {
        0 => String::new(),
        count => format!("; {count} unanswered: {}", answers.reason),
    };
    let detail = format!("{texts}{}{failed}", rates(result));
    if !is_paired_other && !is_text_other {
        // A few may fail; what was hardly answered is not equal.
        let outcome = match is_beyond_limit(unanswered, result.prompts) {
            true => NotCompared,
            false => Equal,
        };
        return found.check(name, outcome, detail);
    }
    let is_cause = |finding: &ServingFinding| finding.fault != ServingFault::SchemaIgnored;
    let is_explained = found.findings.iter().any(is_cause);
    let example = &answers.example;
    found.check(
        name,
        Differs,
        format!("{detail}; {example}").trim_end_matches("; "),
    );
    if !is_explained && let Some((fault, why)) = answers_fault(facts, is_format, answers) {
        found.find(fault, format!("{why}: {example}"));
    }
}

/// Why answers differ, where nothing else that was found says so; `None` without log-probs that would say it.
fn answers_fault(
    facts: &Facts,
    is_format: bool,
    answers: &SettingFacts,
) -> Option<(ServingFault, String)> {
    if is_format && facts.schema == Ok(SchemaFact::Reordered) {
        let why = "response_format makes the model write keys in another order than the schema's, as it does not by itself";
        return Some((ServingFault::SchemaOrder, why.to_owned()));
    }
    let measured = facts.log_probs.as_ref().ok()?;
    if facts.ids.is_err() {
        let why = "log-probs of given tokens are the run's, but chat answers are not: the prompt is rendered otherwise";
        return Some((ServingFault::Template, why.to_owned()));
    }
    if 2 * answers.noisy > answers.others() {
        return Some((ServingFault::Quantised, rounded(facts, measured)));
    }
    let why = "prompts and log-probs are the run's, but the server does not take its likeliest tokens, or ends elsewhere";
    Some((ServingFault::Sampling, why.to_owned()))
}

#[cfg(test)]
mod tests;
