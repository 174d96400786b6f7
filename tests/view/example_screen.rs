//! A new screen needs its state, one table and one `impl`: panes as values are drawn, hit, moved and printed for it.

use crossterm::event::{KeyCode, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use grpo_tui::view::action::Scope;
use grpo_tui::view::interaction;
use grpo_tui::view::pane::content::{Content, List, Place, Spot};
use grpo_tui::view::pane::lines::PaneLines;
use grpo_tui::view::screen::{About, Action, Actions, Described, Screen};
use grpo_tui::view::shared::Shared;
use grpo_tui::view::widgets::filter::{Filter, TextField};
use grpo_tui::view::widgets::list_cursor::Cursor;
use grpo_tui::view::{self, app};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;

use super::harness::Stage;

const NOTES: [(&str, &str); 3] = [
    ("apple", "red or green"),
    ("banana", "yellow"),
    ("cherry", "red"),
];
const FILTER: Action<Notes> = Action::new(
    "notes.filter",
    "Filter notes",
    "filter",
    &["/"],
    Scope::Screen(view::Screen::Runs),
    |notes, _| {
        notes.filter.is_typing = true;
        Vec::new()
    },
);

/// A list of notes, and the text of the one under the cursor.
#[derive(Default)]
struct Notes {
    in_text: bool,
    cursor: Cursor,
    top: Cursor,
    filter: Filter,
}

impl Notes {
    fn shown(&self) -> Vec<(&'static str, &'static str)> {
        NOTES
            .into_iter()
            .filter(|(name, _)| name.contains(self.filter.text()))
            .collect()
    }
}

impl Described for Notes {
    const ABOUT: &'static About = &About {
        title: "Notes",
        help: "Notes.",
        panes: &["notes", "text"],
    };
    const TABLE: &'static [Action<Self>] = &[FILTER];
}

impl Screen for Notes {
    fn pane(&self) -> &'static str {
        Self::ABOUT.panes[usize::from(self.in_text)]
    }

    fn focus(&mut self, _: &mut Shared, pane: &'static str) {
        self.in_text = pane == "text";
    }

    fn is_typing(&self) -> bool {
        self.filter.is_typing
    }

    fn places(&self, _: &Shared, area: Rect) -> Vec<Place> {
        let [list, text] =
            Layout::horizontal([Constraint::Length(12), Constraint::Fill(1)]).areas(area);
        vec![Place::new("notes", list), Place::new("text", text)]
    }

    fn content<'a>(&'a self, shared: &'a Shared, place: &Place) -> Content<'a> {
        let (shown, content) = (self.shown(), Content::titled(place.id));
        if place.id == "text" {
            let text = self
                .cursor
                .at(shown.len())
                .map(|at| Line::from(shown[at].1));
            return content.text(place.inside(), text.into_iter().collect(), self.top);
        }
        let head = self
            .filter
            .is_shown()
            .then(|| self.filter.line(&shared.theme, place.inside().width.into()));
        let list = List::new(shown.len(), self.cursor, move |row| {
            Line::from(format!(" {}", shown[row].0))
        });
        Content {
            head: head.into_iter().collect(),
            ..content.list(list)
        }
    }

    fn cursor(&mut self, pane: &str) -> Option<&mut Cursor> {
        Some(if pane == "text" {
            &mut self.top
        } else {
            &mut self.cursor
        })
    }

    fn field(&mut self) -> Option<&mut dyn TextField> {
        self.filter.typed()
    }
}

#[test]
fn a_new_screen_is_drawn_hit_moved_filtered_and_printed_by_what_all_screens_share() {
    let Stage { mut model, .. } = Stage::new(30, 8);
    let motion = |id| {
        model
            .motion_of(model.shared.keymap.keys(app::action(id).unwrap())[0])
            .unwrap()
    };
    let [down, last] = ["move.down", "move.last"].map(motion);
    let (mut notes, shared) = (Notes::default(), &mut model.shared);
    let area = shared.body();
    let mut terminal = Terminal::new(TestBackend::new(30, 8)).unwrap();
    terminal
        .draw(|frame| notes.draw(shared, frame, area))
        .unwrap();
    let drawn = terminal.backend().to_string();
    assert!(
        drawn.contains("▸ notes ─")
            && drawn.contains("│  cherry  │")
            && drawn.contains("│red or green"),
        "{drawn}"
    );

    interaction::go(&mut notes, shared, "notes", down);
    assert_eq!(notes.cursor.index, 1);
    interaction::go(&mut notes, shared, "notes", last);
    assert_eq!(notes.cursor.index, 2);

    let banana = (area.x + 2, area.y + 2);
    assert_eq!(
        interaction::hit(&notes, shared, banana.into())
            .unwrap()
            .spot,
        Spot::Item(1)
    );
    let (kind, modifiers) = (MouseEventKind::Down(MouseButton::Left), KeyModifiers::NONE);
    let click = |column| MouseEvent {
        kind,
        column,
        row: banana.1,
        modifiers,
    };
    interaction::mouse(&mut notes, shared, click(20));
    assert_eq!((notes.pane(), notes.cursor.index), ("text", 2));
    interaction::mouse(&mut notes, shared, click(banana.0));
    assert_eq!((notes.pane(), notes.cursor.index), ("notes", 1));

    notes.perform(shared, "notes.filter");
    interaction::key(&mut notes, shared, KeyCode::Char('c').into());
    assert!(notes.is_typing());
    let [list, text] = &notes.lines(shared, area)[..] else {
        panic!()
    };
    let printed = |pane: &PaneLines| {
        pane.lines
            .iter()
            .map(|line| line.text.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (printed(list), printed(text)),
        (vec!["/ c".into(), " cherry".into()], vec!["red".to_owned()])
    );
}
