//! What the row under the cursor means: meaning, range, default, presets, where its value comes from, what the last run had.

use ratatui::text::{Line, Span};

use super::form::{self, Row};
use super::start;
use crate::config::{Key, Preset, Source};
use crate::run::Compute;
use crate::view::model::Model;
use crate::view::role::Role;

/// The lines, to be wrapped.
pub(super) fn lines(model: &Model) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(problem) = &model.launch.problem {
        lines.push(bad(model, problem));
        lines.push(Line::default());
    }
    match form::selected(model) {
        None => lines.push(faint(model, "No setting fits the filter. Esc shows all again.")),
        Some(Row::Start) => about_start(model, &mut lines),
        Some(Row::Preset) => about_presets(model, &mut lines),
        Some(Row::Task) => about_task(model, &mut lines),
        Some(Row::Name) => {
            lines.push(Line::from("A name for the run, beside its id: RUN on a command line may be either. May be left empty."));
        }
        Some(Row::Device) => about_devices(model, &mut lines),
        Some(Row::Key(key)) => about_key(model, key, &mut lines),
    }
    lines
}

fn about_start(model: &Model, lines: &mut Vec<Line<'static>>) {
    if model.is_busy("launch.start") {
        lines.push(Line::from("Starting: the run is made, and its worker loads the model. The screen Live opens when it answers."));
    } else if let Some(why) = start::blocked(model).filter(|_| model.launch.problem.is_none()) {
        lines.push(faint(model, &why));
    } else {
        lines.push(Line::from(
            "Enter starts the run in the background. It goes on when this program ends or the connection is lost; the screen Live opens.",
        ));
    }
    lines.push(Line::default());
    lines.push(faint(model, "the same on a command line:"));
    lines.push(Line::from(start::command_line(model)));
}

fn about_presets(model: &Model, lines: &mut Vec<Line<'static>>) {
    lines.push(Line::from("A named set of values. The task's own [train] stands over it, this form over both."));
    let said = |preset: &Option<Preset>| match preset {
        None => "no preset: the table's defaults",
        Some(Preset::Quick) => "quick: a few steps, to see that everything works",
        Some(Preset::Seed) => "seed: as the original experiment, 4 completions of 1 prompt a step",
        Some(Preset::Recommended) => "recommended: 8 prompts x 8 completions a step",
    };
    for preset in std::iter::once(None).chain(Preset::ALL.iter().copied().map(Some)) {
        let is_it = preset == model.launch.form.preset;
        let mark = if is_it { model.theme.glyph("● ", "* ") } else { "  " };
        let role = if is_it { Role::Text } else { Role::Faint };
        lines.push(Line::styled(format!("{mark}{}", said(&preset)), model.theme.style(role)));
    }
}

fn about_task(model: &Model, lines: &mut Vec<Line<'static>>) {
    let Some(open) = &model.workbench.task else {
        let why = model.workbench.task_error.clone().unwrap_or_else(|| "reading the task ...".to_owned());
        lines.push(faint(model, &why));
        return;
    };
    let task = &open.task;
    lines.push(Line::from(task.title.clone()));
    let place = task.folder().map_or_else(|| "part of this program".to_owned(), |folder| folder.display().to_string());
    lines.push(faint(model, &place));
    for (set, rows) in &open.rows {
        match rows {
            Ok(rows) => lines.push(faint(model, &format!("{}: {} prompts", set.name(), rows.len()))),
            Err(error) => lines.push(bad(model, error)),
        }
    }
    if let Some(stale) = &model.workbench.draft.stale {
        lines.push(bad(model, &format!("the schema in the editor does not compile: {stale}")));
    } else if model.workbench.draft.is_changed() {
        lines.push(bad(model, "the schema in the editor is not saved; a run takes the saved file"));
    }
}

fn about_devices(model: &Model, lines: &mut Vec<Line<'static>>) {
    lines.push(Line::from("One run at a time computes on a device; others wait for their turn, whoever's they are."));
    let any = model.launch.form.compute == Compute::Any;
    lines.push(chosen_line(model, any, "the first free GPU, else the CPU", ""));
    for choice in &model.launch.devices {
        let is_it = choice.compute == model.launch.form.compute;
        lines.push(chosen_line(model, is_it, &choice.title, &choice.condition));
        let role = if choice.holder.is_empty() && choice.waiting == 0 { Role::Good } else { Role::Warning };
        lines.push(Line::styled(format!("    {}", choice.queue()), model.theme.style(role)));
    }
    if model.launch.devices.is_empty() {
        lines.push(faint(model, "looking at the devices ..."));
    } else if model.launch.devices.len() == 1 {
        lines.push(faint(model, "the driver tells of no NVIDIA GPU here"));
    }
}

fn chosen_line(model: &Model, is_it: bool, title: &str, more: &str) -> Line<'static> {
    let mark = if is_it { model.theme.glyph("● ", "* ") } else { "  " };
    let more = if more.is_empty() { String::new() } else { format!("  {more}") };
    Line::from(vec![Span::raw(format!("{mark}{title}")), Span::styled(more, model.theme.style(Role::Faint))])
}

fn about_key(model: &Model, key: &'static Key, lines: &mut Vec<Line<'static>>) {
    if let Some(field) = &model.launch.edit {
        match form::complaint(model, key, field.text()) {
            Some(wrong) => lines.push(bad(model, &wrong)),
            None => lines.push(faint(model, "enter takes it, esc leaves it")),
        }
    }
    lines.push(Line::from(key.meaning));
    let label =
        |name: &str, text: String| Line::from(vec![Span::styled(format!("{name:<9}"), model.theme.style(Role::Faint)), Span::raw(text)]);
    let unit = if key.unit.is_empty() { String::new() } else { format!(", {}", key.unit) };
    lines.push(label("range", format!("{}{unit}", key.kind)));
    let rule = key.derived.as_ref().map_or_else(String::new, |derived| format!(" ({})", derived.rule));
    lines.push(label("default", format!("{}{rule}", shown(key.default))));
    let presets: Vec<String> = Preset::ALL.iter().filter_map(|preset| Some(format!("{preset} {}", shown(key.preset(*preset)?)))).collect();
    if !presets.is_empty() {
        lines.push(label("presets", presets.join(", ")));
    }
    let from = match form::source(model, key) {
        Source::Default => "the table's default".to_owned(),
        Source::Derived => "follows from other keys".to_owned(),
        Source::Preset => model.launch.form.preset.map_or_else(String::new, |preset| format!("the preset {preset}")),
        Source::Task => "the task's [train]".to_owned(),
        Source::File => "a file".to_owned(),
        Source::Set => "set in this form; backspace takes it back".to_owned(),
    };
    lines.push(label("now", format!("{}: {from}", shown(&form::value(model, key)))));
    if let Some(last) = last_value(model, key) {
        let same = last == form::value(model, key);
        lines.push(label("last run", if same { "the same".to_owned() } else { shown(&last) }));
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
    lines.push(faint(model, &format!("enter chooses among {} models found here", around.models.len())));
}

/// The value that the last run of this task had, as text.
pub(super) fn last_value(model: &Model, key: &Key) -> Option<String> {
    model.launch.around.as_ref()?.last.as_ref()?.values.get(key.name).cloned()
}

fn shown(text: &str) -> String {
    if text.is_empty() { "empty".to_owned() } else { text.to_owned() }
}

fn faint(model: &Model, text: &str) -> Line<'static> {
    Line::styled(text.to_owned(), model.theme.style(Role::Faint))
}

fn bad(model: &Model, text: &str) -> Line<'static> {
    Line::styled(format!("{}{text}", model.theme.glyph("✗ ", "! ")), model.theme.style(Role::Bad))
}
