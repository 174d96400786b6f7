//! A comparison of evals, or a single one, as text, as Markdown and as CSV. The caller masks secrets.

use super::answer_diff::{Outcome, PairedComparison, Versus};
use super::eval_results::EvalResult;
use super::failure_groups::{FailureGroup, FailureGroups};
use super::significance::verdict;
use super::summary_table::{tables, value_drift};
use super::tables::csv_line;
use crate::facts::Tier;
use crate::format::counted;
use crate::page::{Block, Cell, Level, Row, Table, markdown, text};

/// Rates, then verdicts: the output of `eval`, and of `runs compare` for one run.
pub fn versus_text(versus: &Versus) -> String {
    text::render(&[versus_rates(versus), verdicts(versus)].concat())
}

/// For a pull request: verdicts, rates, outcomes, groups of failures, comments.
pub fn versus_markdown(versus: &Versus) -> String {
    let title = markdown::line(&title(versus));
    format!("### {title}\n{}", markdown::render(&page(versus)))
}

pub(super) fn title(versus: &Versus) -> String {
    let names: Vec<&str> = versus.evals.iter().map(|eval| eval.name.as_str()).collect();
    names.join(" vs ")
}

pub(super) fn page(versus: &Versus) -> Vec<Block> {
    let first = &versus.evals[0];
    let about = format!(
        "task {}, {} set, {}; {}",
        first.task,
        first.id.set,
        counted(versus.prompts.len(), "answer"),
        versus.schema()
    );
    let mut page = vec![Block::detail(about)];
    page.extend(verdicts(versus));
    page.extend(versus_rates(versus));
    page.extend(versus.pairs.iter().flat_map(|pair| outcomes(versus, pair)));
    page.extend(versus.evals.iter().flat_map(failures));
    if !versus.comments.is_empty() {
        let row = |(prompt, comment)| Row::new(prompt, [Cell::Text(comment)]);
        let rows = versus.comment_rows().into_iter().map(row).collect();
        page.push(Block::heading("Comments"));
        page.push(Block::Table(Table::new(&["prompt", "comment"], "ll", rows)));
    }
    page
}

pub fn versus_rates(versus: &Versus) -> Vec<Block> {
    let evals = versus.evals.iter();
    let evals: Vec<_> = evals
        .map(|eval| (eval.name.as_str(), &eval.summary))
        .collect();
    tables(&versus.evals[0].id.set, &evals)
}

fn verdicts(versus: &Versus) -> Vec<Block> {
    let mut page = Vec::new();
    for pair in &versus.pairs {
        if versus.pairs.len() > 1 {
            let [from, to] = names(versus, pair);
            page.push(Block::heading(format!("{from} to {to}")));
        }
        page.extend(verdict(&pair.valid, pair.exact.as_ref()));
    }
    // A comparison says it in its sentence.
    if let ([], Some(look)) = (versus.pairs.as_slice(), &versus.evals[0].look) {
        page.push(Block::detail(look.name()));
    }
    let mut records = versus.evals.iter().flat_map(|eval| &eval.records);
    if records.any(|record| record.sample > 0) {
        page.push(Block::detail(
            "intervals and p-values are clustered by prompt",
        ));
    }
    page.extend(
        versus
            .evals
            .last()
            .and_then(|eval| value_drift(&eval.summary)),
    );
    let warning = |warning: &String| Block::Finding(Level::Request, warning.clone());
    page.extend(versus.warnings.iter().map(warning));
    page
}

fn names<'a>(versus: &'a Versus, pair: &PairedComparison) -> [&'a str; 2] {
    [pair.first, pair.second].map(|eval| versus.evals[eval].name.as_str())
}

fn outcomes(versus: &Versus, pair: &PairedComparison) -> Vec<Block> {
    let [first, second] = names(versus, pair);
    let count = |outcome| Cell::Count(pair.count(outcome));
    let changed =
        |outcome: Outcome| Cell::Noted(Box::new(count(outcome)), outcome.name().to_owned());
    let head = [
        "prompts",
        &format!("valid in {second}"),
        &format!("not valid in {second}"),
    ];
    let rows = vec![
        Row::new(
            format!("valid in {first}"),
            [count(Outcome::Both), changed(Outcome::Broken)],
        ),
        Row::new(
            format!("not valid in {first}"),
            [changed(Outcome::Fixed), count(Outcome::Neither)],
        ),
    ];
    let broken = versus.prompts.iter().filter(|prompt| {
        prompt.sample == 0 && versus.outcome(prompt, pair) == Some(Outcome::Broken)
    });
    let broken: Vec<&str> = broken.map(|prompt| prompt.prompt_id.as_str()).collect();
    let regressions = format!("regressions: {}", broken.join(", "));
    let tier = |(tier, counts): (Tier, [usize; 3])| {
        Row::new(format!("{tier} in {first}"), counts.map(Cell::Count))
    };
    let tiers = Tier::ALL.into_iter().zip(pair.tiers).map(tier).collect();
    let columns = Tier::ALL.map(|tier| format!("{tier} in {second}"));
    let columns = [
        &["answers"],
        columns.each_ref().map(String::as_str).as_slice(),
    ]
    .concat();
    let regressions = (!broken.is_empty()).then(|| Block::info(regressions));
    [
        Block::heading(format!("{first} to {second}: outcomes")),
        Block::Table(Table::new(&head, "lr", rows)),
    ]
    .into_iter()
    .chain(regressions)
    .chain([Block::Table(Table::new(&columns, "lr", tiers))])
    .collect()
}

fn failures(eval: &EvalResult) -> Vec<Block> {
    let found = FailureGroups::for_eval(eval);
    if found.groups.is_empty() {
        return Vec::new();
    }
    let rows = found.groups.iter().map(FailureGroup::row).collect();
    let table = Table::new(&FailureGroups::HEADINGS, "lrrrl", rows);
    vec![Block::heading(found.title(&eval.name)), Block::Table(table)]
}

/// A line per prompt and sample: outcome, each eval's score and answer, comment.
pub fn versus_csv(versus: &Versus) -> String {
    const OF_EVAL: [&str; 7] = [
        "tier",
        "exact",
        "reward",
        "tokens",
        "truncated",
        "failure",
        "completion",
    ];
    let pair = versus.pairs.first();
    let of_evals = versus
        .evals
        .iter()
        .flat_map(|eval| OF_EVAL.map(|name| format!("{}.{name}", eval.name)));
    let own = ["prompt_id", "sample", "tags", "outcome"].map(str::to_owned);
    let heading: Vec<String> = own
        .into_iter()
        .chain(of_evals)
        .chain(["comment".to_owned()])
        .collect();
    let mut text = csv_line(&heading);
    for prompt in &versus.prompts {
        let record = |eval: usize| versus.record(prompt, eval);
        let tags = record(0).map_or_else(String::new, |record| record.tags.join(" "));
        let outcome = match pair {
            Some(pair) => versus.outcome(prompt, pair).map_or("", Outcome::name),
            None => versus.outcome_alone(prompt).map_or("", Outcome::name_alone),
        };
        let mut cells = vec![
            prompt.prompt_id.clone(),
            prompt.sample.to_string(),
            tags,
            outcome.to_owned(),
        ];
        for record in (0..versus.evals.len()).filter_map(record) {
            let exact = record
                .exact
                .map_or_else(String::new, |exact| exact.to_string());
            let failure = record.score["failure"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let (reward, tokens) = (
                record.reward.to_string(),
                record
                    .tokens
                    .map_or_else(String::new, |tokens| tokens.to_string()),
            );
            cells.extend([
                record.outcome().to_string(),
                exact,
                reward,
                tokens,
                record.truncated.to_string(),
                failure,
                record.completion.clone(),
            ]);
        }
        cells.push(versus.comment(&prompt.prompt_id));
        text += &csv_line(&cells);
    }
    text
}
