//! Actions of the launch screen.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;

use super::form::{self, Row};
use super::{
    FORECAST, FORM, Launch, chooser, device_choice, draw, judge, load_context, next_device,
    own_partition, publish, read_train, refresh, rows, selected, set, start_gate, start_run,
    stepped, toggle_all_sections, toggle_section, value,
};
use crate::action::Scope;
use crate::config::{Kind, Preset};
use crate::format::counted;
use crate::message::{Change, Command, Work};
use crate::pane::content::{Content, Hit, Place, Spot};
use crate::run::{DeviceChoice, RunError, partitions};
use crate::screen::{self, About, Described, Screen as _};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::widgets::field::Field;
use crate::widgets::filter::{Filter, TextField};
use crate::widgets::list_cursor::Cursor;

/// Interval, in seconds, for reading the devices and Slurm's partitions while the screen is shown.
const LOOK_SECONDS: u64 = 5;
const ASK_SECONDS: u64 = 30;

type Action = screen::Action<Launch>;

impl Described for Launch {
    const ABOUT: &'static About = &About {
        title: "Launch",
        help: "New run: every setting with its meaning and where its value comes from. A forecast plans its memory and checks it before it \
               starts. The run continues after you quit.",
        panes: &[FORM, FORECAST],
    };
    const TABLE: &'static [Action] = ACTIONS;
}

impl screen::Screen for Launch {
    fn pane(&self) -> &'static str {
        if self.in_forecast { FORECAST } else { FORM }
    }

    fn focus(&mut self, _: &mut Shared, pane: &'static str) {
        if [FORM, FORECAST].contains(&pane) {
            self.in_forecast = pane == FORECAST;
        }
    }

    fn is_typing(&self) -> bool {
        self.edit.is_some() || self.filter.is_typing
    }

    fn stop_typing(&mut self) {
        self.filter.is_typing = false;
    }

    fn places(&self, shared: &Shared, area: Rect) -> Vec<Place> {
        draw::places(self, shared, area)
    }

    fn content<'a>(&'a self, shared: &'a Shared, place: &Place) -> Content<'a> {
        draw::content(self, shared, place)
    }

    // Edited text belongs to the row under the cursor.
    fn cursor(&mut self, pane: &str) -> Option<&mut Cursor> {
        match pane {
            FORM if self.edit.is_none() => Some(&mut self.cursor),
            FORECAST => Some(&mut self.scroll),
            _ => None,
        }
    }

    fn pointed(&mut self, _: &mut Shared, hit: &Hit, event: MouseEvent) -> Option<Vec<Command>> {
        let is_click = matches!(event.kind, MouseEventKind::Down(_));
        if is_click && self.edit.is_some() {
            return Some(Vec::new());
        }
        let Spot::Item(row) = hit.spot else {
            return None;
        };
        let is_section = matches!(rows(self).get(row), Some(Row::Section(_)));
        (is_click && is_section).then(|| {
            (self.in_forecast, self.cursor) = (false, Cursor { index: row });
            toggle_section(self);
            Vec::new()
        })
    }

    fn field(&mut self) -> Option<&mut dyn TextField> {
        match &mut self.edit {
            Some(field) => Some(field),
            None => self.filter.typed(),
        }
    }

    fn typed(&mut self, _: &mut Shared) -> Vec<Command> {
        if self.edit.is_none() {
            self.cursor = Cursor::default();
        }
        Vec::new()
    }

    fn on_key(&mut self, shared: &mut Shared, event: KeyEvent) -> Option<Vec<Command>> {
        self.edit.is_some().then(|| edit_key(self, shared, event))
    }

    fn on_change(&mut self, shared: &mut Shared, change: &Change) -> Vec<Command> {
        on_change(self, shared, change)
    }
}

const HERE: Scope = Scope::Screen(Screen::Launch);
const IN_FORM: Scope = Scope::Pane(Screen::Launch, FORM);

const ACTIONS: &[Action] = &[
    Action::new(
        "launch.open",
        "Activate row",
        "open",
        &["enter"],
        IN_FORM,
        open,
    )
    .unless(nothing_here),
    Action::new(
        "launch.start",
        "Start run",
        "start",
        &["L", "alt-enter"],
        HERE,
        start_gate::start,
    )
    .also(&["new run", "train", "launch"])
    .unless(start_run::blocked),
    Action::new(
        "launch.next_value",
        "Next value",
        "",
        &["right", "l", "space"],
        IN_FORM,
        |launch, shared| cycle(launch, shared, 1),
    )
    .unless(no_choice),
    Action::new(
        "launch.previous_value",
        "Previous value",
        "",
        &["left", "h"],
        IN_FORM,
        |launch, shared| cycle(launch, shared, -1),
    )
    .unless(no_choice),
    Action::new(
        "launch.reset",
        "Reset to default",
        "reset",
        &["backspace", "delete"],
        IN_FORM,
        |launch, shared| {
            match selected(launch) {
                Some(Row::Key(key)) => _ = launch.form.changed.remove(key.name),
                Some(Row::Preset) => launch.form.preset = None,
                Some(Row::Device) => {
                    (launch.form.compute, launch.form.cluster) = (DeviceChoice::Any, None)
                }
                Some(Row::TimeLimit) => launch
                    .form
                    .cluster
                    .iter_mut()
                    .for_each(|cluster| cluster.time.clear()),
                Some(Row::Name) => launch.form.name.clear(),
                Some(Row::Others) => {
                    launch.form.others.clear();
                    return read_train(launch, shared);
                }
                _ => {}
            }
            refresh(launch, shared)
        },
    )
    .also(&["default", "reset"])
    .unless(nothing_set_here),
    Action::new(
        "launch.reset_all",
        "Reset form",
        "",
        &["U"],
        HERE,
        |launch, shared| {
            let changed = launch.form.assignments().len();
            launch.form = form::Form::default();
            shared.say(format!(
                "form reset: {} and preset, name, device and other tasks at their defaults",
                counted(changed, "changed key")
            ));
            let commands = refresh(launch, shared);
            commands
                .into_iter()
                .chain(read_train(launch, shared))
                .collect()
        },
    ),
    Action::new(
        "launch.forecast",
        "Forecast run",
        "forecast",
        &["f"],
        HERE,
        |launch, shared| forecast(launch, shared, false),
    )
    .also(&["plan", "estimate"])
    .unless(start_run::blocked),
    Action::new(
        "launch.can_it_learn",
        "Check learnability",
        "learnability",
        &["t"],
        HERE,
        |launch, shared| forecast(launch, shared, true),
    )
    .also(&["sample"])
    .unless(start_run::no_samples),
    Action::new(
        "launch.cancel",
        "Cancel forecast",
        "cancel",
        &["C"],
        HERE,
        |launch, _| {
            start_run::cancel(launch);
            Vec::new()
        },
    )
    .unless(|launch, _| {
        launch
            .forecast_job
            .is_none()
            .then(|| "no forecast is running".to_owned())
    }),
    Action::new(
        "launch.models",
        "Choose model",
        "models",
        &["m"],
        HERE,
        |launch, shared| {
            chooser::models(launch, shared);
            Vec::new()
        },
    )
    .asking(),
    Action::new(
        "launch.tasks",
        "Choose task",
        "",
        &["c"],
        HERE,
        |launch, shared| {
            chooser::tasks(launch, shared);
            Vec::new()
        },
    )
    .also(&["open task", "switch task"])
    .asking(),
    Action::new(
        "launch.preset",
        "Next preset",
        "preset",
        &["p"],
        HERE,
        |launch, shared| {
            let cursor = launch.cursor;
            launch.filter = Filter::default();
            // The preset's row, wherever the cursor was.
            launch.cursor = Cursor { index: 1 };
            let commands = cycle(launch, shared, 1);
            launch.cursor = cursor;
            commands
        },
    ),
    Action::new(
        "launch.filter",
        "Find setting",
        "find",
        &["/"],
        HERE,
        |launch, _| {
            launch.in_forecast = false;
            launch.filter.is_typing = true;
            Vec::new()
        },
    )
    .also(&["find", "search", "filter"])
    .asking(),
    Action::new(
        "launch.section",
        "Toggle advanced settings",
        "advanced",
        &["a"],
        IN_FORM,
        |launch, _| {
            toggle_section(launch);
            Vec::new()
        },
    )
    .also(&["fold", "unfold", "expand", "collapse", "advanced"])
    .unless(no_section),
    Action::new(
        "launch.sections",
        "Toggle all advanced settings",
        "",
        &["A"],
        IN_FORM,
        |launch, _| {
            toggle_all_sections(launch);
            Vec::new()
        },
    )
    .also(&["expand all", "collapse all"])
    .unless(no_sections),
    Action::new(
        "launch.only_different",
        "Toggle changed only",
        "changed",
        &["o"],
        HERE,
        |launch, _| {
            launch.only_different = !launch.only_different;
            launch.cursor = Cursor::default();
            Vec::new()
        },
    ),
    Action::new(
        "launch.clear_filter",
        "Show all settings",
        "",
        &["esc"],
        IN_FORM,
        |launch, shared| {
            // In a text field the field handles Escape.
            if launch.edit.is_some() {
                return edit_key(
                    launch,
                    shared,
                    KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE),
                );
            }
            launch.only_different &= launch.filter.is_typing;
            launch.filter = Filter::default();
            Vec::new()
        },
    )
    .unless(|launch, _| {
        let shows_all = launch.filter.text().is_empty() && !launch.only_different;
        (shows_all && !launch.is_typing()).then(|| "no filter is active".to_owned())
    }),
];

fn nothing_here(launch: &Launch, shared: &Shared) -> Option<String> {
    match selected(launch) {
        None => Some(format!(
            "no setting shown: {} clears the filter",
            shared.key_of("launch.clear_filter")
        )),
        Some(Row::Start) => start_run::blocked(launch, shared),
        Some(_) => None,
    }
}

fn no_choice(launch: &Launch, shared: &Shared) -> Option<String> {
    match selected(launch) {
        Some(Row::Preset | Row::Device | Row::Nodes | Row::PerNode | Row::Section(_)) => None,
        Some(Row::Key(key)) if matches!(key.kind, Kind::Choice(_) | Kind::Flag) => None,
        Some(Row::Start) => Some(format!("press {} to start", shared.key_of("launch.open"))),
        _ => Some(format!("press {} to edit", shared.key_of("launch.open"))),
    }
}

fn no_sections(launch: &Launch, _: &Shared) -> Option<String> {
    let is_filtered = launch.only_different || !launch.filter.text().is_empty();
    is_filtered.then(|| "a filter is active: it shows advanced settings too".to_owned())
}

fn no_section(launch: &Launch, shared: &Shared) -> Option<String> {
    let is_in_section = matches!(selected(launch), Some(Row::Section(_) | Row::Key(_)));
    no_sections(launch, shared)
        .or_else(|| (!is_in_section).then(|| "select a setting first".to_owned()))
}

fn nothing_set_here(launch: &Launch, _: &Shared) -> Option<String> {
    let form = &launch.form;
    let is_set = match selected(launch) {
        Some(Row::Key(key)) => form.changed.contains_key(key.name),
        Some(Row::Preset) => form.preset.is_some(),
        Some(Row::Device) => form.compute != DeviceChoice::Any || form.cluster.is_some(),
        Some(Row::TimeLimit) => form
            .cluster
            .as_ref()
            .is_some_and(|cluster| !cluster.time.is_empty()),
        Some(Row::Name) => !form.name.is_empty(),
        Some(Row::Others) => !form.others.is_empty(),
        _ => false,
    };
    (!is_set).then(|| "not set in this form".to_owned())
}

fn on_show(launch: &mut Launch, shared: &mut Shared) -> Vec<Command> {
    let commands = [
        vec![look_at_devices(shared), ask_for_partitions()],
        read_train(launch, shared),
        load_context(shared),
    ];
    commands
        .into_iter()
        .flatten()
        .chain(start_gate::read(launch, shared))
        .collect()
}

fn on_change(launch: &mut Launch, shared: &mut Shared, change: &Change) -> Vec<Command> {
    match change {
        Change::Shown => on_show(launch, shared),
        Change::Task => {
            start_run::cancel(launch);
            (launch.forecast, launch.signal, launch.failure) = (None, None, None);
            (launch.train, launch.context, launch.start_after_checks) = (None, None, None);
            let mut commands = read_train(launch, shared);
            commands.extend(start_gate::invalidate(launch, shared));
            if shared.screen == Screen::Launch {
                commands.extend(load_context(shared));
                commands.extend(start_gate::read(launch, shared));
            }
            commands
        }
        Change::Files(_) => {
            launch
                .forecast
                .iter_mut()
                .for_each(|forecast| forecast.is_old = true);
            launch
                .signal
                .iter_mut()
                .for_each(|signal| signal.is_old = true);
            judge(launch, shared);
            start_gate::invalidate(launch, shared)
        }
        Change::Trust => {
            launch.failure = None;
            let mut commands = start_gate::invalidate(launch, shared);
            if shared.screen == Screen::Launch {
                commands.extend(start_gate::read(launch, shared));
            }
            commands
        }
        Change::Second
            if shared.screen == Screen::Launch
                && (shared.now_ms / 1000).is_multiple_of(LOOK_SECONDS)
                && !shared.is_busy("launch.devices") =>
        {
            let mut commands = vec![look_at_devices(shared)];
            let is_time = (shared.now_ms / 1000).is_multiple_of(ASK_SECONDS)
                && !shared.is_busy("launch.partitions");
            commands.extend(is_time.then(ask_for_partitions));
            commands
        }
        _ => Vec::new(),
    }
}

/// Starts the forecast. Reads the devices and, for the checks, the prompt sets again.
fn forecast(launch: &mut Launch, shared: &mut Shared, samples: bool) -> Vec<Command> {
    let mut commands = start_gate::read(launch, shared);
    commands.extend(start_run::forecast(launch, shared, samples));
    commands
}

fn look_at_devices(shared: &Shared) -> Command {
    let folder = shared.options.slots.clone();
    Work::once(
        "launch.devices",
        move || device_choice::choices(folder),
        |launch: &mut Launch, _, found| {
            launch.devices = found;
            Vec::new()
        },
    )
}

fn ask_for_partitions() -> Command {
    let ask = || match partitions() {
        // Most machines have no Slurm.
        Err(RunError::NoSlurm { .. }) => Ok(Vec::new()),
        found => found.map_err(|error| error.to_string()),
    };
    Work::once("launch.partitions", ask, |launch: &mut Launch, _, found| {
        launch.partitions = Some(found);
        Vec::new()
    })
}

fn edit_key(launch: &mut Launch, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    let (Some(mut field), Some(row)) = (launch.edit.take(), selected(launch)) else {
        return Vec::new();
    };
    match (event.code, row) {
        (KeyCode::Esc, _) => return Vec::new(),
        (KeyCode::Enter, Row::Name) => {
            field.text().trim().clone_into(&mut launch.form.name);
            return Vec::new();
        }
        (KeyCode::Enter, Row::Others) => {
            field.text().trim().clone_into(&mut launch.form.others);
            return read_train(launch, shared);
        }
        (KeyCode::Enter, Row::TimeLimit) => {
            if let Some(cluster) = &mut launch.form.cluster {
                field.text().trim().clone_into(&mut cluster.time);
            }
            return refresh(launch, shared);
        }
        // A value invalid for its key is rejected; a conflict with another key is accepted, since
        // that key may be set next.
        (KeyCode::Enter, Row::Key(key)) if key.kind.parse(field.text()).is_ok() => {
            return set(launch, shared, key.name, field.text());
        }
        (KeyCode::Enter, _) => {}
        _ => {
            field.key(event);
        }
    }
    launch.edit = Some(field);
    Vec::new()
}

fn open(launch: &mut Launch, shared: &mut Shared) -> Vec<Command> {
    match selected(launch) {
        None => {}
        Some(Row::Start) => return start_or_say(launch, shared),
        Some(Row::Preset | Row::Device | Row::Nodes | Row::PerNode) => {
            return cycle(launch, shared, 1);
        }
        Some(Row::TimeLimit) => {
            let time = launch
                .form
                .cluster
                .as_ref()
                .map_or("", |cluster| &cluster.time);
            launch.edit = Some(Field::selected(time));
        }
        Some(Row::Task) => chooser::tasks(launch, shared),
        Some(Row::Section(_)) => toggle_section(launch),
        Some(Row::Name) => launch.edit = Some(Field::selected(&launch.form.name)),
        Some(Row::Others) => launch.edit = Some(Field::selected(&launch.form.others)),
        Some(Row::Key(key)) => match key.kind {
            _ if key.name == "base_model" => chooser::models(launch, shared),
            Kind::Choice(_) | Kind::Flag => return cycle(launch, shared, 1),
            _ => launch.edit = Some(Field::selected(&value(launch, key))),
        },
    }
    Vec::new()
}

fn start_or_say(launch: &mut Launch, shared: &mut Shared) -> Vec<Command> {
    match start_run::blocked(launch, shared) {
        Some(why) => shared.complain(why),
        None => start_gate::start(launch, shared),
    }
}

/// Selects the next (`by` = 1) or previous (-1) value of the row under the cursor.
fn cycle(launch: &mut Launch, shared: &mut Shared, by: isize) -> Vec<Command> {
    match selected(launch) {
        Some(Row::Preset) => {
            let all: Vec<Option<Preset>> = std::iter::once(None)
                .chain(Preset::ALL.iter().copied().map(Some))
                .collect();
            launch.form.preset = stepped(&all, &launch.form.preset, by);
            refresh(launch, shared)
        }
        Some(Row::Device) => {
            next_device(launch, by);
            publish(launch, shared);
            judge(launch, shared);
            Vec::new()
        }
        Some(row @ (Row::Nodes | Row::PerNode)) => {
            let own = own_partition(launch);
            if let Some(cluster) = &mut launch.form.cluster {
                match row {
                    Row::Nodes => cluster.step_nodes(own.as_ref(), by),
                    _ => cluster.step_per_node(own.as_ref(), by),
                }
            }
            Vec::new()
        }
        Some(Row::Section(section)) => {
            if (by > 0) != launch.unfolded.contains(section.title) {
                toggle_section(launch);
            }
            Vec::new()
        }
        Some(Row::Key(key)) => {
            let names: &[&str] = match key.kind {
                Kind::Choice(names) => names,
                Kind::Flag => &["false", "true"],
                _ => return Vec::new(),
            };
            let now = value(launch, key);
            let next = stepped(names, &now.as_str(), by);
            set(launch, shared, key.name, next)
        }
        _ => Vec::new(),
    }
}
