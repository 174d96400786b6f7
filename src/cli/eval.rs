//! `grpo-tui eval`: evaluates one to three models on the same held-out prompts and tests the
//! significance of the difference.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::device::DeviceArguments;
use super::endpoints::TargetInput;
use super::eval_completions;
use super::eval_report::{ReportArguments, about, document, result};
use super::eval_status::EvalStatus;
use super::output::eprint_line;
use super::rows::Rows;
use super::runs::{gpu_price, price};
use super::targets::{Target, common_limit, lengths};
use super::variants::{Variant, Variants};
use super::{Failure, Outcome, task_with_agent};
use crate::confidence::why_without;
use crate::constraint::TaskConstraints;
use crate::dataset::PromptRow;
use crate::eval::{EvalRequest, evaluate};
use crate::format::{counted, duration, percent};
use crate::kernels::device::Engine;
use crate::policy::{ConverseSettings, EvalWatch, Policy, PolicyVersion, ScoredTask, prepare_rows};
use crate::report::{self, MAX_EVALS, Versus};
use crate::rollout::{RolloutMemory, Sampling, ThinkingLimit, ThreadPool};
use crate::run::{
    EvalFolder, EvalProgress, EvalRecord, HeldOut, MaskCost, RunFolders, SpeedSummary, TestLook,
    sha256,
};
use crate::score::{Scorer, Task, for_model};
use crate::task::{PromptSet, SetName};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`)
    task: String,
    /// Model and its name in the results; one to three. M: a model or adapter folder, a GGUF file, a Hugging Face name, an
    /// embedded model (`tiny`, `tiny-sql`, `tiny-tools`, `tiny-shell`, `tiny-python`, `tiny-assistant`), RUN, RUN@STEP, RUN@best, RUN@last;
    /// constrained:M, any of these with decoding constrained to the task's schema, tools or pattern; or endpoint:NAME, a
    /// server in endpoints.toml (docs/endpoints.md), which receives the prompts
    #[arg(
        long = "model",
        value_name = "NAME=M",
        required_unless_present = "completions"
    )]
    models: Vec<String>,
    /// Answers that are written already, instead of a model: JSONL as of `score`, or of another program's log by
    /// `python3 -m grpo_tui.eval_logs` (docs/eval-logs.md); one to three
    #[arg(long, value_name = "NAME=FILE", conflicts_with_all = ["models", "temperature", "samples", "confidence"])]
    completions: Vec<String>,
    /// Prompt set: test, eval, train, or a file of prompt rows
    #[arg(long, value_name = "SET", default_value = "test")]
    on: SetName,
    /// Use only the first N prompts of the set, for a quick look at a slow model
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Sampling temperature; 0: greedy
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true, value_parser = temperature)]
    temperature: f64,
    /// Completions per prompt; more than one needs a temperature above 0
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    samples: u32,
    /// Give each value of a JSON answer its probability, and say which confidence to trust: on the test set the eval
    /// set is sampled, too, to choose a threshold and a temperature (docs/confidence.md)
    #[arg(long)]
    confidence: bool,
    /// System prompt of a model instead of the task's, to compare prompts on one model or several; repeatable
    #[arg(long = "system", value_name = "NAME=FILE")]
    systems: Vec<String>,
    /// Train rows with their answers before each prompt of a model, chosen by --seed; repeatable
    #[arg(long, value_name = "NAME=N")]
    few_shot: Vec<String>,
    /// Endpoints file [default: the workspace's endpoints.toml, then ~/.config/grpo-tui/endpoints.toml]
    #[arg(long, value_name = "FILE")]
    endpoints: Option<PathBuf>,
    /// Send the prompt ID to endpoints although it seems to contain a secret; repeatable
    #[arg(long, value_name = "ID")]
    allow_secret: Vec<String>,
    /// Program that holds the conversations, such as "python3 agent.py": the task's [agent]
    #[arg(long, value_name = "COMMAND")]
    agent: Option<String>,
    /// Sampling seed; not sent to endpoints
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Maximum completion tokens, for all models [default: the run's own, else the task's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_completion_tokens: Option<u32>,
    /// Runs folder [default: the workspace's runs/, else the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArguments,
    /// GPU price per hour, for the cost of models on this machine [default: gpu_price_per_hour of
    /// ~/.config/grpo-tui/config.toml]
    #[arg(long, value_name = "PRICE", value_parser = price)]
    gpu_price_per_hour: Option<f64>,
    /// CPU threads; 0: all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Folder to create with every answer, the task and the result. The same command with the folder of an interrupted
    /// eval, or of one with endpoint errors, computes only the missing answers
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    report: ReportArguments,
}

pub(super) fn run(mut arguments: Arguments) -> Outcome {
    arguments.report.check()?;
    let is_price_given = arguments.gpu_price_per_hour.is_some();
    arguments.gpu_price_per_hour = gpu_price(arguments.gpu_price_per_hour)?;
    let task = task_with_agent(&arguments.task, arguments.agent.as_deref())?;
    let scorer = Scorer::new(&task)?;
    let run_folders = RunFolders::discover(arguments.runs.as_deref(), &std::env::current_dir()?);
    let mut rows = Rows::on(&task, &arguments.on)?;
    let is_test = is_test_set(&task, &rows);
    rows.rows
        .truncate(arguments.limit.map_or(usize::MAX, |limit| limit as usize));
    if !arguments.completions.is_empty() {
        return recorded(&arguments, &task, &rows, is_test, &run_folders);
    }
    let fitting = match arguments.confidence {
        true => {
            check_confidence(&task, &rows)?;
            fitting_rows(&arguments, &task)?
        }
        false => None,
    };
    let status = EvalStatus::start(arguments.out.as_deref())?;
    let targets = targets(&arguments, &task, &run_folders)?;
    let endpoint = targets.iter().find(|target| target.endpoint.is_some());
    if let Some((endpoint, _)) = endpoint.zip(task.agent()) {
        let message = format!(
            "--model {}: {} has an agent, which asks the model that is trained: take a model on this machine",
            endpoint.name, task.name
        );
        return Err(Failure::usage(message));
    }
    let has_expected = rows.rows.iter().any(|row| row.expected.is_some());
    arguments.report.check_expected(has_expected, &rows.label)?;
    let named = Variants {
        systems: &arguments.systems,
        few_shot: &arguments.few_shot,
        seed: arguments.seed,
    };
    named.check(
        &targets
            .iter()
            .map(|target| target.name.as_str())
            .collect::<Vec<_>>(),
    )?;
    let resolve = |rows: &Rows| {
        let variants = targets.iter().map(|target| {
            let scorer = Scorer::new(&target.judged_task(&task, &run_folders)?)?;
            named.resolve(&target.name, &task, &scorer, rows)
        });
        variants.collect::<Result<Vec<_>, Failure>>()
    };
    let variants = resolve(&rows)?;
    let fitting_variants = fitting.as_ref().map(resolve).transpose()?;
    let own = common_limit(&targets);
    let limit = arguments
        .max_completion_tokens
        .map_or(own.completion_tokens, |limit| limit as usize);
    // Prompts that may not be sent and unsupported constraints are errors before sampling.
    let asked = TargetInput {
        status: &status,
        task: &task,
        rows: &rows,
        samples: arguments.samples as usize,
        max_completion_tokens: limit,
        thinking: own.thinking,
        temperature: arguments.temperature,
        allowed_secrets: &arguments.allow_secret,
        folder: None,
        confidence: arguments.confidence,
    };
    let sets = fitting.as_ref().zip(fitting_variants.as_ref());
    for (rows, variants) in std::iter::once((&rows, &variants)).chain(sets) {
        for (target, variant) in targets.iter().zip(variants) {
            let asked = TargetInput { rows, ..asked }.for_variant(variant.as_ref());
            target
                .endpoint
                .as_ref()
                .map_or(Ok(()), |endpoint| endpoint.check(&asked))?;
            target.check_constraints(asked.task, asked.rows, &run_folders)?;
        }
    }
    let settings = settings(&arguments, &task, &targets, &variants, limit);
    let kept = arguments
        .out
        .as_ref()
        .map(|out| keep(out, &task, &rows, (&settings, arguments.limit.is_some())))
        .transpose()?;
    let (folder, earlier) = kept.unzip();
    let counted_look = earlier
        .as_ref()
        .and_then(|earlier| serde_json::from_value(earlier.as_ref()?["look"].clone()).ok());
    // When endpoints are asked again, the local samples already exist.
    let sampled = folder.as_ref().filter(|_| earlier.flatten().is_some());
    let asked = TargetInput {
        folder: folder.as_ref(),
        ..asked
    };
    let about = about(&task, &rows);
    let mut engine = None;
    let mut evals = Vec::with_capacity(targets.len());
    let mut answers = |target: &Target, asked: &TargetInput<'_>, loaded: &mut Option<Policy>| {
        let rows = asked.rows;
        eprint_line(&format!(
            "{}: {} on {}",
            target.name,
            target.model,
            counted(rows.rows.len(), &format!("{} prompt", rows.set))
        ));
        let (records, speed) = match (&target.endpoint, sampled, &mut engine) {
            (Some(endpoint), ..) => (endpoint.records(&target.name, asked, &scorer)?, None),
            (None, Some(folder), _) => {
                eprint_line(&format!("{}: all answers are in the folder", target.name));
                folder.read(&rows.set, &target.name)?
            }
            (None, None, Some(engine)) => {
                sample(&arguments, target, &run_folders, (engine, loaded), asked)?
            }
            (None, None, none) => {
                let engine = none.insert(arguments.device.engine()?);
                if is_price_given && engine.device.is_cpu() {
                    eprint_line(
                        "--gpu-price-per-hour: models are sampled on the CPU, so their cost is n/a",
                    );
                }
                sample(&arguments, target, &run_folders, (engine, loaded), asked)?
            }
        };
        if let Some(folder) = &folder {
            folder.write(&rows.set, &target.name, &records)?;
        }
        Ok::<_, Failure>((records, speed))
    };
    for (place, (target, variant)) in targets.iter().zip(&variants).enumerate() {
        let (start, mut loaded) = (Instant::now(), None);
        let fitted_on = match &fitting {
            Some(rows) => {
                let variant = fitting_variants
                    .as_ref()
                    .and_then(|all| all[place].as_ref());
                let asked = TargetInput { rows, ..asked }.for_variant(variant);
                let (records, _) = answers(target, &asked, &mut loaded)?;
                Some((rows.set.clone(), records))
            }
            None => None,
        };
        let (records, speed) = answers(target, &asked.for_variant(variant.as_ref()), &mut loaded)?;
        let description = variant
            .as_ref()
            .map(Variant::description)
            .unwrap_or_default();
        let mut result = report::EvalResult {
            prompts: description,
            ..result(&about, target.name.clone(), records)
        };
        result.summary.speed = speed;
        if let (Some(confidence), Some((set, fitted_on))) =
            (&mut result.summary.confidence, fitted_on)
        {
            confidence.held_out = Some(HeldOut::new(set, &fitted_on, &result.records));
        }
        let valid = percent(result.summary.valid);
        let time = duration(start.elapsed().as_secs_f64());
        eprint_line(&format!("{}: valid {valid}  ({time})", target.name));
        evals.push(result);
    }
    let look = match (is_test, counted_look) {
        (true, None) => count_look(&task, &run_folders, &evals),
        (_, counted) => counted,
    };
    for eval in &mut evals {
        eval.look.clone_from(&look);
    }
    let versus = Versus::from_evals(evals)?;
    let document = document(&versus, settings);
    if let Some(folder) = &folder {
        folder.finish(&document)?;
    }
    arguments.report.write(&versus, document)
}

/// An eval of the answers in files.
fn recorded(
    arguments: &Arguments,
    task: &Task,
    rows: &Rows,
    is_test: bool,
    run_folders: &RunFolders,
) -> Outcome {
    let files = &arguments.completions;
    if files.len() > MAX_EVALS {
        let message = format!("{} files: at most {MAX_EVALS} --completions", files.len());
        return Err(Failure::usage(message));
    }
    let has_expected = rows.rows.iter().any(|row| row.expected.is_some());
    arguments.report.check_expected(has_expected, &rows.label)?;
    let (scorer, about) = (Scorer::new(task)?, about(task, rows));
    let mut evals: Vec<report::EvalResult> = Vec::new();
    let mut models = Map::new();
    for text in files {
        let (name, records) = eval_completions::records(text, task, &scorer, rows)?;
        if models.insert(name.clone(), json!(text)).is_some() {
            let message = format!("--completions {text}: duplicate name `{name}`: write NAME=FILE");
            return Err(Failure::usage(message));
        }
        evals.push(result(&about, name, records));
    }
    if is_test {
        let look = count_look(task, run_folders, &evals);
        for eval in &mut evals {
            eval.look.clone_from(&look);
        }
    }
    let settings = Map::from_iter([
        ("models".to_owned(), Value::Object(models)),
        ("task".to_owned(), json!(task.name)),
        ("set".to_owned(), json!(arguments.on)),
        ("limit".to_owned(), json!(arguments.limit)),
    ]);
    let versus = Versus::from_evals(evals)?;
    let document = document(&versus, settings.clone());
    if let Some(out) = &arguments.out {
        let (folder, _) = keep(out, task, rows, (&settings, arguments.limit.is_some()))?;
        for eval in &versus.evals {
            folder.write(&rows.set, &eval.name, &eval.records)?;
        }
        folder.finish(&document)?;
    }
    arguments.report.write(&versus, document)
}

/// Whether these are the prompts of the task's test set, by whatever name.
fn is_test_set(task: &Task, rows: &Rows) -> bool {
    rows.set == PromptSet::Test.into()
        || Rows::from_set(task, PromptSet::Test).is_ok_and(|test| {
            let prompts = |rows: &Rows| -> BTreeSet<u64> {
                rows.rows.iter().map(PromptRow::prompt_hash).collect()
            };
            prompts(&test) == prompts(rows)
        })
}

/// Counts a look at the test set; one that cannot be counted is shown without its number. The same answers again are no
/// other look.
fn count_look(
    task: &Task,
    run_folders: &RunFolders,
    evals: &[report::EvalResult],
) -> Option<TestLook> {
    let records = evals.iter().flat_map(|eval| &eval.records);
    let answers = records.map(|record| (&record.prompt_id, record.sample, &record.completion));
    let answers = sha256(json!(answers.collect::<Vec<_>>()).to_string().as_bytes());
    let names: Vec<&str> = evals.iter().map(|eval| eval.name.as_str()).collect();
    let what = format!("eval of {}, answers {}", names.join(", "), &answers[..16]);
    match TestLook::count(run_folders.for_new_runs(), task, &what) {
        Ok(look) => Some(look),
        Err(error) => {
            eprint_line(&format!(
                "warning: this look at the test set is not counted: {error}"
            ));
            None
        }
    }
}

/// Records of a local model, and its speed. `loaded`: the model, once it is.
fn sample(
    arguments: &Arguments,
    target: &Target,
    run_folders: &RunFolders,
    (engine, loaded): (&Engine, &mut Option<Policy>),
    asked: &TargetInput<'_>,
) -> Result<(Vec<EvalRecord>, Option<Box<SpeedSummary>>), Failure> {
    let TargetInput {
        task,
        rows,
        samples,
        max_completion_tokens: limit,
        thinking,
        temperature,
        status,
        ..
    } = *asked;
    let policy = match loaded {
        Some(policy) => policy,
        none => {
            let threads = ThreadPool::for_engine(engine, arguments.threads)?;
            let (model, tokenizer) = target.load(run_folders, engine)?;
            none.insert(Policy::new(engine.clone(), model, tokenizer, threads))
        }
    };
    // Times and drafts are of these rows alone.
    policy.memory = RolloutMemory::default();
    let policy = &*policy;
    let tokenizer = &*policy.tokenizer;
    let task = &for_model(task, tokenizer);
    let scorer = &Scorer::new(task)?;
    let lengths = lengths(&policy.model, limit);
    let needs_grammar = target.is_constrained() || arguments.confidence;
    let grammar = needs_grammar
        .then(|| TaskConstraints::new(task, tokenizer))
        .transpose()?;
    let prompts = prepare_rows(task, &rows.label, rows.rows.clone(), tokenizer, lengths)?;
    let thinking = thinking
        .map(|budget| ThinkingLimit::new(&policy.tokenizer, budget))
        .transpose()?;
    let sampling = Sampling {
        thinking,
        ..Sampling::new(&policy.tokenizer, temperature, limit, arguments.seed)
    };
    let progress = EvalProgress {
        set: rows.set.clone(),
        target: target.name.clone(),
        ..EvalProgress::default()
    };
    let is_scored = rows.rows.iter().all(|row| row.turn_count() == 1);
    let mut watch = EvalWatch::new(progress, is_scored, |progress| status.show(progress));
    let tasks = [ScoredTask {
        task,
        scorer,
        max_prompt_tokens: lengths.prompt_limit(),
    }];
    let settings = ConverseSettings::new(&tasks, PolicyVersion::Trained, &sampling);
    let evaluated = evaluate(
        policy,
        &prompts,
        EvalRequest {
            samples,
            constraints: grammar.as_ref().filter(|_| target.is_constrained()),
            confidence: grammar.as_ref().filter(|_| arguments.confidence),
        },
        &settings,
        &mut watch,
    );
    drop(watch);
    status.end();
    let records = evaluated?;
    let overhead = target
        .is_constrained()
        .then_some(&policy.memory.mask_overhead);
    let price = arguments
        .gpu_price_per_hour
        .filter(|_| !engine.device.is_cpu());
    let speed = SpeedSummary::from_records(
        &records,
        price,
        overhead.map(|masks| MaskCost {
            masks: masks.masks(),
            seconds: masks.seconds(),
            waited_seconds: masks.waited_seconds(),
        }),
    );
    Ok((records, Some(Box::new(speed))))
}

fn targets(
    arguments: &Arguments,
    task: &Task,
    run_folders: &RunFolders,
) -> Result<Vec<Target>, Failure> {
    if arguments.models.len() > MAX_EVALS {
        return Err(Failure::usage(format!(
            "{} models: at most {MAX_EVALS} --model",
            arguments.models.len()
        )));
    }
    if arguments.samples > 1 && arguments.temperature == 0.0 {
        return Err(Failure::usage(format!(
            "--samples {} needs a temperature above 0: add --temperature 1",
            arguments.samples
        )));
    }
    let mut targets: Vec<Target> = Vec::new();
    for text in &arguments.models {
        let mut target = Target::find(text, task, run_folders, arguments.endpoints.as_deref())?;
        if let Some(endpoint) = target.endpoint.as_mut().filter(|_| arguments.confidence) {
            endpoint.keep_tokens();
        }
        if targets.iter().any(|other| other.name == target.name) {
            return Err(Failure::usage(format!(
                "--model {text}: duplicate name `{}`: write NAME=M",
                target.name
            )));
        }
        targets.push(target);
    }
    Ok(targets)
}

/// Creates the eval's folder, or opens it if it is of the same eval. Prompts other than a whole set
/// of the task are stored with their ids.
fn keep(
    out: &Path,
    task: &Task,
    rows: &Rows,
    (settings, is_limited): (&Map<String, Value>, bool),
) -> Result<(EvalFolder, Option<Value>), Failure> {
    let is_set = !is_limited && PromptSet::ALL.iter().any(|set| rows.set == (*set).into());
    let prompts = (!is_set).then(|| rows.lines());
    let prompts = prompts.as_ref().map(String::as_bytes);
    Ok(EvalFolder::create(out, &task.files()?, prompts, settings)?)
}

fn settings(
    arguments: &Arguments,
    task: &Task,
    targets: &[Target],
    variants: &[Option<Variant>],
    limit: usize,
) -> Map<String, Value> {
    let models: Map<String, Value> = targets
        .iter()
        .map(|target| (target.name.clone(), json!(target.model)))
        .collect();
    let endpoints = targets
        .iter()
        .filter_map(|target| Some((target.name.clone(), target.endpoint.as_ref()?.document())));
    let prompts = targets.iter().zip(variants);
    let prompts = prompts
        .filter_map(|(target, variant)| Some((target.name.clone(), variant.as_ref()?.document())));
    let some = |values: Map<String, Value>| {
        if values.is_empty() {
            Value::Null
        } else {
            values.into()
        }
    };
    let settings = [
        ("models", models.into()),
        ("task", json!(task.name)),
        ("set", json!(arguments.on)),
        ("limit", json!(arguments.limit)),
        ("confidence", json!(arguments.confidence.then_some(true))),
        ("temperature", json!(arguments.temperature)),
        ("samples", json!(arguments.samples)),
        ("seed", json!(arguments.seed)),
        ("max_completion_tokens", json!(limit)),
        ("gpu_price_per_hour", json!(arguments.gpu_price_per_hour)),
        ("endpoints", some(endpoints.collect())),
        ("prompts", some(prompts.collect())),
    ];
    settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Whether answers are single JSON values, which have values to be sure of.
pub(super) fn check_confidence(task: &Task, rows: &Rows) -> Result<(), Failure> {
    match why_without(task, &rows.label, &rows.rows) {
        Some(why) => Err(Failure::usage(format!("--confidence: {why}; leave it out"))),
        None => Ok(()),
    }
}

/// The eval set, if the eval is on the test set: what is chosen on it is stated on the other.
fn fitting_rows(arguments: &Arguments, task: &Task) -> Result<Option<Rows>, Failure> {
    let is_test = arguments.on == PromptSet::Test.into();
    if !is_test || task.set_file(PromptSet::Eval).is_none() {
        return Ok(None);
    }
    let mut rows = Rows::from_set(task, PromptSet::Eval)?;
    let limit = arguments.limit.map_or(usize::MAX, |limit| limit as usize);
    rows.rows.truncate(limit);
    Ok(Some(rows))
}

/// Parses a sampling temperature: finite, at least 0.
pub(super) fn temperature(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|value: &f64| value.is_finite() && *value >= 0.0)
        .ok_or_else(|| "must be a number >= 0".to_owned())
}
