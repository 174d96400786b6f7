//! What every screen looks like on dark and light grounds and without colour, at four sizes: the text once, then the style of every cell.

use std::fmt::Write;

use grpo_tui::view::Message;
use grpo_tui::view::shared;
use grpo_tui::view::theme::Theme;
use ratatui::buffer::Cell;
use ratatui::style::{Color, Modifier};

use super::harness::Stage;
use super::launch::forecasting;
use super::live::stable;
use super::live_run::LiveRun;
use super::runs::copy_run;

const SIZES: [(u16, u16); 4] = [(160, 48), (120, 36), (80, 24), (60, 20)];
const RUN: &str = "20261120-143041-invoice-6sx3dn";

/// The picture under each theme, told as one: the text, a letter for every way a cell is styled, and what the letters stand for.
fn look(stage: impl Fn(Theme) -> Stage) -> String {
    let stages = [Theme::embedded("dark"), Theme::embedded("light"), Theme::monochrome()].map(stage);
    let [dark, light, plain] = stages.each_ref().map(Stage::buffer);
    let [text, on_light, without_colour] = stages.each_ref().map(stable);
    assert!(text == on_light, "the text depends on the ground:\n{text}\n{on_light}");
    assert!(text == without_colour, "the text depends on the colours:\n{text}\n{without_colour}");
    for cell in &plain.content {
        assert!((cell.fg, cell.bg) == (Color::Reset, Color::Reset), "a colour where there is none: {cell:?}");
    }
    let mut legend: Vec<[String; 3]> = Vec::new();
    let mut rows = String::new();
    for row in 0..dark.area.height {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for column in 0..dark.area.width {
            let styles = [&dark, &light, &plain].map(|buffer| style(&buffer[(column, row)]));
            let letter = legend.iter().position(|known| *known == styles).unwrap_or_else(|| {
                legend.push(styles);
                legend.len() - 1
            });
            match runs.last_mut() {
                Some((last, count)) if *last == letter => *count += 1,
                _ => runs.push((letter, 1)),
            }
        }
        let runs: Vec<String> = runs.into_iter().map(|(letter, count)| format!("{}{count}", name(letter))).collect();
        writeln!(rows, "{}", runs.join(" ")).unwrap();
    }
    let mut out = format!("{text}\n----- styles: a letter and its cells\n{rows}----- letters: dark | light | without colour\n");
    for (letter, [dark, light, plain]) in legend.iter().enumerate() {
        writeln!(out, "{}: {dark} | {light} | {plain}", name(letter)).unwrap();
    }
    out
}

fn name(letter: usize) -> String {
    let last = char::from(b'a' + u8::try_from(letter % 26).unwrap());
    if letter < 26 { last.to_string() } else { format!("{}{last}", name(letter / 26 - 1)) }
}

fn style(cell: &Cell) -> String {
    let colour = |colour: Color| if colour == Color::Reset { "-".to_owned() } else { colour.to_string() };
    let mut text = format!("{} on {}", colour(cell.fg), colour(cell.bg));
    for (modifier, word) in [
        (Modifier::BOLD, "bold"),
        (Modifier::DIM, "faint"),
        (Modifier::ITALIC, "italic"),
        (Modifier::UNDERLINED, "underlined"),
        (Modifier::REVERSED, "reversed"),
        (Modifier::CROSSED_OUT, "crossed out"),
    ] {
        if cell.modifier.contains(modifier) {
            write!(text, " {word}").unwrap();
        }
    }
    text
}

fn stage(columns: u16, rows: u16, theme: Theme) -> Stage {
    Stage::with(columns, rows, |options| {
        forecasting(options);
        copy_run(&options.here.join("runs"), RUN, "small adapters", "finished");
        options.theme = theme;
    })
}

/// A screen at every size, after some keys; one file a size.
fn snapshots(screen: &str, keys: &str) {
    for (columns, rows) in SIZES {
        let picture = look(|theme| {
            let mut stage = stage(columns, rows, theme);
            let run = stage.folder.path().join("runs").join(RUN);
            stage.act(|model| shared::show_run(model, run));
            stage.keys(keys);
            stage
        });
        insta::assert_snapshot!(format!("{screen}_{columns}x{rows}"), picture);
    }
}

#[test]
fn runs() {
    snapshots("runs", "f1 space");
}

#[test]
fn schema() {
    snapshots("schema", "f2");
}

#[test]
fn prompts() {
    snapshots("prompts", "f3 j");
}

#[test]
fn scores() {
    snapshots("scores", "f4 ] j");
}

#[test]
fn launch() {
    snapshots("launch", "f5 j f");
}

#[test]
fn live() {
    snapshots("live", "f6 home c");
}

#[test]
fn eval() {
    snapshots("eval", "f7 j");
}

#[test]
fn the_help_and_the_palette() {
    snapshots("help", "f6 ?");
    snapshots("palette", "f6 ctrl-p s");
}

#[test]
fn a_run_that_goes_on() {
    for (columns, rows) in SIZES {
        let picture = look(|theme| {
            let mut stage = stage(columns, rows, theme);
            let run = LiveRun::begin(&stage.folder.path().join("runs"), 20);
            stage.act(|model| shared::show_run(model, run.path.clone()));
            stage.now_ms = 1_795_185_060_000;
            stage.keys("f6");
            stage.send(Message::Tick);
            stage
        });
        insta::assert_snapshot!(format!("live_going_{columns}x{rows}"), picture);
    }
}
