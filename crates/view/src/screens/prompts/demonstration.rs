//! How the selected row's request is done with the task's tools: its demonstration, or the calls that search finds.

use ratatui::text::Line;

use super::table_row::row;
use super::{FoundCalls, Prompts};
use crate::dataset::PromptRow;
use crate::environment::ToolChain;
use crate::format::counted;
use crate::message::{Command, Work};
use crate::prompts::{demonstrated_chain, demonstrated_turns, find_calls_of};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::conversation::Conversation;
use crate::widgets::json;
use crate::widgets::text_width::wrapped;

/// Why no calls are searched for the selected row.
pub(super) fn no_search(prompts: &Prompts, shared: &Shared) -> Option<String> {
    let Some(open) = &shared.task else {
        return shared.no_task();
    };
    let why = match prompts.selected_row(shared) {
        None => "no row selected",
        _ if !open.task.has_state() => {
            "only calls of tasks with [[tool]] and kind = \"state\" are searched"
        }
        Some(row) if row.has_demonstration() => "the row has a demonstration",
        Some(_) if shared.scorer().is_none() => shared.draft.unscored()?,
        Some(_) => return None,
    };
    Some(why.to_owned())
}

/// Searches the selected row's calls, unless they are known or that starts programs.
pub(super) fn show(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let tools = shared.task.as_ref().and_then(|open| open.task.toolset());
    let is_quick = tools.is_some_and(|tools| !tools.needs_trust());
    match is_quick && found(prompts).is_none() && no_search(prompts, shared).is_none() {
        true => search(prompts, shared),
        false => Vec::new(),
    }
}

/// What was found for the selected row.
fn found(prompts: &Prompts) -> Option<&FoundCalls> {
    let (entry, found) = prompts.found.as_ref()?;
    (Some(*entry) == prompts.selected()).then_some(found)
}

pub(super) fn search(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let (Some(entry), Some(open), Some(scorer)) =
        (prompts.selected(), shared.task.clone(), shared.scorer())
    else {
        return Vec::new();
    };
    prompts.found = None;
    vec![Work::latest(
        "prompts.calls",
        move |_| {
            let row = row(&open, entry)?;
            let found = find_calls_of(&open.task, &scorer, &[row]).pop()?;
            let found = found.map(demonstrated_chain);
            Some((entry, found.map_err(|why| why.to_string())))
        },
        |prompts: &mut Prompts, _, found| {
            prompts.found = found;
            Vec::new()
        },
    )]
}

pub(super) fn lines(
    prompts: &Prompts,
    shared: &Shared,
    row: &PromptRow,
    width: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let said = |text: String, role| {
        let rows = wrapped(&text, width).into_iter();
        rows.map(|row| theme.line(row, role)).collect()
    };
    let shown = demonstrated_turns(row);
    if !shown.is_empty() {
        let shown = demonstrated_chain(shown);
        return conversation(shared, "demonstration", &shown, width);
    }
    if no_search(prompts, shared).is_some() {
        return Vec::new();
    }
    match found(prompts) {
        Some(Ok(shown)) => conversation(shared, "found by search", shown, width),
        Some(Err(why)) => said(format!("▲ no calls found: {why}"), Role::Warning),
        None if shared.is_busy("prompts.calls") => {
            said("searching calls ...".to_owned(), Role::Faint)
        }
        None => {
            let key = shared.key_of("prompts.calls");
            said(
                format!("no demonstration: {key} searches calls"),
                Role::Faint,
            )
        }
    }
}

/// `found by search: 3 calls in 2 turns`, then the turns.
fn conversation(
    shared: &Shared,
    name: &str,
    (chain, answer): &(ToolChain, String),
    width: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let (calls, steps) = (chain.calls().count(), chain.steps.len());
    let title = format!(
        "{name}: {} in {}",
        counted(calls, "call"),
        counted(steps, "turn")
    );
    let talk = Conversation {
        chain,
        call_seconds: &[],
        tokens: None,
        is_whole: shared.whole_results,
        whole_key: shared.key_of("prompts.results"),
        width,
    };
    let mut lines = vec![theme.line(title, Role::Title)];
    lines.extend(talk.turns(theme));
    lines.extend(json::lines(theme, answer, &[]));
    lines
}
