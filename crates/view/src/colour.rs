//! Colours as theme files name them, and their nearest match in a terminal with fewer colours.

use ratatui::style::{Color, Modifier, Style};

use super::terminal_capability::ColourDepth;

/// Parses `#rrggbb`, a name of the terminal's own colours such as `light_red`, `default`, or a number of the 256-colour
/// palette.
pub(super) fn parse(text: &str) -> Option<Color> {
    if text == "default" {
        Some(Color::Reset)
    } else {
        text.parse().ok()
    }
}

pub(super) fn at_depth(style: Style, depth: ColourDepth) -> Style {
    match depth {
        ColourDepth::TrueColour => style,
        ColourDepth::Colours256 => each(style, |colour| match colour {
            Color::Rgb(red, green, blue) => Color::Indexed(nearest_of_256(red, green, blue)),
            other => other,
        }),
        // No background of the 16 colours is close enough to the terminal's own: styles with a background are reversed.
        ColourDepth::Colours16
            if style
                .bg
                .is_some_and(|background| background != Color::Reset) =>
        {
            Style {
                fg: None,
                bg: None,
                ..style
            }
            .add_modifier(Modifier::REVERSED)
        }
        ColourDepth::Colours16 => each(style, of_16),
        ColourDepth::None => Style {
            fg: None,
            bg: None,
            underline_color: None,
            ..style
        },
    }
}

fn each(style: Style, change: impl Fn(Color) -> Color) -> Style {
    Style {
        fg: style.fg.map(&change),
        bg: style.bg.map(&change),
        underline_color: style.underline_color.map(&change),
        ..style
    }
}

/// The nearest colour of the 256-colour palette: its cube of 6 x 6 x 6, or its 24 greys.
fn nearest_of_256(red: u8, green: u8, blue: u8) -> u8 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let level = |value: u8| {
        (0..6_u8)
            .min_by_key(|index| LEVELS[*index as usize].abs_diff(value))
            .unwrap_or(0)
    };
    let [r, g, b] = [red, green, blue].map(level);
    let distance = |of: [u8; 3]| -> u32 {
        of.iter()
            .zip([red, green, blue])
            .map(|(a, b)| u32::from(a.abs_diff(b)).pow(2))
            .sum()
    };
    let mean = (u16::from(red) + u16::from(green) + u16::from(blue)) / 3;
    let step = (mean.saturating_sub(3) / 10).min(23) as u8;
    let grey = 8 + 10 * step;
    let cube = [r, g, b].map(|index| LEVELS[index as usize]);
    if distance([grey; 3]) < distance(cube) {
        232 + step
    } else {
        16 + 36 * r + 6 * g + b
    }
}

/// The nearest of the 16 colours by hue; a grey if there is hardly any saturation.
fn of_16(colour: Color) -> Color {
    let (red, green, blue) = match colour {
        Color::Rgb(red, green, blue) => (red, green, blue),
        Color::Indexed(index) => of_256(index),
        other => return other,
    };
    let [most, least] = [red.max(green).max(blue), red.min(green).min(blue)];
    let spread = most - least;
    if spread < 40 {
        return match most {
            0..60 => Color::Black,
            60..150 => Color::DarkGray,
            150..225 => Color::Gray,
            225.. => Color::White,
        };
    }
    let (r, g, b, d) = (
        f64::from(red),
        f64::from(green),
        f64::from(blue),
        f64::from(spread),
    );
    let sector = match most {
        _ if most == red => (g - b) / d,
        _ if most == green => 2.0 + (b - r) / d,
        _ => 4.0 + (r - g) / d,
    };
    match sector.rem_euclid(6.0) {
        x if !(0.5..5.5).contains(&x) => Color::Red,
        x if x < 1.5 => Color::Yellow,
        x if x < 2.5 => Color::Green,
        x if x < 3.4 => Color::Cyan,
        x if x < 4.5 => Color::Blue,
        _ => Color::Magenta,
    }
}

/// The RGB value of a palette number; the first 16 are the terminal's own and are treated as greys.
fn of_256(index: u8) -> (u8, u8, u8) {
    let level = |value: u8| if value == 0 { 0 } else { 55 + 40 * value };
    match index {
        0..16 => (128, 128, 128),
        16..232 => (
            level((index - 16) / 36),
            level((index - 16) / 6 % 6),
            level((index - 16) % 6),
        ),
        232.. => [8 + 10 * (index - 232); 3].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_read_by_name_number_and_digits() {
        let check = |text, expected| assert_eq!(parse(text), expected, "{text}");
        check("#61afef", Some(Color::Rgb(0x61, 0xaf, 0xef)));
        check("red", Some(Color::Red));
        check("default", Some(Color::Reset));
        check("208", Some(Color::Indexed(208)));
        for bad in [
            "#61afe", "#61afeg", "#61afeff", "reddish", "256", "", "#", "#äää",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn fewer_colours_are_the_nearest_ones() {
        let check = |colour: &str, of_256: u8, of_16: Color| {
            let style = Style::new().fg(parse(colour).unwrap());
            assert_eq!(
                at_depth(style, ColourDepth::Colours256).fg,
                Some(Color::Indexed(of_256)),
                "{colour}"
            );
            assert_eq!(
                at_depth(style, ColourDepth::Colours16).fg,
                Some(of_16),
                "{colour}"
            );
            assert_eq!(at_depth(style, ColourDepth::None).fg, None);
            assert_eq!(at_depth(style, ColourDepth::TrueColour), style);
        };
        check("#ff0000", 196, Color::Red);
        check("#e66c75", 168, Color::Red);
        check("#7ec878", 114, Color::Green);
        check("#61afef", 75, Color::Blue);
        check("#e5c07b", 180, Color::Yellow);
        check("#56b6c2", 73, Color::Cyan);
        check("#c678dd", 176, Color::Magenta);
        check("#808691", 102, Color::DarkGray);
        check("#000000", 16, Color::Black);
        check("#ffffff", 231, Color::White);
        let background = at_depth(
            Style::new().bg(Color::Rgb(44, 52, 66)),
            ColourDepth::Colours16,
        );
        assert_eq!(background, Style::new().add_modifier(Modifier::REVERSED));
    }
}
