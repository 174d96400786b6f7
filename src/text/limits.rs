//! What a chat template may ask for: it comes with a model, so it must not hang the program, end it or fill the memory.

use std::cell::Cell;

use minijinja::value::{Kwargs, Rest, StringInput, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

use super::template_source::CHECK;

/// The longest prompt text that a template may make; no model reads as much.
pub const LONGEST_PROMPT_BYTES: usize = 16 << 20;

/// Steps of the template engine for one prompt. A conversation of a thousand turns needs less; an endless template stops here. A step adds a level to a
/// value at most, and [`DEEP_STACK_BYTES`] hold so many levels.
pub(super) const MOST_STEPS: u64 = 100_000;

/// Widths, counts and precisions beyond this are refused: the engine reserves the memory at once.
const WIDEST: usize = 9_999;

/// The stack on which the engine works: it descends once for each operator, branch and level of a value. Only what is used takes memory.
const DEEP_STACK_BYTES: usize = 1 << 28;

/// The deepest value that may be assigned; Python's own limit is not much further.
const DEEPEST: usize = 200;
/// The most items, at all levels, of the values that one prompt assigns.
const MOST_ITEMS: usize = 5_000_000;
/// The most text that one prompt may print or capture, and the longest that it may assign.
const MOST_TEXT_BYTES: usize = 4 * LONGEST_PROMPT_BYTES;

thread_local! {
    /// Items looked at and bytes printed on this thread, which renders one prompt.
    static ITEMS: Cell<usize> = const { Cell::new(0) };
    static PRINTED: Cell<usize> = const { Cell::new(0) };
}

/// A prompt while it is written; it stops at [`LONGEST_PROMPT_BYTES`].
#[derive(Default)]
pub(super) struct BoundedPrompt {
    pub(super) bytes: Vec<u8>,
    /// More was written than fits.
    pub(super) full: bool,
}

impl std::io::Write for BoundedPrompt {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        self.full |= self.bytes.len() + part.len() > LONGEST_PROMPT_BYTES;
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

/// Bounds the steps, and puts bounds before the engine's filters and methods that reserve what they are asked for.
pub(super) fn bound(environment: &mut Environment<'_>) {
    environment.set_fuel(Some(MOST_STEPS));
    environment.add_function(CHECK, within_bounds);
    environment.add_filter("indent", indent);
    environment.add_filter("batch", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        within("batch", count).and_then(|()| filters::batch(state, value, count, fill))
    });
    environment.add_filter("slice", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        within("slice", count).and_then(|()| filters::slice(state, value, count, fill))
    });
    environment.add_filter("format", |state: &mut State, text: &Value, arguments: Rest<ValueOrKwargs>| {
        let numbers: Vec<Value> = arguments.iter().map(|argument| Value::clone(argument)).collect();
        widths_within(text.as_str().unwrap_or_default(), &numbers)?;
        filters::format(state, text, arguments)
    });
    // The engine's own test divides without looking and panics.
    environment.add_test("divisibleby", |value: i128, by: i128| {
        value.checked_rem(by).map(|rest| rest == 0).ok_or_else(|| refuse(format!("divisibleby: cannot divide {value} by {by}")))
    });
    // Made for looking into a template; on deeply nested values they take hours.
    environment.remove_filter("pprint");
    environment.remove_global("debug");
    environment.set_unknown_method_callback(|state, value, method, arguments| {
        if method == "format" {
            widths_within(value.as_str().unwrap_or_default(), arguments)?;
        }
        minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments)
    });
}

/// Runs the engine on a thread of its own with a deep stack; where it panics (3.0 does at an empty list read backwards), that is an error like any other.
pub(super) fn caught<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let joined = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".to_owned()).stack_size(DEEP_STACK_BYTES);
        thread.spawn_scoped(scope, work).map(std::thread::ScopedJoinHandle::join)
    });
    let outcome = joined.map_err(|error| refuse(format!("no thread to render it on: {error}")))?;
    outcome.unwrap_or_else(|cause| {
        let message = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
        Err(refuse(format!("the template engine failed: {}", message.unwrap_or("it does not say why"))))
    })
}

/// Counts what is printed: blocks and macros capture it in memory.
pub(super) fn count_printed(value: &Value) -> Result<(), Error> {
    let printed = PRINTED.get() + value.as_str().map_or(0, str::len);
    PRINTED.set(printed);
    if printed <= MOST_TEXT_BYTES { Ok(()) } else { Err(refuse(format!("more than {} MiB are printed", MOST_TEXT_BYTES >> 20))) }
}

/// The value that a template assigns, if it can be printed and compared in bounded time and stack. A namespace held by an attribute could hold itself.
fn within_bounds(value: Value, to_attribute: bool) -> Result<Value, Error> {
    let mut bounds = Bounds { text_bytes: 0, refuse_namespaces: to_attribute };
    bounds.measure(&value, 0).map(|()| value)
}

fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace"))
}

struct Bounds {
    text_bytes: usize,
    refuse_namespaces: bool,
}

impl Bounds {
    fn measure(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        ITEMS.set(ITEMS.get() + 1);
        self.text_bytes += value.as_str().map_or(0, str::len);
        if depth > DEEPEST {
            return Err(refuse(format!("set: a value nested deeper than {DEEPEST}")));
        }
        if self.text_bytes > LONGEST_PROMPT_BYTES {
            return Err(refuse(format!("set: a value of more than {} MiB", LONGEST_PROMPT_BYTES >> 20)));
        }
        if ITEMS.get() > MOST_ITEMS {
            return Err(refuse(format!("set: the values assigned have more than {MOST_ITEMS} items")));
        }
        if self.refuse_namespaces && is_namespace(value) {
            return Err(refuse("set: a namespace cannot be an attribute's value: it could hold itself".to_owned()));
        }
        let kind = value.kind();
        if matches!(kind, ValueKind::Seq | ValueKind::Map) {
            for item in value.try_iter()? {
                let held = if kind == ValueKind::Map { value.get_item(&item)? } else { item };
                self.measure(&held, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn indent(text: StringInput<'_>, width: Option<usize>, first: Option<bool>, blank: Option<bool>, named: Kwargs) -> Result<Value, Error> {
    let asked = match width {
        Some(width) => width,
        None => named.peek::<Option<usize>>("width")?.unwrap_or(0),
    };
    within("indent", asked)?;
    filters::indent(text, width, first, blank, named)
}

fn within(filter: &str, asked: usize) -> Result<(), Error> {
    if asked <= WIDEST {
        return Ok(());
    }
    Err(refuse(format!("{filter}: {asked} is too many; at most {WIDEST}")))
}

fn refuse(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

/// Widths and precisions stand in a format as digits, or as `*` and then among the arguments.
fn widths_within(format: &str, arguments: &[Value]) -> Result<(), Error> {
    let digits = format.split(|character: char| !character.is_ascii_digit()).map(|run| run.trim_start_matches('0'));
    let longest = digits.max_by_key(|run| run.len()).unwrap_or_default();
    if longest.len() > 4 {
        return Err(refuse(format!("format: {longest} is too wide; at most {WIDEST}")));
    }
    let starred = format.contains('*');
    let widest = arguments.iter().filter_map(Value::as_usize).max().filter(|_| starred);
    within("format", widest.unwrap_or(0))
}
