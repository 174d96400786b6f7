//! Prepares a chat template's source for the engine: drops training-only marks and routes every
//! assignment through a check.

/// Function applied to each assigned value; see [`super::limits`].
pub(super) const CHECK: &str = "__within_bounds";

/// Method for slices with a step; see [`super::python_methods`].
pub(super) const SLICE: &str = "__slice";

/// Filter that writes an operand of `~` as Python does; see [`super::python_methods`].
pub(super) const TEXT: &str = "__text";

/// Longest source. Published templates stay below 40 kB; the engine's stack grows with the source.
const MAX_SOURCE_BYTES: usize = 1 << 18;
/// Most code in one tag, without strings: the engine recurses for each operator.
const MAX_TAG_BYTES: usize = 1 << 13;
/// Most `+` and `~`, and most `*`, in one tag: each may create a text as long as the longest one,
/// unmeasured.
const MAX_CONCATENATIONS: usize = 64;
const MAX_MULTIPLICATIONS: usize = 4;

/// Returns the engine's source with unchanged line numbers; lines end in `\n`, as in Jinja.
///
/// # Errors
/// Names the part that is too long.
pub(super) fn prepare(source: &str) -> Result<String, String> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(format!(
            "chat template: {} bytes; at most {MAX_SOURCE_BYTES} are read",
            source.len()
        ));
    }
    if source.contains(CHECK) {
        return Err(format!("chat template: uses the reserved name `{CHECK}`"));
    }
    checked_assignments(&source.replace("\r\n", "\n").replace('\r', "\n"))
}

/// `{% set NAME = EXPRESSION %}` becomes `{% set NAME = CHECK((EXPRESSION),false) %}`; likewise the
/// values of `with` and the iterable of `for`. Parameters of macros and recursive loops are checked
/// first thing inside.
fn checked_assignments(source: &str) -> Result<String, String> {
    let mut text = String::with_capacity(source.len() + 256);
    let mut rest = source;
    while let Some(start) = ["{{", "{%", "{#"]
        .iter()
        .filter_map(|open| rest.find(open))
        .min()
    {
        let (before, from) = rest.split_at(start);
        text.push_str(before);
        let (open, inside) = from.split_at(2);
        text.push_str(open);
        let close = if open == "{{" { "}}" } else { "%}" };
        rest = inside;
        let end = if open == "{#" {
            inside.find("#}")
        } else {
            code_end(inside, close)?
        };
        // An unterminated tag: the engine reports it with its position.
        let Some(end) = end else { break };
        let (tag, after) = inside.split_at(end);
        if open != "{#" {
            operators_within(tag)?;
        }
        let tag = if open == "{#" {
            tag
        } else {
            &printed_operands(&stepped_slices(tag))
        };
        match (open, assignment(tag), word(tag)) {
            // Only a value of an attribute must not hold a namespace.
            ("{%", Some((target, value, end)), _) => text.push_str(&format!(
                "{target}={CHECK}(({value}),{}){end}",
                target.contains('.')
            )),
            ("{%", None, "with") => text.push_str(&with(tag)),
            ("{%", None, "for") => text.push_str(&for_loop(tag)),
            // Marks assistant text for training masks; prints its content.
            ("{%", None, "generation") => text.push_str(&tag.replacen("generation", "if true", 1)),
            ("{%", None, "endgeneration") => {
                text.push_str(&tag.replacen("endgeneration", "endif", 1))
            }
            ("{%", None, "macro" | "call") => {
                text.push_str(&with_names_checked(tag, tag, &parameters(tag)))
            }
            _ => text.push_str(tag),
        }
        rest = after;
        if open == "{%" && word(tag) == "raw" {
            let end = rest
                .match_indices("{%")
                .find(|(at, _)| word(&rest[at + 2..]) == "endraw")
                .map_or(rest.len(), |(at, _)| at);
            text.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// `VALUE[A:B:C]` becomes `VALUE.SLICE(A,B,C)`, omitted parts `none`.
fn stepped_slices(tag: &str) -> String {
    let mut text = String::with_capacity(tag.len());
    // Positions in `text` of open brackets and of the colons directly inside.
    let mut brackets: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut copied = 0;
    for (at, byte, _) in Code::new(tag) {
        if !matches!(byte, b'[' | b'{' | b'(' | b']' | b'}' | b')' | b':') {
            continue;
        }
        text.push_str(&tag[copied..at]);
        copied = at + 1;
        match byte {
            b'[' | b'{' | b'(' => brackets.push((text.len(), Vec::new())),
            b':' => {
                if let Some((_, colons)) = brackets.last_mut() {
                    colons.push(text.len());
                }
            }
            _ => {
                if let Some((open, colons)) = brackets.pop()
                    && let (b']', [first, second]) = (byte, colons.as_slice())
                {
                    let parts = [
                        &text[open + 1..*first],
                        &text[first + 1..*second],
                        &text[second + 1..],
                    ];
                    let parts = parts
                        .map(|part| if part.trim().is_empty() { "none" } else { part })
                        .join(",");
                    text.truncate(open);
                    text.push_str(&format!(".{SLICE}({parts})"));
                    continue;
                }
            }
        }
        text.push(char::from(byte));
    }
    text.push_str(&tag[copied..]);
    text
}

fn word(tag: &str) -> &str {
    let tag = tag.trim_start_matches(['-', '+']).trim_start();
    &tag[..tag
        .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .unwrap_or(tag.len())]
}

/// `A ~ B` becomes `A|TEXT ~ B|TEXT`: the engine would join numbers and lists as Rust prints them.
/// Operands with operators that bind tighter than `~` are unchanged.
fn printed_operands(tag: &str) -> String {
    /// The current operand, and its end without trailing space.
    #[derive(Default)]
    struct Operand {
        is_joined: bool,
        has_sign: bool,
        start: usize,
    }
    const WORDS: [&[u8]; 6] = [b"if", b"else", b"and", b"or", b"in", b"not"];
    if !tag.contains('~') {
        return tag.to_owned();
    }
    let bytes = tag.as_bytes();
    let mut ends = Vec::new();
    let mut open = vec![Operand::default()];
    let mut close = |operand: &mut Operand, at: usize, is_joined: bool| {
        let end = tag[..at].trim_end().len();
        let is_text = tag[..end].ends_with(['"', '\'']);
        if (operand.is_joined || is_joined) && !operand.has_sign && !is_text && operand.start < end
        {
            ends.push(end);
        }
        *operand = Operand {
            is_joined,
            has_sign: false,
            start: at + 1,
        };
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_exponent = |at: usize| {
        let number = tag[..at].strip_suffix(['e', 'E']).unwrap_or_default();
        number.ends_with(|digit: char| digit.is_ascii_digit() || digit == '.')
    };
    for (at, byte, _) in Code::new(tag) {
        let Some(operand) = open.last_mut() else {
            break;
        };
        match byte {
            b'(' | b'[' | b'{' => open.push(Operand {
                start: at + 1,
                ..Operand::default()
            }),
            b')' | b']' | b'}' => {
                close(operand, at, false);
                open.pop();
            }
            b'~' => close(operand, at, true),
            // A whitespace mark, or part of a number.
            b'-' | b'+' if at == 0 || is_exponent(at) => {}
            b'+' | b',' | b'=' | b'<' | b'>' | b'!' | b':' => close(operand, at, false),
            b'-' if operand.start < tag[..at].trim_end().len() => close(operand, at, false),
            b'-' | b'*' | b'/' | b'%' => operand.has_sign = true,
            _ if is_name(byte) && !(at > 0 && is_name(bytes[at - 1])) => {
                let length = bytes[at..]
                    .iter()
                    .take_while(|byte| is_name(**byte))
                    .count();
                let is_attribute = tag[..at].trim_end().ends_with(['.', '|']);
                let word = &bytes[at..at + length];
                if WORDS.contains(&word) && !is_attribute {
                    close(operand, at, false);
                    operand.start = at + length;
                }
                // A test is part of the operand.
                operand.has_sign |= word == b"is" && !is_attribute;
            }
            _ => {}
        }
    }
    if let [operand] = open.as_mut_slice() {
        close(operand, tag.trim_end_matches(['-', '+']).len(), false);
    }
    ends.sort_unstable();
    let mut text = tag.to_owned();
    for end in ends.into_iter().rev() {
        text.insert_str(end, &format!("|{TEXT}"));
    }
    text
}

/// Position where `close` ends a tag, outside strings and brackets.
fn code_end(inside: &str, close: &str) -> Result<Option<usize>, String> {
    let mut code = 0;
    for (at, byte, depth) in Code::new(inside) {
        if depth == 0 && inside.as_bytes()[at..].starts_with(close.as_bytes()) {
            return Ok(Some(at));
        }
        code += usize::from(!byte.is_ascii_whitespace());
        if code > MAX_TAG_BYTES {
            let begin: String = inside.trim_start().chars().take(40).collect();
            return Err(format!(
                "chat template: more than {MAX_TAG_BYTES} bytes of code in one tag, which begins with `{begin}`"
            ));
        }
    }
    Ok(None)
}

/// Splits `set TARGET = VALUE` into target with keyword, value, and rest.
fn assignment(tag: &str) -> Option<(&str, &str, &str)> {
    if word(tag) != "set" {
        return None;
    }
    let bytes = tag.as_bytes();
    let (at, ..) = Code::new(tag).find(|(at, byte, _)| {
        *byte == b'=' && bytes.get(at + 1) != Some(&b'=') && bytes.get(at - 1) != Some(&b'=')
    })?;
    let (target, value) = (&tag[..at], &tag[at + 1..]);
    // In `{% set x | filter(name="…") %}` the sign belongs to an argument.
    if target.contains('|') {
        return None;
    }
    let expression = value.trim_end_matches(['-', '+']);
    (!expression.trim().is_empty()).then(|| (target, expression, &value[expression.len()..]))
}

/// `with A = X, B = Y` with each value checked.
fn with(tag: &str) -> String {
    let (body, end) = without_end(tag);
    let start = body.find("with").map_or(body.len(), |at| at + 4);
    let one = |part: &str| match top_level(part, "=").first() {
        Some(&at) => format!("{}={CHECK}(({}),false)", &part[..at], &part[at + 1..]),
        None => part.to_owned(),
    };
    format!(
        "{}{}{end}",
        &body[..start],
        split(&body[start..], ",")
            .into_iter()
            .map(one)
            .collect::<Vec<_>>()
            .join(",")
    )
}

/// `for TARGET in EXPRESSION if CONDITION recursive` with the expression checked.
fn for_loop(tag: &str) -> String {
    let (body, end) = without_end(tag);
    let start = body.find("for").map_or(body.len(), |at| at + 3);
    let Some(&at) = top_level(body, "in").iter().find(|at| **at >= start) else {
        return tag.to_owned();
    };
    let recursive = top_level(body, "recursive")
        .into_iter()
        .rfind(|found| *found > at);
    let stop = top_level(body, "if")
        .into_iter()
        .find(|stop| *stop > at)
        .or(recursive)
        .unwrap_or(body.len());
    let checked = format!(
        "{} {CHECK}(({}),false) {}{end}",
        &body[..at + 2],
        &body[at + 2..stop],
        &body[stop..]
    );
    match recursive {
        Some(_) => with_names_checked(
            tag,
            &checked,
            &split(body[start..at].trim().trim_matches(['(', ')']), ","),
        ),
        None => checked,
    }
}

fn parameters(tag: &str) -> Vec<&str> {
    let (body, _) = without_end(tag);
    let head = body
        .find(word(tag))
        .map_or("", |at| &body[at + word(tag).len()..]);
    // A call without parameters begins with the callee.
    let own = if word(tag) == "call" {
        head.trim_start()
    } else {
        head.trim_start()
            .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
    };
    let Some(inside) = own.trim_start().strip_prefix('(') else {
        return Vec::new();
    };
    let end = Code::new(inside)
        .find(|(_, byte, depth)| *byte == b')' && *depth == 0)
        .map_or(inside.len(), |(at, ..)| at);
    split(&inside[..end], ",")
        .into_iter()
        .map(|one| one.split('=').next().unwrap_or(one).trim())
        .filter(|one| !one.is_empty())
        .collect()
}

/// The tag `ready` followed by one that checks the names; `tag` is the original.
fn with_names_checked(tag: &str, ready: &str, names: &[&str]) -> String {
    if names.is_empty() {
        return ready.to_owned();
    }
    let (_, end) = without_end(tag);
    let names = names
        .iter()
        .map(|name| name.trim())
        .collect::<Vec<_>>()
        .join(",");
    format!(
        "{}%}}{{% set {CHECK}_ = {CHECK}(([{names}]),false) {end}",
        ready.strip_suffix(end).unwrap_or(ready)
    )
}

/// Splits off a trailing whitespace mark.
fn without_end(tag: &str) -> (&str, &str) {
    let body = tag.trim_end_matches(['-', '+']);
    tag.split_at(body.len())
}

/// Positions of a word or sign outside strings and brackets.
fn top_level(code: &str, sought: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let is_name = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    let is_word = sought.bytes().all(|byte| byte.is_ascii_alphabetic());
    let fits = |at: usize| {
        bytes[at..].starts_with(sought.as_bytes())
            && !(is_word && (is_name(at.checked_sub(1)) || is_name(Some(at + sought.len()))))
    };
    // A sign of two characters is another one.
    let double = |at: usize| {
        sought == "="
            && (bytes.get(at + 1) == Some(&b'=') || at > 0 && b"=!<>".contains(&bytes[at - 1]))
    };
    Code::new(code)
        .filter(|(at, _, depth)| *depth == 0 && fits(*at) && !double(*at))
        .map(|(at, ..)| at)
        .collect()
}

fn split<'c>(code: &'c str, sign: &str) -> Vec<&'c str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for at in top_level(code, sign) {
        parts.push(&code[start..at]);
        start = at + sign.len();
    }
    parts.push(&code[start..]);
    parts
}

/// Rejects a tag that could exhaust memory before anything is measured.
fn operators_within(tag: &str) -> Result<(), String> {
    let bytes = tag.as_bytes();
    let (mut joins, mut products, mut has_text_join, mut of_lists) = (0, 0, false, false);
    for (at, byte, _) in Code::new(tag) {
        match byte {
            b'+' | b'~' => {
                joins += 1;
                has_text_join |= byte == b'~';
            }
            b'*' => {
                products += 1;
                let beside = |byte: Option<&u8>| matches!(byte, Some(b'"' | b'\''));
                let text = beside(bytes[..at].trim_ascii_end().last())
                    || beside(bytes[at + 1..].trim_ascii_start().first());
                of_lists |= !text;
            }
            _ => {}
        }
    }
    let begin = || tag.trim_start().chars().take(40).collect::<String>();
    if joins > MAX_CONCATENATIONS || products > MAX_MULTIPLICATIONS {
        return Err(format!(
            "chat template: more than {MAX_CONCATENATIONS} `+` and `~`, or more than {MAX_MULTIPLICATIONS} `*`, in one tag, which begins with `{}`",
            begin()
        ));
    }
    if has_text_join && of_lists {
        return Err(format!(
            "chat template: `*` of what may be a list, and `~`, in one tag, which begins with `{}`; use two tags",
            begin()
        ));
    }
    Ok(())
}

/// Iterates over bytes of code outside strings, with offset and bracket depth.
struct Code<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: isize,
}

impl<'a> Code<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
            depth: 0,
        }
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
    fn what_is_joined_is_printed_as_python_prints_it() {
        for (source, expected) in [
            ("{{ a ~ b }}", "{{ a|T ~ b|T }}"),
            ("{{- a ~ 'x' ~ b -}}", "{{- a|T ~ 'x' ~ b|T -}}"),
            (
                "{{ 'a ~ b' }}{# a ~ b #}a ~ b",
                "{{ 'a ~ b' }}{# a ~ b #}a ~ b",
            ),
            (
                "{{ f(a ~ b, c)[d ~ 1] ~ e }}",
                "{{ f(a|T ~ b|T, c)[d|T ~ 1|T]|T ~ e|T }}",
            ),
            ("{{ a ~ 1e-7 }}", "{{ a|T ~ 1e-7|T }}"),
            (
                "{{ a ~ b if c else d ~ e }}",
                "{{ a|T ~ b|T if c else d|T ~ e|T }}",
            ),
            (
                "{{ a | upper ~ b.if ~ c }}",
                "{{ a | upper|T ~ b.if|T ~ c|T }}",
            ),
            (
                "{{ a == b ~ c and d in e ~ f }}",
                "{{ a == b|T ~ c|T and d in e|T ~ f|T }}",
            ),
            ("{{ a + b ~ c - d }}", "{{ a + b|T ~ c|T - d }}"),
            ("{{ {'k': a ~ b} }}", "{{ {'k': a|T ~ b|T} }}"),
            // A filter would bind to a part of these.
            (
                "{{ '-' * b ~ -c ~ d is string ~ e }}",
                "{{ '-' * b ~ -c ~ d is string ~ e|T }}",
            ),
        ] {
            assert_eq!(
                prepare(source).unwrap().replace(TEXT, "T"),
                expected,
                "{source}"
            );
        }
    }

    #[test]
    fn assignments_are_checked_and_nothing_else_changes() {
        let check = |source: &str, expected: &str| {
            assert_eq!(
                prepare(source).unwrap().replace(CHECK, "C"),
                expected,
                "{source}"
            );
        };
        let same = |source: &str| check(source, source);
        check("a{% set x = 1 %}b", "a{% set x =C(( 1 ),false)%}b");
        check(
            "{%- set ns.x = ns.x ~ '%}' -%}",
            "{%- set ns.x =C(( ns.x|__text ~ '%}' ),true)-%}",
        );
        check(
            "{% set a, b = c == d, {'e': '='} %}",
            "{% set a, b =C(( c == d, {'e': '='} ),false)%}",
        );
        check(
            "{% set x = 'it\\'s %}' %}{{ x }}",
            "{% set x =C(( 'it\\'s %}' ),false)%}{{ x }}",
        );
        check(
            "{%set x=y%}{# {% set z = 1 %} #}",
            "{%set x=C((y),false)%}{# {% set z = 1 %} #}",
        );
        same("{% set x %}{{ a }}{% endset %}");
        same("{% set x | replace(old='a', new='b') %}c{% endset %}");
        same("{% raw %}{% set x = 1 %}{% endraw %}{{ '{% set x = 1 %}' }}");
        same("{% settle = 1 %}{{ {'a': {'b': 1}} }}");
        same("{% set x = ");
        check(
            "{% if a == b %}{% for set in x %}{% endfor %}",
            "{% if a == b %}{% for set in C(( x ),false) %}{% endfor %}",
        );
        check(
            "{% with a = b, c = [d, 'e,='] -%}",
            "{% with a =C(( b),false), c =C(( [d, 'e,='] ),false)-%}",
        );
        check(
            "{% for a in b if a in c -%}",
            "{% for a in C(( b ),false) if a in c -%}",
        );
        check(
            "{%- for a, b in c.items() recursive %}",
            "{%- for a, b in C(( c.items() ),false) recursive %}{% set C_ = C(([a,b]),false) %}",
        );
        check(
            "{% macro f(a, b='x, y') -%}c",
            "{% macro f(a, b='x, y') %}{% set C_ = C(([a,b]),false) -%}c",
        );
        check(
            "{% call(a) f(b) %}",
            "{% call(a) f(b) %}{% set C_ = C(([a]),false) %}",
        );
        same("{% macro f() %}{% call f(b) %}{% with %}");
        check(
            "{%- generation -%} x {%- endgeneration %}",
            "{%- if true -%} x {%- endif %}",
        );
        check(
            "{%generation%}{{ '{% generation %}' }}{%  endgeneration%}",
            "{%if true%}{{ '{% generation %}' }}{%  endif%}",
        );
    }

    #[test]
    fn slices_with_a_step_are_calls() {
        let check = |source: &str, expected: &str| {
            assert_eq!(
                prepare(source).unwrap().replace(SLICE, "S"),
                expected,
                "{source}"
            );
        };
        check(
            "{{ a[::-1][0] }}{{ '[::-1]' }}{# a[::-1] #}",
            "{{ a.S(none,none,-1)[0] }}{{ '[::-1]' }}{# a[::-1] #}",
        );
        check(
            "{% if a[b[::2][0] : {'c': 1}['c'] : -1] %}",
            "{% if a.S(b.S(none,none,2)[0] , {'c': 1}['c'] , -1) %}",
        );
        check(
            "{{ a[1:] }}{{ a[:-1] }}{{ {'é': [1], 'c': 2} }}",
            "{{ a[1:] }}{{ a[:-1] }}{{ {'é': [1], 'c': 2} }}",
        );
        check("{{ a[b:c:d }}", "{{ a[b:c:d }}");
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let check = |source: String, expected: &str| {
            let message = prepare(&source).unwrap_err();
            assert!(message.contains(expected), "{message}");
        };
        check(
            "a".repeat(MAX_SOURCE_BYTES + 1),
            "262145 bytes; at most 262144",
        );
        check(
            format!("{{{{ 1{} }}}}", "+1".repeat(MAX_TAG_BYTES)),
            "more than 8192 bytes of code in one tag, which begins with `1+1+",
        );
        check(format!("{{{{ {CHECK}(1) }}}}"), "reserved name");
        check("{{ a * b * c * d * e * f }}".to_owned(), "more than 4 `*`");
        assert!(prepare(&format!("{{{{ '{}' }}}}", "+".repeat(2 * MAX_TAG_BYTES))).is_ok());
    }
}
