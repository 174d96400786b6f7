//! SQL: one row a rule, so that no change moves a reward unseen; and what hostile queries cost.

use grpo_tui::score::{Scorer, Tier};
use serde_json::json;

use super::{loaded, row_with, shown};

pub(super) const SCHEMA: &str = "CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT, people INTEGER, land TEXT);\n\
                      INSERT INTO city VALUES (1, 'Oslo', 700, 'NO'), (2, 'Bergen', 290, 'NO'), (3, 'Turku', 200, 'FI');\n\
                      CREATE VIEW big AS SELECT * FROM city WHERE people > 250;\n";

pub(super) fn scorer(schema: Option<&str>, lines: &str) -> Result<Scorer, String> {
    let named = if schema.is_some() {
        "schema = \"schema.sql\"\n"
    } else {
        ""
    };
    let toml = format!("name = \"sample\"\n{named}[score]\nkind = \"sql\"\n{lines}");
    loaded(&[
        ("task.toml", &toml),
        ("schema.sql", schema.unwrap_or_default()),
    ])
    .map(|(_, _, scorer)| scorer)
}

#[test]
fn each_fault_of_a_query_has_its_name_and_place() {
    let scorer = scorer(Some(SCHEMA), "").unwrap();
    for (completion, expected) in [
        ("SELECT name FROM city", "valid"),
        (
            " WITH b AS (SELECT * FROM big) SELECT count(*) FROM b; \n",
            "valid",
        ),
        ("VALUES (1, 'a')", "valid"),
        ("<think>Easy.</think>\nSELECT 1", "valid"),
        ("", "unparsable [other]; 1:1 the answer is empty"),
        (
            "SELECT name\nFROM city WHERE",
            "unparsable [truncated]; 2:16 Expected: an expression, found: the end",
        ),
        (
            "SELECT 'a",
            "unparsable [truncated]; 1:8 Unterminated string literal",
        ),
        (
            "SELECT name FRM city x y",
            "unparsable [syntax]; 1:17 Expected: end of statement, found: city",
        ),
        (
            "The query is SELECT 1",
            "unparsable [prose]; 1:1 Expected: an SQL statement, found: The",
        ),
        (
            "SELECT 1; SELECT 2",
            "unparsable [prose]; 1:1 2 statements; write one query",
        ),
        (
            "<think>SELECT 1",
            "unparsable [think leak]; 1:1 unclosed think block",
        ),
        (
            "SELECT nme\nFROM city",
            "invalid [unknown column]; 1:8 no such column: nme",
        ),
        (
            "SELECT *\n FROM cty",
            "invalid [unknown table]; 2:7 no such table: cty",
        ),
        (
            "SELECT c.x FROM city c",
            "invalid [unknown column]; 1:8 no such column: c.x",
        ),
        (
            "SELECT frob(1)",
            "invalid [other]; 1:8 no such function: frob",
        ),
        (
            "DELETE FROM city",
            "invalid [other]; 1:1 only a query is allowed: SELECT, WITH or VALUES",
        ),
        (
            "PRAGMA journal_mode",
            "invalid [other]; 1:1 only a query is allowed: SELECT, WITH or VALUES",
        ),
        (
            "ATTACH DATABASE 'x' AS y",
            "invalid [other]; 1:1 only a query is allowed: SELECT, WITH or VALUES",
        ),
        (
            "SELECT * FROM pragma_table_info('city')",
            "invalid [other]; 1:1 not authorized",
        ),
        (
            "SELECT load_extension('x')",
            "invalid [other]; 1:8 not authorized to use function: load_extension",
        ),
        (
            "SELECT random()",
            "invalid [other]; 1:8 not authorized to use function: random",
        ),
    ] {
        assert_eq!(
            shown(&scorer.score(completion, None)),
            expected,
            "{completion}"
        );
    }
    for (completion, tolerant) in [
        ("```sql\nSELECT 1\n```", true),
        ("```sql\nSELECT x\n```", false),
        ("See:\n```\nSELECT 1\n```", true),
    ] {
        let score = scorer.score(completion, None);
        assert_eq!(
            (score.tier, score.tolerant),
            (Tier::Unparsable, tolerant),
            "{completion}"
        );
    }
}

/// SQLite's parser judges the dialect `sqlite`, whatever the grammar that finds places makes of a query.
#[test]
fn queries_that_sqlite_takes_are_queries() {
    let schema = format!(
        "{SCHEMA}CREATE INDEX by_name ON city (name);\nCREATE TABLE t (x);\nINSERT INTO t VALUES (1), ('');\n"
    );
    let scorer = scorer(Some(&schema), "").unwrap();
    let database = rusqlite::Connection::open_in_memory().unwrap();
    database.execute_batch(&schema).unwrap();
    for (query, expected) in [
        ("SELECT x FROM t WHERE x IS NOT ''", "valid"),
        ("SELECT x FROM t WHERE x IS 1", "valid"),
        ("SELECT x FROM t WHERE x IN ((SELECT 1), 2)", "valid"),
        ("SELECT 1 IN t", "valid"),
        ("SELECT * FROM city CROSS JOIN t ON city.id = t.x", "valid"),
        ("SELECT * FROM (t)", "valid"),
        (
            "SELECT * FROM city NOT INDEXED WHERE name = 'Oslo'",
            "valid",
        ),
        (
            "SELECT * FROM city INDEXED BY by_name WHERE name = 'Oslo'",
            "valid",
        ),
        (
            "SELECT x NOTNULL FROM t WHERE x IS DISTINCT FROM 2",
            "valid",
        ),
        ("SELECT iif(x, 1, 2) FILTER (WHERE x) FROM t", "invalid"),
        ("SELECT group_concat(x ORDER BY x DESC) FROM t", "valid"),
        ("SELECT 1 /* to the end", "valid"),
        (
            "SELECT 1 WHERE 1 = 1 AND ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))",
            "valid",
        ),
        ("SELECT x IS NOT '' FROM nowhere", "invalid"),
        ("SELECT TOP 1 x FROM t", "unparsable"),
        ("SELECT x FROM t FETCH FIRST 1 ROW ONLY", "unparsable"),
        ("SELECT x IS NOT '' FROM", "unparsable"),
        ("SELECT x IS NOT '' FROM t; SELECT 2", "unparsable"),
        ("REINDEX city", "invalid"),
        ("EXPLAIN SELECT x IS NOT '' FROM t", "invalid"),
    ] {
        let score = scorer.score(query, None);
        assert_eq!(score.tier.name(), expected, "{query}: {}", shown(&score));
        let syntax = |error: rusqlite::Error| {
            matches!(&error, rusqlite::Error::MultipleStatement)
                || error.to_string().contains("syntax error")
                || error.to_string().contains("incomplete")
        };
        assert_eq!(
            score.tier == Tier::Unparsable,
            database.prepare(query).is_err_and(syntax),
            "{query}"
        );
    }
    // Of an expected query, too, and its order counts.
    for (answer, expected, found) in [
        ("SELECT x FROM t WHERE x IS NOT ''", "SELECT 1", "valid"),
        ("SELECT 1", "SELECT x FROM t WHERE x IS NOT ''", "valid"),
        (
            "SELECT name FROM city",
            "SELECT name FROM city WHERE name IS NOT '' ORDER BY name DESC",
            "valid [wrong result]; 1:1 wrong order: row 1 is expected to be ('Turku'), found ('Bergen')",
        ),
        ("SELECT name FROM city", "SELECT name FROM (city)", "valid"),
    ] {
        let row = row_with(&json!({"expected": expected}));
        assert_eq!(
            shown(&scorer.score(answer, Some(&row))),
            found,
            "{answer} for {expected}"
        );
    }
    for (query, found) in [
        (
            "SELECT\n  TOP 1 x FROM t",
            "unparsable [syntax]; 2:7 near \"1\": syntax error",
        ),
        (
            "SELECT x IS NOT '' FROM",
            "unparsable [truncated]; 1:24 incomplete input",
        ),
        (
            "SELECT x IS NOT '' FORM t",
            "unparsable [syntax]; 1:25 near \"t\": syntax error",
        ),
        (
            "SELECT x IS NOT '' FROM t; SELECT 2",
            "unparsable [prose]; 1:1 several statements; write one query",
        ),
    ] {
        assert_eq!(shown(&scorer.score(query, None)), found, "{query}");
    }
}

/// The grammar of other dialects lacks some of what they have: what it refuses is not punished as no query, unless none
/// could take it. Where SQLite runs it, nobody knows, and there is no reward.
#[test]
fn what_the_grammar_of_a_dialect_lacks_is_not_understood() {
    let mut wrong = Vec::new();
    for (dialect, query, expected) in [
        (
            "postgres",
            "SELECT XMLELEMENT(NAME foo, 'bar')",
            "invalid [not understood]",
        ),
        (
            "postgres",
            "SELECT concat_ws(',', VARIADIC ARRAY['a', 'b'])",
            "invalid [not understood]",
        ),
        (
            "postgres",
            "SELECT * FROM ROWS FROM (generate_series(1, 3), generate_series(1, 2))",
            "invalid [not understood]",
        ),
        (
            "postgres",
            "SELECT name FROM city WHERE land ISNULL",
            "unparsable [scorer error]",
        ),
        // Read as a path into JSON.
        (
            "duckdb",
            "SELECT total: people + 1 FROM city",
            "invalid [other]",
        ),
        (
            "duckdb",
            "SELECT * FROM city USING SAMPLE 10%",
            "invalid [not understood]",
        ),
        (
            "duckdb",
            "SELECT * FROM city USING SAMPLE reservoir(50 ROWS)",
            "invalid [not understood]",
        ),
        (
            "duckdb",
            "SELECT min(*COLUMNS('a.*')) FROM city",
            "invalid [not understood]",
        ),
        (
            "duckdb",
            "SELECT * FROM (PIVOT city ON land USING sum(people))",
            "invalid [not understood]",
        ),
        (
            "duckdb",
            "PIVOT city ON land USING sum(people)",
            "invalid [not understood]",
        ),
        // No grammar takes these.
        ("postgres", "The query is SELECT 1", "unparsable [prose]"),
        ("duckdb", "In short: SELECT 1", "unparsable [prose]"),
        ("postgres", "SELECT `name` FROM city", "unparsable [syntax]"),
        (
            "postgres",
            "SELECT count(* FROM city",
            "unparsable [syntax]",
        ),
        (
            "postgres",
            "SELECT name FROM city WHERE",
            "unparsable [truncated]",
        ),
        ("postgres", "SELECT 'a", "unparsable [truncated]"),
        ("postgres", "SELECT 1; SELECT 2", "unparsable [prose]"),
        ("postgres", "```sql\nSELECT 1\n```", "unparsable [fence]"),
        (
            "postgres",
            "SELECT nme FROM city",
            "invalid [unknown column]",
        ),
    ] {
        let scorer = scorer(Some(SCHEMA), &format!("dialect = \"{dialect}\"\n")).unwrap();
        let found = shown(&scorer.score(query, None));
        let says_so = found.contains("not understood: ");
        let is_right = found.split(';').next() == Some(expected)
            && says_so == (expected.contains("not understood") || expected.contains("scorer"));
        if !is_right {
            wrong.push(format!("{query}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The author of a row knows that its query is right.
    let postgres = scorer(Some(SCHEMA), "dialect = \"postgres\"\n").unwrap();
    let expected =
        row_with(&json!({"expected": "SELECT name FROM city WHERE land ISNULL ORDER BY name"}));
    assert_eq!(
        shown(&postgres.score("SELECT name FROM city WHERE land IS NULL", Some(&expected))),
        "valid"
    );
}

#[test]
fn results_are_compared_with_the_expected_ones() {
    let ordered = "SELECT name FROM city ORDER BY people";
    let free = "SELECT name, people FROM city WHERE land = 'NO'";
    let scorer = scorer(
        Some(SCHEMA),
        "[[reward]]\npart = \"fields\"\nweight = 0.3\n",
    )
    .unwrap();
    for (completion, expected, reward, found) in [
        (free, free, 1.3, "valid"),
        (
            "SELECT name AS n, people FROM city WHERE land IN ('NO') ORDER BY 2",
            free,
            1.3,
            "valid",
        ),
        (
            "SELECT name FROM city ORDER BY people, id",
            ordered,
            1.3,
            "valid",
        ),
        (
            "SELECT name FROM city ORDER BY people DESC",
            ordered,
            1.2,
            "valid [wrong result]; 1:1 wrong order: row 1 is expected to be ('Turku'), found ('Oslo')",
        ),
        ("SELECT name, people FROM big", free, 1.3, "valid"),
        (
            "SELECT name, people FROM city",
            free,
            1.15,
            "valid [wrong result]; 1:1 1 row extra of 3: ('Turku', 200)",
        ),
        (
            "SELECT name, people FROM city WHERE id = 1",
            free,
            1.15,
            "valid [wrong result]; 1:1 1 row missing of 2: ('Bergen', 290)",
        ),
        (
            "SELECT name FROM big",
            free,
            1.0,
            "valid [wrong result]; 1:1 2 columns expected (name, people), found 1",
        ),
        (
            "SELECT avg(people) * 1.0 FROM city",
            "SELECT sum(people) / 3.0 FROM city",
            1.3,
            "valid",
        ),
        (
            "SELECT x FROM city",
            free,
            0.5,
            "invalid [unknown column]; 1:8 no such column: x",
        ),
        (
            "none",
            free,
            0.0,
            "unparsable [prose]; 1:1 Expected: an SQL statement, found: none",
        ),
    ] {
        let score = scorer.score(completion, Some(&row_with(&json!({"expected": expected}))));
        assert_eq!(shown(&score), found, "{completion}");
        assert_eq!(score.exact, Some(found == "valid"), "{completion}");
        assert!(
            (score.reward - reward).abs() < 1e-9,
            "{completion} earns {}",
            score.reward
        );
    }
}

#[test]
fn a_row_brings_its_own_schema_and_dialect() {
    let scorer = scorer(None, "dialect = \"postgres\"\n").unwrap();
    let own = row_with(&json!({"schema": "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2);"}));
    assert_eq!(shown(&scorer.score("SELECT a FROM t", Some(&own))), "valid");
    assert_eq!(
        shown(&scorer.score("SELECT `a` FROM t", Some(&own)))
            .split(';')
            .next(),
        Some("unparsable [syntax]")
    );
    let mysql = row_with(&json!({"schema": "CREATE TABLE t (a);", "dialect": "mysql"}));
    assert_eq!(
        shown(&scorer.score("SELECT `a` FROM t", Some(&mysql))),
        "valid"
    );
    for (fields, message) in [
        (json!({}), "no schema: name a file"),
        (
            json!({"schema": "CREATE TABLE t ("}),
            "the schema does not run: incomplete input",
        ),
        (
            json!({"schema": "", "dialect": "klingon"}),
            "`dialect` \"klingon\" of the row is unknown",
        ),
        (
            json!({"schema": "", "expected": 7}),
            "the row's `expected` is not a query",
        ),
        (
            json!({"schema": "", "expected": "SELECT x"}),
            "the row's `expected` does not run: no such column: x",
        ),
        (
            json!({"schema": "", "expected": "SELEC"}),
            "the row's `expected` does not parse",
        ),
    ] {
        let score = scorer.score("SELECT 1", Some(&row_with(&fields)));
        assert!(
            score.is_error() && shown(&score).contains(message),
            "{}",
            shown(&score)
        );
    }
}

#[test]
fn malformed_definitions_are_named() {
    let check = |schema: &str, lines: &str, complaint: &str| {
        let found = scorer(Some(schema), lines).unwrap_err();
        assert!(
            found.starts_with(complaint),
            "{found:?} instead of {complaint:?}"
        );
    };
    check(
        "CREATE TABLE t (a);\nCREATE TABLE t (b);",
        "",
        "schema.sql line 2 column 14: table t already exists; each",
    );
    check(
        "CREATE TABLE t (a);\nINSERT INTO t VALUES (';');\nINSERT INTO u VALUES (1);",
        "",
        "schema.sql line 3 column 1: no such table: u",
    );
    check(
        "CREATE TABLE t (a, );",
        "",
        "schema.sql line 1 column 20: near \")\": syntax error",
    );
    check(
        "ATTACH 'x' AS y;",
        "",
        "schema.sql line 1 column 1: not authorized",
    );
    check(
        "",
        "dialect = \"sqlit\"\n",
        "task.toml line 5 column 11: `score.dialect` takes ",
    );
    check(
        "",
        "now = \"yesterday\"\n",
        "task.toml line 5 column 7: `score.now` takes a date and time in UTC",
    );
    check(
        "",
        "rows = \"bag\"\n",
        "task.toml line 5 column 8: `score.rows` takes \"each\" or \"set\", not \"bag\"",
    );
}

#[test]
fn hostile_queries_are_bounded() {
    let scorer = scorer(Some(SCHEMA), "").unwrap();
    let endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)";
    for (completion, message) in [
        (format!("{endless} SELECT n FROM c"), "more than 10000 rows"),
        (format!("{endless} SELECT max(n) FROM c"), "takes too many steps"),
        (format!("{endless} SELECT hex(zeroblob(30000)) AS s FROM c ORDER BY s"), "takes too"),
        ("SELECT count(*) FROM city a, city b, city c, city d, city e, city f, city g, city h, city i, city j, city k, city l, city m, city n, city o, city p".to_owned(), "too many steps"),
        ("SELECT zeroblob(1000000000)".to_owned(), "longer than 64 KiB"),
        ("SELECT printf('%1000000d', 1)".to_owned(), "longer than 64 KiB"),
        (format!("SELECT {}1", "1 + ".repeat(1_500)), "maximum depth 200"),
        (format!("SELECT {}1{}", "(".repeat(2_000), ")".repeat(1_900)), "nested too deep"),
        (format!("SELECT {}", "1, ".repeat(5_000)), "more than 4000 tokens"),
        ("SELECT 1 ".repeat(1 << 20), "longer than 64 KiB"),
    ] {
        let found = shown(&scorer.score(&completion, None));
        assert!(found.contains(message), "{found:?} lacks {message:?} for {}", &completion[..60.min(completion.len())]);
    }
}

#[test]
fn both_results_can_be_shown() {
    let scorer = scorer(Some(SCHEMA), "").unwrap();
    let row = row_with(&json!({"expected": "SELECT name, people FROM big ORDER BY 2"}));
    let [found, expected] = scorer
        .query_results(
            "<think>x</think>SELECT name AS n FROM city WHERE land = 'FI'",
            &row,
        )
        .unwrap();
    assert_eq!(
        (found.columns.as_slice(), found.rows.as_slice(), found.count),
        (&["n".to_owned()][..], &[vec!["'Turku'".to_owned()]][..], 1)
    );
    assert_eq!(
        (
            expected.columns.len(),
            expected.count,
            expected.rows[0][1].as_str()
        ),
        (2, 2, "290")
    );
    assert_eq!(scorer.query_results("SELECT x", &row), None);
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT i FROM n";
    let [found, _] = scorer.query_results(many, &row).unwrap();
    assert_eq!((found.rows.len(), found.count), (20, 100));
}

#[test]
fn double_quotes_are_texts_only_where_the_dialect_has_such_texts() {
    for (dialect, tier) in [
        ("sqlite", Tier::Invalid),
        ("postgres", Tier::Invalid),
        ("duckdb", Tier::Invalid),
        ("mysql", Tier::Valid),
        ("bigquery", Tier::Valid),
        ("hive", Tier::Valid),
    ] {
        let scorer = scorer(Some(SCHEMA), &format!("dialect = {dialect:?}\n")).unwrap();
        let score = scorer.score("SELECT name FROM city WHERE land = \"NO\"", None);
        assert_eq!(score.tier, tier, "{dialect}: {}", shown(&score));
    }
}

#[test]
fn results_that_the_data_do_not_determine_are_doubted() {
    let scorer = scorer(Some(SCHEMA), "").unwrap();
    for (expected, is_doubted) in [
        ("SELECT name FROM city ORDER BY land DESC LIMIT 1", true),
        ("SELECT name FROM big ORDER BY land LIMIT 1", true),
        ("SELECT name FROM city LIMIT 2", true),
        ("SELECT land, name FROM city GROUP BY land", true),
        ("SELECT group_concat(name) FROM city", true),
        (
            "SELECT name, row_number() OVER (ORDER BY land) FROM city",
            true,
        ),
        ("SELECT name FROM city ORDER BY land", false),
        ("SELECT name FROM city ORDER BY people DESC LIMIT 1", false),
        ("SELECT land, sum(people) FROM city GROUP BY land", false),
        ("SELECT name FROM city WHERE land = 'NO'", false),
    ] {
        let row = row_with(&json!({"expected": expected}));
        assert_eq!(scorer.row_doubt(&row).is_some(), is_doubted, "{expected}");
    }
}

#[test]
fn a_superset_has_few_more_columns() {
    let scorer = scorer(Some(SCHEMA), "columns = \"superset\"\n").unwrap();
    for (columns, is_exact) in [(11, true), (12, false)] {
        let numbers: Vec<String> = (0..columns).map(|number| number.to_string()).collect();
        let row = row_with(&json!({"expected": "SELECT count(*) FROM city"}));
        let score = scorer.score(&format!("SELECT {}", numbers.join(", ")), Some(&row));
        assert_eq!(score.exact, Some(is_exact), "{columns}");
    }
}
