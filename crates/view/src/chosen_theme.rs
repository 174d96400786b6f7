//! The theme that command line, settings and terminal choose, in the colours that the terminal has.

use super::options::AppearanceInput;
use super::settings::Settings;
use super::terminal_capability::{Background, ColourDepth};
use super::theme::Theme;
use super::theme_file::{self, ThemeRead};

/// The theme that follows the terminal's background.
pub(super) const AUTO: &str = "auto";

pub(super) fn chosen_theme(
    input: &AppearanceInput,
    settings: &Settings,
) -> (ThemeRead, ColourDepth) {
    let depth = depth(input, settings);
    let mut read = theme_file::read(
        &theme_name(input, settings, depth),
        input.themes_folder().as_deref(),
    );
    if input.linear {
        read.theme = Theme::linear();
    }
    read.theme.ascii = input.ascii || settings.ascii.unwrap_or(!input.capability.unicode);
    read.theme = read.theme.at_depth(depth);
    (read, depth)
}

/// The configured colour depth, else the environment's; no 24-bit colours over a slow link: up to 19 bytes each.
fn depth(input: &AppearanceInput, settings: &Settings) -> ColourDepth {
    let low_bandwidth = input.low_bandwidth || settings.low_bandwidth;
    match input.colour.or(settings.colour) {
        Some(depth) => depth,
        None if low_bandwidth && input.capability.depth == ColourDepth::TrueColour => {
            ColourDepth::Colours256
        }
        None => input.capability.depth,
    }
}

fn theme_name(input: &AppearanceInput, settings: &Settings, depth: ColourDepth) -> String {
    if depth == ColourDepth::None {
        return "monochrome".to_owned();
    }
    match (
        input.theme.as_ref().unwrap_or(&settings.theme).as_str(),
        input.background.or(input.capability.background),
    ) {
        (AUTO, Some(Background::Light)) => "light".to_owned(),
        (AUTO, _) => "dark".to_owned(),
        (name, _) => name.to_owned(),
    }
}
