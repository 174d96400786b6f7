//! A chat template's source, made ready for the engine: marks that only training uses are dropped, and every assignment passes through a check.

/// The function that each assigned value goes through; see [`super::limits`].
pub(super) const CHECK: &str = "__within_bounds";

/// The longest source. Published templates stay below 40 kB; the engine's own stack grows with the source.
const LONGEST_SOURCE_BYTES: usize = 1 << 18;
/// The most code in one tag, strings not counted: the engine descends once for each operator of an expression.
const LONGEST_TAG_BYTES: usize = 1 << 13;

/// The source as the engine gets it; its lines stay where they are.
///
/// # Errors
/// What is too long, in words.
pub(super) fn prepared(source: &str) -> Result<String, String> {
    if source.len() > LONGEST_SOURCE_BYTES {
        return Err(format!("chat template: {} bytes; at most {LONGEST_SOURCE_BYTES} are read", source.len()));
    }
    if source.contains(CHECK) {
        return Err(format!("chat template: it uses the reserved name `{CHECK}`"));
    }
    checked_assignments(&without_generation_marks(source))
}

/// `{% generation %}` marks what the assistant said, for training masks; it prints what it holds.
fn without_generation_marks(source: &str) -> String {
    let mut text = source.to_owned();
    for (tag, plain) in [("generation", "if true"), ("endgeneration", "endif")] {
        for (open, close) in [("{%", "%}"), ("{%-", "%}"), ("{%", "-%}"), ("{%-", "-%}")] {
            text = text.replace(&format!("{open} {tag} {close}"), &format!("{open} {plain} {close}"));
        }
    }
    text
}

/// `{% set NAME = EXPRESSION %}` becomes `{% set NAME = CHECK((EXPRESSION),false) %}`.
fn checked_assignments(source: &str) -> Result<String, String> {
    let mut text = String::with_capacity(source.len() + 256);
    let mut rest = source;
    while let Some(start) = ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        let (before, from) = rest.split_at(start);
        text.push_str(before);
        let (open, inside) = from.split_at(2);
        text.push_str(open);
        let close = if open == "{{" { "}}" } else { "%}" };
        rest = inside;
        let end = if open == "{#" { inside.find("#}") } else { code_end(inside, close)? };
        // A tag that never ends: the engine says so, with its place.
        let Some(end) = end else { break };
        let (tag, after) = inside.split_at(end);
        match (open, assignment(tag)) {
            // Whether it is an attribute decides whether the value may hold a namespace.
            ("{%", Some((target, value, end))) => text.push_str(&format!("{target}={CHECK}(({value}),{}){end}", target.contains('.'))),
            _ => text.push_str(tag),
        }
        rest = after;
        if open == "{%" && word(tag) == "raw" {
            let end = rest.match_indices("{%").find(|(at, _)| word(&rest[at + 2..]) == "endraw").map_or(rest.len(), |(at, _)| at);
            text.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// The first word of a tag.
fn word(tag: &str) -> &str {
    let tag = tag.trim_start_matches(['-', '+']).trim_start();
    &tag[..tag.find(|character: char| !character.is_ascii_alphanumeric() && character != '_').unwrap_or(tag.len())]
}

/// Where `close` ends a tag: outside its strings and brackets.
fn code_end(inside: &str, close: &str) -> Result<Option<usize>, String> {
    let mut code = 0;
    for (at, byte, depth) in Code::of(inside) {
        if depth == 0 && inside.as_bytes()[at..].starts_with(close.as_bytes()) {
            return Ok(Some(at));
        }
        code += usize::from(!byte.is_ascii_whitespace());
        if code > LONGEST_TAG_BYTES {
            let begin: String = inside.trim_start().chars().take(40).collect();
            return Err(format!("chat template: more than {LONGEST_TAG_BYTES} bytes of code in one tag, which begins with `{begin}`"));
        }
    }
    Ok(None)
}

/// `set TARGET = VALUE` as target with its keyword, value, and what trails.
fn assignment(tag: &str) -> Option<(&str, &str, &str)> {
    if word(tag) != "set" {
        return None;
    }
    let bytes = tag.as_bytes();
    let (at, ..) =
        Code::of(tag).find(|(at, byte, _)| *byte == b'=' && bytes.get(at + 1) != Some(&b'=') && bytes.get(at - 1) != Some(&b'='))?;
    let (target, value) = (&tag[..at], &tag[at + 1..]);
    // In `{% set x | filter(name="…") %}` the sign belongs to an argument.
    if target.contains('|') {
        return None;
    }
    let kept = value.trim_end_matches(['-', '+']);
    (!kept.trim().is_empty()).then(|| (target, kept, &value[kept.len()..]))
}

/// Bytes of code with their offset and depth of brackets; strings are left out.
struct Code<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: isize,
}

impl<'a> Code<'a> {
    fn of(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0, depth: 0 }
    }
}

impl Iterator for Code<'_> {
    type Item = (usize, u8, isize);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, byte) = (self.at, *self.bytes.get(self.at)?);
            self.at += 1;
            if byte == b'"' || byte == b'\'' {
                while let Some(&inner) = self.bytes.get(self.at)
                    && inner != byte
                {
                    self.at += if inner == b'\\' { 2 } else { 1 };
                }
                self.at += 1;
                continue;
            }
            let depth = self.depth;
            self.depth += match byte {
                b'(' | b'[' | b'{' => 1,
                b')' | b']' | b'}' => -1,
                _ => 0,
            };
            return Some((at, byte, depth));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_checked_and_nothing_else_changes() {
        let check = |source: &str, expected: &str| {
            assert_eq!(prepared(source).unwrap().replace(CHECK, "C"), expected, "{source}");
        };
        let same = |source: &str| check(source, source);
        check("a{% set x = 1 %}b", "a{% set x =C(( 1 ),false)%}b");
        check("{%- set ns.x = ns.x ~ '%}' -%}", "{%- set ns.x =C(( ns.x ~ '%}' ),true)-%}");
        check("{% set a, b = c == d, {'e': '='} %}", "{% set a, b =C(( c == d, {'e': '='} ),false)%}");
        check("{% set x = 'it\\'s %}' %}{{ x }}", "{% set x =C(( 'it\\'s %}' ),false)%}{{ x }}");
        check("{%set x=y%}{# {% set z = 1 %} #}", "{%set x=C((y),false)%}{# {% set z = 1 %} #}");
        same("{% set x %}{{ a }}{% endset %}");
        same("{% set x | replace(old='a', new='b') %}c{% endset %}");
        same("{% raw %}{% set x = 1 %}{% endraw %}{{ '{% set x = 1 %}' }}");
        same("{% settle = 1 %}{{ {'a': {'b': 1}} }}");
        same("{% set x = ");
        same("{% if a == b %}{% for set in x %}{% endfor %}");
        check("{%- generation -%} x {%- endgeneration %}", "{%- if true -%} x {%- endif %}");
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let check = |source: String, expected: &str| {
            let message = prepared(&source).unwrap_err();
            assert!(message.contains(expected), "{message}");
        };
        check("a".repeat(LONGEST_SOURCE_BYTES + 1), "262145 bytes; at most 262144");
        check(format!("{{{{ 1{} }}}}", "+1".repeat(LONGEST_TAG_BYTES)), "more than 8192 bytes of code in one tag, which begins with `1+1+");
        check(format!("{{{{ {CHECK}(1) }}}}"), "reserved name");
        assert!(prepared(&format!("{{{{ '{}' }}}}", "+".repeat(2 * LONGEST_TAG_BYTES))).is_ok());
    }
}
