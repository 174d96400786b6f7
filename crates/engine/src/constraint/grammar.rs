//! Grammars of answers: JSON by schema, function calls, text by pattern, optionally after a think
//! block.

use std::collections::BTreeSet;
use std::time::Instant;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::{JsonCompileOptions, Matcher, regex_to_lark};
use regex_syntax::hir::{Hir, HirKind, Look};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Instead};
use super::calls::Calls;
use super::overlap::{Schemas, list};
use super::schema::{Node, PreparedSchemas, SchemaFile};
use super::{ConstraintError, Reasoning, Vocabulary};
use crate::score::call_layout;
use crate::text::ThinkMarks;
use crate::text::catch_panic::catch_panic;

/// White space between JSON tokens: nothing, a space, or a line break with indentation.
const WHITE_SPACE: &str = r"\x20|\r?\n[\x20\x09]{0,40}";
/// Around a call's JSON, and after a think block.
const GAP: &str = r"[\x20\n]{1,4}";

/// Test texts per compiled grammar, and tokens of each.
const PROBES: u64 = 4;
const PROBED_TOKENS: usize = 8;

/// Limit of schemas compiled separately to locate a fault.
const MAX_SEARCHED_SCHEMAS: usize = 2_000;

/// Compiles an answer's grammar. `until`: deadline for locating a fault.
pub(super) fn compile(
    vocabulary: &Vocabulary,
    answer: &Answer,
    reasoning: Reasoning,
    until: Instant,
) -> Result<Matcher, ConstraintError> {
    let files: Vec<&[SchemaFile]> = match answer {
        Answer::Text { pattern, label } => {
            return text_matcher(vocabulary, pattern, reasoning).map_err(|message| {
                ConstraintError::Pattern {
                    label: label.clone(),
                    message: message.to_owned(),
                }
            });
        }
        Answer::Json { files, .. } => vec![files],
        Answer::AnyJson { files, .. } => files.iter().map(std::slice::from_ref).collect(),
        Answer::Calls {
            functions, instead, ..
        } => {
            let own = if let Instead::Value(own) = instead {
                Some(own.as_slice())
            } else {
                None
            };
            functions
                .iter()
                .map(|(_, file)| std::slice::from_ref(file))
                .chain(own)
                .collect()
        }
    };
    let prepare = |prepared: &mut PreparedSchemas| -> Result<Vec<Value>, ConstraintError> {
        files
            .iter()
            .map(|files| prepared.add(files, answer.asserts_formats()))
            .collect()
    };
    let mut prepared = PreparedSchemas::default();
    let mut schemas = prepare(&mut prepared)?;
    let json = |schema: Value| {
        (
            "answer: @json".to_owned(),
            vec![("json".to_owned(), schema)],
        )
    };
    let (lark, whole) = match answer {
        Answer::Calls {
            functions,
            format,
            instead,
            is_single,
            ..
        } => {
            let value = schemas.drain(functions.len()..).next();
            let layout =
                call_layout(format).ok_or(ConstraintError::CallFormat { name: format.name })?;
            let definitions = &prepared.definitions;
            let calls = Calls {
                functions,
                schemas,
                definitions,
                instead,
                is_single: *is_single,
            };
            let (lark, mut whole) = calls.grammar(layout)?;
            whole.extend(value.map(|value| ("value".to_owned(), value)));
            (lark, whole)
        }
        Answer::AnyJson { .. } => json(json!({"anyOf": schemas})),
        Answer::Json { .. } | Answer::Text { .. } => json(schemas.swap_remove(0)),
    };
    let lark = format!(
        "{}\n{lark}\nGAP: /{GAP}/",
        before_answer(reasoning, vocabulary.marks)
    );
    if let Some(matcher) = json_matcher(vocabulary, &lark, &whole, &prepared) {
        return Ok(matcher);
    }
    let mut prepared = PreparedSchemas::with_nodes();
    prepare(&mut prepared)?;
    Err(located(vocabulary, &files.concat(), &prepared, until))
}

fn before_answer(reasoning: Reasoning, marks: &ThinkMarks) -> String {
    let end = marks.end();
    let thought = || format!("thought: text GAP?\ntext[suffix=\"{end}\"]: /(?s:.*)/");
    let plain = if marks.answer.is_empty() {
        "answer".to_owned()
    } else {
        format!("\"{end}\" answer")
    };
    match reasoning {
        Reasoning::Off => format!("start: {plain}"),
        Reasoning::Open => format!("start: thought answer\n{}", thought()),
        Reasoning::Allowed => format!(
            "start: \"{}\" thought answer | {plain}\n{}",
            marks.open,
            thought()
        ),
    }
}

/// `schemas`: by their names in the grammar.
fn json_matcher(
    vocabulary: &Vocabulary,
    lark: &str,
    schemas: &[(String, Value)],
    prepared: &PreparedSchemas,
) -> Option<Matcher> {
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITE_SPACE.to_owned()),
        // Without `\u` each text has one spelling, so a key cannot occur twice in two spellings.
        json_allowed_escapes: Some("nrbtf\\\"".to_owned()),
        ..JsonCompileOptions::default()
    };
    let main = GrammarWithLexer {
        name: Some("main".to_owned()),
        lark_grammar: Some(lark.to_owned()),
        json_schema: None,
    };
    let mut grammars = vec![main];
    let all = schemas
        .iter()
        .map(|(_, schema)| schema)
        .chain(prepared.definitions.values());
    if !are_decodable(vocabulary, &options, all) {
        return None;
    }
    for (name, schema) in schemas {
        let mut schema = match schema {
            Value::Object(members) => Value::Object(members.clone()),
            Value::Bool(true) => json!({}),
            // No value is valid.
            _ => return None,
        };
        schema["$defs"] = prepared.definitions.clone().into();
        options.apply_to(&mut schema);
        let name = Some(name.clone());
        grammars.push(GrammarWithLexer {
            name,
            json_schema: Some(schema),
            lark_grammar: None,
        });
    }
    matcher(
        vocabulary,
        TopLevelGrammar {
            grammars,
            max_tokens: None,
        },
    )
}

/// Whether keys that patterns must not match can be decoded: the first token shows it, wherever
/// they occur.
fn are_decodable<'a>(
    vocabulary: &Vocabulary,
    options: &JsonCompileOptions,
    schemas: impl Iterator<Item = &'a Value>,
) -> bool {
    let (mut open, mut patterns) = (schemas.collect::<Vec<_>>(), BTreeSet::new());
    while let Some(schema) = open.pop() {
        if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
            patterns.extend(
                schema
                    .get("patternProperties")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flat_map(Map::keys),
            );
        }
        open.extend(schema.as_object().into_iter().flat_map(Map::values));
        open.extend(schema.as_array().into_iter().flatten());
    }
    patterns.into_iter().all(|pattern| {
        let mut schema =
            json!({"type": "object", "patternProperties": {pattern: {"type": "null"}}});
        options.apply_to(&mut schema);
        matcher(vocabulary, TopLevelGrammar::from_json_schema(schema)).is_some()
    })
}

/// Matcher of text containing a match, trimmed, since white space is not part of the answer; else
/// why there is none.
fn text_matcher(
    vocabulary: &Vocabulary,
    pattern: &str,
    reasoning: Reasoning,
) -> Result<Matcher, &'static str> {
    let whole = regex_syntax::parse(pattern)
        .map(|hir| anchored(&hir))
        .map_err(|_| "it is not a pattern")?;
    let terminal = |regex: &str| format!("/{}/", regex_to_lark(regex, ""));
    let parts = [
        terminal(&whole),
        terminal(r"(?s:\S(.*\S)?)"),
        format!(
            "~{}",
            terminal(&format!(
                "(?s:.*){}(?s:.*)",
                regex_syntax::escape(vocabulary.marks.end())
            ))
        ),
        format!(
            "~{}",
            terminal(&format!(
                "{}(?s:.*)",
                regex_syntax::escape(vocabulary.marks.open)
            ))
        ),
    ];
    let lark = format!(
        "{}\nanswer: TEXT\nTEXT: {}\nGAP: /{GAP}/",
        before_answer(reasoning, vocabulary.marks),
        parts.join(" & ")
    );
    let has_look =
        || regex_syntax::parse(&whole).is_ok_and(|hir| !hir.properties().look_set().is_empty());
    matcher(vocabulary, TopLevelGrammar::from_lark(lark)).ok_or_else(|| match has_look() {
        true => "it has a word boundary or an anchor inside",
        false => "it is too large, or no text fits it",
    })
}

/// Pattern of all texts that contain a match.
fn anchored(hir: &Hir) -> String {
    const ANY: &str = "(?s:.*)";
    match hir.kind() {
        HirKind::Capture(group) => anchored(&group.sub),
        HirKind::Alternation(branches) => {
            format!(
                "(?:{})",
                branches.iter().map(anchored).collect::<Vec<_>>().join("|")
            )
        }
        kind => {
            let parts = if let HirKind::Concat(parts) = kind {
                parts.as_slice()
            } else {
                std::slice::from_ref(hir)
            };
            let is = |part: Option<&Hir>, look| matches!(part.map(Hir::kind), Some(HirKind::Look(found)) if *found == look);
            let from = usize::from(is(parts.first(), Look::Start));
            let to = parts.len() - usize::from(parts.len() > from && is(parts.last(), Look::End));
            let before = if from > 0 { "" } else { ANY };
            let after = if to < parts.len() { "" } else { ANY };
            format!(
                "{before}(?:{}){after}",
                parts[from..to]
                    .iter()
                    .map(ToString::to_string)
                    .collect::<String>()
            )
        }
    }
}

/// A grammar's matcher with its first masks computed. Compiler errors are dropped, since they name
/// its own constructs.
fn matcher(vocabulary: &Vocabulary, grammar: TopLevelGrammar) -> Option<Matcher> {
    let built = catch_panic(|| {
        let mut matcher = Matcher::new(vocabulary.factory.create_parser(grammar));
        let is_taken = !matcher.is_error() && matcher.grammar_warnings().is_empty();
        (is_taken && (0..PROBES).all(|walk| probe(&matcher, vocabulary, walk).is_some()))
            .then_some(matcher)
    });
    built.ok().flatten()
}

/// Decodes a few tokens, as some grammars only fail then, such as for keys that must not match a
/// large pattern.
fn probe(start: &Matcher, vocabulary: &Vocabulary, walk: u64) -> Option<()> {
    let (mut matcher, mut random, mut is_begun) = (start.deep_clone(), walk, false);
    let bytes = |id: &u32| {
        vocabulary
            .bytes
            .get(*id as usize)
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    for step in 0..PROBED_TOKENS {
        let mask = matcher.compute_mask_or_eos().ok()?;
        let words = mask.as_slice();
        if step == 0 && words.iter().all(|word| *word == 0) {
            return None;
        }
        let is_allowed = |id: &u32| {
            words
                .get(*id as usize / 32)
                .is_some_and(|word| word >> (id % 32) & 1 == 1)
        };
        let is_text = |id: &u32| is_allowed(id) && !vocabulary.stop_ids.contains(id);
        let allowed: Vec<u32> = (0..vocabulary.bytes.len() as u32).filter(is_text).collect();
        // Ends a think block at once, then begins a string of letters and digits.
        let end = allowed
            .iter()
            .find(|id| step == 0 && bytes(id) == vocabulary.marks.end().as_bytes());
        let is_wanted = |id: &u32| match is_begun {
            true => bytes(id).iter().all(u8::is_ascii_alphanumeric),
            false => bytes(id).contains(&b'"'),
        };
        let wanted: Vec<u32> = allowed.iter().copied().filter(is_wanted).collect();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let among = if wanted.is_empty() { &allowed } else { &wanted };
        let any = among.get((random >> 33) as usize % among.len().max(1));
        let Some(id) = end.or(any) else {
            return Some(());
        };
        is_begun |= bytes(id).contains(&b'"');
        matcher.consume_token(*id).ok()?;
    }
    Some(())
}

/// The innermost schema that fails alone, and the responsible keyword; the whole if not found in
/// time. Prefers schemas that fail without their references, then those that accept some value, as
/// an empty schema may be allowed in its place.
fn located(
    vocabulary: &Vocabulary,
    files: &[SchemaFile],
    prepared: &PreparedSchemas,
    until: Instant,
) -> ConstraintError {
    let Some(file) = files.first() else {
        return ConstraintError::Vocabulary("there is no schema".to_owned());
    };
    let mut without_references = PreparedSchemas::default();
    without_references.definitions = prepared
        .definitions
        .keys()
        .map(|name| (name.clone(), json!({})))
        .collect();
    let fails = |schema: &Value, prepared: &PreparedSchemas| {
        json_matcher(
            vocabulary,
            "start: @json",
            &[("json".to_owned(), schema.clone())],
            prepared,
        )
        .is_none()
    };
    let schemas = Schemas {
        definitions: &prepared.definitions,
    };
    let nodes = prepared.nodes.iter().flatten().take(MAX_SEARCHED_SCHEMAS);
    let failing: Vec<&Node> = nodes
        .filter(|node| Instant::now() < until && fails(&node.schema, prepared))
        .collect();
    let is_own = |node: &&&Node| fails(&node.schema, &without_references);
    let takes_some = |node: &&&Node| !schemas.are_disjoint(&[&node.schema]);
    let found = failing.iter().filter(takes_some).find(is_own);
    let is_innermost = |node: &&&Node| {
        let inside = format!("{}/", node.place.1);
        !failing
            .iter()
            .any(|other| other.place.0 == node.place.0 && other.place.1.starts_with(&inside))
    };
    // Referenced schemas were added last.
    let last = || failing.iter().rev().filter(takes_some).find(is_innermost);
    let found = found.or_else(last).or_else(|| failing.first());
    let Some(node) = found else {
        let message = "the schema cannot be enforced while decoding: no value is valid, or it is too large for a grammar";
        return file.error("", message.to_owned());
    };
    let members = node.schema.as_object();
    let without = |keyword: &&String| {
        let mut rest: Map<String, Value> = members.cloned().unwrap_or_default();
        rest.remove(*keyword);
        !fails(&rest.into(), prepared)
    };
    let keyword = members.and_then(|members| members.keys().rev().find(without));
    let (file, pointer) = (&files[node.place.0], &node.place.1);
    match keyword {
        Some(keyword) => {
            let why = why_not(&schemas, keyword, &node.schema);
            let message = format!(
                "`{keyword}` cannot be enforced while decoding: {why}; change it, or sample without a constraint"
            );
            file.error(&format!("{pointer}/{keyword}"), message)
        }
        None => file.error(
            pointer,
            "the schema cannot be enforced while decoding: no value is valid, or it is too large for a grammar"
                .to_owned(),
        ),
    }
}

/// Guesses why the compiler rejects a keyword.
fn why_not<'a>(schemas: &Schemas<'a>, keyword: &str, schema: &'a Value) -> String {
    let why = match keyword {
        "pattern" => {
            "it has look-around, a word boundary or an anchor inside, is too large, or fits no text that the rest allows"
        }
        "patternProperties" => "its patterns overlap, or are too large",
        "minProperties" | "maxProperties" => "properties are optional",
        "$ref" => "what it leads to contains it again beside other keywords, or is too large",
        "properties" => {
            let applied = schemas.applied(&[schema]);
            let required = schema
                .as_object()
                .map(|members| list(members, "required"))
                .unwrap_or_default();
            let takes_none = |name: &&str| schemas.are_disjoint(&applied.for_property(name));
            if let Some(name) = required.iter().filter_map(Value::as_str).find(takes_none) {
                return format!("no value fits the required property {name:?}");
            }
            "no value fits a required property, or it is too large"
        }
        _ => "no value fits it together with the rest, or it is too large",
    };
    why.to_owned()
}
