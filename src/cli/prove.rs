//! `grpo-tui prove`: compares a server with a run, and names the cause of what differs.

mod reference; // the run's side: prompts, answers, log-probs

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::device::DeviceArguments;
use super::endpoints::{EndpointTarget, plain_endpoint};
use super::output::eprint_line;
use super::runs::{check_page, write_page};
use super::status_line::StatusLine;
use super::targets::ENDPOINT;
use super::{Failure, Outcome, print, print_json};
use crate::api_client::{Endpoint, ProbeClient, ProbePath};
use crate::page::{markdown, text};
use crate::prove::{Asker, ProveError, prove};
use crate::report::{Page, prove_page};
use crate::run::{ProveRecord, RunFolders, write_prove};
use crate::task::SetName;
use reference::RunSide;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Server: `endpoint:NAME` of endpoints.toml (docs/endpoints.md), or its URL, such as http://127.0.0.1:8000/v1
    #[arg(value_name = "ENDPOINT")]
    endpoint: String,
    /// Run whose checkpoint should be served: RUN or RUN@best, RUN@last, RUN@STEP
    #[arg(long, value_name = "RUN")]
    run: String,
    /// Prompt set: test, eval, train, or a file of prompt rows
    #[arg(long, value_name = "SET", default_value = "test")]
    on: SetName,
    /// Use only the first N prompts of the set
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Name of the model at a URL [default: the only one that the server lists]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Environment variable with the key of a URL
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,
    /// Endpoints file [default: the workspace's endpoints.toml, then ~/.config/grpo-tui/endpoints.toml]
    #[arg(long, value_name = "FILE")]
    endpoints: Option<PathBuf>,
    /// Most requests at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=512))]
    at_once: u32,
    /// Limit of the mean |difference| of log-probs, nats/token
    #[arg(long, value_name = "X", default_value_t = 0.02, value_parser = positive)]
    max_nats: f64,
    /// Send the prompt ID although it seems to contain a secret; repeatable
    #[arg(long, value_name = "ID")]
    allow_secret: Vec<String>,
    /// Runs folder [default: the workspace's runs/, else the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArguments,
    /// CPU threads; 0: all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Write Markdown; secrets are masked
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Overwrite this file
    #[arg(long)]
    force: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let begun = Instant::now();
    check_page(arguments.markdown.as_deref(), arguments.force)?;
    let endpoint = endpoint(&arguments)?;
    let run_folders = RunFolders::discover(arguments.runs.as_deref(), &std::env::current_dir()?);
    let side = RunSide::open(&arguments, &endpoint, &run_folders)?;
    let status = Mutex::new(StatusLine::new());
    let progress = |what: &str, done: usize, all: usize| {
        status.lock().show(|| format!("{what}: {done} of {all}"));
    };
    let folder = side.run.path().to_owned();
    let asker = Asker::new(&endpoint, &progress)?;
    let others = |other| {
        let found = side.other_log_probs(other);
        found.map_err(|failure| failure.message)
    };
    let record = prove(&side.reference(&arguments, &endpoint), &asker, others);
    status.lock().end();
    let record = record.map_err(|error| match error {
        ProveError::Unreachable(reason) => Failure::usage(format!(
            "endpoint `{}` answers no prompt: {reason}",
            endpoint.name
        )),
        error => error.into(),
    })?;
    let record = ProveRecord {
        step: side.step,
        task: side.task.name.clone(),
        set: side.rows.set.to_string(),
        seconds: begun.elapsed().as_secs_f64(),
        ..record
    };
    if let Err(error) = write_prove(&folder, &record) {
        eprint_line(&format!("warning: the verdict is not kept: {error}"));
    }
    let page = prove_page(&record);
    if let Some(file) = &arguments.markdown {
        write_page(
            file,
            &Page::masked(&markdown::render(&page)),
            arguments.force,
        )?;
    }
    if arguments.json {
        let mut document = serde_json::to_value(&record)?;
        document["verdict"] = json!(record.verdict());
        document["differs"] = json!(record.differs());
        print_json(document)?;
    } else {
        print(&text::render(&page))?;
    }
    Ok(match record.differs() {
        Some(false) => ExitCode::SUCCESS,
        Some(true) => ExitCode::from(1),
        None => ExitCode::from(2),
    })
}

/// The named one, or one at a URL.
fn endpoint(arguments: &Arguments) -> Result<Endpoint, Failure> {
    let given = &arguments.endpoint;
    if let Some(name) = given.strip_prefix(ENDPOINT) {
        let unused = [
            ("--model", arguments.model.is_some()),
            ("--api-key-env", arguments.api_key_env.is_some()),
        ];
        if let Some((option, _)) = unused.into_iter().find(|(_, is_given)| *is_given) {
            return Err(Failure::usage(format!(
                "{option}: {given} says it in endpoints.toml: leave the option out"
            )));
        }
        return EndpointTarget::find(name, arguments.endpoints.as_deref())?.chat();
    }
    let key = arguments.api_key_env.as_deref();
    let at = |model: &str| plain_endpoint(given, model, key);
    match &arguments.model {
        Some(model) => at(model),
        None => at(&only_model(&at("unknown")?)?),
    }
}

/// The model that the server lists.
fn only_model(endpoint: &Endpoint) -> Result<String, Failure> {
    let client = ProbeClient::new(endpoint)?;
    let pause = |wait| {
        std::thread::sleep(wait);
        true
    };
    let listed = client.ask(0, ProbePath::Models, "", pause);
    let listed = listed.map_err(|failed| {
        Failure::usage(format!(
            "{}: {}; start the server, or name the model with --model",
            endpoint.base_url, failed.reason
        ))
    })?;
    let names: Vec<&str> = listed["data"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|model: &Value| model["id"].as_str())
        .collect();
    match names.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(Failure::usage(format!(
            "{}: the server lists no model: name it with --model",
            endpoint.base_url
        ))),
        several => Err(Failure::usage(format!(
            "{}: the server has {}: name one with --model",
            endpoint.base_url,
            several.join(", ")
        ))),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|value: &f64| value.is_finite() && *value > 0.0)
        .ok_or_else(|| "must be a number > 0".to_owned())
}
