//! Dots in cells: two by four in a braille character, or one a cell in ASCII.

use ratatui::text::{Line, Span};

use crate::style_role::Role;
use crate::theme::Theme;

/// Bits of a braille character, by row, then column.
const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

#[derive(Debug, Clone, Copy)]
pub(super) struct Pen {
    pub(super) role: Role,
    pub(super) letter: char,
    /// The line style: 0 is solid; then dashes, dots, long dashes, dashes with dots, wide dots.
    pub(super) stroke: usize,
}

impl Pen {
    /// Whether the pen leaves a gap in a column of dots.
    fn is_up(self, x: usize) -> bool {
        match self.stroke {
            1 => x % 6 >= 3,
            2 => !x.is_multiple_of(3),
            3 => x % 8 >= 6,
            4 => matches!(x % 9, 5 | 6 | 8),
            5 => !x.is_multiple_of(6),
            _ => false,
        }
    }
}

/// A column with more dots than this is a spike, which no gap may hide.
const SPIKE: usize = 3;

/// A canvas of dots. The origin is at the top left.
#[derive(Debug)]
pub(super) struct Raster {
    columns: usize,
    rows: usize,
    /// Dots per cell, across and down.
    fine: (usize, usize),
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    dots: u8,
    role: Option<Role>,
    letter: char,
    symbol: Option<&'static str>,
}

impl Raster {
    pub(super) fn new(columns: usize, rows: usize, ascii: bool) -> Self {
        Self {
            columns,
            rows,
            fine: if ascii { (1, 1) } else { (2, 4) },
            cells: vec![Cell::default(); columns * rows],
        }
    }

    pub(super) fn size(&self) -> (usize, usize) {
        (self.columns * self.fine.0, self.rows * self.fine.1)
    }

    pub(super) fn column_of(&self, x: usize) -> usize {
        x / self.fine.0
    }

    pub(super) fn row_of(&self, y: usize) -> usize {
        y / self.fine.1
    }

    pub(super) fn dot(&mut self, x: usize, y: usize, pen: Pen) {
        if pen.is_up(x) {
            return;
        }
        let (column, row) = (x / self.fine.0, y / self.fine.1);
        let bit = BITS[y % self.fine.1][x % self.fine.0];
        if column < self.columns
            && let Some(cell) = self.cells.get_mut(row * self.columns + column)
        {
            cell.dots |= bit;
            cell.role = Some(pen.role);
            cell.letter = pen.letter;
        }
    }

    /// Sets all dots of a column between two rows.
    pub(super) fn vertical(&mut self, x: usize, from: usize, to: usize, pen: Pen) {
        let pen = if from.abs_diff(to) > SPIKE {
            Pen { stroke: 0, ..pen }
        } else {
            pen
        };
        for y in from.min(to)..=from.max(to) {
            self.dot(x, y, pen);
        }
    }

    pub(super) fn line(&mut self, from: (usize, usize), to: (usize, usize), pen: Pen) {
        let (across, down) = (to.0 as f64 - from.0 as f64, to.1 as f64 - from.1 as f64);
        let count = across.abs().max(down.abs()).max(1.0);
        for index in 0..=count as usize {
            let share = index as f64 / count;
            let (x, y) = (from.0 as f64 + share * across, from.1 as f64 + share * down);
            self.dot(x.round() as usize, y.round() as usize, pen);
        }
    }

    pub(super) fn put(&mut self, column: usize, row: usize, symbol: &'static str, role: Role) {
        if column < self.columns
            && let Some(cell) = self.cells.get_mut(row * self.columns + column)
        {
            cell.symbol = Some(symbol);
            cell.role = Some(role);
        }
    }

    /// Sets a character in an empty cell.
    pub(super) fn put_under(
        &mut self,
        column: usize,
        row: usize,
        symbol: &'static str,
        role: Role,
    ) {
        let cell = self.cells.get(row * self.columns + column);
        if column < self.columns && cell.is_some_and(|cell| cell.dots == 0 && cell.symbol.is_none())
        {
            self.put(column, row, symbol, role);
        }
    }

    /// Fills the empty cells of a column with a character, and gives the whole column the role.
    pub(super) fn mark_column(&mut self, column: usize, symbol: &'static str, role: Role) {
        for row in 0..self.rows {
            self.put_under(column, row, symbol, role);
            if column < self.columns
                && let Some(cell) = self.cells.get_mut(row * self.columns + column)
            {
                cell.role = Some(role);
            }
        }
    }

    pub(super) fn row(&self, theme: &Theme, row: usize) -> Line<'static> {
        let cells = self
            .cells
            .get(row * self.columns..(row + 1) * self.columns)
            .unwrap_or_default();
        let mut spans: Vec<Span<'static>> = Vec::new();
        let (mut text, mut role) = (String::new(), None);
        for cell in cells {
            if cell.role != role && !text.is_empty() {
                spans.push(span(theme, std::mem::take(&mut text), role));
            }
            role = cell.role;
            match (cell.symbol, cell.dots) {
                (Some(symbol), _) => text.push_str(symbol),
                (None, 0) => text.push(' '),
                (None, _) if self.fine == (1, 1) => text.push(cell.letter),
                (None, dots) => text.push(char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' ')),
            }
        }
        spans.push(span(theme, text, role));
        Line::from(spans)
    }
}

fn span(theme: &Theme, text: String, role: Option<Role>) -> Span<'static> {
    match role {
        Some(role) => theme.span(text, role),
        None => Span::raw(text),
    }
}
