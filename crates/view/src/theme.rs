//! A theme: a style for each role, whether non-ASCII characters may be drawn, and whether the output is linear.

use std::borrow::Cow;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::colour;
use super::style_role::Role;
use super::terminal_capability::ColourDepth;
use crate::facts::{AlertLevel, Cause, TierOutcome};
use crate::report::{Level, RunOutcome};
use crate::run::Status;
use crate::run::events::Alert;

/// Styles by role. Colour is never the only sign: a word or a glyph goes with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Theme {
    pub name: String,
    styles: Vec<Style>,
    pub ascii: bool,
    /// Whether output is printed line by line, with numbers and words in place of bars and curves.
    pub linear: bool,
}

impl Theme {
    pub fn new(name: &str, style: impl Fn(Role) -> Style) -> Self {
        let styles = Role::ALL.iter().map(|role| style(*role)).collect();
        Self {
            name: name.to_owned(),
            styles,
            ascii: false,
            linear: false,
        }
    }

    /// The theme of linear mode: only what is selected is styled, so that it can be found.
    pub fn linear() -> Self {
        let style = |role| match role {
            Role::Selected => Style::new().add_modifier(Modifier::REVERSED),
            _ => Style::new(),
        };
        Self {
            linear: true,
            ..Self::new("linear", style)
        }
    }

    #[must_use]
    pub fn in_ascii(self) -> Self {
        Self {
            ascii: true,
            ..self
        }
    }

    pub fn style(&self, role: Role) -> Style {
        self.styles.get(role as usize).copied().unwrap_or_default()
    }

    pub fn span<'t>(&self, text: impl Into<Cow<'t, str>>, role: Role) -> Span<'t> {
        Span::styled(text, self.style(role))
    }

    pub fn line<'t>(&self, text: impl Into<Cow<'t, str>>, role: Role) -> Line<'t> {
        Line::styled(text, self.style(role))
    }

    pub(super) fn set(&mut self, role: Role, style: Style) {
        if let Some(of_role) = self.styles.get_mut(role as usize) {
            *of_role = style;
        }
    }

    /// The foreground of a role, for canvases that take no style.
    pub fn colour(&self, role: Role) -> Color {
        self.style(role).fg.unwrap_or(Color::Reset)
    }

    #[must_use]
    pub fn at_depth(self, depth: ColourDepth) -> Self {
        let styles = self
            .styles
            .iter()
            .map(|style| colour::at_depth(*style, depth))
            .collect();
        Self { styles, ..self }
    }

    /// `rich`, or `plain` for ASCII terminals and screen readers.
    pub fn glyph(&self, rich: &'static str, plain: &'static str) -> &'static str {
        if self.ascii || self.linear {
            plain
        } else {
            rich
        }
    }

    /// The mark of a tier, distinct without colour.
    pub fn tier_glyph(&self, tier: impl Into<TierOutcome>) -> &'static str {
        match tier.into() {
            TierOutcome::NotScored => "?",
            TierOutcome::Valid if self.linear => "v",
            TierOutcome::Invalid if self.linear => "i",
            TierOutcome::Unparsable if self.linear => "u",
            TierOutcome::Valid => "█",
            TierOutcome::Invalid => "▄",
            TierOutcome::Unparsable => "·",
        }
    }

    pub fn tier_role(tier: impl Into<TierOutcome>) -> Role {
        match tier.into() {
            TierOutcome::Valid => Role::Valid,
            TierOutcome::Invalid => Role::Invalid,
            TierOutcome::NotScored => Role::Warning,
            TierOutcome::Unparsable => Role::Unparsable,
        }
    }

    /// The mark before an open alert, none for information, and its role.
    pub fn alert_mark(&self, alert: &Alert) -> (&'static str, Role) {
        match alert.level {
            AlertLevel::Error => ("▲ ", Role::Bad),
            AlertLevel::Info => ("", Role::Text),
            AlertLevel::Warning => ("▲ ", Role::Warning),
        }
    }

    /// The mark and role of a run's state; the word is drawn beside it. What a finished run achieved decides its role.
    pub fn status_mark(
        &self,
        status: Status,
        cause: Option<&Cause>,
        outcome: &RunOutcome,
    ) -> (&'static str, Role) {
        match status {
            status if status.is_stopped(cause) => ("■", Role::Text),
            Status::Created => ("○", Role::Faint),
            Status::Waiting => ("◌", Role::Warning),
            Status::Starting => ("◐", Role::Accent),
            Status::Running => ("●", Role::Accent),
            Status::Paused => ("‖", Role::Warning),
            Status::Stopping => ("◑", Role::Accent),
            Status::Finished if outcome.level() == Level::Warning => ("▲", Role::Warning),
            Status::Finished => ("✓", outcome.level().into()),
            Status::Failed => ("✗", Role::Bad),
            Status::Interrupted => ("▲", Role::Warning),
        }
    }
}
