//! Tests of conversations with tools: results do not depend on tool latency, and ends have reasons.

use std::path::Path;

use candle_core::{DType, Device};

use super::*;
use crate::dataset::load_from;
use crate::environment::{CallOutcome, ChainEnd, RecordedConversation};
use crate::hub::find_model;
use crate::model::{Trainable, Weights};
use crate::rollout::{RolloutMemory, StopReason, generate};
use crate::score::{FailureClass, Task, Trust};

const OFFICE: &str = "import json, sys, time
paid, delay = [], float(sys.argv[1])
for line in sys.stdin:
    question = json.loads(line)
    if 'name' not in question:
        result = paid
    elif question['name'] == 'pay':
        number = question['arguments']['number']
        paid.append(number)
        time.sleep(delay * (number % 5))
        result = {'paid': number, 'text': '<|im_end|>'}
    else:
        sys.exit('not at home')
    print(json.dumps({'id': question.get('id'), 'result': result}), flush=True)
";

/// Continues twice, lets another be asked in between, and exits with 0.
const CLERK: &str = "import json, os, sys, urllib.request
def ask(messages):
    body = json.dumps({'model': os.environ['OPENAI_MODEL'], 'messages': messages}).encode()
    headers = {'Content-Type': 'application/json', 'Authorization': 'Bearer ' + os.environ['OPENAI_API_KEY']}
    request = urllib.request.Request(os.environ['OPENAI_BASE_URL'] + '/chat/completions', body, headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)['choices'][0]['message']
talk = json.loads(sys.stdin.readline())['messages']
for part in 'first', 'second', 'third':
    talk.append(ask(talk))
    if part == 'second':
        ask([{'role': 'user', 'content': 'How many invoices are paid?'}])
    talk.append({'role': 'user', 'content': 'Pay the next invoice.'})
";

fn policy() -> Policy {
    let source = find_model("tiny-tools").unwrap();
    let weights = Weights::open(&source).unwrap();
    let model = Decoder::new(
        &source.config().unwrap(),
        &weights,
        Trainable::Frozen,
        1,
        DType::F32,
        &Device::Cpu,
    );
    let tokenizer = Tokenizer::load(&source).unwrap();
    Policy::new(
        Engine::cpu(),
        model.unwrap(),
        tokenizer,
        ThreadPool::new(2).unwrap(),
    )
}

/// `delay`: seconds of a call; `limits`: lines of `[tools]`.
fn office(folder: &Path, delay: &str, limits: &str) -> Task {
    let toml = format!(
        "name = \"office\"\nsystem = \"Answer with function calls.\"\nthinking = false\n[prompts]\ntrain = \"train.jsonl\"\n[[tool]]\n\
         name = \"office\"\nrun = [\"python3\", \"office.py\", \"{delay}\"]\nisolation = \"none\"\ndefinitions = \"tools.json\"\n\
         [tools]\n{limits}\n[score]\nkind = \"state\"\nask = {{ of = \"paid\" }}\n"
    );
    // Those of the task that the model was trained on.
    let tools = Task::embedded("tool-calls")
        .unwrap()
        .definition_text
        .clone();
    for (name, text) in [
        ("task.toml", toml.as_str()),
        ("office.py", OFFICE),
        ("tools.json", &tools),
        ("train.jsonl", ""),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let task = Task::load(folder).unwrap();
    Trust::for_task(&task)
        .unwrap()
        .iter()
        .for_each(|trust| trust.set(true).unwrap());
    task
}

/// `samples` conversations about the payment of each invoice.
fn converse(
    policy: &Policy,
    task: &Task,
    invoices: &[u32],
    samples: usize,
    temperature: f64,
) -> Conversed {
    let row = |number: &u32| {
        let text = format!("Pay invoice {number} from the travel account.");
        serde_json::json!({"id": number.to_string(), "messages": [{"role": "user", "content": text}], "expected": [number]}).to_string()
    };
    let rows = invoices.iter().map(row).collect::<Vec<_>>().join("\n");
    let rows = load_from("train.jsonl", rows.as_bytes()).unwrap();
    let lengths = Lengths {
        max_seq_len: Some(700),
        max_completion_tokens: 64,
        positions: 2048,
    };
    let prompts = prepare_rows(task, "train.jsonl", rows, &policy.tokenizer, lengths).unwrap();
    let scorer = Scorer::new(task).unwrap();
    let tasks = [ScoredTask {
        task,
        scorer: &scorer,
        max_prompt_tokens: lengths.prompt_limit(),
    }];
    let sampling = Sampling::new(&policy.tokenizer, temperature, 64, 7);
    let settings = ConverseSettings::new(&tasks, PolicyVersion::Trained, &sampling);
    let request = |(number, prompt): (u32, &Prompt)| {
        Request::new(prompt.token_ids.clone(), number, 3, samples)
    };
    let requests: Vec<Request> = (0..).zip(&prompts).map(request).collect();
    let questions: Vec<_> = prompts
        .iter()
        .zip(requests)
        .map(|(prompt, request)| Question { prompt, request })
        .collect();
    policy.converse(&questions, &settings, None).unwrap()
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn conversations_are_the_same_however_long_their_tools_take() {
    let (policy, folder) = (policy(), tempfile::tempdir().unwrap());
    let answers = |delay: &str| {
        let task = office(folder.path(), delay, "max_turns = 4");
        converse(&policy, &task, &[1961, 1962, 1963], 6, 1.0)
            .conversations
            .concat()
    };
    let (fast, slow) = (answers("0"), answers("0.05"));
    let stop = policy.tokenizer.turn_end_id().unwrap();
    let (mut calls, mut results) = (0, 0);
    for (fast, slow) in fast.iter().zip(&slow) {
        let turns = || fast.turns[0].completions().zip(slow.turns[0].completions());
        assert!(
            turns().all(|(fast, slow)| fast == slow),
            "log-probs are the same bit by bit"
        );
        assert_eq!(
            fast.turns[0].completions().count(),
            slow.turns[0].completions().count()
        );
        assert_eq!(
            fast.turns[0].tools.as_ref().unwrap().chain(),
            slow.turns[0].tools.as_ref().unwrap().chain()
        );
        let turn = &fast.turns[0];
        let tools = slow.turns[0].tools.as_ref().unwrap();
        assert_eq!(tools.call_seconds.len(), tools.calls().count());
        let read: Vec<_> = turn.prompted(&[]).collect();
        for (pair, step) in read.windows(2).zip(&turn.tools.as_ref().unwrap().steps) {
            let ((prompt, sampled), (next, _)) = (pair[0], pair[1]);
            let kept = [prompt, &sampled.token_ids].concat();
            assert!(next.starts_with(&kept), "{kept:?} {next:?}");
            assert!(
                sampled
                    .token_ids
                    .last()
                    .is_some_and(|id| policy.tokenizer.stop_ids().contains(id))
            );
            let new = &next[kept.len()..];
            assert_eq!(new.len(), step.reply_tokens);
            // The template's own, and none of the tool's.
            let shown = policy.tokenizer.decode(new, false).unwrap();
            let of_tools: usize = step
                .calls
                .iter()
                .map(|call| call.reply.matches("<|im_end|>").count())
                .sum();
            let special = new.iter().filter(|id| **id == stop).count();
            assert_eq!(
                special + of_tools,
                shown.matches("<|im_end|>").count(),
                "{shown}"
            );
            results += usize::from(of_tools > 0);
            calls += step.calls.len();
        }
    }
    assert!(
        calls > 12 && results > 4,
        "{calls} calls, {results} with a control token"
    );
    let first = |talks: &[Conversation]| talks[0].turns[0].completion.token_ids.clone();
    assert!(fast.chunks(6).any(|group| {
        group
            .iter()
            .any(|talk| talk.turns[0].completion.token_ids != first(group))
    }));
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn every_end_has_its_reason() {
    let policy = policy();
    for (limits, delay, end, has_called, is_error) in [
        ("max_turns = 1", "0", ChainEnd::MaxTurns, false, false),
        (
            "max_context_tokens = 200",
            "0",
            ChainEnd::MaxContextTokens,
            true,
            false,
        ),
        (
            "time_limit_seconds = 0.05",
            "0.1",
            ChainEnd::TimeLimit,
            true,
            false,
        ),
        (
            "max_calls = 1\nmax_turns = 9",
            "0",
            ChainEnd::MaxCalls,
            true,
            false,
        ),
        ("max_turns = 9", "0", ChainEnd::ToolFailed, true, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let task = office(folder.path(), delay, limits);
        // Some continue with another call after the payment.
        let found = converse(&policy, &task, &[1966, 1961], 5, 1.0)
            .conversations
            .concat();
        let turn = found
            .iter()
            .map(|talk| &talk.turns[0])
            .find(|turn| turn.tools.as_ref().unwrap().end == end);
        let turn = turn.unwrap_or_else(|| {
            panic!(
                "{limits}: {:?}",
                found
                    .iter()
                    .map(|talk| talk.turns[0].tools.as_ref().unwrap().end)
                    .collect::<Vec<_>>()
            )
        });
        let chain = turn.tools.as_ref().unwrap().chain();
        let last = chain.calls().last().map(|call| call.outcome);
        assert_eq!(
            (last.is_some(), last == Some(CallOutcome::Failed)),
            (has_called, is_error),
            "{limits}"
        );
        assert_eq!(
            turn.score.is_error(),
            is_error,
            "{limits}: {:?}",
            turn.score
        );
        let reason = &turn.score.errors[0].message;
        let expected = if is_error {
            "ended with exit code 1: not at home"
        } else {
            end.name()
        };
        assert!(reason.contains(expected), "{limits}: {reason}");
        for talk in &found {
            let Turn {
                tools,
                completion,
                score,
                ..
            } = &talk.turns[0];
            let tools = tools.as_ref().unwrap();
            // A conversation with an answer has a reward for its state alone.
            assert!(
                tools.end == ChainEnd::Answer || score.reward.is_nan() || score.reward == 0.0,
                "{score:?}"
            );
            assert_eq!(
                tools.end == ChainEnd::Truncated,
                completion.stop != StopReason::Stop
            );
            assert_eq!(
                tools.states.len(),
                usize::from(tools.end == ChainEnd::Answer)
            );
        }
    }
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn requests_of_an_agent_go_on_in_the_cache() {
    let (policy, folder) = (policy(), tempfile::tempdir().unwrap());
    let toml = "name = \"clerk\"\nthinking = false\n[prompts]\ntrain = \"train.jsonl\"\n[agent]\nrun = [\"python3\", \"clerk.py\"]\n\
                isolation = \"none\"\n[score]\nkind = \"agent\"\nmode = \"exit_code\"\n";
    for (name, text) in [
        ("task.toml", toml),
        ("clerk.py", CLERK),
        ("train.jsonl", ""),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let task = Task::load(folder.path()).unwrap();
    Trust::for_task(&task)
        .unwrap()
        .iter()
        .for_each(|trust| trust.set(true).unwrap());
    let conversed = converse(&policy, &task, &[1961, 1962, 1963], 3, 0.0);
    let mut prefilled = 0;
    for (sample, talk) in conversed
        .conversations
        .iter()
        .flat_map(|talks| (0..).zip(talks))
    {
        let turn = &talk.turns[0];
        let record = turn.tools.as_ref().unwrap().agent.as_ref().unwrap();
        let follows: Vec<_> = record
            .requests
            .iter()
            .map(|request| request.follows)
            .collect();
        assert_eq!(follows, [None, Some(0), None, Some(1)], "{record:?}");
        let requests = turn.prompted(&[]).zip(&record.requests);
        for (number, ((prompt, completion), request)) in requests.enumerate() {
            // The others of a group begin with the same prompt.
            let is_prefilled = request.follows.is_none() && (number > 0 || sample == 0);
            prefilled += if is_prefilled { prompt.len() } else { 0 };
            // Prefilling makes no difference to what is sampled.
            let (model, adapters) = policy.model_of(PolicyVersion::Trained);
            let sampling = Sampling::new(&policy.tokenizer, 0.0, 64, 7);
            let asked = [Request::new(prompt.to_vec(), 0, 3, 1)];
            let alone = generate(
                model,
                adapters,
                &asked,
                &sampling,
                &RolloutMemory::default(),
                &policy.threads,
            );
            assert_eq!(
                alone.unwrap().completions[0][0].token_ids,
                completion.token_ids
            );
        }
    }
    assert_eq!(
        conversed.counts.prefilled, prefilled,
        "what follows is not prefilled, and what all begin with is once"
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn replayed_conversations_are_those_that_were_recorded() {
    let (policy, folder, limits) = (policy(), tempfile::tempdir().unwrap(), "max_turns = 4");
    let live = converse(
        &policy,
        &office(folder.path(), "0", limits),
        &[1961, 1962],
        4,
        1.0,
    )
    .conversations;
    let recorded = |talk: &Conversation| {
        let found =
            RecordedConversation::new("1961", &talk.turns[0].tools.as_ref().unwrap().chain());
        found.map(|found| serde_json::json!(found).to_string() + "\n")
    };
    let lines: String = live[0].iter().filter_map(recorded).collect();
    std::fs::write(folder.path().join("recorded.jsonl"), lines).unwrap();
    let task = office(folder.path(), "0", &format!("{limits}\nreplay = true"));
    std::fs::remove_file(folder.path().join("office.py")).unwrap();
    let replayed = converse(&policy, &task, &[1961, 1962], 4, 1.0).conversations;
    let (mut same, mut missing) = (0, 0);
    for (index, (live, replayed)) in live.concat().iter().zip(replayed.concat()).enumerate() {
        let (live, replayed) = (&live.turns[0], &replayed.turns[0]);
        let [before, after] = [live, replayed].map(|turn| turn.tools.as_ref().unwrap().chain());
        if after.end == ChainEnd::NotRecorded {
            assert!(
                index >= 4 || before.end == ChainEnd::ToolFailed,
                "{before:?} {after:?}"
            );
            assert_eq!(replayed.score.failure, Some(FailureClass::NotRecorded));
            assert!(replayed.score.reward.is_nan() && !replayed.is_scored());
            missing += 1;
            continue;
        }
        // Log-probs are rounded with those decoded beside them.
        let tokens = [live, replayed].map(|turn| {
            turn.completions()
                .map(|one| &one.token_ids)
                .collect::<Vec<_>>()
        });
        assert_eq!(tokens[0], tokens[1]);
        assert!(
            before.calls().eq(after.calls())
                && (before.end, &before.states) == (after.end, &after.states)
        );
        assert_eq!(live.score, replayed.score);
        same += usize::from(after.calls().next().is_some());
    }
    assert!(same > 1 && missing > 1, "{same} {missing}");
    // Counted, but not as scorer failures.
    let scores: Vec<_> = replayed
        .concat()
        .into_iter()
        .map(|talk| talk.turns[0].score.clone())
        .collect();
    let scores = scores
        .iter()
        .filter(|score| score.failure != Some(FailureClass::ScorerError));
    assert!(Scorer::new(&task).unwrap().check_errors(scores).is_ok());
}
