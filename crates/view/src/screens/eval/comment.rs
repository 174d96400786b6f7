//! Comments on a prompt, kept beside the last eval of the comparison; no worker is needed.

use super::{Eval, read};
use crate::command_log::CommandLine;
use crate::message::{Command, Work};
use crate::popup::{Ask, Popup};
use crate::run::{Comment, check_comment, write_comment};
use crate::shared::Shared;

pub(super) fn ask(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let Some(versus) = eval.versus() else {
        return Vec::new();
    };
    let Some(prompt) = eval.prompt(versus) else {
        return Vec::new();
    };
    let (folder, set) = (
        versus.comments_folder().to_owned(),
        versus.evals[0].id.set.clone(),
    );
    let prompt_id = prompt.prompt_id.clone();
    let label = format!("Comment on {prompt_id} (empty: remove):");
    let before = versus.own_comment(&prompt_id).to_owned();
    let question = Ask::new(
        "Comment",
        label,
        &before,
        move |_: &mut Eval, shared, text| {
            let comment = Comment {
                set,
                prompt_id,
                text,
                time_ms: shared.now_ms,
            };
            let words = [
                "--on",
                &comment.set.to_string(),
                "--",
                &comment.prompt_id,
                &comment.text,
            ];
            let line = CommandLine::for_runs("comment", std::slice::from_ref(&folder), &words);
            let write = Work::once(
                "eval.comment",
                move || write_comment(&folder, comment).map_err(|error| error.to_string()),
                |eval: &mut Eval, shared, outcome| match outcome {
                    Ok(()) => read(eval, shared),
                    Err(error) => shared.complain(error),
                },
            );
            vec![write.like(line)]
        },
    );
    shared.open_popup(Popup::Ask(question.checked(check_comment)))
}
