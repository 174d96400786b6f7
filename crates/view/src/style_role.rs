//! Roles: what a colour means. Screens use roles; a theme gives each a style.

use crate::report::Level;

macro_rules! roles {
    ($($(#[$meta:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// The meaning of a part of the screen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Role { $($(#[$meta])* $variant),+ }

        impl Role {
            /// All roles, in the order of the theme files.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The key in theme files.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

roles! {
    /// Ordinary text, and the background of the screen.
    Text = "text",
    /// Secondary text: units, hints, line numbers.
    Faint = "faint",
    Title = "title",
    /// Highlights: the current tab, the cursor of a list.
    Accent = "accent",
    Border = "border",
    BorderFocused = "border_focused",
    /// The row under a list's cursor.
    Selected = "selected",
    Marked = "marked",
    Key = "key",
    Bar = "bar",
    Valid = "valid",
    Invalid = "invalid",
    Unparsable = "unparsable",
    /// Success: finished, fixed, better.
    Good = "good",
    Warning = "warning",
    Bad = "bad",
    Base = "base",
    Trained = "trained",
    Raw = "raw",
    /// The first curve of a chart.
    SeriesOne = "series_one",
    SeriesTwo = "series_two",
    SeriesThree = "series_three",
    SeriesFour = "series_four",
    Axis = "axis",
    Crosshair = "crosshair",
    JsonKey = "json_key",
    JsonString = "json_string",
    JsonNumber = "json_number",
    /// JSON: true, false, null.
    JsonWord = "json_word",
    /// JSON: braces, brackets, commas, colons.
    JsonPunctuation = "json_punctuation",
    Fault = "fault",
    Match = "match",
    Special = "special",
    Added = "added",
    Removed = "removed",
}

impl From<Level> for Role {
    fn from(level: Level) -> Self {
        match level {
            Level::Step => Self::Faint,
            Level::Info => Self::Text,
            Level::Base => Self::Base,
            Level::Trained => Self::Trained,
            Level::Request => Self::Accent,
            Level::Good => Self::Good,
            Level::Warning => Self::Warning,
            Level::Error => Self::Bad,
        }
    }
}
