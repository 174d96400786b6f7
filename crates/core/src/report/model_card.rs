//! The model card of a run's checkpoint: what it was trained for and on, how it scores, what it cost, how it is served.

use serde_json::{Map, Value, json};

use super::html::Page;
use super::markdown::results;
use super::run_page::changed_keys;
use super::run_report::Report;
use super::serving::ExportForm;
use super::summary_table::tables;
use crate::config::BasePrecision;
use crate::format::{amount, counted, duration, or_na};
use crate::hub::{Quantization, find_model};
use crate::page::markdown::{line, render, table};
use crate::run::{EvalSummary, read_proves};
use crate::score::Task;
use crate::text::{CLOCK, Tokenizer};

/// An adapter trained beside a base in fp8 or NF4: its answers to a task's test set with that base and with the published one.
#[derive(Debug)]
pub struct PublishedBase {
    pub task: String,
    /// With the base rounded, and as published.
    pub summaries: [EvalSummary; 2],
    /// Mean |difference| of both models' log-probs of the first's answers, nats per token.
    pub log_prob_difference: f64,
}

/// `README.md` as the Hugging Face Hub takes it: metadata in YAML, then Markdown. Secrets are masked.
/// `price`: of an hour of one GPU, in any currency. `published`: measured, where it was asked for.
pub fn model_card(
    report: &Report,
    step: u64,
    price: Option<f64>,
    published: Option<&PublishedBase>,
    form: &ExportForm,
) -> Page {
    let file = report.directory.file();
    let base = &file.config.base_model;
    let is_adapter = file.config.lora_rank > 0;
    let mut metadata = json!({
        "pipeline_tag": "text-generation",
        "tags": ["grpo-tui", file.config.method.name(), "structured-output"],
    });
    // The card names a base on the Hub, not a local folder.
    if !std::path::Path::new(base).exists() && base.split('/').count() == 2 {
        metadata["base_model"] = json!(base);
    }
    metadata["library_name"] = json!(form.library());
    let name = if file.name.is_empty() {
        &file.id
    } else {
        &file.name
    };
    let mut text = head(&metadata, name);
    text += &format!(
        "Trained by {} with grpo-tui {} from {} for the task {}; the checkpoint of step {step} of run `{}`.\n",
        file.config.method.name().to_uppercase(),
        line(&file.binary_version),
        line(base),
        line(&file.task),
        line(&file.id)
    );
    let outcome = format!("Outcome: {}.", line(&report.outcome().sentence()));
    let mut known = report
        .directory
        .task_names()
        .into_iter()
        .filter_map(|task| report.result_of(task));
    let other = known.find(|result| result.step != step);
    let other = other.map_or_else(String::new, |result| {
        format!(
            "\nThese are results of step {}: this checkpoint has no eval on that set.\n",
            result.step
        )
    });
    let configuration = render(&[changed_keys(report)]);
    let base_precision = file.config.base_precision;
    let source = find_model(base).ok();
    let source = source.as_ref();
    let stored = source.and_then(|source| source.quantization().ok().flatten());
    // Such files are what a base in NF4 has.
    let is_as_stored = || {
        base_precision == BasePrecision::Nf4
            && source.is_some_and(|source| source.is_nf4_base().unwrap_or(false))
    };
    let precision = match published {
        Some(published) => rounding(base_precision, published),
        None if !base_precision.is_quantized() || is_as_stored() => String::new(),
        None => format!(
            "\nMeasured with the base rounded to {base_precision}, as trained. With the base as published, an adapter gives other answers, perhaps worse ones: `grpo-tui runs promote --measure-published-base` measures that. `grpo-tui model export --model RUN --merged` writes the rounded base with the adapter.\n"
        ),
    };
    let dequantized = if is_adapter && matches!(stored, Some(Quantization::Fp8(_))) {
        "\nThe base's files are in fp8. Its matrices were dequantized to bf16 and activations were not quantized: a server that quantizes activations gives other answers.\n"
    } else {
        ""
    };
    let clock = source
        .and_then(|source| Tokenizer::load(source).ok())
        .filter(|tokenizer| tokenizer.template_reads(CLOCK))
        .map_or_else(String::new, |_| {
            format!(
                "\nThe chat template writes the time ({CLOCK}). The run's prompts state {}, in UTC; a server states the present, so its prompts are others: their answers are not those measured here.\n",
                line(&file.created)
            )
        });
    let sections = [
        (
            "Results",
            format!(
                "\n{outcome}\n{other}{dequantized}{precision}{}",
                render(&results(report))
            ),
        ),
        ("Configuration", configuration),
        ("Data", digests(report)),
        ("Cost", cost(report, price)),
        (
            "Serving",
            clock + &proven(report, step) + &form.commands(&template_kwargs(report)),
        ),
    ];
    text.extend(sections.map(|(title, section)| format!("\n## {title}\n{section}")));
    Page::masked(&text)
}

/// The card of a model that is no run's: how it is served.
pub fn serving_card(name: &str, form: &ExportForm) -> Page {
    let metadata = json!({"pipeline_tag": "text-generation", "library_name": form.library()});
    let text = head(&metadata, name) + &format!("## Serving\n{}", form.commands(&Map::new()));
    Page::masked(&text)
}

fn head(metadata: &Value, name: &str) -> String {
    // JSON is YAML.
    let front: Vec<String> = metadata
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    format!("---\n{}---\n\n# {}\n\n", front.concat(), line(name))
}

fn rounding(
    precision: BasePrecision,
    PublishedBase {
        task,
        summaries,
        log_prob_difference,
    }: &PublishedBase,
) -> String {
    let rounded = format!("base in {precision}, as trained");
    let evals = [
        (rounded.as_str(), &summaries[0]),
        ("base as published", &summaries[1]),
    ];
    format!(
        "{}\nThe log-probs of the first's answers differ by {log_prob_difference:.4} nats per token on average. `grpo-tui model export --model RUN --merged` writes the rounded base with the adapter.\n",
        render(&tables(format!("{task} test"), &evals))
    )
}

fn digests(report: &Report) -> String {
    let file = report.directory.file();
    let of_task = file
        .task_files
        .iter()
        .map(|(name, digest)| (name.clone(), digest.clone()));
    let of_model = [
        ("base model".to_owned(), file.model_digest.clone()),
        ("configuration".to_owned(), file.config_digest.clone()),
    ];
    let rows = of_task.chain(of_model).map(|(name, digest)| {
        let digest = or_na(Some(digest).filter(|digest| !digest.is_empty()), |digest| {
            format!("`{digest}`")
        });
        vec![line(&name), digest]
    });
    table(
        &["what", "SHA-256"].map(str::to_owned),
        &rows.collect::<Vec<_>>(),
        "ll",
    )
}

/// Time and cost of all steps and evals; work repeated after an interruption counts once.
fn cost(report: &Report, price: Option<f64>) -> String {
    let (file, history) = (report.directory.file(), &report.history);
    let steps = history
        .metrics
        .get("seconds")
        .into_iter()
        .flat_map(|series| series.values())
        .filter(|value| value.is_finite());
    let seconds = steps.sum::<f64>() + history.evals.values().map(|eval| eval.seconds).sum::<f64>();
    let of_devices = seconds * file.config.ranks as f64;
    let device = history.run.as_ref().map(|run| line(&run.device));
    let rows = [
        ("device", or_na(device, |device| device)),
        ("processes", file.config.ranks.to_string()),
        ("steps", history.last_step.to_string()),
        ("time of steps and evals", duration(seconds)),
        (
            "cost",
            or_na(price, |price| {
                let total = amount(of_devices / 3600.0 * price);
                format!(
                    "{total} ({} of one device, an hour of which costs {})",
                    duration(of_devices),
                    amount(price)
                )
            }),
        ),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(label, cell)| vec![label.to_owned(), cell])
        .collect();
    table(&["", ""].map(str::to_owned), &rows, "ll")
}

/// Servers that were compared with this checkpoint.
fn proven(report: &Report, step: u64) -> String {
    let records = read_proves(report.directory.path());
    let records = records.iter().filter(|record| record.step == step);
    let lines = records.map(|record| {
        format!(
            "\n`grpo-tui prove` of {} at {}, {} of the {} set: {}.\n",
            line(&record.model),
            line(&record.base_url),
            counted(record.prompts, "prompt"),
            line(&record.set),
            line(&record.verdict())
        )
    });
    lines.collect()
}

/// Settings with which other servers render prompts as in training: by default they let templates think.
fn template_kwargs(report: &Report) -> Map<String, Value> {
    let Ok(task) = Task::load(&report.directory.first_task_path()) else {
        return Map::new();
    };
    let switch = (!task.thinking).then(|| ("enable_thinking".to_owned(), false.into()));
    switch
        .into_iter()
        .chain(task.template_kwargs.clone())
        .collect()
}
