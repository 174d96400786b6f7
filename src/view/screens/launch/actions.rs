//! The launch screen's part of the table of actions.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::form::{self, Row};
use super::{FORM, chooser, cycle, forecast, open, refresh, start_run};
use crate::view::action::{Action, Place};
use crate::view::app::Model;
use crate::view::screens::Screen;
use crate::view::widgets::field::Field;
use crate::view::widgets::list_cursor::Cursor;

const HERE: Place = Place::On(Screen::Launch);
const IN_FORM: Place = Place::In(Screen::Launch, FORM);

pub(super) const ACTIONS: &[Action] = &[
    Action::new("launch.open", "Activate row", "open", &["enter"], IN_FORM, open).unless(nothing_here),
    Action::new("launch.start", "Start run", "start", &["L", "alt-enter"], HERE, start_run::start)
        .also(&["train", "launch"])
        .unless(start_run::blocked),
    Action::new("launch.next_value", "Next value", "", &["right", "l", "space"], IN_FORM, |model| cycle(model, 1)).unless(no_choice),
    Action::new("launch.previous_value", "Previous value", "", &["left", "h"], IN_FORM, |model| cycle(model, -1)).unless(no_choice),
    Action::new("launch.reset", "Reset to default", "reset", &["backspace", "delete"], IN_FORM, |model| {
        match form::selected(model) {
            Some(Row::Key(key)) => _ = model.launch.form.changed.remove(key.name),
            Some(Row::Preset) => model.launch.form.preset = None,
            Some(Row::Device) => model.launch.form.compute = crate::run::DeviceChoice::Any,
            Some(Row::Name) => model.launch.form.name.clear(),
            _ => {}
        }
        refresh(model)
    })
    .also(&["default", "reset"])
    .unless(nothing_set_here),
    Action::new("launch.reset_all", "Reset form", "", &["U"], HERE, |model| {
        model.launch.form = form::Form::default();
        refresh(model)
    }),
    Action::new("launch.forecast", "Forecast run", "forecast", &["f"], HERE, |model| forecast::ask(model, false))
        .also(&["plan", "estimate"])
        .unless(start_run::blocked),
    Action::new("launch.can_it_learn", "Check learnability", "learnability", &["t"], HERE, |model| forecast::ask(model, true))
        .also(&["sample"])
        .unless(start_run::blocked),
    Action::new("launch.cancel", "Cancel forecast", "cancel", &["x"], HERE, |model| {
        forecast::cancel(model);
        Vec::new()
    })
    .unless(|model| model.launch.asking.is_none().then(|| "no forecast is running".to_owned())),
    Action::new("launch.models", "Choose model", "models", &["m"], HERE, |model| {
        model.launch.in_forecast = false;
        model.launch.chooser = Some(chooser::Chooser::new(chooser::What::BaseModel));
        Vec::new()
    })
    .asking(),
    Action::new("launch.tasks", "Choose task", "", &["T"], HERE, |model| {
        model.launch.in_forecast = false;
        model.launch.chooser = Some(chooser::Chooser::new(chooser::What::Task));
        Vec::new()
    })
    .asking(),
    Action::new("launch.preset", "Next preset", "preset", &["p"], HERE, |model| {
        let cursor = model.launch.cursor;
        model.launch.filter = Field::default();
        // The preset's row, wherever the cursor was.
        model.launch.cursor = Cursor { index: 1 };
        let commands = cycle(model, 1);
        model.launch.cursor = cursor;
        commands
    }),
    Action::new("launch.filter", "Find setting", "find", &["/"], HERE, |model| {
        model.launch.in_forecast = false;
        model.launch.filtering = true;
        Vec::new()
    })
    .also(&["find", "search", "filter"])
    .asking(),
    Action::new("launch.only_different", "Toggle changed only", "changed", &["o"], HERE, |model| {
        model.launch.only_different = !model.launch.only_different;
        model.launch.cursor = Cursor::default();
        Vec::new()
    }),
    Action::new("launch.clear_filter", "Show all settings", "", &["esc"], IN_FORM, |model| {
        // In a text field escape belongs to the field.
        if is_typing(model) {
            return super::typed(model, KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
        }
        model.launch.filter = Field::default();
        model.launch.only_different = false;
        Vec::new()
    })
    .unless(|model| {
        let shows_all = model.launch.filter.text().is_empty() && !model.launch.only_different;
        (shows_all && !is_typing(model)).then(|| "no filter is active".to_owned())
    }),
];

fn is_typing(model: &Model) -> bool {
    (super::PARTS.is_typing)(model)
}

fn nothing_here(model: &Model) -> Option<String> {
    match form::selected(model) {
        None => Some("no setting shown: esc clears the filter".to_owned()),
        Some(Row::Start) => start_run::blocked(model),
        Some(_) => None,
    }
}

fn no_choice(model: &Model) -> Option<String> {
    use crate::config::Kind;
    match form::selected(model) {
        Some(Row::Preset | Row::Device) => None,
        Some(Row::Key(key)) if matches!(key.kind, Kind::Choice(_) | Kind::Flag) => None,
        Some(Row::Start) => Some("press enter to start".to_owned()),
        _ => Some("press enter to edit".to_owned()),
    }
}

fn nothing_set_here(model: &Model) -> Option<String> {
    let form = &model.launch.form;
    let is_set = match form::selected(model) {
        Some(Row::Key(key)) => form.changed.contains_key(key.name),
        Some(Row::Preset) => form.preset.is_some(),
        Some(Row::Device) => form.compute != crate::run::DeviceChoice::Any,
        Some(Row::Name) => !form.name.is_empty(),
        _ => false,
    };
    (!is_set).then(|| "not set in this form".to_owned())
}
