//! Limits for chat templates: they come with models, so must not hang, crash or exhaust memory.

use std::cell::Cell;

use minijinja::value::{Kwargs, Rest, StringInput, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters, functions};

use super::catch_panic::{catch_panic, panic_message};
use super::python_methods::{self, or_named};
use super::python_repr::is_namespace;
use super::template_source::{CHECK, SLICE, TEXT};

/// Longest prompt text; beyond any model's context.
pub const MAX_PROMPT_BYTES: usize = 16 << 20;

/// Template engine steps per prompt. A conversation of a thousand turns needs fewer. A step adds at
/// most one level to a value, and [`DEEP_STACK_BYTES`] holds this many levels.
pub(super) const MAX_STEPS: u64 = 100_000;

/// Limit of widths, counts and precisions: the engine reserves their memory at once.
const MAX_WIDTH: usize = 9_999;

/// The engine recurses for each operator, branch and level of a value. Only used pages take memory.
const DEEP_STACK_BYTES: usize = 1 << 28;

/// Nesting of assigned values; Python's own limit is similar.
const MAX_DEPTH: usize = 200;
/// Items, at all levels, of the values that one prompt assigns and passes through filters.
const MAX_ITEMS: usize = 5_000_000;
/// Total text in these values.
const MAX_VALUE_BYTES: usize = 1 << 30;
/// Text that one prompt may print, capture or assign.
const MAX_TEXT_BYTES: usize = 4 * MAX_PROMPT_BYTES;

thread_local! {
    /// Items counted and bytes printed on this thread, which renders one prompt.
    static ITEMS: Cell<usize> = const { Cell::new(0) };
    static WORKED: Cell<usize> = const { Cell::new(0) };
    static PRINTED: Cell<usize> = const { Cell::new(0) };
}

/// A prompt being written; writing fails beyond [`MAX_PROMPT_BYTES`].
#[derive(Default)]
pub(super) struct BoundedPrompt {
    pub(super) bytes: Vec<u8>,
    /// The limit was exceeded.
    pub(super) full: bool,
}

impl std::io::Write for BoundedPrompt {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        self.full |= self.bytes.len() + part.len() > MAX_PROMPT_BYTES;
        if self.full {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Filters that expand or traverse their input: both input and output are measured.
macro_rules! measured {
    ($environment:ident: $($name:literal $filter:expr),+ $(,)?) => {$(
        // The engine's own filter, under a name that templates cannot write.
        $environment.add_filter(concat!("\0", $name), $filter);
        $environment.add_filter($name, |state: &mut State, arguments: Rest<ValueOrKwargs>| {
            measured($name, &arguments.into_values(), |values| state.apply_filter(concat!("\0", $name), values))
        });
    )+};
}

/// Bounds the steps, and wraps filters and methods that allocate what they are asked for.
pub(super) fn bound(environment: &mut Environment<'_>) {
    environment.set_fuel(Some(MAX_STEPS));
    environment.add_function(CHECK, within_bounds);
    environment.add_filter(TEXT, |value: &Value| {
        measure("~", value).map(|_| python_methods::string(value))
    });
    // Initial values of a namespace are assigned to its attributes.
    environment.add_function("namespace", |defaults: Option<ValueOrKwargs>| {
        let defaults = defaults
            .map(|defaults| within_bounds(defaults.into_value(), false))
            .transpose()?;
        functions::namespace(defaults.map(ValueOrKwargs::from))
    });
    measured!(environment:
        "join" python_methods::join, "replace" python_methods::replace, "string" python_methods::string, "list" filters::list, "sort" filters::sort,
        "reverse" filters::reverse, "unique" filters::unique, "map" filters::map, "select" filters::select, "reject" filters::reject,
        "selectattr" filters::selectattr, "rejectattr" filters::rejectattr, "groupby" filters::groupby, "sum" filters::sum,
        "dictsort" filters::dictsort, "escape" filters::escape, "e" filters::escape,
        "upper" filters::upper, "lower" filters::lower, "split" filters::split, "lines" filters::lines, "min" filters::min, "max" filters::max,
    );
    environment.add_filter("indent", indent);
    environment.add_filter(
        "batch",
        |state: &State, value: Value, count: usize, fill: Option<Value>| {
            within("batch", count)
                .and_then(|()| measure("batch", &value))
                .and_then(|_| filters::batch(state, value, count, fill))
        },
    );
    environment.add_filter(
        "slice",
        |state: &State, value: Value, count: usize, fill: Option<Value>| {
            within("slice", count)
                .and_then(|()| measure("slice", &value))
                .and_then(|_| filters::slice(state, value, count, fill))
        },
    );
    environment.add_filter(
        "format",
        |state: &mut State, text: &Value, arguments: Rest<ValueOrKwargs>| {
            let numbers: Vec<Value> = arguments
                .iter()
                .map(|argument| Value::clone(argument))
                .collect();
            widths_within(text.as_str().unwrap_or_default(), &numbers)?;
            numbers
                .iter()
                .try_for_each(|number| measure("format", number).map(|_| ()))?;
            let made = filters::format(state, text, arguments)?;
            measure("format", &made).map(|_| made)
        },
    );
    // The engine's own test divides by zero and panics.
    environment.add_test("divisibleby", |value: i128, by: i128| {
        value
            .checked_rem(by)
            .map(|rest| rest == 0)
            .ok_or_else(|| refuse(format!("divisibleby: cannot divide {value} by {by}")))
    });
    let length = |value: &Value| {
        if value.is_undefined() {
            Ok(0)
        } else {
            filters::length(value)
        }
    };
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("default", python_methods::default);
    environment.add_filter("d", python_methods::default);
    environment.add_test("iterable", |value: &Value| {
        !value.is_none() && !is_namespace(value) && value.try_iter().is_ok()
    });
    environment.add_test("sequence", |value: &Value| {
        let is_sequence = matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::Map | ValueKind::String
        );
        value.is_undefined() || (is_sequence && !is_namespace(value))
    });
    // Debugging aids that take hours on deeply nested values.
    environment.remove_filter("pprint");
    environment.remove_global("debug");
    environment.set_unknown_method_callback(|state, value, method, arguments| {
        if method == "format" {
            widths_within(value.as_str().unwrap_or_default(), arguments)?;
        }
        if method == SLICE {
            // Copies the top level of the list or text.
            let text_bytes = value.as_str().map_or(0, str::len);
            match value.len() {
                _ if text_bytes > 0 => count("slice", 1, text_bytes)?,
                Some(items) => count("slice", items, 0)?,
                None => measure("slice", value).map(|_| ())?,
            }
            return python_methods::slice(value, arguments);
        }
        let values: Vec<Value> = std::iter::once(value).chain(arguments).cloned().collect();
        measured(method, &values, |_| {
            python_methods::call(state, value, method, arguments)
        })
    });
}

/// Runs the engine on a thread with a deep stack; a panic becomes an error.
pub(super) fn caught<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let joined = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("chat template".to_owned())
            .stack_size(DEEP_STACK_BYTES);
        thread
            .spawn_scoped(scope, || catch_panic(work))
            .map(std::thread::ScopedJoinHandle::join)
    });
    let outcome = joined.map_err(|error| refuse(format!("no thread to render it on: {error}")))?;
    outcome.flatten().unwrap_or_else(|cause| {
        let message = panic_message(cause.as_ref()).unwrap_or("no message");
        Err(refuse(format!("the template engine failed: {message}")))
    })
}

/// Measures a filter's or method's input (receiver first) and output.
fn measured(
    name: &str,
    values: &[Value],
    apply: impl FnOnce(&[Value]) -> Result<Value, Error>,
) -> Result<Value, Error> {
    let mut sizes = Vec::with_capacity(values.len());
    let mut stored = Vec::with_capacity(values.len());
    for value in values {
        let mut bounds = Bounds::for_name(name);
        // Values inside a filter's result (`groupby`) cannot be replaced there.
        stored.push(bounds.stored(value.clone(), 0)?);
        sizes.push(bounds.items);
    }
    let text = |place: usize| {
        values
            .get(place)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let items = |place: usize| sizes.get(place).copied().unwrap_or(0);
    let expected = match name {
        // Method: the receiver is the separator.
        "join" if values.first().is_some_and(|value| value.as_str().is_some()) => {
            text(0).len().saturating_mul(items(1))
        }
        "join" => text(1).len().saturating_mul(items(0)),
        "replace" if text(1).is_empty() => text(2).len().saturating_mul(text(0).len() + 1),
        "replace" => text(2)
            .len()
            .saturating_mul(text(0).matches(text(1)).count()),
        _ => 0,
    };
    if expected > MAX_PROMPT_BYTES {
        return Err(refuse(format!(
            "{name}: a text of more than {} MiB",
            MAX_PROMPT_BYTES >> 20
        )));
    }
    let made = apply(&stored)?;
    measure(name, &made).map(|_| made)
}

/// Counts printed text, since blocks and macros capture it in memory.
pub(super) fn count_printed(value: &Value) -> Result<(), Error> {
    let size = if matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable
    ) {
        // With quotes, commas and brackets.
        let size = measure("print", value)?;
        size.text_bytes + 4 * size.items
    } else {
        value.as_str().map_or(0, str::len)
    };
    let printed = PRINTED.get() + size;
    PRINTED.set(printed);
    if printed <= MAX_TEXT_BYTES {
        Ok(())
    } else {
        Err(refuse(format!(
            "more than {} MiB are printed",
            MAX_TEXT_BYTES >> 20
        )))
    }
}

/// Checks an assigned value for bounded time and stack, and returns it as stored. A namespace in an
/// attribute could contain itself.
fn within_bounds(value: Value, to_attribute: bool) -> Result<Value, Error> {
    Bounds {
        refuse_namespaces: to_attribute,
        ..Bounds::for_name("set")
    }
    .stored(value, 0)
}

fn measure<'n>(name: &'n str, value: &Value) -> Result<Bounds<'n>, Error> {
    let mut bounds = Bounds::for_name(name);
    bounds.measure(value, 0).map(|_| bounds)
}

/// Adds to the prompt's totals; `name` is the user in messages.
fn count(name: &str, items: usize, text_bytes: usize) -> Result<(), Error> {
    ITEMS.set(ITEMS.get() + items);
    WORKED.set(WORKED.get() + text_bytes);
    if ITEMS.get() > MAX_ITEMS {
        return Err(refuse(format!(
            "{name}: the values of one prompt have more than {MAX_ITEMS} items"
        )));
    }
    if WORKED.get() > MAX_VALUE_BYTES {
        return Err(refuse(format!(
            "{name}: the values of one prompt have more than {} MiB of text",
            MAX_VALUE_BYTES >> 20
        )));
    }
    Ok(())
}

fn type_of(value: &Value) -> &'static str {
    value.as_object().map_or("", |object| object.type_name())
}

/// Limits on the values of one prompt.
struct Bounds<'n> {
    name: &'n str,
    text_bytes: usize,
    items: usize,
    refuse_namespaces: bool,
}

impl<'n> Bounds<'n> {
    fn for_name(name: &'n str) -> Self {
        Self {
            name,
            text_bytes: 0,
            items: 0,
            refuse_namespaces: false,
        }
    }

    /// Measures a value and turns lazily computed ones (slices, sums, `chain`) into plain lists or
    /// mappings at all levels. Otherwise a loop could nest them, and each access would traverse all
    /// of them.
    fn stored(&mut self, value: Value, depth: usize) -> Result<Value, Error> {
        self.measure(&value, depth)
            .map(|replaced| replaced.unwrap_or(value))
    }

    /// Counts the value; returns its replacement by [`Bounds::stored`], `None` to keep it.
    fn measure(&mut self, value: &Value, depth: usize) -> Result<Option<Value>, Error> {
        let text_bytes = value.as_str().map_or(0, str::len);
        self.text_bytes += text_bytes;
        self.items += 1;
        let name = self.name;
        if depth > MAX_DEPTH {
            return Err(refuse(format!(
                "{name}: a value nested deeper than {MAX_DEPTH}"
            )));
        }
        if self.text_bytes > MAX_PROMPT_BYTES {
            return Err(refuse(format!(
                "{name}: a value of more than {} MiB",
                MAX_PROMPT_BYTES >> 20
            )));
        }
        count(name, 1, text_bytes)?;
        if self.refuse_namespaces && is_namespace(value) {
            return Err(refuse(
                "set: a namespace cannot be an attribute's value (it could contain itself)"
                    .to_owned(),
            ));
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth),
            ValueKind::Map => self.mapping(value, depth),
            _ => Ok(None),
        }
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<Option<Value>, Error> {
        let is_plain = value.is_tuple() || value.downcast_object_ref::<Vec<Value>>().is_some();
        let mut is_replaced =
            value.kind() == ValueKind::Iterable || type_of(value).ends_with("MergeSeq");
        let mut items = Vec::new();
        for item in value.try_iter()? {
            let replaced = self.measure(&item, depth + 1)?;
            is_replaced |= is_plain && replaced.is_some();
            items.push(replaced.unwrap_or(item));
        }
        Ok(is_replaced.then(|| {
            if value.is_tuple() {
                Value::from(Tuple::new(items))
            } else {
                Value::from(items)
            }
        }))
    }

    fn mapping(&mut self, value: &Value, depth: usize) -> Result<Option<Value>, Error> {
        let is_plain = value.is_kwargs() || type_of(value).contains("Map<");
        let mut is_replaced = type_of(value).ends_with("MergeDict");
        let mut entries = Vec::new();
        for key in value.try_iter()? {
            let item = value.get_item(&key)?;
            // A list can be a key.
            let replaced = (
                self.measure(&key, depth + 1)?,
                self.measure(&item, depth + 1)?,
            );
            is_replaced |= is_plain && (replaced.0.is_some() || replaced.1.is_some());
            entries.push((replaced.0.unwrap_or(key), replaced.1.unwrap_or(item)));
        }
        let named = |(key, item): &(Value, Value)| {
            (key.as_str().unwrap_or_default().to_owned(), item.clone())
        };
        Ok(is_replaced.then(|| {
            if value.is_kwargs() {
                entries.iter().map(named).collect::<Kwargs>().into()
            } else {
                Value::from_pairs(entries)
            }
        }))
    }
}

/// Jinja's `indent`: keeps a trailing line break and accepts text as `width`.
fn indent(
    text: StringInput<'_>,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<String, Error> {
    let width = or_named(width, &named, "width")?;
    let first = or_named(first, &named, "first")?.unwrap_or(false);
    let blank = or_named(blank, &named, "blank")?.unwrap_or(false);
    named.assert_all_used()?;
    let unit = match width {
        None => " ".repeat(4),
        Some(width) => match (width.as_str(), width.as_usize()) {
            (Some(unit), _) => unit.to_owned(),
            (None, Some(spaces)) => within("indent", spaces).map(|()| " ".repeat(spaces))?,
            (None, None) => {
                return Err(refuse(format!(
                    "indent: `width` is {width}; it is a number or a text"
                )));
            }
        },
    };
    let text = text.as_str().replace("\r\n", "\n");
    let is_line_break = |character: char| {
        matches!(
            character,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    if text.len()
        + unit
            .len()
            .saturating_mul(text.matches(is_line_break).count() + 1)
        > MAX_PROMPT_BYTES
    {
        return Err(refuse(format!(
            "indent: a text of more than {} MiB",
            MAX_PROMPT_BYTES >> 20
        )));
    }
    let line = |(index, line): (usize, &str)| {
        let is_indented = if index == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        if is_indented {
            format!("{unit}{line}")
        } else {
            line.to_owned()
        }
    };
    Ok(text
        .split(is_line_break)
        .enumerate()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n"))
}

fn within(filter: &str, width: usize) -> Result<(), Error> {
    if width <= MAX_WIDTH {
        return Ok(());
    }
    Err(refuse(format!(
        "{filter}: {width} is too many; at most {MAX_WIDTH}"
    )))
}

fn refuse(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

/// Widths and precisions are digits, or `*` with an argument.
fn widths_within(format: &str, arguments: &[Value]) -> Result<(), Error> {
    let digits = format
        .split(|character: char| !character.is_ascii_digit())
        .map(|run| run.trim_start_matches('0'));
    let longest = digits.max_by_key(|run| run.len()).unwrap_or_default();
    if longest.len() > 4 {
        return Err(refuse(format!(
            "format: {longest} is too wide; at most {MAX_WIDTH}"
        )));
    }
    let starred = format.contains('*');
    let widest = arguments
        .iter()
        .filter_map(Value::as_usize)
        .max()
        .filter(|_| starred);
    within("format", widest.unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{ChatTemplate, Thinking};

    #[track_caller]
    fn check(source: &str, expected: &str) {
        let template = ChatTemplate::new(source, Vec::new(), "t.jinja").unwrap();
        let messages = serde_json::json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        assert_eq!(
            template
                .render_json(&messages, &serde_json::Value::Null, Some(Thinking::Off))
                .unwrap(),
            expected,
            "{source}"
        );
    }

    /// `is sequence` distinguishes lists from lazily computed values.
    #[test]
    fn what_is_assigned_is_a_plain_list_or_mapping() {
        let three = "[1, 2, 3]";
        check(
            &format!("{{% set x = {three}[::-1] %}}{{{{ x is sequence }}}} {{{{ x }}}}"),
            "True [3, 2, 1]",
        );
        check(
            &format!("{{% set x = {three} + [4] %}}{{{{ x is sequence }}}} {{{{ x[-1] }}}}"),
            "True 4",
        );
        check(
            "{% set x = [0] * 3 %}{{ x is sequence }} {{ x }}",
            "True [0, 0, 0]",
        );
        check(
            "{% set x = messages[1:] %}{{ x is sequence }} {{ x | length }} {{ x[0].content }}",
            "True 1 b",
        );
        check(
            "{% set x = {'a': 1}.items() %}{{ x is sequence }}{% for k, v in x %} {{ k }}={{ v }}{% endfor %}",
            "True a=1",
        );
        check(
            &format!("{{% set x = [{three}[::-1]] %}}{{{{ x[0] is sequence }}}} {{{{ x }}}}"),
            "True [[3, 2, 1]]",
        );
        check(
            &format!("{{% set x = ({three}[1:], 1) %}}{{{{ x[0] is sequence }}}} {{{{ x }}}}"),
            "True ([2, 3], 1)",
        );
        check(
            &format!(
                "{{% set x = {{'k': {three}[1:]}} %}}{{{{ x.k is sequence }}}} {{{{ x | tojson }}}}"
            ),
            "True {\"k\": [2, 3]}",
        );
        check(
            &format!("{{% set x = {{{three}[1:]: 1}} %}}{{{{ (x | first) is sequence }}}}"),
            "True",
        );
        check(
            &format!("{{% set x = dict(k={three}[1:]) %}}{{{{ x.k is sequence }}}} {{{{ x.k }}}}"),
            "True [2, 3]",
        );
        check(
            &format!(
                "{{% set ns = namespace(x={three}[1:]) %}}{{{{ ns.x is sequence }}}} {{{{ ns.x }}}}"
            ),
            "True [2, 3]",
        );
        check(
            &format!("{{% set ns = namespace({{'x': {three}[1:]}}) %}}{{{{ ns.x is sequence }}}}"),
            "True",
        );
        check(
            &format!("{{% with x = {three}[1:] %}}{{{{ x is sequence }}}}{{% endwith %}}"),
            "True",
        );
        check(
            &format!("{{% for x in [{three}[1:]] %}}{{{{ x is sequence }}}}{{% endfor %}}"),
            "True",
        );
        check(
            "{% set x = {'a': 1} | chain({'b': 2}) %}{{ x.a + x.b }} {{ x is mapping }}",
            "3 True",
        );
        // The engine's own objects are kept, and their contents are plain.
        check(
            "{% set ns = namespace() %}{% set other = namespace(x=ns) %}{% set other.x.y = 1 %}{{ ns.y }}",
            "1",
        );
        check(
            "{% for group in messages | groupby('role') %}{{ group.grouper }} {{ group.list | length }} {% endfor %}",
            "assistant 1 user 1 ",
        );
        let groups = format!("{{% set x = [{{'k': 1, 'v': {three}[1:]}}] | groupby('k') %}}");
        check(
            &format!("{groups}{{{{ x[0].list[0].v is sequence }}}} {{{{ x[0].grouper }}}}"),
            "True 1",
        );
        check(
            "{{ ['a', 'b'][::-1] | join(', ') }} {{ [[2, 1][::-1]] | map('first') | join }}",
            "b, a 1",
        );
    }

    /// Each turn wraps the last value in a slice, sum or `chain`; access must not grow with the
    /// turns.
    #[test]
    fn values_made_in_a_loop_do_not_nest() {
        let turns = |first: &str, next: &str, last: &str| {
            format!(
                "{{% set ns = namespace(x={first}) %}}{{% for i in range(5000) %}}{{% set ns.x = {next} %}}{{% endfor %}}{{{{ {last} }}}}"
            )
        };
        check(
            &turns("range(200)", "ns.x[::-1]", "(ns.x is sequence, ns.x[0])"),
            "(True, 0)",
        );
        check(
            &turns(
                "range(200)",
                "ns.x | reverse",
                "(ns.x is sequence, ns.x[0])",
            ),
            "(True, 0)",
        );
        check(
            &turns(
                "[range(200)]",
                "[ns.x[0][::-1]]",
                "(ns.x[0] is sequence, ns.x[0][0])",
            ),
            "(True, 0)",
        );
        check(
            &turns(
                "{'k': range(200)}",
                "{'k': ns.x.k[::-1]}",
                "(ns.x.k is sequence, ns.x.k[0])",
            ),
            "(True, 0)",
        );
        check(&turns("{'k': 1}", "ns.x | chain({})", "ns.x"), "{'k': 1}");
        check(&turns("[1]", "ns.x | chain([])", "ns.x"), "[1]");
        let sets = "{% set ns = namespace(x=ns.x[::-1]) %}".repeat(5_000);
        check(
            &format!(
                "{{% set ns = namespace(x=range(200)) %}}{sets}{{{{ (ns.x is sequence, ns.x[0]) }}}}"
            ),
            "(True, 0)",
        );
    }
}
