//! The model: everything that the view knows, and nothing that it draws with. `update` changes it, `draw` reads it.

use std::collections::HashMap;

use super::keymap::Keymap;
use super::messages::{Level, Notices};
use super::options::Options;
use super::popup::Popup;
use super::screens::{eval, launch, live, prompts, runs, schema, scores};
use super::shared::Workbench;
use super::theme::Theme;

/// One of the seven screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Screen {
    /// Runs there are.
    #[default]
    Runs,
    /// The schema, in an editor.
    Schema,
    /// Prompt rows.
    Prompts,
    /// Completions against the schema.
    Scores,
    /// The form of a new run.
    Launch,
    /// A run as it goes.
    Live,
    /// Base and trained side by side.
    Eval,
}

impl Screen {
    /// All, in the order of their keys.
    pub const ALL: [Self; 7] = [Self::Runs, Self::Schema, Self::Prompts, Self::Scores, Self::Launch, Self::Live, Self::Eval];
}

/// Everything that the view knows.
#[derive(Debug)]
pub struct Model {
    /// How the program was started and what this terminal can do.
    pub options: Options,
    /// The screen in front.
    pub screen: Screen,
    /// What lies over the screen and takes all keys: help, palette, questions.
    pub popup: Option<Popup>,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// Time of the latest message, milliseconds since 1970.
    pub now_ms: u64,
    /// Styles.
    pub theme: Theme,
    /// Keys.
    pub keymap: Keymap,
    /// What all screens share: task, drafts, runs.
    pub workbench: Workbench,
    /// Sentences for the user.
    pub notices: Notices,
    /// Whether the focused pane fills the screen.
    pub zoomed: bool,
    /// Bytes a second to the terminal, lately.
    pub bytes_per_second: u64,
    /// Keys pressed so far: work that ends in a question asks it only where none was pressed meanwhile.
    pub keys: u64,
    /// Time and place of the last click, until it was half of a double click.
    pub clicked: Option<(u64, (u16, u16))>,
    /// The newest work of each key, and whether it still runs.
    pub work: HashMap<&'static str, Running>,
    /// Screen 1.
    pub runs: runs::Runs,
    /// Screen 2.
    pub schema: schema::Schema,
    /// Screen 3.
    pub prompts: prompts::Prompts,
    /// Screen 4.
    pub scores: scores::Scores,
    /// Screen 5.
    pub launch: launch::Launch,
    /// Screen 6.
    pub live: live::Live,
    /// Screen 7.
    pub eval: eval::Eval,
}

/// Work of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Running {
    /// Counts the works of this key; only the newest may change the model.
    pub generation: u64,
    /// Whether it still runs.
    pub busy: bool,
}

impl Model {
    /// The model at the start; `super::start` gives the first commands.
    pub fn new(options: Options) -> Self {
        let workbench = Workbench::new(&options);
        Self {
            screen: Screen::default(),
            popup: None,
            size: (80, 24),
            now_ms: 0,
            theme: options.theme.clone(),
            keymap: options.keymap.clone(),
            workbench,
            notices: Notices::default(),
            zoomed: false,
            bytes_per_second: 0,
            keys: 0,
            clicked: None,
            work: HashMap::new(),
            runs: runs::Runs::default(),
            schema: schema::Schema::default(),
            prompts: prompts::Prompts::default(),
            scores: scores::Scores::default(),
            launch: launch::Launch::default(),
            live: live::Live::default(),
            eval: eval::Eval::default(),
            options,
        }
    }

    /// Whether work of this key runs.
    pub fn is_busy(&self, key: &str) -> bool {
        self.work.get(key).is_some_and(|running| running.busy)
    }

    /// Whether a popup or a text field takes the keys now.
    pub fn takes_text(&self) -> bool {
        self.popup.is_some() || (super::screens::of(self.screen).is_typing)(self)
    }

    /// Tell the user something that went as it should.
    pub fn say(&mut self, text: impl Into<String>) {
        self.notices.tell(self.now_ms, Level::Done, text.into());
    }

    /// Tell the user what went wrong and what to do.
    pub fn complain(&mut self, text: impl Into<String>) {
        self.notices.tell(self.now_ms, Level::Complaint, text.into());
    }
}
