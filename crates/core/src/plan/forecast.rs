//! The plan of a run: what `train --plan --json` writes and the launch screen reads, and the page that both show.

use serde::{Deserialize, Serialize};

use super::preflight::{self, Preflight, Severity};
use super::{DataShape, Difference, Memory, SignalReport, StepShape, Verdict};
use crate::facts::Tier;
use crate::format::{bytes, count, counted, duration, percent, percent_short, short_id};
use crate::page::{Bar, Block, Cell, Fact, Level, Row, Table};

/// A run that does not fit has only `fits`, `why` and `memory`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Forecast {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits: Option<bool>,
    /// The reason if it does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(flatten)]
    pub size: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataShape>,
    pub memory: Memory,
    /// `None` without a recorded run of the same shape: then nothing is known before two steps are measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Preflight>,
    /// Keys without their default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Vec<Difference>>,
    /// Learnability by sampled groups, if there is one task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<SignalReport>,
    /// The same by task, if there are several.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub signals: std::collections::BTreeMap<String, SignalReport>,
    #[serde(skip)]
    pub shape: Option<ForecastShape>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// For people.
    pub device: String,
    pub steps: u64,
    pub parameters: usize,
    pub trainable: usize,
}

/// The pace of the last finished run with steps of the same shape on the same devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    pub run: String,
    /// The median, without evals.
    pub seconds_per_step: f64,
}

/// What only the command line knows of a forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForecastShape {
    pub prompt_groups_per_step: usize,
    pub completions_per_prompt: usize,
    /// GPUs of the run; 0 on a CPU.
    pub gpus: usize,
    /// How steps are divided to fit, if not as configured.
    pub to_fit: Option<StepShape>,
}

impl Forecast {
    /// Size, time and memory, a line each.
    pub fn summary(&self) -> Vec<Block> {
        let mut facts = Vec::new();
        if let Some(size) = &self.size {
            facts.push(Fact::new("run", self.run(size)));
            let model = self
                .model
                .as_ref()
                .map_or_else(String::new, |model| format!("{model}, "));
            let share = percent(size.trainable as f64 / size.parameters.max(1) as f64);
            facts.push(Fact::new(
                "model",
                format!(
                    "{model}{} weights, {} trained ({share})",
                    count(size.parameters),
                    count(size.trainable)
                ),
            ));
        }
        let is_known = self.why.is_none() && self.size.is_some();
        facts.extend(is_known.then(|| Fact::new("time", self.time())));
        facts.push(self.memory());
        let why = self.why.clone().map(|why| Block::Text(Level::Error, why));
        why.into_iter().chain([Block::Facts(facts)]).collect()
    }

    pub fn page(&self) -> Vec<Block> {
        let preflight = self.preflight.as_ref();
        let preflight = preflight.map(|found| found.page("add --sample"));
        let of_tasks = self
            .signals
            .iter()
            .map(|(task, signal)| (task.as_str(), signal));
        let signals = self
            .signal
            .iter()
            .map(|signal| ("", signal))
            .chain(of_tasks);
        let signals =
            signals.map(|(task, signal)| [signal.details(), signal.verdict(task)].concat());
        let parts = [
            self.summary(),
            preflight.unwrap_or_default(),
            self.memory_parts(),
            self.changes(),
        ];
        parts.into_iter().chain(signals).flatten().collect()
    }

    fn run(&self, size: &Size) -> String {
        let groups = self.shape.map_or_else(String::new, |shape| {
            let (groups, completions) =
                (shape.prompt_groups_per_step, shape.completions_per_prompt);
            format!(" of {groups} x {completions} completions")
        });
        let task = self
            .task
            .as_ref()
            .map_or_else(String::new, |task| format!("{task}, "));
        let steps = counted(size.steps as usize, "step");
        format!("{task}{steps}{groups} on {}", size.device)
    }

    fn time(&self) -> Cell {
        let steps = self.size.as_ref().map_or(0, |size| size.steps);
        match &self.pace {
            Some(pace) => format!(
                "about {} without evals: run {} took {} per step",
                duration(steps as f64 * pace.seconds_per_step),
                short_id(&pace.run),
                duration(pace.seconds_per_step)
            )
            .into(),
            None => Cell::Unknown("no such run has finished here; known after two steps"),
        }
    }

    fn memory(&self) -> Fact {
        let memory = &self.memory;
        let each = self.each();
        let Some(machine) = memory.machine_bytes else {
            return Fact::new("memory", bytes(memory.peak_bytes) + &each);
        };
        let share = memory.peak_bytes as f64 / machine.max(1) as f64;
        let text = format!(
            "{} of {} ({}){each}",
            bytes(memory.peak_bytes),
            bytes(machine),
            percent_short(share)
        );
        let (level, verdict) = if memory.peak_bytes <= machine {
            (Level::Good, String::new())
        } else {
            (Level::Error, ", too big".to_owned())
        };
        Fact {
            level,
            share: Some(share),
            ..Fact::new("memory", text + &verdict)
        }
    }

    /// `, on each of 8 GPUs`
    fn each(&self) -> String {
        let gpus = self.shape.map_or(0, |shape| shape.gpus);
        if gpus > 1 {
            format!(", on each of {gpus} GPUs")
        } else {
            String::new()
        }
    }

    /// The parts of memory.
    pub fn memory_parts(&self) -> Vec<Block> {
        let memory = &self.memory;
        if memory.parts.is_empty() {
            return Vec::new();
        }
        let share = |part: u64| part as f64 / memory.peak_bytes.max(1) as f64;
        let bar = |name: &str, part: u64| Bar::new(name, Cell::Bytes(part), share(part));
        let parts = memory.parts.iter().map(|part| Bar {
            note: part.phase.label().into(),
            ..bar(&part.name, part.bytes)
        });
        let recomputed = (memory.peak_recomputed_bytes < memory.peak_bytes).then(|| {
            bar(
                "peak with recompute_activations = always",
                memory.peak_recomputed_bytes,
            )
        });
        let bars = parts
            .chain([bar("peak", memory.peak_bytes)])
            .chain(recomputed);
        let to_fit = self.shape.and_then(|shape| shape.to_fit);
        [
            Block::heading("memory at the longest prompts and completions"),
            Block::Bars(bars.collect()),
        ]
        .into_iter()
        .chain(to_fit.map(|shape| Block::detail(format!("to fit: {shape}"))))
        .collect()
    }

    fn changes(&self) -> Vec<Block> {
        let Some(differences) = &self.differences else {
            return Vec::new();
        };
        if differences.is_empty() {
            return vec![Block::heading("all keys at their defaults")];
        }
        let row = |Difference { key, value, source }: &Difference| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let cells = [value, source.to_string()].map(Cell::Text);
            Row::new(key, cells)
        };
        let rows = differences.iter().map(row).collect();
        let head = ["key", "value", "set by"];
        vec![
            Block::heading("changed from defaults"),
            Block::Table(Table::new(&head, "l", rows)),
        ]
    }
}

impl From<Severity> for Level {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Error => Self::Error,
            Severity::Warning => Self::Warning,
        }
    }
}

impl Preflight {
    pub fn page(&self, remedy: &str) -> Vec<Block> {
        let summary = Some(self.summary()).filter(|summary| !summary.is_empty());
        let heading = summary.map(|summary| Block::heading(format!("preflight: {summary}")));
        let findings = self.findings.iter().map(|finding| {
            let text = format!("{}: {}", finding.check.title(), finding.message);
            Block::Finding(finding.severity.into(), text)
        });
        let passed = preflight::titles(self.passed());
        let passed = match (self.findings.len(), self.not_checked.len()) {
            (0, 0) => Some("preflight: all checks passed".to_owned()),
            _ => (!passed.is_empty()).then(|| format!("preflight passed: {passed}")),
        };
        let open = preflight::titles(self.not_checked.iter().copied());
        let open = (!open.is_empty()).then(|| format!("{open} not checked: {remedy}"));
        heading
            .into_iter()
            .chain(findings)
            .chain(self.notes.iter().map(Block::detail))
            .chain(passed.map(|passed| Block::Finding(Level::Good, passed)))
            .chain(open.map(Block::detail))
            .collect()
    }
}

impl SignalReport {
    /// Whether the base can learn, and why; `task`: its name among several, else empty.
    pub fn sentence(&self, task: &str) -> String {
        let of_task = if task.is_empty() { "" } else { " of " };
        let (verdict, why) = (self.advice.verdict.label(), &self.advice.why);
        format!("learnability{of_task}{task}: {verdict}: {why}")
    }

    /// The sentence, and what to change, most important first.
    pub fn verdict(&self, task: &str) -> Vec<Block> {
        let level = match self.advice.verdict {
            Verdict::CanLearn if self.lacks_valid() => Level::Warning,
            Verdict::CanLearn => Level::Good,
            Verdict::NothingToLearn => Level::Warning,
            Verdict::CannotLearn => Level::Error,
        };
        vec![
            Block::Finding(level, self.sentence(task)),
            Block::List(self.advice.changes.clone()),
        ]
    }

    pub fn details(&self) -> Vec<Block> {
        let [low, high] = self.informative_interval.map(percent_short);
        let groups = format!(
            "groups: {} mixed ({low} to {high}), {} all max, {} all min, {} all equal",
            percent_short(self.informative),
            percent_short(self.all_max),
            percent_short(self.all_min),
            percent_short(self.all_equal)
        );
        let tiers = [
            (Tier::Valid, self.tiers.valid),
            (Tier::Invalid, self.tiers.invalid),
            (Tier::Unparsable, self.tiers.unparsable),
        ];
        let tier = |(tier, share): (Tier, f64)| Bar {
            tier: Some(tier),
            ..Bar::new(tier.name(), Cell::rate(share), share)
        };
        let failures = self.failures.iter();
        let failures = failures.map(|(class, share)| format!("{class} {}", percent_short(*share)));
        let failures = Some(failures.collect::<Vec<_>>().join(", "));
        let failures = failures.filter(|failures| !failures.is_empty());
        let completions = format!(
            "{} truncated, {} think leaks; failures: {}",
            percent_short(self.truncated),
            percent_short(self.think_leaks),
            failures.as_deref().unwrap_or("none")
        );
        let title = format!(
            "learnability: {} prompts x {} completions of the base",
            self.prompts, self.completions_per_prompt
        );
        vec![
            Block::heading(title),
            Block::info(groups),
            Block::Bars(tiers.map(tier).to_vec()),
            Block::detail(completions),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::page::text::render;

    fn page(document: Value) -> String {
        let forecast: Forecast = serde_json::from_value(document).unwrap();
        render(&forecast.page())
    }

    #[test]
    fn what_does_not_fit_says_what_to_do() {
        let memory = json!({"parts": [{"name": "weights", "phase": "always", "bytes": 16_000_000_000_u64}],
            "peak_bytes": 16_000_000_000_u64, "peak_recomputed_bytes": 7_000_000_000_u64, "machine_bytes": 8_000_000_000_u64});
        let text =
            page(json!({"fits": false, "why": "weights of 16 GB do not fit", "memory": memory}));
        assert_eq!(
            text,
            "weights of 16 GB do not fit\n\
             memory  16.0 GB of 8.00 GB (200%), too big\n\
             \n\
             memory at the longest prompts and completions\n\
             \u{20} weights                                   16.0 GB\n\
             \u{20} peak                                      16.0 GB\n\
             \u{20} peak with recompute_activations = always  7.00 GB\n"
        );
    }

    #[test]
    fn time_is_that_of_a_recorded_run_or_unknown() {
        let document = json!({
            "device": "gpu: 2 nodes x 8 GPUs", "steps": 40, "parameters": 8_190_000_000_u64, "trainable": 43_600_000,
            "memory": {"parts": [], "peak_bytes": 61_000_000_000_u64, "peak_recomputed_bytes": 61_000_000_000_u64, "machine_bytes": null},
        });
        let expected = "run     40 steps on gpu: 2 nodes x 8 GPUs\n\
             model   8.19G weights, 43.6M trained (0.5%)\n\
             time    n/a (no such run has finished here; known after two steps)\n\
             memory  61.0 GB\n";
        assert!(
            page(document.clone()).starts_with(expected),
            "{}",
            page(document.clone())
        );
        let forecast: Forecast = serde_json::from_value(document.clone()).unwrap();
        assert_eq!(
            serde_json::to_value(&forecast).unwrap(),
            document,
            "the keys are a contract"
        );
        let mut recorded = document;
        recorded["pace"] =
            json!({"run": "20260101-000000-invoice-k7f3a2", "seconds_per_step": 3.0});
        let pace = "\ntime    about 2m 0s without evals: run k7f3a2 took 3.0 s per step\n";
        assert!(page(recorded.clone()).contains(pace), "{}", page(recorded));
    }
}
