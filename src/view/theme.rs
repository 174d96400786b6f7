//! A theme: a style for each role, and whether letters beyond ASCII may be drawn.

use ratatui::style::{Color, Modifier, Style};

use super::role::Role;

/// Styles by role. Meaning never hangs on colour alone: whoever draws adds a word or a glyph.
#[derive(Debug, Clone, PartialEq)]
pub struct Theme {
    /// As in its file.
    pub name: String,
    styles: Vec<Style>,
    /// Draw with ASCII only.
    pub ascii: bool,
}

impl Theme {
    /// A theme without any colour: bold, faint, reversed and underlined only.
    pub fn monochrome() -> Self {
        let style = |role: &Role| match role {
            Role::Title | Role::Accent | Role::Key | Role::Valid | Role::Good | Role::Trained => Style::new().add_modifier(Modifier::BOLD),
            Role::Faint | Role::Border | Role::Axis | Role::Raw => Style::new().add_modifier(Modifier::DIM),
            Role::Selected | Role::Crosshair | Role::Match | Role::Bar => Style::new().add_modifier(Modifier::REVERSED),
            Role::BorderFocused | Role::Bad | Role::Warning | Role::Unparsable => Style::new().add_modifier(Modifier::BOLD),
            Role::Marked | Role::Fault | Role::Special | Role::Invalid | Role::Added => Style::new().add_modifier(Modifier::UNDERLINED),
            _ => Style::new(),
        };
        Self { name: "monochrome".to_owned(), styles: Role::ALL.iter().map(style).collect(), ascii: false }
    }

    /// A theme from the style that `style` gives each role.
    pub fn new(name: &str, style: impl Fn(Role) -> Style) -> Self {
        Self { name: name.to_owned(), styles: Role::ALL.iter().map(|role| style(*role)).collect(), ascii: false }
    }

    /// The same with ASCII only.
    #[must_use]
    pub fn in_ascii(self) -> Self {
        Self { ascii: true, ..self }
    }

    /// The style of a role.
    pub fn style(&self, role: Role) -> Style {
        self.styles.get(role as usize).copied().unwrap_or_default()
    }

    /// The colour in which a role is written, for canvases that take no style.
    pub fn colour(&self, role: Role) -> Color {
        self.style(role).fg.unwrap_or(Color::Reset)
    }

    /// `rich` where letters beyond ASCII may be drawn, else `plain`.
    pub fn glyph(&self, rich: &'static str, plain: &'static str) -> &'static str {
        if self.ascii { plain } else { rich }
    }

    /// The mark of a tier, told apart without colour.
    pub fn tier_glyph(&self, tier: &str) -> &'static str {
        match tier {
            "valid" => self.glyph("█", "#"),
            "invalid" => self.glyph("▄", "o"),
            _ => self.glyph("·", "."),
        }
    }

    /// The role of a tier.
    pub fn tier_role(tier: &str) -> Role {
        match tier {
            "valid" => Role::Valid,
            "invalid" => Role::Invalid,
            _ => Role::Unparsable,
        }
    }
}

impl Default for Theme {
    /// The dark theme.
    fn default() -> Self {
        Self::new("dark", |role| {
            let fg = |red, green, blue| Style::new().fg(Color::Rgb(red, green, blue));
            match role {
                Role::Text => Style::new(),
                Role::Faint | Role::Axis => fg(128, 134, 145),
                Role::Title => fg(214, 218, 226).add_modifier(Modifier::BOLD),
                Role::Accent | Role::Key => fg(97, 175, 239).add_modifier(Modifier::BOLD),
                Role::Border => fg(72, 78, 90),
                Role::BorderFocused => fg(97, 175, 239),
                Role::Selected => Style::new().bg(Color::Rgb(44, 52, 66)),
                Role::Marked => fg(229, 192, 123),
                Role::Bar => fg(171, 178, 191).bg(Color::Rgb(30, 34, 42)),
                Role::Valid | Role::Good | Role::Trained | Role::Added => fg(126, 200, 120),
                Role::Invalid | Role::Warning => fg(229, 192, 123),
                Role::Unparsable | Role::Bad | Role::Removed => fg(230, 108, 117),
                Role::Base => fg(170, 152, 200),
                Role::Raw => fg(92, 99, 112),
                Role::SeriesOne => fg(97, 175, 239),
                Role::SeriesTwo => fg(229, 192, 123),
                Role::SeriesThree => fg(198, 120, 221),
                Role::SeriesFour => fg(86, 182, 194),
                Role::Crosshair => fg(240, 240, 240).add_modifier(Modifier::BOLD),
                Role::JsonKey => fg(97, 175, 239),
                Role::JsonString => fg(152, 195, 121),
                Role::JsonNumber => fg(209, 154, 102),
                Role::JsonWord => fg(198, 120, 221),
                Role::JsonPunctuation => fg(128, 134, 145),
                Role::Fault => fg(230, 108, 117).add_modifier(Modifier::UNDERLINED),
                Role::Match => fg(30, 34, 42).bg(Color::Rgb(229, 192, 123)),
                Role::Special => fg(86, 182, 194).add_modifier(Modifier::ITALIC),
            }
        })
    }
}
