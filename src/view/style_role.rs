//! Roles: what a colour means. Screens name roles; a theme gives each a style.

macro_rules! roles {
    ($($(#[$meta:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// What a piece of the screen means.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Role { $($(#[$meta])* $variant),+ }

        impl Role {
            /// All roles, in the order of the theme files.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The key in theme files.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The role of that key.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

roles! {
    /// Ordinary text, and the screen's ground.
    Text = "text",
    /// What matters less: units, hints, line numbers.
    Faint = "faint",
    /// Titles of panes and columns.
    Title = "title",
    /// The program's own colour: the current tab, the cursor of a list.
    Accent = "accent",
    /// Frames of panes.
    Border = "border",
    /// The frame of the pane that has the focus.
    BorderFocused = "border_focused",
    /// The row under a list's cursor.
    Selected = "selected",
    /// Rows that are marked.
    Marked = "marked",
    /// A key in a hint.
    Key = "key",
    /// The bars at the top and the bottom.
    Bar = "bar",
    /// Tier valid.
    Valid = "valid",
    /// Tier invalid.
    Invalid = "invalid",
    /// Tier unparsable.
    Unparsable = "unparsable",
    /// Good news: finished, fixed, better.
    Good = "good",
    /// Look at this.
    Warning = "warning",
    /// Failed, broken, an error.
    Bad = "bad",
    Base = "base",
    /// Of the trained model.
    Trained = "trained",
    /// A curve as measured, behind its smoothed one.
    Raw = "raw",
    /// The first curve of a chart.
    SeriesOne = "series_one",
    /// The second curve.
    SeriesTwo = "series_two",
    /// The third curve.
    SeriesThree = "series_three",
    /// The fourth curve.
    SeriesFour = "series_four",
    /// Axes and their ticks.
    Axis = "axis",
    /// A chart's cursor and its readout.
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
    /// The place of an error in a text.
    Fault = "fault",
    /// What a search found; letters that a filter matched.
    Match = "match",
    /// Special tokens of a chat template.
    Special = "special",
    /// Added in a difference.
    Added = "added",
    /// Removed in a difference.
    Removed = "removed",
}
