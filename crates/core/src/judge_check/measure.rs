//! Measures judges on labelled answers: repeated, in reverse order, and with an injected
//! instruction.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::labels::{Label, criterion_name};
use super::saved::{CriterionCheck, JudgeCheck, Shift};
use crate::dataset::PromptRow;
use crate::score::{
    Asker, Grade, Graded, INSTRUCTION, Question, RubricRules, ScoreError, Task, TaskJudge,
};
use crate::statistics::{Interval, correlation, kappa, student_mean, wilson};

#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Score(#[from] ScoreError),
    #[error("{0}")]
    Labels(String),
    #[error("the judge graded none of the {labels} labelled answers: {reason}")]
    NoGrade { labels: usize, reason: String },
}

#[derive(Debug, Clone, Copy)]
pub struct CheckSize {
    pub repeats: usize,
    /// Whether to test reverse order and injected instructions.
    pub is_probing: bool,
}

/// Checks each judge of a task. `rows`: by id. `on_pass` is called before each set of questions.
///
/// # Errors
/// [`CheckError`]: a judge that may not or cannot be asked, a label of an unknown prompt.
pub fn check_judges(
    task: &Task,
    labels: &[Label],
    rows: &HashMap<String, PromptRow>,
    size: CheckSize,
    mut on_pass: impl FnMut(&str),
) -> Result<Vec<JudgeCheck>, CheckError> {
    let mut found = Vec::new();
    for judge in task.judges() {
        let expected = task
            .rewards
            .iter()
            .find(|reward| Some(reward.part.as_str()) == judge.part);
        let expected = expected.map(|reward| reward.expected());
        let answers = answers(judge.task, labels, rows, expected)?;
        found.push(check_judge(judge, &answers, size, &mut on_pass)?);
    }
    Ok(found)
}

struct Labelled<'a> {
    row: PromptRow,
    answer: String,
    labels: &'a BTreeMap<String, u8>,
}

/// `expected`: the field that a part of the reward compares with.
fn answers<'a>(
    judged: &Task,
    labels: &'a [Label],
    rows: &HashMap<String, PromptRow>,
    expected: Option<Option<&str>>,
) -> Result<Vec<Labelled<'a>>, CheckError> {
    let labelled = |label: &'a Label| {
        let row = rows.get(&label.prompt_id).ok_or_else(|| {
            let Label { line, prompt_id, .. } = label;
            CheckError::Labels(format!(
                "line {line}: no prompt {prompt_id:?} in the task's sets: correct prompt_id, or remove the line"
            ))
        })?;
        let mut row = row.clone();
        if let Some(field) = expected {
            row.expected = field.and_then(|field| row.fields.value(field));
        }
        Ok(Labelled {
            row,
            answer: judged.answer_of(&label.completion).to_owned(),
            labels: &label.labels,
        })
    };
    labels.iter().map(labelled).collect()
}

type Pass = Vec<Result<Vec<Grade>, String>>;

fn check_judge(
    TaskJudge { part, task, rules }: TaskJudge<'_>,
    answers: &[Labelled<'_>],
    size: CheckSize,
    on_pass: &mut impl FnMut(&str),
) -> Result<JudgeCheck, CheckError> {
    let begun = Instant::now();
    let asker = rules.asker(task)?;
    let no_judge = |problem| ScoreError::NoJudge {
        task: task.name.clone(),
        problem,
    };
    let model_digest = asker.local_digest().map_err(no_judge)?;
    let texts: Vec<&str> = answers
        .iter()
        .map(|labelled| labelled.answer.as_str())
        .collect();
    on_pass("the labelled answers");
    let first = pass(&asker, rules, answers, &texts, false, true);
    let graded = first.iter().filter(|grades| grades.is_ok()).count();
    if let (0, Some(Err(reason))) = (graded, first.first()) {
        return Err(CheckError::NoGrade {
            labels: answers.len(),
            reason: reason.clone(),
        });
    }
    let again: Vec<Pass> = (0..size.repeats)
        .map(|time| {
            on_pass(&format!("the same again, {} of {}", time + 1, size.repeats));
            pass(&asker, rules, answers, &texts, false, false)
        })
        .collect();
    let (mut order, mut instruction) = (None, None);
    if size.is_probing {
        on_pass("in reverse order");
        order = shift(
            rules,
            &first,
            &pass(&asker, rules, answers, &texts, true, false),
        );
        let instructed: Vec<String> = texts
            .iter()
            .map(|text| format!("{text}\n\n{INSTRUCTION}"))
            .collect();
        let instructed: Vec<&str> = instructed.iter().map(String::as_str).collect();
        on_pass("with an instruction to the judge in them");
        instruction = shift(
            rules,
            &first,
            &pass(&asker, rules, answers, &instructed, false, false),
        );
    }
    let usage = asker.usage();
    let per_request = |sum: f64| (usage.requests > 0).then(|| sum / usage.requests as f64);
    Ok(JudgeCheck {
        part: part.map(str::to_owned),
        model: rules.endpoint.model.clone(),
        base_url: rules.endpoint.base_url.clone(),
        model_digest,
        rubric_digest: rules.rubric_digest(),
        date: jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
        answers: graded,
        unanswered: answers.len() - graded,
        criteria: agreements(part, rules, answers, &first),
        repeated: same_each_time(&first, &again),
        repeats: size.repeats,
        order,
        instruction,
        length: length_bias(part, rules, answers, &first),
        cost_per_request: usage.known_cost().and_then(per_request),
        tokens_per_request: per_request((usage.prompt_tokens + usage.tokens) as f64)
            .filter(|tokens| *tokens > 0.0),
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn pass(
    asker: &Asker,
    rules: &RubricRules,
    answers: &[Labelled<'_>],
    texts: &[&str],
    is_reversed: bool,
    is_cached: bool,
) -> Pass {
    let mut questions: Vec<Question<'_>> = Vec::new();
    let mut places = Vec::with_capacity(answers.len());
    let mut group_of: HashMap<&str, usize> = HashMap::new();
    for (labelled, text) in answers.iter().zip(texts) {
        let new = questions.len();
        let group = match rules.compares_group {
            true => *group_of.entry(labelled.row.id.as_str()).or_insert(new),
            false => new,
        };
        if group == new {
            questions.push(Question {
                row: Some(&labelled.row),
                answers: Vec::new(),
                is_reversed,
            });
        }
        places.push((group, questions[group].answers.len()));
        questions[group].answers.push(text);
    }
    let graded: Vec<Graded> = asker
        .grade_all(&questions, is_cached, &|| true)
        .unwrap_or_default();
    let of_answer = |(group, at): (usize, usize)| match graded.get(group) {
        Some(Ok(grades)) => grades
            .get(at)
            .cloned()
            .ok_or_else(|| "the judge was not asked".to_owned()),
        Some(Err(why)) => Err(why.clone()),
        None => Err("the judge was not asked".to_owned()),
    };
    places.into_iter().map(of_answer).collect()
}

fn agreements(
    part: Option<&str>,
    rules: &RubricRules,
    answers: &[Labelled<'_>],
    first: &Pass,
) -> Vec<CriterionCheck> {
    let of_criterion = |(index, criterion): (usize, &crate::score::Criterion)| {
        let name = criterion_name(part, &criterion.name);
        let pair = |(labelled, grades): (&Labelled<'_>, &Result<Vec<Grade>, String>)| {
            Some((
                *labelled.labels.get(&name)?,
                grades.as_ref().ok()?.get(index)?.points,
            ))
        };
        let pairs: Vec<(u8, u8)> = answers.iter().zip(first).filter_map(pair).collect();
        let differences: Vec<f64> = pairs
            .iter()
            .map(|(human, judge)| f64::from(*judge) - f64::from(*human))
            .collect();
        let most = criterion.scale.max_points();
        CriterionCheck {
            max_points: most,
            n: pairs.len(),
            agreement: (!pairs.is_empty()).then(|| {
                rate(
                    pairs.iter().filter(|(human, judge)| human == judge).count(),
                    pairs.len(),
                )
            }),
            kappa: kappa(&pairs, most, most > 1),
            difference: student_mean(&differences),
            name,
        }
    };
    rules
        .criteria
        .iter()
        .enumerate()
        .map(of_criterion)
        .collect()
}

/// `n` > 0.
fn rate(equal: usize, n: usize) -> Interval {
    let (low, high) = wilson(equal, n);
    Interval {
        estimate: equal as f64 / n as f64,
        low,
        high,
    }
}

/// Marks of the first pass equal in all others.
fn same_each_time(first: &Pass, again: &[Pass]) -> Option<Interval> {
    let (mut same, mut all) = (0, 0);
    for (index, grades) in first.iter().enumerate() {
        let Ok(grades) = grades else { continue };
        let others: Option<Vec<&Vec<Grade>>> =
            again.iter().map(|pass| pass[index].as_ref().ok()).collect();
        let Some(others) = others.filter(|others| !others.is_empty()) else {
            continue;
        };
        for (criterion, grade) in grades.iter().enumerate() {
            all += 1;
            same += usize::from(
                others
                    .iter()
                    .all(|other| other[criterion].points == grade.points),
            );
        }
    }
    (all > 0).then(|| rate(same, all))
}

fn shift(rules: &RubricRules, first: &Pass, other: &Pass) -> Option<Shift> {
    let both: Vec<_> = first
        .iter()
        .zip(other)
        .filter_map(|(one, other)| Some((one.as_ref().ok()?, other.as_ref().ok()?)))
        .collect();
    let marks = both
        .iter()
        .flat_map(|(one, other)| one.iter().zip(other.iter()));
    let same = marks
        .clone()
        .filter(|(one, other)| one.points == other.points)
        .count();
    let changes: Vec<f64> = both
        .iter()
        .map(|(one, other)| share(rules, other) - share(rules, one))
        .collect();
    (!both.is_empty()).then(|| Shift {
        answers: both.len(),
        same: rate(same, marks.count()),
        change: student_mean(&changes),
    })
}

fn share(rules: &RubricRules, grades: &[Grade]) -> f64 {
    rules.share(grades.iter().map(|grade| grade.points))
}

fn length_bias(
    part: Option<&str>,
    rules: &RubricRules,
    answers: &[Labelled<'_>],
    first: &Pass,
) -> Option<Interval> {
    let names: Vec<String> = rules
        .criteria
        .iter()
        .map(|criterion| criterion_name(part, &criterion.name))
        .collect();
    let pair = |(labelled, grades): (&Labelled<'_>, &Result<Vec<Grade>, String>)| {
        let human: Vec<u8> = names
            .iter()
            .map(|name| labelled.labels.get(name).copied())
            .collect::<Option<_>>()?;
        let difference = share(rules, grades.as_ref().ok()?) - rules.share(human.into_iter());
        Some((labelled.answer.chars().count() as f64, difference))
    };
    correlation(
        &answers
            .iter()
            .zip(first)
            .filter_map(pair)
            .collect::<Vec<_>>(),
    )
}
