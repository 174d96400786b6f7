//! What `grpo-tui prove` found: a server compared with a run, kept as `prove/NAME.json` of the run.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::RunError;
use super::evals::Comparison;
use super::storage::directory::sha256;
use super::storage::durable::{ensure_folder, entries, read_if_there, replace_json};
use crate::config::choices;

/// A longer file is not one of `prove`.
const MAX_BYTES: u64 = 4 << 20;
const FOLDER: &str = "prove";

choices! {
    /// Why a server answers otherwise than the run.
    #[derive(PartialOrd, Ord)]
    ServingFault {
        /// Prompts are rendered otherwise.
        Template = "template",
        Tokenizer = "tokenizer",
        Context = "truncated_context",
        /// It is missing, or applied twice.
        Adapter = "adapter",
        /// Another step's, or another model's.
        OtherWeights = "other_weights",
        Quantised = "quantisation",
        Sampling = "sampling",
        SchemaIgnored = "schema_not_enforced",
        SchemaOrder = "schema_key_order",
    }
}

impl ServingFault {
    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Template => {
                "serve the chat_template of the exported folder (vLLM, SGLang: --chat-template FILE; llama.cpp: --jinja --chat-template-file FILE; Ollama: the exported Modelfile), send the run's chat_template_kwargs (extra_body in endpoints.toml), and let template and tokenizer add the start token once (add_bos_token, add_special_tokens)"
            }
            Self::Tokenizer => "serve the tokenizer files of the exported folder",
            Self::Context => {
                "raise the server's context (vLLM: --max-model-len; llama.cpp: -c; Ollama: num_ctx)"
            }
            Self::Adapter => {
                "request the adapter's name as `model` (vLLM: --lora-modules NAME=FOLDER; Ollama: ADAPTER) beside the original base, or serve `model export --merged` alone"
            }
            Self::OtherWeights => {
                "serve the exported folder of this run and step under this name, or prove with the RUN@STEP that is served"
            }
            Self::Quantised => {
                "serve a finer type (f16, q8_0, or bf16 for fp8), or accept the cost in points; where nothing is rounded, the folder is of another run or of a step whose checkpoint is gone, or the adapter's scale is another one"
            }
            Self::Sampling => {
                "turn off speculative decoding and the server's default penalties (repeat_penalty, top_k), and make its stop tokens those of the exported generation_config.json (Ollama: PARAMETER stop)"
            }
            Self::SchemaIgnored => {
                "enable the server's structured output, or do not rely on response_format"
            }
            Self::SchemaOrder => {
                "send no response_format, or a server that keeps the order of a schema's keys (Ollama: PARSER passthrough in the Modelfile)"
            }
        }
    }
}

choices! {
    CheckOutcome {
        Equal = "equal",
        Differs = "differs",
        NotCompared = "not compared",
    }
}

/// One thing that was, or was not, compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServingCheck {
    pub name: String,
    pub outcome: CheckOutcome,
    /// What was measured, or why nothing was.
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServingFinding {
    pub fault: ServingFault,
    pub sentence: String,
}

/// Answers under one setting, against the run's answers to the same prompts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SettingResult {
    pub name: String,
    pub prompts: usize,
    pub answered: usize,
    /// Texts that equal the run's, or leave it where two tokens are as likely.
    pub same: usize,
    /// Of those whose texts can be compared.
    pub comparable: usize,
    /// The run first.
    pub valid: Comparison,
    pub exact: Option<Comparison>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProveRecord {
    pub time_ms: u64,
    pub base_url: String,
    pub model: String,
    pub step: u64,
    pub task: String,
    pub set: String,
    pub prompts: usize,
    /// Limit of the mean |difference| of log-probs, nats/token.
    pub max_nats: f64,
    pub checks: Vec<ServingCheck>,
    pub findings: Vec<ServingFinding>,
    pub settings: Vec<SettingResult>,
    /// Mean |difference| from the run's log-probs, nats/token; `None` if not compared.
    pub log_prob_difference: Option<f64>,
    pub requests: usize,
    pub seconds: f64,
}

impl ProveRecord {
    /// Whether anything differs beyond the limits; `None` if nothing was compared.
    pub fn differs(&self) -> Option<bool> {
        let has = |outcome| self.checks.iter().any(|check| check.outcome == outcome);
        match (has(CheckOutcome::Differs), has(CheckOutcome::Equal)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// One line for lists and cards.
    pub fn verdict(&self) -> String {
        let faults: Vec<String> = self
            .findings
            .iter()
            .map(|finding| finding.fault.name().replace('_', " "))
            .collect();
        let unknown = self
            .checks
            .iter()
            .filter(|check| check.outcome == CheckOutcome::NotCompared)
            .count();
        let verdict = match self.differs() {
            Some(true) if faults.is_empty() => "differs, without a known cause".to_owned(),
            Some(true) => format!("differs: {}", faults.join(", ")),
            Some(false) => "equal in what was compared".to_owned(),
            None => "nothing could be compared".to_owned(),
        };
        match unknown {
            0 => verdict,
            count => format!("{verdict} ({count} not compared)"),
        }
    }
}

/// Replaces the record of the same server and model.
pub fn write_prove(run: &Path, record: &ProveRecord) -> Result<(), RunError> {
    ensure_folder(&run.join(FOLDER))?;
    let server = format!("{}\n{}", record.base_url, record.model);
    let name = format!("{}.json", &sha256(server.as_bytes())[..16]);
    replace_json(&run.join(FOLDER).join(name), record)
}

/// All records of a run, the newest first. Malformed ones are left out.
pub fn read_proves(run: &Path) -> Vec<ProveRecord> {
    let paths = entries(&run.join(FOLDER)).unwrap_or_default();
    let paths = paths.into_iter().map(|entry| entry.path());
    let is_record = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "json");
    let read = |path: PathBuf| {
        let bytes = read_if_there(&path, MAX_BYTES).ok()??;
        serde_json::from_slice(&bytes).ok()
    };
    let mut records: Vec<ProveRecord> = paths.filter(is_record).filter_map(read).collect();
    records.sort_by_key(|record| std::cmp::Reverse(record.time_ms));
    records
}
