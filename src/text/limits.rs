//! What a chat template may ask for: it comes with a model, so it must not hang the program, end it or fill the memory.

use minijinja::value::{Kwargs, Rest, StringInput, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

/// The longest prompt text that a template may make; no model reads as much.
pub const LONGEST_PROMPT_BYTES: usize = 16 << 20;

/// Steps of the template engine for one prompt. A conversation of a thousand turns needs less; an endless template stops here, and so does one that nests
/// lists deeper than the stack.
pub(super) const MOST_STEPS: u64 = 100_000;

/// Widths, counts and precisions beyond this are refused: the engine reserves the memory at once.
const WIDEST: usize = 9_999;

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

/// Runs the engine; where it panics (3.0 does at an empty list read backwards), that is an error like any other.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // Nothing is used again after a panic: the values belong to this one prompt, and the environment is only read.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|cause| {
        let message = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
        Err(refuse(format!("the template engine failed: {}", message.unwrap_or("it does not say why"))))
    })
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
