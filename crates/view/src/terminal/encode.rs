//! Encodes cells as control sequences in few bytes: one sequence per style change, short cursor moves, no colour where
//! none is visible.

use std::io::Write;

use ratatui::buffer::Cell;
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr;

use crate::secrets::visible;

/// Attributes by their SGR code.
const ATTRIBUTES: [(Modifier, &str); 8] = [
    (Modifier::BOLD, "1"),
    (Modifier::DIM, "2"),
    (Modifier::ITALIC, "3"),
    (Modifier::UNDERLINED, "4"),
    (Modifier::SLOW_BLINK, "5"),
    (Modifier::REVERSED, "7"),
    (Modifier::HIDDEN, "8"),
    (Modifier::CROSSED_OUT, "9"),
];

/// Attributes that show the foreground colour even on a blank.
const SEEN_ON_BLANKS: Modifier = Modifier::UNDERLINED
    .union(Modifier::REVERSED)
    .union(Modifier::CROSSED_OUT);

/// The style in which the terminal would write the next character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pen {
    fg: Color,
    bg: Color,
    underline: Color,
    attributes: Modifier,
}

const PLAIN: Pen = Pen {
    fg: Color::Reset,
    bg: Color::Reset,
    underline: Color::Reset,
    attributes: Modifier::empty(),
};

/// Writes the cells, each at its column and row, on a terminal `columns` wide. Cells of a row come from left to right.
pub(super) fn encode<'a>(
    cells: impl Iterator<Item = (u16, u16, &'a Cell)>,
    columns: u16,
    bytes: &mut Vec<u8>,
) {
    let mut pen: Option<Pen> = None;
    let mut cursor: Option<(u16, u16)> = None;
    for (column, row, cell) in cells {
        go(cursor, (column, row), bytes);
        let symbol = cell.symbol();
        let next = Pen {
            fg: cell.fg,
            bg: cell.bg,
            underline: cell.underline_color,
            attributes: cell.modifier,
        };
        pen = Some(change_pen(pen, next, symbol == " ", bytes));
        // Control characters that a screen failed to escape end here.
        bytes.extend_from_slice(visible(symbol).as_bytes());
        // After wide characters and after the last column, terminals disagree on where the cursor is.
        let is_sure = symbol.width() == 1 && symbol.chars().count() == 1 && column + 1 < columns;
        cursor = is_sure.then_some((column + 1, row));
    }
    if pen.is_some_and(|pen| pen != PLAIN) {
        bytes.extend_from_slice(b"\x1b[m");
    }
}

fn go(from: Option<(u16, u16)>, (column, row): (u16, u16), bytes: &mut Vec<u8>) {
    let _ = match from {
        Some(place) if place == (column, row) => Ok(()),
        Some((before, same)) if same == row && before + 1 == column => write!(bytes, "\x1b[C"),
        Some((before, same)) if same == row && before < column => {
            write!(bytes, "\x1b[{}C", column - before)
        }
        _ if column == 0 => write!(bytes, "\x1b[{}H", row + 1),
        _ => write!(bytes, "\x1b[{};{}H", row + 1, column + 1),
    };
}

fn change_pen(pen: Option<Pen>, next: Pen, blank: bool, bytes: &mut Vec<u8>) -> Pen {
    // Each frame starts with a plain pen.
    let mut now = pen.unwrap_or(PLAIN);
    let mut next = next;
    if blank && !(next.attributes | now.attributes).intersects(SEEN_ON_BLANKS) {
        // A blank shows its background only.
        next = Pen { bg: next.bg, ..now };
    }
    if now == next {
        return now;
    }
    let mut codes: Vec<String> = Vec::new();
    if !(now.attributes - next.attributes).is_empty() {
        codes.push("0".to_owned());
        now = PLAIN;
    }
    let added = next.attributes - now.attributes;
    codes.extend(
        ATTRIBUTES
            .iter()
            .filter(|(attribute, _)| added.contains(*attribute))
            .map(|(_, code)| (*code).to_owned()),
    );
    for (from, to, base) in [
        (now.fg, next.fg, 30),
        (now.bg, next.bg, 40),
        (now.underline, next.underline, 50),
    ] {
        if from != to {
            codes.push(colour(to, base));
        }
    }
    let _ = write!(bytes, "\x1b[{}m", codes.join(";"));
    next
}

/// The SGR code of a colour: `base` 30 for the foreground, 40 for the background, 50 for underlines.
fn colour(colour: Color, base: u8) -> String {
    let own = |number: u8| {
        if base == 50 {
            format!("58;5;{number}")
        } else {
            (base + number).to_string()
        }
    };
    let light = |number: u8| {
        if base == 50 {
            format!("58;5;{}", number + 8)
        } else {
            (base + 60 + number).to_string()
        }
    };
    match colour {
        Color::Reset => (base + 9).to_string(),
        Color::Black => own(0),
        Color::Red => own(1),
        Color::Green => own(2),
        Color::Yellow => own(3),
        Color::Blue => own(4),
        Color::Magenta => own(5),
        Color::Cyan => own(6),
        Color::Gray => own(7),
        Color::DarkGray => light(0),
        Color::LightRed => light(1),
        Color::LightGreen => light(2),
        Color::LightYellow => light(3),
        Color::LightBlue => light(4),
        Color::LightMagenta => light(5),
        Color::LightCyan => light(6),
        Color::White => light(7),
        Color::Indexed(number) => format!("{};5;{number}", base + 8),
        Color::Rgb(red, green, blue) => format!("{};2;{red};{green};{blue}", base + 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    #[test]
    fn few_bytes_say_it() {
        let check = |cells: &[(u16, u16, &str, Style)], expected: &str| {
            let made: Vec<(u16, u16, Cell)> = cells
                .iter()
                .map(|(column, row, symbol, style)| {
                    let mut cell = Cell::default();
                    cell.set_symbol(symbol).set_style(*style);
                    (*column, *row, cell)
                })
                .collect();
            let mut bytes = Vec::new();
            encode(
                made.iter().map(|(column, row, cell)| (*column, *row, cell)),
                80,
                &mut bytes,
            );
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        };
        let (plain, red) = (Style::new(), Style::new().fg(Color::Red));
        let bold = Style::new()
            .fg(Color::Rgb(1, 2, 3))
            .bg(Color::Indexed(7))
            .add_modifier(Modifier::BOLD);
        check(&[], "");
        check(
            &[(0, 0, "\u{202e}", plain), (1, 0, "\u{9b}2J", plain)],
            "\x1b[1H\u{fffd}\x1b[1;2H\u{fffd}2J",
        );
        check(
            &[
                (0, 0, "a", plain),
                (1, 0, "b", plain),
                (5, 0, "c", plain),
                (0, 2, "d", plain),
            ],
            "\x1b[1Hab\x1b[3Cc\x1b[3Hd",
        );
        check(
            &[(3, 1, "a", red), (4, 1, " ", plain), (5, 1, "b", red)],
            "\x1b[2;4H\x1b[31ma b\x1b[m",
        );
        check(
            &[(3, 1, "a", bold), (4, 1, "b", red)],
            "\x1b[2;4H\x1b[1;38;2;1;2;3;48;5;7ma\x1b[0;31mb\x1b[m",
        );
        check(
            &[(0, 0, "語", plain), (2, 0, "a", plain)],
            "\x1b[1H語\x1b[1;3Ha",
        );
        check(
            &[(79, 0, "a", plain), (0, 1, "b", plain)],
            "\x1b[1;80Ha\x1b[2Hb",
        );
    }

    fn style() -> impl Strategy<Value = Style> {
        let colour = prop_oneof![
            Just(Color::Reset),
            Just(Color::Red),
            Just(Color::LightBlue),
            Just(Color::Indexed(200)),
            Just(Color::Rgb(9, 8, 7)),
        ];
        let attributes = proptest::sample::select(vec![
            Modifier::empty(),
            Modifier::BOLD,
            Modifier::UNDERLINED,
            Modifier::REVERSED,
            Modifier::BOLD | Modifier::ITALIC,
        ]);
        (colour.clone(), colour, attributes)
            .prop_map(|(fg, bg, attributes)| Style::new().fg(fg).bg(bg).add_modifier(attributes))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// A terminal emulator fed with each frame's bytes shows the last frame.
        #[test]
        fn a_terminal_shows_the_frame(frames in proptest::collection::vec(
            proptest::collection::vec((0..20_u16, 0..6_u16, "[ab ─]{1,6}", style()), 0..12), 1..5)
        ) {
            let size = |count| std::num::NonZeroU16::new(count).unwrap();
            let mut emulator = vt100::Parser::new(size(6), size(20), 0);
            let mut before = Buffer::empty(Rect::new(0, 0, 20, 6));
            for frame in frames {
                let mut now = Buffer::empty(before.area);
                for (column, row, text, style) in frame {
                    now.set_string(column, row, text, style);
                }
                let mut bytes = Vec::new();
                encode(before.diff(&now).into_iter(), 20, &mut bytes);
                emulator.process(&bytes);
                before = now;
            }
            for row in 0..6 {
                for column in 0..20 {
                    let (shown, cell) = (emulator.screen().cell(row, column).unwrap(), &before[(column, row)]);
                    let text = if shown.has_contents() { shown.contents() } else { " " };
                    prop_assert_eq!(text, cell.symbol());
                    prop_assert_eq!(shown.bgcolor(), emulator_colour(cell.bg));
                    let seen = cell.symbol() != " " || cell.modifier.intersects(SEEN_ON_BLANKS);
                    if seen {
                        prop_assert_eq!(shown.fgcolor(), emulator_colour(cell.fg));
                        prop_assert_eq!(shown.bold(), cell.modifier.contains(Modifier::BOLD));
                        prop_assert_eq!(shown.italic(), cell.modifier.contains(Modifier::ITALIC));
                    }
                    prop_assert_eq!(shown.underline(), cell.modifier.contains(Modifier::UNDERLINED));
                    prop_assert_eq!(shown.inverse(), cell.modifier.contains(Modifier::REVERSED));
                }
            }
        }
    }

    fn emulator_colour(colour: Color) -> vt100::Color {
        match colour {
            Color::Red => vt100::Color::Idx(1),
            Color::LightBlue => vt100::Color::Idx(12),
            Color::Indexed(number) => vt100::Color::Idx(number),
            Color::Rgb(red, green, blue) => vt100::Color::Rgb(red, green, blue),
            _ => vt100::Color::Default,
        }
    }
}
