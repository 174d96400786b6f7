//! The checks before a run starts, for `train` and the launch screen: what stops it, what to look at first, and what
//! was not checked.

use serde::{Deserialize, Serialize};

use super::{Memory, SignalReport, Verdict};
use crate::config::{TrainConfig, choices};
use crate::dataset::DatasetError;
use crate::environment::{EnvironmentError, ToolProgram};
use crate::format::{bytes, counted};
use crate::prompts::{CheckedSet, DataProblem, DataProblemKind, data_problems, similar_prompts};
use crate::score::{ModelDevice, ScoreError, Scorer, Task, TaskJudge};
use crate::task::PromptSet;

choices! {
    #[derive(PartialOrd, Ord)]
    Check {
        /// Whether they can be read.
        PromptSets = "prompt_sets",
        ExpectedAnswers = "expected_answers",
        Leakage = "leakage",
        Duplicates = "duplicates",
        /// Whether it is there; an embedded one, whether it is made for the task.
        BaseModel = "base_model",
        /// Whether a local judge has its own device.
        Judge = "judge",
        /// How far a program that scores is kept apart from the machine.
        Isolation = "isolation",
        Memory = "memory",
        Learnability = "learnability",
    }
}

impl Check {
    pub fn title(self) -> String {
        self.name().replace('_', " ")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The run does not start.
    Error,
    /// Worth a question.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreflightFinding {
    pub check: Check,
    pub severity: Severity,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    /// Errors first.
    pub findings: Vec<PreflightFinding>,
    /// Checks for which something was not measured or not read.
    pub not_checked: Vec<Check>,
    /// What is good to know, and needs no answer.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Facts about a run before it starts; a check whose fact is `None` is skipped.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// The problems of the prompt sets, or why they cannot be read.
    pub data: Option<Result<&'a [DataProblem], &'a str>>,
    /// [`crate::score::Task::embedded_model_note`], if the run starts from an embedded model, or
    /// [`crate::text::Tokenizer::stop_note`]; or why there is no such model.
    pub base_model: Option<Result<Option<String>, String>>,
    pub memory: Option<&'a Memory>,
    /// By task, whose name is empty for the only one; empty if not sampled.
    pub signals: Vec<(&'a str, &'a SignalReport)>,
}

/// Why the prompt sets cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    #[error("{0}")]
    Score(#[from] ScoreError),
    #[error("{0}")]
    Dataset(#[from] DatasetError),
    #[error("{0}")]
    Tools(#[from] EnvironmentError),
}

/// Reads every prompt set and looks for problems, of the task's judges and tools too: slow.
pub fn read_data(task: &Task) -> Result<Vec<DataProblem>, PreflightError> {
    let scorer = Scorer::new(task)?;
    let mut problems = data_problems(task, &scorer, &CheckedSet::all(task, &scorer)?);
    problems.extend(similar_prompts(task)?);
    scorer
        .load_judges()
        .map_err(|problem| ScoreError::NoJudge {
            task: task.name.clone(),
            problem,
        })?;
    problems.extend(task.judges().filter_map(judge_memory));
    problems.extend(task.scorers().filter_map(Task::command).map(|rules| {
        isolation(
            "the scorer's program",
            rules.lacks_isolation(),
            &rules.isolation_text(),
        )
    }));
    let of_program = |what: &str, program: &ToolProgram| {
        isolation(what, program.lacks_isolation(), &program.isolation_text())
    };
    if let Some(tools) = task.toolset() {
        tools.definitions()?;
        let programs = tools.programs().map_err(EnvironmentError::from)?;
        problems.extend(
            programs
                .iter()
                .map(|program| of_program(&format!("the tool {:?}", program.name), program)),
        );
    }
    if let Some(agent) = task.agent() {
        agent.check()?;
        let programs = agent.programs().map_err(EnvironmentError::from)?;
        problems.extend(
            programs
                .first()
                .map(|program| of_program("the agent", program)),
        );
    }
    Ok(problems)
}

fn judge_memory(judge: TaskJudge<'_>) -> Option<DataProblem> {
    let local = judge.rules.local.as_ref()?;
    let (name, device) = (&local.name, local.device);
    let message = format!(
        "the judge {name} is loaded on {device}, and its memory is not in the forecast: choose a GPU that the run does not use, or device = \"cpu\", unless both fit"
    );
    (device != ModelDevice::Cpu).then(|| noted(DataProblemKind::Judge, message))
}

fn isolation(program: &str, is_lacking: bool, text: &str) -> DataProblem {
    let kind = if is_lacking {
        DataProblemKind::Isolation
    } else {
        DataProblemKind::Isolated
    };
    noted(kind, format!("{program}: isolation {text}"))
}

fn noted(kind: DataProblemKind, message: String) -> DataProblem {
    DataProblem {
        kind,
        message,
        set: PromptSet::Train,
        refused_share: 0.0,
    }
}

impl Preflight {
    pub fn for_run(config: &TrainConfig, facts: &Facts<'_>) -> Self {
        let mut findings = Vec::new();
        let mut add = |check, severity, message: String| {
            findings.push(PreflightFinding {
                check,
                severity,
                message,
            })
        };
        if let Some(Err(why)) = facts.data {
            add(Check::PromptSets, Severity::Error, why.to_owned());
        }
        let read = facts.data.and_then(Result::ok);
        let mut notes = Vec::new();
        for problem in read.unwrap_or_default() {
            let check = match problem.kind {
                DataProblemKind::Isolated => {
                    notes.push(problem.message.clone());
                    continue;
                }
                DataProblemKind::Isolation => Check::Isolation,
                DataProblemKind::InvalidExpected
                | DataProblemKind::Unlabelled
                | DataProblemKind::AcceptsWrong
                | DataProblemKind::Undetermined
                | DataProblemKind::Label
                | DataProblemKind::Conflict => Check::ExpectedAnswers,
                DataProblemKind::Leak => Check::Leakage,
                DataProblemKind::Duplicates => Check::Duplicates,
                DataProblemKind::Judge => Check::Judge,
            };
            let severity = if problem.is_refused(config) {
                Severity::Error
            } else {
                Severity::Warning
            };
            add(check, severity, problem.message.clone());
        }
        match &facts.base_model {
            Some(Err(problem)) => add(Check::BaseModel, Severity::Error, problem.clone()),
            Some(Ok(Some(note))) => add(Check::BaseModel, Severity::Warning, note.clone()),
            Some(Ok(None)) | None => {}
        }
        if let Some((memory, machine)) = facts
            .memory
            .and_then(|memory| Some((memory, memory.machine_bytes?)))
            && machine < memory.peak_bytes
        {
            let message = format!(
                "peak {} of {}: it does not fit{}",
                bytes(memory.peak_bytes),
                bytes(machine),
                memory.remedy()
            );
            add(Check::Memory, Severity::Error, message);
        }
        let is_poor = |signal: &SignalReport| {
            signal.advice.verdict != Verdict::CanLearn || signal.lacks_valid()
        };
        for (task, signal) in facts.signals.iter().filter(|(_, signal)| is_poor(signal)) {
            let advice = &signal.advice;
            let task = if task.is_empty() {
                String::new()
            } else {
                format!("{task}: ")
            };
            if let Some(truncated) = signal.truncation(config.max_completion_tokens) {
                add(
                    Check::Learnability,
                    Severity::Error,
                    format!("{task}{truncated}"),
                );
                continue;
            }
            let remedy = advice
                .changes
                .first()
                .map_or_else(String::new, |change| format!("; {change}"));
            add(
                Check::Learnability,
                Severity::Warning,
                format!("{task}{}: {}{remedy}", advice.verdict.label(), advice.why),
            );
        }
        findings.sort_by_key(|finding| finding.severity);
        let is_checked = |check: &Check| match check {
            Check::PromptSets => facts.data.is_some(),
            Check::ExpectedAnswers | Check::Leakage | Check::Duplicates => read.is_some(),
            Check::BaseModel => facts.base_model.is_some(),
            Check::Judge | Check::Isolation => true,
            Check::Memory => facts
                .memory
                .is_some_and(|memory| memory.machine_bytes.is_some()),
            Check::Learnability => !facts.signals.is_empty(),
        };
        Self {
            findings,
            not_checked: Check::ALL
                .into_iter()
                .filter(|check| !is_checked(check))
                .collect(),
            notes,
        }
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    pub fn passed(&self) -> impl Iterator<Item = Check> {
        let is_open = |check: &Check| {
            matches!(check, Check::Judge | Check::Isolation)
                || self.not_checked.contains(check)
                || self.findings.iter().any(|finding| finding.check == *check)
        };
        Check::ALL.into_iter().filter(move |check| !is_open(check))
    }

    /// `1 error, 2 warnings`; empty without findings.
    pub fn summary(&self) -> String {
        let counts = [
            (self.count(Severity::Error), "error"),
            (self.count(Severity::Warning), "warning"),
        ];
        let found = counts.into_iter().filter(|(count, _)| *count > 0);
        found
            .map(|(count, name)| counted(count, name))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

pub fn titles(checks: impl IntoIterator<Item = Check>) -> String {
    checks
        .into_iter()
        .map(Check::title)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::shape::tests::config;
    use super::super::{Advice, TierMix, TierShares};
    use super::*;
    use crate::score::Tier;

    fn problem(kind: DataProblemKind, refused_share: f64) -> DataProblem {
        DataProblem {
            kind,
            message: format!("{kind:?}"),
            set: PromptSet::Train,
            refused_share,
        }
    }

    fn memory(peak_bytes: u64, machine_bytes: Option<u64>) -> Memory {
        Memory {
            parts: Vec::new(),
            peak_bytes,
            peak_recomputed_bytes: peak_bytes,
            machine_bytes,
        }
    }

    fn signal(verdict: Verdict) -> SignalReport {
        SignalReport {
            prompts: 64,
            completions_per_prompt: 8,
            informative: 0.0,
            informative_interval: [0.0, 0.1],
            all_max: 1.0,
            all_min: 0.0,
            all_equal: 0.0,
            tiers: TierShares {
                unparsable: 0.0,
                invalid: 0.0,
                valid: 1.0,
            },
            mixes: Vec::new(),
            truncated: 0.0,
            think_leaks: 0.0,
            failures: Vec::new(),
            guidance: String::new(),
            is_guided: false,
            advice: Advice {
                verdict,
                why: "why".to_owned(),
                changes: vec!["do this".to_owned()],
            },
        }
    }

    fn found(facts: &Facts<'_>) -> Vec<String> {
        let found = Preflight::for_run(&config(&[]), facts);
        let line = |finding: &PreflightFinding| {
            format!(
                "{:?} {}: {}",
                finding.severity,
                finding.check.title(),
                finding.message
            )
        };
        found.findings.iter().map(line).collect()
    }

    #[test]
    fn findings_stop_or_ask() {
        use DataProblemKind::{Duplicates, InvalidExpected, Leak};
        let data = [
            problem(Leak, 0.0),
            problem(Duplicates, 0.0),
            problem(InvalidExpected, 0.05),
        ];
        assert_eq!(
            found(&Facts {
                data: Some(Ok(&data)),
                ..Facts::default()
            }),
            [
                "Warning leakage: Leak",
                "Warning duplicates: Duplicates",
                "Warning expected answers: InvalidExpected"
            ]
        );
        let data = [problem(Leak, 0.0), problem(InvalidExpected, 0.051)];
        assert_eq!(
            found(&Facts {
                data: Some(Ok(&data)),
                ..Facts::default()
            }),
            [
                "Error expected answers: InvalidExpected",
                "Warning leakage: Leak"
            ],
            "errors stand first"
        );
        let note = Facts {
            base_model: Some(Ok(Some("only invoices".to_owned()))),
            ..Facts::default()
        };
        assert_eq!(found(&note), ["Warning base model: only invoices"]);
        let missing = Facts {
            base_model: Some(Err("no model or run `/nope`".to_owned())),
            ..Facts::default()
        };
        assert_eq!(
            found(&missing),
            ["Error base model: no model or run `/nope`"]
        );
        let unchecked = [problem(DataProblemKind::Judge, 0.0)];
        assert_eq!(
            found(&Facts {
                data: Some(Ok(&unchecked)),
                ..Facts::default()
            }),
            ["Warning judge: Judge"]
        );
        let levels = [
            problem(DataProblemKind::Isolation, 0.0),
            problem(DataProblemKind::Isolated, 0.0),
        ];
        let facts = Facts {
            data: Some(Ok(&levels)),
            ..Facts::default()
        };
        assert_eq!(found(&facts), ["Warning isolation: Isolation"]);
        assert_eq!(Preflight::for_run(&config(&[]), &facts).notes, ["Isolated"]);
    }

    #[test]
    fn resources_and_groups_are_judged_where_they_are_known() {
        let of_memory = |memory: Memory| {
            found(&Facts {
                memory: Some(&memory),
                ..Facts::default()
            })
        };
        assert!(
            of_memory(memory(80, Some(80))).is_empty() && of_memory(memory(80, None)).is_empty()
        );
        assert!(
            of_memory(memory(81, Some(80)))[0]
                .starts_with("Error memory: peak 81 B of 80 B: it does not fit; ")
        );
        let of_signal = |verdict| {
            found(&Facts {
                signals: vec![("", &signal(verdict))],
                ..Facts::default()
            })
        };
        assert!(of_signal(Verdict::CanLearn).is_empty());
        assert_eq!(
            of_signal(Verdict::CannotLearn),
            ["Warning learnability: it cannot learn: why; do this"]
        );
        let mix = TierMix {
            tiers: vec![Tier::Unparsable, Tier::Invalid],
            groups: 8,
        };
        let low = SignalReport {
            mixes: vec![mix],
            ..signal(Verdict::CanLearn)
        };
        let low = found(&Facts {
            signals: vec![("", &low)],
            ..Facts::default()
        });
        assert_eq!(
            low,
            ["Warning learnability: it can learn: why; do this"],
            "no group has a valid completion"
        );
    }

    #[test]
    fn what_is_not_known_is_not_checked() {
        let none = Preflight::for_run(&config(&[]), &Facts::default());
        assert_eq!(
            titles(none.not_checked.iter().copied()),
            "prompt sets, expected answers, leakage, duplicates, base model, memory, learnability"
        );
        let unread = Facts {
            data: Some(Err("no row on line 3")),
            ..Facts::default()
        };
        assert_eq!(found(&unread), ["Error prompt sets: no row on line 3"]);
        let (memory, signal) = (memory(80, Some(80)), signal(Verdict::CanLearn));
        let data = [problem(DataProblemKind::Leak, 0.0)];
        let all = Facts {
            data: Some(Ok(&data)),
            memory: Some(&memory),
            signals: vec![("", &signal)],
            base_model: Some(Ok(None)),
        };
        let all = Preflight::for_run(&config(&[]), &all);
        assert!(all.not_checked.is_empty());
        assert_eq!(
            (titles(all.passed()).as_str(), all.summary().as_str()),
            (
                "prompt sets, expected answers, duplicates, base model, memory, learnability",
                "1 warning"
            )
        );
    }
}
