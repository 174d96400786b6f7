//! The columns of the list of runs: contents, widths, and which are dropped first on narrow terminals.

use std::collections::BTreeSet;

use unicode_width::UnicodeWidthStr;

use crate::format::{age, percent, short_id};
use crate::report::{FIELDS, Metric, RunRow, SMOOTHED, field_text, spread};
use crate::run::Field;
use crate::style_role::Role;
use crate::task::PromptSet;
use crate::theme::Theme;
use crate::widgets::bars::sparkline;

pub(super) struct Column {
    pub(super) title: String,
    /// The field that it shows and sorts by: a field, `config.KEY`, a metric, or `ema:METRIC`.
    pub(super) field: String,
    pub(super) width: usize,
    pub(super) right: bool,
}

/// The inputs of the cells besides the run.
pub(super) struct Look<'a> {
    pub(super) theme: &'a Theme,
    pub(super) now_ms: u64,
}

/// The columns in their order, with their rank: higher ones are dropped first.
const USUAL: [(u8, &str); 17] = [
    (0, "status"),
    (1, "run"),
    (4, "name"),
    (6, "task"),
    (12, "model"),
    (5, "step"),
    (7, "seconds_left"),
    (11, "reward"),
    (11, "ema:reward"),
    (2, "valid"),
    (3, "exact"),
    (8, "of"),
    (3, "outcome"),
    (9, "trend"),
    (4, "created"),
    (10, "alerts"),
    (14, "tags"),
];

/// Columns that are left out while no run has a value.
const IF_ANY: [&str; 4] = ["name", "seconds_left", "alerts", "tags"];

/// Columns that are no field of their own.
pub(super) const TREND: &str = "trend";
const TREND_COLUMNS: usize = 7;

pub(super) fn sorted_by(row: &RunRow, field: &str) -> Option<Field> {
    match field {
        "valid" | TREND => row.valid().map(Field::Number),
        "exact" => row.exact().map(Field::Number),
        "created" => Some(Field::Number(row.directory.file().created_ms as f64)),
        "of" | "checkpoint" => row
            .measured_on()
            .map(|(_, step)| Field::Number(step as f64)),
        _ => row.field(field, false),
    }
}

/// All that can be a column, apart from the configuration's keys: fields, then metrics of these runs.
pub(super) fn offered<'a>(rows: impl Iterator<Item = &'a RunRow>) -> Vec<String> {
    let metrics: BTreeSet<&String> = rows.flat_map(|run| run.metrics.keys()).collect();
    let fields = FIELDS
        .into_iter()
        .filter(|field| !["id", "base_model", "setup"].contains(field));
    let keys = crate::config::KEYS
        .iter()
        .map(|key| format!("config.{}", key.name));
    let smoothed = metrics
        .contains(&"reward".to_owned())
        .then(|| format!("{SMOOTHED}reward"));
    fields
        .chain([TREND])
        .map(str::to_owned)
        .chain(smoothed)
        .chain(
            metrics
                .into_iter()
                .filter(|name| !FIELDS.contains(&name.as_str()))
                .cloned(),
        )
        .chain(keys)
        .collect()
}

/// The columns that fit and are not empty for all of these runs; `sort`: a field without a column of its own gets one.
pub(super) fn columns<'a>(
    width: usize,
    rows: impl Iterator<Item = &'a RunRow> + Clone,
    sort: &str,
) -> Vec<Column> {
    let has = |row: &RunRow, field: &str| match row.field(field, false) {
        Some(Field::Text(text)) => !text.is_empty(),
        value => value.is_some(),
    };
    let is_shown =
        |field: &str| !IF_ANY.contains(&field) || rows.clone().any(|row| has(row, field));
    let mut all: Vec<(u8, Column)> = USUAL
        .into_iter()
        .filter(|(_, field)| is_shown(field))
        .map(|(rank, field)| (rank, column(field)))
        .collect();
    if !all.iter().any(|(_, column)| column.field == sort) {
        let after_text = all
            .iter()
            .rposition(|(_, column)| column.right)
            .map_or(all.len(), |place| place + 1);
        all.insert(after_text, (0, column(sort)));
    }
    let total = |all: &[(u8, Column)]| {
        all.iter()
            .map(|(_, column)| column.width + 1)
            .sum::<usize>()
    };
    while total(&all) > width && all.len() > 1 {
        let worst = all
            .iter()
            .enumerate()
            .max_by_key(|(_, (rank, _))| *rank)
            .map_or(0, |(index, _)| index);
        all.remove(worst);
    }
    // Remaining width goes to the texts.
    let mut left = width.saturating_sub(total(&all));
    for (field, most) in [
        ("name", 30),
        ("alerts", 16),
        ("model", 20),
        ("tags", 20),
        ("task", 12),
    ] {
        if let Some((_, column)) = all.iter_mut().find(|(_, column)| column.field == field) {
            let more = left.min(most);
            column.width += more;
            left -= more;
        }
    }
    all.into_iter().map(|(_, column)| column).collect()
}

fn column(field: &str) -> Column {
    let (title, width, right) = match field {
        "status" => ("state", 13, false),
        "run" => ("run", 6, false),
        "task" => ("task", 10, false),
        "model" => ("model", 12, false),
        "step" => ("step", 9, true),
        "reward" => ("reward", 6, true),
        "ema:reward" => ("smooth", 6, true),
        "valid" => ("valid", 7, true),
        "exact" => ("exact", 6, true),
        "of" => ("measured on", 11, false),
        TREND => ("trend", TREND_COLUMNS, false),
        "created" => ("age", 5, true),
        "alerts" => ("alerts", 12, false),
        "tags" => ("tags", 12, false),
        "name" => ("name", 10, false),
        "host" | "job" | "set" => (field, 8, false),
        "base_valid" => ("base v.", 7, true),
        "base_exact" => ("base ex.", 8, true),
        "outcome" => ("vs base", 17, false),
        "best" | "notes" | "parse" => (field, 6, true),
        "seconds" => ("time", 8, true),
        "seconds_left" => ("left", 7, true),
        _ => {
            let title = field
                .trim_start_matches(SMOOTHED)
                .rsplit(['/', '.'])
                .next()
                .unwrap_or(field);
            (title, title.width().clamp(9, 14), true)
        }
    };
    Column {
        title: title.to_owned(),
        field: field.to_owned(),
        width,
        right,
    }
}

pub(super) fn cell(column: &Column, look: &Look<'_>, row: &RunRow) -> (String, Role) {
    let text = |text: &str| (text.to_owned(), Role::Text);
    let number = |value: Option<f64>| match value {
        Some(value) if value.is_finite() => (format!("{value:.2}"), Role::Text),
        Some(_) => ("nan".to_owned(), Role::Bad),
        None => unknown(),
    };
    match column.field.as_str() {
        "status" => {
            let (glyph, role) =
                look.theme
                    .status_mark(row.status, row.cause.as_ref(), &row.outcome);
            let status = row.status.name();
            match (row.warnings.is_empty(), row.pauses_later) {
                // The details say what is damaged.
                (false, _) => (format!("! {status}"), Role::Bad),
                (true, true) => (format!("{glyph} {status} ‖"), role),
                (true, false) => (format!("{glyph} {status}"), role),
            }
        }
        "run" => (short_id(row.directory.id()).to_owned(), Role::Accent),
        "model" | "base_model" => text(model_name(&row.directory.file().config.base_model)),
        "step" => {
            let last = row.last_step;
            (
                row.total_steps
                    .map_or_else(|| last.to_string(), |total| format!("{last}/{total}")),
                Role::Text,
            )
        }
        "reward" => number(row.metric("reward", false)),
        "ema:reward" => number(row.metric("reward", true)),
        // A rate of training completions differs; the column `of` says which it is.
        "valid" => match (row.latest_valid(), row.valid()) {
            (Some(_), Some(valid)) => text(&percent(valid)),
            (None, Some(valid)) => (percent(valid), Role::Faint),
            _ => unknown(),
        },
        "exact" => match row.exact() {
            Some(exact) => {
                let trained = if row.latest_valid().is_some() {
                    Role::Text
                } else {
                    Role::Faint
                };
                (
                    percent(exact),
                    if row.outcome.loses(Metric::Exact) {
                        Role::Warning
                    } else {
                        trained
                    },
                )
            }
            None => unknown(),
        },
        "outcome" => (row.outcome.than_base("+"), row.outcome.level().into()),
        "of" => match row.measured_on() {
            // The base's rates, where no checkpoint is better.
            Some((set, 0)) if set != PromptSet::Train.into() => ("base★".to_owned(), Role::Faint),
            Some((set, step)) => {
                let best = if row.best == Some(step) && set != PromptSet::Train.into() {
                    "★"
                } else {
                    ""
                };
                (format!("{set}@{step}{best}"), Role::Faint)
            }
            None => unknown(),
        },
        TREND => (
            sparkline(
                look.theme,
                &spread(&row.valid_rates, TREND_COLUMNS),
                TREND_COLUMNS,
                Some((0.0, 1.0)),
            ),
            Role::SeriesOne,
        ),
        "created" => (
            age(look.now_ms, row.directory.file().created_ms),
            Role::Faint,
        ),
        "alerts" => match row.alerts.first().map(|worst| look.theme.alert_mark(worst)) {
            Some((mark, role)) => (
                format!(
                    "{}{} {}",
                    mark.trim_end(),
                    row.alerts.len(),
                    row.alert_names()
                ),
                role,
            ),
            None => text(""),
        },
        "tags" => (row.tags.join(" "), Role::Marked),
        "name" => text(row.directory.name()),
        "seconds_left" if !row.is_active() => (String::new(), Role::Text),
        field => match row.field(field, false) {
            Some(value) => (field_text(field, &value), Role::Text),
            None => unknown(),
        },
    }
}

fn unknown() -> (String, Role) {
    ("n/a".to_owned(), Role::Faint)
}

/// The last part of a path or of an OWNER/NAME.
fn model_name(model: &str) -> &str {
    model
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_at_every_width() {
        for width in 0..220 {
            for sort in ["created", "completions/mean_length", "config.learning_rate"] {
                let columns = columns(width, std::iter::empty(), sort);
                let total: usize = columns.iter().map(|column| column.width + 1).sum();
                assert!(
                    total <= width || columns.len() == 1,
                    "{width} {sort}: {total}"
                );
                assert!(
                    width < 30 || ["status", "run"].contains(&columns[0].field.as_str()),
                    "{width}"
                );
            }
        }
    }
}
