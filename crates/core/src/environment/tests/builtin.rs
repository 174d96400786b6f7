//! Tests of built-in tools.

use super::*;
use crate::sandbox::machine;

/// An interpreter at the machine's isolation level.
fn interpreter(folder: &Path) -> Environment {
    let level = machine().level.name();
    let toml = format!(
        "[[tool]]\nbuiltin = \"python\"\nfiles = [\"words.txt\"]\nseconds = 1\nmemory_mib = 512\nisolation = {level:?}\n"
    );
    let tools = toolset(folder, &toml).unwrap();
    tools.open(&row(json!({}))).unwrap()
}

#[test]
#[cfg_attr(
    not(all(has_python, can_isolate)),
    ignore = "needs python3 in PATH and user namespaces"
)]
fn python_reaches_no_network() {
    let folder = folder(&[("words.txt", "")]);
    let code = "import socket\nsocket.create_connection(('1.1.1.1', 53), 1)";
    let found = reply(
        &mut interpreter(folder.path()),
        "python",
        json!({"code": code}),
    );
    let refused = "OSError: [Errno 101] Network is unreachable\n";
    assert!(
        found.starts_with("answered: Traceback") && found.ends_with(refused),
        "{found}"
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn python_keeps_its_variables_and_its_end_is_an_answer() {
    let folder = folder(&[("words.txt", "one two")]);
    let mut environment = interpreter(folder.path());
    let anew = "; it starts anew, without its variables";
    for (code, expected) in [
        ("x = 2\nx + 1", "answered: 3\n".to_owned()),
        ("print('a')\nx", "answered: a\n2\n".to_owned()),
        ("None", "answered: ".to_owned()),
        ("", "answered: ".to_owned()),
        ("open('words.txt').read()", "answered: 'one two'\n".to_owned()),
        ("def f(n): return n * x\nf(4)", "answered: 8\n".to_owned()),
        ("1 / 0", "answered: Traceback (most recent call last):\n  File \"code\", line 1, in <module>\nZeroDivisionError: division by zero\n".to_owned()),
        ("1 +", "answered:   File \"code\", line 1\n    1 +\n       ^\nSyntaxError: invalid syntax\n".to_owned()),
        ("import os; os.system('echo out; echo err >&2'); os.write(1, b'raw')", "answered: out\nerr\nraw3\n".to_owned()),
        ("input()", "EOFError: EOF when reading a line\n".to_owned()),
        ("import sys; sys.exit(3)", "SystemExit: 3\n".to_owned()),
        ("'\\x1b[2J'; print('\\x1b[2J\\0')", "answered: ␛[2J␀\n".to_owned()),
        ("print('x' * 10_000_000)", "answered: xxx".to_owned()),
        ("print(chr(0) * 10_000_000)", "answered: ␀␀␀".to_owned()),
        ("sys.stdout.close()", "answered: ".to_owned()),
        ("while True: pass", format!("answered: error: the interpreter gave no answer within 1 s{anew}")),
        ("x", "NameError: name 'x' is not defined\n".to_owned()),
        ("import os; os._exit(3)", format!("answered: error: the interpreter ended with exit code 3{anew}")),
        ("import os; [os.close(n) for n in range(3, 20)]", "answered: error: the interpreter ".to_owned()),
        ("bytearray(4 << 30)", "MemoryError\n".to_owned()),
    ] {
        let found = reply(&mut environment, "python", json!({"code": code}));
        let fits = if expected.starts_with("answered: ") { found.starts_with(&expected) } else { found.ends_with(&expected) };
        assert!(fits && (expected != "answered: " || found == expected || code.contains("close")), "{code}: {found:?}");
    }
    assert_eq!(
        reply(&mut environment, "python", json!({})),
        "refused: error: arguments of python: \"code\" is a required property"
    );
}

#[test]
fn an_interpreter_that_is_none_is_the_environments_failure() {
    let folder = folder(&[]);
    let tools = toolset(
        folder.path(),
        "[[tool]]\nbuiltin = \"python\"\npython = \"/bin/echo\"\nisolation = \"none\"\n",
    )
    .unwrap();
    let found = reply(
        &mut tools.open(&row(json!({}))).unwrap(),
        "python",
        json!({"code": "1"}),
    );
    assert!(
        found.starts_with("failed: the tool \"python\" says \"-I -u -X utf8"),
        "{found}"
    );
    let absent = toolset(
        folder.path(),
        "[[tool]]\nbuiltin = \"python\"\npython = \"/no/python\"\n",
    )
    .unwrap();
    let error = absent.open(&row(json!({}))).unwrap_err().to_string();
    assert!(
        error.starts_with("shop: `/no/python` is not installed: "),
        "{error}"
    );
}

#[test]
fn files_stay_in_their_folder() {
    let folder = folder(&[("seed/a.txt", "one\ntwo\n")]);
    let toml = "[[tool]]\nbuiltin = \"files\"\nfiles = [\"seed/a.txt\"]\nmax_kib = 1\n";
    let tools = toolset(folder.path(), toml).unwrap();
    let mut environment = tools.open(&row(json!({"files": {"b": "own"}}))).unwrap();
    let full = "answered: error: the folder is full: it holds 1000 files and 1,024 bytes at most";
    let inside = "answered: error: paths are relative and stay in the folder, such as notes/a.txt";
    let no_path = "answered: error: not the path of a file";
    for (function, arguments, expected) in [
        ("list_files", json!({}), "answered: b 3\nseed/a.txt 8"),
        (
            "read_file",
            json!({"path": "./seed//a.txt"}),
            "answered: one\ntwo\n",
        ),
        (
            "read_file",
            json!({"path": "seed/a.txt", "first_line": 2}),
            "answered: two\n",
        ),
        (
            "read_file",
            json!({"path": "seed/a.txt", "first_line": 9}),
            "answered: ",
        ),
        (
            "read_file",
            json!({"path": "seed/a.txt", "first_line": 0}),
            "refused: error: arguments of read_file: /first_line: 0 is less than the minimum of 1",
        ),
        (
            "read_file",
            json!({"path": "c"}),
            "answered: error: no file \"c\"",
        ),
        (
            "write_file",
            json!({"path": "b", "content": "new\n"}),
            "answered: 4 bytes written",
        ),
        (
            "write_file",
            json!({"path": "d/e", "content": "x".repeat(1_012)}),
            "answered: 1012 bytes written",
        ),
        ("write_file", json!({"path": "f", "content": "x"}), full),
        (
            "write_file",
            json!({"path": "d/e", "content": "x".repeat(1_013)}),
            full,
        ),
        (
            "write_file",
            json!({"path": "d", "content": ""}),
            "answered: error: \"d\" and \"d/e\" cannot both be: one would be a folder",
        ),
        (
            "write_file",
            json!({"path": "b/c", "content": ""}),
            "answered: error: \"b/c\" and \"b\" cannot both be",
        ),
        ("read_file", json!({"path": "/etc/passwd"}), inside),
        ("write_file", json!({"path": "../x", "content": ""}), inside),
        ("read_file", json!({"path": "d/../../x"}), inside),
        ("write_file", json!({"path": "", "content": ""}), no_path),
        ("write_file", json!({"path": "a/", "content": ""}), no_path),
        (
            "write_file",
            json!({"path": "a\nb", "content": ""}),
            no_path,
        ),
        (
            "write_file",
            json!({"path": "x".repeat(257), "content": ""}),
            no_path,
        ),
    ] {
        let found = reply(&mut environment, function, arguments.clone());
        assert!(
            if expected == "answered: " {
                found == expected
            } else {
                found.starts_with(expected)
            },
            "{arguments}: {found}"
        );
    }
    let file = |path: &str| StateQuery {
        tool: None,
        question: StateQuestion::File(path.to_owned()),
    };
    assert_eq!(environment.state(&file("b")).unwrap(), json!("new\n"));
    assert_eq!(environment.state(&file("c")).unwrap(), Value::Null);
    assert!(environment.state(&file("../c")).is_err());
    let mut other = tools.open(&row(json!({}))).unwrap();
    assert_eq!(
        reply(&mut other, "list_files", json!({})),
        "answered: seed/a.txt 8"
    );
    for (field, expected) in [
        (
            json!(7),
            "row r1: the tool \"files\": `files` is not an object of paths and texts",
        ),
        (
            json!({"a": 7}),
            "row r1: the tool \"files\": `files` has \"a\", which is not a text",
        ),
        (
            json!({"../a": ""}),
            "row r1: the tool \"files\": `files` has \"../a\": paths are relative",
        ),
        (
            json!({"a": "x".repeat(2_000)}),
            "row r1: the tool \"files\": `files` has \"a\": the folder is full",
        ),
    ] {
        let error = tools
            .open(&row(json!({"files": field})))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn tools_of_one_task_are_called_side_by_side() {
    let folder = folder(&[("shop.sql", SHOP)]);
    let toml =
        "[[tool]]\nbuiltin = \"files\"\n[[tool]]\nbuiltin = \"sqlite\"\ndatabase = \"shop.sql\"\n";
    let tools = toolset(folder.path(), toml).unwrap();
    let names = |tools: &Toolset| {
        let list = tools.definitions().unwrap().as_array().unwrap().clone();
        list.iter()
            .map(|tool| tool["function"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&tools),
        ["list_files", "read_file", "write_file", "query", "execute"]
    );
    let mut environment = tools.open(&row(json!({}))).unwrap();
    let replies = environment.call(&[
        call("query", json!({"sql": "SELECT 1"})),
        call("write_file", json!({"path": "a", "content": "b"})),
        call("query", json!({"sql": "SELECT 2"})),
        call("read_file", json!({"path": "a"})),
    ]);
    let replies: Vec<String> = replies.iter().map(shown).collect();
    let table = |n: i32| format!("answered: {{\"columns\":[\"{n}\"],\"rows\":[[{n}]]}}");
    assert_eq!(
        replies,
        [
            table(1),
            "answered: 1 bytes written".to_owned(),
            table(2),
            "answered: b".to_owned()
        ]
    );
    assert!(environment.call(&[]).is_empty());
}

#[test]
fn functions_of_a_task_run_their_statements() {
    let function = |name: &str, properties: Value, sql: Value| {
        let parameters = json!({"type": "object", "properties": properties});
        json!({"type": "function", "function": {"name": name, "parameters": parameters}, "sql": sql})
    };
    let find = function(
        "find",
        json!({"name": {}, "least": {"type": "integer"}}),
        json!("SELECT id, stock FROM item WHERE name LIKE :name AND stock >= coalesce(:least, 0)"),
    );
    let sell = |sql: &str| function("sell", json!({"id": {}, "note": {}}), json!(sql));
    let sold = sell("UPDATE item SET stock = stock - 1 WHERE id = :id");
    let toml =
        "[[tool]]\nbuiltin = \"sqlite\"\ndatabase = \"shop.sql\"\ndefinitions = \"tools.json\"\n";
    let of = |list: &Value, toml: &str| {
        let folder = folder(&[("shop.sql", SHOP), ("tools.json", &list.to_string())]);
        let place = folder.path().display().to_string();
        let opened = toolset(folder.path(), toml).and_then(|tools| {
            Ok((
                tools
                    .definitions()
                    .map_err(|error| error.to_string())?
                    .clone(),
                tools,
            ))
        });
        opened.map_err(|error| error.replace(&place, "/FOLDER"))
    };
    let (definitions, tools) = of(&json!([find, sold]), toml).unwrap();
    assert_eq!(
        definitions[1]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["type", "function"]
    );
    let mut environment = tools
        .open(&row(
            json!({"database": "INSERT INTO item VALUES (3, 'nub', 7)"}),
        ))
        .unwrap();
    for (name, arguments, expected) in [
        (
            "find",
            json!({"name": "nu%"}),
            r#"answered: [{"id":1,"stock":5},{"id":3,"stock":7}]"#,
        ),
        (
            "find",
            json!({"name": "nu%", "least": 6}),
            r#"answered: [{"id":3,"stock":7}]"#,
        ),
        (
            "find",
            json!({"name": "'; DELETE FROM item; --"}),
            "answered: []",
        ),
        (
            "sell",
            json!({"id": 3, "note": ["a"]}),
            r#"answered: {"changed":1}"#,
        ),
        ("sell", json!({"id": [3]}), r#"answered: {"changed":0}"#),
        (
            "find",
            json!({"least": "x"}),
            r#"refused: error: arguments of find: /least: "x" is not of type "integer""#,
        ),
        (
            "query",
            json!({"sql": "SELECT 1"}),
            "refused: error: no function \"query\"; there are find, sell",
        ),
    ] {
        assert_eq!(
            reply(&mut environment, name, arguments.clone()),
            expected,
            "{name} {arguments}"
        );
    }
    for (list, more, expected) in [
        (
            json!([find, function("sell", json!({}), Value::Null)]),
            "",
            "task.toml line 4 column 15: `tool.definitions` /FOLDER/tools.json: /1: sell has no statement: write \"sql\"",
        ),
        (
            json!([sell("UPDATE item SET stock = 0 WHERE id = :number")]),
            "",
            "/FOLDER/tools.json line 1 column 118: /0/sql: `:number` is no property of sell, which has :id, :note",
        ),
        (
            json!([sell("UPDATE item SET stock = 0 WHERE id = ?")]),
            "",
            "/FOLDER/tools.json line 1 column 118: /0/sql: `:` is no property of sell",
        ),
        (
            json!([sell("UPDATE thing SET stock = 0")]),
            "",
            "/FOLDER/tools.json line 1 column 118: /0/sql: no such table: thing",
        ),
        (
            json!([sell("DROP TABLE item")]),
            "",
            "/FOLDER/tools.json line 1 column 118: /0/sql: not authorized",
        ),
        (
            json!([find]),
            "read_only = true",
            "task.toml line 5 column 13: `tool.read_only` is of `query` and `execute`",
        ),
    ] {
        let error = of(&list, &format!("{toml}{more}"))
            .map(|(definitions, _)| definitions)
            .unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    let without = "[[tool]]\nbuiltin = \"sqlite\"\nfield = \"own\"\ndefinitions = \"tools.json\"\n";
    let error = of(&json!([find]), without)
        .map(|(definitions, _)| definitions)
        .unwrap_err();
    assert!(
        error.starts_with("/FOLDER/task.toml: missing `tool.database`"),
        "{error}"
    );
}

#[test]
fn a_database_is_the_conversations_own() {
    let folder = folder(&[("shop.sql", SHOP)]);
    let tools = toolset(
        folder.path(),
        "[[tool]]\nbuiltin = \"sqlite\"\ndatabase = \"shop.sql\"\nname = \"shop\"\n",
    )
    .unwrap();
    let sql = |environment: &mut Environment, function: &str, sql: &str| {
        reply(environment, function, json!({"sql": sql}))
    };
    let (mut one, mut other) = (
        tools.open(&row(json!({}))).unwrap(),
        tools.open(&row(json!({}))).unwrap(),
    );
    for (function, text, expected) in [
        (
            "shop_query",
            "SELECT name, stock FROM item ORDER BY id",
            r#"answered: {"columns":["name","stock"],"rows":[["nut",5],["bolt",0]]}"#,
        ),
        (
            "shop_query",
            "SELECT NULL, 1.5, x'00ff'",
            r#"answered: {"columns":["NULL","1.5","x'00ff'"],"rows":[[null,1.5,"x'00ff'"]]}"#,
        ),
        (
            "shop_execute",
            "UPDATE item SET stock = stock - 1 WHERE id = 1",
            r#"answered: {"changed":1}"#,
        ),
        (
            "shop_execute",
            "INSERT INTO item (name) VALUES ('cog') RETURNING id",
            r#"answered: {"changed":1,"columns":["id"],"rows":[[3]]}"#,
        ),
        // A failure half-way is undone.
        (
            "shop_execute",
            "INSERT INTO item (name) VALUES ('new'), ('nut')",
            "answered: error: UNIQUE constraint failed: item.name",
        ),
        (
            "shop_query",
            "SELECT count(*) AS n FROM item",
            r#"answered: {"columns":["n"],"rows":[[3]]}"#,
        ),
        (
            "shop_query",
            "DELETE FROM item",
            "answered: error: not allowed; this function takes queries",
        ),
        (
            "shop_execute",
            "DROP TABLE item",
            "answered: error: not allowed; this function takes INSERT, UPDATE, DELETE and queries",
        ),
        (
            "shop_execute",
            "ATTACH '/tmp/x' AS x",
            "answered: error: not allowed; this function takes INSERT, UPDATE, DELETE and queries",
        ),
        (
            "shop_execute",
            "PRAGMA journal_mode = OFF",
            "answered: error: not allowed; this function takes INSERT, UPDATE, DELETE and queries",
        ),
        (
            "shop_execute",
            "BEGIN",
            "answered: error: not allowed; this function takes INSERT, UPDATE, DELETE and queries",
        ),
        (
            "shop_query",
            "SELECT random()",
            "answered: error: not authorized to use function: random",
        ),
        (
            "shop_query",
            "SELECT 1; SELECT 2",
            "answered: error: several statements; write one query",
        ),
        (
            "shop_query",
            "SELEC 1",
            "answered: error: near \"SELEC\": syntax error",
        ),
        (
            "shop_query",
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n",
            "answered: error: the query takes too many steps",
        ),
        (
            "shop_execute",
            "INSERT INTO item (name) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT printf('%060000d', x) FROM n",
            "answered: error: ",
        ),
    ] {
        let found = sql(&mut one, function, text);
        assert!(
            if expected.ends_with(": ") {
                found.starts_with(expected)
            } else {
                found == expected
            },
            "{text}: {found}"
        );
    }
    assert_eq!(
        sql(&mut other, "shop_query", "SELECT sum(stock) AS n FROM item"),
        r#"answered: {"columns":["n"],"rows":[[5]]}"#
    );
    let query = |text: &str| StateQuery {
        tool: None,
        question: StateQuestion::Sql(text.to_owned()),
    };
    let state = one.state(&query("SELECT name, stock FROM item")).unwrap();
    assert_eq!(
        state,
        json!({"columns": ["name", "stock"], "rows": [["nut", 4], ["bolt", 0], ["cog", null]]})
    );
    let error = one
        .state(&query("DELETE FROM item"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("the final state: the tool \"shop\": not authorized"),
        "{error}"
    );
    // A row may add its own.
    let mut own = tools
        .open(&row(
            json!({"database": "INSERT INTO item VALUES (3, 'cog', 7)"}),
        ))
        .unwrap();
    let found = sql(&mut own, "shop_query", "SELECT sum(stock) AS n FROM item");
    assert_eq!(found, r#"answered: {"columns":["n"],"rows":[[12]]}"#);
    let mut alone = toolset(
        folder.path(),
        "[[tool]]\nbuiltin = \"sqlite\"\nfield = \"own\"\n",
    )
    .map(|tools| {
        tools
            .open(&row(
                json!({"own": "CREATE TABLE t (a); INSERT INTO t VALUES (7)"}),
            ))
            .unwrap()
    });
    let found = sql(alone.as_mut().unwrap(), "query", "SELECT a FROM t");
    assert_eq!(found, r#"answered: {"columns":["a"],"rows":[[7]]}"#);
    for (field, expected) in [
        (
            json!("INSERT INTO item VALUES (4, 'pin', 1);\nINSERT INTO u VALUES (1)"),
            "row r1: the tool \"shop\": `database` line 2 column 1: no such table: u",
        ),
        (
            json!(7),
            "row r1: the tool \"shop\": `database` is not a text",
        ),
    ] {
        let error = tools
            .open(&row(json!({"database": field})))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
