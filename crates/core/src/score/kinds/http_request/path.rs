//! Path templates, such as `/invoices/{id}`, and server URLs.

use crate::score::kinds::json_schema::pattern::shorten;
use crate::task::decode_path;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Variable(String),
}

#[derive(Debug)]
pub(super) struct Template {
    pub(super) text: String,
    segments: Vec<Vec<Piece>>,
}

/// A path variable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bound<'p> {
    pub(super) name: &'p str,
    /// As written.
    pub(super) text: &'p str,
    /// Byte offset in the path.
    pub(super) at: usize,
}

impl Template {
    pub(super) fn new(path: &str) -> Self {
        Self {
            text: path.to_owned(),
            segments: path.split('/').map(pieces).collect(),
        }
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments
            .iter()
            .flatten()
            .filter_map(|piece| match piece {
                Piece::Variable(name) => Some(name.as_str()),
                Piece::Literal(_) => None,
            })
    }

    /// Sort key: the first matching template in this order is the most concrete.
    pub(super) fn rank(&self) -> Vec<bool> {
        self.segments
            .iter()
            .map(|segment| !matches!(segment.as_slice(), [] | [Piece::Literal(_)]))
            .collect()
    }

    pub(super) fn matches<'p>(&'p self, path: &'p str) -> Option<Vec<Bound<'p>>> {
        let (mut found, mut at, mut segments) = (Vec::new(), 0, path.split('/'));
        for pieces in &self.segments {
            let segment = segments.next()?;
            match pieces.as_slice() {
                [Piece::Literal(literal)]
                    if literal == segment || *literal == decode_path(segment) => {}
                pieces => {
                    let end = bind(pieces, segment, &mut |name, start, end| {
                        found.push(Bound {
                            name,
                            text: &segment[start..end],
                            at: at + start,
                        });
                    })?;
                    if end != segment.len() {
                        return None;
                    }
                }
            }
            at += segment.len() + 1;
        }
        segments.next().is_none().then_some(found)
    }
}

/// Matches pieces at the start of a text, without `/` in variables; returns the end.
fn bind<'p>(
    pieces: &'p [Piece],
    text: &str,
    found: &mut dyn FnMut(&'p str, usize, usize),
) -> Option<usize> {
    let mut at = 0;
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Literal(literal) => {
                if !text[at..].starts_with(literal.as_str()) {
                    return None;
                }
                at += literal.len();
            }
            Piece::Variable(name) => {
                let rest = &text[at..];
                let segment = &rest[..rest.find('/').unwrap_or(rest.len())];
                // In `{a}-{b}`, the first is as short as possible.
                let first = segment.chars().next()?.len_utf8();
                let length = match pieces.get(index + 1) {
                    Some(Piece::Literal(next)) => first + rest[first..].find(next.as_str())?,
                    _ => segment.len(),
                };
                if length > segment.len() {
                    return None;
                }
                found(name, at, at + length);
                at += length;
            }
        }
    }
    Some(at)
}

fn pieces(text: &str) -> Vec<Piece> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, name, after)) = rest.split_once('{').and_then(|(before, inside)| {
        let (name, after) = inside.split_once('}')?;
        Some((before, name, after))
    }) {
        if !before.is_empty() {
            pieces.push(Piece::Literal(before.to_owned()));
        }
        pieces.push(Piece::Variable(name.to_owned()));
        rest = after;
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    pieces
}

#[derive(Debug, Default)]
pub(super) struct Servers {
    /// URLs with scheme and host, and without.
    absolute: Vec<Vec<Piece>>,
    prefixes: Vec<Vec<Piece>>,
    named: Vec<String>,
}

impl Servers {
    pub(super) fn add(&mut self, url: &str) {
        let url = url.trim_end_matches('/');
        if url.is_empty() || self.named.iter().any(|known| known == url) {
            return;
        }
        self.named.push(url.to_owned());
        let path = match url.split_once("://") {
            Some((_, rest)) => {
                self.absolute.push(pieces(url));
                rest.find('/').map_or("", |slash| &rest[slash..])
            }
            None => url,
        };
        if !path.is_empty() {
            self.prefixes.push(pieces(path));
        }
    }

    /// Byte offsets where document paths may begin in a URL, longest remainder first.
    ///
    /// # Errors
    /// A sentence, for another server's URL.
    pub(super) fn starts(&self, url: &str) -> Result<Vec<usize>, String> {
        let after = |pieces: &Vec<Piece>, from: usize| {
            let end = from + bind(pieces, &url[from..], &mut |_, _, _| {})?;
            (url[end..].is_empty() || url[end..].starts_with('/')).then_some(end)
        };
        let Some((scheme, rest)) = url
            .split_once("://")
            .filter(|(scheme, _)| !scheme.contains(['/', '?', '#']))
        else {
            let prefixed = self.prefixes.iter().filter_map(|prefix| after(prefix, 0));
            return Ok(std::iter::once(0).chain(prefixed).collect());
        };
        if self.absolute.is_empty() {
            let host = scheme.len() + 3 + rest.find('/').unwrap_or(rest.len());
            let prefixed = self
                .prefixes
                .iter()
                .filter_map(|prefix| after(prefix, host));
            return Ok(std::iter::once(host).chain(prefixed).collect());
        }
        let found: Vec<usize> = self
            .absolute
            .iter()
            .filter_map(|server| after(server, 0))
            .collect();
        match found.is_empty() {
            true => {
                let known: Vec<&str> = self.named.iter().take(5).map(String::as_str).collect();
                Err(format!(
                    "no server of the document: {}; there are {}",
                    shorten(url),
                    known.join(", ")
                ))
            }
            false => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_concrete_paths() {
        for (template, path, expected) in [
            ("/invoices", "/invoices", Some("")),
            ("/invoices", "/invoices/", None),
            ("/invoices", "/invoice", None),
            ("/invoices/{id}", "/invoices/42", Some("id=42@10")),
            ("/invoices/{id}", "/invoices/", None),
            ("/invoices/{id}", "/invoices/4/2", None),
            (
                "/invoices/{id}/lines/{line}",
                "/invoices/é/lines/7",
                Some("id=é@10 line=7@19"),
            ),
            (
                "/{from}-{to}.json",
                "/a-b-c.json",
                Some("from=a@1 to=b-c@3"),
            ),
            ("/{from}-{to}.json", "/-.json", None),
            ("/a b", "/a%20b", Some("")),
            ("/", "/", Some("")),
            ("/v:{verb}", "/v:go", Some("verb=go@3")),
        ] {
            let template = Template::new(template);
            let found = template.matches(path).map(|found| {
                let shown: Vec<String> = found
                    .iter()
                    .map(|Bound { name, text, at }| format!("{name}={text}@{at}"))
                    .collect();
                shown.join(" ")
            });
            assert_eq!(found.as_deref(), expected, "{} {path}", template.text);
        }
        let mut order = ["/{a}/{b}", "/{a}/x", "/me/{b}", "/me/x"].map(Template::new);
        order.sort_by_key(Template::rank);
        assert_eq!(
            order.map(|template| template.text),
            ["/me/x", "/me/{b}", "/{a}/x", "/{a}/{b}"]
        );
    }

    #[test]
    fn the_address_of_a_server_is_found_before_a_path() {
        let starts = |servers: &[&str], url: &str| {
            let mut all = Servers::default();
            servers.iter().for_each(|server| all.add(server));
            all.starts(url).map(|starts| {
                starts
                    .iter()
                    .map(|start| url[*start..].to_owned())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        let api = [
            "https://api.example.com/v1/",
            "https://{region}.example.com/{base}",
        ];
        assert_eq!(starts(&api[..1], "/a").unwrap(), "/a");
        assert_eq!(
            starts(&api, "/a").unwrap(),
            "/a ",
            "the second server's path may be this"
        );
        assert_eq!(starts(&api, "/v1/a").unwrap(), "/v1/a /a /a");
        assert_eq!(
            starts(&api, "https://api.example.com/v1/a").unwrap(),
            "/a /a"
        );
        assert_eq!(starts(&api, "https://eu.example.com/v2/a").unwrap(), "/a");
        assert_eq!(starts(&api[..1], "https://api.example.com/v1").unwrap(), "");
        assert!(
            starts(&api[..1], "https://api.example.com/v11/a")
                .unwrap_err()
                .contains("no server of the document")
        );
        assert_eq!(
            starts(&["/v1"], "https://any.org/v1/a").unwrap(),
            "/v1/a /a"
        );
        assert_eq!(starts(&[], "https://any.org").unwrap(), "");
        assert_eq!(
            starts(&[], "/redirect?to=https://any.org/").unwrap(),
            "/redirect?to=https://any.org/"
        );
    }
}
