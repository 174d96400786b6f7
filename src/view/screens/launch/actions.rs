//! The launch screen's part of the table of actions.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::form::{self, Row};
use super::{FORM, chooser, cycle, forecast, open, refresh, start};
use crate::view::action::{Action, Place};
use crate::view::model::{Model, Screen};
use crate::view::widgets::cursor::Cursor;
use crate::view::widgets::field::Field;

const HERE: Place = Place::On(Screen::Launch);
const IN_FORM: Place = Place::In(Screen::Launch, FORM);

pub(super) const ACTIONS: &[Action] = &[
    Action::new("launch.open", "Start the run, or change what the cursor is on", "start/change", &["enter"], IN_FORM, open)
        .unless(nothing_here),
    Action::new("launch.start", "Start the run from wherever the cursor is", "start", &["L", "alt-enter"], HERE, start::start)
        .also(&["train", "launch"])
        .unless(start::blocked),
    Action::new("launch.next_value", "Take the next value", "", &["right", "l", "space"], IN_FORM, |model| cycle(model, 1))
        .unless(no_choice),
    Action::new("launch.previous_value", "Take the previous value", "", &["left", "h"], IN_FORM, |model| cycle(model, -1))
        .unless(no_choice),
    Action::new("launch.reset", "Take the value back that the layers below give", "reset", &["backspace", "delete"], IN_FORM, |model| {
        match form::selected(model) {
            Some(Row::Key(key)) => _ = model.launch.form.changed.remove(key.name),
            Some(Row::Preset) => model.launch.form.preset = None,
            Some(Row::Device) => model.launch.form.compute = crate::run::Compute::Any,
            Some(Row::Name) => model.launch.form.name.clear(),
            _ => {}
        }
        refresh(model)
    })
    .also(&["default", "reset"])
    .unless(nothing_set_here),
    Action::new("launch.reset_all", "Empty the form: everything as the task has it", "", &["U"], HERE, |model| {
        model.launch.form = form::Form::default();
        refresh(model)
    }),
    Action::new("launch.forecast", "Forecast memory, time and disk, measured here with this model", "forecast", &["f"], HERE, |model| {
        forecast::ask(model, false)
    })
    .also(&["plan", "estimate"])
    .unless(start::blocked),
    Action::new("launch.can_it_learn", "Forecast, and draw groups of the base: can it learn?", "can it learn?", &["t"], HERE, |model| {
        forecast::ask(model, true)
    })
    .also(&["sample"])
    .unless(start::blocked),
    Action::new("launch.cancel", "Give up the forecast that is being made", "give up", &["x"], HERE, |model| {
        forecast::cancel(model);
        Vec::new()
    })
    .unless(|model| model.launch.asking.is_none().then(|| "no forecast is being made".to_owned())),
    Action::new("launch.models", "Choose the model to start from", "models", &["m"], HERE, |model| {
        model.launch.in_forecast = false;
        model.launch.chooser = Some(chooser::Chooser::new(chooser::What::BaseModel));
        Vec::new()
    })
    .asking(),
    Action::new("launch.tasks", "Choose the task", "", &["T"], HERE, |model| {
        model.launch.in_forecast = false;
        model.launch.chooser = Some(chooser::Chooser::new(chooser::What::Task));
        Vec::new()
    })
    .asking(),
    Action::new("launch.preset", "Take the next preset", "preset", &["p"], HERE, |model| {
        let cursor = model.launch.cursor;
        model.launch.filter = Field::default();
        // The preset's row, wherever the cursor was.
        model.launch.cursor = Cursor { index: 1 };
        let commands = cycle(model, 1);
        model.launch.cursor = cursor;
        commands
    }),
    Action::new("launch.filter", "Find settings by name, meaning or group", "find", &["/"], HERE, |model| {
        model.launch.in_forecast = false;
        model.launch.filtering = true;
        Vec::new()
    })
    .also(&["find", "search", "filter"])
    .asking(),
    Action::new(
        "launch.only_different",
        "Show only settings that are not at the table's default, or all again",
        "differences",
        &["o"],
        HERE,
        |model| {
            model.launch.only_different = !model.launch.only_different;
            model.launch.cursor = Cursor::default();
            Vec::new()
        },
    ),
    Action::new("launch.clear_filter", "Show all settings again", "", &["esc"], IN_FORM, |model| {
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
        (shows_all && !is_typing(model)).then(|| "all settings are shown".to_owned())
    }),
];

fn is_typing(model: &Model) -> bool {
    (super::PARTS.is_typing)(model)
}

fn nothing_here(model: &Model) -> Option<String> {
    match form::selected(model) {
        None => Some("no setting is shown; esc shows all again".to_owned()),
        Some(Row::Start) => start::blocked(model),
        Some(_) => None,
    }
}

fn no_choice(model: &Model) -> Option<String> {
    use crate::config::Kind;
    match form::selected(model) {
        Some(Row::Preset | Row::Device) => None,
        Some(Row::Key(key)) if matches!(key.kind, Kind::Choice(_) | Kind::Flag) => None,
        Some(Row::Start) => Some("enter starts the run".to_owned()),
        _ => Some("enter changes this one".to_owned()),
    }
}

fn nothing_set_here(model: &Model) -> Option<String> {
    let form = &model.launch.form;
    let is_set = match form::selected(model) {
        Some(Row::Key(key)) => form.changed.contains_key(key.name),
        Some(Row::Preset) => form.preset.is_some(),
        Some(Row::Device) => form.compute != crate::run::Compute::Any,
        Some(Row::Name) => !form.name.is_empty(),
        _ => false,
    };
    (!is_set).then(|| "it was not set in this form".to_owned())
}
