//! Facts -> checks, and the cause of what differs. Nothing is equal that was not compared.

use super::facts::{
    EXPLAINED, Facts, IdFacts, LogProbFacts, SchemaFact, Setting, SettingFacts, ThinkFacts,
};
use crate::format::{counted, percent};
use crate::report::{Metric, MetricVerdict};
use crate::run::CheckOutcome::{Differs, Equal, NotCompared};
use crate::run::{
    CheckOutcome, Comparison, ServingCheck, ServingFault, ServingFinding, SettingResult,
};
use crate::statistics::Verdict;

/// A server may answer so many of a hundred prompts otherwise without a cause of its own.
const MAX_OTHER_PERCENT: usize = 10;
/// A further step from 1 is a scale of its own.
const MIN_SCALE_STEP: f64 = 0.15;
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

    fn has(&self, faults: &[ServingFault]) -> bool {
        self.findings
            .iter()
            .any(|finding| faults.contains(&finding.fault))
    }
}

pub(super) fn decide(facts: &Facts) -> (Vec<ServingCheck>, Vec<ServingFinding>) {
    let mut found = Decision::default();
    prompts(facts, &mut found);
    thinking(facts, &mut found);
    log_probs(facts, &mut found);
    calls(facts, &mut found);
    batch(facts, &mut found);
    stream(facts, &mut found);
    schema(facts, &mut found);
    for (setting, result) in &facts.settings {
        let name = format!("answers, {}", setting.name());
        match result {
            Ok(answers) => compare_answers(facts, *setting, &name, answers, &mut found),
            Err(reason) => found.check(&name, NotCompared, reason),
        }
    }
    (found.checks, found.findings)
}

fn prompts(facts: &Facts, found: &mut Decision) {
    let name = "prompt tokens";
    let ids = match &facts.ids {
        Ok(ids) => ids,
        Err(reason) => return found.check(name, NotCompared, reason),
    };
    let IdFacts {
        channel,
        compared,
        differ,
        fault,
    } = ids;
    let Some((fault, example)) = fault else {
        return found.check(
            name,
            Equal,
            format!("{}, by {channel}", counted(*compared, "prompt")),
        );
    };
    let detail = format!(
        "{differ} of {}, by {channel}; {example}",
        counted(*compared, "prompt")
    );
    found.check(name, Differs, detail);
    let with_kwargs = facts.ids_with_kwargs.as_ref();
    // The switch is only not sent: whatever it changes is thinking, or a variable of the template.
    let is_default = with_kwargs.is_some_and(|ids| ids.fault.is_none());
    let fault = if is_default {
        ServingFault::Thinking
    } else {
        *fault
    };
    let sentence = match fault {
        ServingFault::Thinking if is_default => format!(
            "requests without chat_template_kwargs are rendered otherwise than in training; with {} they are the same",
            facts.kwargs
        ),
        ServingFault::Thinking => "the server renders prompts with thinking switched: they are the run's with the other value of enable_thinking".to_owned(),
        ServingFault::DoubledStart => format!("prompts have one token more than in training, as with a second start token ({example})"),
        ServingFault::MissingStart => format!("prompts have one token less than in training, as without the start token ({example})"),
        ServingFault::Context => format!("prompts are cut to the server's context ({example})"),
        ServingFault::Tokenizer => format!("the server has another tokenizer: a plain text has other ids ({example})"),
        _ => format!("the server's chat template is not the one trained with ({example})"),
    };
    found.find(fault, sentence);
}

/// Thoughts where the run has none, or the other way around.
fn thinking(facts: &Facts, found: &mut Decision) {
    let ThinkFacts {
        compared,
        more,
        less,
    } = facts.thinking;
    if compared == 0 || !facts.has_thinking_switch && !facts.thinking.is_unlike() {
        return;
    }
    let detail = format!(
        "{more} of {} with thoughts where the run's has none, {less} the other way around",
        counted(compared, "answer")
    );
    let name = "thinking";
    if !facts.thinking.is_unlike() {
        return found.check(name, Equal, detail);
    }
    found.check(name, Differs, detail.clone());
    let how = match &facts.thinking_with_kwargs {
        Some(with) if with.compared > 0 && !with.is_unlike() => {
            format!(
                "; with chat_template_kwargs {} there are none",
                facts.kwargs
            )
        }
        _ if facts.kwargs == "{}" => String::new(),
        _ => format!(
            "; the server ignores chat_template_kwargs {}: make them its default",
            facts.kwargs
        ),
    };
    found.find(ServingFault::Thinking, format!("{detail}{how}"));
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
        bias,
        max,
        median,
        likelier,
        ..
    } = measured;
    let detail = format!(
        "mean |difference| {mean:.4} nats/token, limit {} (median {median:.4}, mean {bias:+.4}, max {max:.3}, {} likelier; {} of {}, by {channel})",
        facts.max_nats,
        percent(*likelier),
        counted(*tokens, "token"),
        counted(*answers, "answer"),
    );
    let is_far = *mean > facts.max_nats;
    found.check(name, if is_far { Differs } else { Equal }, detail);
    weights(facts, measured, found);
    if is_far && !found.has(&[ServingFault::AdapterOff]) {
        let (fault, sentence) = weights_fault(facts, measured);
        found.find(fault, sentence);
    }
}

/// Whether the server is the run's model or the one that training started from.
fn weights(facts: &Facts, measured: &LogProbFacts, found: &mut Decision) {
    let name = "trained weights";
    let base = match &measured.base {
        Ok(base) => base,
        Err(reason) => return found.check(name, NotCompared, reason),
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
            found.find(ServingFault::AdapterOff, format!("{what}: {detail}"));
            found.check(name, Differs, detail);
        }
    }
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
            ServingFault::AdapterTwice,
            format!(
                "the adapter is applied twice: log-probs are {distance:.4} nats/token from those with it doubled, and {mean:.4} from the run's"
            ),
        );
    }
    if let Some((step, distance)) = measured.other_step
        && explains(Some(distance)).is_some()
    {
        return (
            ServingFault::OtherStep,
            format!(
                "step {step} of the run is served: log-probs are {distance:.4} nats/token from those of its checkpoint, and {mean:.4} from the run's"
            ),
        );
    }
    if let Some((slope, left)) = measured.slope
        && facts.has_adapter
        && left < EXPLAINED
        && (slope - 1.0).abs() > MIN_SCALE_STEP
    {
        return (
            ServingFault::AdapterScale,
            format!(
                "log-probs went {slope:.2} times as far from the base as the run's: the adapter's scale is not the trained one"
            ),
        );
    }
    let is_unlike = correlation < MIN_CORRELATION && mean > MIN_OTHER_NATS;
    if is_unlike || mean > MAX_NOISE_NATS {
        return (
            ServingFault::OtherModel,
            format!(
                "the weights are not the run's: log-probs differ by {mean:.2} nats/token, with a correlation of {correlation:.2}"
            ),
        );
    }
    (ServingFault::Quantised, rounded(facts, measured))
}

fn rounded(facts: &Facts, measured: &LogProbFacts) -> String {
    let LogProbFacts {
        mean,
        bias,
        correlation,
        ..
    } = measured;
    let chat = facts.settings.iter().find_map(|(setting, facts)| {
        let facts = facts.as_ref().ok()?;
        (*setting != Setting::Schema).then(|| rates(&facts.result))
    });
    let cost = chat.unwrap_or_else(|| "not measured".to_owned());
    let scatter = format!(
        "log-probs scatter around the run's by {mean:.3} nats/token (mean {bias:+.3}, correlation {correlation:.3})"
    );
    let named = facts.model_names.iter().find_map(|name| rounding(name));
    match named {
        Some(kind) => format!("the server calls the model {kind}: {scatter}; cost: {cost}"),
        None => {
            format!("likely rounded weights, by nothing but this: {scatter}; cost: {cost}")
        }
    }
}

/// The type that a model's name says its weights are rounded to, such as `Q4_K_M`, `awq` and `fp8`.
fn rounding(name: &str) -> Option<&str> {
    const TYPES: [&str; 16] = [
        "fp8", "fp4", "mxfp4", "nvfp4", "nf4", "int8", "int4", "awq", "gptq", "bnb", "exl2",
        "w4a16", "w8a16", "w8a8", "4bit", "8bit",
    ];
    let is_type = |word: &str| {
        let word = word.to_ascii_lowercase();
        let of_gguf = ["iq", "q"]
            .iter()
            .find_map(|start| word.strip_prefix(start));
        let of_gguf = of_gguf.unwrap_or_default().as_bytes();
        TYPES.contains(&word.as_str()) || matches!(of_gguf, [b'1'..=b'8', b'_', ..])
    };
    let mut words = name.split(['/', '-', '.', ':', ' ']);
    words.find(|word| is_type(word))
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

impl ThinkFacts {
    pub(super) fn is_unlike(self) -> bool {
        is_beyond_limit(self.more + self.less, self.compared)
    }
}

/// Whether more than a server may do otherwise without a cause of its own.
fn is_beyond_limit(count: usize, all: usize) -> bool {
    100 * count > MAX_OTHER_PERCENT * all
}

fn calls(facts: &Facts, found: &mut Decision) {
    if facts.in_think > 0 {
        let count = counted(facts.in_think, "answer");
        let sentence = format!("{count} in the server's reasoning and not in its content");
        found.check("reasoning and content", Differs, sentence.clone());
        found.find(ServingFault::CallInThink, sentence);
    }
    let Some(calls) = &facts.calls else { return };
    let name = "calls parsed by the server";
    let calls = match calls {
        Ok(calls) => calls,
        Err(reason) => return found.check(name, NotCompared, reason),
    };
    let (compared, missing, wrong) = (calls.compared, calls.missing, calls.wrong);
    let detail = format!("{missing} of {compared} without tool_calls, {wrong} with wrong ones");
    if missing + wrong == 0 {
        return found.check(name, Equal, detail);
    }
    found.check(name, Differs, detail.clone());
    if missing + wrong > calls.untold {
        if !found.has(&[ServingFault::CallInThink]) && !facts.has_other_prompts() {
            found.find(
                ServingFault::CallParser,
                format!("the model's calls are the run's, but the server's parser reads them otherwise: {detail}"),
            );
        }
    } else if found.findings.is_empty() {
        let why = "calls are not the run's, and the server does not tell whether the model or its parser changed them";
        found.find(ServingFault::Unexplained, format!("{why}: {detail}"));
    }
}

fn batch(facts: &Facts, found: &mut Decision) {
    let name = "alone and in a batch";
    let batch = match &facts.batch {
        Ok(batch) => batch,
        Err(reason) => return found.check(name, NotCompared, reason),
    };
    let changed = batch.changed + batch.unlike;
    let detail = format!(
        "{changed} of {} answered otherwise at 1, 8 and {} at once",
        counted(batch.prompts, "prompt"),
        batch.at_once
    );
    if batch.changed < 2 && 2 * batch.unlike <= batch.prompts {
        return found.check(name, Equal, detail);
    }
    found.check(name, Differs, detail.clone());
    found.find(
        ServingFault::Batch,
        format!("greedy answers depend on what else is computed: {detail}"),
    );
}

fn stream(facts: &Facts, found: &mut Decision) {
    let name = "streamed and whole";
    let stream = match &facts.stream {
        Ok(stream) => stream,
        Err(reason) => return found.check(name, NotCompared, reason),
    };
    let detail = format!(
        "{} of {} differ, {} malformed",
        stream.differ,
        counted(stream.prompts, "answer"),
        counted(stream.broken, "stream")
    );
    if stream.broken == 0 && !is_beyond_limit(stream.differ, stream.prompts) {
        return found.check(name, Equal, detail);
    }
    found.check(name, Differs, detail.clone());
    found.find(
        ServingFault::Stream,
        format!("streamed answers are not the whole ones: {detail}"),
    );
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

fn compare_answers(
    facts: &Facts,
    setting: Setting,
    name: &str,
    answers: &SettingFacts,
    found: &mut Decision,
) {
    let result = &answers.result;
    // A schema that is enforced may well make answers valid that were not.
    let is_other = |comparison: &Comparison| match setting {
        Setting::Schema => comparison.verdict() == Verdict::Worse,
        _ => comparison.verdict() != Verdict::NoDifference,
    };
    let is_paired_other = is_other(&result.valid) || result.exact.as_ref().is_some_and(is_other);
    let others = answers.others();
    let is_text_other = is_beyond_limit(others, result.comparable);
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
    found.check(name, Differs, detail);
    let own_causes = [ServingFault::SchemaIgnored, ServingFault::Stream];
    let is_cause = |finding: &ServingFinding| !own_causes.contains(&finding.fault);
    if !found.findings.iter().any(is_cause) {
        let (fault, why) = answers_fault(facts, setting, answers);
        found.find(fault, format!("{why}: {}", answers.example));
    }
}

/// Why answers differ, where nothing else that was found says so.
fn answers_fault(
    facts: &Facts,
    setting: Setting,
    answers: &SettingFacts,
) -> (ServingFault, String) {
    let ends = answers.longer.max(answers.shorter);
    if is_beyond_limit(ends, answers.result.comparable) && 2 * ends >= answers.others() {
        let how = if answers.longer >= answers.shorter {
            "go on where the run's end"
        } else {
            "end before the run's do"
        };
        let why = format!("{} {how}", counted(ends, "answer"));
        return (ServingFault::StopToken, why);
    }
    if setting == Setting::Schema && facts.schema == Ok(SchemaFact::Reordered) {
        let why = "response_format makes the model write keys in another order than the schema's, as it does not by itself";
        return (ServingFault::SchemaOrder, why.to_owned());
    }
    let is_same = |raw: &SettingFacts| {
        raw.result.comparable > 0 && !is_beyond_limit(raw.others(), raw.result.comparable)
    };
    let is_chat_alone = setting == Setting::Chat
        && facts
            .settings
            .iter()
            .any(|(other, raw)| *other == Setting::Raw && raw.as_ref().is_ok_and(is_same));
    if let (Ok(measured), Ok(_)) = (&facts.log_probs, &facts.ids)
        && !is_chat_alone
        && 2 * answers.noisy > answers.others()
    {
        return (ServingFault::Quantised, rounded(facts, measured));
    }
    let (fault, why) = match (facts.log_probs.is_ok(), facts.ids.is_ok()) {
        _ if is_chat_alone => (
            ServingFault::Template,
            "answers to token ids are the run's, but chat answers are not: the prompt is rendered, or the answer parsed, otherwise",
        ),
        (true, true) => (
            ServingFault::Decoding,
            "prompts and log-probs are the run's, but the server does not take its likeliest tokens",
        ),
        (true, false) if setting == Setting::Raw => (
            ServingFault::Decoding,
            "log-probs are the run's, but the server does not take its likeliest tokens",
        ),
        (true, false) => (
            ServingFault::Template,
            "log-probs of given tokens are the run's, but chat answers are not: the prompt is rendered otherwise",
        ),
        (false, _) => (
            ServingFault::Unexplained,
            "answers differ, and the server tells no log-probs that would say why",
        ),
    };
    (fault, why.to_owned())
}

#[cfg(test)]
mod tests;
