//! Text search through the completions of the chosen runs: the matches as they are found, and the text of one.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::search_state::{Matches, News};
use super::{LIST, MATCHES, Runs};
use crate::command_log::CommandLine;
use crate::facts::TierOutcome;
use crate::format::short_id;
use crate::message::{Command, Sender, Work};
use crate::pane::content::{Content, List};
use crate::popup::{Ask, Popup};
use crate::run::{SearchHit, TextSearch, search_rollouts};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::list_cursor::Cursor;
use crate::widgets::text_width::{fitted, one_line, padded};

/// The matches that are held; the search continues to count the others.
const MAX_MATCHES: usize = 2_000;
/// The interval at which progress is shown.
const INTERVAL: Duration = Duration::from_millis(100);
const KEY: &str = "runs.search";

/// Asks for a text and finds it in the completions of the marked runs, or of the one under the cursor.
pub(super) fn ask(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let chosen = runs.chosen(shared);
    shared.popup = Some(Popup::Ask(question(runs, chosen)));
    Vec::new()
}

/// Asks for another text, in the same runs.
pub(super) fn again(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let paths = runs.matches.runs.clone();
    shared.popup = Some(Popup::Ask(question(runs, paths)));
    Vec::new()
}

fn question(runs: &Runs, paths: Vec<PathBuf>) -> Ask {
    let label = match paths.as_slice() {
        [run] => format!("Text in the completions of {}:", name(run)),
        several => format!("Text in the completions of {} runs:", several.len()),
    };
    let begin = move |runs: &mut Runs, _: &mut Shared, text| begin(runs, text, paths);
    Ask::new("Search completions", label, &runs.matches.text, begin)
        .checked(|text| TextSearch::new(text).err())
}

fn begin(runs: &mut Runs, text: String, paths: Vec<PathBuf>) -> Vec<Command> {
    let Ok(search) = TextSearch::new(&text) else {
        return Vec::new();
    };
    let line =
        std::iter::once(text.clone()).chain(paths.iter().map(|run| run.display().to_string()));
    let line: CommandLine = ["runs", "search"]
        .map(str::to_owned)
        .into_iter()
        .chain(line)
        .collect();
    runs.matches = Matches {
        text,
        runs: paths.clone(),
        ..Matches::default()
    };
    runs.pane = MATCHES;
    vec![Work::stream(KEY, move |sender| find(sender, &paths, &search)).like(line)]
}

/// Sends the matches as they are found; ends when another search begins or the matches are closed.
fn find(sender: &Sender, paths: &[PathBuf], search: &TextSearch) {
    let (news, held) = (Mutex::new(News::default()), AtomicUsize::new(0));
    let outcome = search_rollouts(paths, search, MAX_MATCHES, &|batch| {
        let mut news = crate::message::locked(&news);
        let room = MAX_MATCHES.saturating_sub(held.fetch_add(batch.hits.len(), Ordering::Relaxed));
        news.found += batch.matches;
        news.hits.extend(batch.hits.into_iter().take(room));
        news.completions += batch.completions;
        news.progress = batch.progress;
        news.problems.extend(batch.problem);
        if news.sent.is_some_and(|sent| sent.elapsed() < INTERVAL) {
            return sender.is_wanted();
        }
        let now = std::mem::replace(
            &mut *news,
            News {
                sent: Some(Instant::now()),
                ..News::default()
            },
        );
        sender.send(move |runs: &mut Runs, _| runs.matches.apply(now))
    });
    let mut last = std::mem::take(&mut *crate::message::locked(&news));
    last.progress = 1.0;
    last.problems
        .extend(outcome.err().map(|error| error.to_string()));
    sender.send(move |runs: &mut Runs, _| runs.matches.apply(last));
}

/// Closes the matches, and ends a search that still runs.
pub(super) fn close(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    runs.pane = LIST;
    let text = std::mem::take(&mut runs.matches).text;
    runs.matches.text = text;
    let ends = shared.is_busy(KEY).then(|| Work::stream(KEY, |_| {}));
    ends.into_iter().collect()
}

/// Opens the run of the match at its step.
pub(super) fn open(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some(hit) = runs.matches.under() else {
        return Vec::new();
    };
    let Some(run) = runs.matches.runs.get(hit.run).cloned() else {
        return Vec::new();
    };
    shared.overlay.clear();
    shared.step_to_show = Some(hit.step);
    vec![Command::ShowRun(run), Command::GoTo(Screen::Live)]
}

pub(super) fn copy(runs: &mut Runs, _: &mut Shared) -> Vec<Command> {
    runs.matches
        .under()
        .map(|hit| Command::Copy(hit.text.clone()))
        .into_iter()
        .collect()
}

pub(super) fn none(runs: &Runs, _: &Shared) -> Option<String> {
    runs.matches
        .under()
        .is_none()
        .then(|| "no match selected".to_owned())
}

pub(super) fn list<'a>(runs: &'a Runs, shared: &'a Shared, inside: Rect) -> Content<'a> {
    let (theme, matches) = (&shared.theme, &runs.matches);
    let nothing = match (matches.progress < 1.0, matches.completions) {
        (true, _) => "searching ...".to_owned(),
        (false, 0) => {
            "no rollouts: these runs have no steps yet, or keep_rollouts has deleted their files"
                .to_owned()
        }
        (false, _) => format!("no match; {} searches again", shared.key_of("runs.search")),
    };
    let line = move |index: usize| {
        row(
            matches,
            &matches.hits[index],
            theme,
            usize::from(inside.width),
        )
    };
    Content {
        empty: vec![Line::styled(
            format!("  {nothing}"),
            theme.style(Role::Faint),
        )],
        ..Content::titled(matches.title(theme)).list(List::new(
            matches.hits.len(),
            matches.cursor,
            line,
        ))
    }
}

/// The text of the match under the cursor.
pub(super) fn text<'a>(runs: &Runs, shared: &Shared, inside: Rect) -> Content<'a> {
    let (theme, matches) = (&shared.theme, &runs.matches);
    let problem = matches
        .problems
        .first()
        .map(|problem| format!("not searched: {problem}"));
    let title = matches
        .under()
        .map_or_else(|| "Completion".to_owned(), |hit| about(matches, hit));
    let mut lines: Vec<Line<'static>> = problem
        .into_iter()
        .map(|problem| Line::styled(problem, theme.style(Role::Warning)))
        .collect();
    if let Some(hit) = matches.under() {
        lines.extend(marked_text(theme, hit, inside));
        lines.extend(
            hit.errors
                .iter()
                .map(|error| Line::styled(one_line(error), theme.style(Role::Fault))),
        );
    }
    Content::titled(title).text(inside, lines, Cursor::default())
}

fn name(run: &std::path::Path) -> String {
    short_id(&run.file_name().unwrap_or_default().to_string_lossy()).to_owned()
}

fn about(matches: &Matches, hit: &SearchHit) -> String {
    let run = matches
        .runs
        .get(hit.run)
        .map_or_else(String::new, |run| name(run));
    let reward = hit
        .reward
        .map_or_else(|| "n/a".to_owned(), |reward| format!("{reward:.3}"));
    let exact = match hit.exact {
        Some(true) => ", exact",
        Some(false) => ", not exact",
        None => "",
    };
    let tier = hit.tier.map_or("n/a", TierOutcome::name);
    format!(
        "{run} step {} {} #{}: {tier}{exact}, reward {reward}",
        hit.step,
        one_line(&hit.prompt_id),
        hit.sample + 1
    )
}

/// `▸ 6sx3dn   12 train-004    #3 █ …"vendor": "Nordhaven"…`, the match underlined.
fn row(matches: &Matches, hit: &SearchHit, theme: &Theme, width: usize) -> Line<'static> {
    let run = matches
        .runs
        .get(hit.run)
        .map_or_else(String::new, |run| name(run));
    let head = format!(
        " {run} {:>6} {} #{:<3}",
        hit.step,
        padded(&hit.prompt_id, 12, false),
        hit.sample + 1
    );
    let tier = hit.tier.map_or_else(
        || Span::raw("  "),
        |tier| {
            Span::styled(
                format!("{} ", theme.tier_glyph(tier)),
                theme.style(Theme::tier_role(tier)),
            )
        },
    );
    let room = width.saturating_sub(head.chars().count() + 3);
    // A third of the room goes to what precedes the match.
    let before: Vec<char> = hit.text[..hit.at.start].chars().collect();
    let first = before.len().saturating_sub(room / 3);
    let cut = if first > 0 { "…" } else { "" };
    let before = format!(
        "{cut}{}",
        one_line(&before[first..].iter().collect::<String>())
    );
    let found = one_line(&hit.text[hit.at.clone()]);
    let left = room.saturating_sub(before.chars().count() + found.chars().count());
    let after = fitted(
        &one_line(
            &hit.text[hit.at.end..]
                .chars()
                .take(room + 1)
                .collect::<String>(),
        ),
        left,
    );
    Line::from(vec![
        Span::styled(head, theme.style(Role::Text)),
        tier,
        Span::styled(before, theme.style(Role::Faint)),
        Span::styled(found, theme.style(Role::Match)),
        Span::styled(after, theme.style(Role::Faint)),
    ])
}

/// The lines of the completion from shortly before the match on, as many as fit.
fn marked_text(theme: &Theme, hit: &SearchHit, area: Rect) -> Vec<Line<'static>> {
    let rows = area.height as usize;
    let lines_before = hit.text[..hit.at.start].matches('\n').count();
    let (first, mut at, mut lines) = (lines_before.saturating_sub(rows / 2), 0, Vec::new());
    for line in hit
        .text
        .split('\n')
        .map(|line| line.len() + 1)
        .scan(0, |begin, length| {
            let line = (*begin, *begin + length - 1);
            *begin += length;
            Some(line)
        })
    {
        at += 1;
        if at <= first || lines.len() >= rows {
            continue;
        }
        let (begin, end) = line;
        let (from, to) = (hit.at.start.clamp(begin, end), hit.at.end.clamp(begin, end));
        lines.push(Line::from(vec![
            Span::raw(one_line(&hit.text[begin..from])),
            Span::styled(one_line(&hit.text[from..to]), theme.style(Role::Match)),
            Span::raw(one_line(&hit.text[to..end])),
        ]));
    }
    lines
}
