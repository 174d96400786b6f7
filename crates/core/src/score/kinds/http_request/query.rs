//! A request's query, from the path's query string and the query object, parsed by parameter
//! styles.

use std::collections::BTreeMap;

use super::document::Parameter;
use super::message::{Message, Start};
use super::parameters::{ParameterValue, Style, decode_query, query_pairs};
use super::schemas::Shape;
use crate::score::answer::json::position::StringPlaces;
use crate::score::answer::json::{self, Value};
use crate::task::escaped;

/// Including the query; servers reject far shorter ones.
pub(super) const MAX_PATH_BYTES: usize = 65_536;

#[derive(Debug, Clone)]
pub(super) struct Entry<'m> {
    written: EntryValue<'m>,
    /// Byte offset in the completion.
    pub(super) at: usize,
    /// JSON pointer.
    pub(super) place: String,
}

#[derive(Debug, Clone, Copy)]
enum EntryValue<'m> {
    /// Text of the query string, undecoded.
    Text(&'m str),
    Json(&'m Value<'m>),
}

pub(super) type Query<'m> = BTreeMap<String, Vec<Entry<'m>>>;

impl<'m> Entry<'m> {
    pub(super) fn alone(&self) -> ParameterValue<'m> {
        match self.written {
            EntryValue::Text(text) => ParameterValue::Text(decode_query(text).into()),
            EntryValue::Json(value) => ParameterValue::from_json(value),
        }
    }
}

pub(super) fn split_path(path: &str) -> (&str, &str) {
    let path = path.split('#').next().unwrap_or_default();
    path.split_once('?').unwrap_or((path, ""))
}

/// Entries of both the query string and the object.
pub(super) fn query<'m>(completion: &str, message: &Message<'m>) -> Query<'m> {
    let mut entries = Query::new();
    if let Start::Request { path, .. } = &message.start
        && path.value.len() <= MAX_PATH_BYTES
    {
        let (address, text) = split_path(path.value);
        let mut places = StringPlaces::new(completion, path.at);
        for (name, value, at) in query_pairs(text) {
            let at = places.locate(address.len() + 1 + at);
            let entry = Entry {
                written: EntryValue::Text(value),
                at,
                place: format!("/{}", path.key),
            };
            entries.entry(decode_query(name)).or_default().push(entry);
        }
    }
    if let Some(query) = &message.query {
        for member in query.value.members() {
            let place = format!("/{}/{}", query.key, escaped(&member.key));
            let entry = Entry {
                written: EntryValue::Json(&member.value),
                at: member.value.start,
                place,
            };
            entries
                .entry(member.key.to_string())
                .or_default()
                .push(entry);
        }
    }
    entries
}

/// A value of a query, and where it is written first.
pub(super) struct Given<V> {
    pub(super) value: V,
    /// Byte offset in the completion.
    pub(super) at: usize,
    /// JSON pointer.
    pub(super) place: String,
}

/// Removes a parameter's entries from the query and parses them in its style. `Err`: how often it is given.
pub(super) fn take_parameter<'m>(
    parameter: &Parameter,
    query: &mut Query<'m>,
) -> Option<Given<Result<ParameterValue<'m>, usize>>> {
    let read = |entry: &Entry<'m>| match entry.written {
        EntryValue::Json(value) => match (&value.kind, &parameter.shape) {
            // A list in one string.
            (json::Kind::String(text), Shape::List) if !parameter.explode => {
                ParameterValue::from_text(
                    text,
                    &parameter.shape,
                    parameter.style,
                    false,
                    str::to_owned,
                )
            }
            _ => ParameterValue::from_json(value),
        },
        EntryValue::Text(text) => match (&parameter.shape, parameter.explode) {
            (Shape::List, true) => ParameterValue::Text(decode_query(text).into()),
            (shape, explode) => {
                ParameterValue::from_text(text, shape, parameter.style, explode, decode_query)
            }
        },
    };
    let own = query.remove(&parameter.name);
    let mut first = own.as_ref().and_then(|entries| entries.first()).cloned();
    let mut given: Vec<ParameterValue<'m>> = own.iter().flatten().map(read).collect();
    let value = match &parameter.shape {
        Shape::Scalar if given.len() > 1 => Err(given.len()),
        Shape::Scalar => Ok(given.pop()?),
        Shape::List => {
            first.as_ref()?;
            let items = given.into_iter().flat_map(|given| match given {
                ParameterValue::List(items) => items,
                one => vec![one],
            });
            Ok(ParameterValue::List(items.collect()))
        }
        Shape::Fields(names) => {
            let mut fields = Vec::new();
            let mut place = first.clone();
            let deep = parameter.style == Style::DeepObject;
            let spread = if !deep && parameter.explode {
                names.as_slice()
            } else {
                &[]
            };
            let inside = |name: &str| {
                let field = name
                    .strip_prefix(parameter.name.as_str())?
                    .strip_prefix('[')?
                    .strip_suffix(']')?;
                deep.then(|| field.to_owned())
            };
            let named: Vec<(String, String)> = query
                .keys()
                .filter_map(|name| {
                    inside(name)
                        .or_else(|| spread.contains(name).then(|| name.clone()))
                        .map(|field| (name.clone(), field))
                })
                .collect();
            for (name, field) in named {
                for entry in query.remove(&name).into_iter().flatten() {
                    let value = entry.alone();
                    place.get_or_insert(entry);
                    fields.push((field.clone().into(), value));
                }
            }
            let place = place?;
            let found = match given.pop() {
                Some(ParameterValue::Fields(own)) => {
                    ParameterValue::Fields(own.into_iter().chain(fields).collect())
                }
                Some(other) => other,
                None => ParameterValue::Fields(fields),
            };
            first = Some(place);
            Ok(found)
        }
    };
    let Entry { at, place, .. } = first?;
    Some(Given { value, at, place })
}
