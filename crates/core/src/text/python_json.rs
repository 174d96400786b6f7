//! JSON as written by Python's `json.dumps`, for which chat templates are made: separators, floats,
//! escapes.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

use super::MAX_PROMPT_BYTES;
use super::python_repr::{python_float, python_str};
use crate::exact_json::marked_number;
use crate::json_number::Number;

/// Python's own recursion limit is somewhat higher.
const MAX_DEPTH: usize = 200;
/// Text grows with the square of the indent.
const MAX_INDENT: usize = 64;

/// Filter `tojson(indent, ensure_ascii=False, separators, sort_keys=False)`: no HTML escapes,
/// unlike Jinja's.
pub(super) fn tojson(value: &Value, arguments: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = arguments.get("indent")?;
    let separators: Option<Vec<String>> = arguments.get("separators")?;
    let unit = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match (indent.as_str(), indent.as_usize()) {
            (Some(text), _) if text.len() <= MAX_INDENT => text.to_owned(),
            (None, Some(width)) if width <= MAX_INDENT => " ".repeat(width),
            _ => {
                return Err(refused(format!(
                    "`indent` is {indent}; it is a number or a text of at most {MAX_INDENT}"
                )));
            }
        }),
    };
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "tojson: `separators` needs two texts",
            ));
        }
        None => (
            if unit.is_some() { "," } else { ", " }.to_owned(),
            ": ".to_owned(),
        ),
    };
    let mut writer = Writer {
        text: String::new(),
        unit,
        item,
        key,
        escape_unicode: arguments
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        sort_keys: arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    arguments.assert_all_used()?;
    writer.value(value, 0)?;
    Ok(writer.text)
}

/// One line, as `json.dumps(value, ensure_ascii=False)`.
pub(super) fn line(json: &Json) -> Result<String, Error> {
    tojson(
        &value_of(json),
        Kwargs::from_iter(Vec::<(&str, Value)>::new()),
    )
}

/// JSON as a template value; objects keep their key order.
pub(crate) fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (_, Some(whole)) => Value::from(whole),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value_of).collect(),
        Json::Object(_) if let Some(number) = marked_number(json) => exact_value(number),
        Json::Object(keys) => Value::from_pairs(
            keys.iter()
                .map(|(key, value)| (key.clone(), value_of(value))),
        ),
    }
}

/// Integers of any size, as in Python; fractions are floats.
fn exact_value(number: Number<'_>) -> Value {
    let text = number.text();
    match (number.is_written_as_integer(), text.parse::<i128>()) {
        (true, Ok(whole)) => Value::from(whole),
        (true, Err(_)) => Value::from_object(HugeInteger(text.to_owned())),
        (false, _) => Value::from(text.parse().unwrap_or(f64::NAN)),
    }
}

/// An integer of more than 128 bits.
#[derive(Debug)]
struct HugeInteger(String);

impl Object for HugeInteger {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn refused(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {problem}"))
}

struct Writer {
    text: String,
    unit: Option<String>,
    item: String,
    key: String,
    escape_unicode: bool,
    sort_keys: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(refused(format!("nested deeper than {MAX_DEPTH}")));
        }
        if self.text.len() > MAX_PROMPT_BYTES {
            return Err(refused(format!(
                "longer than {} MiB",
                MAX_PROMPT_BYTES >> 20
            )));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self
                .text
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.text.push_str(&value.to_string()),
            ValueKind::Number => self
                .text
                .push_str(&json_float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.sequence(value, depth)?,
            ValueKind::Map => self.mapping(value, depth)?,
            _ if let Some(number) = value.downcast_object_ref::<HugeInteger>() => {
                self.text.push_str(&number.0);
            }
            other => return Err(refused(format!("{other} is not JSON serializable"))),
        }
        Ok(())
    }

    fn sequence(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut count = 0;
        self.text.push('[');
        for item in value.try_iter()? {
            self.before_item(count, depth + 1);
            self.value(&item, depth + 1)?;
            count += 1;
        }
        self.after_items(count, depth);
        self.text.push(']');
        Ok(())
    }

    fn mapping(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        self.text.push('{');
        for (index, key) in keys.iter().enumerate() {
            self.before_item(index, depth + 1);
            match key.kind() {
                ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }),
                ValueKind::None => self.string("null"),
                _ => self.string(&python_str(key)),
            }
            self.text.push_str(&self.key);
            self.value(&value.get_item(key)?, depth + 1)?;
        }
        self.after_items(keys.len(), depth);
        self.text.push('}');
        Ok(())
    }

    fn before_item(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.text.push_str(&self.item);
        }
        self.new_line(depth);
    }

    fn after_items(&mut self, count: usize, depth: usize) {
        if count > 0 {
            self.new_line(depth);
        }
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(unit) = &self.unit {
            self.text.push('\n');
            self.text.push_str(&unit.repeat(depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                _ if character < ' '
                    || (self.escape_unicode && !(' '..='~').contains(&character)) =>
                {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        self.text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }
}

fn json_float(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        let sign = if number < 0.0 { "-" } else { "" };
        format!("{sign}Infinity")
    } else {
        python_float(number)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_python_writes_them() {
        let check = |json: &str, arguments: &[(&str, Value)], expected: &str| {
            let value = value_of(&crate::exact_json::parse(json).unwrap());
            let arguments = Kwargs::from_iter(arguments.iter().cloned());
            assert_eq!(tojson(&value, arguments).unwrap(), expected, "{json}");
        };
        check(
            r#"{"b":1,"a":[true,false,null,"x"]}"#,
            &[],
            r#"{"b": 1, "a": [true, false, null, "x"]}"#,
        );
        check("{}", &[], "{}");
        let whole = "[20240101123456789012, -1234567890123456789012345678901234567890123456789012]";
        check(whole, &[], whole);
        check("[]", &[("indent", Value::from(2))], "[]");
        check(
            r#"[1,{"a":[]}]"#,
            &[("indent", Value::from(2))],
            "[\n  1,\n  {\n    \"a\": []\n  }\n]",
        );
        check("[1]", &[("indent", Value::from("\t"))], "[\n\t1\n]");
        check(
            r#"{"b":1,"a":2}"#,
            &[("sort_keys", Value::from(true))],
            r#"{"a": 2, "b": 1}"#,
        );
        check(
            r#"{"b":[1,2]}"#,
            &[("separators", Value::from(vec![",", ":"]))],
            r#"{"b":[1,2]}"#,
        );
        check(r#""é<&>'\u007f\u2028""#, &[], "\"é<&>'\u{7f}\u{2028}\"");
        check(
            r#""é\ud83d\ude00\u007f""#,
            &[("ensure_ascii", Value::from(true))],
            r#""\u00e9\ud83d\ude00\u007f""#,
        );
        check(
            r#""\"\\\n\r\t\b\f\u0001""#,
            &[],
            r#""\"\\\n\r\t\b\f\u0001""#,
        );
        check(
            "[1.0,0.1,-0.0,1e16,1.5e-7,123456789012345680.0,0.0001,18446744073709551615,-5]",
            &[],
            "[1.0, 0.1, -0.0, 1e+16, 1.5e-07, 1.2345678901234568e+17, 0.0001, 18446744073709551615, -5]",
        );
    }

    #[test]
    fn what_python_refuses_is_refused() {
        let none: [(&str, Value); 0] = [];
        assert!(tojson(&Value::UNDEFINED, Kwargs::from_iter(none)).is_err());
        assert!(
            tojson(
                &Value::from(1),
                Kwargs::from_iter([("nonsense", Value::from(1))])
            )
            .is_err()
        );
    }
}
