//! The prompt of the selected completion as the model read it.

use ratatui::layout::Rect;
use ratatui::text::Line;

use super::frame::framed;
use super::group_rows;
use super::{Live, PROMPT, completion};
use crate::followed_run::FollowedRun;
use crate::pane::content::Content;
use crate::shared::Shared;
use crate::widgets::text_width::one_line;

pub(super) fn content<'a>(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    inside: Rect,
) -> Content<'a> {
    let rows = group_rows::rows_of_step(live, shared, live.at(run));
    let row = live.group.at(rows.len()).and_then(|index| rows.get(index));
    let title = row.map_or_else(
        || "prompt".to_owned(),
        |row| format!("prompt {}", one_line(&row.prompt_id)),
    );
    let content = framed(shared, PROMPT, title);
    let mut lines: Vec<Line<'static>> = Vec::new();
    if let Some(selected) = completion::selected(live, shared) {
        let prompt = selected.completion.prompt.as_ref();
        let prompt = prompt.unwrap_or(&selected.group.prompt);
        lines.extend(prompt.lines().map(|line| Line::raw(one_line(line))));
    }
    content.text(inside, lines, live.prompt_top)
}
