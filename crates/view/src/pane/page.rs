//! A page of a report as lines of a pane.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::facts::Tier;
use crate::page::text::fitted;
use crate::page::{Bar, Block, Cell, Fact, Level, Table};
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::bars::gauge;
use crate::widgets::text_width::{padded, wrapped};

/// Columns of a bar, its ends included, and of the amount before it.
const BAR: usize = 8;
const AMOUNT: usize = 9;

#[derive(Debug)]
pub struct PageLines<'a> {
    pub theme: &'a Theme,
    /// Columns of the pane. Cells that do not fit are drawn without intervals and reasons.
    pub columns: usize,
}

impl PageLines<'_> {
    pub fn lines(&self, page: &[Block]) -> Vec<Line<'static>> {
        page.iter().flat_map(|block| self.block(block)).collect()
    }

    fn block(&self, block: &Block) -> Vec<Line<'static>> {
        match block {
            Block::Heading(text) => vec![self.styled(text.clone(), Role::Title)],
            Block::Text(level, text) => vec![self.styled(text.clone(), (*level).into())],
            Block::Finding(level, text) => self.finding(*level, text),
            Block::List(items) => {
                let item = |item: &String| Line::from(format!("- {item}"));
                items.iter().map(item).collect()
            }
            Block::Facts(facts) => {
                let width = facts
                    .iter()
                    .map(|fact| fact.name.width())
                    .max()
                    .unwrap_or(0);
                let fact = |fact| self.fact(fact, width + 1);
                facts.iter().flat_map(fact).collect()
            }
            Block::Bars(bars) => bars.iter().map(|bar| self.bar(bar)).collect(),
            Block::Table(table) => self.table(table),
        }
    }

    /// The mark of a level, then the first line; further ones are indented.
    pub fn finding(&self, level: Level, text: &str) -> Vec<Line<'static>> {
        let mark = mark(level);
        let line = |(number, line): (usize, &str)| {
            let start = if number == 0 { mark } else { "  " };
            self.styled(format!("{start}{line}"), level.into())
        };
        text.lines().enumerate().map(line).collect()
    }

    fn styled(&self, text: String, role: Role) -> Line<'static> {
        self.theme.line(text, role)
    }

    pub fn fact(&self, fact: &Fact, width: usize) -> Vec<Line<'static>> {
        let role = match (fact.level, fact.share) {
            // The bar alone has the colour.
            (Level::Good, Some(_)) => Role::Text,
            (level, _) => level.into(),
        };
        let bar = fact.share.map(|share| self.gauge(share, fact.level.into()));
        let beside = bar.as_ref().map_or(0, Span::width);
        let room = self.columns.saturating_sub(width + 1 + beside).max(8);
        // The colour is not the only sign.
        let mark = match fact.level {
            Level::Warning | Level::Error if bar.is_none() => mark(fact.level),
            _ => "",
        };
        let value = match &fact.value {
            // A reason is not left out.
            unknown @ Cell::Unknown(_) => unknown.to_string(),
            value => value.fitted(room),
        };
        let rows = wrapped(&format!("{mark}{value}"), room);
        let line = |(number, row): (usize, String)| {
            let (name, bar) = match number {
                0 => (&*fact.name, bar.clone()),
                _ => ("", Some(Span::raw(" ".repeat(beside)))),
            };
            let name = format!("{} ", padded(name, width, false));
            let name = self.theme.span(name, Role::Faint);
            let value = self.theme.span(row, role);
            [name].into_iter().chain(bar).chain([value]).collect()
        };
        rows.into_iter().enumerate().map(line).collect()
    }

    fn bar(&self, bar: &Bar) -> Line<'static> {
        let note = if bar.note.is_empty() { "" } else { ", " };
        let role = bar
            .tier
            .map_or(Role::SeriesOne, |tier: Tier| Theme::tier_role(tier));
        let note = self.theme.span(format!("{note}{}", bar.note), Role::Faint);
        let amount = Span::raw(format!(
            "{} ",
            padded(&bar.amount.to_string(), AMOUNT, true)
        ));
        let name = Span::raw(bar.name.clone());
        Line::from(vec![amount, self.gauge(bar.share, role), name, note])
    }

    fn gauge(&self, share: f64, role: Role) -> Span<'static> {
        let columns = BAR.min(self.columns / 4);
        let bar = if self.theme.linear {
            String::new()
        } else {
            gauge(self.theme, share, columns) + " "
        };
        self.theme.span(bar, role)
    }

    fn table(&self, table: &Table) -> Vec<Line<'static>> {
        let head = (!table.head.is_empty()).then_some((Level::Info, Role::Title));
        let rows = table.rows.iter().map(|row| (row.level, row.level.into()));
        let line = |(cells, (level, role)): (Vec<String>, (Level, Role))| {
            let cells = cells.into_iter().enumerate().map(|(column, cell)| {
                // A row's own level takes precedence.
                let of_column = table.levels.get(column).filter(|_| level == Level::Info);
                let of_column = of_column.filter(|level| **level != Level::Info);
                self.theme
                    .span(cell, of_column.map_or(role, |level| (*level).into()))
            });
            cells.collect()
        };
        let cells = fitted(table, |line| line.width() <= self.columns);
        cells
            .into_iter()
            .zip(head.into_iter().chain(rows))
            .map(line)
            .collect()
    }
}

pub fn mark(level: Level) -> &'static str {
    match level {
        Level::Good => "✓ ",
        Level::Warning => "▲ ",
        Level::Error => "✗ ",
        Level::Request => "◌ ",
        Level::Step | Level::Info | Level::Base | Level::Trained => "",
    }
}
