//! The run loop of all ranks: start, steps, evals and checkpoints between them, end. Rank 0 decides
//! what is next and writes the record.

use super::checkpointing::save;
use super::collapse::recover;
use super::early_stop::is_due;
use super::error::TrainError;
use super::evaluation::{RunEval, run_evals, stop_before};
use super::guard::measure_guard;
use super::guide::Guide;
use super::memory_probe::probe_memory;
use super::next_action::NextAction;
use super::recorder::Record;
use super::report::{Report, report};
use super::requests::{eval_answer, next};
use super::run_alerts::task_alert;
use super::step::grpo_steps;
use super::supervised::sft_step;
use super::trainer::Trainer;
use crate::facts::{AlertLevel, SaveReason};
use crate::format::{counted, listed};
use crate::policy::{PolicyVersion, demonstrated_tokens};
use crate::prompts::rows_without_answer;
use crate::run::events::{Alert, Eval};
use crate::run::{Answer, Status};
use crate::task::PromptSet;

/// How a run ended; other ranks than 0 have an empty report.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    Finished(Box<Report>),
    /// Stopped on request after this step; resumable.
    Interrupted {
        step: u64,
    },
    /// Stopped at once, before an eval, or on a full disk; resumable from the last checkpoint.
    CutShort {
        /// Step of that checkpoint; `None` before the first.
        resumes_from: Option<u64>,
        cause: String,
    },
}

/// Trains to the end. `resumed_from`: step of a checkpoint.
pub(super) fn run_loop(
    trainer: &mut Trainer,
    record: &mut Record<'_>,
    resumed_from: Option<u64>,
) -> Result<Ended, TrainError> {
    begin(trainer, record)?;
    if resumed_from.is_none() {
        measure_base(trainer, record)?;
    }
    let cause = loop {
        let decided = record.on_rank_0(|recorder| next(trainer, recorder))?;
        let answer = match trainer.ranks.broadcast(decided)? {
            NextAction::Steps => {
                take_steps(trainer, record)?;
                None
            }
            NextAction::Set(changes) => {
                trainer.set(&changes);
                Some(Answer::done(
                    format!("set from step {} on", trainer.state.step + 1),
                    serde_json::json!(changes),
                ))
            }
            NextAction::Eval => eval_answer(&trained_evals(trainer, record)?),
            NextAction::Checkpoint => {
                save(trainer, record, SaveReason::Asked)?;
                let step = trainer.state.step;
                Some(Answer::done(
                    format!("checkpoint of step {step} saved"),
                    serde_json::json!({"step": step}),
                ))
            }
            NextAction::Recover(collapse) => {
                recover(trainer, record, &collapse)?;
                None
            }
            NextAction::Stop => {
                save(trainer, record, SaveReason::Interrupted)?;
                return Ok(Ended::Interrupted {
                    step: trainer.state.step,
                });
            }
            NextAction::Finish { cause } => break cause,
        };
        record.on_rank_0(|recorder| {
            recorder.requests.answer(answer);
            Ok(())
        })?;
    };
    trained_evals(trainer, record)?;
    measure_guard(trainer, record)?;
    save(trainer, record, SaveReason::End)?;
    record.on_rank_0(|recorder| recorder.finish_rollouts())?;
    Ok(Ended::Finished(Box::new(Report {
        cause,
        ..report(trainer, record)?
    })))
}

/// Prepares the record and tries the longest gradient.
fn begin(trainer: &Trainer, record: &mut Record<'_>) -> Result<(), TrainError> {
    let step = trainer.state.step;
    record.on_rank_0(|recorder| {
        recorder.saver.prepare(trainer);
        // Once the checkpoint is known to be intact.
        recorder.rewind(step, trainer.config.keep_rollouts)?;
        recorder.status(Status::Running, step, None)
    })?;
    if !trainer.policy.engine.device.is_cpu() {
        record.alerts(probe_memory(trainer)?)?;
    }
    record.on_rank_0(|recorder| {
        recorder.events(unguided(trainer)?)?;
        recorder.events(untaught(trainer))
    })
}

/// Evals of the base, and the initial checkpoint.
fn measure_base(trainer: &Trainer, record: &mut Record<'_>) -> Result<(), TrainError> {
    run_evals(trainer, record, RunEval::base(PromptSet::Test))?;
    if !trainer.prompts.test.is_empty() && !trainer.prompts.eval.is_empty() {
        stop_before(trainer, record, RunEval::base(PromptSet::Eval))?;
    }
    run_evals(trainer, record, RunEval::base(PromptSet::Eval))?;
    measure_guard(trainer, record)?;
    save(trainer, record, SaveReason::Start)
}

/// Takes the next steps, sampled with the same weights, then due evals and checkpoints, except
/// those of the last step.
fn take_steps(trainer: &mut Trainer, record: &mut Record<'_>) -> Result<(), TrainError> {
    let steps = trainer.next_steps();
    match trainer.is_supervised() {
        false => grpo_steps(trainer, record)?,
        true => (0..steps).try_for_each(|_| sft_step(trainer, record))?,
    }
    let (step, config) = (trainer.state.step, &trainer.config);
    record.on_rank_0(|recorder| {
        recorder.requests.last_step = step;
        Ok(())
    })?;
    if step >= trainer.total_steps {
        return Ok(());
    }
    let eval_due = is_due(config.eval_every, step, steps);
    // Every eval saves a checkpoint, so that the best weights are kept.
    let save_due = eval_due || is_due(config.checkpoint_every, step, steps);
    if eval_due {
        trained_evals(trainer, record)?;
        measure_guard(trainer, record)?;
    }
    let is_evaluated = eval_due && !trainer.prompts.eval.is_empty();
    let reason = if is_evaluated {
        SaveReason::Eval
    } else {
        SaveReason::Interval
    };
    if save_due {
        save(trainer, record, reason)
    } else {
        Ok(())
    }
}

/// Evaluates the current weights on the eval sets.
fn trained_evals(trainer: &Trainer, record: &mut Record<'_>) -> Result<Vec<Eval>, TrainError> {
    let which = RunEval {
        set: PromptSet::Eval,
        version: PolicyVersion::Trained,
        step: trainer.state.step,
    };
    run_evals(trainer, record, which)
}

/// An alert per task whose groups without full reward cannot be guided, with cause and remedy.
fn unguided(trainer: &Trainer) -> Result<Vec<Alert>, TrainError> {
    let mut alerts = Vec::new();
    for (index, (guide, task)) in trainer.guides.iter().zip(&trainer.tasks).enumerate() {
        if task.task().has_partner() {
            alerts.extend(undemonstrated(trainer, index, guide)?);
            continue;
        }
        let Some(cause) = guide.refusal() else {
            continue;
        };
        let rows = trainer
            .prompts
            .set(PromptSet::Train, index)
            .iter()
            .map(|prompt| &prompt.row);
        let rows = rows_without_answer(task.task(), &task.scorer, rows)?;
        let is_unwritten = rows.iter().any(|row| row.expected.is_some());
        let (what, remedy) = match is_unwritten {
            // A function or program may read anything from it.
            true => (
                "whose `expected` is no answer to imitate",
                "Add `completion`, the text of a right answer, to rows: it is trained on where no answer of a group earns the full reward. Without it, \
                 a group whose answers all earn the same teaches nothing.",
            ),
            false => ("without an expected answer", guide.remedy()),
        };
        let count = counted(rows.len(), "row");
        let sentence = format!("Groups of {count} {what} are not guided: {cause}.");
        let step = trainer.state.step;
        let alert = Alert::new("unguided", AlertLevel::Info, step, sentence, remedy);
        alerts.extend((!rows.is_empty()).then(|| task_alert(&task.part.name, alert)));
    }
    Ok(alerts)
}

/// An alert that some rows of a task with tools have no demonstration that fits, unless groups are
/// guided by sampled calls.
fn undemonstrated(
    trainer: &Trainer,
    index: usize,
    guide: &Guide,
) -> Result<Option<Alert>, TrainError> {
    let task = &trainer.tasks[index];
    let most = trainer.tasks[index].part.max_completion_tokens;
    let Some(cause) = guide.refusal().filter(|_| task.task().toolset().is_some()) else {
        return Ok(None);
    };
    let (mut without, mut longer) = (0, Vec::new());
    let is_searched = task.task().has_state();
    for prompt in trainer.prompts.set(PromptSet::Train, index) {
        let lengths = demonstrated_tokens(task.task(), &trainer.policy.tokenizer, &prompt.row)?;
        match lengths.iter().position(|tokens| *tokens > most) {
            Some(turn) => longer.push((&prompt.row.id, turn + 1, lengths[turn])),
            None => without += usize::from(lengths.is_empty() && !is_searched),
        }
    }
    let mut why = Vec::new();
    if without > 0 {
        let rows = counted(without, "row");
        why.push(format!("{rows} without a demonstration ({cause})"));
    }
    if let Some((id, turn, tokens)) = longer.first() {
        let rows = counted(longer.len(), "row");
        why.push(format!(
            "{rows} whose demonstration is longer than max_completion_tokens = {most} (the first, {id}: turn {turn} has {tokens})"
        ));
    }
    let sentence = format!("Groups of {} are not guided.", why.join(", and of "));
    let advice = "Add `demonstration` to rows: it is trained on where no conversation of a group earns the full reward. Without it, \
                  a group whose conversations all earn the same teaches nothing.";
    let alert = Alert::new(
        "unguided",
        AlertLevel::Info,
        trainer.state.step,
        sentence,
        advice,
    );
    Ok((!why.is_empty()).then(|| task_alert(&task.part.name, alert)))
}

/// Named in an alert.
const NAMED_ROWS: usize = 5;

/// Alert naming training rows without a teacher.
fn untaught(trainer: &Trainer) -> Option<Alert> {
    let rows = trainer
        .prompts
        .train
        .iter()
        .zip(&trainer.prompts.demonstrated);
    let rows: Vec<String> = rows
        .filter(|(_, shown)| shown.is_none())
        .map(|(prompt, _)| format!("`{}`", prompt.row.id))
        .collect();
    let sentence = format!("Rows without distillation: {}.", listed(&rows, NAMED_ROWS));
    let suggestion = "Rows of one turn with an `expected` value whose prompt and answer fit the model are distilled.";
    let step = trainer.state.step;
    (!rows.is_empty()).then(|| Alert::new("untaught", AlertLevel::Info, step, sentence, suggestion))
}
