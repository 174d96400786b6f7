//! The endpoints of `eval`: where `endpoints.toml` is, and the records of one that was asked.

use super::eval_status::EvalStatus;
use super::rows::Rows;
use super::variants::Variant;
use crate::config::ThinkingBudget;
use crate::run::EvalFolder;
use crate::score::Task;

pub(super) use asking::{EndpointTarget, plain_endpoint};

/// The settings that all targets of an eval share.
#[derive(Clone, Copy)]
pub(super) struct TargetInput<'a> {
    pub(super) status: &'a EvalStatus,
    pub(super) task: &'a Task,
    pub(super) rows: &'a Rows,
    pub(super) samples: usize,
    pub(super) max_completion_tokens: usize,
    /// For models on this machine.
    pub(super) thinking: Option<ThinkingBudget>,
    pub(super) temperature: f64,
    /// Ids of prompts that may be sent whatever they hold.
    pub(super) allowed_secrets: &'a [String],
    pub(super) folder: Option<&'a EvalFolder>,
    /// Whether values get their confidence.
    pub(super) confidence: bool,
}

impl<'a> TargetInput<'a> {
    /// With a target's own prompts.
    pub(super) fn for_variant(self, variant: Option<&'a Variant>) -> Self {
        variant.map_or(self, |variant| Self {
            task: &variant.task,
            rows: &variant.rows,
            ..self
        })
    }
}

mod asking {
    use std::collections::HashMap;
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    use super::TargetInput;
    use crate::cli::Failure;
    use crate::cli::output::eprint_line;
    use crate::cli::rows::Rows;
    use crate::confidence::set_agreement;
    use crate::endpoint::{
        self, Answer, Api, Endpoint, EndpointError, Progress, Question, RequestForm,
        ResponseFormat, Sampling,
    };
    use crate::files;
    use crate::format::counted;
    use crate::run::{EvalProgress, EvalRecord, endpoint_files};
    use crate::score::Scorer;

    #[derive(Debug)]
    pub(in crate::cli) struct EndpointTarget(Endpoint);

    /// A line of the log of answers.
    #[derive(Serialize, Deserialize)]
    struct Line {
        /// The digest of its question.
        question: String,
        prompt_id: String,
        answer: Answer,
    }

    /// The name and the text of `file`, or of the first of the usual files that exists. `what` needs the endpoint `name` of it.
    pub(in crate::cli) fn definitions(
        what: &str,
        name: &str,
        file: Option<&Path>,
    ) -> Result<(String, String), Failure> {
        let usual = endpoint_files(&std::env::current_dir()?);
        let Some(file) = file.or_else(|| {
            usual
                .iter()
                .find(|file| file.exists())
                .map(PathBuf::as_path)
        }) else {
            let files: Vec<String> = usual
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            return Err(Failure::usage(format!(
                "{what}: no endpoints.toml ({}): add `[{name}]` with base_url and model, or name a file with --endpoints",
                files.join(", ")
            )));
        };
        let label = file.display().to_string();
        let text = files::read_text(file).map_err(|error| {
            Failure::usage(format!(
                "{label}: {error}; --endpoints takes a readable TOML file"
            ))
        })?;
        Ok((label, text))
    }

    /// A chat server at a URL, under the rules of endpoints.toml.
    pub(in crate::cli) fn plain_endpoint(
        url: &str,
        model: &str,
        key_variable: Option<&str>,
    ) -> Result<Endpoint, Failure> {
        let keys = [
            ("base_url", Some(url)),
            ("model", Some(model)),
            ("api_key_env", key_variable),
        ];
        let lines = keys
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key} = {}\n", Value::from(value?))));
        let text = format!(
            "[server]\n{}timeout_seconds = 600\n",
            lines.collect::<String>()
        );
        let endpoint = Endpoint::find("server", "ENDPOINT", &text, |variable| {
            std::env::var_os(variable)
        });
        endpoint.map_err(|error| Failure::usage(error.to_string()))
    }

    /// Adds the agreement of a prompt's samples.
    fn add_agreement(records: &mut [EvalRecord]) {
        for samples in records.chunk_by_mut(|one, other| one.prompt_id == other.prompt_id) {
            let known = samples.iter_mut().filter_map(|record| {
                Some((
                    record.completion.as_str(),
                    &mut **record.confidence.as_mut()?,
                ))
            });
            set_agreement(&mut known.collect::<Vec<_>>());
        }
    }

    impl EndpointTarget {
        /// For requests of chat answers without a format.
        pub(in crate::cli) fn chat(self) -> Result<Endpoint, Failure> {
            let mut endpoint = self.0;
            if endpoint.api != Api::Chat {
                return Err(Failure::usage(format!(
                    "endpoint `{}`: kind = \"completions\" has no chat template to compare: use kind = \"chat\"",
                    endpoint.name
                )));
            }
            (endpoint.format, endpoint.logprobs) = (ResponseFormat::Free, false);
            Ok(endpoint)
        }

        /// The endpoint of that name in `file`, or in the first of the usual files that exists.
        pub(in crate::cli) fn find(name: &str, file: Option<&Path>) -> Result<Self, Failure> {
            let (label, text) = definitions(&format!("--model endpoint:{name}"), name, file)?;
            Ok(Self(Endpoint::find(name, &label, &text, |variable| {
                std::env::var_os(variable)
            })?))
        }

        /// Makes answers have their tokens, whose log-probs [`Self::check`] requires.
        pub(in crate::cli) fn keep_tokens(&mut self) {
            self.0.keeps_tokens = true;
        }

        /// Whether every prompt may be sent.
        pub(in crate::cli) fn check(&self, asked: &TargetInput<'_>) -> Result<(), Failure> {
            let Endpoint { name, logprobs, .. } = &self.0;
            if asked.confidence && !logprobs {
                return Err(Failure::usage(format!(
                    "--confidence: endpoint `{name}` is asked for no log-probs: set logprobs = true in endpoints.toml, if the server gives them"
                )));
            }
            self.questions(&self.form(asked)?, asked).map(|_| ())
        }

        fn form<'a>(&'a self, asked: &TargetInput<'a>) -> Result<RequestForm<'a>, Failure> {
            let TargetInput {
                task,
                samples,
                max_completion_tokens,
                temperature,
                ..
            } = *asked;
            Ok(RequestForm::new(
                &self.0,
                task,
                Sampling {
                    samples,
                    max_completion_tokens,
                    temperature,
                },
            )?)
        }

        /// The questions of all first turns.
        fn questions(
            &self,
            form: &RequestForm<'_>,
            asked: &TargetInput<'_>,
        ) -> Result<Vec<Question>, Failure> {
            let Rows { label, rows, .. } = asked.rows;
            Ok(form.first(label, rows, asked.allowed_secrets)?)
        }

        /// Asks what the eval's folder has no answer to, and scores.
        pub(in crate::cli) fn records(
            &self,
            name: &str,
            asked: &TargetInput<'_>,
            scorer: &Scorer,
        ) -> Result<Vec<EvalRecord>, Failure> {
            let form = self.form(asked)?;
            let questions = self.questions(&form, asked)?;
            let rows = &asked.rows.rows;
            let (log, lines) = match asked.folder {
                Some(folder) => {
                    let (log, lines) = folder.answers(&asked.rows.set, name)?;
                    (Some(log), lines)
                }
                None => (None, Vec::new()),
            };
            // A line of another program's is not an answer: its question is asked again.
            let known: HashMap<String, Answer> = lines
                .iter()
                .filter_map(|line| serde_json::from_str(line).ok())
                .map(
                    |Line {
                         question, answer, ..
                     }| (question, answer),
                )
                .collect();
            if asked.task.toolset().is_some() && !known.is_empty() {
                let answers = counted(known.len(), "answer");
                eprint_line(&format!(
                    "{name}: the folder has {answers}: conversations go on after them"
                ));
            }
            let mut begun = Instant::now();
            let mut shown = EvalProgress {
                set: asked.rows.set.clone(),
                target: name.to_owned(),
                ..EvalProgress::default()
            };
            let show = |progress: Progress<'_>| {
                match progress {
                    Progress::Turn {
                        turn,
                        questions,
                        known,
                    } => {
                        begun = Instant::now();
                        (shown.turn, shown.total, shown.answers, shown.kept) =
                            (turn, questions, known, known);
                        if known > 0 {
                            asked.status.end();
                            let turn = if turn > 1 {
                                format!(", turn {turn}")
                            } else {
                                String::new()
                            };
                            let open = counted(questions - known, "question");
                            eprint_line(&format!(
                                "{name}{turn}: {known} of {questions} answers are in the folder: {open} left"
                            ));
                        }
                    }
                    Progress::Answer(Question { row, digest, .. }, answer) => {
                        if asked.confidence && answer.written.is_empty() {
                            return Err(EndpointError::Other(format!(
                                "--confidence: endpoint `{}` gave no log-probs with its answer to {}: leave --confidence out, or name a server that answers `logprobs`",
                                self.0.name, rows[*row].id
                            )));
                        }
                        if let Some(log) = &log {
                            let prompt_id = rows[*row].id.clone();
                            let line = Line {
                                question: digest.clone(),
                                prompt_id,
                                answer: answer.clone(),
                            };
                            log.append(&serde_json::to_string(&line)?)?;
                        }
                    }
                    Progress::Answered => {
                        shown.answers += 1;
                        shown.seconds = begun.elapsed().as_secs_f64();
                    }
                }
                asked.status.show(&shown);
                Ok::<(), EndpointError>(())
            };
            let mut records = endpoint::records(&form, scorer, rows, questions, known, show)?;
            asked.status.end();
            add_agreement(&mut records);
            let unanswered: Vec<_> = records
                .iter()
                .filter(|record| record.is_endpoint_error())
                .collect();
            if let Some(first) = unanswered.first() {
                let (count, all) = (unanswered.len(), records.len());
                let reason = first.score["errors"][0]["message"]
                    .as_str()
                    .unwrap_or_default();
                eprint_line(&format!(
                    "{name}: no answer to {count} of {all}, excluded from all rates; the first: {reason}"
                ));
            }
            let answered = records.iter().filter(|record| !record.is_endpoint_error());
            let logprobs: Vec<_> = answered
                .filter_map(|record| record.call.as_ref()?.logprobs)
                .collect();
            let without = logprobs
                .iter()
                .filter(|logprobs| logprobs.mean.is_none())
                .count();
            if without > 0 {
                let all = logprobs.len();
                eprint_line(&format!(
                    "{name}: logprobs = true, but the server gave none for {without} of {all}"
                ));
            }
            Ok(records)
        }

        /// For the eval's document.
        pub(in crate::cli) fn document(&self) -> Value {
            let Endpoint {
                base_url,
                model,
                prices,
                logprobs,
                ..
            } = &self.0;
            let mut document = json!({
                "base_url": base_url, "model": model,
                "price_per_million_input": prices.input, "price_per_million_output": prices.output,
            });
            // Absent, as in the results of versions that did not ask for them.
            if *logprobs {
                document["logprobs"] = json!(true);
            }
            document
        }
    }
}
