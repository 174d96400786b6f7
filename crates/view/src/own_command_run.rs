//! Runs own commands: in the terminal, or in the background with the output shown.

use std::path::PathBuf;

use ratatui::text::Line;

use super::action::ActionInfo;
use super::app::Model;
use super::message::{Command, Work};
use super::messages::Level;
use super::own_commands::{self, OwnCommand, Selected};
use super::popup::{Page, Popup};
use super::screens::Screen;
use super::shared::Shared;
use super::subprocess::{Call, task_argument};
use super::widgets::text_width::one_line;
use crate::run::checkpoint_path;

impl Model {
    pub(super) fn own_command(&self, action: &ActionInfo) -> Option<&OwnCommand> {
        let mut own = self.shared.options.own_commands.iter();
        own.find(|command| std::ptr::eq(command.info, action))
    }

    /// What placeholders of own commands mean now.
    pub(super) fn selected(&self) -> Selected {
        let on_runs =
            (self.shared.screen == Screen::Runs).then(|| self.runs.selected(&self.shared));
        let open = || {
            let run = self.shared.current_run()?;
            let steps: Vec<u64> = run.history.checkpoints.keys().copied().collect();
            Some((run.path().to_owned(), newest(run.best, &steps)))
        };
        let run = on_runs.flatten().or_else(open);
        let checkpoint =
            |(run, step): &(PathBuf, Option<u64>)| Some(checkpoint_path(run, (*step)?));
        Selected {
            checkpoint: run.as_ref().and_then(checkpoint),
            run: run.map(|(run, _)| run),
            task: task_argument(&self.shared).map(PathBuf::from),
        }
    }

    pub(super) fn run_own(&mut self, command: &OwnCommand) -> Vec<Command> {
        let words = match command.arguments(&self.selected()) {
            Ok(words) => words,
            Err(why) => return self.shared.complain(why),
        };
        let line = own_commands::line(&words);
        let shared = &mut self.shared;
        shared
            .commands
            .add(shared.now_ms, Level::Done, line.clone());
        if !command.shows_output {
            return vec![Command::Foreground(words)];
        }
        let call = Call {
            program: words[0].clone().into(),
            here: shared.options.here.clone(),
            arguments: words[1..].to_vec(),
        };
        shared.say(format!("running: {line}"));
        vec![Work::once(
            command.info.id,
            move || call.output(),
            move |_: &mut (), shared: &mut Shared, output| show_output(shared, &line, output),
        )]
    }
}

/// The best checkpoint if there is one, else the last.
fn newest(best: Option<u64>, steps: &[u64]) -> Option<u64> {
    best.filter(|best| steps.contains(best))
        .or_else(|| steps.last().copied())
}

/// The output of an own command, unless the user is typing: then a notice.
fn show_output(
    shared: &mut Shared,
    line: &str,
    output: Result<(bool, Vec<String>), String>,
) -> Vec<Command> {
    match output {
        Err(why) => shared.complain(why),
        Ok((success, lines)) if shared.takes_text() => {
            let last = lines.last().map_or("no output", String::as_str);
            match success {
                true => shared.say(format!("{line}: {last}")),
                false => shared.complain(format!("{line} failed: {last}")),
            }
        }
        Ok((success, mut lines)) => {
            if lines.is_empty() {
                lines.push("no output".to_owned());
            }
            let failed = if success { "" } else { "failed: " };
            let lines = lines
                .iter()
                .map(|line| Line::from(one_line(line)))
                .collect();
            shared.open_popup(Popup::Page(Page::new(format!("{failed}{line}"), lines)))
        }
    }
}
