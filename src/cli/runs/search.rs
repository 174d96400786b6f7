//! `runs search`: finds text in all completions of runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::{Failure, Outcome, output, print, print_json_lines};
use crate::facts::TierOutcome;
use crate::format::{counted, grouped};
use crate::run::{RunDirectory, RunFolders, SearchHit, TextSearch, search_rollouts};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Text to find, literally; case-insensitive unless it has an upper-case letter
    text: String,
    /// Runs to search: each a path, name, id, or unique id prefix [default: all]
    #[arg(value_name = "RUN")]
    run: Vec<String>,
    /// Print the first N matching completions, and count the others; 0: all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print one JSON object per match, with the whole completion, and one with the totals
    #[arg(long)]
    json: bool,
}

/// Characters before and after the match.
const CONTEXT: usize = 40;

/// The hits of a search, with totals and problems.
#[derive(Default)]
struct SearchResults {
    hits: Vec<SearchHit>,
    matches: usize,
    completions: usize,
    problems: Vec<String>,
}

/// Exit code 1 if there is no match, as of `grep`.
pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let search = TextSearch::new(&arguments.text).map_err(Failure::usage)?;
    let runs: Vec<RunDirectory> = match arguments.run.as_slice() {
        [] => run_folders
            .list()
            .into_iter()
            .filter_map(|(_, run)| run.ok())
            .collect(),
        names => super::find_all(names.iter().map(String::as_str), run_folders)?,
    };
    let paths: Vec<PathBuf> = runs.iter().map(|run| run.path().to_owned()).collect();
    let found = Mutex::new(SearchResults::default());
    let most = if arguments.limit > 0 {
        arguments.limit
    } else {
        usize::MAX
    };
    search_rollouts(&paths, &search, most, &|batch| {
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.matches += batch.matches;
        found.completions += batch.completions;
        found.problems.extend(batch.problem);
        found.hits.extend(batch.hits);
        true
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.hits.sort_by(SearchHit::order);
    found.hits.truncate(most);
    for problem in &found.problems {
        output::eprint_line(&format!("not searched: {problem}"));
    }
    let id = |hit: &SearchHit| runs[hit.run].id();
    if arguments.json {
        let totals = json!({"matches": found.matches, "printed": found.hits.len(), "completions": found.completions, "runs": runs.len(), "not_searched": found.problems});
        let documents = found
            .hits
            .iter()
            .map(|hit| document(id(hit), hit))
            .chain([totals]);
        print_json_lines(documents.collect())?;
    } else {
        let lines: String = found
            .hits
            .iter()
            .map(|hit| format!("{}\n", visible(&line(id(hit), hit))))
            .collect();
        print(&lines)?;
        let (matches, shown) = (grouped(found.matches as u64), found.hits.len());
        let shown = match shown {
            _ if shown >= found.matches => String::new(),
            1 => ", the first shown (--limit)".to_owned(),
            _ => format!(", the first {shown} shown (--limit)"),
        };
        let runs = counted(runs.len(), "run");
        output::eprint_line(&format!(
            "{matches} of {} completions of {runs} contain the text{shown}",
            grouped(found.completions as u64)
        ));
    }
    Ok(if found.matches > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn document(run: &str, hit: &SearchHit) -> Value {
    json!({
        "run": run, "step": hit.step, "prompt_id": hit.prompt_id, "sample": hit.sample, "completion": hit.text,
        "match": [hit.at.start, hit.at.end], "reward": hit.reward, "tier": hit.tier.map_or("", TierOutcome::name), "exact": hit.exact, "errors": hit.errors,
    })
}

/// `k7f3a2 step 12 train-004 #3 invalid  …"vendor": "Nordhaven"…`
fn line(run: &str, hit: &SearchHit) -> String {
    let before: String = hit.text[..hit.at.start]
        .chars()
        .rev()
        .take(CONTEXT)
        .collect();
    let before: String = before.chars().rev().collect();
    let after: String = hit.text[hit.at.start..].chars().take(2 * CONTEXT).collect();
    let begin = if before.len() < hit.at.start {
        "…"
    } else {
        ""
    };
    let end = if hit.at.start + after.len() < hit.text.len() {
        "…"
    } else {
        ""
    };
    let tier = hit.tier.map_or("n/a", TierOutcome::name);
    format!(
        "{run} step {:>5} {} #{} {tier:<10} {begin}{before}{after}{end}",
        hit.step, hit.prompt_id, hit.sample
    )
}
