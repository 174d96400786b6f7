//! Code and SQL in values of JSON, as they are written: JSON has them on one line, with escapes.

use serde_json::Value;

pub fn block(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| text.contains('\n'))
}

/// A value in lines after its name: `total: 12`; a text that JSON would escape is as it is, of several lines below.
pub fn named(name: &str, value: &Value) -> Vec<String> {
    if let Some(text) = block(value) {
        let lines = text.lines().map(|line| format!("  {line}"));
        return std::iter::once(format!("{name}:")).chain(lines).collect();
    }
    let json = value.to_string();
    match value.as_str().filter(|_| json.contains('\\')) {
        Some(text) => vec![format!("{name}: {text}")],
        None => vec![format!("{name}: {json}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_not_escaped() {
        for (value, expected) in [
            (Value::from(12), &["a: 12"][..]),
            (Value::from("12"), &["a: \"12\""]),
            (Value::from("SELECT \"b\""), &["a: SELECT \"b\""]),
            (Value::from("if x:\n\ty()\n"), &["a:", "  if x:", "  \ty()"]),
        ] {
            assert_eq!(named("a", &value), expected);
        }
    }
}
