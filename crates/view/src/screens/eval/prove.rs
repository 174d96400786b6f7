//! Compares a server with the open run's checkpoint, in the background, and says the verdict.

use super::{Eval, ProveJob};
use crate::message::{Command, Work};
use crate::popup::{Ask, Popup};
use crate::run::{ProveRecord, RunServer};
use crate::shared::Shared;
use crate::subprocess::{Call, CancelToken, OutputLine, trained_argument};

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

/// Asks for a server, at first one that serves the run; while one is compared, cancels.
pub(super) fn open(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    if let Some(job) = eval.proving.take() {
        job.cancel.cancel();
        return shared.say(format!("prove {}: cancelled", job.server));
    }
    let Some(run) = shared.current.clone() else {
        return Vec::new();
    };
    vec![Work::once(
        "eval.prove.servers",
        move || RunServer::list(&run),
        |_: &mut Eval, shared, servers| {
            let label = "URL, the model's name and the key's variable there; or endpoint:NAME of endpoints.toml";
            let first = servers.into_iter().next().map(|server| {
                let key = server.api_key_env.unwrap_or_default();
                format!("{} {} {key}", server.base_url, server.model)
            });
            let first = first.unwrap_or_default();
            let ask = Ask::new("Prove server", label, first.trim(), begin);
            shared.open_popup(Popup::Ask(ask));
            Vec::new()
        },
    )]
}

fn begin(eval: &mut Eval, shared: &mut Shared, text: String) -> Vec<Command> {
    let checkpoint = match checkpoint(eval, shared) {
        Ok(checkpoint) => checkpoint,
        Err(why) => return shared.complain(why),
    };
    let mut words = text.split_whitespace().map(str::to_owned);
    let Some(server) = words.next() else {
        return Vec::new();
    };
    let mut arguments = vec!["prove".to_owned(), server.clone()];
    for (option, word) in ["--model", "--api-key-env"].into_iter().zip(words) {
        arguments.extend([option.to_owned(), word]);
    }
    let runs = shared.new_runs();
    arguments.extend(["--run", &checkpoint, "--json", "--runs", &runs].map(str::to_owned));
    arguments.extend(shared.new_run.device.arguments());
    let call = Call::with_arguments(&shared.options, arguments);
    shared.log_command(&call.command_line());
    let cancel = CancelToken::default();
    eval.proving = Some(ProveJob {
        server,
        cancel: cancel.clone(),
        progress: "loading".to_owned(),
    });
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
        sender.send(move |eval: &mut Eval, shared| ended(eval, shared, record));
    })]
}

fn ended(
    eval: &mut Eval,
    shared: &mut Shared,
    record: Result<ProveRecord, String>,
) -> Vec<Command> {
    let server = eval.proving.take().map(|job| job.server);
    let server = server.unwrap_or_default();
    match record {
        Ok(record) => {
            let verdict = format!("{server}: {}", record.verdict());
            let because = record.findings.iter();
            let because = because.map(|finding| format!("; {}", finding.sentence));
            match record.differs() {
                Some(false) => shared.say(verdict),
                _ => shared.warn(format!("{verdict}{}", because.collect::<String>())),
            }
        }
        Err(why) => shared.complain(format!("prove {server}: {why}")),
    }
}

pub(super) fn progress(eval: &Eval) -> Option<String> {
    let job = eval.proving.as_ref()?;
    Some(format!("proving {}: {}", job.server, job.progress))
}
