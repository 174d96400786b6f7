//! `runs compare`: where two runs differ, and what it did.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use super::show::rates;
use super::{Seen, pretty, shown};
use crate::run::{Comparison, eval_file, read_evals};

/// Two runs side by side: configuration keys that differ, the last value of each metric, each eval that one of them has, and both results on the
/// prompts that carry the claim.
pub(super) fn compare(first: &Seen, second: &Seen, json: bool) -> String {
    let different = different_keys(first, second);
    let changed_files = changed_files(first, second);
    let keys: BTreeSet<_> = first.history.evals.keys().chain(second.history.evals.keys()).collect();
    let results = results(first, second);
    if json {
        let config: serde_json::Map<String, Value> = different.into_iter().map(|(key, a, b)| (key, json!([a, b]))).collect();
        let summary = |seen: &Seen, key| seen.history.evals.get(key).map(|eval| json!(eval.summary));
        let evals: Vec<Value> = keys
            .into_iter()
            .map(|key| json!({"step": key.0, "set": key.1, "target": key.2, "first": summary(first, key), "second": summary(second, key)}))
            .collect();
        let last = |seen: &Seen, name: &str| seen.history.metrics.get(name).and_then(|series| series.last());
        let metrics: serde_json::Map<String, Value> =
            metric_names(first, second).into_iter().map(|name| (name.clone(), json!([last(first, name), last(second, name)]))).collect();
        return pretty(&json!({
            "first": first.row(), "second": second.row(), "config": config, "task_files": changed_files, "metrics": metrics, "evals": evals,
            "results": results.map(|(set, comparison)| json!({"set": set, "comparison": comparison})),
        }));
    }
    let mut text = format!("{:<40} {:<40} {}\n", "", first.directory.id(), second.directory.id());
    for (key, a, b) in &different {
        let _ = writeln!(text, "{key:<40} {:<40} {}", shown(a), shown(b));
    }
    if different.is_empty() {
        text.push_str("the configurations are the same\n");
    }
    if !changed_files.is_empty() {
        let _ = writeln!(text, "the tasks differ in {}: rates on changed prompt sets say little", changed_files.join(", "));
    }
    text.push('\n');
    for name in metric_names(first, second) {
        let _ = writeln!(text, "{name:<40} {:<40} {}", last(first, name), last(second, name));
    }
    text.push('\n');
    for key in keys {
        let valid = |seen: &Seen| seen.history.evals.get(key).map_or_else(|| "-".to_owned(), |eval| rates(&eval.summary));
        let _ = writeln!(text, "step {} {} {}\n  {}\n  {}", key.0, key.1, key.2, valid(first), valid(second));
    }
    if let Some((set, comparison)) = results {
        let Comparison { fixed, broken, mcnemar_p, .. } = comparison;
        let pairs = comparison.pairs();
        let _ = writeln!(
            text,
            "\nresults on the same {pairs} prompts of {set}: valid only in the second {fixed}, only in the first {broken}, exact McNemar p = {mcnemar_p:.3e}"
        );
    }
    text
}

fn metric_names<'a>(first: &'a Seen, second: &'a Seen) -> BTreeSet<&'a String> {
    first.history.metrics.keys().chain(second.history.metrics.keys()).collect()
}

fn last(seen: &Seen, name: &str) -> String {
    let series = seen.history.metrics.get(name);
    series.and_then(|series| series.last()).map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

fn different_keys(first: &Seen, second: &Seen) -> Vec<(String, Value, Value)> {
    let pairs = first.directory.file().config.values().into_iter().zip(second.directory.file().config.values());
    pairs.filter(|((_, a), (_, b))| a != b).map(|((key, a), (_, b))| (key, a, b)).collect()
}

/// Files of the frozen tasks that are not the same in both.
fn changed_files(first: &Seen, second: &Seen) -> Vec<String> {
    let (a, b) = (&first.directory.file().task_files, &second.directory.file().task_files);
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names.into_iter().filter(|name| a.get(*name) != b.get(*name)).cloned().collect()
}

/// Both trained models on the same prompts, where both were read on a set.
fn results(first: &Seen, second: &Seen) -> Option<(&'static str, Comparison)> {
    ["proof", "eval"].into_iter().find_map(|set| {
        let records = |seen: &Seen| {
            let step = seen.history.latest_eval(set, "trained")?.step;
            read_evals(&seen.directory.path().join(eval_file(step, set, "trained"))).ok()
        };
        let comparison = Comparison::of(&records(first)?, &records(second)?);
        (comparison.pairs() > 0).then_some((set, comparison))
    })
}
