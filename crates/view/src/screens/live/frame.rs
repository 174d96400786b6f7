//! The frame of a pane: its title, the key that focuses it, and a legend.

use ratatui::text::{Line, Span};

use crate::pane::content::Content;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;

/// A pane with the key that focuses it.
pub(super) fn framed<'a>(shared: &Shared, pane: &str, title: impl Into<String>) -> Content<'a> {
    let action = (shared.find_action)(&format!("live.pane.{pane}"));
    let key = action
        .map(|action| shared.keymap.shown(action))
        .unwrap_or_default();
    Content {
        key,
        ..Content::titled(title)
    }
}

/// A sign and its meaning.
pub(super) struct LegendEntry {
    sign: &'static str,
    role: Role,
    meaning: String,
}

impl LegendEntry {
    pub(super) fn new(sign: &'static str, role: Role, meaning: impl Into<String>) -> Self {
        let meaning = meaning.into();
        Self {
            sign,
            role,
            meaning,
        }
    }
}

/// Signs with their meanings for the lower edge of a pane; what does not fit is left out.
pub(super) fn legend(
    theme: &Theme,
    entries: impl IntoIterator<Item = LegendEntry>,
    columns: usize,
) -> Line<'static> {
    let mut line = Line::default();
    for LegendEntry {
        sign,
        role,
        meaning,
    } in entries
    {
        let entry = [
            Span::styled(format!(" {sign}"), theme.style(role)),
            Span::styled(format!(" {meaning} "), theme.style(Role::Faint)),
        ];
        if line.width() + entry.iter().map(Span::width).sum::<usize>() <= columns {
            line.spans.extend(entry);
        }
    }
    line
}
