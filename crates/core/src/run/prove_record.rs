//! What `grpo-tui prove` found: a server compared with a run, kept as `prove/NAME.json` of the run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::RunError;
use super::evals::{AnswerLog, Comparison};
use super::storage::directory::sha256;
use super::storage::durable::{ensure_folder, entries, read_if_there, replace_json};
use crate::config::choices;

/// A longer file is not one of `prove`.
const MAX_BYTES: u64 = 4 << 20;
const FOLDER: &str = "prove";
/// Of answers of an interrupted comparison.
const MAX_AGE: Duration = Duration::from_secs(3600);

choices! {
    /// Why a server answers otherwise than the run.
    #[derive(PartialOrd, Ord)]
    ServingFault {
        Template = "template",
        Thinking = "thinking",
        MissingStart = "missing_start_token",
        DoubledStart = "doubled_start_token",
        Tokenizer = "tokenizer",
        Context = "truncated_context",
        AdapterOff = "adapter_not_applied",
        AdapterTwice = "adapter_applied_twice",
        AdapterScale = "adapter_scale",
        OtherStep = "other_step",
        Quantised = "quantisation",
        OtherModel = "other_model",
        StopToken = "stop_token",
        CallInThink = "call_in_think_block",
        CallParser = "call_parser",
        SchemaIgnored = "schema_not_enforced",
        SchemaOrder = "schema_key_order",
        Batch = "batch_dependent",
        Decoding = "decoding",
        Stream = "stream",
        /// The answers differ, and no measured fact says why.
        Unexplained = "unexplained",
    }
}

impl ServingFault {
    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Template => {
                "serve the chat_template of the exported folder (vLLM, SGLang: --chat-template FILE; llama.cpp: --jinja --chat-template-file FILE; Ollama: the exported Modelfile)"
            }
            Self::Thinking => {
                "send the run's chat_template_kwargs (extra_body in endpoints.toml), or make them the server's default (vLLM: --default-chat-template-kwargs; llama.cpp: --chat-template-kwargs; Ollama: export GGUF and Modelfile again)"
            }
            Self::MissingStart => {
                "let the template or the tokenizer add the start token: check add_bos_token, and add_special_tokens of the requests"
            }
            Self::DoubledStart => {
                "the template and the tokenizer both add a start token: set add_bos_token to false, or send add_special_tokens: false"
            }
            Self::Tokenizer => "serve the tokenizer files of the exported folder",
            Self::Context => {
                "raise the server's context (vLLM: --max-model-len; llama.cpp: -c; Ollama: num_ctx)"
            }
            Self::AdapterOff => {
                "request the adapter's name as `model` (vLLM: --lora-modules NAME=FOLDER; Ollama: ADAPTER), or serve `model export --merged`"
            }
            Self::AdapterTwice => {
                "the adapter is beside a base into which it was merged: serve the merged folder alone, or the adapter beside the original base"
            }
            Self::AdapterScale => {
                "compare lora_alpha and r of adapter_config.json with what the server reads (rslora, --lora-scaled), or serve `model export --merged`"
            }
            Self::OtherStep => {
                "serve the exported folder of this step, or prove with the RUN@STEP that is served"
            }
            Self::Quantised => {
                "serve a finer type (f16, q8_0, or bf16 for fp8), or accept the cost in points; where nothing is rounded, the folder is of another run or of a step whose checkpoint is gone"
            }
            Self::OtherModel => {
                "serve the exported folder of this run and step under this name, or prove with the RUN@STEP that is served"
            }
            Self::StopToken => {
                "make the stop tokens those of the exported generation_config.json (Ollama: PARAMETER stop)"
            }
            Self::CallInThink => {
                "the server's reasoning parser keeps the call: turn thinking off in the template, or start without --reasoning-parser"
            }
            Self::CallParser => {
                "start the server with the parser of the model's format (vLLM: --enable-auto-tool-choice --tool-call-parser NAME), or parse the raw text"
            }
            Self::SchemaIgnored => {
                "enable the server's structured output, or do not rely on response_format"
            }
            Self::SchemaOrder => {
                "send no response_format, or a server that keeps the order of a schema's keys (Ollama: PARSER passthrough in the Modelfile)"
            }
            Self::Batch => {
                "make the server's kernels independent of the batch (vLLM: VLLM_BATCH_INVARIANT=1), or expect other answers under load"
            }
            Self::Decoding => {
                "turn off speculative decoding and the server's default penalties (repeat_penalty, top_k, those of generation_config.json), then prove again"
            }
            Self::Stream => "read whole answers, or update the server",
            Self::Unexplained => {
                "prove a server that tells log-probs, or compare answers with `eval --model endpoint:NAME`"
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
    /// In the currency of the endpoint's prices.
    pub cost: Option<f64>,
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

fn stem(base_url: &str, model: &str) -> String {
    sha256(format!("{base_url}\n{model}").as_bytes())[..16].to_owned()
}

fn record_path(run: &Path, base_url: &str, model: &str) -> PathBuf {
    run.join(FOLDER).join(stem(base_url, model) + ".json")
}

/// Replaces the record of the same server and model.
pub fn write_prove(run: &Path, record: &ProveRecord) -> Result<(), RunError> {
    ensure_folder(&run.join(FOLDER))?;
    replace_json(&record_path(run, &record.base_url, &record.model), record)
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

/// Answers of a comparison in progress with the checkpoint of a step, with those of an interrupted one. Older ones than
/// an hour are dropped: what is served may have changed since.
pub fn prove_answers(
    run: &Path,
    base_url: &str,
    model: &str,
    step: u64,
) -> Result<(AnswerLog, Vec<String>), RunError> {
    ensure_folder(&run.join(FOLDER))?;
    let name = format!("answers-{step}-{}.jsonl", stem(base_url, model));
    let path = run.join(FOLDER).join(name);
    let modified = path.metadata().and_then(|about| about.modified());
    let age = modified.ok().and_then(|modified| modified.elapsed().ok());
    if age.is_some_and(|age| age > MAX_AGE) {
        std::fs::remove_file(&path).map_err(RunError::io("remove", &path))?;
    }
    AnswerLog::open(path)
}
