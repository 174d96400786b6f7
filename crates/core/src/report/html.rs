//! HTML pages of a run and of compared evals, each one self-contained file. The markup is in `templates/`; all text is
//! masked and escaped here.

mod charts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::Serde;
use minijinja::{Environment, HtmlEscape, UndefinedBehavior, Value, context};
use serde_json::json;

use super::answer_diff::{ComparedPrompt, Outcome, Versus};
use super::error::ReportError;
use super::eval_pair::{EvalPair, TaskSection};
use super::event_text::event_text;
use super::run_page::{self, eval_table, key_table};
use super::run_report::Report;
use super::run_row::configuration;
use super::versus_text;
use crate::facts::TierOutcome;
use crate::page::html::values;
use crate::page::{Block, Cell, Row, Table};
use crate::run::{EvalRecord, EventBody};
use crate::secrets::{redact, visible_letter};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// UTF-8.
    pub text: String,
    pub masked: usize,
}

impl Page {
    pub fn masked(text: &str) -> Self {
        let (text, masked) = redact(text);
        Self {
            text: text.into_owned(),
            masked,
        }
    }
}

const TEMPLATES: [(&str, &str); 5] = [
    ("page.html", include_str!("templates/page.html")),
    ("page.css", include_str!("templates/page.css")),
    ("parts.html", include_str!("templates/parts.html")),
    ("run.html", include_str!("templates/run.html")),
    ("answers.html", include_str!("templates/answers.html")),
];

pub fn html(report: &Report) -> Result<Page, ReportError> {
    let (file, history) = (report.directory.file(), &report.history);
    let tasks = TaskSection::all(report);
    let section = |task: &TaskSection<'_>| {
        let examples = task.pair.as_ref().map(changed_answers).unwrap_or_default();
        json!({"page": values(&run_page::failures(report, task)), "examples": examples})
    };
    let all_keys = key_table(configuration(file).into_iter().map(|(_, row)| row));
    let end = [happenings(report), run_page::configuration(report)].concat();
    render(
        "run.html",
        context! {
            title => format!("{} · {}", report.directory.id(), file.task),
            name => Some(report.directory.name()).filter(|name| !name.is_empty()).unwrap_or(&file.id),
            summary => Serde(values(&run_page::summary(report))),
            results => Serde(values(&run_page::results(report, &tasks))),
            charts => charts::charts(report),
            measures_kl => file.config.kl_beta != 0.0 || history.metrics.contains_key("kl"),
            sections => Serde(tasks.iter().map(section).collect::<Vec<_>>()),
            evals => Serde(values(&[Block::Table(eval_table(history.evals.values()))])),
            many_evals => history.evals.len() > 30,
            end => Serde(values(&end)),
            all_keys => Serde(values(&[Block::Table(all_keys)])),
            provenance => Serde(values(&[provenance(report)])),
        },
    )
}

pub fn versus_html(versus: &Versus) -> Result<Page, ReportError> {
    let examples = match versus.pairs.first() {
        Some(pair) => {
            let evals = [pair.first, pair.second];
            let all = |title: &str, is_shown: &dyn Fn(&ComparedPrompt) -> bool| {
                answers(
                    versus,
                    title,
                    &evals,
                    versus
                        .prompts
                        .iter()
                        .filter(|prompt| is_shown(prompt))
                        .collect(),
                )
            };
            let outcome = |outcome: Outcome| {
                all(outcome.name(), &|prompt| {
                    versus.outcome(prompt, pair) == Some(outcome)
                })
            };
            // Among answers that are valid in both.
            let exact = |title: &str, expected: [bool; 2]| {
                let is_exact =
                    |prompt: &ComparedPrompt, eval: usize| versus.record(prompt, eval)?.exact;
                all(title, &|prompt| {
                    versus.outcome(prompt, pair) == Some(Outcome::Both)
                        && evals.map(|eval| is_exact(prompt, eval)) == expected.map(Some)
                })
            };
            let changed = [outcome(Outcome::Broken), outcome(Outcome::Fixed)];
            let values = [
                exact("no longer exact, valid in both", [true, false]),
                exact("newly exact, valid in both", [false, true]),
            ];
            changed
                .into_iter()
                .chain(values)
                .chain([outcome(Outcome::Neither)])
                .flatten()
                .collect()
        }
        None => {
            let fails = |prompt: &&ComparedPrompt| {
                versus
                    .record(prompt, 0)
                    .is_some_and(|record| !record.is_valid())
            };
            Vec::from_iter(answers(
                versus,
                "not valid",
                &[0],
                versus.prompts.iter().filter(fails).collect(),
            ))
        }
    };
    render(
        "answers.html",
        context! {
            title => format!("{} · {}", versus_text::title(versus), versus.evals[0].task),
            heading => versus_text::title(versus),
            page => Serde(values(&versus_text::page(versus))),
            examples => Serde(examples),
        },
    )
}

/// The formatter masks and escapes everything that a template prints, except charts and the results of macros.
fn render(template: &str, context: Value) -> Result<Page, ReportError> {
    let masked = Arc::new(AtomicUsize::new(0));
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, source) in TEMPLATES {
        environment.add_template(name, source)?;
    }
    let count = Arc::clone(&masked);
    environment.set_formatter(move |output, _, value| {
        let markup = if value.is_safe() {
            value.to_string()
        } else {
            escaped(&value.to_string(), usize::MAX, &count)
        };
        Ok(output.write_str(&markup)?)
    });
    let count = Arc::clone(&masked);
    environment.add_filter("shorten", move |text: &str, most: usize| {
        Value::from_safe_string(escaped(text, most, &count))
    });
    let text = environment.get_template(template)?.render(context)?;
    Ok(Page {
        text,
        masked: masked.load(Ordering::Relaxed),
    })
}

/// Masks and counts secrets, cuts after `most` characters, makes control characters visible, and escapes.
fn escaped(text: &str, most: usize, masked: &AtomicUsize) -> String {
    let (clean, secrets) = redact(text);
    masked.fetch_add(secrets, Ordering::Relaxed);
    // Some control characters change the reading direction.
    let visible = clean
        .chars()
        .take(most)
        .map(|letter| {
            if ['\n', '\t'].contains(&letter) {
                letter
            } else {
                visible_letter(letter)
            }
        })
        // No characters in XML.
        .map(|letter| {
            if ['\u{FFFE}', '\u{FFFF}'].contains(&letter) {
                '\u{FFFD}'
            } else {
                letter
            }
        });
    let cut = if clean.chars().nth(most).is_some() {
        "…"
    } else {
        ""
    };
    format!("{}{cut}", HtmlEscape(&visible.collect::<String>()))
}

/// The first answers that one metric tells apart, base beside trained.
fn changed_answers<'a>(pair: &'a EvalPair) -> Vec<serde_json::Value> {
    const SHOWN: usize = 5;
    type Metric = fn(&EvalRecord) -> Option<bool>;
    let before: BTreeMap<(&str, usize), &EvalRecord> = pair
        .before
        .iter()
        .map(|record| ((record.prompt_id.as_str(), record.sample), record))
        .collect();
    let both = |after: &'a EvalRecord| {
        Some((
            *before.get(&(after.prompt_id.as_str(), after.sample))?,
            after,
        ))
    };
    let pairs: Vec<_> = pair.after.iter().filter_map(both).collect();
    let valid: Metric = |record| Some(record.is_valid());
    // Among valid answers only: the other lists have those whose validity changed.
    let exact: Metric = |record| record.exact.filter(|_| record.is_valid());
    let kinds = [
        ("Improvements on valid", valid, true),
        ("Regressions on valid", valid, false),
        ("Improvements on exact among valid answers", exact, true),
        ("Regressions on exact among valid answers", exact, false),
    ];
    let kind = |(title, metric, better): (&str, Metric, bool)| {
        let changed = |(before, after): &&(&EvalRecord, &EvalRecord)| {
            (metric(before), metric(after)) == (Some(!better), Some(better))
        };
        let found: Vec<_> = pairs.iter().filter(changed).collect();
        let shown = found
            .iter()
            .take(SHOWN)
            .map(|(before, after)| json!({"id": after.prompt_id, "answers": [answer("base", before), answer(&pair.after_name, after)]}));
        let title = format!(
            "{title}: {} of {} shown, {} prompts",
            found.len().min(SHOWN),
            found.len(),
            pair.set
        );
        (!found.is_empty()).then(|| json!({"title": title, "prompts": shown.collect::<Vec<_>>()}))
    };
    kinds.into_iter().filter_map(kind).collect()
}

fn answers(
    versus: &Versus,
    title: &str,
    evals: &[usize],
    found: Vec<&ComparedPrompt>,
) -> Option<serde_json::Value> {
    const SHOWN: usize = 20;
    let title = format!(
        "{title}: {} of {} shown",
        found.len().min(SHOWN),
        found.len()
    );
    let of = |prompt: &ComparedPrompt, eval: usize| {
        Some(answer(
            &versus.evals[eval].name,
            versus.record(prompt, eval)?,
        ))
    };
    let prompt = |prompt: &&ComparedPrompt| json!({"id": prompt.prompt_id, "answers": evals.iter().filter_map(|eval| of(prompt, *eval)).collect::<Vec<_>>()});
    (!found.is_empty())
        .then(|| json!({"title": title, "prompts": found.iter().take(SHOWN).map(prompt).collect::<Vec<_>>()}))
}

fn answer(name: &str, record: &EvalRecord) -> serde_json::Value {
    let reason = record.score["errors"][0]["message"]
        .as_str()
        .unwrap_or_default();
    let (tier, is_good) = match (record.outcome(), record.exact) {
        (TierOutcome::Valid, Some(true)) => ("valid, exact", true),
        (TierOutcome::Valid, Some(false)) => ("valid, not exact", false),
        (tier, _) => (tier.name(), record.is_valid()),
    };
    json!({"name": name, "tier": tier, "good": is_good, "reason": reason, "completion": record.completion})
}

fn happenings(report: &Report) -> Vec<Block> {
    let history = &report.history;
    let controls = history.controls.iter().cloned().map(EventBody::Control);
    let alerts = history.alerts.values().cloned().map(EventBody::Alert);
    let notes = history.notes.iter();
    let notes = notes.map(|(_, note)| EventBody::Note(note.clone()));
    let events = controls.chain(alerts).chain(notes);
    let events: Vec<String> = events
        .filter_map(|event| Some(event_text(&event, 0)?.1))
        .collect();
    let mut page = Vec::new();
    if !events.is_empty() {
        page.extend([
            Block::heading("Alerts, requests and notes"),
            Block::List(events),
        ]);
    }
    if !report.checkpoints.is_empty() {
        let steps: Vec<String> = report.checkpoints.iter().map(u64::to_string).collect();
        let best = report.best();
        let best = best.map_or_else(String::new, |best| {
            format!("; the best on the eval set is step {best}")
        });
        let steps = format!("Steps {}{best}.", steps.join(", "));
        page.extend([Block::heading("Checkpoints"), Block::info(steps)]);
    }
    page
}

fn provenance(report: &Report) -> Block {
    let (file, history) = (report.directory.file(), &report.history);
    let device = history
        .run
        .as_ref()
        .map_or_else(String::new, |run| run.device.clone());
    let program = format!(
        "grpo-tui {} ({})",
        file.binary_version,
        file.features.join(", ")
    );
    let known = [
        ("command", file.argv.join(" ")),
        ("program", program),
        ("host", file.host.clone()),
        ("device", device),
        (
            "total step time",
            format!("{:.0} s", report.computed_seconds()),
        ),
        ("resumed", format!("{}x", history.resumed)),
        ("configuration", file.config_digest.clone()),
        ("base model", file.model_digest.clone()),
    ];
    let files = file
        .task_files
        .iter()
        .map(|(name, digest)| (name.as_str(), digest.clone()));
    let rows = known
        .into_iter()
        .chain(report.log_damage().map(|damage| ("log", damage)))
        .chain(files);
    let rows = rows.map(|(name, value)| Row::new(name, [Cell::Text(value)]));
    Block::Table(Table::new(&["", ""], "ll", rows.collect()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::page::{Bar, Fact, Level};

    #[test]
    fn texts_are_masked_cut_and_escaped() {
        // Not a real token, and assembled here so that no scanner reports it.
        let token = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
        let check = |text: &str, most: usize, expected: &str, secrets: usize| {
            let masked = AtomicUsize::new(0);
            assert_eq!(
                (
                    escaped(text, most, &masked).as_str(),
                    masked.load(Ordering::Relaxed)
                ),
                (expected, secrets),
                "{text}"
            );
        };
        check(
            "<a b=\"x\" c='y'>&",
            usize::MAX,
            "&lt;a b=&quot;x&quot; c=&#x27;y&#x27;&gt;&amp;",
            0,
        );
        check(
            "a\u{202E}b\u{1b}[31m\n\t",
            usize::MAX,
            "a\u{FFFD}b␛[31m\n\t",
            0,
        );
        // A token that is cut in the middle is masked, too.
        check(
            &format!("<key> {token}"),
            30,
            "&lt;key&gt; ghp_…(40 characters)",
            1,
        );
        check(&format!("<key> {token}"), 12, "&lt;key&gt; ghp_…(…", 1);
        check(
            &format!("no {}…", &token[..30]),
            usize::MAX,
            "no ghp_…(30 characters)…",
            1,
        );
    }

    #[test]
    fn no_template_prints_a_text_as_it_is() {
        let token = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
        let text = format!("<i>{token}</i>");
        let examples = json!([{"title": text, "prompts": [{"id": text, "answers": [
            {"name": text, "tier": text, "good": true, "reason": text, "completion": text}]}]}]);
        let row = Row::new(&text, [Cell::Text(text.clone())]);
        let blocks = [
            Block::heading(&text),
            Block::info(&text),
            Block::Finding(Level::Warning, text.clone()),
            Block::List(vec![text.clone()]),
            Block::Facts(vec![Fact::new("fact", text.clone())]),
            Block::Bars(vec![Bar::new(&text, Cell::Text(text.clone()), 1.0)]),
            Block::Table(Table::new(&[&text, &text], "ll", vec![row])),
        ];
        let page = render(
            "answers.html",
            context! {
                title => &text, heading => &text, page => Serde(values(&blocks)), examples => Serde(&examples),
            },
        );
        let page = page.unwrap();
        assert!(
            page.text.contains("&lt;i&gt;ghp_…(40 characters)&lt;")
                && !page.text.contains("<i>")
                && !page.text.contains(&token[4..20])
        );
        // Each text once.
        assert_eq!(
            page.masked,
            page.text.matches("ghp_…(40 characters)").count()
        );
        // An unknown name in a template is an error.
        assert!(matches!(
            render("answers.html", context! { title => "x" }),
            Err(ReportError::Template(_))
        ));
    }
}
