//! What a field's name says before any label: words that stand before its value, and the forms that it may have.

use std::collections::BTreeSet;

use super::fields::{Field, FieldKind, Form};
use super::ranker::{Feature, feature};

/// Words of names that mean the same.
const SAME: [&[&str]; 6] = [
    &[
        "vendor", "seller", "supplier", "from", "merchant", "company", "issuer", "payee", "biller",
        "store", "shop",
    ],
    &["buyer", "customer", "client", "to", "recipient"],
    &[
        "amount", "total", "sum", "due", "payable", "price", "cost", "value", "charge", "charged",
        "balance",
    ],
    &["date", "dated", "on", "day", "issued", "of"],
    &["number", "no", "id", "ref", "reference", "code"],
    &["address", "street", "location", "at"],
];

/// Words of a name, in lower case: of `invoiceDate` and `invoice_date` the same.
fn words_of(field: &Field) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut was_lower = false;
    for letter in field.path.last().into_iter().flat_map(|name| name.chars()) {
        let begins = !letter.is_alphanumeric() || (letter.is_uppercase() && was_lower);
        was_lower = letter.is_lowercase();
        if begins || words.is_empty() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| letter.is_alphanumeric()) {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Weights of features that the name makes likely.
pub(super) fn known(field: &Field) -> Vec<(Feature, f32)> {
    let own = words_of(field);
    // Three digits after a comma are thousands, unless labels say otherwise.
    let separators = [(", 3 true", -2.0), (", 3 false", 2.0), (". 3 false", -1.0)];
    let mut found: Vec<(Feature, f32)> = separators
        .map(|(how, weight)| (feature("separators", how), weight))
        .to_vec();
    for word in &own {
        let same = SAME
            .iter()
            .filter(|words| words.contains(&word.as_str()))
            .flat_map(|words| words.iter().copied());
        let others: BTreeSet<&str> = same.filter(|other| *other != word).collect();
        for (word, weight) in
            std::iter::once((word.as_str(), 2.0)).chain(others.into_iter().map(|word| (word, 1.0)))
        {
            found.push((feature("word before", word), weight));
            found.push((feature("second word before", word), weight / 2.0));
            found.push((feature("in line", word), weight / 4.0));
        }
    }
    found
}

/// The forms to try without labels.
pub(super) fn forms(field: &Field) -> BTreeSet<Form> {
    let words = words_of(field);
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
    let form = match field.kind {
        FieldKind::Number => Form::Number,
        FieldKind::Listed(_) => Form::Listed,
        FieldKind::Text if has(&["date", "day"]) => Form::Date(0),
        FieldKind::Text if has(&["currency"]) => Form::Currency,
        FieldKind::Text if has(SAME[2]) => Form::Cents,
        FieldKind::Text => Form::AsWritten,
    };
    BTreeSet::from([form])
}
