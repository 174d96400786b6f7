//! Draws the comparison, and the text shown before there is one.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::layout::run_folders;
use super::{ANSWERS, Eval, answers, chat, chooser, prompts, summary};
use crate::pane::framed;
use crate::shared::Shared;
use crate::style_role::Role;

pub(super) fn draw(eval: &Eval, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    if let Some(chat) = &eval.chat {
        return chat::draw(chat, shared, eval.side_by_side, frame, area);
    }
    if let Some(chooser) = &eval.chooser {
        return chooser::draw(shared, chooser, frame, area);
    }
    let Some(versus) = eval.versus() else {
        return nothing(eval, shared, frame, area);
    };
    let run_folders = run_folders(eval, shared, area);
    if let Some(area) = run_folders.summary {
        summary::draw(eval, shared, versus, frame, area);
    }
    if let Some(area) = run_folders.prompts {
        prompts::draw(eval, shared, versus, frame, area);
    }
    if let Some(area) = run_folders.answers {
        answers::draw(eval, shared, versus, frame, area);
    }
}

/// How many lines a pane has: the answers, else the summary.
pub(super) fn lines_of(eval: &Eval, shared: &Shared, pane: &str) -> usize {
    match eval.versus() {
        Some(versus) if pane == ANSWERS => answers::rows(eval, shared, versus),
        Some(versus) => {
            run_folders(eval, shared, shared.body()).summary.map_or(0, |area| summary::rows(eval, shared, versus, area))
        }
        None => 0,
    }
}

fn nothing(eval: &Eval, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let inside = framed(theme, "Eval", true, frame, area);
    let line = |id: &str, text: String| {
        Line::from(vec![Span::styled(format!(" {:<2}  ", shared.key_of(id)), theme.style(Role::Key)), Span::raw(text)])
    };
    let key = |id: &str, text: &str| line(id, text.to_owned());
    let mut lines = vec![Line::default()];
    match (&eval.loaded, super::eval_job::progress(eval)) {
        (Some(Err(error)), _) => {
            lines.push(Line::styled(format!(" {error}"), theme.style(Role::Bad)));
            lines.push(Line::default());
            if let (true, Some(task)) = (eval.is_of_other_schemas, &shared.draft.task) {
                let text = format!("re-score both sides with one schema: that of {} in the editor", task.name);
                lines.push(line("eval.rescore", text));
            }
            lines.extend([key("eval.choose", "choose other evals"), key("eval.again", "reload")]);
        }
        (None, Some(text)) => lines.push(Line::styled(format!(" {text}"), theme.style(Role::Accent))),
        _ if shared.is_busy("eval") => lines.push(Line::styled(" loading ...", theme.style(Role::Faint))),
        _ => lines.extend([
            Line::styled(" nothing to compare yet", theme.style(Role::Title)),
            Line::default(),
            key("screen.runs", "list runs; open one to compare base and trained"),
            key("eval.choose", "choose one to three evals of any runs"),
            key("eval.baseline", "run an eval of a base model; no run is needed"),
            key("eval.chat", "try a prompt of your own"),
        ]),
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
}
