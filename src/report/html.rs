//! A run as one self-contained HTML file: what it shows, its charts and tables, and examples of what changed.

use std::collections::BTreeMap;

use super::html_page::Writer;
use super::svg::{Chart, Line, chart};
use super::{MetricComparison, Report, SMOOTHING, shown};
use crate::config::Source;
use crate::format::{or_na, percent};
use crate::run::events::Eval;
use crate::run::{EvalRecord, EvalSummary, eval_path, read_evals};
use crate::statistics::smooth;

/// The file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// HTML, UTF-8.
    pub text: String,
    /// How many secrets were masked.
    pub masked: usize,
}

/// Examples of each kind that are shown.
const EXAMPLES: usize = 5;

/// A longer completion is cut in an example.
const EXAMPLE_CHARACTERS: usize = 1500;

/// A chart of metrics: title, whether shares, and each metric with its label.
type Metrics = (&'static str, bool, &'static [(&'static str, &'static str)]);

const CHARTS: [Metrics; 11] = [
    ("Reward", false, &[("reward", "")]),
    ("Tiers of training completions", true, &[("tiers/valid", "valid"), ("tiers/invalid", "invalid"), ("tiers/unparsable", "unparsable")]),
    (
        "Informative groups",
        true,
        &[("groups/frac_mixed", "mixed"), ("groups/frac_all_best", "all max"), ("groups/frac_all_worst", "all min or all equal")],
    ),
    ("Reward std per group", false, &[("reward_std", "")]),
    ("Completion length, tokens", false, &[("completions/mean_length", "")]),
    ("Truncated completions", true, &[("completions/clipped_ratio", "")]),
    ("KL to reference, nats/token", false, &[("kl", "")]),
    ("Entropy, nats/token", false, &[("entropy", "")]),
    ("Loss", false, &[("loss", "")]),
    ("Gradient norm", false, &[("grad_norm", "")]),
    ("Step time, s", false, &[("seconds", "")]),
];

/// The run as a page. Texts from prompts, completions, notes and command lines have their secrets masked.
pub fn html(report: &Report) -> Page {
    let mut page = Writer::begin(&format!("{} · {}", report.directory.id(), report.directory.file().task));
    head(&mut page, report);
    let pair = Pair::read(report);
    result(&mut page, report, pair.as_ref());
    charts(&mut page, report);
    if let Some(pair) = &pair {
        examples(&mut page, pair);
    }
    evals(&mut page, report);
    timeline(&mut page, report);
    configuration(&mut page, report);
    origin(&mut page, report);
    let page = page.finish();
    Page { text: page.text, masked: page.masked }
}

fn head(page: &mut Writer, report: &Report) {
    let file = report.directory.file();
    let title = page.safe(if file.name.is_empty() { &file.id } else { &file.name });
    page.raw(&format!("<h1>{title}</h1>"));
    let total = report.history.run.as_ref().map_or_else(String::new, |run| format!(" of {}", run.total_steps));
    let cause = report.cause().map_or_else(String::new, |cause| format!(": {cause}"));
    page.paragraph("soft", &format!("{} · task {} · from {} · launched {}", file.id, file.task, file.config.base_model, file.created));
    page.paragraph("", &format!("{}, step {}{total}{cause}", report.status().name(), report.history.last_step));
    for alert in report.history.alerts.values().filter(|alert| !alert.cleared) {
        page.paragraph("bad", &format!("{} {}", alert.sentence, alert.suggestion));
    }
}

/// The passes before and after training on the prompts that carry the claim.
struct Pair {
    set: &'static str,
    after_name: String,
    before: Vec<EvalRecord>,
    after: Vec<EvalRecord>,
}

impl Pair {
    fn read(report: &Report) -> Option<Self> {
        let of = |set: &'static str| {
            let result = report.history.result(set, report.best())?;
            let read = |step, target| read_evals(&eval_path(report.directory.path(), step, set, target)).ok();
            Some(Self { set, after_name: result_name(result), before: read(0, "base")?, after: read(result.step, &result.target)? })
        };
        of("test").or_else(|| of("eval"))
    }
}

/// How the pass that stands for the trained model is called.
fn result_name(result: &Eval) -> String {
    if result.step == 0 { "best checkpoint: step 0 (the base)".to_owned() } else { format!("step {}", result.step) }
}

fn result(page: &mut Writer, report: &Report, pair: Option<&Pair>) {
    let Some(result) = report.result() else { return };
    let set = &result.set;
    page.heading(&format!("Result on the {set} set"));
    let start = report.history.evals.get(&(0, set.clone(), "base".to_owned()));
    let start = start.map(|eval| ("base".to_owned(), &eval.summary));
    let rows: Vec<(String, &EvalSummary)> = start.into_iter().chain([(result_name(result), &result.summary)]).collect();
    let cells = |(name, summary): &(String, &EvalSummary)| {
        let [low, high] = summary.valid_interval;
        vec![
            name.clone(),
            summary.n.to_string(),
            percent(summary.valid),
            format!("{} to {}", percent(low), percent(high)),
            or_na(summary.exact, percent),
            percent(summary.parse),
            percent(summary.tolerant),
            format!("{:.1}", summary.mean_tokens),
            percent(summary.truncated),
        ]
    };
    let titles = ["", "n>", "valid>", "95% CI>", "exact>", "parse>", "unwrapped>", "tokens>", "truncated>"];
    page.table(&titles, &rows.iter().map(cells).collect::<Vec<_>>());
    if let Some(pair) = pair {
        let (valid, exact) = MetricComparison::both(&pair.before, &pair.after);
        for judged in std::iter::once(&valid).chain(&exact) {
            page.paragraph("", judged.line().trim());
        }
    }
    if let [(_, before), (name, after)] = rows.as_slice()
        && !after.by_tag.is_empty()
    {
        let rate = |summary: &EvalSummary, tag: &str| or_na(summary.by_tag.get(tag), |found| percent(found.valid));
        let rows: Vec<Vec<String>> =
            after.by_tag.iter().map(|(tag, found)| vec![tag.clone(), found.n.to_string(), rate(before, tag), rate(after, tag)]).collect();
        page.raw("<h3>Valid by tag</h3>");
        page.table(&["tag", "n>", "base>", &format!("{name}>")], &rows);
    }
}

fn charts(page: &mut Writer, report: &Report) {
    let mut drawn = String::new();
    let marks: Vec<(u64, &str)> = report.best().filter(|step| *step > 0).map(|step| (step, "best")).into_iter().collect();
    for (set, title) in [("eval", "Eval set, 95% CI"), ("test", "Test set, 95% CI")] {
        let passes: Vec<_> =
            report.history.evals.values().filter(|eval| eval.set == set && (eval.target == "trained" || eval.step == 0)).collect();
        if passes.len() < 2 {
            continue;
        }
        let line = |color, label, value: &dyn Fn(&EvalSummary) -> f64| Line {
            label,
            color,
            dots: passes.len() <= 60,
            points: passes.iter().map(|eval| (eval.step, value(&eval.summary))).collect(),
            ..Line::default()
        };
        let mut valid = line(1, "valid", &|summary| summary.valid);
        valid.band = passes.iter().map(|eval| (eval.summary.valid_interval[0], eval.summary.valid_interval[1])).collect();
        let mut lines = vec![valid];
        if passes.iter().any(|eval| eval.summary.exact.is_some()) {
            lines.push(line(2, "exact", &|summary| summary.exact.unwrap_or(f64::NAN)));
        }
        drawn.push_str(&chart(&Chart { title, lines, shares: true, marks: marks.clone() }));
    }
    for (title, shares, metrics) in CHARTS {
        let known: Vec<_> = metrics.iter().filter_map(|(name, label)| Some((report.history.metrics.get(*name)?, *label))).collect();
        if known.is_empty() {
            continue;
        }
        let mut lines = Vec::new();
        for (index, (series, label)) in known.iter().enumerate() {
            let color = index + 1;
            if metrics.len() == 1 {
                lines.push(Line { color, faint: true, points: series.points().collect(), ..Line::default() });
            }
            // Where a value is not finite the raw line shows it; the average goes on.
            let points = series.steps().zip(smooth(series.values(), SMOOTHING)).filter(|(_, value)| value.is_finite()).collect();
            lines.push(Line { label, color, points, ..Line::default() });
        }
        drawn.push_str(&chart(&Chart { title, lines, shares, marks: Vec::new() }));
    }
    if !drawn.is_empty() {
        page.heading("Charts");
        if report.directory.file().config.kl_beta == 0.0 && !report.history.metrics.contains_key("kl") {
            page.paragraph("soft", "KL to reference: not measured (kl_beta = 0).");
        }
        page.paragraph("soft", "Bold lines are moving averages over about 10 steps; marks at the top edge are non-finite values.");
        page.raw(&format!("<div class=\"charts\">{drawn}</div>"));
    }
}

/// Prompts whose validity changed, base beside trained.
fn examples(page: &mut Writer, pair: &Pair) {
    let before: BTreeMap<(&str, usize), &EvalRecord> =
        pair.before.iter().map(|record| ((record.prompt_id.as_str(), record.sample), record)).collect();
    let changed = |valid: bool| {
        let other = pair.after.iter().filter_map(|after| Some((*before.get(&(after.prompt_id.as_str(), after.sample))?, after)));
        other.filter(|(before, after)| before.is_valid() != after.is_valid() && after.is_valid() == valid).collect::<Vec<_>>()
    };
    for (valid, title) in [(true, "Improvements"), (false, "Regressions")] {
        let found = changed(valid);
        if found.is_empty() {
            continue;
        }
        page.heading(&format!("{title}: {} of {} shown, {} prompts", found.len().min(EXAMPLES), found.len(), pair.set));
        for (before, after) in found.into_iter().take(EXAMPLES) {
            let id = page.safe(&after.prompt_id);
            let mut html = format!("<h3>{id}</h3><div class=\"pair\">");
            for (name, record) in [("base", before), (pair.after_name.as_str(), after)] {
                html.push_str(&answer(page, name, record, EXAMPLE_CHARACTERS));
            }
            page.raw(&format!("{html}</div>"));
        }
    }
}

/// One answer among examples, under the name of who gave it: its tier, the first error that the scorer gave, its text up to a length.
pub(super) fn answer(page: &mut Writer, name: &str, record: &EvalRecord, most: usize) -> String {
    let class = if record.is_valid() { "good" } else { "bad" };
    let reason = record.score["errors"][0]["message"].as_str().unwrap_or_default();
    let (name, tier, reason, text) =
        (page.safe(name), page.safe(&record.tier), page.safe(reason), page.shortened(&record.completion, most));
    format!("<div><span class=\"soft\">{name}</span> <span class=\"{class}\">{tier}</span> {reason}<pre>{text}</pre></div>")
}

fn evals(page: &mut Writer, report: &Report) {
    if report.history.evals.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = report
        .history
        .evals
        .values()
        .map(|eval| {
            let summary = &eval.summary;
            vec![
                eval.step.to_string(),
                eval.set.clone(),
                eval.who().to_owned(),
                summary.n.to_string(),
                percent(summary.valid),
                or_na(summary.exact, percent),
                percent(summary.parse),
                format!("{:.1}", eval.seconds),
            ]
        })
        .collect();
    page.heading("Evals");
    let many = rows.len() > 30;
    page.raw(if many { "<details><summary>all evals</summary>" } else { "" });
    page.table(&["step>", "set", "target", "n>", "valid>", "exact>", "parse>", "seconds>"], &rows);
    page.raw(if many { "</details>" } else { "" });
}

/// What people and the worker did besides training.
fn timeline(page: &mut Writer, report: &Report) {
    let history = &report.history;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for control in &history.controls {
        let arguments: Vec<String> = control.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
        rows.push(vec![control.step.to_string(), "control".to_owned(), format!("{} {}", control.verb, arguments.join(" "))]);
    }
    for alert in history.alerts.values() {
        let state = if alert.cleared { "resolved: " } else { "" };
        rows.push(vec![
            alert.step.to_string(),
            format!("alert ({})", alert.level),
            format!("{state}{} {}", alert.sentence, alert.suggestion),
        ]);
    }
    for (_, note) in &history.notes {
        rows.push(vec![String::new(), "note".to_owned(), note.text.clone()]);
    }
    if !rows.is_empty() {
        page.heading("Alerts, requests and notes");
        page.table(&["step>", "kind", ""], &rows);
    }
    let kept: Vec<String> = report.checkpoints.iter().map(u64::to_string).collect();
    let best = report.best().map_or_else(String::new, |step| format!("; the best on the eval set is step {step}"));
    if !kept.is_empty() {
        page.heading("Checkpoints");
        page.paragraph("", &format!("Steps {}{best}.", kept.join(", ")));
    }
}

fn configuration(page: &mut Writer, report: &Report) {
    let file = report.directory.file();
    let rows = |wanted: &dyn Fn(&Source) -> bool| -> Vec<Vec<String>> {
        let source = |key: &str| file.sources.get(key).cloned().unwrap_or(Source::Default);
        let values = file.config.values().into_iter().filter(|(key, _)| wanted(&source(key)));
        values.map(|(key, value)| vec![key.clone(), shown(&value), source(&key).to_string()]).collect()
    };
    page.heading("Configuration");
    let changed = rows(&|source| *source != Source::Default);
    if changed.is_empty() {
        page.paragraph("", "All keys at their defaults.");
    } else {
        page.table(&["key", "value", "set by"], &changed);
    }
    page.raw("<details><summary>all keys</summary>");
    page.table(&["key", "value", "set by"], &rows(&|_| true));
    page.raw("</details>");
}

fn origin(page: &mut Writer, report: &Report) {
    let file = report.directory.file();
    let history = &report.history;
    page.heading("Provenance");
    let device = history.run.as_ref().map_or_else(String::new, |run| run.device.clone());
    let mut rows = vec![
        ("command", file.argv.join(" ")),
        ("program", format!("grpo-tui {} ({})", file.binary_version, file.features.join(", "))),
        ("host", file.host.clone()),
        ("device", device),
        ("total step time", format!("{:.0} s", report.computed_seconds())),
        ("resumed", format!("{}x", history.resumed)),
        ("configuration", file.config_digest.clone()),
        ("base model", file.model_digest.clone()),
    ];
    let lost = (history.dropped_bytes, history.skipped, history.gaps);
    if lost != (0, 0, 0) {
        rows.push(("log", format!("{} torn bytes dropped, {} unreadable lines, {} events missing", lost.0, lost.1, lost.2)));
    }
    let files = file.task_files.iter().map(|(name, digest)| (name.as_str(), digest.clone()));
    let rows: Vec<Vec<String>> = rows.into_iter().chain(files).map(|(name, value)| vec![name.to_owned(), value]).collect();
    page.table(&["", ""], &rows);
}
