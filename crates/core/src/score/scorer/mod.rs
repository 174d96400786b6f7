//! A task's scorer: compiled once, used for every completion.

pub mod audit;
pub(super) mod batch;
pub mod mutants;
pub(super) mod unstated_values;

use crate::dataset::PromptRow;
use crate::facts::PartName;
use crate::score::answer::json::Place;
use crate::score::definition::Judge;
use crate::score::error::ScoreError;
use crate::score::grounded::Grounded;
use crate::score::task::{LengthRule, LengthUnit, PartValue, RewardPart, Task};
use crate::score::verdict::unwrap_answer::{ThinkRules, answer_start};
use crate::score::verdict::{
    Attempt, CriterionGrade, FailureClass, OrderedMap, QueryResult, Reason, Sampled, Score, Tier,
    Trial, Verdict, without_answer,
};
use crate::task::TierValues;

#[derive(Debug, thiserror::Error)]
#[error(
    "{who} failed on {failed} of {all} completions, more than max_scorer_errors allows: {reason}; fix it, try it with `grpo-tui {command}`, then start again"
)]
pub struct ScorerErrors {
    pub who: &'static str,
    pub command: &'static str,
    pub failed: usize,
    pub all: u32,
    /// Reason of the first failure.
    pub reason: String,
}

/// Scores completions of a task. Thread-safe; a score is a function of completion and row.
#[derive(Debug)]
pub struct Scorer {
    own: Rules,
    tiers: TierValues,
    parts: Vec<Part>,
    most_errors: f64,
    /// Subject and command of [`ScorerErrors`].
    may_fail: (&'static str, &'static str),
}

/// A judge, and the rewards of its verdicts.
#[derive(Debug)]
struct Rules {
    judge: Box<dyn Judge>,
    thoughts: ThinkRules,
    /// Whether invalid completions get partial credit.
    graded: bool,
    asks_model: bool,
    are_asked_together: bool,
    compares_group: bool,
}

/// A weighted part, added to the tier's value.
#[derive(Debug)]
struct Part {
    name: String,
    weight: f64,
    after_valid: bool,
    worth: Worth,
}

/// [`PartValue`], compiled.
#[derive(Debug)]
enum Worth {
    Fields,
    Exact,
    Tolerant,
    Chain,
    Grounded(Option<Grounded>),
    Length(LengthRule),
    Scored { by: Rules, expected: Option<String> },
}

#[derive(Debug, Clone, PartialEq)]
pub struct PartWeights(pub Vec<(String, f64)>);

impl Part {
    fn counts(&self, tier: Tier) -> bool {
        !self.after_valid || tier == Tier::Valid
    }

    /// Whether there is nothing to compare with: the part then has no value and adds nothing.
    fn is_unknown(&self, score: &Score, row: Option<&PromptRow>) -> bool {
        match &self.worth {
            Worth::Fields => score.fields.is_none() && score.exact.is_none(),
            Worth::Exact => score.exact.is_none(),
            Worth::Grounded(_) => row.is_none(),
            Worth::Length(length) => length.unit == LengthUnit::Tokens,
            Worth::Tolerant | Worth::Chain | Worth::Scored { .. } => false,
        }
    }

    fn scored_by(&self) -> Option<&Rules> {
        match &self.worth {
            Worth::Scored { by, .. } => Some(by),
            _ => None,
        }
    }

    /// The length rule if it counts tokens, which text does not show.
    fn token_length(&self) -> Option<LengthRule> {
        match self.worth {
            Worth::Length(length) if length.unit == LengthUnit::Tokens => Some(length),
            _ => None,
        }
    }

    /// The row with the part's own `expected`.
    fn row(&self, row: &PromptRow) -> PromptRow {
        let (reads_prompt, expected) = match &self.worth {
            Worth::Scored { by, expected } => (by.asks_model, expected.as_deref()),
            _ => (false, None),
        };
        PromptRow {
            id: row.id.clone(),
            messages: if reads_prompt {
                row.messages.clone()
            } else {
                Vec::new()
            },
            expected: expected.and_then(|field| row.fields.value(field)),
            tags: Vec::new(),
            fields: row.fields.clone(),
            line: row.line,
        }
    }
}

impl Rules {
    fn new(task: &Task) -> Result<Self, ScoreError> {
        let needs = task.definition.needs();
        Ok(Self {
            judge: task.definition.judge(task)?,
            thoughts: task.think_rules(),
            graded: task.score.graded,
            asks_model: needs.judge.is_some(),
            are_asked_together: needs.are_asked_together(),
            compares_group: needs.compare_group(),
        })
    }

    fn start(&self, completion: &str) -> usize {
        answer_start(completion, self.thoughts, |from| {
            self.judge.can_read(completion, from)
        })
    }

    fn judge(&self, completion: &str, row: Option<&PromptRow>) -> Verdict {
        if let Some(verdict) = without_answer(completion, row) {
            return verdict;
        }
        self.judge.judge(self.attempt(completion, row))
    }

    fn attempt<'a>(&self, completion: &'a str, row: Option<&'a PromptRow>) -> Attempt<'a> {
        Attempt {
            token_ids: &[],
            completion,
            from: self.start(completion),
            thoughts: self.thoughts,
            row,
        }
    }

    /// Verdicts in order; `None` once `keep_going` returns false.
    fn judge_all(
        &self,
        completions: &[Sampled<'_>],
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Verdict>> {
        let known: Vec<_> = completions
            .iter()
            .map(|(text, row, _)| without_answer(text, *row))
            .collect();
        let asked = completions
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none());
        let placed: Vec<_> = asked
            .map(|((text, row, token_ids), _)| Attempt {
                token_ids,
                ..self.attempt(text, *row)
            })
            .collect();
        let mut judged = self.judge.judge_together(&placed, keep_going)?.into_iter();
        known
            .into_iter()
            .map(|known| known.or_else(|| judged.next()))
            .collect()
    }

    fn try_program(
        &self,
        completion: &str,
        row: Option<&PromptRow>,
        part: Option<&str>,
    ) -> Option<Trial> {
        let answer = completion.get(self.start(completion)..).unwrap_or_default();
        let score = |verdict: Verdict| {
            let value = self.value(&verdict);
            alone(verdict, value)
        };
        let trial = self.judge.try_out(answer, row, &score)?;
        Some(Trial {
            part: part.map(str::to_owned),
            ..trial
        })
    }

    /// Value in [0, 1].
    fn value(&self, verdict: &Verdict) -> f64 {
        let of_tier = match verdict.tier {
            Tier::Unparsable => 0.0,
            Tier::Invalid => {
                0.5 + verdict
                    .credit
                    .filter(|_| self.graded)
                    .map_or(0.0, |credit| 0.5 * credit)
            }
            Tier::Valid => 1.0,
        };
        verdict.reward.unwrap_or(of_tier)
    }
}

impl Scorer {
    pub fn new(task: &Task) -> Result<Self, ScoreError> {
        let part = |part: &RewardPart| {
            let worth = match &part.value {
                PartValue::Fields => Worth::Fields,
                PartValue::Exact => Worth::Exact,
                PartValue::Tolerant => Worth::Tolerant,
                PartValue::Chain => Worth::Chain,
                PartValue::Grounded => Worth::Grounded(Grounded::new(&*task.definition, task)),
                PartValue::Length(length) => Worth::Length(*length),
                PartValue::Scored { task, expected } => Worth::Scored {
                    by: Rules::new(task)?,
                    expected: expected.clone(),
                },
            };
            Ok::<_, ScoreError>(Part {
                name: part.part.clone(),
                weight: part.weight,
                after_valid: part.after_valid,
                worth,
            })
        };
        let parts = task
            .rewards
            .iter()
            .filter(|part| part.weight != 0.0)
            .map(part)
            .collect::<Result<_, _>>()?;
        let most_errors = task
            .scorers()
            .map(|task| task.score.max_scorer_errors)
            .fold(1.0, f64::min);
        let may_fail = match (task.toolset(), task.agent()) {
            (Some(_), _) => ("a tool or the scorer", "task check"),
            (None, Some(_)) => ("the agent or the scorer", "sample"),
            (None, None) => ("the scorer", "score"),
        };
        Ok(Self {
            own: Rules::new(task)?,
            tiers: task.score.tiers,
            parts,
            most_errors,
            may_fail,
        })
    }

    /// Loads local judge models in advance; returns each digest by part name, empty for `[score]`.
    pub fn load_judges(&self) -> Result<Vec<(String, String)>, String> {
        let parts = self
            .parts
            .iter()
            .filter_map(|part| Some((part.name.as_str(), part.scored_by()?)));
        let all = std::iter::once(("", &self.own)).chain(parts);
        let loaded = all
            .map(|(name, rules)| Ok(rules.judge.load()?.map(|digest| (name.to_owned(), digest))));
        loaded.filter_map(Result::transpose).collect()
    }

    /// Rejects scores with too many scorer errors, as the remainder says little about the model.
    pub fn check_errors<'s>(
        &self,
        scores: impl Iterator<Item = &'s Score>,
    ) -> Result<(), ScorerErrors> {
        let (mut all, mut failed) = (0, Vec::new());
        for score in scores {
            all += 1;
            failed.extend((score.failure == Some(FailureClass::ScorerError)).then_some(score));
        }
        match failed.first() {
            Some(first) if failed.len() as f64 > self.most_errors * f64::from(all) => {
                let reason = first
                    .errors
                    .first()
                    .map_or_else(String::new, |reason| reason.message.clone());
                let (who, command) = self.may_fail;
                Err(ScorerErrors {
                    who,
                    command,
                    failed: failed.len(),
                    all,
                    reason,
                })
            }
            _ => Ok(()),
        }
    }

    /// Names in a schema's `format` that `assert_formats` does not check, since the validator does
    /// not know them.
    pub fn unknown_formats(&self) -> impl Iterator<Item = String> {
        self.own.judge.unknown_formats().into_iter()
    }

    /// The completion for a row's `expected`, for checks and as training target; `None` if it is
    /// not unique.
    pub fn expected_completion(
        &self,
        expected: &serde_json::Value,
        row: Option<&PromptRow>,
    ) -> Option<String> {
        self.own.judge.completion_of(expected, row)
    }

    /// Why no answer to this row can be scored, by the scorer or that of a part.
    pub fn row_problem(&self, row: &PromptRow) -> Option<String> {
        self.rules().find_map(|rules| rules.judge.row_problem(row))
    }

    /// Why a right answer to this row may count as wrong, by the scorer or that of a part.
    pub fn row_doubt(&self, row: &PromptRow) -> Option<String> {
        self.rules().find_map(|rules| rules.judge.row_doubt(row))
    }

    /// Results of a completion's query and of the expected one; `None` for other kinds, and unless
    /// both run.
    pub fn query_results(&self, completion: &str, row: &PromptRow) -> Option<[QueryResult; 2]> {
        let answer = completion.get(self.own.start(completion)..)?;
        self.own.judge.results(answer.trim(), row)
    }

    /// Scores a raw completion. The row supplies `expected` and other fields the scorer reads.
    pub fn score(&self, completion: &str, row: Option<&PromptRow>) -> Score {
        let own = self.own.judge(completion, row);
        let tier = own.tier;
        let of_part = |part: &Part| {
            let rules = part.scored_by().filter(|_| part.counts(tier))?;
            Some(rules.judge(completion, row.map(|row| part.row(row)).as_ref()))
        };
        self.score_of((completion, row), own, self.parts.iter().map(of_part))
    }

    /// Sets the part `chain` of a conversation's answers to the worst one's value. If one has no
    /// score, none has a reward.
    pub fn join(&self, answers: &mut [&mut Score]) {
        let Some(part) = self
            .parts
            .iter()
            .find(|part| matches!(part.worth, Worth::Chain))
        else {
            return;
        };
        if answers.iter().any(|score| score.is_error()) {
            for score in answers.iter_mut().filter(|score| !score.is_error()) {
                let start = Place { line: 1, column: 1 };
                score.errors.push(Reason::at(
                    "another answer of the conversation is not scored".to_owned(),
                    start,
                ));
                (score.reward, score.failure) = (f64::NAN, Some(FailureClass::ScorerError));
                score.parts = OrderedMap::default();
            }
            return;
        }
        let worst = answers
            .iter()
            .map(|score| own_value(score))
            .fold(f64::INFINITY, f64::min);
        for score in answers.iter_mut().filter(|score| part.counts(score.tier)) {
            if let Some((_, value)) = score
                .parts
                .0
                .iter_mut()
                .find(|(name, _)| *name == part.name)
            {
                score.reward += part.weight * (worst - *value);
                *value = worst;
            }
        }
    }

    pub fn add_length(&self, score: &mut Score, tokens: usize) {
        let counted = |part| Some((part, Part::token_length(part)?));
        let Some((part, length)) = self.parts.iter().find_map(counted) else {
            return;
        };
        if !score.is_error() && score.part(PartName::Length).is_none() {
            let value = if part.counts(score.tier) {
                length.value(tokens)
            } else {
                0.0
            };
            score.reward += part.weight * value;
            score.parts.0.push((part.name.clone(), value));
        }
    }

    /// Whether a part counts tokens, so that text alone does not determine the reward.
    pub fn counts_tokens(&self) -> bool {
        self.parts.iter().any(|part| part.token_length().is_some())
    }

    pub fn part_weights(&self) -> PartWeights {
        let graded = self.own.graded.then(|| {
            (
                PartName::Graded.name().to_owned(),
                self.tiers.valid - self.tiers.invalid,
            )
        });
        let parts = self
            .parts
            .iter()
            .map(|part| (part.name.clone(), part.weight));
        PartWeights(
            std::iter::once((PartName::Tier.name().to_owned(), 1.0))
                .chain(graded)
                .chain(parts)
                .collect(),
        )
    }

    fn rules(&self) -> impl Iterator<Item = &Rules> {
        std::iter::once(&self.own).chain(self.parts.iter().filter_map(Part::scored_by))
    }

    /// Whether a program or a judge is asked.
    pub fn runs_programs(&self) -> bool {
        self.rules().any(|rules| rules.are_asked_together)
    }

    /// The run's last step and its `max_steps`, for functions that ask for `trainer_state`.
    pub fn set_progress(&self, step: u64, max_steps: u64) {
        self.rules()
            .for_each(|rules| rules.judge.set_progress(step, max_steps));
    }

    pub fn asks_judge(&self) -> bool {
        self.rules().any(|rules| rules.asks_model)
    }

    /// Score without weighted parts.
    pub(crate) fn score_alone(&self, (completion, row): (&str, Option<&PromptRow>)) -> Score {
        let verdict = self.own.judge(completion, row);
        let value = self.own.value(&verdict);
        alone(verdict, value)
    }

    pub fn compares_groups(&self) -> bool {
        self.rules().any(|rules| rules.compares_group)
    }

    /// Scores in order, from each judge's verdicts on all completions; `None` once `keep_going`
    /// returns false.
    pub(crate) fn score_together(
        &self,
        completions: &[Sampled<'_>],
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Score>> {
        let own = self.own.judge_all(completions, keep_going)?;
        let of_part = |part: &Part| {
            let Some(rules) = part.scored_by() else {
                return Some(None);
            };
            let counts = completions
                .iter()
                .zip(&own)
                .filter(|(_, own)| part.counts(own.tier));
            let rows: Vec<_> = counts
                .map(|((text, row, ids), _)| (*text, row.map(|row| part.row(row)), *ids))
                .collect();
            let asked: Vec<_> = rows
                .iter()
                .map(|(text, row, ids)| (*text, row.as_ref(), *ids))
                .collect();
            rules
                .judge_all(&asked, keep_going)
                .map(|verdicts| Some(verdicts.into_iter()))
        };
        let mut of_parts: Vec<_> = self.parts.iter().map(of_part).collect::<Option<_>>()?;
        let score = |(own, completion): (Verdict, &Sampled<'_>)| {
            let tier = own.tier;
            let verdicts = of_parts.iter_mut().zip(&self.parts);
            let verdicts = verdicts
                .map(|(verdicts, part)| verdicts.as_mut().filter(|_| part.counts(tier))?.next());
            self.score_of((completion.0, completion.1), own, verdicts)
        };
        Some(own.into_iter().zip(completions).map(score).collect())
    }

    /// `of_parts`: verdict of each part's own scorer, if any.
    fn score_of(
        &self,
        completion: (&str, Option<&PromptRow>),
        found: Verdict,
        of_parts: impl Iterator<Item = Option<Verdict>>,
    ) -> Score {
        let value = match found.tier {
            Tier::Unparsable => self.tiers.unparsable,
            Tier::Invalid => self.tiers.invalid,
            Tier::Valid => self.tiers.valid,
        };
        let (credit, given) = (found.credit, found.reward);
        let mut score = alone(found, given.unwrap_or(value));
        if !score.is_error() {
            given
                .into_iter()
                .for_each(|reward| score.add_part(PartName::Score, reward));
            self.add_parts(&mut score, completion, credit, of_parts);
        }
        score
    }

    /// Runs each scoring program on a completion in a new process.
    pub fn try_programs(&self, completion: &str, row: Option<&PromptRow>) -> Vec<Trial> {
        let of_part = |part: &Part| {
            let row = row.map(|row| part.row(row));
            part.scored_by()
                .and_then(|rules| rules.try_program(completion, row.as_ref(), Some(&part.name)))
        };
        let own = self.own.try_program(completion, row, None);
        own.into_iter()
            .chain(self.parts.iter().filter_map(of_part))
            .collect()
    }

    /// Graded credit stays below the next tier; weighted parts are added on top.
    fn add_parts(
        &self,
        score: &mut Score,
        (completion, row): (&str, Option<&PromptRow>),
        credit: Option<f64>,
        of_parts: impl Iterator<Item = Option<Verdict>>,
    ) {
        if self.parts.is_empty() && !self.own.graded {
            return;
        }
        score.add_part(PartName::Tier, score.reward);
        if let Some(credit) = credit.filter(|_| self.own.graded) {
            score.reward += (self.tiers.valid - self.tiers.invalid) * credit;
            score.add_part(PartName::Graded, credit);
        }
        for (part, verdict) in self.parts.iter().zip(of_parts) {
            // Parts without a reference stay unknown; others are 0 for invalid answers.
            if part.is_unknown(score, row) {
                continue;
            }
            let value = match &part.worth {
                _ if !part.counts(score.tier) => 0.0,
                Worth::Scored { by, .. } => {
                    let has_reward = |own: &Verdict| own.failure != Some(FailureClass::NoReward);
                    let Some(verdict) = verdict.filter(has_reward) else {
                        continue;
                    };
                    let value = by.value(&verdict);
                    take_part(score, &part.name, verdict);
                    if score.is_error() {
                        (score.reward, score.parts) = (f64::NAN, OrderedMap::default());
                        return;
                    }
                    value
                }
                Worth::Chain => own_value(score),
                Worth::Grounded(grounded) => match grounded.as_ref().zip(row) {
                    Some(sought) => self.ground(sought, score, completion),
                    None => 0.0,
                },
                Worth::Length(length) => length.value(completion.len()),
                Worth::Fields => share_of_fields(score),
                Worth::Exact => f64::from(u8::from(score.exact == Some(true))),
                Worth::Tolerant => f64::from(u8::from(score.tolerant)),
            };
            score.reward += part.weight * value;
            score.parts.0.push((part.name.clone(), value));
        }
    }

    /// Share of the answer's values that the prompt states; records their places in the score.
    fn ground(
        &self,
        (grounded, row): (&Grounded, &PromptRow),
        score: &mut Score,
        completion: &str,
    ) -> f64 {
        let attempt = self.own.attempt(completion, Some(row));
        let values = self.own.judge.stated_values(attempt);
        let grounding = grounded.ground(completion, &values, row);
        score.errors.extend(grounding.missing);
        score.grounded = grounding.values;
        grounding.share
    }
}

fn alone(found: Verdict, reward: f64) -> Score {
    Score {
        reward: if found.is_error() { f64::NAN } else { reward },
        tier: found.tier,
        tolerant: found.tolerant,
        warnings: found.warnings,
        errors: found.errors,
        fields: found.fields,
        leaves: found.leaves,
        exact: found.exact,
        failure: found.failure,
        parts: OrderedMap::default(),
        metrics: found.metrics,
        grounded: Vec::new(),
        criteria: found.criteria,
    }
}

/// An answer's value for its conversation, in [0, 1]: by tier, or its program's number.
fn own_value(score: &Score) -> f64 {
    let of_tier = match score.tier {
        Tier::Unparsable => 0.0,
        Tier::Invalid => 0.5,
        Tier::Valid => 1.0,
    };
    score.part(PartName::Score).unwrap_or(of_tier)
}

/// Merges a part's failure into a score: reasons and metrics prefixed with the part's name, failure
/// class if none is set. A failed part makes the reward unknown.
fn take_part(score: &mut Score, name: &str, verdict: Verdict) {
    if verdict.is_error() {
        (score.failure, score.errors) = (verdict.failure, Vec::new());
    } else if score.failure.is_none()
        && let Some(class) = verdict.failure
    {
        score.failure =
            Some(FailureClass::from_key(&format!("{name}-{}", class.key())).unwrap_or(class));
    }
    let graded = verdict.criteria.into_iter();
    score.criteria.extend(graded.map(|grade| CriterionGrade {
        name: format!("{name}-{}", grade.name),
        ..grade
    }));
    let named = |reason: Reason| Reason {
        message: format!("{name}: {}", reason.message),
        ..reason
    };
    score.errors.extend(verdict.errors.into_iter().map(named));
    score.warnings.extend(
        verdict
            .warnings
            .into_iter()
            .map(|warning| format!("{name}: {warning}")),
    );
    score.metrics.0.extend(
        verdict
            .metrics
            .0
            .into_iter()
            .map(|(metric, value)| (format!("{name}-{metric}"), value)),
    );
}

/// What its leaves earn, else the share of equal fields.
fn share_of_fields(score: &Score) -> f64 {
    let fields = score.fields.as_ref().filter(|fields| !fields.is_empty());
    match (fields, &score.leaves) {
        (None, _) => 0.0,
        (Some(_), Some(leaves)) => leaves.credit,
        (Some(fields), None) => {
            let equal = fields.iter().filter(|(_, equal)| **equal).count();
            equal as f64 / fields.len() as f64
        }
    }
}
