//! Rewrites `not`, `if`, `oneOf` and `uniqueItems`, which the grammar compiler lacks, into
//! equivalent or stricter keywords.
//!
//! In the input such a keyword is a list: index of its place, then its schemas.

use std::cell::Cell;

use serde_json::{Map, Value, json};

use super::overlap::{
    ALL, ARRAY, BOOLEAN, FRACTION, INTEGER, NAMES, NULL, NUMBER, OBJECT, STRING, Schemas, Types,
    entries, list, same, type_of, types_named,
};

/// References and properties followed by a negation.
const MAX_DEPTH: usize = 16;
/// Schemas written by the negations of one schema.
const MAX_WRITTEN_SCHEMAS: usize = 5_000;
/// Permutations of one list's values.
const MAX_PERMUTATIONS: usize = 120;

/// A keyword that cannot be rewritten, with the reason.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Index of its place.
    pub(super) place: usize,
    pub(super) message: String,
}

/// A schema's negation, or the keyword or sentence that prevents it.
type NegationResult = Result<Value, String>;

#[derive(Debug)]
pub(super) struct Positive<'a> {
    pub(super) schemas: Schemas<'a>,
    /// Schemas that negations may still write.
    left: Cell<usize>,
}

/// Schemas around the current one that apply to the same value.
type Context<'c, 'a> = &'c [&'a Value];

impl<'a> Positive<'a> {
    pub(super) fn new(definitions: &'a Map<String, Value>) -> Self {
        Self {
            schemas: Schemas { definitions },
            left: Cell::new(MAX_WRITTEN_SCHEMAS),
        }
    }

    /// A schema equivalent to, or stricter than, this one.
    pub(super) fn schema(
        &self,
        schema: &'a Value,
        context: Context<'_, 'a>,
    ) -> Result<Value, Refusal> {
        let Some(members) = schema.as_object() else {
            return Ok(schema.clone());
        };
        let around = with(context, schema);
        let (mut written, mut more) = (Map::new(), Vec::new());
        for (keyword, inner) in members {
            let alone = |inner: &'a Value| self.schema(inner, &[]);
            let beside = |inner: &'a Value| self.schema(inner, &around);
            let said = match (keyword.as_str(), inner) {
                ("properties" | "patternProperties", Value::Object(named)) => {
                    let one =
                        |(name, inner): (&String, &'a Value)| Ok((name.clone(), alone(inner)?));
                    Value::Object(named.iter().map(one).collect::<Result<_, Refusal>>()?)
                }
                ("allOf" | "anyOf", Value::Array(parts)) => {
                    parts.iter().map(beside).collect::<Result<_, _>>()?
                }
                ("prefixItems", Value::Array(parts)) => {
                    parts.iter().map(alone).collect::<Result<_, _>>()?
                }
                ("items" | "additionalProperties", inner) => alone(inner)?,
                ("not" | "if" | "oneOf" | "uniqueItems", Value::Array(marked)) => {
                    let [place, parts @ ..] = marked.as_slice() else {
                        continue;
                    };
                    let place = place.as_u64().unwrap_or_default() as usize;
                    let said = match (keyword.as_str(), parts) {
                        ("not", [inner]) => self
                            .negated(inner, &around, 0)
                            .map_err(|why| unsaid(place, keyword, &why)),
                        ("if", [condition, yes, no]) => {
                            self.conditional((condition, yes, no), &around, place)
                        }
                        ("oneOf", branches) => self.one_of(branches, &around, place),
                        _ => self.distinct_items(&around, place),
                    };
                    more.push(said?);
                    continue;
                }
                _ => inner.clone(),
            };
            written.insert(keyword.clone(), said);
        }
        if more.iter().any(|said| *said != Value::Bool(true))
            && let Value::Array(parts) = written.entry("allOf").or_insert_with(|| json!([]))
        {
            parts.append(&mut more);
        }
        Ok(written.into())
    }

    /// `if`: the condition and what follows, or its negation and the alternative.
    fn conditional(
        &self,
        (condition, yes, no): (&'a Value, &'a Value, &'a Value),
        context: Context<'_, 'a>,
        place: usize,
    ) -> Result<Value, Refusal> {
        let opposite = self
            .negated(condition, context, 0)
            .map_err(|why| unsaid(place, "if", &why))?;
        let holds = all_of([
            self.schema(condition, context)?,
            self.schema(yes, &with(context, condition))?,
        ]);
        Ok(any_of([
            holds,
            all_of([opposite, self.schema(no, context)?]),
        ]))
    }

    /// `oneOf`: each branch minus what it shares with others.
    fn one_of(
        &self,
        branches: &'a [Value],
        context: Context<'_, 'a>,
        place: usize,
    ) -> Result<Value, Refusal> {
        let overlap = |index: usize, other: usize| {
            !self
                .schemas
                .are_disjoint(&with(&with(context, &branches[index]), &branches[other]))
        };
        let pairs =
            (0..branches.len()).flat_map(|index| (0..index).map(move |other| (other, index)));
        let shared: Vec<(usize, usize)> = pairs
            .filter(|(index, other)| overlap(*index, *other))
            .collect();
        let mut alternatives = Vec::new();
        for (index, branch) in branches.iter().enumerate() {
            let beside = with(context, branch);
            let mut parts = vec![self.schema(branch, context)?];
            for (other, schema) in branches.iter().enumerate() {
                if !shared.contains(&(index.min(other), index.max(other))) {
                    continue;
                }
                let opposite = self.negated(schema, &beside, 0).map_err(|why| Refusal {
                    place,
                    message: format!(
                        "`oneOf` cannot be enforced while decoding: one value may fit branch {} and branch {}, and {}: tell them apart by a type, a constant or a required property, or write `anyOf`",
                        index.min(other),
                        index.max(other),
                        no_opposite(&why)
                    ),
                })?;
                parts.push(opposite);
            }
            alternatives.push(all_of(parts));
        }
        Ok(any_of(alternatives))
    }

    /// `uniqueItems` over a few constants: their permutations.
    fn distinct_items(&self, context: Context<'_, 'a>, place: usize) -> Result<Value, Refusal> {
        let applied = self.schemas.applied(context);
        let others = named_types(applied.types() & !ARRAY);
        let most = applied.most("maxItems");
        let longest = applied
            .schemas
            .iter()
            .map(|members| list(members, "prefixItems").len())
            .max()
            .unwrap_or(0);
        let is_closed = self.schemas.are_disjoint(&applied.for_item(longest));
        let length = if is_closed {
            most.min(longest as f64)
        } else {
            most
        };
        let item = |index: usize| applied.for_item(index.min(longest));
        let pairs = || {
            (0..longest).flat_map(|first| (first + 1..longest).map(move |second| (first, second)))
        };
        let differ = |(first, second): (usize, usize)| {
            self.schemas
                .are_disjoint(&[item(first), item(second)].concat())
        };
        if applied.types() & ARRAY == 0
            || length <= 1.0
            || length <= longest as f64 && pairs().all(differ)
        {
            return Ok(Value::Bool(true));
        }
        let refusal = || {
            Refusal {
            place,
            message: "`uniqueItems` cannot be enforced while decoding, unless the items are a few constants, or tuples of different values, or `maxItems` is 1: remove it, or sample without a constraint".to_owned(),
        }
        };
        let values = (longest == 0)
            .then(|| self.finite(&item(0), 0))
            .flatten()
            .ok_or_else(refusal)?;
        let length = most.min(values.len() as f64) as usize;
        let count = (0..length).try_fold(1_usize, |count, index| {
            count.checked_mul(values.len() - index)
        });
        if count.is_none_or(|count| count > MAX_PERMUTATIONS) {
            return Err(refusal());
        }
        let least = applied.least("minItems") as u64;
        let mut orders = Vec::new();
        arrange(&values, length, &mut Vec::new(), &mut |order| {
            let items: Vec<Value> = order.iter().map(|value| json!({"const": value})).collect();
            orders.push(
                json!({"type": "array", "prefixItems": items, "items": false, "minItems": least}),
            );
        });
        if least > length as u64 {
            orders.clear();
        }
        Ok(any_of(orders.into_iter().chain(others)))
    }

    /// Values accepted by all schemas, if few; may include others.
    fn finite(&self, all: &[&'a Value], depth: usize) -> Option<Vec<&'a Value>> {
        static BOOLEANS: [Value; 2] = [Value::Bool(false), Value::Bool(true)];
        static NONE: Value = Value::Null;
        let applied = self.schemas.applied(all);
        if let Some(values) = applied.values() {
            return Some(values);
        }
        let types = applied.types();
        if types & !(BOOLEAN | NULL) == 0 {
            let booleans = BOOLEANS.iter().filter(|_| types & BOOLEAN != 0);
            return Some(
                booleans
                    .chain((types & NULL != 0).then_some(&NONE))
                    .collect(),
            );
        }
        let mut choices = applied.choices.iter().filter(|_| depth < MAX_DEPTH);
        choices.find_map(|choice| {
            let mut found: Vec<&Value> = Vec::new();
            for alternative in *choice {
                for value in self.finite(&[alternative], depth + 1)? {
                    if !found.iter().any(|known| same(known, value)) {
                        found.push(value);
                    }
                }
            }
            Some(found)
        })
    }

    /// A schema of all values in the context that this one rejects.
    fn negated(&self, schema: &'a Value, context: Context<'_, 'a>, depth: usize) -> NegationResult {
        let Some(left) = self.left.get().checked_sub(1).filter(|_| depth < MAX_DEPTH) else {
            return Err("the opposite is too large".to_owned());
        };
        self.left.set(left);
        let members = match schema {
            Value::Object(members) => members,
            schema => return Ok(Value::Bool(*schema == Value::Bool(false))),
        };
        let mut alternatives = Vec::new();
        for (keyword, inner) in members {
            alternatives.extend(self.negated_keyword((keyword, inner), members, context, depth)?);
        }
        Ok(any_of(alternatives))
    }

    fn negated_keyword(
        &self,
        (keyword, inner): (&str, &'a Value),
        members: &'a Map<String, Value>,
        context: Context<'_, 'a>,
        depth: usize,
    ) -> Result<Vec<Value>, String> {
        let applied = self.schemas.applied(context);
        let types = applied.types();
        let parts = inner.as_array().map(Vec::as_slice).unwrap_or_default();
        let opposite = |inner: &'a Value| self.negated(inner, context, depth + 1);
        let said = |inner: &'a Value| {
            self.schema(inner, context)
                .map_err(|refusal| refusal.message)
        };
        let marked = parts.get(1..).unwrap_or_default();
        Ok(match (keyword, marked) {
            ("allOf", _) => parts.iter().map(opposite).collect::<Result<_, _>>()?,
            ("anyOf", _) => vec![all_of(
                parts.iter().map(opposite).collect::<Result<Vec<_>, _>>()?,
            )],
            ("$ref", _) => vec![
                self.schemas
                    .target(inner)
                    .map_or_else(|| Err("$ref".to_owned()), opposite)?,
            ],
            ("not", [inner]) => vec![said(inner)?],
            ("if", [condition, yes, no]) => vec![
                all_of([
                    said(condition)?,
                    self.negated(yes, &with(context, condition), depth + 1)?,
                ]),
                all_of([opposite(condition)?, opposite(no)?]),
            ],
            ("type", _) => {
                let rest = types & !types_named(inner);
                if rest & NUMBER == FRACTION {
                    return Err("type".to_owned());
                }
                named_types(rest).into_iter().collect()
            }
            ("const", _) => other_values(std::slice::from_ref(inner), types)?,
            ("enum", _) => other_values(parts, types)?,
            _ if types & types_of(keyword) == 0 => Vec::new(),
            ("properties", _) => {
                let mut found = Vec::new();
                for (name, inner) in inner.as_object().into_iter().flatten() {
                    let opposite = self.negated(inner, &applied.for_property(name), depth + 1)?;
                    if opposite != Value::Bool(false) {
                        found.push(json!({"type": "object", "properties": {name: opposite}, "required": [name]}));
                    }
                }
                found
            }
            ("items" | "additionalProperties", _) if takes_all(inner) => Vec::new(),
            ("additionalProperties", _) => {
                let is_closed = |members: &&Map<String, Value>| {
                    members.get("additionalProperties") == Some(&Value::Bool(false))
                        && !members.contains_key("patternProperties")
                };
                let known = applied.schemas.iter().find(|members| is_closed(members));
                let own = |name: &str| {
                    members
                        .get("properties")
                        .is_some_and(|own| own.get(name).is_some())
                };
                let (Some(known), None) = (known, members.get("patternProperties")) else {
                    return Err(keyword.to_owned());
                };
                let mut found = Vec::new();
                for (name, _) in entries(known, "properties").filter(|(name, _)| !own(name)) {
                    let opposite = self.negated(inner, &applied.for_property(name), depth + 1)?;
                    found.push(json!({"type": "object", "properties": {name: opposite}, "required": [name]}));
                }
                found
            }
            ("prefixItems", _) => {
                let mut found = Vec::new();
                for (index, inner) in parts.iter().enumerate() {
                    let opposite = self.negated(inner, &applied.for_item(index), depth + 1)?;
                    let items: Vec<Value> = std::iter::repeat_n(Value::Bool(true), index)
                        .chain([opposite])
                        .collect();
                    found.push(
                        json!({"type": "array", "prefixItems": items, "minItems": index + 1}),
                    );
                }
                found
            }
            _ => negated_bound((keyword, inner), types)?,
        })
    }
}

/// Negation of a keyword without subschemas.
fn negated_bound((keyword, inner): (&str, &Value), types: Types) -> Result<Vec<Value>, String> {
    let numbers = if types & FRACTION == 0 {
        "integer"
    } else {
        "number"
    };
    let count = inner.as_u64();
    let one = |schema: Value| Ok(vec![schema]);
    let most = |kind: &str, keyword: &str| match count.map(|count| count.checked_sub(1)) {
        Some(Some(most)) => Ok(vec![json!({"type": kind, keyword: most})]),
        Some(None) => Ok(Vec::new()),
        None => Err(keyword.to_owned()),
    };
    let least = |kind: &str, keyword: &str| match count {
        Some(count) => Ok(vec![json!({"type": kind, keyword: count + 1})]),
        None => Err(keyword.to_owned()),
    };
    match (keyword, inner) {
        ("required", Value::Array(names)) => {
            let lacks = |name: &str| json!({"type": "object", "properties": {name: false}});
            Ok(names.iter().filter_map(Value::as_str).map(lacks).collect())
        }
        ("minimum", bound) => one(json!({"type": numbers, "exclusiveMaximum": bound})),
        ("maximum", bound) => one(json!({"type": numbers, "exclusiveMinimum": bound})),
        ("exclusiveMinimum", bound) => one(json!({"type": numbers, "maximum": bound})),
        ("exclusiveMaximum", bound) => one(json!({"type": numbers, "minimum": bound})),
        ("minLength", _) => most("string", "maxLength"),
        ("maxLength", _) => least("string", "minLength"),
        ("minItems", _) => most("array", "maxItems"),
        ("maxItems", _) => least("array", "minItems"),
        // Unnamed properties may repeat, so more than one cannot be counted.
        ("minProperties", _) if count.is_some_and(|count| count <= 1) => {
            most("object", "maxProperties")
        }
        ("maxProperties", _) if count == Some(0) => least("object", "minProperties"),
        (keyword, _) => Err(keyword.to_owned()),
    }
}

/// Types that a keyword applies to.
fn types_of(keyword: &str) -> Types {
    match keyword {
        "minLength" | "maxLength" | "pattern" => STRING,
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => NUMBER,
        "items" | "prefixItems" | "minItems" | "maxItems" | "uniqueItems" => ARRAY,
        "properties"
        | "patternProperties"
        | "additionalProperties"
        | "required"
        | "minProperties"
        | "maxProperties" => OBJECT,
        _ => ALL,
    }
}

/// Values of `types` other than these.
fn other_values(values: &[Value], types: Types) -> Result<Vec<Value>, String> {
    let named = values.iter().map(type_of).fold(0, |all, kind| all | kind);
    let mut found = Vec::new();
    let is_of = |kind: Types| types & kind != 0 && named & kind != 0;
    let touched = if is_of(NUMBER) { named | NUMBER } else { named };
    found.extend(named_types(types & !touched));
    if is_of(STRING) {
        let words: Vec<Vec<char>> = values
            .iter()
            .filter_map(|value| Some(value.as_str()?.chars().collect()))
            .collect();
        found.push(json!({"type": "string", "pattern": format!("^{}$", other_texts(&words))}));
    }
    if is_of(BOOLEAN) {
        found.extend(
            [false, true]
                .map(Value::Bool)
                .into_iter()
                .filter(|value| !values.contains(value))
                .map(|value| json!({"const": value})),
        );
    }
    if is_of(NUMBER) {
        let kind = if types & FRACTION == 0 {
            "integer"
        } else {
            "number"
        };
        let mut numbers: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        let bound = |keyword: &str, bound: f64| (keyword.to_owned(), json!(bound));
        let least = std::iter::once(None).chain(
            numbers
                .iter()
                .map(|number| Some(bound("exclusiveMinimum", *number))),
        );
        let most = numbers
            .iter()
            .map(|number| Some(bound("exclusiveMaximum", *number)))
            .chain([None]);
        found.extend(least.zip(most).map(|(least, most)| {
            let kind = ("type".to_owned(), json!(kind));
            std::iter::once(kind)
                .chain(least)
                .chain(most)
                .collect::<Map<_, _>>()
                .into()
        }));
    }
    for (kind, name, empty, more) in [
        (ARRAY, "array", json!([]), "minItems"),
        (OBJECT, "object", json!({}), "minProperties"),
    ] {
        let all_empty = values
            .iter()
            .filter(|value| type_of(value) == kind)
            .all(|value| *value == empty);
        match is_of(kind) {
            true if all_empty => found.push(json!({"type": name, more: 1})),
            true => return Err("enum".to_owned()),
            false => {}
        }
    }
    Ok(found)
}

/// Unanchored pattern of all texts except these.
fn other_texts(words: &[Vec<char>]) -> String {
    let firsts: std::collections::BTreeSet<char> = words
        .iter()
        .filter_map(|word| word.first().copied())
        .collect();
    let escaped = |letter: char| regex_syntax::escape(&letter.to_string());
    let mut alternatives = Vec::new();
    if !words.iter().any(Vec::is_empty) {
        alternatives.push(String::new());
    }
    alternatives.push(match firsts.is_empty() {
        true => "(?s:.)+".to_owned(),
        false => format!(
            "[^{}](?s:.)*",
            firsts
                .iter()
                .map(|letter| escaped(*letter))
                .collect::<String>()
        ),
    });
    for first in firsts {
        let rest: Vec<Vec<char>> = words
            .iter()
            .filter(|word| word.first() == Some(&first))
            .map(|word| word[1..].to_vec())
            .collect();
        alternatives.push(format!("{}{}", escaped(first), other_texts(&rest)));
    }
    format!("(?:{})", alternatives.join("|"))
}

/// Calls `visit` with each permutation of `length` of the values.
fn arrange<'a>(
    values: &[&'a Value],
    length: usize,
    order: &mut Vec<&'a Value>,
    visit: &mut impl FnMut(&[&'a Value]),
) {
    if order.len() == length {
        return visit(order);
    }
    for value in values {
        if !order.iter().any(|used| std::ptr::eq(*used, *value)) {
            order.push(value);
            arrange(values, length, order, visit);
            order.pop();
        }
    }
}

fn takes_all(schema: &Value) -> bool {
    *schema == Value::Bool(true) || schema.as_object().is_some_and(Map::is_empty)
}

fn named_types(types: Types) -> Option<Value> {
    let is_whole = types & NUMBER == INTEGER;
    let is_named = |(name, kind): &&(&str, Types)| match *name {
        "integer" => is_whole,
        "number" => types & NUMBER == NUMBER,
        _ => types & kind != 0,
    };
    let names: Vec<&str> = NAMES
        .iter()
        .filter(is_named)
        .map(|(name, _)| *name)
        .collect();
    (!names.is_empty()).then(|| json!({"type": names}))
}

fn any_of(alternatives: impl IntoIterator<Item = Value>) -> Value {
    let mut kept: Vec<Value> = alternatives
        .into_iter()
        .filter(|schema| *schema != Value::Bool(false))
        .collect();
    match kept.as_slice() {
        [] => Value::Bool(false),
        _ if kept.contains(&Value::Bool(true)) => Value::Bool(true),
        [_] => kept.swap_remove(0),
        _ => json!({"anyOf": kept}),
    }
}

fn all_of(parts: impl IntoIterator<Item = Value>) -> Value {
    let mut kept: Vec<Value> = parts
        .into_iter()
        .filter(|schema| *schema != Value::Bool(true))
        .collect();
    match kept.as_slice() {
        [] => Value::Bool(true),
        _ if kept.contains(&Value::Bool(false)) => Value::Bool(false),
        [_] => kept.swap_remove(0),
        _ => json!({"allOf": kept}),
    }
}

fn with<'a>(context: Context<'_, 'a>, schema: &'a Value) -> Vec<&'a Value> {
    context.iter().copied().chain([schema]).collect()
}

fn no_opposite(why: &str) -> String {
    if why.contains(' ') {
        why.to_owned()
    } else {
        format!("no grammar says the opposite of `{why}`")
    }
}

fn unsaid(place: usize, keyword: &str, why: &str) -> Refusal {
    let why = no_opposite(why);
    let message = format!(
        "`{keyword}` cannot be enforced while decoding: {why}; remove it, or sample without a constraint"
    );
    Refusal { place, message }
}
