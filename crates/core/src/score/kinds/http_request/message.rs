//! Parses a completion as a request or response: one JSON object.

use crate::score::answer::json::{Kind, Member, Object, Value};
use crate::score::definition::MessagePart;
use crate::score::verdict::FailureClass;
use crate::score::verdict::unwrap_answer::Unreadable;

/// Accepted names of a message's parts, the documented one first.
const METHOD: &[&str] = &["method"];
const PATH: &[&str] = &["path", "url"];
const QUERY: &[&str] = &["query", "params"];
const HEADERS: &[&str] = &["headers"];
const BODY: &[&str] = &["body", "json", "data"];
const STATUS: &[&str] = &["status", "status_code"];

const REQUEST: &[&[&str]] = &[METHOD, PATH, QUERY, HEADERS, BODY];
const RESPONSE: &[&[&str]] = &[STATUS, HEADERS, BODY];

#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'d, T> {
    pub(super) key: &'d str,
    /// Byte offset of the value.
    pub(super) at: usize,
    pub(super) value: T,
}

/// A message with positions in the completion. Requests and responses have their own parts.
#[derive(Debug)]
pub(super) struct Message<'d> {
    pub(super) start: Start<'d>,
    pub(super) query: Option<Part<'d, &'d Object<'d>>>,
    pub(super) headers: Option<Part<'d, &'d Object<'d>>>,
    pub(super) body: Option<Part<'d, &'d Value<'d>>>,
    /// An unknown key with its byte offset.
    pub(super) extra_key: Option<(&'d str, usize)>,
}

#[derive(Debug)]
pub(super) enum Start<'d> {
    Request {
        method: Part<'d, &'d str>,
        path: Part<'d, &'d str>,
    },
    Response {
        status: Part<'d, u16>,
    },
}

type Read<T> = Result<T, Unreadable>;

pub(super) fn read<'d>(part: MessagePart, root: &'d Value<'_>) -> Read<Message<'d>> {
    let form = Form(part);
    let object = root
        .as_object()
        .ok_or_else(|| form.wrong_type(&format!("a {}", part.name()), "an object", root))?;
    let known = match part {
        MessagePart::Request => REQUEST,
        MessagePart::Response => RESPONSE,
    };
    let start = match part {
        MessagePart::Request => Start::Request {
            method: form.text(root, object, METHOD)?,
            path: form.text(root, object, PATH)?,
        },
        MessagePart::Response => Start::Response {
            status: form.status(root, object)?,
        },
    };
    // Unknown members, and a second name for the same part.
    let is_extra = |member: &&'d Member<'_>| {
        let names = known.iter().find(|names| names.contains(&&*member.key));
        names.is_none_or(|names| {
            find(object, names).is_some_and(|first| !std::ptr::eq(first, *member))
        })
    };
    let extra = object.members().iter().find(is_extra);
    Ok(Message {
        start,
        query: if part == MessagePart::Request {
            form.object(object, QUERY)?
        } else {
            None
        },
        headers: form.object(object, HEADERS)?,
        body: find(object, BODY).map(|member| part_of(member, &member.value)),
        extra_key: extra.map(|member| (&*member.key, member.key_start)),
    })
}

fn find<'d>(object: &'d Object<'_>, names: &[&str]) -> Option<&'d Member<'d>> {
    names.iter().find_map(|name| object.get(name))
}

fn part_of<'d, T>(member: &'d Member<'_>, value: T) -> Part<'d, T> {
    Part {
        key: &member.key,
        at: member.value.start,
        value,
    }
}

struct Form(MessagePart);

impl Form {
    fn example(&self) -> &'static str {
        match self.0 {
            MessagePart::Request => {
                "a request is {\"method\": …, \"path\": …, \"query\": {…}, \"headers\": {…}, \"body\": …}"
            }
            MessagePart::Response => "a response is {\"status\": …, \"headers\": {…}, \"body\": …}",
        }
    }

    fn required<'d>(
        &self,
        root: &Value<'_>,
        object: &'d Object<'_>,
        names: &[&str],
    ) -> Read<&'d Member<'d>> {
        find(object, names).ok_or_else(|| {
            let name = names.first().copied().unwrap_or_default();
            let message = format!("a {} without `{name}`; {}", self.0.name(), self.example());
            Unreadable {
                message,
                offset: root.start,
                class: FailureClass::MissingKey,
                is_wrapped: false,
            }
        })
    }

    fn text<'d>(
        &self,
        root: &Value<'_>,
        object: &'d Object<'_>,
        names: &[&str],
    ) -> Read<Part<'d, &'d str>> {
        let member = self.required(root, object, names)?;
        match &member.value.kind {
            Kind::String(text) => Ok(part_of(member, text)),
            _ => Err(self.wrong_type(&format!("`{}`", member.key), "a string", &member.value)),
        }
    }

    fn status<'d>(&self, root: &Value<'_>, object: &'d Object<'_>) -> Read<Part<'d, u16>> {
        let member = self.required(root, object, STATUS)?;
        let number = match &member.value.kind {
            Kind::Number(number) => number
                .as_u64()
                .and_then(|number| u16::try_from(number).ok()),
            _ => None,
        };
        match number {
            Some(status) => Ok(part_of(member, status)),
            None => Err(self.wrong_type(
                &format!("`{}`", member.key),
                "a status code, such as 200",
                &member.value,
            )),
        }
    }

    /// `null` means absent.
    fn object<'d>(
        &self,
        object: &'d Object<'_>,
        names: &[&str],
    ) -> Read<Option<Part<'d, &'d Object<'d>>>> {
        let Some(member) = find(object, names) else {
            return Ok(None);
        };
        match &member.value.kind {
            Kind::Object(inner) => Ok(Some(part_of(member, inner))),
            Kind::Null => Ok(None),
            _ => Err(self.wrong_type(&format!("`{}`", member.key), "an object", &member.value)),
        }
    }

    fn wrong_type(&self, what: &str, expected: &str, found: &Value<'_>) -> Unreadable {
        let message = format!(
            "{what} is {expected}, not {}; {}",
            found.type_name(),
            self.example()
        );
        Unreadable {
            message,
            offset: found.start,
            class: FailureClass::WrongType,
            is_wrapped: false,
        }
    }
}
