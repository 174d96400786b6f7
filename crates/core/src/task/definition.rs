//! The definition of right answers, by the kind of scorer (`[score] kind`): the keys and files that a kind reads.

use std::collections::BTreeMap;

use serde_json::Value;
use toml::de::DeValue;

use super::TASK_FILE;
use super::command::{self, CommandRules};
use super::error::Read;
use super::openapi::{self, HttpRules};
use super::references::follow_references;
use super::source::Home;
use super::toml_section::Section;

/// Names that `normalise` takes: `casefold` ignores case, `trim` white space at the ends, `whitespace` also its amount
/// inside, `date` compares calendar dates however written, `number` reads numbers written as strings, `bfcl` ignores case,
/// spaces and `,./-_*^` and takes `'` for `"`, as the Berkeley Function Calling Leaderboard does.
pub const NORMALISATIONS: [&str; 6] = ["casefold", "trim", "whitespace", "date", "number", "bfcl"];

/// In `normalise`: the fields that it does not name.
pub const ALL_FIELDS: &str = "*";

#[derive(Debug, Clone, PartialEq)]
pub enum Definition {
    JsonSchema(SchemaFiles),
    /// The answer is a text that equals `expected`.
    Text {
        /// Normalisations of the answer, joined by `+`.
        normalise: String,
    },
    /// The answer matches a pattern, whose named groups are the fields of `expected`.
    Regex {
        /// In the syntax of the crate `regex`; it compiles.
        pattern: String,
    },
    /// The answer calls functions.
    ToolCalls(ToolRules),
    /// A program of the user's scores, or checks the answer as code.
    Command(CommandRules),
    /// The answer is a query.
    Sql(SqlRules),
    /// The answer is a request to an API, or a response of it.
    HttpRequest(HttpRules),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ToolRules {
    /// In OpenAI's schema; `None` where each row has its own.
    pub tools: Option<Value>,
    /// Whether calls must be in the order of the expected ones.
    pub in_order: bool,
    /// Whether an answer may make no call.
    pub allows_none: bool,
}

/// A JSON Schema and the files that it refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaFiles {
    pub schema: Value,
    /// Other schema files for `$ref`: address to file inside the task.
    pub references: BTreeMap<String, String>,
    /// Address of a schema file without `$schema` -> that of the file that refers to it.
    pub inherited_drafts: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlRules {
    /// Whether the task's definition file is the statements that make tables and data; else each row has its own.
    pub has_schema: bool,
    /// One of [`DIALECTS`].
    pub dialect: String,
}

/// Dialects of SQL that queries are parsed in.
pub const DIALECTS: [&str; 16] = [
    "sqlite",
    "generic",
    "ansi",
    "postgres",
    "mysql",
    "mssql",
    "oracle",
    "duckdb",
    "bigquery",
    "snowflake",
    "redshift",
    "databricks",
    "spark",
    "hive",
    "clickhouse",
    "teradata",
];

/// A kind of scorer in `task.toml`.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Keys that it alone reads, outside of all tables.
    pub(super) keys: &'static [&'static str],
    /// Keys of `[score]` that it alone reads.
    pub(super) score_keys: &'static [&'static str],
}

/// Keys of `[score]` that all kinds read.
pub(super) const COMMON_SCORE_KEYS: [&str; 4] = ["kind", "tiers", "strip_thinking", "continue_after_failure"];

/// The first is that of a task that names none.
pub(super) const KINDS: [Kind; 8] = [
    Kind {
        name: "json_schema",
        keys: &["schema"],
        score_keys: &["graded", "assert_formats", "normalise", "references"],
    },
    Kind { name: "text", keys: &[], score_keys: &["normalise"] },
    Kind { name: "regex", keys: &[], score_keys: &["pattern", "normalise"] },
    Kind {
        name: "tool_calls",
        keys: &[],
        score_keys: &["tools", "order", "allow_no_call", "assert_formats", "normalise"],
    },
    Kind { name: "command", keys: &[], score_keys: &command::KEYS },
    Kind { name: "code", keys: &[], score_keys: &command::CODE_KEYS },
    Kind { name: "sql", keys: &["schema"], score_keys: &["dialect"] },
    Kind { name: "http_request", keys: &[], score_keys: &openapi::KEYS },
];

/// The kind that the task names.
pub(super) fn kind(top: &Section<'_>) -> Read<&'static Kind> {
    top.free_section("score")?.map_or(Ok(&KINDS[0]), |score| kind_of(&score))
}

pub(super) fn kind_named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The kind that a block names.
pub(super) fn kind_of(score: &Section<'_>) -> Read<&'static Kind> {
    let Some((name, (_, offset))) = score.string("kind")?.zip(score.get("kind")) else { return Ok(&KINDS[0]) };
    let names = || KINDS.iter().map(|kind| kind.name);
    kind_named(&name).ok_or_else(|| {
        let near = crate::format::did_you_mean(&name, names());
        score.error("kind", offset, format!("takes {}, not {name:?}{near}", names().collect::<Vec<_>>().join(", ")))
    })
}

impl Definition {
    /// Reads what the kind needs, from the block that names it and, of a task's own kind, from outside of all tables.
    /// `toml`: the text of `task.toml`.
    ///
    /// Returns the definition, the file that it is in, and that file's text.
    pub(super) fn read(
        kind: &Kind,
        top: &Section<'_>,
        score: Option<&Section<'_>>,
        home: &Home,
        toml: &str,
    ) -> Read<(Self, String, String)> {
        let definition = match (kind.name, score) {
            ("text", Some(score)) => {
                Self::Text { normalise: read_normalisations(score, "normalise")?.unwrap_or_default() }
            }
            ("regex", Some(score)) => read_pattern(score, home)?,
            ("sql", Some(score)) => {
                let dialect = read_dialect(score)?;
                let found = home.file_of(top, "schema")?;
                let rules = Self::Sql(SqlRules { has_schema: found.is_some(), dialect });
                match found {
                    Some((file, text)) => return Ok((rules, file, text)),
                    None => rules,
                }
            }
            ("tool_calls", Some(score)) => {
                let in_order = score.boolean("order")?.unwrap_or(true);
                let allows_none = score.boolean("allow_no_call")?.unwrap_or(false);
                let rules = ToolRules { tools: None, in_order, allows_none };
                match home.file_of(score, "tools")? {
                    Some((file, text)) => {
                        let tools = Some(home.parse_json(&file, &text)?);
                        return Ok((Self::ToolCalls(ToolRules { tools, ..rules }), file, text));
                    }
                    None => Self::ToolCalls(rules),
                }
            }
            ("http_request", Some(score)) => {
                let (rules, file, text) = HttpRules::read(score, home)?;
                return Ok((Self::HttpRequest(rules), file, text));
            }
            ("command", Some(score)) => Self::Command(CommandRules::read(score, home)?),
            ("code", Some(score)) => Self::Command(CommandRules::read_code(score, home)?),
            _ => return read_schema(top, score, home),
        };
        Ok((definition, TASK_FILE.to_owned(), toml.to_owned()))
    }
}

fn read_schema(top: &Section<'_>, score: Option<&Section<'_>>, home: &Home) -> Read<(Definition, String, String)> {
    let example = "schema = \"schema.json\"";
    let (file, text) = home.file_of(top, "schema")?.ok_or_else(|| home.missing("schema", example))?;
    let schema = home.parse_json(&file, &text)?;
    let mut named = BTreeMap::new();
    if let Some(references) = score.map(|score| score.free_section("references")).transpose()?.flatten() {
        for (address, _) in references.keys() {
            named.insert(address.to_owned(), references.string(address)?.unwrap_or_default());
        }
    }
    let files = SchemaFiles::follow(home, &file, schema, named)?;
    Ok((Definition::JsonSchema(files), file, text))
}

fn read_dialect(score: &Section<'_>) -> Read<String> {
    let Some((name, (_, offset))) = score.string("dialect")?.zip(score.get("dialect")) else {
        return Ok(DIALECTS[0].to_owned());
    };
    if DIALECTS.contains(&name.as_str()) {
        return Ok(name);
    }
    let near = crate::format::did_you_mean(&name, DIALECTS);
    Err(score.error("dialect", offset, format!("takes {}, not {name:?}{near}", DIALECTS.join(", "))))
}

fn read_pattern(score: &Section<'_>, home: &Home) -> Read<Definition> {
    let example = r"pattern = '^\d{4}-\d{2}$'";
    let pattern = score.string("pattern")?.ok_or_else(|| home.missing("score.pattern", example))?;
    if let Err(error) = regex::Regex::new(&pattern) {
        // Its last line says what is wrong, those above show where.
        let text = error.to_string();
        let message = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let offset = score.get("pattern").map_or(0, |(_, offset)| offset);
        return Err(score.error(
            "pattern",
            offset,
            format!("is not a valid regular expression: {message}, in {pattern:?}"),
        ));
    }
    Ok(Definition::Regex { pattern })
}

/// A name, or a list of names, joined by `+`.
pub(super) fn read_normalisations(section: &Section<'_>, key: &str) -> Read<Option<String>> {
    let Some((value, offset)) = section.get(key) else { return Ok(None) };
    let names: Vec<String> = match value {
        DeValue::Array(items) if items.iter().all(|item| item.get_ref().as_str().is_some()) => {
            items.iter().filter_map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
        }
        DeValue::String(text) => text.split('+').map(|name| name.trim().to_owned()).collect(),
        other => return Err(section.wrong_type(key, offset, "a name or a list of names in quotes", other)),
    };
    if let Some(name) = names.iter().find(|name| !NORMALISATIONS.contains(&name.as_str())) {
        let near = crate::format::did_you_mean(name, NORMALISATIONS);
        return Err(section.error(key, offset, format!("takes {}, not {name:?}{near}", NORMALISATIONS.join(", "))));
    }
    Ok(Some(names.join("+")))
}

impl SchemaFiles {
    /// The schema with the files that it, or the `named` files, refer to.
    pub(super) fn follow(home: &Home, file: &str, schema: Value, named: BTreeMap<String, String>) -> Read<Self> {
        let (references, inherited_drafts) = follow_references(home, file, &schema, named)?;
        Ok(Self { schema, references, inherited_drafts })
    }
}
