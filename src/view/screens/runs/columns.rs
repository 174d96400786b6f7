//! The columns of the list of runs: contents, widths, and which are dropped first on narrow terminals.

use crate::format::{age, percent, short_id};
use crate::report::{RunRow, spread};
use crate::run::Field;
use crate::view::style_role::Role;
use crate::view::theme::Theme;
use crate::view::widgets::bars::sparkline;

pub(super) struct Column {
    pub(super) title: String,
    /// The sort key.
    pub(super) field: String,
    pub(super) width: usize,
    pub(super) right: bool,
    pub(super) cell: Cell,
}

type Cell = Box<dyn Fn(&Look<'_>, &RunRow) -> (String, Role)>;

/// The inputs of the cells besides the run.
pub(super) struct Look<'a> {
    pub(super) theme: &'a Theme,
    pub(super) now_ms: u64,
}

/// Fields by which `<` and `>` sort, in the order of their columns.
pub(super) const SORTED: [&str; 12] =
    ["status", "run", "task", "model", "step", "reward", "valid", "exact", "outcome", "created", "tags", "name"];

pub(super) fn sorted_by(row: &RunRow, field: &str, smoothed: bool) -> Option<Field> {
    match field {
        "valid" => row.valid().map(Field::Number),
        "created" => Some(Field::Number(row.directory.file().created_ms as f64)),
        _ => row.field(field, smoothed),
    }
}

/// The columns that fit, in their order. `sort`: a field without a column of its own gets one.
pub(super) fn columns(width: usize, sort: &str, smoothed: bool) -> Vec<Column> {
    let mut all = all();
    if !SORTED.contains(&sort) {
        let field = sort.to_owned();
        let title = sort.rsplit(['/', '.']).next().unwrap_or(sort).to_owned();
        let cell: Cell = Box::new(move |_, row| match row.field(&field, smoothed) {
            Some(Field::Number(number)) => (format!("{number:.4}"), Role::Text),
            Some(Field::Text(text)) => (text, Role::Text),
            None => ("n/a".to_owned(), Role::Faint),
        });
        let at = all.iter().position(|(_, column)| column.field == "created").unwrap_or(0);
        let width = title.chars().count().clamp(9, 14);
        all.insert(at, (0, Column { title, field: sort.to_owned(), width, right: true, cell }));
    }
    let total = |all: &[(u8, Column)]| all.iter().map(|(_, column)| column.width + 1).sum::<usize>();
    while total(&all) > width && all.len() > 1 {
        let worst = all.iter().enumerate().max_by_key(|(_, (rank, _))| *rank).map_or(0, |(index, _)| index);
        all.remove(worst);
    }
    let left = width.saturating_sub(total(&all));
    // Remaining width goes to the texts.
    let wide: Vec<usize> = ["name", "model", "tags", "task"]
        .iter()
        .filter_map(|field| all.iter().position(|(_, column)| column.field == *field))
        .collect();
    if let Some(first) = wide.first() {
        all[*first].1.width += left.min(28);
        if let (Some(second), true) = (wide.get(1), left > 28) {
            all[*second].1.width += (left - 28).min(20);
        }
    }
    all.into_iter().map(|(_, column)| column).collect()
}

/// All columns; those with a higher number are dropped first.
fn all() -> Vec<(u8, Column)> {
    fn column(
        rank: u8,
        title: &str,
        field: &str,
        width: usize,
        right: bool,
        cell: impl Fn(&Look<'_>, &RunRow) -> (String, Role) + 'static,
    ) -> (u8, Column) {
        (rank, Column { title: title.to_owned(), field: field.to_owned(), width, right, cell: Box::new(cell) })
    }
    let text = |text: &str| (text.to_owned(), Role::Text);
    vec![
        column(0, "state", "status", 13, false, |look, row| {
            let (glyph, role) = look.theme.status_mark(row.status, row.cause.as_deref(), &row.outcome);
            (format!("{glyph} {}", row.status.name()), role)
        }),
        column(1, "run", "run", 6, false, |_, row| (short_id(row.directory.id()).to_owned(), Role::Accent)),
        column(4, "task", "task", 10, false, move |_, row| text(&row.directory.file().task)),
        column(10, "model", "model", 12, false, move |_, row| {
            text(model_name(&row.directory.file().config.base_model))
        }),
        column(4, "step", "step", 9, true, |_, row| {
            (
                row.total_steps.map_or_else(|| row.last_step.to_string(), |total| format!("{}/{total}", row.last_step)),
                Role::Text,
            )
        }),
        column(7, "reward", "reward", 6, true, |_, row| number(row.metric("reward", false))),
        column(9, "smooth", "reward", 6, true, |_, row| number(row.metric("reward", true))),
        column(2, "valid", "valid", 7, true, |_, row| match row.valid() {
            Some(valid) => (percent(valid), Role::Text),
            None => ("n/a".to_owned(), Role::Faint),
        }),
        column(3, "exact", "exact", 7, true, |_, row| match row.exact() {
            Some(exact) => (percent(exact), exact_role(row)),
            None => ("n/a".to_owned(), Role::Faint),
        }),
        column(3, "vs base", "outcome", 16, false, |_, row| {
            (row.outcome.label().to_owned(), row.outcome.level().into())
        }),
        column(6, "trend", "valid", 10, false, |look, row| {
            (sparkline(look.theme, &spread(&row.valid_rates, 10), 10, Some((0.0, 1.0))), Role::SeriesOne)
        }),
        column(9, "age", "created", 5, true, |look, row| {
            (age(look.now_ms, row.directory.file().created_ms), Role::Faint)
        }),
        column(11, "tags", "tags", 12, false, |_, row| (row.tags.join(" "), Role::Marked)),
        column(8, "name", "name", 12, false, move |_, row| text(&row.directory.file().name)),
    ]
}

/// In the warning role where it is significantly below the base's.
fn exact_role(row: &RunRow) -> Role {
    if row.outcome.loses_exact() { Role::Warning } else { Role::Text }
}

fn number(value: Option<f64>) -> (String, Role) {
    match value {
        Some(value) if value.is_finite() => (format!("{value:.2}"), Role::Text),
        Some(_) => ("nan".to_owned(), Role::Bad),
        None => ("n/a".to_owned(), Role::Faint),
    }
}

/// The last part of a path or of an OWNER/NAME.
fn model_name(model: &str) -> &str {
    model.trim_end_matches('/').rsplit('/').next().unwrap_or(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_at_every_width() {
        for width in 0..220 {
            for sort in ["created", "completions/mean_length", "config.learning_rate"] {
                let columns = columns(width, sort, false);
                let total: usize = columns.iter().map(|column| column.width + 1).sum();
                assert!(total <= width || columns.len() == 1, "{width} {sort}: {total}");
                assert!(width < 30 || columns.iter().any(|column| column.title == "state"), "{width}");
            }
        }
    }
}
