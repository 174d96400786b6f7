//! `bench`: measures the speed of this machine or of a server, as JSON or as a table.

use clap::Subcommand;
use serde::Serialize;

use super::{
    GpuBench, Measurement, ServerLoad, ToolCalls, measure_cpu, measure_gpu, measure_server,
};
use crate::Fault;
use grpo_tui_core::config::BasePrecision;
use grpo_tui_core::format::percent_short;
use grpo_tui_core::hub::{find_model, named_shape, shape_names};
use grpo_tui_core::plan::CONTEXT_BYTES;
use grpo_tui_core::run::{EventBody, EventReader, LogItem, RunFolders};
use grpo_tui_engine::kernels::device::Engine;
use grpo_tui_engine::rollout::ThreadPool;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure matmul, prefill, decode and training of the embedded model's shape on the CPU
    Cpu {
        /// Model shape: a folder or a Hugging Face name
        #[arg(long, default_value = "tiny")]
        shape: String,
        /// CPU threads; 0: all cores
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Measure GPU peaks, then prefill, decode and full steps at a model's shape with random weights
    Gpu(Box<GpuArguments>),
    /// Measure a running OpenAI-compatible server, such as `serve` or vLLM: tokens/s, time to first token, latency
    Serve(Box<ServeArguments>),
}

#[derive(Debug, clap::Args)]
struct ServeArguments {
    /// Server URL
    #[arg(long, default_value = "http://127.0.0.1:8000/v1")]
    url: String,
    /// Model as the server names it
    #[arg(long, value_name = "M")]
    model: String,
    /// Requests at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Total requests, after one uncounted request per client [default: eight per client]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    requests: Option<u32>,
    /// Prompt tokens
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    prompt_tokens: u32,
    /// New tokens per completion; stop tokens are ignored
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    new_tokens: u32,
    /// Prompts are random token ids below this number
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    vocabulary: u32,
    /// Sampling temperature; 0: greedy
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// Nucleus of every request
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Most likely tokens that every request samples from; 0: all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: u32,
    /// Request whole answers instead of streams
    #[arg(long)]
    no_stream: bool,
    /// Environment variable with the server's key
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct GpuArguments {
    /// Model shape: qwen3-0.6b, -1.7b, -4b, -8b, -14b, -32b, or a model folder or Hugging Face name (only config.json
    /// is read)
    #[arg(long, default_value = "qwen3-8b")]
    shape: String,
    /// Prompts x completions of a step; repeatable [default: 1x4, 8x8, 32x8]
    #[arg(long = "step", value_name = "PxC", value_parser = step_shape)]
    steps: Vec<(usize, usize)>,
    /// Decode batch size; repeatable [default: 1, 4, 16, 64, 256; none with --step]
    #[arg(long = "batch", value_name = "B", value_parser = clap::value_parser!(u16).range(1..))]
    batches: Vec<u16>,
    /// Prompt tokens
    #[arg(long, default_value_t = 100)]
    prompt_tokens: usize,
    /// New tokens per completion
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    new_tokens: u32,
    /// Measure rollouts of completions of different lengths:
    /// token counts at evenly spaced quantiles, such as 8,30,60,150,512, or a run, whose lengths are replayed
    #[arg(long, value_name = "LENGTHS|RUN")]
    lengths: Option<String>,
    /// Measure conversations of so many calls instead: rollouts kept in the cache, prefilled at each call, and with all
    /// waiting for each other, with the share of time in which all wait for calls
    #[arg(long, value_name = "N", conflicts_with = "lengths")]
    calls: Option<u8>,
    /// What a call takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50, requires = "calls")]
    call_milliseconds: u32,
    /// Tokens of a call's reply
    #[arg(long, value_name = "N", default_value_t = 48, requires = "calls", value_parser = clap::value_parser!(u16).range(1..))]
    reply_tokens: u16,
    /// LoRA rank
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    lora_rank: u32,
    /// Adapters on the experts of a mixture, too, as the configuration key
    #[arg(long)]
    lora_experts: bool,
    /// Precision of the frozen matrices, as the configuration key: bf16, fp8 or nf4
    #[arg(long, default_value = "bf16", value_parser = clap::builder::PossibleValuesParser::new(BasePrecision::NAMES))]
    base_precision: String,
    /// Tokens per micro-batch in training; fewer where they do not fit
    #[arg(long, default_value_t = 8192)]
    tokens_per_micro_batch: usize,
    /// Measure steps with activations kept (never) or recomputed (always) alone, not both
    #[arg(long, value_parser = ["never", "always"])]
    recompute: Option<String>,
    /// Take this much of the GPU's memory, such as 22GiB
    #[arg(long, value_name = "SIZE", value_parser = gib)]
    gpu_memory: Option<u64>,
    /// GPU index as CUDA numbers them
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "cpu")]
    gpu: usize,
    /// Use the CPU
    #[arg(long)]
    cpu: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn step_shape(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('x').and_then(|(prompts, completions)| {
        Some((
            prompts.trim().parse().ok()?,
            completions.trim().parse().ok()?,
        ))
    });
    parts
        .filter(|&(prompts, completions)| prompts > 0 && completions > 0)
        .ok_or_else(|| format!("`{text}`: write prompts x completions, such as 8x8"))
}

/// A thousand lengths between the given quantiles, or the lengths of all completions of a run.
fn lengths(text: &str) -> Result<Vec<usize>, Fault> {
    const COUNT: usize = 1000;
    let quantiles: Option<Vec<f64>> = text
        .split(',')
        .map(|part| part.trim().parse().ok())
        .collect();
    if let Some(quantiles) = quantiles {
        let rises = quantiles.windows(2).all(|pair| pair[0] <= pair[1]);
        let bounded = quantiles
            .iter()
            .all(|quantile| (1.0..1e6).contains(quantile));
        if !rises || !bounded || quantiles.len() < 2 {
            return Err(format!(
                "`{text}`: write two or more rising token counts, such as 8,30,60,150,512"
            )
            .into());
        }
        let at = |index: usize| {
            let place = index as f64 / (COUNT - 1) as f64 * (quantiles.len() - 1) as f64;
            let low = (place as usize).min(quantiles.len() - 2);
            let share = place - low as f64;
            (quantiles[low] * (1.0 - share) + quantiles[low + 1] * share).round() as usize
        };
        return Ok((0..COUNT).map(at).collect());
    }
    let run = RunFolders::discover(None, &std::env::current_dir()?).find(text)?;
    let mut lengths = Vec::new();
    EventReader::new(&run.events_path()).each(|item| {
        if let LogItem::Event(event) = item
            && let EventBody::Group(group) = event.body
        {
            lengths.extend(group.token_counts);
        }
    })?;
    if lengths.is_empty() {
        return Err(format!("run {} has no rollouts yet", run.id()).into());
    }
    Ok(lengths)
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Fault> {
    let (shape, threads, json) = match arguments.command {
        Command::Cpu {
            shape,
            threads,
            json,
        } => (shape, threads, json),
        Command::Gpu(arguments) => return run_gpu(&arguments),
        Command::Serve(arguments) => return run_serve(*arguments),
    };
    let threads = ThreadPool::new(threads)?;
    let config = find_model(&shape)?.config()?;
    let results = measure_cpu(&config, &threads)?;
    let device = format!("cpu, {} threads", threads.count());
    if json {
        return print_json(
            serde_json::json!({ "device": device, "shape": shape, "results": results }),
        );
    }
    println!("{device}, shape {shape}");
    results
        .iter()
        .for_each(|measurement| println!("{}", line(measurement)));
    Ok(())
}

fn run_gpu(arguments: &GpuArguments) -> Result<(), Fault> {
    let config = match named_shape(&arguments.shape) {
        Some(config) => config,
        None => find_model(&arguments.shape)
            .and_then(|source| source.config())
            .map_err(|error| format!("{error}; known shapes: {}", shape_names().join(", ")))?,
    };
    let default = GpuBench::default();
    let bench = GpuBench {
        prompt_tokens: arguments.prompt_tokens.max(1),
        new_tokens: arguments.new_tokens as usize,
        lora_rank: arguments.lora_rank as usize,
        lora_experts: arguments.lora_experts,
        base_precision: BasePrecision::from_name(&arguments.base_precision)
            .unwrap_or(default.base_precision),
        decode_batches: if arguments.batches.is_empty() && arguments.steps.is_empty() {
            default.decode_batches
        } else {
            arguments.batches.iter().map(|&b| b.into()).collect()
        },
        steps: if arguments.steps.is_empty() {
            default.steps
        } else {
            arguments.steps.clone()
        },
        tokens_per_micro_batch: arguments.tokens_per_micro_batch.max(1),
        lengths: arguments
            .lengths
            .as_deref()
            .map_or_else(|| Ok(Vec::new()), lengths)?,
        tools: arguments.calls.map(|calls| ToolCalls {
            calls: calls.into(),
            milliseconds: arguments.call_milliseconds.into(),
            reply_tokens: arguments.reply_tokens.into(),
        }),
        recompute: arguments
            .recompute
            .as_ref()
            .map_or(default.recompute, |name| vec![name == "always"]),
    };
    let engine = if arguments.cpu {
        Engine::cpu()
    } else {
        Engine::gpu(arguments.gpu)?
    };
    if let Some(gib) = arguments.gpu_memory {
        engine.limit_memory(gib << 30, CONTEXT_BYTES)?;
    }
    let device = engine.name();
    eprintln!("{device}, shape {}", arguments.shape);
    // Each figure is shown as soon as it is known: the benchmark takes minutes.
    let results = measure_gpu(&config, &engine, &bench, |measurement| {
        if arguments.json {
            eprintln!("{}", line(measurement))
        } else {
            println!("{}", line(measurement))
        }
    })?;
    if arguments.json {
        print_json(
            serde_json::json!({ "device": device, "shape": arguments.shape, "results": results }),
        )?;
    }
    Ok(())
}

fn run_serve(arguments: ServeArguments) -> Result<(), Fault> {
    let ServeArguments {
        url,
        model,
        clients,
        ..
    } = arguments;
    let variable = |name: String| {
        std::env::var(&name)
            .map_err(|_| format!("--api-key-env {name}: the environment variable is not set"))
    };
    let load = ServerLoad {
        url: url.trim_end_matches('/').to_owned(),
        model,
        clients: clients.into(),
        requests: arguments
            .requests
            .map_or(8 * usize::from(clients), |requests| requests as usize),
        prompt_tokens: arguments.prompt_tokens as usize,
        new_tokens: arguments.new_tokens as usize,
        vocabulary: arguments.vocabulary as usize,
        temperature: arguments.temperature,
        top_p: arguments.top_p,
        top_k: arguments.top_k,
        stream: !arguments.no_stream,
        key: arguments.api_key_env.map(variable).transpose()?,
    };
    let results = measure_server(&load)?;
    if arguments.json {
        return print_json(
            serde_json::json!({ "url": url, "model": load.model, "results": results }),
        );
    }
    results
        .iter()
        .for_each(|measurement| println!("{}", line(measurement)));
    Ok(())
}

fn line(
    Measurement {
        name,
        shape,
        batch,
        value,
        unit,
        of_limit,
        missing,
    }: &Measurement,
) -> String {
    let what = format!("{name:38} {shape:38} batch {batch:<4}");
    if let Some(why) = missing {
        return format!("{what} not measured: {why}");
    }
    let share = of_limit.map_or_else(String::new, |share| {
        format!("{:>4} of the measured peak", percent_short(share))
    });
    let digits = if value.abs() < 10.0 { 3 } else { 0 };
    format!("{what} {value:>10.digits$} {unit:9} {share}")
}

/// `--gpu-memory`: whole GiB.
fn gib(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("GiB").unwrap_or(text).trim();
    let found = number.parse().ok().filter(|gib| (1..=1024).contains(gib));
    found.ok_or_else(|| "give whole GiB from 1 to 1024, such as 22GiB".to_owned())
}

fn print_json(document: impl Serialize) -> Result<(), Fault> {
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
