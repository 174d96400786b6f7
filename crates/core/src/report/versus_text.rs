//! A comparison of evals, or a single one, as Markdown and as CSV. The caller masks secrets.

use crate::format::counted;
use std::fmt::Write;

use super::answer_diff::{Outcome, PairedComparison, Versus};
use super::eval_results::EvalResult;
use super::failure_groups::{FailureGroup, FailureGroups};
use super::markdown::{line, table};
use super::summary_table::{call_rows, cost_rows, labelled, rate_rows, tag_rows, value_drift};
use super::tables::csv_line;

/// For a pull request: verdicts, rates, outcomes, groups of failures, comments.
pub fn versus_markdown(versus: &Versus) -> String {
    let names: Vec<String> = versus.evals.iter().map(|eval| line(&eval.name)).collect();
    let first = &versus.evals[0];
    let mut text = format!(
        "### {}\n\ntask {}, {} set, {}; {}\n",
        names.join(" vs "),
        line(&first.task),
        line(&first.id.set),
        counted(versus.prompts.len(), "answer"),
        versus.schema()
    );
    for pair in &versus.pairs {
        let (from, to) = (&names[pair.first], &names[pair.second]);
        // Writing into a String cannot fail.
        let _ = write!(text, "\n**{from} to {to}: {}**\n", line(&pair.sentence()));
        for metric in pair.metrics() {
            text.extend(
                metric
                    .lines()
                    .into_iter()
                    .map(|row| format!("\n- {}", line(&row))),
            );
        }
        text.push('\n');
    }
    let summaries: Vec<_> = versus.evals.iter().map(|eval| &eval.summary).collect();
    let rates = rate_rows(&summaries)
        .into_iter()
        .chain(call_rows(&summaries))
        .chain(cost_rows(&summaries));
    let tags = tag_rows(&summaries)
        .into_iter()
        .map(|row| (line(&row.label()), row.cells));
    text += &table(
        &[vec![String::new()], names.clone()].concat(),
        &labelled(rates.chain(tags)),
        "l",
    );
    text.extend(
        versus
            .pairs
            .iter()
            .map(|pair| outcomes(versus, pair, &names)),
    );
    for (eval, name) in versus.evals.iter().zip(&names) {
        text += &failures(eval, name);
    }
    if !versus.comments.is_empty() {
        let rows = versus
            .comment_rows()
            .into_iter()
            .map(|(prompt, comment)| vec![line(prompt), line(&comment)]);
        let _ = write!(
            text,
            "\n#### Comments\n{}",
            table(
                &["prompt".to_owned(), "comment".to_owned()],
                &rows.collect::<Vec<_>>(),
                "ll"
            )
        );
    }
    let drift = versus
        .evals
        .last()
        .map(|eval| value_drift(&eval.summary))
        .unwrap_or_default();
    let notes = versus
        .warnings
        .iter()
        .map(|warning| format!("\nnote: {}\n", line(warning)));
    text.extend(
        notes.chain((!drift.is_empty()).then(|| format!("\n{}", line(drift.trim())) + "\n")),
    );
    text
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

fn outcomes(versus: &Versus, pair: &PairedComparison, names: &[String]) -> String {
    let count = |outcome: Outcome| pair.count(outcome).to_string();
    let [first, second] = [pair.first, pair.second].map(|eval| &names[eval]);
    let head = [
        "prompts".to_owned(),
        format!("valid in {second}"),
        format!("not valid in {second}"),
    ];
    let rows = [
        vec![
            format!("valid in {first}"),
            count(Outcome::Both),
            format!("{} (regressions)", count(Outcome::Broken)),
        ],
        vec![
            format!("not valid in {first}"),
            format!("{} (improvements)", count(Outcome::Fixed)),
            count(Outcome::Neither),
        ],
    ];
    let broken = versus
        .prompts
        .iter()
        .filter(|prompt| versus.outcome(prompt, pair) == Some(Outcome::Broken));
    let broken: Vec<String> = broken
        .filter(|prompt| prompt.sample == 0)
        .map(|prompt| line(&prompt.prompt_id))
        .collect();
    let regressions = if broken.is_empty() {
        String::new()
    } else {
        format!("\nregressions: {}\n", broken.join(", "))
    };
    table(&head, &rows, "l") + &regressions
}

fn failures(eval: &EvalResult, name: &str) -> String {
    let found = FailureGroups::for_eval(eval);
    if found.groups.is_empty() {
        return String::new();
    }
    let cells = |group: &FailureGroup| group.cells().map(|cell| line(&cell)).to_vec();
    let rows: Vec<_> = found.groups.iter().map(cells).collect();
    format!(
        "\n#### {}\n{}",
        found.title(name),
        table(&FailureGroups::HEADINGS.map(str::to_owned), &rows, "lrrrl")
    )
}
