//! `grpo-tui serve`: an OpenAI-compatible server of a model or a run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::device::{DeviceArguments, devices, gib, wait_for_one};
use super::output::eprint_line;
use super::{Failure, Outcome};
use crate::checkpoint::{ModelLocation, SharedBase};
use crate::config::{BasePrecision, ThinkingBudget, TrainConfig};
use crate::hub::{ModelSource, embedded_model_names};
use crate::kernels::device::Engine;
use crate::plan::CONTEXT_BYTES;
use crate::prompts::template_options;
use crate::rollout::{ThinkingLimit, ThreadPool};
use crate::run::{
    PROVENANCE, ReadyPipe, RunDirectory, RunError, RunFolders, RunReference, RunServer,
    ServerFolder, task_folder,
};
use crate::score::{ReadyModel, Task};
use crate::serve::{ApiKey, Conditions, Place, ServedModel, Settings, serve};
use crate::task::TEMPLATE_KWARGS;
use crate::text::{TemplateOptions, Thinking};

/// The default for a model that is not a run's.
const MAX_COMPLETION_TOKENS: usize = 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Model: a model or adapter folder, a GGUF file, a Hugging Face name, an embedded model (`tiny`, `tiny-sql`, `tiny-tools`,
    /// `tiny-shell`, `tiny-python`, `tiny-assistant`), or RUN, RUN@STEP, RUN@best, RUN@last
    model: String,
    /// Serve another adapter of the same base, selected by a request's `model`; the base is loaded once; repeatable
    #[arg(long = "adapter", value_name = "NAME=RUN", value_parser = adapter)]
    adapters: Vec<(String, String)>,
    /// Address and port; addresses other than loopback need --api-key-env; port 0: any free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Serve this user on a Unix socket in this folder instead, until idle or a run waits for the device; started by `sample --worker`
    #[arg(long, value_name = "DIR", hide = true, conflicts_with_all = ["listen", "adapters", "api_key_env"])]
    socket: Option<PathBuf>,
    /// With --socket: until standard input ends, on a device that others may use; started for a judge
    #[arg(long, hide = true, requires = "socket")]
    owned: bool,
    /// Environment variable with the key that clients must send
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,
    /// Default and maximum of a request's completion tokens [default: the run's own, else 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_completion_tokens: Option<u32>,
    /// Maximum of waiting requests; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    queue: u32,
    /// Precision of the frozen matrices, as the configuration key: bf16, fp8 or nf4 [default: the run's own, else bf16]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(BasePrecision::NAMES))]
    base_precision: Option<String>,
    /// CORS origin whose pages may send requests, such as https://chat.example; repeatable
    #[arg(long = "cors-origin", value_name = "ORIGIN", value_parser = origin)]
    origins: Vec<String>,
    /// Runs folder [default: the workspace's runs/, else the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArguments,
    /// Hold the server to this much of the GPU's memory, such as 22GiB [default: the model, and three quarters of what it leaves free]
    #[arg(long, value_name = "SIZE", value_parser = gib)]
    gpu_memory: Option<u64>,
    /// CPU threads; 0: all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let Arguments {
        model: name,
        adapters,
        listen,
        api_key_env,
        max_completion_tokens,
        queue,
        origins,
        ..
    } = arguments;
    let named = std::iter::once(&name)
        .chain(adapters.iter().map(|(name, _)| name))
        .collect::<Vec<_>>();
    if let Some((_, twice)) = named
        .iter()
        .enumerate()
        .find(|(index, name)| named[..*index].contains(name))
    {
        return Err(Failure::usage(format!(
            "--adapter {twice}=...: `{twice}` is served already; choose another name"
        )));
    }
    let key = api_key_env.as_deref().map(key).transpose()?;
    if key.is_none() && !listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "--listen {listen}: other machines can reach this address: set a key with --api-key-env NAME, or listen on 127.0.0.1"
        )));
    }
    let run_folders = RunFolders::discover(arguments.runs.as_deref(), &std::env::current_dir()?);
    let precision = arguments.base_precision.as_deref();
    let precision = precision.and_then(BasePrecision::from_name);
    let is_socket = arguments.socket.is_some();
    let is_owned = arguments.owned;
    let (place, engine) = match arguments.socket {
        Some(folder) if is_owned => owned(&ServerFolder::at(&folder), arguments.device)?,
        Some(folder) => match on_socket(&ServerFolder::at(&folder), arguments.device)? {
            Some(found) => found,
            None => return Ok(ExitCode::SUCCESS),
        },
        None => (Place::Address(listen), arguments.device.engine()?),
    };
    if let Some(gib) = arguments.gpu_memory {
        if engine.device.is_cpu() {
            return Err(Failure::usage(
                "--gpu-memory: the server computes on the CPU; leave it out",
            ));
        }
        engine.limit_memory(gib << 30, CONTEXT_BYTES)?;
    }
    let located = ModelLocation::find(&name, &run_folders)?;
    let run = match &located {
        ModelLocation::Run { run, .. } => Some(run.path().to_owned()),
        _ => None,
    };
    let digest = is_owned.then(|| located.digest(&run_folders)).transpose()?;
    let ((own_limit, budget), trained) = match &located {
        // Clients of the program's own have their own limits, and render prompts; those of a judge have messages.
        ModelLocation::Run { run, .. } if is_owned => ((usize::MAX, None), Some(options_of(run)?)),
        _ if is_socket => ((usize::MAX, None), None),
        ModelLocation::Run { run, .. } => (limits(&run.file().config), Some(options_of(run)?)),
        ModelLocation::Model(source) | ModelLocation::Adapter(source) => promoted(source).map_or(
            ((MAX_COMPLETION_TOKENS, None), None),
            |(config, options)| (limits(&config), Some(options)),
        ),
    };
    // The embedded models were trained on tasks without.
    let is_embedded = embedded_model_names().any(|known| known == name);
    let (name, alias) = match own_name(&name) {
        Some(own) if !is_owned && adapters.iter().all(|(known, _)| *known != own) => {
            (own, Some(name))
        }
        _ => (name, None),
    };
    let pool = ThreadPool::for_engine(&engine, arguments.threads)?;
    let runs: Vec<String> = adapters.iter().map(|(_, run)| run.clone()).collect();
    let SharedBase {
        model,
        tokenizer,
        adapter_slot,
        own,
        others,
    } = SharedBase::open(
        located,
        (&runs, is_socket),
        precision,
        &run_folders,
        &engine,
    )?;
    let of_adapters = adapters.iter().filter_map(|(name, run)| {
        let run = run_folders.find(&RunReference::parse(run).run).ok()?;
        Some((run.path().to_owned(), name.clone()))
    });
    let of_adapters: Vec<_> = of_adapters.collect();
    let others = adapters
        .into_iter()
        .map(|(name, _)| name)
        .zip(others.into_iter().map(Some));
    let base = own
        .filter(|_| is_socket)
        .map(|_| (ServerFolder::BASE.to_owned(), None));
    let names: Vec<(String, Option<u32>)> = std::iter::once((name, own))
        .chain(others)
        .chain(base)
        .collect();
    let max_completion_tokens = max_completion_tokens.map_or(own_limit, |tokens| tokens as usize);
    let device = engine.name();
    let shown = names
        .iter()
        .map(|(name, _)| name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(note) = tokenizer.stop_note(&shown) {
        eprint_line(&format!("warning: {note}"));
    }
    let may_reason = trained.is_some() || tokenizer.has_thinking_switch();
    let template = trained.unwrap_or_else(|| {
        if is_embedded {
            Thinking::Off
        } else {
            Thinking::On
        }
        .into()
    });
    let reasons = template.thinking == Thinking::On && may_reason;
    let tokenizer = Arc::new(tokenizer);
    let thinking_limit = budget
        .map(|budget| ThinkingLimit::new(&tokenizer, budget))
        .transpose()?;
    let served = ServedModel {
        engine,
        model,
        tokenizer,
        adapter_slot,
        names,
        alias,
        template,
        reasons,
        thinking_limit,
        max_completion_tokens,
    };
    let of_run = run.map(|run| (run, served.names[0].0.clone()));
    let settings = Settings {
        place,
        key,
        queued: queue as usize,
        origins,
    };
    let mut announced = Vec::new();
    let on_listening = |address: Option<SocketAddr>| {
        if let Some(digest) = digest {
            // The process that has started this one reads one line.
            println!("{}", serde_json::json!(ReadyModel { digest }));
            return;
        }
        let Some(address) = address else {
            return println!("serving {shown} on a Unix socket ({device})");
        };
        let place = format!("http://{address}/v1");
        for (run, model) in of_run.into_iter().chain(of_adapters) {
            let server = RunServer::new(place.clone(), model, api_key_env.clone());
            // The workbench offers it; a run that is read only is served as well.
            announced.extend(server.announce(&run));
        }
        println!("serving {shown} on {place} ({device})");
    };
    serve(served, settings, &pool, on_listening, eprint_line)?;
    drop(announced);
    Ok(ExitCode::SUCCESS)
}

/// What requests are rendered with that say nothing else: of a run of several tasks as the first is.
fn options_of(run: &RunDirectory) -> Result<TemplateOptions, Failure> {
    let load =
        |task: &str| Task::load(&task_folder(run.path(), task)).map(|task| template_options(&task));
    let mut options = run
        .task_names()
        .into_iter()
        .map(load)
        .collect::<Result<Vec<_>, _>>()?;
    if options.windows(2).any(|pair| pair[0] != pair[1]) {
        eprint_line(&format!(
            "warning: the tasks of {} differ in `thinking` or `chat_template_kwargs`: requests without their own are rendered as those of {}",
            run.id(),
            run.task_names()[0]
        ));
    }
    Ok(options.remove(0))
}

/// Listens on a Unix socket for the process that has started this one, and ends with it. The device is not waited for: that
/// process may be the run that computes on it.
fn owned(folder: &ServerFolder, device: DeviceArguments) -> Result<(Place, Engine), Failure> {
    let (lock, listener) = folder.listen()?;
    std::thread::Builder::new()
        .name("owner".to_owned())
        .spawn(|| {
            // Until the other end is closed, by whatever ends that process.
            _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        })?;
    Ok((
        Place::Socket(
            listener,
            Conditions {
                lock,
                slot: None,
                idle: Duration::MAX,
            },
        ),
        device.engine()?,
    ))
}

/// Listens on a Unix socket, then waits for a device as a run does; `None`: there is a server. Clients show the last line of
/// the log, so all that it does is said there.
fn on_socket(
    folder: &ServerFolder,
    device: DeviceArguments,
) -> Result<Option<(Place, Engine)>, Failure> {
    let handshake = ReadyPipe::from_environment();
    let devices = devices(&device.compute())?;
    let (lock, listener) = match folder.listen() {
        Err(RunError::InUse { .. }) => return Ok(None),
        listening => listening?,
    };
    handshake.ready();
    let slot = wait_for_one(&devices, || false)?;
    let slot = slot.ok_or_else(|| Failure::failed("there is no device to wait for"))?;
    eprint_line("loading");
    let engine = super::device::engine(&slot)?;
    let seconds = std::env::var("GRPO_TUI_SAMPLER_IDLE")
        .ok()
        .and_then(|text| text.parse().ok());
    let idle = Duration::from_secs(seconds.unwrap_or(600));
    Ok(Some((
        Place::Socket(
            listener,
            Conditions {
                lock,
                slot: Some(slot),
                idle,
            },
        ),
        engine,
    )))
}

/// What the folder of a promoted checkpoint says of its run: the configuration, and whether its task has the model
/// reason.
pub(super) fn promoted(source: &ModelSource) -> Option<(TrainConfig, TemplateOptions)> {
    let text = source
        .exists(PROVENANCE)
        .then(|| source.read(PROVENANCE).ok())??;
    let mut document: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let thinking = if document["thinking"].as_bool()? {
        Thinking::On
    } else {
        Thinking::Off
    };
    let kwargs = serde_json::from_value(document[TEMPLATE_KWARGS].take()).unwrap_or_default();
    Some((
        serde_json::from_value(document["config"].take()).ok()?,
        TemplateOptions { thinking, kwargs },
    ))
}

/// The most tokens of a completion, and of its think block.
fn limits(config: &TrainConfig) -> (usize, Option<ThinkingBudget>) {
    (config.max_completion_tokens, config.thinking_budget())
}

/// The own name of a folder or file that is named by its path, such as `.`.
fn own_name(name: &str) -> Option<String> {
    let path = Path::new(name);
    let whole = path.canonicalize().ok()?;
    let own = path.file_name().or(whole.file_name())?.to_str()?;
    (own != name).then(|| own.to_owned())
}

/// The key in an environment variable; it is in no message.
fn key(variable: &str) -> Result<ApiKey, Failure> {
    let refuse = |why: &str| Failure::usage(format!("--api-key-env {variable}: {why}"));
    let key = std::env::var(variable)
        .map_err(|_| refuse("the environment variable is not set, or is not text"))?;
    let is_sendable = key.bytes().all(|byte| byte.is_ascii_graphic());
    match key.len() >= 8 && is_sendable {
        true => Ok(ApiKey::new(&key)),
        false => Err(refuse(
            "a key has at least 8 characters, all of them visible ASCII",
        )),
    }
}

/// As a browser writes it: scheme, host and port, without a path.
fn origin(text: &str) -> Result<String, String> {
    let host = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let is_host = |host: &str| {
        !host.is_empty()
            && host.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte)
            })
    };
    match host.is_some_and(is_host) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{text}`: write scheme, host and port in lower case, without a path: https://chat.example"
        )),
    }
}

fn adapter(text: &str) -> Result<(String, String), String> {
    let parts = text
        .split_once('=')
        .map(|(name, run)| (name.trim(), run.trim()));
    let (name, run) = parts
        .filter(|(name, run)| !name.is_empty() && !run.is_empty())
        .ok_or_else(|| format!("`{text}`: write NAME=RUN, for example trained=RUN@best"))?;
    Ok((name.to_owned(), run.to_owned()))
}
