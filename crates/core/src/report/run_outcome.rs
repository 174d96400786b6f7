//! The outcome of a run: its result, and its latest eval, against its base on valid and on exact match.

use serde::Serialize;
use serde_json::{Value, json};

use super::event_text::Level;
use super::measure::Metric;
use super::significance::{MetricVerdict, Verdict};
use crate::facts::{Ruin, Target};
use crate::format::{or_na, percent};
use crate::run::RunState;
use crate::run::events::Eval;
use crate::task::{PromptSet, SetName};

/// The verdict on a run, by both *valid* and *exact*: valid answers that are not exact are not a success.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunOutcome {
    /// The eval that represents the trained model ([`RunState::result`]); `None` if it was not compared with the base.
    pub result: Option<JudgedEval>,
    /// The latest eval on the eval set, unless it is the result.
    pub latest: Option<JudgedEval>,
    /// The best checkpoint is step 0.
    pub base_is_best: bool,
    /// By its standing alert.
    ruin: Option<Ruin>,
    ended: bool,
    /// Outcomes by task in a run of several, which then has no evals of its own.
    tasks: Vec<(String, RunOutcome)>,
}

/// A trained model against the base on the same prompts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JudgedEval {
    pub set: SetName,
    pub step: u64,
    /// Rates of the base and of the trained model.
    pub valid_rates: [f64; 2],
    pub exact_rates: [Option<f64>; 2],
    pub valid: MetricVerdict,
    /// `None` without expected answers.
    pub exact: Option<MetricVerdict>,
}

impl JudgedEval {
    fn from_eval(history: &RunState, eval: &Eval) -> Option<Self> {
        let base = &history.base(&eval.set)?.summary;
        let against = eval.against_base.as_ref().filter(|_| eval.step > 0)?;
        let look = eval.look.as_ref().map(|look| look.number);
        Some(Self {
            set: eval.set.clone(),
            step: eval.step,
            valid_rates: [base.valid, eval.summary.valid],
            exact_rates: [base.exact, eval.summary.exact],
            valid: MetricVerdict::from_comparison(Metric::Valid, &against.valid, look),
            exact: against
                .exact
                .as_ref()
                .map(|exact| MetricVerdict::from_comparison(Metric::Exact, exact, look)),
        })
    }

    fn losses(&self) -> Vec<Metric> {
        let judged = std::iter::once(self.valid).chain(self.exact);
        judged
            .filter(|judged| judged.verdict == Verdict::Worse)
            .map(|judged| judged.metric)
            .collect()
    }

    /// `valid 60.0% to 99.0%, exact 59.0% to 97.0%`.
    pub fn rates(&self) -> String {
        let [valid_base, valid] = self.valid_rates.map(percent);
        let [exact_base, exact] = self.exact_rates.map(|rate| or_na(rate, percent));
        let exact = if self.exact.is_some() {
            format!(", exact {exact_base} to {exact}")
        } else {
            String::new()
        };
        format!("valid {valid_base} to {valid}{exact}")
    }
}

impl RunOutcome {
    pub fn from_history(history: &RunState, best: Option<u64>) -> Self {
        let ruin = Ruin::ALL.into_iter().rfind(|ruin| {
            history
                .standing_alerts()
                .any(|alert| alert.rule.name == ruin.name())
        });
        let names = history.task_names();
        if names == [""] {
            return Self {
                ruin,
                ..Self::from_task(history, best)
            };
        }
        let of_task = |name: &&str| {
            (
                (*name).to_owned(),
                Self::from_task(&history.evals_of_task(name), best),
            )
        };
        let tasks: Vec<(String, Self)> = names.iter().map(of_task).collect();
        let base_is_best = tasks.iter().any(|(_, outcome)| outcome.base_is_best);
        Self {
            base_is_best,
            ruin,
            ended: history.end.is_some(),
            tasks,
            ..Self::default()
        }
    }

    fn from_task(history: &RunState, best: Option<u64>) -> Self {
        let mut sets = SetName::held_out(&[""]).into_iter();
        let result = sets.find_map(|set| history.result(&set, best));
        let latest = history.latest_eval(&PromptSet::Eval.into(), Target::Trained);
        let latest = latest.filter(|latest| result.is_none_or(|result| result.step != latest.step));
        Self {
            base_is_best: latest.is_some() && result.is_some_and(|result| result.step == 0),
            result: result.and_then(|eval| JudgedEval::from_eval(history, eval)),
            latest: latest.and_then(|eval| JudgedEval::from_eval(history, eval)),
            ruin: None,
            ended: history.end.is_some(),
            tasks: Vec::new(),
        }
    }

    /// Outcome of each task; the only one has an empty name.
    pub fn by_task(&self) -> Vec<(&str, &Self)> {
        match self.tasks.as_slice() {
            [] => vec![("", self)],
            tasks => tasks
                .iter()
                .map(|(name, outcome)| (name.as_str(), outcome))
                .collect(),
        }
    }

    pub fn is_known(&self) -> bool {
        self.base_is_best
            || self.ruin.is_some()
            || self
                .by_task()
                .iter()
                .any(|(_, task)| task.result.is_some() || task.fallen_eval().is_some())
    }

    /// The eval of one task that is compared with the base's wherever answers are shown: the result; where that is the
    /// base itself, the latest, which shows what training did ([`RunState::compared`]).
    pub fn compared(&self) -> Option<&JudgedEval> {
        self.result.as_ref().or(self.latest.as_ref())
    }

    /// Whether a metric of the result or of the latest eval is significantly below the base's.
    pub fn loses(&self, metric: Metric) -> bool {
        let judged = self
            .by_task()
            .into_iter()
            .flat_map(|(_, task)| task.result.iter().chain(&task.latest));
        judged
            .into_iter()
            .any(|judged| judged.losses().contains(&metric))
    }

    /// `None` where exact match was not measured. Of several tasks: worse if any is, better if any is and none is worse.
    fn verdicts(&self) -> (Verdict, Option<Verdict>) {
        if !self.tasks.is_empty() {
            let (valid, exact): (Vec<_>, Vec<_>) =
                self.tasks.iter().map(|(_, task)| task.verdicts()).unzip();
            let joined = |verdicts: Vec<Verdict>| {
                let has = |verdict| verdicts.contains(&verdict).then_some(verdict);
                has(Verdict::Worse)
                    .or(has(Verdict::Better))
                    .unwrap_or(Verdict::NoDifference)
            };
            let exact: Vec<Verdict> = exact.into_iter().flatten().collect();
            return (joined(valid), (!exact.is_empty()).then(|| joined(exact)));
        }
        let valid = self
            .result
            .as_ref()
            .map_or(Verdict::NoDifference, |result| result.valid.verdict);
        let exact = self
            .result
            .as_ref()
            .and_then(|result| result.exact)
            .map(|exact| exact.verdict);
        (
            if self.loses(Metric::Valid) {
                Verdict::Worse
            } else {
                valid
            },
            if self.loses(Metric::Exact) {
                Some(Verdict::Worse)
            } else {
                exact
            },
        )
    }

    pub fn document(&self) -> Value {
        let mut document = json!({"label": self.label(), "sentence": self.sentence(), "exact_below_base": self.loses(Metric::Exact),
            "result": self.result, "latest": self.latest});
        for (name, task) in &self.tasks {
            document["tasks"][name] = task.document();
        }
        document
    }

    /// The metrics that differ from the base's, and how; else what there is to say.
    fn relation(&self) -> Result<(&'static [&'static str], &'static str), &'static str> {
        use Verdict::{Better, Worse};
        match (self.verdicts(), self.ruin) {
            ((Worse, Some(Worse)), _) => Ok((&["valid", "exact"], "below")),
            ((_, Some(Worse)), _) => Ok((&["exact"], "below")),
            ((Worse, _), _) => Ok((&["valid"], "below")),
            (_, Some(ruin)) => Err(ruin.name()),
            ((Better, Some(Better)), _) => Ok((&["valid", "exact"], "above")),
            ((Better, _), _) => Ok((&["valid"], "above")),
            ((_, Some(Better)), _) => Ok((&["exact"], "above")),
            _ if self.base_is_best => Err("base is best"),
            _ if !self.is_known() => Err("not compared"),
            _ => Err("no difference"),
        }
    }

    /// In a few words, for lists.
    pub fn label(&self) -> String {
        match self.relation() {
            Ok(_) => self.than_base(" and ") + " base",
            Err(other) => other.to_owned(),
        }
    }

    /// [`Self::label`] beside a run: `vs base: no difference`; as it is where it may name no comparison.
    pub fn beside_base(&self) -> String {
        match self.ruin.is_some() || self.base_is_best {
            true => self.label(),
            false => format!("vs base: {}", self.than_base(" and ")),
        }
    }

    /// [`Self::label`] beside the word *base*: `valid and exact above`.
    pub fn than_base(&self, and: &str) -> String {
        match self.relation() {
            Ok((metrics, way)) => format!("{} {way}", metrics.join(and)),
            Err(other) => other.to_owned(),
        }
    }

    pub fn level(&self) -> Level {
        if self.ruin.is_some() {
            return Level::Warning;
        }
        let (valid, exact) = self.verdicts();
        MetricVerdict::level(valid, exact)
    }

    /// The rates of base and result with both verdicts, and the end of the run if it is below the base.
    pub fn sentence(&self) -> String {
        match self.ruin {
            Some(ruin) => format!("{}; the policy {ruin}", self.compared_sentence()),
            None => self.compared_sentence(),
        }
    }

    fn compared_sentence(&self) -> String {
        if !self.tasks.is_empty() {
            let sentences = self
                .tasks
                .iter()
                .map(|(name, task)| format!("{name}: {}", task.sentence()));
            return sentences.collect::<Vec<_>>().join("; ");
        }
        let mut text = match &self.result {
            Some(result) => {
                let verdict = MetricVerdict::sentence(result.valid, result.exact);
                format!(
                    "{} on the {} set (step {}): {verdict}",
                    result.rates(),
                    result.set,
                    result.step
                )
            }
            None if self.base_is_best => {
                "the best checkpoint is the base: no later one was better".to_owned()
            }
            None => "not compared with the base".to_owned(),
        };
        if let Some(fallen) = self.fallen() {
            text += &format!("; {fallen}");
        }
        text
    }

    /// The latest eval, if it is not the result and below the base.
    pub fn fallen_eval(&self) -> Option<&JudgedEval> {
        let latest = self
            .by_task()
            .into_iter()
            .filter_map(|(_, task)| task.latest.as_ref());
        latest
            .into_iter()
            .find(|latest| !latest.losses().is_empty())
    }

    pub fn fallen(&self) -> Option<String> {
        if !self.tasks.is_empty() {
            let fallen = self
                .tasks
                .iter()
                .filter_map(|(name, task)| Some(format!("{name}: {}", task.fallen()?)));
            return Some(fallen.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty());
        }
        let latest = self.fallen_eval()?;
        let when = if self.ended {
            "the run ends"
        } else {
            "the run is now"
        };
        let below: Vec<_> = latest.losses().into_iter().map(Metric::name).collect();
        let (below, rates, step) = (below.join(" and "), latest.rates(), latest.step);
        Some(format!(
            "{when} with {below} below the base: {rates} on the eval set (step {step})"
        ))
    }
}
