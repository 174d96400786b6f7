//! Python string methods and Jinja filters that the engine lacks or implements differently.

use minijinja::value::{ArgType, Kwargs, StringInput, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value, filters};

use super::python_repr::python_str;

pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str().filter(|_| value.kind() == ValueKind::String) else {
        return minijinja_contrib::pycompat::unknown_method_callback(
            state, value, method, arguments,
        );
    };
    match method {
        "split" | "rsplit" => {
            let (separator, limit, named): (Option<Value>, Option<i64>, Kwargs) =
                from_args(arguments)?;
            let separator = or_named(separator, &named, "sep")?;
            let limit = or_named(limit, &named, "maxsplit")?;
            named.assert_all_used()?;
            let limit = limit
                .and_then(|limit| usize::try_from(limit).ok())
                .unwrap_or(usize::MAX);
            let separator = separator.as_ref().and_then(Value::as_str);
            if separator == Some("") {
                return Err(refuse(format!("{method}: the separator is empty")));
            }
            Ok(split(text, separator, limit, method == "rsplit")
                .into_iter()
                .map(Value::from)
                .collect())
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let is_last = method == "rpartition";
            let found = if is_last {
                text.rsplit_once(separator)
            } else {
                text.split_once(separator)
            };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if is_last => ["", "", text],
                None => [text, "", ""],
            };
            Ok(Value::from(Tuple::from(parts.map(Value::from))))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "index" => {
            let (sought,): (&str,) = from_args(arguments)?;
            let at = text
                .find(sought)
                .ok_or_else(|| refuse(format!("index: {sought:?} is not in the text")))?;
            Ok(Value::from(text[..at].chars().count()))
        }
        "title" => {
            let () = from_args(arguments)?;
            Ok(Value::from(title(text)))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

/// Splits at most `limit` times, from the end if `from_end`; without a separator at runs of white
/// space.
fn split<'t>(text: &'t str, separator: Option<&str>, limit: usize, from_end: bool) -> Vec<&'t str> {
    let mut parts: Vec<&str> = match separator {
        Some(separator) if from_end => text.rsplitn(limit.saturating_add(1), separator).collect(),
        Some(separator) => text.splitn(limit.saturating_add(1), separator).collect(),
        None => {
            let (mut parts, mut rest) = (Vec::new(), text);
            loop {
                rest = if from_end {
                    rest.trim_end()
                } else {
                    rest.trim_start()
                };
                if rest.is_empty() {
                    break;
                }
                let space = if from_end {
                    rest.rfind(char::is_whitespace)
                } else {
                    rest.find(char::is_whitespace)
                };
                let Some(at) = space.filter(|_| parts.len() < limit) else {
                    parts.push(rest);
                    break;
                };
                let after = at + rest[at..].chars().next().map_or(0, char::len_utf8);
                let part = if from_end {
                    &rest[after..]
                } else {
                    &rest[..at]
                };
                rest = if from_end {
                    &rest[..at]
                } else {
                    &rest[after..]
                };
                parts.push(part);
            }
            parts
        }
    };
    if from_end {
        parts.reverse();
    }
    parts
}

/// `value[start:stop:step]`. The engine's slices with a negative step include `stop = 0` and fail
/// on an empty list.
pub(super) fn slice(value: &Value, arguments: &[Value]) -> Result<Value, Error> {
    let (start, stop, step): (Option<i64>, Option<i64>, Option<i64>) = from_args(arguments)?;
    let step = step.unwrap_or(1);
    let text = value.as_str().map(|text| text.chars().collect::<Vec<_>>());
    let items: Vec<Value> = match (&text, value.kind()) {
        (Some(_), _) => Vec::new(),
        (None, ValueKind::Seq | ValueKind::Iterable) => value.try_iter()?.collect(),
        (None, other) => return Err(refuse(format!("a value of type {other} cannot be sliced"))),
    };
    let length = text.as_ref().map_or(items.len(), Vec::len) as i64;
    let (lowest, highest) = match step {
        0 => return Err(refuse("a slice's step cannot be 0".to_owned())),
        1.. => (0, length),
        _ => (-1, length - 1),
    };
    let at = |index: i64| {
        if index < 0 {
            index.saturating_add(length).max(lowest)
        } else {
            index.min(highest)
        }
    };
    let (first, end) = if step > 0 {
        (lowest, highest)
    } else {
        (highest, lowest)
    };
    let (start, stop) = (start.map_or(first, at), stop.map_or(end, at));
    let next = |index: &i64| Some(index.saturating_add(step));
    let places = std::iter::successors(Some(start), next)
        .take_while(|index| {
            if step > 0 {
                *index < stop
            } else {
                *index > stop
            }
        })
        .filter_map(|index| usize::try_from(index).ok());
    Ok(match text {
        Some(text) => Value::from(
            places
                .filter_map(|index| text.get(index))
                .collect::<String>(),
        ),
        None => {
            let items: Vec<Value> = places
                .filter_map(|index| items.get(index).cloned())
                .collect();
            if value.is_tuple() {
                Value::from(Tuple::from(items))
            } else {
                Value::from(items)
            }
        }
    })
}

/// `str.title`: upper case after a non-letter, lower case otherwise.
fn title(text: &str) -> String {
    let mut is_inside = false;
    let mut titled = String::with_capacity(text.len());
    for character in text.chars() {
        if is_inside {
            titled.extend(character.to_lowercase());
        } else {
            titled.extend(character.to_uppercase());
        }
        is_inside = character.is_alphabetic();
    }
    titled
}

/// An argument given by position, else by name.
pub(super) fn or_named<'a, T>(
    given: Option<T>,
    named: &'a Kwargs,
    name: &'a str,
) -> Result<Option<T>, Error>
where
    Option<T>: ArgType<'a, Output = Option<T>>,
{
    given.map_or_else(|| named.get(name), |given| Ok(Some(given)))
}

/// Filter `default`, with `default_value` and `boolean` also by name.
pub(super) fn default(
    value: &Value,
    other: Option<Value>,
    boolean: Option<bool>,
    named: Kwargs,
) -> Result<Value, Error> {
    let other = or_named(other, &named, "default_value")?;
    let boolean = or_named(boolean, &named, "boolean")?;
    named.assert_all_used()?;
    let is_missing = value.is_undefined() || (boolean == Some(true) && !value.is_true());
    Ok(if is_missing {
        other.unwrap_or_else(|| Value::from(""))
    } else {
        value.clone()
    })
}

/// Filter `string`: `str(value)`.
pub(super) fn string(value: &Value) -> Value {
    match value.as_str() {
        Some(_) => value.clone(),
        None => Value::from(python_str(value)),
    }
}

/// Filter `join` over `str` of the items.
pub(super) fn join(
    state: &mut State,
    value: &Value,
    joiner: Option<StringInput<'_>>,
    attribute: Option<&str>,
    named: Kwargs,
) -> Result<Value, Error> {
    let is_list = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if !is_list || attribute.is_some() || named.has("attribute") {
        return filters::join(state, value, joiner, attribute, named);
    }
    let printed: Value = value.try_iter()?.map(|item| string(&item)).collect();
    filters::join(state, &printed, joiner, None, named)
}

/// Filter `replace` with a count.
pub(super) fn replace(
    state: &mut State,
    text: StringInput<'_>,
    old: StringInput<'_>,
    new: StringInput<'_>,
    count: Option<i64>,
) -> Result<Value, Error> {
    match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => Ok(Value::from(text.as_str().replacen(
            old.as_str(),
            new.as_str(),
            count,
        ))),
        None => filters::replace(state, text, old, new),
    }
}

fn refuse(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}
