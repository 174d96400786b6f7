//! SQL: what a task configures (the clock, what counts in a result, limits), and rows that no answer can be judged for.

use serde_json::json;

use super::sql::{SCHEMA, scorer};
use super::{loaded, row_with, shown};
use grpo_tui::score::Tier;

/// One clock for whatever reads the time, in queries, defaults, views and triggers.
#[test]
fn the_clock_stands_still() {
    let schema = "CREATE TABLE t (a, at TEXT DEFAULT CURRENT_TIMESTAMP);\nINSERT INTO t (a) VALUES (1);\n\
                  CREATE TABLE log (at);\nCREATE TRIGGER note AFTER INSERT ON t BEGIN INSERT INTO log VALUES (datetime()); END;\n\
                  INSERT INTO t VALUES (2, date('now', '-1 day'));\n\
                  CREATE VIEW today AS SELECT CURRENT_DATE AS day, time() AS hour;\n";
    for (lines, day, time) in [
        ("", "2024-01-01", "00:00:00"),
        ("now = \"2023-02-28 13:14:15\"\n", "2023-02-28", "13:14:15"),
        ("now = 2023-02-28T13:14:15\n", "2023-02-28", "13:14:15"),
    ] {
        let scorer = scorer(Some(schema), lines).unwrap();
        for (query, expected) in [
            (
                "SELECT date('now'), date(), CURRENT_DATE, date('now', 'localtime'), date(julianday()), date(unixepoch(), 'unixepoch')",
                vec![day; 6],
            ),
            (
                "SELECT time('now'), CURRENT_TIME, strftime('%H:%M:%S'), strftime('%H:%M:%S', 'now', 'utc')",
                vec![time; 4],
            ),
            (
                "SELECT date(at), time(at) FROM t WHERE a = 1",
                vec![day, time],
            ),
            ("SELECT date(at), time(at) FROM log", vec![day, time]),
            ("SELECT day, hour FROM today", vec![day, time]),
        ] {
            let cells: Vec<String> = expected.iter().map(|cell| format!("'{cell}'")).collect();
            let row = row_with(&json!({"expected": format!("SELECT {}", cells.join(", "))}));
            assert_eq!(shown(&scorer.score(query, Some(&row))), "valid", "{query}");
        }
    }
    let own = row_with(&json!({"now": "1999-12-31", "expected": "VALUES ('1999-12-31 00:00:00')"}));
    let scorer = scorer(Some(schema), "").unwrap();
    assert_eq!(
        shown(&scorer.score("SELECT CURRENT_TIMESTAMP", Some(&own))),
        "valid"
    );
}

#[test]
fn functions_of_mathematics_are_there() {
    let scorer = scorer(Some(SCHEMA), "").unwrap();
    for (query, expected) in [
        (
            "SELECT sqrt(4), pow(2, 3), power('2', 0.5)",
            "2, 8, 1.41421356237310",
        ),
        (
            "SELECT floor(2.5), ceil(-2.5), ceiling(3), trunc(-2.5)",
            "2.0, -2.0, 3, -2.0",
        ),
        (
            "SELECT ln(exp(2)), log(100), log(2, 8), log10(1000), log2(8)",
            "2, 2, 3, 3, 3",
        ),
        (
            "SELECT mod(7, 3), degrees(pi()), radians(180) - pi()",
            "1, 180, 0",
        ),
        (
            "SELECT sin(0), cos(0), tan(0), atan2(0, 1), asin(0), acosh(1), tanh(0)",
            "0, 1, 0, 0, 0, 0, 0",
        ),
        (
            "SELECT sqrt(-1), ln(0), log(1, 2), sqrt('x'), floor(NULL), acos(2)",
            "NULL, NULL, NULL, NULL, NULL, NULL",
        ),
    ] {
        let row = row_with(&json!({"expected": format!("SELECT {expected}")}));
        assert_eq!(shown(&scorer.score(query, Some(&row))), "valid", "{query}");
    }
}

#[test]
fn what_counts_in_a_result_is_configured() {
    let ties = "CREATE TABLE s (name TEXT, points INTEGER, team TEXT);\n\
                INSERT INTO s VALUES ('a', 3, 'x'), ('b', 3, 'y'), ('c', 1, 'x'), ('d', 1, 'x');\n";
    let (set, superset, ignore) = (
        "rows = \"set\"\n",
        "columns = \"superset\"\n",
        "order = \"ignore\"\n",
    );
    for (lines, answer, expected, is_exact) in [
        // Rows with equal keys have no order.
        (
            "",
            "SELECT name FROM s ORDER BY points DESC, name DESC",
            "SELECT name FROM s ORDER BY points DESC",
            true,
        ),
        (
            "",
            "SELECT name FROM s ORDER BY points, name DESC",
            "SELECT name FROM s ORDER BY points DESC",
            false,
        ),
        (
            "",
            "SELECT name AS n, points FROM s ORDER BY 2, 1 DESC",
            "SELECT name, points AS p FROM s ORDER BY p",
            true,
        ),
        (
            "",
            "SELECT name FROM s ORDER BY points, name DESC",
            "SELECT name FROM s ORDER BY points, name",
            false,
        ),
        (
            "",
            "SELECT team, sum(points) FROM s GROUP BY 1 ORDER BY 1 DESC",
            "SELECT team, sum(points) FROM s GROUP BY team ORDER BY count(*) > 9",
            true,
        ),
        (
            "",
            "SELECT DISTINCT name, team FROM s ORDER BY team, name DESC",
            "SELECT DISTINCT name, team FROM s ORDER BY 2",
            true,
        ),
        (
            "",
            "VALUES ('b', 1), ('a', 1)",
            "SELECT 'a' AS n, 1 AS k UNION SELECT 'b', 1 ORDER BY k",
            true,
        ),
        (
            "",
            "SELECT name FROM s ORDER BY points DESC",
            "SELECT name FROM s ORDER BY points",
            false,
        ),
        (
            ignore,
            "SELECT name FROM s ORDER BY points DESC",
            "SELECT name FROM s ORDER BY points",
            true,
        ),
        (
            "",
            "SELECT team FROM s",
            "SELECT DISTINCT team FROM s",
            false,
        ),
        (
            set,
            "SELECT team FROM s",
            "SELECT DISTINCT team FROM s",
            true,
        ),
        (
            set,
            "SELECT team FROM s WHERE team = 'x'",
            "SELECT DISTINCT team FROM s",
            false,
        ),
        (
            "",
            "SELECT points, name FROM s",
            "SELECT name, points FROM s",
            false,
        ),
        (
            superset,
            "SELECT points, name FROM s",
            "SELECT name, points FROM s",
            true,
        ),
        (superset, "SELECT * FROM s", "SELECT points FROM s", true),
        (
            superset,
            "SELECT team AS name, name AS team FROM s",
            "SELECT name FROM s",
            true,
        ),
        (
            superset,
            "SELECT name FROM s",
            "SELECT name, points FROM s",
            false,
        ),
        (
            superset,
            "SELECT name, 4 - points FROM s",
            "SELECT name, points FROM s",
            false,
        ),
    ] {
        let row = row_with(&json!({"expected": expected}));
        let score = scorer(Some(ties), lines).unwrap().score(answer, Some(&row));
        assert_eq!(
            score.exact,
            Some(is_exact),
            "{lines}{answer}: {}",
            shown(&score)
        );
    }
    let any = row_with(
        &json!({"expected": {"$any": ["SELECT 1", "SELECT name FROM s WHERE points > 2"]}}),
    );
    let scorer = scorer(
        Some(ties),
        "max_rows = 3\nmax_steps = 100000\nvalue_kib = 1\n",
    )
    .unwrap();
    for (answer, found) in [
        ("SELECT 1", "valid"),
        ("SELECT 'b' UNION SELECT 'a'", "valid"),
        (
            "SELECT 'b'",
            "valid [wrong result]; 1:1 1 row missing of 1: (1); 1 row extra of 1: ('b')",
        ),
        (
            "SELECT * FROM s",
            "invalid [other]; 1:1 the result has more than 3 rows or 16384 KiB",
        ),
        (
            "SELECT zeroblob(2000)",
            "invalid [other]; 1:1 a value is longer than 1 KiB",
        ),
    ] {
        let score = scorer.score(answer, Some(&any));
        assert!(
            shown(&score).starts_with(&found[..found.len().min(40)]),
            "{}",
            shown(&score)
        );
    }
}

/// No answer to such a row has a score, which is known before a run.
#[test]
fn rows_that_cannot_be_read_are_known_before_a_run() {
    let sql = scorer(Some(SCHEMA), "").unwrap();
    for (row, problem) in [
        (json!({"expected": "SELECT 1"}), None),
        (
            json!({"expected": {"$any": ["SELECT 1", "SELECT 2"]}}),
            None,
        ),
        (
            json!({"expected": ["SELECT 1"]}),
            Some("is not a query in quotes"),
        ),
        (
            json!({"expected": {"$any": ["SELECT 1", "SELECT x"]}}),
            Some("does not run: no such column: x"),
        ),
        (json!({"expected": "SELECT"}), Some("does not parse")),
        (
            json!({"schema": "CREATE", "expected": "SELECT 1"}),
            Some("the schema does not run"),
        ),
        (
            json!({"now": "today"}),
            Some("`now` of the row takes a date"),
        ),
    ] {
        let found = sql.row_problem(&row_with(&row)).unwrap_or_default();
        assert!(
            problem.map_or(found.is_empty(), |problem| found.contains(problem)),
            "{row}: {found}"
        );
    }
    let regex = "name = \"sample\"\n[score]\nkind = \"regex\"\npattern = '(?P<year>\\d+)'\n";
    let (_folder, _, regex) = loaded(&[("task.toml", regex)]).unwrap();
    for (row, problem) in [
        (json!({"expected": {"year": 7}}), None),
        (
            json!({"expected": {"$any": ["7", {"year": {"$any": ["8", "9"]}}]}}),
            None,
        ),
        (
            json!({"expected": {"yaer": "7"}}),
            Some("no group \"yaer\"; the pattern has year"),
        ),
        (
            json!({"expected": ["7"]}),
            Some("takes a text, or an object"),
        ),
        (
            json!({"expected": {"year": ["7"]}}),
            Some("is a text, not [\"7\"]"),
        ),
    ] {
        let row = row_with(&row);
        let found = regex.row_problem(&row).unwrap_or_default();
        assert!(
            problem.map_or(found.is_empty(), |problem| found.contains(problem)),
            "{found}"
        );
        assert_eq!(regex.score("7", Some(&row)).is_error(), problem.is_some());
    }
    // An object has nothing to be compared with.
    let plain = "name = \"sample\"\n[score]\nkind = \"regex\"\npattern = '\\d'\n";
    let (_folder, _, regex) = loaded(&[("task.toml", plain)]).unwrap();
    let row = row_with(&json!({"expected": {"year": "7"}}));
    assert_eq!(regex.row_problem(&row), None);
    let score = regex.score("7", Some(&row));
    assert_eq!((score.tier, score.exact), (Tier::Valid, None));
}
