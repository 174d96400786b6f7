//! Grammar of function calls: a format's texts around names and arguments.

use serde_json::{Map, Value, json};

use super::ConstraintError;
use super::answer::Instead;
use super::overlap::{list, values_named};
use super::schema::SchemaFile;
use crate::score::{ArgumentLayout, CallLayout};

/// Nesting of objects, lists and references.
const MAX_DEPTH: usize = 16;

/// A Lark grammar, and the schemas that it names.
pub(super) type NamedGrammar = (String, Vec<(String, Value)>);

/// A call after its opening, with rules and schemas that it names.
type CallRules = (String, Vec<String>, Vec<(String, Value)>);

/// Callable functions with prepared argument schemas.
pub(super) struct Calls<'a> {
    pub(super) functions: &'a [(String, SchemaFile)],
    pub(super) schemas: Vec<Value>,
    /// Referenced by the schemas.
    pub(super) definitions: &'a Map<String, Value>,
    pub(super) instead: &'a Instead,
    pub(super) is_single: bool,
}

impl Calls<'_> {
    /// The rule `answer`: calls and their alternatives.
    ///
    /// # Errors
    /// [`ConstraintError::Schema`] at what the format cannot express.
    pub(super) fn grammar(self, layout: CallLayout) -> Result<NamedGrammar, ConstraintError> {
        let is_list = matches!(layout, CallLayout::List { .. });
        let (open, separator) = match layout {
            CallLayout::Object {
                open, separator, ..
            } => (open, separator),
            CallLayout::List { open } | CallLayout::Named { open, .. } => (open, ""),
        };
        let (instead, is_single) = (self.instead, self.is_single || is_list);
        let (call, rules, schemas) = self.call(layout)?;
        let separator = if separator.is_empty() {
            "GAP?".to_owned()
        } else {
            literal(separator)
        };
        let calls = if is_single {
            "call".to_owned()
        } else {
            format!("call ({separator} call)*")
        };
        let opened = if open.is_empty() {
            String::new()
        } else {
            literal(open)
        };
        let call_rule = format!("call: {opened} {call}");
        let answer = match instead {
            Instead::Nothing => format!("answer: {calls}\n{call_rule}"),
            Instead::EmptyList if is_list && open.is_empty() => {
                format!("answer: {calls}\n{call_rule}")
            }
            Instead::EmptyList => format!("answer: {calls} | \"[]\"\n{call_rule}"),
            Instead::Value(_) => format!("answer: {calls} | @value\n{call_rule}"),
            // JSON at the beginning is a call.
            Instead::Text if open.is_empty() => format!(
                "answer: {calls} | TEXT?\n{call_rule}\nTEXT: /[^\\[{{\\s](?s:.*)/ & ~/(?s:.*)<tool_call>(?s:.*)/"
            ),
            Instead::Text => {
                let most = if is_single { "?" } else { "*" };
                let pattern = regex_syntax::escape(open).replace('/', "\\/");
                format!(
                    "answer: called{most} TEXT?\ncalled: opened {call}\nopened[suffix={opened}]: /(?s:.*)/\n\
                     TEXT: /(?s:.+)/ & ~/(?s:.*){pattern}(?s:.*)/"
                )
            }
        };
        let rules = rules.iter().map(|rule| format!("\n{rule}"));
        Ok((answer + &rules.collect::<String>(), schemas))
    }

    /// A call after its opening, with rules and schemas that it names.
    fn call(self, layout: CallLayout) -> Result<CallRules, ConstraintError> {
        let Self {
            functions,
            schemas,
            definitions,
            instead,
            is_single,
        } = self;
        let whole = |schema: Value| vec![("json".to_owned(), schema)];
        Ok(match layout {
            CallLayout::Object {
                open,
                arguments,
                close,
                ..
            } => {
                let (gap, close) = if open.is_empty() {
                    ("", String::new())
                } else {
                    ("GAP?", literal(close))
                };
                (
                    format!("{gap} @json {gap} {close}"),
                    Vec::new(),
                    whole(any_call(functions, schemas, arguments)),
                )
            }
            CallLayout::List { open } => {
                let gap = if open.is_empty() { "" } else { "GAP?" };
                let mut list =
                    json!({"type": "array", "items": any_call(functions, schemas, "arguments")});
                if !open.is_empty() || !matches!(instead, Instead::EmptyList) {
                    list["minItems"] = json!(1);
                    if is_single {
                        list["maxItems"] = json!(1);
                    }
                }
                (format!("{gap} @json"), Vec::new(), whole(list))
            }
            CallLayout::Named {
                before,
                after,
                arguments,
                close,
                ..
            } => {
                let mut written = Arguments {
                    definitions,
                    rules: Vec::new(),
                    schemas: Vec::new(),
                };
                let mut calls = Vec::new();
                for ((name, file), schema) in functions.iter().zip(schemas) {
                    let arguments = written.of(arguments, file, schema)?;
                    calls.push(format!(
                        "{} {arguments} {}",
                        literal(&format!("{before}{name}{after}")),
                        literal(close)
                    ));
                }
                (
                    format!("( {} )", calls.join(" | ")),
                    written.rules,
                    written.schemas,
                )
            }
        })
    }
}

/// Schema of an object that calls one of the functions.
fn any_call(functions: &[(String, SchemaFile)], schemas: Vec<Value>, key: &str) -> Value {
    let call = |((name, _), arguments): (&(String, SchemaFile), Value)| {
        json!({
            "type": "object",
            "properties": {"name": {"const": name}, key: {"allOf": [arguments, {"type": "object"}]}},
            "required": ["name", key],
            "additionalProperties": false,
        })
    };
    json!({"anyOf": functions.iter().zip(schemas).map(call).collect::<Vec<_>>()})
}

/// A Lark literal; empty for empty text.
fn literal(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        Value::from(text).to_string()
    }
}

/// Arguments that are not a JSON object.
struct Arguments<'a> {
    definitions: &'a Map<String, Value>,
    rules: Vec<String>,
    schemas: Vec<(String, Value)>,
}

/// A way to write a value.
enum Written {
    /// A string, with the repetition of its characters.
    Text(String),
    Constant(String),
    Json(Value),
    Object(Value),
    List(Value),
}

/// Pointer to a schema, and why it has no grammar.
type Fault = (String, String);

fn fault<R>(pointer: impl Into<String>, why: impl Into<String>) -> Result<R, Fault> {
    Err((pointer.into(), why.into()))
}

impl Arguments<'_> {
    fn of(
        &mut self,
        layout: ArgumentLayout,
        file: &SchemaFile,
        schema: Value,
    ) -> Result<String, ConstraintError> {
        let object = match layout {
            ArgumentLayout::Json => Ok(self.json(json!({"allOf": [schema, {"type": "object"}]}))),
            ArgumentLayout::Tags { open, after, close } => {
                let written = members(&schema, "").and_then(|members| {
                    let write = |member: Member| {
                        let value = self.value(&member.schema, &member.pointer, ("", close), 0)?;
                        Ok((
                            format!(
                                "{} {value}",
                                literal(&format!("{open}{}{after}", member.key))
                            ),
                            member.is_required,
                        ))
                    };
                    members
                        .into_iter()
                        .map(write)
                        .collect::<Result<Vec<_>, Fault>>()
                });
                written.map(|written| self.sequence(&written, ""))
            }
            ArgumentLayout::Braces { quote } => self.braces(&schema, "", quote, 0),
        };
        object.map_err(|(pointer, why)| {
            let message = format!(
                "cannot be enforced while decoding in this format of calls: {why}; set another `call_format`, or sample without a constraint"
            );
            file.error(&pointer, message)
        })
    }

    /// Adds a uniquely named rule.
    fn rule(&mut self, attribute: &str, body: &str) -> String {
        let name = format!("r{}", self.rules.len());
        self.rules.push(format!("{name}{attribute}: {body}"));
        name
    }

    /// Text up to its end marker, which it cannot contain, even within a line.
    fn text(&mut self, length: &str, close: &str) -> String {
        let (suffix, tag) = (format!("[suffix={}]", literal(close)), close.trim());
        let body = format!("/(?s:.{length})/");
        if tag == close {
            return self.rule(&suffix, &body);
        }
        let name = format!("T{}", self.rules.len());
        let has_tag = format!(
            "/(?s:.*){}(?s:.*)/",
            regex_syntax::escape(tag).replace('/', "\\/")
        );
        self.rules.push(format!("{name}: {body} & ~{has_tag}"));
        self.rule(&suffix, &name)
    }

    fn json(&mut self, schema: Value) -> String {
        let name = format!("v{}", self.schemas.len());
        self.schemas.push((name.clone(), schema));
        format!("@{name}")
    }

    /// Members in order, optional ones possibly missing, with a separator.
    fn sequence(&mut self, members: &[(String, bool)], between: &str) -> String {
        let separator = literal(between);
        let (mut rest, mut firsts) = (String::new(), Vec::new());
        for (index, (member, is_required)) in members.iter().enumerate().rev() {
            firsts.push(format!("{member} {rest}"));
            let is_first_required =
                members[..index].iter().all(|(_, is_required)| !is_required) && *is_required;
            if is_first_required {
                // Nothing after a required member is the first one.
                firsts = vec![format!("{member} {rest}")];
            }
            let body = format!("{separator} {member}");
            let optional = if *is_required {
                body
            } else {
                format!("({body})?")
            };
            rest = self.rule("", &format!("{optional} {rest}"));
        }
        let is_empty = members.iter().all(|(_, is_required)| !is_required);
        match firsts.is_empty() {
            true => String::new(),
            false => format!(
                "( {} ){}",
                firsts.join(" | "),
                if is_empty { "?" } else { "" }
            ),
        }
    }

    fn braces(
        &mut self,
        schema: &Value,
        pointer: &str,
        quote: &str,
        depth: usize,
    ) -> Result<String, Fault> {
        let mut written = Vec::new();
        for member in members(schema, pointer)? {
            let value = self.value(&member.schema, &member.pointer, (quote, quote), depth)?;
            written.push((
                format!("{} {value}", literal(&format!("{}:", member.key))),
                member.is_required,
            ));
        }
        Ok(format!("\"{{\" {} \"}}\"", self.sequence(&written, ",")))
    }

    /// Text between `open` and `close`; with an empty `open`, other values precede `close` too.
    fn value(
        &mut self,
        schema: &Value,
        pointer: &str,
        (open, close): (&str, &str),
        depth: usize,
    ) -> Result<String, Fault> {
        let mut found = Vec::new();
        let ways = self.ways(schema, pointer, depth)?;
        let after = if open.is_empty() {
            literal(close)
        } else {
            String::new()
        };
        for way in ways {
            found.push(match way {
                Written::Text(length) => {
                    let text = self.text(&length, close);
                    format!("{} {text}", literal(open))
                }
                Written::Constant(text) if text.contains(close.trim()) => {
                    let why = format!("a constant that contains {}", close.trim());
                    return fault(pointer, why);
                }
                Written::Constant(text) => literal(&format!("{open}{text}{close}")),
                Written::Json(schema) => format!("{} {after}", self.json(schema)),
                Written::Object(schema) | Written::List(schema) if open.is_empty() => {
                    format!("{} {after}", self.json(schema))
                }
                Written::Object(schema) if schema.get("properties").is_none() => {
                    return fault(pointer, "an object without `properties`");
                }
                Written::Object(schema) => self.braces(&schema, pointer, open, depth + 1)?,
                Written::List(schema) => {
                    if let Some(keyword) = ["minItems", "maxItems", "prefixItems", "enum"]
                        .iter()
                        .find(|key| schema.get(**key).is_some())
                    {
                        let why = format!("`{keyword}` of a list");
                        return fault(format!("{pointer}/{keyword}"), why);
                    }
                    let Some(items) = schema.get("items") else {
                        return fault(pointer, "a list without `items`");
                    };
                    let item =
                        self.value(items, &format!("{pointer}/items"), (open, close), depth + 1)?;
                    let item = self.rule("", &item);
                    format!("\"[\" ( {item} ( \",\" {item} )* )? \"]\"")
                }
            });
        }
        Ok(format!("( {} )", found.join(" | ")))
    }

    fn ways(&self, schema: &Value, pointer: &str, depth: usize) -> Result<Vec<Written>, Fault> {
        if depth > MAX_DEPTH {
            return fault(
                pointer,
                "schemas are nested too deeply, or refer to themselves",
            );
        }
        let target = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|target| target.strip_prefix("#/$defs/"));
        if let Some(name) = target {
            return match self.definitions.get(name) {
                Some(schema) => self.ways(schema, pointer, depth + 1),
                None => fault(pointer, "the reference leads nowhere"),
            };
        }
        if let Some(values) = schema.as_object().and_then(values_named) {
            let constant = |value: &Value| match value {
                Value::String(text) => Ok(Written::Constant(text.clone())),
                Value::Object(_) | Value::Array(_) => fault(pointer, "a constant object or list"),
                scalar => Ok(Written::Json(json!({"const": scalar}))),
            };
            return values.iter().map(constant).collect();
        }
        if let Some(branches) = ["anyOf", "oneOf"]
            .iter()
            .find_map(|key| schema.get(*key)?.as_array())
        {
            let mut found = Vec::new();
            for (index, branch) in branches.iter().enumerate() {
                found.extend(self.ways(branch, &format!("{pointer}/anyOf/{index}"), depth + 1)?);
            }
            return Ok(found);
        }
        let of_type = |name: &str| {
            let mut schema = schema.clone();
            if let Some(keywords) = schema.as_object_mut() {
                keywords.insert("type".to_owned(), name.into());
            }
            Ok(match name {
                "string" => Written::Text(length(&schema, pointer)?),
                "object" => Written::Object(schema),
                "array" => Written::List(schema),
                _ => Written::Json(schema),
            })
        };
        match schema.get("type") {
            Some(Value::String(name)) => Ok(vec![of_type(name)?]),
            Some(Value::Array(names)) => names
                .iter()
                .filter_map(Value::as_str)
                .map(of_type)
                .collect(),
            _ => fault(pointer, "it has no `type`, so that it may be text or JSON"),
        }
    }
}

/// A property of an object.
struct Member {
    key: String,
    schema: Value,
    pointer: String,
    is_required: bool,
}

/// Possible properties of an object.
fn members(schema: &Value, pointer: &str) -> Result<Vec<Member>, Fault> {
    const KNOWN: [&str; 9] = [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "unevaluatedProperties",
        "title",
        "description",
        "default",
        "$defs",
    ];
    let keywords = schema.as_object().cloned().unwrap_or_default();
    if let Some(keyword) = keywords.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let why = format!("`{keyword}` of an object");
        return fault(format!("{pointer}/{keyword}"), why);
    }
    let required = list(&keywords, "required");
    let properties = keywords.get("properties").and_then(Value::as_object);
    let properties = properties.cloned().unwrap_or_default();
    if let Some(name) = required
        .iter()
        .filter_map(Value::as_str)
        .find(|name| !properties.contains_key(*name))
    {
        let why = format!("nothing says what {name:?} is");
        return fault(format!("{pointer}/required"), why);
    }
    let member = |(key, schema): (String, Value)| Member {
        is_required: required.iter().any(|name| *name == key),
        pointer: format!("{pointer}/properties/{key}"),
        key,
        schema,
    };
    let members = properties.into_iter().map(member);
    Ok(members
        .filter(|member| member.schema != Value::Bool(false) || member.is_required)
        .collect())
}

/// A string's length as a repetition.
fn length(schema: &Value, pointer: &str) -> Result<String, Fault> {
    if let Some(keyword) = ["pattern", "format", "allOf", "not"]
        .iter()
        .find(|key| schema.get(**key).is_some())
    {
        let why = format!("`{keyword}` of a string");
        return fault(format!("{pointer}/{keyword}"), why);
    }
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    Ok(match (bound("minLength"), bound("maxLength")) {
        (None, None) => "*".to_owned(),
        (least, most) => {
            format!(
                "{{{},{}}}",
                least.unwrap_or(0),
                most.map_or_else(String::new, |most| most.to_string())
            )
        }
    })
}
