//! Terminal capabilities from the environment: colours, Unicode, multiplexers.

use crate::config::choices;

choices! {
    /// The colour depth, the richest first.
    ColourDepth {
        /// 24 bits.
        TrueColour = "truecolor",
        /// The palette of 256.
        Colours256 = "256",
        /// The terminal's own 16.
        Colours16 = "16",
        /// None: bold, faint, underlined and reversed only.
        None = "none",
    }
}

/// Whether the terminal's background is dark or light.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    Dark,
    Light,
}

choices! {
    /// A program between the terminal and this one.
    Multiplexer {
        Tmux = "tmux",
        /// GNU screen.
        Screen = "screen",
        Zellij = "zellij",
    }
}

/// The capabilities known without querying the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    pub depth: ColourDepth,
    /// Whether non-ASCII characters can be drawn.
    pub unicode: bool,
    pub multiplexer: Option<Multiplexer>,
    pub remote: bool,
    /// `TERM_PROGRAM` in lower case; empty if not set.
    pub program: String,
    pub background: Option<Background>,
    pub answers: bool,
    /// Whether the terminal can only print lines: `TERM=dumb`.
    pub is_dumb: bool,
}

impl Capability {
    pub fn detect() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name: &str| variable(name).unwrap_or_default().to_lowercase();
        let is_set = |name: &str| !read(name).is_empty();
        let term = read("TERM");
        let multiplexer = match () {
            () if is_set("TMUX") => Some(Multiplexer::Tmux),
            () if is_set("ZELLIJ") => Some(Multiplexer::Zellij),
            () if is_set("STY") => Some(Multiplexer::Screen),
            () => None,
        };
        let plain = matches!(term.as_str(), "" | "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .map(read)
            .into_iter()
            .find(|value| !value.is_empty())
            .unwrap_or_default();
        // A missing locale says nothing: containers rarely set one, and their terminals nearly always read UTF-8.
        let utf8 = locale.is_empty() || locale.contains("utf-8") || locale.contains("utf8");
        Self {
            depth: if is_set("NO_COLOR") || plain {
                ColourDepth::None
            } else {
                depth(&term, &read, multiplexer)
            },
            unicode: utf8 && !plain && term != "linux",
            multiplexer,
            remote: is_set("SSH_CONNECTION") || is_set("SSH_TTY"),
            program: read("TERM_PROGRAM"),
            background: read("COLORFGBG")
                .rsplit(';')
                .next()
                .and_then(|background| background.parse().ok())
                .map(background),
            is_dumb: term == "dumb",
            answers: !plain && term != "linux" && multiplexer != Some(Multiplexer::Screen),
        }
    }
}

fn depth(
    term: &str,
    read: &dyn Fn(&str) -> String,
    multiplexer: Option<Multiplexer>,
) -> ColourDepth {
    const RICH: [&str; 6] = [
        "xterm-kitty",
        "alacritty",
        "foot",
        "wezterm",
        "xterm-ghostty",
        "contour",
    ];
    let colorterm = read("COLORTERM");
    let many = term.contains("256color");
    // screen passes COLORTERM on, but not the colours.
    let rich = (colorterm.contains("truecolor")
        || colorterm.contains("24bit")
        || term.ends_with("-direct")
        || RICH.contains(&term))
        && multiplexer != Some(Multiplexer::Screen)
        && read("TERM_PROGRAM") != "apple_terminal";
    match () {
        () if rich => ColourDepth::TrueColour,
        () if many || multiplexer == Some(Multiplexer::Screen) => ColourDepth::Colours256,
        () => ColourDepth::Colours16,
    }
}

/// The brightness of an ANSI colour, as `COLORFGBG` numbers it.
fn background(colour: u8) -> Background {
    if matches!(colour, 7 | 9..=15) {
        Background::Light
    } else {
        Background::Dark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_tells_what_the_terminal_can_do() {
        let check = |environment: &str, depth, unicode, multiplexer| {
            let variable = |name: &str| {
                environment
                    .split(' ')
                    .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            };
            let found = Capability::from_variables(|name| {
                variable(name).map(|(_, value)| value.to_owned())
            });
            assert_eq!(
                (found.depth, found.unicode, found.multiplexer),
                (depth, unicode, multiplexer),
                "{environment}"
            );
        };
        check(
            "TERM=xterm-256color COLORTERM=truecolor LANG=en_US.UTF-8",
            ColourDepth::TrueColour,
            true,
            None,
        );
        check(
            "TERM=xterm-256color LANG=C.utf8",
            ColourDepth::Colours256,
            true,
            None,
        );
        check(
            "TERM=xterm-256color LANG=C",
            ColourDepth::Colours256,
            false,
            None,
        );
        check("TERM=xterm", ColourDepth::Colours16, true, None);
        check(
            "TERM=linux LANG=en_US.UTF-8",
            ColourDepth::Colours16,
            false,
            None,
        );
        check("TERM=dumb LANG=en_US.UTF-8", ColourDepth::None, false, None);
        check("", ColourDepth::None, false, None);
        check("TERM=xterm-kitty NO_COLOR=1", ColourDepth::None, true, None);
        check("TERM=xterm-kitty", ColourDepth::TrueColour, true, None);
        check(
            "TERM=tmux-256color TMUX=/tmp/x COLORTERM=truecolor",
            ColourDepth::TrueColour,
            true,
            Some(Multiplexer::Tmux),
        );
        check(
            "TERM=screen STY=1.x COLORTERM=truecolor",
            ColourDepth::Colours256,
            true,
            Some(Multiplexer::Screen),
        );
        check(
            "TERM=xterm-256color COLORTERM=truecolor TERM_PROGRAM=Apple_Terminal",
            ColourDepth::Colours256,
            true,
            None,
        );
    }

    #[test]
    fn the_background_is_the_last_number() {
        let check = |text: &str, expected| {
            assert_eq!(
                Capability::from_variables(|name| (name == "COLORFGBG").then(|| text.to_owned()))
                    .background,
                expected,
                "{text}"
            );
        };
        check("15;0", Some(Background::Dark));
        check("0;15", Some(Background::Light));
        check("0;default;15", Some(Background::Light));
        check("12;8", Some(Background::Dark));
        check("", None);
        check("x", None);
    }
}
