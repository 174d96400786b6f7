//! Compiles a generator's templates: strict about unknown names, with the filters `json` and
//! `group`.

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::specification::Specification;

/// Names templates by their place: `layouts.receipt.1`, `habits.fence`, `prompt`.
pub(super) fn compile(specification: &Specification) -> Result<Environment<'static>, String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.add_filter("json", json);
    environment.add_filter("group", group);
    let mut add = |name: String, template: &str| {
        environment
            .add_template_owned(name.clone(), template.to_owned())
            .map_err(|error| format!("{name}: {error}"))
    };
    let Specification {
        prompt,
        answer,
        expected,
        dates,
        amounts,
        ..
    } = specification;
    for (name, template) in [
        ("prompt", Some(prompt)),
        ("answer", answer.as_ref()),
        ("expected", expected.as_ref()),
    ] {
        template.map_or(Ok(()), |template| add(name.into(), template))?;
    }
    for (place, template) in dates.iter().flat_map(|dates| &dates.formats).enumerate() {
        add(format!("dates.formats.{place}"), template)?;
    }
    let formats = amounts
        .iter()
        .flat_map(|amounts| &amounts.formats)
        .map(|entry| ("amounts.formats", entry));
    let habits = specification.habits.iter().map(|entry| ("habits", entry));
    let answers = specification.answers.iter().map(|entry| ("answers", entry));
    for (table, (name, template)) in habits.chain(answers).chain(formats) {
        add(format!("{table}.{name}"), template)?;
    }
    for (answer, fields) in &specification.row_fields {
        for (name, template) in fields {
            add(format!("row_fields.{answer}.{name}"), template)?;
        }
    }
    for (table, lists) in [
        ("fields", &specification.fields),
        ("layouts", &specification.layouts),
    ] {
        for (name, templates) in lists {
            for (place, template) in templates.iter().enumerate() {
                add(format!("{table}.{name}.{place}"), template)?;
            }
        }
    }
    Ok(environment)
}

/// A JSON string without HTML escapes, unlike minijinja's `tojson`.
fn json(text: &str) -> Result<String, Error> {
    serde_json::to_string(text)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Groups digits by three: `1234567 | group(",")` is `1,234,567`.
fn group(number: &Value, separator: &str) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push_str(separator);
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_grouped_by_three() {
        for (number, expected) in [
            (7, "7"),
            (123, "123"),
            (1234, "1,234"),
            (12345, "12,345"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(super::group(&number.into(), ","), expected);
        }
    }
}
