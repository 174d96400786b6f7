//! Tests of recorded replies: replay without starting programs, and errors in the file.

use super::*;

const PROGRAM: &str = "n += x or 0\nanswer(result=n if 'name' in question else [n])";
const REPLAY: &str = "[tools]\nreplay = true\n";
const SQLITE: &str = "[[tool]]\nbuiltin = \"sqlite\"\nfield = \"sql\"\n";

/// Replies to calls, and the conversation's record.
fn conversation(tools: &Toolset, row: &PromptRow, calls: &[Value]) -> (Vec<String>, ToolChain) {
    let mut environment = tools.open(row).unwrap();
    let mut chain = ToolChain {
        steps: Vec::new(),
        last_calls: Vec::new(),
        end: ChainEnd::Answer,
        failure: None,
        states: Map::new(),
        agent: None,
    };
    for x in calls {
        let asked = call("f", x.clone());
        let reply = environment.call(std::slice::from_ref(&asked)).remove(0);
        chain.last_calls.push(AnsweredCall::new(asked, reply));
    }
    let query = StateQuery {
        tool: None,
        question: StateQuestion::Program(json!({"of": "sum"})),
    };
    match environment.state(&query) {
        Ok(state) => _ = chain.states.insert(json!(query).to_string(), state),
        Err(EnvironmentError::NotRecorded { why }) => chain.failure = Some(why),
        Err(error) => panic!("{error}"),
    }
    let shown = |call: &AnsweredCall| format!("{:?}: {}", call.outcome, call.reply);
    (chain.last_calls.iter().map(shown).collect(), chain)
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn recorded_calls_are_answered_without_the_program() {
    let (folder, _) = python(PROGRAM, "");
    let live = toolset(folder.path(), RUN).unwrap();
    let calls = [
        json!({"x": 2, "y": [1, {"a": 1, "b": 2}]}),
        json!({"x": "no number"}),
        json!({"x": 3}),
    ];
    let (told, chain) = conversation(&live, &row(json!({})), &calls);
    assert_eq!(
        (told[0].as_str(), told[2].as_str()),
        ("Answered: 2", "Answered: 5")
    );
    let recorded = RecordedConversation::new("r1", &chain).unwrap();
    assert_eq!(
        recorded.calls.len(),
        2,
        "what reached no tool is not recorded"
    );
    // A conversation with another reply to the first call is unreachable.
    let mut other = recorded.clone();
    (other.calls[0].reply, other.calls[1].reply) = ("7".to_owned(), "8".to_owned());
    let lines: String = [&recorded, &other]
        .iter()
        .map(|line| format!("{}\n\n", json!(line)))
        .collect();
    std::fs::write(folder.path().join("recorded.jsonl"), lines).unwrap();
    std::fs::remove_file(folder.path().join("tools.py")).unwrap();
    let replayed = toolset(folder.path(), &format!("{RUN}{SQLITE}{REPLAY}")).unwrap();
    assert!(!replayed.needs_trust() && replayed.programs().unwrap().is_empty());
    assert!(replayed.files().any(|file| file == "recorded.jsonl"));
    let about = |id: &str| PromptRow {
        id: id.to_owned(),
        ..row(json!({"sql": "CREATE TABLE t (a)"}))
    };
    assert_eq!(
        conversation(&replayed, &about("r1"), &calls),
        (told.clone(), chain.clone())
    );
    // In another order of arguments.
    let turned = json!({"y": [1, {"b": 2, "a": 1}], "x": 2});
    assert_eq!(
        conversation(&replayed, &about("r1"), &[turned]).0,
        ["Answered: 2"]
    );
    let place = folder.path().join("recorded.jsonl").display().to_string();
    for (id, calls, reply, state) in [
        (
            "r1",
            vec![calls[2].clone()],
            format!(
                "NotRecorded: the tool \"run\" has no recorded reply to f {{\"x\":3}} about row \"r1\" in {place}"
            ),
            "after 1 call about row",
        ),
        (
            "r2",
            vec![calls[0].clone()],
            "NotRecorded: the tool \"run\" has no recorded reply to f {\"x\":2,".to_owned(),
            "after 1 call about row",
        ),
        (
            "r1",
            vec![calls[0].clone()],
            "Answered: 2".to_owned(),
            "the tool \"run\" has no recorded final state after 1 call about row \"r1\"",
        ),
    ] {
        let (told, chain) = conversation(&replayed, &about(id), &calls);
        assert!(told.last().unwrap().starts_with(&reply), "{told:?}");
        assert!(
            chain
                .failure
                .as_ref()
                .is_some_and(|why| why.contains(state)),
            "{chain:?}"
        );
        assert_eq!(
            RecordedConversation::new(id, &chain).is_some(),
            reply.starts_with("Answered")
        );
    }
    // A stateless program's reply depends only on its call.
    let stateless = toolset(folder.path(), &format!("{RUN}stateless = true\n{REPLAY}")).unwrap();
    let mut environment = stateless.open(&about("r2")).unwrap();
    assert_eq!(
        reply(&mut environment, "f", calls[2].clone()),
        "answered: 5"
    );
    assert_eq!(
        reply(&mut environment, "f", calls[0].clone()),
        "answered: 2"
    );
    let missing = reply(&mut environment, "f", json!({"x": 9}));
    assert!(
        missing
            .starts_with("not_recorded: the tool \"run\" has no recorded reply to f {\"x\":9} in "),
        "{missing}"
    );
    // Other tools run as usual.
    let mut environment = replayed.open(&about("r1")).unwrap();
    assert_eq!(
        reply(
            &mut environment,
            "execute",
            json!({"sql": "INSERT INTO t VALUES (1)"})
        ),
        "answered: {\"changed\":1}"
    );
    let turns = PromptRow {
        id: "r1".to_owned(),
        ..row(json!({"sql": "", "turns": [{"messages": []}]}))
    };
    let why = replayed.open(&turns).unwrap_err().to_string();
    assert!(
        why.contains("replays rows of one turn, and this has 2"),
        "{why}"
    );
}

#[test]
fn a_file_of_recorded_results_is_read_with_care() {
    let good = r#"{"row": "r1", "calls": [{"name": "f", "arguments": {"x": 1}, "reply": "1"}]}"#;
    for (text, expected) in [
        (None, "recorded.jsonl: No such file"),
        (
            Some(format!("{good}\n{{\"row\": 1}}\n")),
            "recorded.jsonl line 2 column 9: invalid type: integer",
        ),
        (
            Some(format!("{good}\n\nno\n")),
            "recorded.jsonl line 3 column 2: expected",
        ),
        (
            Some(good.replace("\"reply\": ", "\"replied\": ")),
            "recorded.jsonl line 1 column 70: unknown field `replied`",
        ),
        (
            Some(good.replace("\"f\"", "\"g\"")),
            "recorded.jsonl line 1 column 1: calls \"g\", a function that no tool has",
        ),
        (
            Some("\u{0}\n".to_owned()),
            "recorded.jsonl line 1 column 1: expected value",
        ),
    ] {
        let folder = folder(&[("tools.json", DEFINITIONS)]);
        text.iter()
            .for_each(|text| std::fs::write(folder.path().join("recorded.jsonl"), text).unwrap());
        let tools = toolset(folder.path(), &format!("{RUN}{REPLAY}")).unwrap();
        let error = tools.definitions().unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    for (toml, expected) in [
        (
            format!("{SQLITE}{REPLAY}"),
            "`tools.replay` has no program to replay",
        ),
        (
            format!("[[tool]]\nmcp = [\"x\"]\n{REPLAY}"),
            "`tools.replay` of the tool \"mcp\" starts no server that would list its functions: give it `definitions",
        ),
        (
            format!("{RUN}[tools]\nrecorded = \"x\"\n"),
            "`tools.recorded` is read with `replay = true` alone",
        ),
        (format!("{RUN}{REPLAY}recorded = \"../x\"\n"), "\"../x\""),
    ] {
        let folder = folder(&[("tools.json", DEFINITIONS)]);
        let error = toolset(folder.path(), &toml).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
