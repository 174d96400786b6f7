//! Schema files reached by `$ref`: relative references resolve within the task's folder.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::error::Read;
use super::error::TaskError;
use super::source::Home;
use crate::files::PathError;
use crate::schema_keywords::visit;

/// Returns address -> file, for `named` files and those reached by relative references from
/// `schema_file`; and address -> inherited `$schema`.
pub(crate) fn follow_references(
    home: &Home,
    schema_file: &str,
    schema: &Value,
    named: BTreeMap<String, String>,
) -> Read<(BTreeMap<String, String>, BTreeMap<String, String>)> {
    let mut references = BTreeMap::new();
    let mut found = FoundReferences::default();
    let root = encode_path(schema_file);
    found.walk(&home.label(schema_file), &root, Some(root.clone()), schema)?;
    for (address, file) in named {
        let file = home.name(file)?;
        let schema = home.parse_json(&file, &home.read_text(&file)?)?;
        // Its base is its address, wherever the file is.
        found.walk(
            &home.label(&file),
            &address,
            join("", &address).ok(),
            &schema,
        )?;
        references.insert(address, file);
    }
    while let Some(address) = found.waiting.pop_first() {
        if references.contains_key(&address) || found.ids.contains(&address) {
            continue;
        }
        let file = decode_path(&address);
        // Others may be anchors; the schema compiler reports dangling ones.
        if !file.ends_with(".json") && home.open(&file).is_err() {
            continue;
        }
        let schema = home.parse_json(&file, &home.read_text(&file)?)?;
        found.walk(&home.label(&file), &address, Some(address.clone()), &schema)?;
        references.insert(address, file);
    }
    Ok((references, found.inherited_drafts(&root)))
}

#[derive(Default)]
struct FoundReferences {
    waiting: BTreeSet<String>,
    /// Schemas with a relative `$id`.
    ids: BTreeSet<String>,
    /// Document -> its `$schema` and references.
    documents: BTreeMap<String, (Option<String>, Vec<String>)>,
}

impl FoundReferences {
    /// `base`: the document's address; `None` outside the task's folder.
    fn walk(
        &mut self,
        label: &str,
        document: &str,
        base: Option<String>,
        schema: &Value,
    ) -> Read<()> {
        let mut targets = Vec::new();
        let mut left = None;
        visit(schema, &base, &mut |members, base: &Option<String>| {
            let address = |text: &str| encode_reference(text.split('#').next().unwrap_or_default());
            let text = |key: &str| {
                let text = members.get(key).and_then(Value::as_str).map(address);
                text.filter(|text| !text.is_empty())
            };
            let mut own = base.clone();
            if let (Some(id), Some(base)) = (text("$id").or_else(|| text("id")), base) {
                own = match join(base, &id) {
                    Ok(address) => Some(address),
                    Err(ReferenceError::Remote) => None,
                    Err(ReferenceError::Outside) => {
                        left.get_or_insert(id);
                        None
                    }
                };
                self.ids.extend(own.clone());
            }
            if let Some(reference) = text("$ref") {
                match own.as_ref().map(|base| join(base, &reference)) {
                    Some(Ok(address)) => {
                        targets.push(address.clone());
                        self.waiting.insert(address);
                    }
                    None | Some(Err(ReferenceError::Remote)) => {
                        targets.push(from_host(document, &reference))
                    }
                    Some(Err(ReferenceError::Outside)) => _ = left.get_or_insert(reference),
                }
            }
            own
        });
        if let Some(reference) = left {
            return Err(TaskError::outside(
                label.to_owned(),
                &reference,
                PathError::Written,
            ));
        }
        let draft = schema
            .get("$schema")
            .and_then(Value::as_str)
            .map(str::to_owned);
        self.documents.insert(document.to_owned(), (draft, targets));
        Ok(())
    }

    /// Document without `$schema` -> that of the first document that refers to it.
    fn inherited_drafts(&self, root: &str) -> BTreeMap<String, String> {
        let mut inherited = BTreeMap::new();
        let mut seen = BTreeSet::from([root]);
        let mut queue = VecDeque::from([(root, None)]);
        while let Some((document, from)) = queue.pop_front() {
            let Some((own, targets)) = self.documents.get(document) else {
                continue;
            };
            if let (None, Some(from)) = (own, from) {
                inherited.insert(document.to_owned(), from);
            }
            let draft = own.clone().or_else(|| inherited.get(document).cloned());
            for target in targets
                .iter()
                .map(String::as_str)
                .filter(|target| self.documents.contains_key(*target))
            {
                if seen.insert(target) {
                    queue.push_back((target, draft.clone()));
                }
            }
        }
        inherited
    }
}

/// Why a reference does not name a file of the task.
#[derive(Debug, PartialEq)]
enum ReferenceError {
    Remote,
    Outside,
}

/// Resolves `reference` (without fragment) at `base` by RFC 3986, section 5.2; leaving the folder
/// is an error.
fn join(base: &str, reference: &str) -> Result<String, ReferenceError> {
    let scheme = reference
        .split(['/', '?'])
        .next()
        .is_some_and(|first| first.contains(':'));
    if scheme || reference.starts_with("//") || reference.contains('?') {
        return Err(ReferenceError::Remote);
    }
    let folder = if reference.starts_with('/') {
        ""
    } else {
        base.rsplit_once('/').map_or("", |(folder, _)| folder)
    };
    let mut parts = Vec::new();
    for part in folder.split('/').chain(reference.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or(ReferenceError::Outside)?),
            part => parts.push(part),
        }
    }
    // A folder's address ends with `/`.
    Ok(parts.join("/")
        + if reference.ends_with('/') && !parts.is_empty() {
            "/"
        } else {
            ""
        })
}

/// Resolves `reference` at a document with a host; unchanged if it has a scheme or the document has
/// no host.
fn from_host(document: &str, reference: &str) -> String {
    let place = document
        .split_once("://")
        .map(|(scheme, rest)| (scheme, rest.split_once('/').unwrap_or((rest, ""))));
    match (place, place.map(|(_, (_, path))| join(path, reference))) {
        (Some((scheme, (host, _))), Some(Ok(path))) => format!("{scheme}://{host}/{path}"),
        (Some((scheme, _)), Some(Err(ReferenceError::Remote))) if reference.starts_with("//") => {
            format!("{scheme}:{reference}")
        }
        _ => reference.to_owned(),
    }
}

/// A name as a step of a JSON pointer.
pub fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The name that a step of a JSON pointer is.
pub fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

pub fn encode_path(file: &str) -> String {
    let file = file.trim_start_matches("./");
    file.bytes()
        .map(|byte| {
            if is_plain(byte) {
                char::from(byte).to_string()
            } else {
                encoded(byte)
            }
        })
        .collect()
}

/// Percent-encodes characters not allowed in a URI reference, such as `<` in `#/definitions/A<B>`,
/// which schema generators leave as is. A second `#` belongs to the fragment.
pub fn encode_reference(reference: &str) -> String {
    let bytes = reference.as_bytes();
    let fragment = reference.find('#').unwrap_or(bytes.len());
    let is_code = |at: usize| {
        bytes
            .get(at + 1..at + 3)
            .is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit))
    };
    let has_ip_address = reference[..fragment].contains("//[");
    let as_written = |at: usize, byte: u8| match byte {
        b'#' => at == fragment,
        b'%' => is_code(at),
        b'[' | b']' => has_ip_address && at < fragment,
        byte => byte == b'?' || is_plain(byte),
    };
    let one = |(at, &byte): (usize, &u8)| {
        if as_written(at, byte) {
            char::from(byte).to_string()
        } else {
            encoded(byte)
        }
    };
    bytes.iter().enumerate().map(one).collect()
}

pub fn referenced_part<'a>(document: &'a Value, reference: &str) -> Option<&'a Value> {
    document.pointer(&decode_path(reference.strip_prefix('#')?))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

fn encoded(byte: u8) -> String {
    format!("%{byte:02X}")
}

/// Decodes percent-encoding; invalid escapes are kept.
pub fn decode_path(address: &str) -> String {
    let mut bytes = Vec::with_capacity(address.len());
    let mut rest = address.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok())
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_on_stream_their_document() {
        let check = |base: &str, reference: &str, expected: Result<&str, ReferenceError>| {
            assert_eq!(
                join(base, reference),
                expected.map(str::to_owned),
                "{base} {reference}"
            );
        };
        check("schema.json", "money.json", Ok("money.json"));
        check("parts/a.json", "money.json", Ok("parts/money.json"));
        check("parts/a.json", "./deep/b.json", Ok("parts/deep/b.json"));
        check("parts/deep/a.json", "../../b.json", Ok("b.json"));
        check("parts/a.json", "/b.json", Ok("b.json"));
        check("schema.json", "parts/", Ok("parts/"));
        check("parts/", "b.json", Ok("parts/b.json"));
        check("parts/a.json", "../../b.json", Err(ReferenceError::Outside));
        check(
            "schema.json",
            "https://example.com/b.json",
            Err(ReferenceError::Remote),
        );
        check(
            "schema.json",
            "//example.com/b.json",
            Err(ReferenceError::Remote),
        );
        check("schema.json", "urn:b", Err(ReferenceError::Remote));
        let seen = |reference: &str| from_host("https://e.org/parts/a.json", reference);
        assert_eq!(seen("b.json"), "https://e.org/parts/b.json");
        assert_eq!(seen("/b.json"), "https://e.org/b.json");
        assert_eq!(seen("//f.org/b.json"), "https://f.org/b.json");
        assert_eq!(seen("urn:b"), "urn:b");
        assert_eq!(from_host("https://e.org", "b.json"), "https://e.org/b.json");
        assert_eq!(
            from_host("parts/a.json", "https://e.org/b.json"),
            "https://e.org/b.json"
        );
        assert_eq!(
            (
                encode_path("a b/ü.json").as_str(),
                decode_path("a%20b/%C3%BC.json").as_str()
            ),
            ("a%20b/%C3%BC.json", "a b/ü.json")
        );
        for (reference, expected) in [
            ("#/definitions/A<B>", "#/definitions/A%3CB%3E"),
            ("#/definitions/A%3CB%3E", "#/definitions/A%3CB%3E"),
            (
                "#/$defs/100% [é] #2|^",
                "#/$defs/100%25%20%5B%C3%A9%5D%20%232%7C%5E",
            ),
            ("a b.json#/x\"y", "a%20b.json#/x%22y"),
            (
                "http://[::1]/List[A].json#/[0]",
                "http://[::1]/List[A].json#/%5B0%5D",
            ),
            ("a?b=c", "a?b=c"),
        ] {
            assert_eq!(encode_reference(reference), expected);
        }
    }
}
