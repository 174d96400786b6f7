//! What the row under the cursor means: meaning, range, default, presets, where its value comes from, what the last run had.

use ratatui::text::{Line, Span};

use super::form::{self, Row};
use super::start_run;
use crate::config::{Key, Preset, Source};
use crate::run::DeviceChoice;
use crate::view::app::Model;
use crate::view::style_role::Role;

/// The lines, to be wrapped.
pub(super) fn lines(model: &Model) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(problem) = &model.launch.problem {
        lines.push(bad(model, problem));
        lines.push(Line::default());
    }
    match form::selected(model) {
        None => lines.push(faint(model, "No settings match. Esc clears the filter.")),
        Some(Row::Start) => about_start(model, &mut lines),
        Some(Row::Preset) => about_presets(model, &mut lines),
        Some(Row::Task) => about_task(model, &mut lines),
        Some(Row::Name) => {
            lines.push(Line::from("Run name, optional. RUN on the command line may be its id or its name."));
        }
        Some(Row::Device) => about_devices(model, &mut lines),
        Some(Row::Key(key)) => about_key(model, key, &mut lines),
    }
    lines
}

fn about_start(model: &Model, lines: &mut Vec<Line<'static>>) {
    if model.shared.is_busy("launch.start") {
        lines.push(Line::from("Starting: the worker is loading the model. Live opens when it is ready."));
    } else if let Some(why) = start_run::blocked(model).filter(|_| model.launch.problem.is_none()) {
        lines.push(faint(model, &why));
    } else {
        lines.push(Line::from("Enter starts the run in the background; it continues after you quit or disconnect. Live opens."));
    }
    lines.push(Line::default());
    lines.push(faint(model, "command:"));
    lines.push(Line::from(start_run::command_line(model)));
}

fn about_presets(model: &Model, lines: &mut Vec<Line<'static>>) {
    lines.push(Line::from("Preset: a named set of values. The task's [train] and this form override it."));
    let said = |preset: &Option<Preset>| match preset {
        None => "no preset: defaults",
        Some(Preset::Quick) => "quick: a few steps, to see that everything works",
        Some(Preset::Seed) => "seed: the original experiment, 1 prompt x 4 completions per step",
        Some(Preset::Recommended) => "recommended: 8 prompts x 8 completions per step",
    };
    for preset in std::iter::once(None).chain(Preset::ALL.iter().copied().map(Some)) {
        let is_it = preset == model.launch.form.preset;
        let mark = if is_it { model.shared.theme.glyph("● ", "* ") } else { "  " };
        let role = if is_it { Role::Text } else { Role::Faint };
        lines.push(Line::styled(format!("{mark}{}", said(&preset)), model.shared.theme.style(role)));
    }
}

fn about_task(model: &Model, lines: &mut Vec<Line<'static>>) {
    let Some(open) = &model.shared.task else {
        let why = model.shared.task_error.clone().unwrap_or_else(|| "loading task ...".to_owned());
        lines.push(faint(model, &why));
        return;
    };
    let task = &open.task;
    lines.push(Line::from(task.title.clone()));
    let place = task.folder().map_or_else(|| "embedded".to_owned(), |folder| folder.display().to_string());
    lines.push(faint(model, &place));
    for (set, rows) in &open.rows {
        match rows {
            Ok(rows) => lines.push(faint(model, &format!("{}: {} prompts", set.name(), rows.len()))),
            Err(error) => lines.push(bad(model, error)),
        }
    }
    if let Some(stale) = &model.shared.draft.stale {
        lines.push(bad(model, &format!("the schema in the editor does not compile: {stale}")));
    } else if model.shared.draft.is_changed() {
        lines.push(bad(model, "the schema in the editor is not saved: the run uses the saved file"));
    }
}

fn about_devices(model: &Model, lines: &mut Vec<Line<'static>>) {
    lines.push(Line::from("One run per device at a time; others queue, other users' runs included."));
    let any = model.launch.form.compute == DeviceChoice::Any;
    lines.push(chosen_line(model, any, "first free GPU, else CPU", ""));
    for choice in &model.launch.devices {
        let is_it = choice.compute == model.launch.form.compute;
        lines.push(chosen_line(model, is_it, &choice.title, &choice.condition));
        let role = if choice.holder.is_empty() && choice.waiting == 0 { Role::Good } else { Role::Warning };
        lines.push(Line::styled(format!("    {}", choice.queue()), model.shared.theme.style(role)));
    }
    if model.launch.devices.is_empty() {
        lines.push(faint(model, "querying devices ..."));
    } else if model.launch.devices.len() == 1 {
        lines.push(faint(model, "no NVIDIA GPU found"));
    }
}

fn chosen_line(model: &Model, is_it: bool, title: &str, more: &str) -> Line<'static> {
    let mark = if is_it { model.shared.theme.glyph("● ", "* ") } else { "  " };
    let more = if more.is_empty() { String::new() } else { format!("  {more}") };
    Line::from(vec![Span::raw(format!("{mark}{title}")), Span::styled(more, model.shared.theme.style(Role::Faint))])
}

fn about_key(model: &Model, key: &'static Key, lines: &mut Vec<Line<'static>>) {
    if let Some(field) = &model.launch.edit {
        match form::complaint(model, key, field.text()) {
            Some(wrong) => lines.push(bad(model, &wrong)),
            None => lines.push(faint(model, "enter accept, esc cancel")),
        }
    }
    lines.push(Line::from(key.meaning));
    let label = |name: &str, text: String| {
        Line::from(vec![Span::styled(format!("{name:<9}"), model.shared.theme.style(Role::Faint)), Span::raw(text)])
    };
    let unit = if key.unit.is_empty() { String::new() } else { format!(", {}", key.unit) };
    lines.push(label("range", format!("{}{unit}", key.kind)));
    let rule = key.derived.as_ref().map_or_else(String::new, |derived| format!(" ({})", derived.rule));
    lines.push(label("default", format!("{}{rule}", shown(key.default))));
    let presets: Vec<String> = Preset::ALL.iter().filter_map(|preset| Some(format!("{preset} {}", shown(key.preset(*preset)?)))).collect();
    if !presets.is_empty() {
        lines.push(label("presets", presets.join(", ")));
    }
    let from = match form::source(model, key) {
        Source::Default => "default".to_owned(),
        Source::Derived => "derived from other keys".to_owned(),
        Source::Preset => model.launch.form.preset.map_or_else(String::new, |preset| format!("preset {preset}")),
        Source::Task => "task [train]".to_owned(),
        Source::File => "file".to_owned(),
        Source::Set => "set here; backspace resets".to_owned(),
    };
    lines.push(label("now", format!("{}: {from}", shown(&form::value(model, key)))));
    if let Some(last) = last_value(model, key) {
        let same = last == form::value(model, key);
        lines.push(label("last run", if same { "same".to_owned() } else { shown(&last) }));
    }
    if key.name == "base_model" {
        about_models(model, lines);
    }
}

fn about_models(model: &Model, lines: &mut Vec<Line<'static>>) {
    let Some(around) = &model.launch.around else { return };
    let now = Key::find("base_model").map(|key| form::value(model, key)).unwrap_or_default();
    if let Some(start) = around.models.iter().find(|start| start.name == now) {
        lines.push(faint(model, &start.about));
    }
    lines.push(faint(model, &format!("enter: choose from {} models", around.models.len())));
}

/// The value that the last run of this task had, as text.
pub(super) fn last_value(model: &Model, key: &Key) -> Option<String> {
    model.launch.around.as_ref()?.last.as_ref()?.values.get(key.name).cloned()
}

fn shown(text: &str) -> String {
    if text.is_empty() { "empty".to_owned() } else { text.to_owned() }
}

fn faint(model: &Model, text: &str) -> Line<'static> {
    Line::styled(text.to_owned(), model.shared.theme.style(Role::Faint))
}

fn bad(model: &Model, text: &str) -> Line<'static> {
    Line::styled(format!("{}{text}", model.shared.theme.glyph("✗ ", "! ")), model.shared.theme.style(Role::Bad))
}
