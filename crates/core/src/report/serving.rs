//! Commands that serve an export, by its form.

use serde_json::{Map, Value};

use crate::hub::embedded_model_names;
use crate::run::{RunDirectory, RunError, trained_templates};

/// What an export's folder holds.
#[derive(Debug)]
pub enum ExportForm {
    /// A Hugging Face folder.
    Folder,
    /// PEFT's files.
    Adapter {
        base: String,
        rank: usize,
        has_experts: bool,
        has_template: bool,
    },
    Gguf(GgufFiles),
}

/// Files for llama.cpp and Ollama, by name.
#[derive(Clone, Debug)]
pub struct GgufFiles {
    pub model: String,
    pub adapter: Option<String>,
    pub modelfile: String,
}

impl ExportForm {
    /// A run's checkpoint, copied by [`promote`](crate::run::promote).
    ///
    /// # Errors
    /// [`RunError::Base`] for a chat template that cannot be read.
    pub fn of_checkpoint(run: &RunDirectory) -> Result<Self, RunError> {
        let config = &run.file().config;
        Ok(match config.lora_rank {
            0 => Self::Folder,
            rank => Self::Adapter {
                base: config.base_model.clone(),
                rank,
                has_experts: config.lora_experts,
                has_template: !trained_templates(run)?.is_empty(),
            },
        })
    }

    /// The Hub's `library_name`.
    pub(super) fn library(&self) -> &'static str {
        match self {
            Self::Folder => "transformers",
            Self::Adapter { .. } => "peft",
            Self::Gguf(_) => "gguf",
        }
    }

    /// Markdown. `kwargs`: variables of the chat template that servers do not set by themselves.
    pub(super) fn commands(&self, kwargs: &Map<String, Value>) -> String {
        let kwargs = |option: &str| match kwargs.is_empty() {
            true => String::new(),
            false => format!(
                " {option} {}",
                shell_word(&Value::from(kwargs.clone()).to_string())
            ),
        };
        let of_llama = kwargs("--chat-template-kwargs");
        let of_vllm = kwargs("--default-chat-template-kwargs");
        let gguf = "grpo-tui model export --model . --gguf q4_k_m --out model.gguf\nllama-server -m model.gguf --jinja";
        let in_folder = |vllm: &str| {
            vec![
                ("grpo-tui", "grpo-tui serve .".to_owned()),
                ("vLLM", format!("{vllm}{of_vllm}")),
                ("llama.cpp", format!("{gguf}{of_llama}")),
            ]
        };
        let commands = match self {
            Self::Folder => in_folder("vllm serve ."),
            // No other program has an embedded base; adapters of experts were not tried there.
            Self::Adapter {
                base, has_experts, ..
            } if *has_experts || embedded_model_names().any(|name| name == base) => in_folder(
                "grpo-tui model export --model . --merged --out merged\nvllm serve merged",
            ),
            Self::Adapter {
                base,
                rank,
                has_template,
                ..
            } => {
                let template = if *has_template {
                    " --chat-template chat_template.jinja"
                } else {
                    ""
                };
                // vLLM takes powers of two from 8 on.
                in_folder(&format!(
                    "vllm serve {} --enable-lora --max-lora-rank {} --lora-modules trained=.{template}",
                    shell_word(base),
                    rank.next_power_of_two().max(8)
                ))
            }
            Self::Gguf(GgufFiles {
                model,
                adapter,
                modelfile,
            }) => {
                let (model, modelfile) = (shell_word(model), shell_word(modelfile));
                let lora = adapter.as_ref().map_or_else(String::new, |adapter| {
                    format!(" --lora {}", shell_word(adapter))
                });
                vec![
                    (
                        "llama.cpp",
                        format!("llama-server -m {model}{lora} --jinja"),
                    ),
                    (
                        "Ollama",
                        format!("ollama create trained -f {modelfile}\nollama run trained"),
                    ),
                ]
            }
        };
        commands
            .iter()
            .map(|(with, command)| format!("\nWith {with}:\n\n```sh\n{command}\n```\n"))
            .collect()
    }
}

/// As a shell reads it as one word.
fn shell_word(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    if text.chars().all(is_plain) && !text.is_empty() {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
