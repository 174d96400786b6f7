//! Screen: the form of a new run, what the run would take, and its start.

mod actions;
mod chooser;
pub mod context;
pub mod device_choice;
mod draw;
pub mod forecast;
mod forecast_view;
pub mod form;
mod key_help;
mod start_run;

use crossterm::event::{KeyCode, KeyEvent, MouseEvent, MouseEventKind};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Change, ScreenDef};
use crate::config::{Assignments, Key, Kind, ResolvedConfig};
use crate::plan::SignalReport;
use crate::view::app::Model;
use crate::view::message::Command;
use crate::view::screens::Screen;
use crate::view::theme::Theme;
use crate::view::widgets::field::Field;
use crate::view::widgets::list_cursor::Cursor;
use chooser::Chooser;
use context::{LaunchContext, Origin};
use device_choice::Choice;
use forecast::{Forecast, ForecastJob, ForecastResult};
use form::{Form, Row, Values};

/// The screen's own part of the model.
#[derive(Debug, Default)]
pub struct Launch {
    /// What the user chose.
    pub form: Form,
    /// Where the cursor stands among the rows shown.
    pub cursor: Cursor,
    /// Which rows are shown.
    pub filter: Field,
    /// Whether the filter is being typed.
    pub filtering: bool,
    /// Only keys that are not at the table's default.
    pub only_different: bool,
    /// The value under edit.
    pub edit: Option<Field>,
    /// The list over the form.
    pub chooser: Option<Chooser>,
    /// Whether the forecast has the focus instead of the form.
    pub in_forecast: bool,
    /// The first line of the forecast that is drawn.
    pub scroll: usize,
    /// The task's `[train]`, or why it cannot be read; `None` while it is read.
    pub train: Option<Result<Assignments, String>>,
    /// What there is on this machine; `None` while it is looked at.
    pub around: Option<LaunchContext>,
    /// Devices and their queues.
    pub devices: Vec<Choice>,
    /// Where the base model came from.
    pub origin: Option<Origin>,
    /// The configuration, as of the last form that holds together.
    pub resolved: Option<ResolvedConfig>,
    /// Its values, as the form shows them.
    pub values: Values,
    /// Why the form does not hold together now.
    pub problem: Option<String>,
    /// What a run would take.
    pub forecast: Option<ForecastResult<Forecast>>,
    /// Whether it could learn.
    pub signal: Option<ForecastResult<SignalReport>>,
    /// A forecast that is being made.
    pub asking: Option<ForecastJob>,
    /// Why the last launch or forecast came to nothing.
    pub failure: Option<String>,
}

const FORM: &str = "form";
const FORECAST: &str = "forecast";
/// Devices are looked at anew so often while the screen is in front, seconds.
const LOOK_SECONDS: u64 = 5;

pub const PARTS: ScreenDef = ScreenDef {
    title: "Launch",
    help: "New run: every setting with its meaning and where its value comes from. A forecast estimates memory, time and disk before the run \
           starts. The run continues after you quit.",
    panes: &[FORM, FORECAST],
    actions: actions::ACTIONS,
    pane: |model| if model.launch.in_forecast { FORECAST } else { FORM },
    focus: |model, pane| model.launch.in_forecast = pane == FORECAST,
    is_typing: |model| model.launch.edit.is_some() || model.launch.filtering || model.launch.chooser.is_some(),
    takes_tab: |_| false,
    typed,
    pasted,
    mouse,
    opens: |model, (column, row)| draw::is_over_form(model, column, row),
    entered,
    changed,
    draw: draw::draw,
};

fn entered(model: &mut Model) -> Vec<Command> {
    let mut commands = vec![device_choice::look(model)];
    commands.extend(context::read_train(model));
    commands.extend(context::look(model));
    commands
}

fn changed(model: &mut Model, change: &Change) -> Vec<Command> {
    match change {
        Change::Task => {
            forecast::cancel(model);
            let launch = &mut model.launch;
            (launch.forecast, launch.signal, launch.failure) = (None, None, None);
            (launch.train, launch.around) = (None, None);
            let mut commands = context::read_train(model);
            if model.shared.screen == Screen::Launch {
                commands.extend(context::look(model));
            }
            commands
        }
        Change::File(_) => {
            let launch = &mut model.launch;
            launch.forecast.iter_mut().for_each(|forecast| forecast.is_old = true);
            launch.signal.iter_mut().for_each(|signal| signal.is_old = true);
            Vec::new()
        }
        Change::Second
            if model.shared.screen == Screen::Launch
                && (model.shared.now_ms / 1000).is_multiple_of(LOOK_SECONDS)
                && !model.shared.is_busy("launch.devices") =>
        {
            vec![device_choice::look(model)]
        }
        _ => Vec::new(),
    }
}

/// Make the configuration of the form as it stands.
pub fn refresh(model: &mut Model) -> Vec<Command> {
    let layers = form::layers(model, &model.launch.form);
    let asked = layers.asked_base_model();
    let task_problem = model.launch.train.as_ref().and_then(|train| train.as_ref().err().cloned());
    match layers.resolve() {
        Ok(resolved) => {
            model.launch.values = form::values_of(&resolved.config);
            model.launch.resolved = Some(resolved);
            model.launch.problem = task_problem;
        }
        Err(error) => model.launch.problem = Some(task_problem.unwrap_or_else(|| error.to_string())),
    }
    if model.launch.origin.as_ref().is_some_and(|origin| origin.of == asked) {
        return Vec::new();
    }
    vec![context::find_origin(model.shared.places.clone(), asked)]
}

/// Give a key a value; one that it has without the form is left to the layers below.
pub fn set(model: &mut Model, name: &str, text: &str) -> Vec<Command> {
    let Some(key) = Key::find(name) else { return Vec::new() };
    let text = text.trim();
    let mut without = model.launch.form.clone();
    without.changed.remove(key.name);
    let below = form::layers(model, &without).resolve().ok().and_then(|resolved| form::values_of(&resolved.config).remove(key.name));
    let is_below = below.is_some_and(|below| {
        key.kind.parse(text).ok().map(|value| value.to_string()) == key.kind.parse(&below).ok().map(|value| value.to_string())
    });
    model.launch.form = without;
    if !is_below {
        model.launch.form.changed.insert(key.name, text.to_owned());
    }
    refresh(model)
}

fn typed(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    if model.launch.chooser.is_some() {
        return chooser::key(model, event);
    }
    if model.launch.edit.is_some() {
        return edit_key(model, event);
    }
    if model.launch.filtering {
        return filter_key(model, event);
    }
    if model.launch.in_forecast {
        let mut cursor = Cursor { index: model.launch.scroll };
        cursor.key(event, model.shared.size.1 as usize, forecast_view::lines(model, 80).len());
        model.launch.scroll = cursor.index;
        return Vec::new();
    }
    let rows = form::rows(model).len();
    let page = model.shared.size.1.saturating_sub(4) as usize;
    model.launch.cursor.key(event, page, rows);
    Vec::new()
}

fn edit_key(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    let (Some(mut field), Some(row)) = (model.launch.edit.take(), form::selected(model)) else { return Vec::new() };
    match (event.code, row) {
        (KeyCode::Esc, _) => return Vec::new(),
        (KeyCode::Enter, Row::Name) => {
            field.text().trim().clone_into(&mut model.launch.form.name);
            return Vec::new();
        }
        // What does not fit the key itself is not taken; what does not go with another key is, since that may be what is set next.
        (KeyCode::Enter, Row::Key(key)) if key.kind.parse(field.text()).is_ok() => return set(model, key.name, field.text()),
        (KeyCode::Enter, _) => {}
        _ => {
            field.key(event);
        }
    }
    model.launch.edit = Some(field);
    Vec::new()
}

fn filter_key(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    match event.code {
        KeyCode::Enter | KeyCode::Down | KeyCode::Up => model.launch.filtering = false,
        KeyCode::Esc => {
            model.launch.filtering = false;
            model.launch.filter = Field::default();
        }
        _ => {
            if model.launch.filter.key(event) {
                model.launch.cursor = Cursor::default();
            }
        }
    }
    Vec::new()
}

fn pasted(model: &mut Model, text: &str) -> Vec<Command> {
    let launch = &mut model.launch;
    if let Some(chooser) = &mut launch.chooser {
        chooser.field.paste(text);
    } else if let Some(field) = &mut launch.edit {
        field.paste(text);
    } else if launch.filtering {
        launch.filter.paste(text);
    }
    Vec::new()
}

/// Begin to change the row under the cursor.
fn open(model: &mut Model) -> Vec<Command> {
    match form::selected(model) {
        None => {}
        Some(Row::Start) => return start_or_say(model),
        Some(Row::Preset | Row::Device) => return cycle(model, 1),
        Some(Row::Task) => model.launch.chooser = Some(Chooser::new(chooser::What::Task)),
        Some(Row::Name) => model.launch.edit = Some(Field::selected(&model.launch.form.name)),
        Some(Row::Key(key)) => match key.kind {
            _ if key.name == "base_model" => model.launch.chooser = Some(Chooser::new(chooser::What::BaseModel)),
            Kind::Choice(_) | Kind::Flag => return cycle(model, 1),
            _ => model.launch.edit = Some(Field::selected(&form::value(model, key))),
        },
    }
    Vec::new()
}

fn start_or_say(model: &mut Model) -> Vec<Command> {
    match start_run::blocked(model) {
        Some(why) => {
            model.shared.complain(why);
            Vec::new()
        }
        None => start_run::start(model),
    }
}

/// The next value of the row under the cursor; `by` is 1 or -1.
fn cycle(model: &mut Model, by: isize) -> Vec<Command> {
    match form::selected(model) {
        Some(Row::Preset) => {
            use crate::config::Preset;
            let all: Vec<Option<Preset>> = std::iter::once(None).chain(Preset::ALL.iter().copied().map(Some)).collect();
            model.launch.form.preset = stepped(&all, &model.launch.form.preset, by);
            refresh(model)
        }
        Some(Row::Device) => {
            model.launch.form.compute = device_choice::next(model, by);
            Vec::new()
        }
        Some(Row::Key(key)) => {
            let names: &[&str] = match key.kind {
                Kind::Choice(names) => names,
                Kind::Flag => &["false", "true"],
                _ => return Vec::new(),
            };
            let now = form::value(model, key);
            let next = stepped(names, &now.as_str(), by);
            set(model, key.name, next)
        }
        _ => Vec::new(),
    }
}

fn stepped<T: Copy + PartialEq + Default>(all: &[T], now: &T, by: isize) -> T {
    let place = all.iter().position(|one| one == now).unwrap_or(0);
    let next = (place as isize + by).rem_euclid(all.len().max(1) as isize) as usize;
    all.get(next).copied().unwrap_or_default()
}

fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Command> {
    let rows = match event.kind {
        MouseEventKind::ScrollDown => 3,
        MouseEventKind::ScrollUp => -3,
        MouseEventKind::Down(_) => return draw::clicked(model, event.column, event.row),
        _ => return Vec::new(),
    };
    if draw::is_over_forecast(model, event.column, event.row) {
        model.launch.scroll = model.launch.scroll.saturating_add_signed(rows).min(forecast_view::lines(model, 80).len());
    } else {
        let length = form::rows(model).len();
        model.launch.cursor.go(rows, length);
    }
    Vec::new()
}

/// The end of a text in a width of columns: of a path it says more than the beginning.
pub fn clip_start(theme: &Theme, text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut room = columns.saturating_sub(1);
    let mut start = text.len();
    for (index, letter) in text.char_indices().rev() {
        let Some(left) = room.checked_sub(letter.width().unwrap_or(0)) else { break };
        (room, start) = (left, index);
    }
    format!("{}{}", theme.glyph("…", "~"), &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_text_is_kept() {
        let check = |text: &str, columns, expected: &str| assert_eq!(clip_start(&Theme::default(), text, columns), expected);
        check("abc", 3, "abc");
        check("abcd", 3, "…cd");
        check("日本語", 4, "…語");
        check("abc", 0, "…");
        check("", 0, "");
    }
}
