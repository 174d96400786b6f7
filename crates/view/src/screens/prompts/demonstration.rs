//! How the selected row's request is done with the task's tools: its demonstration.

use ratatui::text::Line;

use crate::dataset::PromptRow;
use crate::format::counted;
use crate::prompts::{demonstrated_chain, demonstrated_turns};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::conversation::Conversation;
use crate::widgets::json;

pub(super) fn lines(shared: &Shared, row: &PromptRow, width: usize) -> Vec<Line<'static>> {
    let shown = demonstrated_turns(row);
    if shown.is_empty() {
        return Vec::new();
    }
    let (theme, (chain, answer)) = (&shared.theme, demonstrated_chain(shown));
    let title = format!(
        "demonstration: {} in {}",
        counted(chain.calls().count(), "call"),
        counted(chain.steps.len(), "turn")
    );
    let talk = Conversation {
        chain: &chain,
        call_seconds: &[],
        tokens: None,
        is_whole: shared.whole_results,
        whole_key: shared.key_of("prompts.results"),
        width,
    };
    let mut lines = vec![theme.line(title, Role::Title)];
    lines.extend(talk.turns(theme));
    lines.extend(json::lines(theme, &answer, &[]));
    lines
}
