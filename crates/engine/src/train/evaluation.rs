//! Evals of a run: base and trained model on the same held-out prompts, by task, shared among
//! ranks.

use std::path::Path;
use std::time::Instant;

use super::error::TrainError;
use super::recorder::{Record, Recorder};
use super::trainer::Trainer;
use crate::eval::{greedy_questions, record as eval_record, records};
use crate::facts::{PhaseKind, Target};
use crate::policy::{
    ConverseSettings, Conversed, EvalWatch, PolicyVersion, Prompt, Question, Watcher,
};
use crate::run::events::{Eval, EvalKey, Note};
use crate::run::{
    AgainstBase, Comparison, EvalProgress, EvalRecord, EvalSummary, TestLook, eval_file, eval_path,
    read_evals, write_evals,
};
use crate::task::{PromptSet, SetName};

/// An eval of a run on each task's set.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunEval {
    pub(super) set: PromptSet,
    pub(super) version: PolicyVersion,
    pub(super) step: u64,
}

impl RunEval {
    pub(super) fn base(set: PromptSet) -> Self {
        Self {
            set,
            version: PolicyVersion::Base,
            step: 0,
        }
    }

    /// Target in the log.
    fn target(self) -> Target {
        match self.version {
            PolicyVersion::Base => Target::Base,
            PolicyVersion::Trained => Target::Trained,
        }
    }

    fn of_task(self, trainer: &Trainer, task: usize) -> TaskEval {
        TaskEval {
            eval: self,
            task,
            set_name: trainer.tasks[task].set_name(self.set),
        }
    }
}

/// An eval on one task's set.
struct TaskEval {
    eval: RunEval,
    task: usize,
    /// Name in the log.
    set_name: SetName,
}

impl TaskEval {
    /// Key in the log.
    fn key(&self) -> EvalKey {
        EvalKey {
            step: self.eval.step,
            set: self.set_name.clone(),
            target: self.eval.target(),
        }
    }

    fn prompts<'t>(&self, trainer: &'t Trainer) -> &'t [Prompt] {
        trainer.prompts.set(self.eval.set, self.task)
    }
}

/// Runs and records a greedy eval of each task with such a set, unless already recorded, and its
/// alerts. Returns them on rank 0.
pub(super) fn run_evals(
    trainer: &Trainer,
    record: &mut Record<'_>,
    which: RunEval,
) -> Result<Vec<Eval>, TrainError> {
    let mut evals = Vec::with_capacity(trainer.tasks.len());
    for task in 0..trainer.tasks.len() {
        let which = which.of_task(trainer, task);
        if !which.prompts(trainer).is_empty() {
            evals.extend(run_eval(trainer, record, &which)?);
        }
    }
    Ok(evals)
}

fn run_eval(
    trainer: &Trainer,
    record: &mut Record<'_>,
    which: &TaskEval,
) -> Result<Option<Eval>, TrainError> {
    let recorded =
        record.on_rank_0(|recorder| Ok(recorder.history()?.evals.get(&which.key()).cloned()))?;
    let recorded = recorded.filter(|eval| trainer.run.path().join(&eval.file).is_file());
    let is_recorded = trainer.ranks.broadcast(recorded.is_some())?;
    let eval = if is_recorded {
        recorded
    } else {
        sample_and_record(trainer, record, which)?
    };
    if let Some(eval) = &eval {
        record.on_rank_0(|recorder| {
            let alerts = recorder.alerts.observe_eval(eval, &trainer.config);
            recorder.events(alerts)
        })?;
    }
    Ok(eval)
}

fn sample_and_record(
    trainer: &Trainer,
    record: &mut Record<'_>,
    which: &TaskEval,
) -> Result<Option<Eval>, TrainError> {
    record.phase(which.eval.step, PhaseKind::Eval)?;
    let (start, prompts) = (Instant::now(), which.prompts(trainer));
    let task = &trainer.tasks[which.task];
    let limited = |Question { prompt, request }| Question {
        prompt,
        request: task.limited(request, &trainer.config),
    };
    let questions: Vec<Question<'_>> = greedy_questions(prompts).into_iter().map(limited).collect();
    let questions = &questions[trainer.ranks.share(prompts.len())];
    let mut watch =
        record.on_rank_0(|recorder| Ok(Some(watch(trainer, recorder, which, questions)?)))?;
    let sampling = trainer.sampling()?;
    let tasks = trainer.scored_tasks();
    let settings = ConverseSettings::new(&tasks, which.eval.version, &sampling);
    let watcher = watch.as_mut().map(|watch| watch as &mut dyn Watcher);
    let conversed = trainer.policy.converse(questions, &settings, watcher)?;
    // An eval decodes more rows than a step; release its memory for the gradient.
    trainer.policy.engine.trim_memory()?;
    let all: Vec<Conversed> = trainer.ranks.gather(conversed)?;
    record.on_rank_0(|recorder| {
        let eval = record_eval(trainer, recorder, which, all)?;
        let eval = Eval {
            seconds: start.elapsed().as_secs_f64(),
            ..eval
        };
        recorder.event(eval.clone())?;
        // The next write reports it too.
        let _ = recorder.state.eval(None);
        Ok(Some(eval))
    })
}

/// Writes the answers of all ranks.
fn record_eval(
    trainer: &Trainer,
    recorder: &mut Recorder<'_>,
    which: &TaskEval,
    all: Vec<Conversed>,
) -> Result<Eval, TrainError> {
    let TaskEval {
        eval: RunEval { step, version, .. },
        task,
        set_name: set,
    } = which;
    let (step, target) = (*step, which.eval.target());
    let seconds = all
        .iter()
        .map(|rank| rank.rollout_seconds)
        .fold(0.0, f64::max);
    let (mut conversations, mut gpu_fallbacks) = (Vec::new(), Vec::new());
    for rank in all {
        conversations.extend(rank.conversations);
        gpu_fallbacks.extend(rank.gpu_fallbacks);
    }
    recorder.fallbacks(step, gpu_fallbacks)?;
    let records = records(
        which.prompts(trainer),
        conversations,
        &trainer.tasks[*task].scorer,
        seconds,
    )?;
    let file = eval_file(step, set, target.name());
    let path = trainer.run.path().join(&file);
    recorder.write("the eval results", 1 << 20, |_| {
        write_evals(&path, &records)
    })?;
    let against_base = match version {
        PolicyVersion::Base => None,
        PolicyVersion::Trained => {
            let base = eval_path(trainer.run.path(), 0, set, Target::Base.name());
            // A missing base eval leaves nothing to compare with; an unreadable one is an error.
            let base = if base.exists() {
                Some(read_evals(&base)?)
            } else {
                None
            };
            base.and_then(|base| AgainstBase::between(&base, &records))
                .map(Box::new)
        }
    };
    let exact_against_best = match which.eval.set {
        PromptSet::Eval if step > 0 => against_best(trainer, recorder, set, &records)?,
        _ => None,
    };
    // The eval goes on uncounted where the ledger cannot be used.
    let look = match (&against_base, which.eval.set) {
        (Some(_), PromptSet::Test) => {
            let what = format!("run {}, {set} set, step {step}", trainer.run.id());
            let runs = trainer.run.path().parent().unwrap_or(Path::new("."));
            let look = TestLook::count(runs, trainer.tasks[*task].task(), &what);
            if let Err(error) = &look {
                let text = format!("this look at the test set is not counted: {error}");
                recorder.event(Note { text })?;
            }
            look.ok().map(Box::new)
        }
        _ => None,
    };
    let set = set.clone();
    let summary = EvalSummary {
        has_calls: trainer.tasks[*task].task().has_calls(),
        ..EvalSummary::from_records(&records)
    };
    Ok(Eval {
        step,
        set,
        target,
        summary,
        file,
        seconds: 0.0,
        against_base,
        exact_against_best,
        look,
    })
}

/// Compares exact match with the set's best earlier eval (first of equals).
fn against_best(
    trainer: &Trainer,
    recorder: &mut Recorder<'_>,
    set: &SetName,
    records: &[EvalRecord],
) -> Result<Option<Box<Comparison>>, TrainError> {
    let earlier = recorder.history()?.evals.values();
    let of_set = earlier.filter(|eval| eval.set == *set);
    let best = of_set.fold(None, |best: Option<&Eval>, eval| {
        let is_better = best.is_none_or(|best| eval.summary.exact > best.summary.exact);
        if is_better { Some(eval) } else { best }
    });
    let path = best.map(|best| trainer.run.path().join(&best.file));
    let Some(path) = path.filter(|path| path.exists()) else {
        return Ok(None);
    };
    Ok(Comparison::between_exact(&read_evals(&path)?, records).map(Box::new))
}

/// Shows an eval's progress in `state.json`.
fn watch<'t>(
    trainer: &Trainer,
    recorder: &Recorder<'_>,
    which: &TaskEval,
    questions: &'t [Question<'_>],
) -> Result<EvalWatch<'t>, TrainError> {
    let RunEval { version, step, .. } = which.eval;
    let target = which.eval.target();
    let others = trainer.ranks.size() - 1;
    let (set_name, target) = (which.set_name.clone(), target.to_string());
    let progress = EvalProgress {
        step: Some(step),
        set: set_name,
        target,
        other_ranks: others,
        ..EvalProgress::default()
    };
    let is_scored = which
        .prompts(trainer)
        .iter()
        .all(|prompt| prompt.row.turn_count() == 1);
    let state = recorder.state.clone();
    // A full disk is reported by the worker's next write.
    let watch = EvalWatch::new(progress, is_scored, move |progress| {
        _ = state.eval(Some(progress.clone()))
    });
    // Until step 1 there is nothing else to see.
    Ok(match version {
        PolicyVersion::Base => watch.showing(|question, conversation| {
            let prompt = questions.get(question)?.prompt;
            eval_record(prompt, conversation.clone()).ok()
        }),
        _ => watch,
    })
}

/// Stops on a user's request before a pending eval, which the next worker runs. What Slurm ends
/// continues as long as it can.
///
/// # Errors
/// [`TrainError::StoppedBeforeEval`].
pub(super) fn stop_before(
    trainer: &Trainer,
    record: &mut Record<'_>,
    which: RunEval,
) -> Result<(), TrainError> {
    record.on_rank_0(|recorder| {
        let worker = recorder.requests.worker;
        let (history, sets) = (recorder.history()?, 0..trainer.tasks.len());
        let mut open = sets
            .map(|task| which.of_task(trainer, task))
            .filter(|eval| !eval.prompts(trainer).is_empty());
        let is_recorded = open.all(|eval| history.evals.contains_key(&eval.key()));
        if is_recorded || worker.controls().stop_requested().is_none() || worker.is_ended_by_slurm()
        {
            return Ok(());
        }
        Err(TrainError::StoppedBeforeEval { set: which.set })
    })
}
