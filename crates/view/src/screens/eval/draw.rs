//! The contents of the eval screen's panes, and the text shown before there is a comparison.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{ANSWERS, Eval, SUMMARY, answers, chat, chooser, prompts, summary};
use crate::pane::content::{Content, Place};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::list_cursor::Cursor;

pub(super) fn content<'a>(eval: &'a Eval, shared: &'a Shared, place: &Place) -> Content<'a> {
    let inside = place.inside();
    if let Some(chat) = &eval.chat {
        return chat::content(chat, shared, eval.side_by_side, place);
    }
    if let Some(chooser) = &eval.chooser {
        return chooser::content(shared, chooser, inside.width.into());
    }
    let Some(versus) = eval.versus() else {
        return nothing(eval, shared, inside);
    };
    match place.id {
        SUMMARY => summary::content(eval, shared, versus, inside),
        ANSWERS => answers::content(eval, shared, versus, inside),
        _ => prompts::content(eval, shared, versus, inside.width.into()),
    }
}

fn nothing<'a>(eval: &Eval, shared: &Shared, inside: Rect) -> Content<'a> {
    let theme = &shared.theme;
    let line = |id: &str, text: String| {
        Line::from(vec![
            theme.span(format!(" {:<2}  ", shared.key_of(id)), Role::Key),
            Span::raw(text),
        ])
    };
    let key = |id: &str, text: &str| line(id, text.to_owned());
    let mut lines = vec![Line::default()];
    match (&eval.loaded, super::eval_job::progress(eval)) {
        (Some(Err(error)), _) => {
            lines.push(theme.line(format!(" {error}"), Role::Bad));
            lines.push(Line::default());
            if let (true, Some(task)) = (eval.is_of_other_schemas, &shared.draft.task) {
                let text = format!(
                    "re-score both sides with one schema: that of {} in the editor",
                    task.name
                );
                lines.push(line("eval.rescore", text));
            }
            lines.extend([
                key("eval.choose", "choose other evals"),
                key("eval.again", "reload"),
            ]);
        }
        (None, Some(text)) => lines.push(theme.line(format!(" {text}"), Role::Accent)),
        _ if shared.is_busy("eval") => lines.push(theme.line(" loading ...", Role::Faint)),
        _ => lines.extend([
            theme.line(" nothing to compare yet", Role::Title),
            Line::default(),
            key(
                "screen.runs",
                "list runs; open one to compare base and trained",
            ),
            key("eval.choose", "choose one or two evals of any runs"),
            key(
                "eval.start",
                "run an eval of a base model; no run is needed",
            ),
            key("eval.chat", "try a prompt of your own"),
        ]),
    }
    Content::titled("Eval").text(inside, lines, Cursor::default())
}
