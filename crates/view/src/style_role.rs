//! Roles: what a colour means. Screens use roles; a theme gives each a style.

use crate::config::choices;
use crate::report::Level;

choices! {
    /// The meaning of a part of the screen, as theme files name it.
    Role {
        /// Ordinary text, and the background of the screen.
        Text = "text",
        /// Secondary text: units, hints, line numbers.
        Faint = "faint",
        /// Titles of panes and columns.
        Title = "title",
        /// Highlights: the current tab, the cursor of a list.
        Accent = "accent",
        /// Frames of panes.
        Border = "border",
        /// The frame of the focused pane.
        BorderFocused = "border_focused",
        /// The row under a list's cursor.
        Selected = "selected",
        /// Marked rows.
        Marked = "marked",
        /// A key in a hint.
        Key = "key",
        /// The top and bottom bars.
        Bar = "bar",
        Valid = "valid",
        Invalid = "invalid",
        Unparsable = "unparsable",
        /// Success: finished, fixed, better.
        Good = "good",
        Warning = "warning",
        /// Failed, broken, an error.
        Bad = "bad",
        Base = "base",
        Trained = "trained",
        /// The raw values behind a smoothed curve.
        Raw = "raw",
        /// The first curve of a chart.
        SeriesOne = "series_one",
        SeriesTwo = "series_two",
        SeriesThree = "series_three",
        SeriesFour = "series_four",
        /// Axes and their ticks.
        Axis = "axis",
        /// A chart's cursor and its values.
        Crosshair = "crosshair",
        /// JSON: keys of objects.
        JsonKey = "json_key",
        /// JSON: strings.
        JsonString = "json_string",
        JsonNumber = "json_number",
        /// JSON: true, false, null.
        JsonWord = "json_word",
        /// JSON: braces, brackets, commas, colons.
        JsonPunctuation = "json_punctuation",
        /// The position of an error in a text.
        Fault = "fault",
        /// Matches of a search or a filter.
        Match = "match",
        /// Special tokens of a chat template.
        Special = "special",
        /// Added lines of a diff.
        Added = "added",
        /// Removed lines of a diff.
        Removed = "removed",
    }
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
