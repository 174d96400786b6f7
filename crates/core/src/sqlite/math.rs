//! SQLite's mathematical functions, which the library has only with a compile flag that a manifest
//! cannot set: registered here, so that queries do not depend on the build.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Result};

type OfOne = fn(f64) -> f64;
type OfTwo = fn(f64, f64) -> f64;

const OF_ONE: [(&str, OfOne); 19] = [
    ("acos", f64::acos),
    ("acosh", f64::acosh),
    ("asin", f64::asin),
    ("asinh", f64::asinh),
    ("atan", f64::atan),
    ("atanh", f64::atanh),
    ("cos", f64::cos),
    ("cosh", f64::cosh),
    ("degrees", f64::to_degrees),
    ("exp", f64::exp),
    ("ln", f64::ln),
    ("log10", f64::log10),
    ("log2", f64::log2),
    ("radians", f64::to_radians),
    ("sin", f64::sin),
    ("sinh", f64::sinh),
    ("sqrt", f64::sqrt),
    ("tan", f64::tan),
    ("tanh", f64::tanh),
];
/// Integers stay integers.
const ROUNDING: [(&str, OfOne); 4] = [
    ("ceil", f64::ceil),
    ("ceiling", f64::ceil),
    ("floor", f64::floor),
    ("trunc", f64::trunc),
];
const OF_TWO: [(&str, OfTwo); 4] = [
    ("atan2", f64::atan2),
    ("mod", |a, b| a % b),
    ("pow", f64::powf),
    ("power", f64::powf),
];

pub(super) fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    for (name, function) in OF_ONE {
        let is_logarithm = name.starts_with('l');
        connection.create_scalar_function(name, 1, flags, move |context| {
            let number = number(context, 0).filter(|number| !is_logarithm || *number > 0.0);
            Ok(number.map(function))
        })?;
    }
    for (name, function) in ROUNDING {
        connection.create_scalar_function(name, 1, flags, move |context| {
            Ok(match numeric(context, 0) {
                Some(Value::Real(number)) => Value::Real(function(number)),
                whole => whole.unwrap_or(Value::Null),
            })
        })?;
    }
    for (name, function) in OF_TWO {
        connection.create_scalar_function(name, 2, flags, move |context| {
            Ok(number(context, 0)
                .zip(number(context, 1))
                .map(|(a, b)| function(a, b)))
        })?;
    }
    connection.create_scalar_function("log", 1, flags, |context| {
        let number = number(context, 0).filter(|number| *number > 0.0);
        Ok(number.map(f64::log10))
    })?;
    connection.create_scalar_function("log", 2, flags, |context| {
        let positive = |index| number(context, index).filter(|number| *number > 0.0);
        let base = positive(0).map(f64::ln).filter(|base| *base > 0.0);
        Ok(base
            .zip(positive(1))
            .map(|(base, number)| number.ln() / base))
    })?;
    connection.create_scalar_function("pi", 0, flags, |_| Ok(std::f64::consts::PI))
}

fn number(context: &Context<'_>, index: usize) -> Option<f64> {
    match numeric(context, index)? {
        Value::Integer(number) => Some(number as f64),
        Value::Real(number) => Some(number),
        _ => None,
    }
}

fn numeric(context: &Context<'_>, index: usize) -> Option<Value> {
    match context.get_raw(index) {
        ValueRef::Integer(number) => Some(Value::Integer(number)),
        ValueRef::Real(number) => Some(Value::Real(number)),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).ok()?.trim_ascii();
            if let Ok(number) = text.parse() {
                return Some(Value::Integer(number));
            }
            let is_written = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
            let number = text.bytes().all(is_written).then_some(text)?;
            number.parse().ok().map(Value::Real)
        }
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}
