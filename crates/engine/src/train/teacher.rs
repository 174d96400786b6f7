//! Teachers of distillation: a separate model, or the base itself, shown the row's expected answer.
//!
//! Self-distillation (arXiv 2601.19897) uses an average of the student's weights over time. Here
//! the teacher has the run's initial weights: they need no memory with adapters, do not drift with
//! the student, and are equal on all ranks and after a resume.

use super::error::TrainError;
use super::run_task::RunTask;
use crate::checkpoint::OpenModel;
use crate::config::TrainConfig;
use crate::policy::{Lengths, Prompt, render};
use crate::prompts::reference_answer;
use crate::run::RunFolders;
use crate::text::Tokenizer;

/// A separate teacher model; `None` without one, and for self-distillation.
///
/// # Errors
/// [`TrainError::OtherVocabulary`]; [`TrainError::Start`] if there is no such model.
pub(super) fn teacher_model(
    config: &TrainConfig,
    student: &Tokenizer,
    run_folders: &RunFolders,
) -> Result<Option<OpenModel>, TrainError> {
    if !config.is_distilled() || config.is_self_distilled() {
        return Ok(None);
    }
    let model = OpenModel::find(&config.teacher, run_folders)?;
    let tokenizer = Tokenizer::load(&model.source)?;
    let ids = 0..student.vocab_size().max(tokenizer.vocab_size()) as u32;
    let tokens = ids.map(|id| (id, student.token(id), tokenizer.token(id)));
    match tokens.into_iter().find(|(_, own, other)| own != other) {
        None => Ok(Some(model)),
        Some((id, own, other)) => {
            let name = |token: Option<String>| {
                token.map_or_else(|| "unused".to_owned(), |token| format!("`{token}`"))
            };
            Err(TrainError::OtherVocabulary {
                teacher: config.teacher.clone(),
                id,
                found: name(other),
                expected: name(own),
            })
        }
    }
}

/// Appended to the row's last message in the prompt of a teacher that is shown the answer.
fn demonstration(answer: &str) -> String {
    format!("\n\nA correct answer to this is:\n\n{answer}\n\nNow answer yourself.")
}

/// Teacher prompts for rows; `None` for multi-turn rows, rows without an expected answer, and
/// prompts too long for the model.
///
/// # Errors
/// [`TrainError::NoDemonstration`] if no row has one.
pub(super) fn demonstrated_prompts(
    run_task: &RunTask,
    tokenizer: &Tokenizer,
    rows: &[Prompt],
) -> Result<Vec<Option<Vec<u32>>>, TrainError> {
    let (task, scorer, lengths) = (run_task.task(), &run_task.scorer, run_task.lengths);
    let limit = Lengths {
        max_seq_len: None,
        ..lengths
    }
    .prompt_limit();
    let mut prompts = Vec::with_capacity(rows.len());
    for Prompt { row, .. } in rows {
        let is_plain = row.turn_count() == 1 && !task.has_partner();
        let answer = if is_plain {
            reference_answer(task, scorer, row)?
        } else {
            None
        };
        let mut row = row.clone();
        let shown = answer
            .zip(row.messages.last_mut())
            .map(|(answer, last)| last.content += &demonstration(&answer));
        let token_ids = shown
            .map(|()| render(task, row, tokenizer))
            .transpose()?
            .map(|prompt| prompt.token_ids);
        prompts.push(token_ids.filter(|token_ids| token_ids.len() <= limit));
    }
    if prompts.iter().all(Option::is_none) {
        return Err(TrainError::NoDemonstration {
            task: task.label("task.toml"),
        });
    }
    Ok(prompts)
}
