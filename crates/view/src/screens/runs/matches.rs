//! Text search through the completions of the chosen runs: the matches as they are found, and the text of one.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::KeyEvent;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::search_state::{Matches, News};
use super::{LIST, MATCHES, Runs};
use crate::command_log::CommandLine;
use crate::format::short_id;
use crate::message::{Command, Sender, Work};
use crate::pane::framed;
use crate::popup::{Ask, Popup};
use crate::run::{SearchHit, TextSearch, search_rollouts};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::text_width::{fitted, one_line, padded};

/// The matches that are held; the search continues to count the others.
const MAX_MATCHES: usize = 2_000;
/// How often progress is shown.
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
    Ask::new("Search completions", label, &runs.matches.text, begin).checked(|text| TextSearch::new(text).err())
}

fn begin(runs: &mut Runs, text: String, paths: Vec<PathBuf>) -> Vec<Command> {
    let Ok(search) = TextSearch::new(&text) else { return Vec::new() };
    let line = std::iter::once(text.clone()).chain(paths.iter().map(|run| run.display().to_string()));
    let line: CommandLine = ["runs", "search"].map(str::to_owned).into_iter().chain(line).collect();
    runs.matches = Matches { text, runs: paths.clone(), ..Matches::default() };
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
        let now = std::mem::replace(&mut *news, News { sent: Some(Instant::now()), ..News::default() });
        sender.send(move |runs: &mut Runs, _| runs.matches.apply(now))
    });
    let mut last = std::mem::take(&mut *crate::message::locked(&news));
    last.progress = 1.0;
    last.problems.extend(outcome.err().map(|error| error.to_string()));
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
    let Some(hit) = runs.matches.under() else { return Vec::new() };
    let Some(run) = runs.matches.runs.get(hit.run).cloned() else { return Vec::new() };
    shared.overlay.clear();
    shared.step_to_show = Some(hit.step);
    vec![Command::ShowRun(run), Command::GoTo(Screen::Live)]
}

pub(super) fn copy(runs: &mut Runs, _: &mut Shared) -> Vec<Command> {
    runs.matches.under().map(|hit| Command::Copy(hit.text.clone())).into_iter().collect()
}

pub(super) fn none(runs: &Runs, _: &Shared) -> Option<String> {
    runs.matches.under().is_none().then(|| "no match selected".to_owned())
}

pub(super) fn on_key(runs: &mut Runs, shared: &mut Shared, event: KeyEvent) {
    let page = places(shared.body())[0].height.saturating_sub(2);
    let length = runs.matches.hits.len();
    runs.matches.cursor.key(event, page as usize, length);
}

/// Selects the match at a terminal row.
pub(super) fn click(runs: &mut Runs, shared: &Shared, row: u16) {
    runs.matches.cursor.index = row_at(runs, shared, row).unwrap_or(runs.matches.cursor.index);
}

pub(super) fn row_at(runs: &Runs, shared: &Shared, row: u16) -> Option<usize> {
    let list = places(shared.body())[0];
    let line = row.checked_sub(list.y + 1)? as usize;
    runs.matches.cursor.row_at(line, list.height.saturating_sub(2) as usize, runs.matches.hits.len())
}

pub(super) fn go(runs: &mut Runs, by: isize) {
    let length = runs.matches.hits.len();
    runs.matches.cursor.go(by, length);
}

/// The list of matches, and the text of one.
fn places(area: Rect) -> [Rect; 2] {
    Layout::vertical([Constraint::Percentage(50), Constraint::Fill(1)]).areas(area)
}

pub(super) fn draw(runs: &Runs, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let (theme, matches) = (&shared.theme, &runs.matches);
    let [list, text] = places(area);
    let inside = framed(theme, &matches.title(theme), true, frame, list);
    let mut lines = Vec::new();
    for (index, here) in matches.cursor.seen(inside.height as usize, matches.hits.len()) {
        lines.push(row(matches, &matches.hits[index], theme, inside.width as usize, here));
    }
    if lines.is_empty() {
        let nothing = match (matches.progress < 1.0, matches.completions) {
            (true, _) => "searching ...".to_owned(),
            (false, 0) => {
                "no rollouts: these runs have no steps yet, or keep_rollouts has deleted their files".to_owned()
            }
            (false, _) => format!("no match; {} searches again", shared.key_of("runs.search")),
        };
        lines.push(Line::styled(format!("  {nothing}"), theme.style(Role::Faint)));
    }
    frame.render_widget(Paragraph::new(lines), inside);
    let problem = matches.problems.first().map(|problem| format!("not searched: {problem}"));
    let title = matches.under().map_or_else(|| "Completion".to_owned(), |hit| about(matches, hit));
    let inside = framed(theme, &title, false, frame, text);
    let mut lines: Vec<Line<'static>> =
        problem.into_iter().map(|problem| Line::styled(problem, theme.style(Role::Warning))).collect();
    if let Some(hit) = matches.under() {
        lines.extend(marked_text(theme, hit, inside));
        lines.extend(hit.errors.iter().map(|error| Line::styled(one_line(error), theme.style(Role::Fault))));
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
}

fn name(run: &std::path::Path) -> String {
    short_id(&run.file_name().unwrap_or_default().to_string_lossy()).to_owned()
}

fn about(matches: &Matches, hit: &SearchHit) -> String {
    let run = matches.runs.get(hit.run).map_or_else(String::new, |run| name(run));
    let reward = hit.reward.map_or_else(|| "n/a".to_owned(), |reward| format!("{reward:.3}"));
    let exact = match hit.exact {
        Some(true) => ", exact",
        Some(false) => ", not exact",
        None => "",
    };
    let tier = if hit.tier.is_empty() { "n/a" } else { &hit.tier };
    format!("{run} step {} {} #{}: {tier}{exact}, reward {reward}", hit.step, one_line(&hit.prompt_id), hit.sample + 1)
}

/// `▸ 6sx3dn   12 train-004    #3 █ …"vendor": "Nordhaven"…`, the match underlined.
fn row(matches: &Matches, hit: &SearchHit, theme: &Theme, width: usize, here: bool) -> Line<'static> {
    let mark = if here { theme.glyph("▸", ">") } else { " " };
    let run = matches.runs.get(hit.run).map_or_else(String::new, |run| name(run));
    let head = format!("{mark} {run} {:>6} {} #{:<3}", hit.step, padded(&hit.prompt_id, 12, false), hit.sample + 1);
    let tier = Span::styled(format!("{} ", theme.tier_glyph(&hit.tier)), theme.style(Theme::tier_role(&hit.tier)));
    let room = width.saturating_sub(head.chars().count() + 2);
    // A third of the room goes to what precedes the match.
    let before: Vec<char> = hit.text[..hit.at.start].chars().collect();
    let first = before.len().saturating_sub(room / 3);
    let cut = if first > 0 { "…" } else { "" };
    let before = format!("{cut}{}", one_line(&before[first..].iter().collect::<String>()));
    let found = one_line(&hit.text[hit.at.clone()]);
    let left = room.saturating_sub(before.chars().count() + found.chars().count());
    let after = fitted(&one_line(&hit.text[hit.at.end..].chars().take(room + 1).collect::<String>()), left);
    let line = Line::from(vec![
        Span::styled(head, theme.style(Role::Text)),
        tier,
        Span::styled(before, theme.style(Role::Faint)),
        Span::styled(found, theme.style(Role::Match)),
        Span::styled(after, theme.style(Role::Faint)),
    ]);
    if here { line.style(theme.style(Role::Selected)) } else { line }
}

/// The lines of the completion from shortly before the match on, as many as fit.
fn marked_text(theme: &Theme, hit: &SearchHit, area: Rect) -> Vec<Line<'static>> {
    let rows = area.height as usize;
    let lines_before = hit.text[..hit.at.start].matches('\n').count();
    let (first, mut at, mut lines) = (lines_before.saturating_sub(rows / 2), 0, Vec::new());
    for line in hit.text.split('\n').map(|line| line.len() + 1).scan(0, |begin, length| {
        let line = (*begin, *begin + length - 1);
        *begin += length;
        Some(line)
    }) {
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
