//! Help for the row under the cursor: meaning, range, default, presets, the layer of its value, the value in the last
//! run.

use ratatui::text::{Line, Span};

use super::form::{Row, Section};
use super::start_run;
use super::{Launch, complaint, is_changed, own_partition, partitions, selected, source, value};
use crate::config::{Key, Preset, Source};
use crate::format::counted;
use crate::run::DeviceChoice;
use crate::shared::Shared;
use crate::style_role::Role;

pub(super) fn lines(launch: &Launch, shared: &Shared) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(problem) = &launch.problem {
        lines.push(bad(shared, problem));
        lines.push(Line::default());
    }
    match selected(launch) {
        None => lines.push(faint(
            shared,
            &format!(
                "No settings match; {} clears the filter.",
                shared.key_of("launch.clear_filter")
            ),
        )),
        Some(Row::Start) => about_start(launch, shared, &mut lines),
        Some(Row::Preset) => about_presets(launch, shared, &mut lines),
        Some(Row::Task) => about_task(shared, &mut lines),
        Some(Row::Others) => {
            lines.push(Line::from(
                "Further tasks that the run trains on, optional: names or folders with spaces between, weights of all tasks last, as in receipts 2:1 (default: equal). Each has its share of the prompts; the form shows what their [train] tables come to.",
            ));
            lines.push(faint(
                shared,
                "The prompt sets of other tasks are checked at the start.",
            ));
        }
        Some(Row::Name) => {
            lines.push(Line::from(
                "Run name, optional. RUN on the command line may be its id or its name.",
            ));
        }
        Some(Row::Device) => about_devices(launch, shared, &mut lines),
        Some(Row::Nodes | Row::PerNode | Row::TimeLimit) => {
            about_cluster(launch, shared, &mut lines)
        }
        Some(Row::Section(section)) => about_section(launch, shared, section, &mut lines),
        Some(Row::Key(key)) => about_key(launch, shared, key, &mut lines),
    }
    lines
}

fn about_start(launch: &Launch, shared: &Shared, lines: &mut Vec<Line<'static>>) {
    if shared.is_busy("launch.start") {
        lines.push(Line::from(
            "Starting: the worker is loading the model. Live opens when it is ready.",
        ));
    } else if let Some(why) =
        start_run::blocked(launch, shared).filter(|_| launch.problem.is_none())
    {
        lines.push(faint(shared, &why));
    } else {
        let key = shared.key_of("launch.open");
        lines.push(Line::from(format!(
            "Press {key} to start the run in the background; it continues after you quit or disconnect. Live opens."
        )));
    }
    lines.push(Line::default());
    lines.push(faint(shared, "command:"));
    lines.push(Line::from(start_run::command_line(launch, shared)));
}

fn about_presets(launch: &Launch, shared: &Shared, lines: &mut Vec<Line<'static>>) {
    lines.push(Line::from(
        "Preset: a named set of values. The task's [train] and this form override it.",
    ));
    let description = |preset: &Option<Preset>| match preset {
        None => "no preset: defaults",
        Some(Preset::Quick) => "quick: a few steps, to see that everything works",
        Some(Preset::Seed) => "seed: the original experiment, 1 prompt x 4 completions per step",
        Some(Preset::Recommended) => "recommended: 8 prompts x 8 completions per step",
    };
    for preset in std::iter::once(None).chain(Preset::ALL.iter().copied().map(Some)) {
        let is_it = preset == launch.form.preset;
        let mark = if is_it { "● " } else { "  " };
        let role = if is_it { Role::Text } else { Role::Faint };
        lines.push(
            shared
                .theme
                .line(format!("{mark}{}", description(&preset)), role),
        );
    }
}

fn about_task(shared: &Shared, lines: &mut Vec<Line<'static>>) {
    let Some(open) = &shared.task else {
        lines.push(faint(shared, &shared.no_task().unwrap_or_default()));
        return;
    };
    if let Some(failure) = &shared.task_error {
        lines.push(bad(shared, &failure.error));
    }
    let task = &open.task;
    lines.push(Line::from(task.title.clone()));
    let place = task.folder().map_or_else(
        || "embedded".to_owned(),
        |folder| folder.display().to_string(),
    );
    lines.push(faint(shared, &place));
    for (set, rows) in &open.rows {
        match rows {
            Ok(rows) => lines.push(faint(
                shared,
                &format!("{}: {}", set.name(), counted(rows.len(), "prompt")),
            )),
            Err(error) => lines.push(bad(shared, &error.to_string())),
        }
    }
    let name = shared.draft.name();
    if let Some(stale) = &shared.draft.stale {
        lines.push(bad(
            shared,
            &format!(
                "{}: {stale}",
                shared
                    .draft
                    .stale_title(&format!("the {name} in the editor"))
            ),
        ));
    } else if shared.draft.is_changed() {
        lines.push(bad(
            shared,
            &format!("the {name} in the editor is not saved: the run uses the saved file"),
        ));
    }
}

/// The advanced keys of a section with their values, changed ones first.
fn about_section(
    launch: &Launch,
    shared: &Shared,
    section: &'static Section,
    lines: &mut Vec<Line<'static>>,
) {
    let toggles = if launch.unfolded.contains(section.title) {
        "hides"
    } else {
        "shows"
    };
    lines.push(faint(
        shared,
        &format!(
            "{} {toggles} the advanced settings:",
            shared.key_of("launch.section")
        ),
    ));
    let mut keys: Vec<&Key> = section
        .keys()
        .filter(|key| !section.is_basic(key))
        .collect();
    keys.sort_by_key(|key| !is_changed(launch, key));
    for key in keys {
        let role = if is_changed(launch, key) {
            Role::Marked
        } else {
            Role::Text
        };
        lines.push(Line::from(vec![
            Span::raw(format!("{} ", key.name)),
            shared.theme.span(shown(&value(launch, key)), role),
        ]));
    }
}

fn about_devices(launch: &Launch, shared: &Shared, lines: &mut Vec<Line<'static>>) {
    lines.push(Line::from(
        "One run per device at a time; others queue, other users' runs included.",
    ));
    let is_here = launch.form.cluster.is_none();
    let any = is_here && launch.form.compute == DeviceChoice::Any;
    lines.push(chosen_line(shared, any, "first free GPU, else CPU", ""));
    for choice in &launch.devices {
        let is_it = is_here && choice.compute == launch.form.compute;
        lines.push(chosen_line(shared, is_it, &choice.title, &choice.condition));
        let role = if choice.holder.is_none() && choice.waiting == 0 {
            Role::Good
        } else {
            Role::Warning
        };
        lines.push(shared.theme.line(format!("    {}", choice.queue()), role));
    }
    if launch.devices.is_empty() {
        lines.push(faint(shared, "querying devices ..."));
    } else if launch.devices.len() == 1 {
        lines.push(faint(shared, "no NVIDIA GPU found"));
    }
    for partition in partitions(launch) {
        let is_it = launch
            .form
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.partition == partition.name);
        lines.push(chosen_line(
            shared,
            is_it,
            &format!("Slurm partition {}", partition.name),
            "",
        ));
        let role = if partition.is_up && partition.idle_nodes > 0 {
            Role::Good
        } else {
            Role::Warning
        };
        lines.push(
            shared
                .theme
                .line(format!("    {}", partition.described()), role),
        );
    }
    if let Some(Err(error)) = &launch.partitions {
        lines.push(bad(shared, error));
    }
}

fn about_cluster(launch: &Launch, shared: &Shared, lines: &mut Vec<Line<'static>>) {
    lines.push(Line::from("A rank computes on each GPU. The run waits until Slurm has the nodes; a run whose time is over is queued again."));
    if let Some(partition) = own_partition(launch) {
        lines.push(faint(
            shared,
            &format!("{}: {}", partition.name, partition.described()),
        ));
        lines.push(faint(
            shared,
            &format!("longest time: {}", partition.time_limit),
        ));
    }
}

fn chosen_line(shared: &Shared, is_it: bool, title: &str, more: &str) -> Line<'static> {
    let mark = if is_it { "● " } else { "  " };
    let more = if more.is_empty() {
        String::new()
    } else {
        format!("  {more}")
    };
    Line::from(vec![
        Span::raw(format!("{mark}{title}")),
        shared.theme.span(more, Role::Faint),
    ])
}

fn about_key(launch: &Launch, shared: &Shared, key: &'static Key, lines: &mut Vec<Line<'static>>) {
    if let Some(field) = &launch.edit {
        match complaint(launch, key, field.text()) {
            Some(wrong) => lines.push(bad(shared, &wrong)),
            None => lines.push(faint(shared, "enter accept, esc cancel")),
        }
    }
    lines.push(Line::from(key.meaning));
    let label = |name: &str, text: String| {
        Line::from(vec![
            shared
                .theme
                .span(format!("{:<9}", format!("{name}:")), Role::Faint),
            Span::raw(text),
        ])
    };
    let unit = if key.unit.is_empty() {
        String::new()
    } else {
        format!(", {}", key.unit)
    };
    lines.push(label("range", format!("{}{unit}", key.kind)));
    let rule = key
        .derived
        .as_ref()
        .map_or_else(String::new, |derived| format!(" ({})", derived.rule));
    lines.push(label("default", format!("{}{rule}", shown(key.default))));
    let presets: Vec<String> = Preset::ALL
        .iter()
        .filter_map(|preset| {
            let value = shown(key.preset(*preset)?);
            Some(match key.unit.is_empty() {
                true => format!("{preset} {value}"),
                false => format!("{preset} {value} {}", key.unit),
            })
        })
        .collect();
    if !presets.is_empty() {
        lines.push(label("presets", presets.join(", ")));
    }
    let from = match source(launch, key) {
        Source::Default => "default".to_owned(),
        Source::Derived => "derived from other keys".to_owned(),
        Source::Preset => launch
            .form
            .preset
            .map_or_else(String::new, |preset| format!("preset {preset}")),
        Source::Task => "task [train]".to_owned(),
        Source::File => "file".to_owned(),
        Source::Set => format!("set here; {} resets", shared.key_of("launch.reset")),
    };
    lines.push(label(
        "now",
        format!("{}: {from}", shown(&value(launch, key))),
    ));
    if let Some(last) = last_value(launch, key) {
        let same = last == value(launch, key);
        lines.push(label(
            "last run",
            if same {
                "same".to_owned()
            } else {
                shown(&last)
            },
        ));
    }
    if key.name == "base_model" {
        about_models(launch, shared, lines);
    }
}

fn about_models(launch: &Launch, shared: &Shared, lines: &mut Vec<Line<'static>>) {
    let Some(context) = &launch.context else {
        return;
    };
    let now = Key::find("base_model")
        .map(|key| value(launch, key))
        .unwrap_or_default();
    if let Some(start) = context.models.iter().find(|start| start.name == now) {
        lines.push(faint(shared, &start.about));
    }
    lines.push(faint(
        shared,
        &format!(
            "{}: choose from {}",
            shared.key_of("launch.open"),
            counted(context.models.len(), "model")
        ),
    ));
}

pub(super) fn last_value(launch: &Launch, key: &Key) -> Option<String> {
    launch
        .context
        .as_ref()?
        .last
        .as_ref()?
        .values
        .get(key.name)
        .cloned()
}

fn shown(text: &str) -> String {
    if text.is_empty() {
        "empty".to_owned()
    } else {
        text.to_owned()
    }
}

fn faint(shared: &Shared, text: &str) -> Line<'static> {
    shared.theme.line(text.to_owned(), Role::Faint)
}

fn bad(shared: &Shared, text: &str) -> Line<'static> {
    shared.theme.line(format!("✗ {text}"), Role::Bad)
}
