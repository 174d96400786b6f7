//! Compares a server with the open run's checkpoint, in the background, and shows the verdicts.

use std::path::PathBuf;

use ratatui::text::{Line, Span};

use super::{Eval, Prove, ProveJob};
use crate::api_client::Endpoint;
use crate::message::{Command, Work};
use crate::page::Block;
use crate::pane::content::{Content, Place};
use crate::pane::page::PageLines;
use crate::popup::{Ask, Pick, PickEntry, Popup};
use crate::report::prove_page;
use crate::run::{ProveRecord, RunServer, endpoint_files, read_proves};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::subprocess::{Call, CancelToken, OutputLine, trained_argument};
use crate::widgets::list_cursor::Cursor;
use crate::widgets::text_width::wrapped_line;

/// A server that can be compared, and the arguments of `prove` that name it.
#[derive(Debug, Clone)]
struct Server {
    label: String,
    about: String,
    arguments: Vec<String>,
    has_prices: bool,
}

impl Server {
    fn at_url(url: &str, model: Option<&str>, key: Option<&str>) -> Self {
        let options = [("--model", model), ("--api-key-env", key)];
        let options = options
            .into_iter()
            .filter_map(|(option, value)| Some([option.to_owned(), value?.to_owned()]));
        Self {
            label: url.to_owned(),
            about: String::new(),
            arguments: std::iter::once(url.to_owned())
                .chain(options.flatten())
                .collect(),
            has_prices: false,
        }
    }
}

/// Those that serve the run, then those of `endpoints.toml`.
fn servers(run: &std::path::Path, here: &std::path::Path) -> Result<Vec<Server>, String> {
    let of_run = RunServer::list(run).into_iter().map(|server| Server {
        about: format!("grpo-tui serve, model {}", server.model),
        ..Server::at_url(
            &server.base_url,
            Some(&server.model),
            server.api_key_env.as_deref(),
        )
    });
    let mut servers: Vec<Server> = of_run.collect();
    let Some(file) = endpoint_files(here).into_iter().find(|file| file.exists()) else {
        return Ok(servers);
    };
    let label = file.display().to_string();
    let text = crate::files::read_text(&file).map_err(|error| format!("{label}: {error}"))?;
    let defined = Endpoint::all(&label, &text).map_err(|error| error.to_string())?;
    servers.extend(defined.into_iter().map(|endpoint| Server {
        about: format!("{} at {}", endpoint.model, endpoint.base_url),
        arguments: vec![format!("endpoint:{}", endpoint.name)],
        has_prices: endpoint.prices.are_known(),
        label: endpoint.name,
    }));
    Ok(servers)
}

/// The checkpoint that is compared: the one whose eval is shown last, if it is one of the open run, else the best.
fn checkpoint(eval: &Eval, shared: &Shared) -> Result<String, String> {
    let (_, best) = trained_argument(shared)?;
    let run = shared.current_run();
    let has = |step| run.is_some_and(|run| run.history.checkpoints.contains_key(&step));
    let shown = eval.versus().and_then(|versus| {
        let ids = eval.sides(versus).into_iter().rev();
        let mut ids = ids.map(|side| &versus.evals[side].id);
        ids.find(|id| Some(&id.folder) == shared.current.as_ref() && id.step > 0 && has(id.step))
    });
    Ok(shown.map_or(best, |id| format!("{}@{}", id.folder.display(), id.step)))
}

pub(super) fn none(eval: &Eval, shared: &Shared) -> Option<String> {
    checkpoint(eval, shared).err()
}

/// Shows the run's verdicts; without any, asks for a server.
pub(super) fn open(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let Some(run) = shared.current.clone() else {
        return Vec::new();
    };
    eval.prove = Some(Prove::default());
    vec![Work::once(
        "eval.prove.records",
        move || (read_proves(&run), run),
        |eval: &mut Eval, shared, (records, run)| {
            let is_first = records.is_empty() && eval.proving.is_none();
            if shared.current.as_ref() != Some(&run) {
                return Vec::new();
            }
            let Some(prove) = &mut eval.prove else {
                return Vec::new();
            };
            prove.records = Some(records);
            match is_first {
                true => choose(eval, shared),
                false => Vec::new(),
            }
        },
    )]
}

/// Asks for a server: of the run, of `endpoints.toml`, or a URL.
pub(super) fn choose(_: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let Some(run) = shared.current.clone() else {
        return Vec::new();
    };
    let here = shared.options.here.clone();
    vec![Work::once(
        "eval.prove.servers",
        move || servers(&run, &here),
        |eval: &mut Eval, shared, servers| {
            let servers = match servers {
                Ok(servers) => servers,
                Err(why) => return shared.complain(why),
            };
            if eval.prove.is_some() {
                shared.open_popup(Popup::Pick(pick(servers)));
            }
            Vec::new()
        },
    )]
}

fn pick(servers: Vec<Server>) -> Pick {
    let entry = |server: &Server| PickEntry {
        label: server.label.clone(),
        beside: server.about.clone(),
        ..PickEntry::default()
    };
    let entries = servers.iter().map(entry).collect();
    Pick::new(
        "Choose a server, or type its URL",
        entries,
        0,
        move |eval: &mut Eval, shared, index| match servers.get(index) {
            Some(server) if server.has_prices => ask_cost(server.clone(), shared),
            Some(server) => begin(eval, shared, server.clone(), None),
            None => Vec::new(),
        },
    )
    .or_typed(
        "URL, then the model's name if it serves several",
        |eval: &mut Eval, shared, text| {
            let (url, model) = match text.split_once(' ') {
                Some((url, model)) => (url, Some(model.trim())),
                None => (text.as_str(), None),
            };
            begin(eval, shared, Server::at_url(url, model, None), None)
        },
    )
}

fn ask_cost(server: Server, shared: &mut Shared) -> Vec<Command> {
    let label = format!(
        "{}: most that the answers may cost, in the currency of its prices; empty: no limit",
        server.label
    );
    let limit = |text: &str| text.trim().parse::<f64>().ok();
    let question = Ask::new(
        "Cost limit",
        label,
        "",
        move |eval: &mut Eval, shared, text| begin(eval, shared, server, limit(&text)),
    );
    let check = move |text: &str| {
        let is_positive = limit(text).is_some_and(|limit| limit.is_finite() && limit > 0.0);
        let is_wrong = !text.trim().is_empty() && !is_positive;
        is_wrong.then(|| "enter a number > 0, or nothing".to_owned())
    };
    shared.open_popup(Popup::Ask(question.checked(check)))
}

fn begin(eval: &mut Eval, shared: &mut Shared, server: Server, most: Option<f64>) -> Vec<Command> {
    let run = shared.current.clone();
    let (run, checkpoint) = match (run, checkpoint(eval, shared)) {
        (Some(run), Ok(checkpoint)) => (run, checkpoint),
        (_, Err(why)) => return shared.complain(why),
        (None, _) => return Vec::new(),
    };
    cancel_job(eval);
    let mut arguments = vec!["prove".to_owned()];
    arguments.extend(server.arguments);
    arguments.extend(["--run", &checkpoint].map(str::to_owned));
    if let Some(most) = most {
        arguments.extend(["--max-cost".to_owned(), most.to_string()]);
    }
    arguments.extend(["--json".to_owned(), "--runs".to_owned(), shared.new_runs()]);
    arguments.extend(shared.new_run.device.arguments());
    let call = Call::with_arguments(&shared.options, arguments);
    shared.log_command(&call.command_line());
    let cancel = CancelToken::default();
    eval.proving = Some(ProveJob {
        run: run.clone(),
        server: server.label,
        cancel: cancel.clone(),
        progress: "loading".to_owned(),
    });
    if let Some(prove) = &mut eval.prove {
        (prove.error, prove.top) = (None, Cursor::default());
    }
    vec![Work::stream("eval.prove", move |sender| {
        let mut document = String::new();
        let outcome = call.run(&cancel, &mut |line| match line {
            OutputLine::Result(line) => document += &line,
            OutputLine::Progress(line) => {
                sender.send(move |eval: &mut Eval, _| {
                    if let Some(job) = &mut eval.proving {
                        job.progress = line;
                    }
                    Vec::new()
                });
            }
        });
        let record = match outcome {
            Ok(None) => return,
            // Where something differs the program fails as well.
            Ok(Some(exit)) => serde_json::from_str(&document).map_err(|_| exit.reason()),
            Err(error) => Err(error),
        };
        sender.send(move |eval: &mut Eval, shared| ended(eval, shared, run, record));
    })]
}

fn ended(
    eval: &mut Eval,
    shared: &mut Shared,
    run: PathBuf,
    record: Result<ProveRecord, String>,
) -> Vec<Command> {
    let server = eval.proving.take().map(|job| job.server);
    let server = server.unwrap_or_default();
    let shown = eval.prove.as_mut();
    let shown = shown.filter(|_| shared.current.as_ref() == Some(&run));
    match record {
        Ok(record) => {
            let mut verdict = format!("{server}: {}", record.verdict());
            let is_equal = record.differs() == Some(false);
            if let Some(prove) = shown {
                let records = prove.records.get_or_insert_default();
                let is_other = |other: &ProveRecord| {
                    (&other.base_url, &other.model) != (&record.base_url, &record.model)
                };
                records.retain(is_other);
                records.insert(0, record);
            } else {
                verdict += &format!(" ({} shows why)", shared.key_of("eval.prove"));
            }
            match is_equal {
                true => shared.say(verdict),
                false => shared.warn(verdict),
            }
        }
        Err(why) => {
            if let Some(prove) = shown {
                prove.error = Some(why.clone());
            }
            shared.complain(format!("prove {server}: {why}"))
        }
    }
}

fn cancel_job(eval: &mut Eval) {
    if let Some(job) = eval.proving.take() {
        job.cancel.cancel();
    }
}

pub(super) fn no_cancel(eval: &Eval, _: &Shared) -> Option<String> {
    eval.proving
        .is_none()
        .then(|| "no server is being compared".to_owned())
}

pub(super) fn cancel(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    cancel_job(eval);
    shared.say("cancelled: answers of the last hour are used by the next comparison")
}

/// Leaves the verdicts; a comparison goes on.
pub(super) fn leave(eval: &mut Eval, _: &mut Shared) -> Vec<Command> {
    eval.prove = None;
    Vec::new()
}

pub(super) fn progress(eval: &Eval) -> Option<String> {
    let job = eval.proving.as_ref()?;
    Some(format!("proving {}: {}", job.server, job.progress))
}

pub(super) fn content<'a>(
    eval: &Eval,
    prove: &Prove,
    shared: &'a Shared,
    place: &Place,
) -> Content<'a> {
    let (theme, inside) = (&shared.theme, place.inside());
    let columns = usize::from(inside.width);
    let mut lines: Vec<Line<'static>> = Vec::new();
    if let Some(job) = &eval.proving {
        let which = match Some(&job.run) == shared.current.as_ref() {
            true => String::new(),
            false => format!(" with {}", job.run.display()),
        };
        let (server, progress) = (&job.server, &job.progress);
        let cancel = shared.key_of("eval.prove.cancel");
        let text = format!("comparing {server}{which}: {progress}; {cancel} cancels");
        lines.push(theme.line(text, Role::Accent));
    } else {
        let key = shared.key_of("eval.prove.choose");
        let what = match checkpoint(eval, shared) {
            Ok(checkpoint) => {
                let name = checkpoint.rsplit('/').next().unwrap_or_default();
                format!("{key} compares a server with {name}")
            }
            Err(why) => why,
        };
        lines.push(theme.line(what, Role::Faint));
    }
    if let Some(error) = &prove.error {
        lines.push(theme.line(error.clone(), Role::Bad));
    }
    let page = |record: &ProveRecord| {
        let page: Vec<Block> = prove_page(record);
        PageLines { theme, columns }.lines(&page)
    };
    for record in prove.records.iter().flatten() {
        lines.push(Line::default());
        lines.extend(page(record));
    }
    // What does not fit goes on under its line, indented.
    let wrapped = |line| {
        let rows = wrapped_line(line, columns.saturating_sub(2)).into_iter();
        rows.enumerate().map(|(number, mut row)| {
            if number > 0 {
                row.spans.insert(0, Span::raw("  "));
            }
            row
        })
    };
    let lines = lines.into_iter().flat_map(wrapped).collect();
    Content::titled("prove: is what is served what was trained?").text(inside, lines, prove.top)
}
