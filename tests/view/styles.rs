//! Every screen at two sizes: its text, and that colours come from roles, never carry the meaning alone, and change no
//! text.

use std::collections::HashSet;

use grpo_tui::view::Message;
use grpo_tui::view::style_role::Role;
use grpo_tui::view::theme::Theme;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

use super::harness::Stage;
use super::launch::forecasting;
use super::live::stable;
use super::live_run::LiveRun;
use super::runs::link_run;

const SIZES: [(u16, u16); 2] = [(120, 36), (80, 24)];
const RUN: &str = "20261120-143041-invoice-6sx3dn";

/// The text of the screen, the same under each theme. Every colour is one of the theme's roles, and without colour the
/// cursor is still seen. `open`: the keys that open the popup in front, whose lines are made once; pressed again under
/// each theme.
fn text(stage: &mut Stage, open: &str) -> String {
    let themes = [
        Theme::monochrome(),
        Theme::embedded("light"),
        Theme::embedded("dark"),
    ];
    let [(plain, without_colour), (light, on_light), (dark, text)] = themes.map(|theme| {
        stage.model.shared.theme = theme;
        stage.model.shared.popup = None;
        stage.keys(open);
        (stage.buffer(), stable(stage))
    });
    assert!(
        text == on_light,
        "the text depends on the background:\n{text}\n{on_light}"
    );
    assert!(
        text == without_colour,
        "the text depends on the colours:\n{text}\n{without_colour}"
    );
    colours_are_roles(&dark, &Theme::embedded("dark"));
    colours_are_roles(&light, &Theme::embedded("light"));
    let marks = Modifier::BOLD | Modifier::REVERSED | Modifier::UNDERLINED;
    for cell in &plain.content {
        assert!(
            (cell.fg, cell.bg) == (Color::Reset, Color::Reset),
            "a colour where there is none: {cell:?}"
        );
    }
    assert!(
        plain
            .content
            .iter()
            .any(|cell| cell.modifier.intersects(marks)),
        "nothing stands out without colour:\n{text}"
    );
    text
}

fn colours_are_roles(buffer: &Buffer, theme: &Theme) {
    let styles = || Role::ALL.iter().map(|role| theme.style(*role));
    let known: HashSet<Color> = styles()
        .flat_map(|style| [style.fg, style.bg])
        .flatten()
        .chain([Color::Reset])
        .collect();
    for cell in &buffer.content {
        assert!(
            known.contains(&cell.fg) && known.contains(&cell.bg),
            "a colour of no role: {cell:?}"
        );
    }
}

/// The roles of what a screen says: the first cell of the text has the role's colour.
pub(super) fn check_roles(stage: &Stage, expected: &[(&str, Role)]) {
    let (buffer, theme) = (stage.buffer(), &stage.model.shared.theme);
    for (words, role) in expected {
        let symbols: Vec<&str> = words
            .split("")
            .filter(|symbol| !symbol.is_empty())
            .collect();
        let at = (0..buffer.content.len()).find(|&at| {
            (0..symbols.len()).all(|next| {
                buffer
                    .content
                    .get(at + next)
                    .is_some_and(|cell| cell.symbol() == symbols[next])
            })
        });
        let cell = &buffer.content
            [at.unwrap_or_else(|| panic!("{words:?} is not shown:\n{}", stage.screen()))];
        let style = theme.style(*role);
        assert!(
            style.fg.is_none_or(|colour| colour == cell.fg),
            "{words:?} is not {}: {cell:?}",
            role.name()
        );
    }
}

fn stage(columns: u16, rows: u16) -> Stage {
    Stage::with(columns, rows, |options| {
        forecasting(options);
        link_run(
            &options.here.join("runs"),
            RUN,
            "small adapters",
            "finished",
        );
    })
}

/// A screen at both sizes, after some keys; one file a size. `open`: the keys that then open a popup.
fn snapshots(screen: &str, keys: &str, open: &str, roles: &[(&str, Role)]) {
    for (columns, rows) in SIZES {
        let mut stage = stage(columns, rows);
        let run = stage.folder.path().join("runs").join(RUN);
        stage.act(|_| vec![grpo_tui::view::Command::ShowRun(run)]);
        stage.keys(keys);
        insta::assert_snapshot!(format!("{screen}_{columns}x{rows}"), text(&mut stage, open));
        // The last theme is the dark one.
        check_roles(&stage, roles);
    }
}

#[test]
fn runs() {
    snapshots(
        "runs",
        "f1 space",
        "",
        &[
            ("✓ finished", Role::Good),
            ("6sx3dn small", Role::Accent),
            ("state  ", Role::Faint),
            ("99.0% [94.6", Role::Trained),
        ],
    );
}

#[test]
fn schema() {
    snapshots(
        "schema",
        "f2",
        "",
        &[
            ("\"type\"", Role::JsonKey),
            ("\"object\"", Role::JsonString),
        ],
    );
}

#[test]
fn prompts() {
    snapshots(
        "prompts",
        "f3 j",
        "",
        &[
            ("98 ✓", Role::JsonNumber),
            ("✓   Turn", Role::Good),
            ("<|im_start|>", Role::Special),
        ],
    );
}

#[test]
fn scores() {
    snapshots("scores", "f4 j", "", &[("valid", Role::Valid)]);
}

#[test]
fn launch() {
    snapshots(
        "launch",
        "f5 j f",
        "",
        &[("model and length", Role::Title), ("┃", Role::Border)],
    );
}

#[test]
fn live() {
    snapshots(
        "live",
        "f6 home c",
        "",
        &[
            ("✓ finished", Role::Good),
            ("█ valid  ▄", Role::Valid),
            ("▄ invalid  ·", Role::Invalid),
            ("· unparsable", Role::Unparsable),
            ("✗ line 1", Role::Bad),
        ],
    );
}

#[test]
fn eval() {
    snapshots(
        "eval",
        "f7 j",
        "",
        &[
            ("60.0%", Role::Base),
            ("99.0%", Role::Trained),
            ("improvements 40", Role::Good),
            ("regressions 1", Role::Bad),
            ("- test-045", Role::Bad),
            ("= test-001", Role::Faint),
        ],
    );
}

#[test]
fn the_help_and_the_palette() {
    snapshots("help", "f6", "?", &[("Previous step", Role::Text)]);
    snapshots(
        "palette",
        "f6",
        "ctrl-p s",
        &[
            ("▸ Live: Show completion", Role::Accent),
            (" (unavailable)", Role::Faint),
        ],
    );
}

#[test]
fn a_run_that_goes_on() {
    for (columns, rows) in SIZES {
        let mut stage = stage(columns, rows);
        let run = LiveRun::begin(&stage.folder.path().join("runs"), 20);
        stage.act(|_| vec![grpo_tui::view::Command::ShowRun(run.path.clone())]);
        stage.now_ms = 1_795_185_060_000;
        stage.keys("f6");
        stage.send(Message::Tick);
        let screen = text(&mut stage, "");
        insta::assert_snapshot!(format!("live_going_{columns}x{rows}"), screen);
    }
}
