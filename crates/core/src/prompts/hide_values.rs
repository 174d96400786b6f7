//! Rows whose prompt no longer states a value, and whose `expected` is null there: what a model must
//! learn not to make up.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};

use crate::dataset::{PromptRow, expected_target, has_own_schema, mix, text_hash};
use crate::score::{Scorer, StatedLeaf, StatedValue, Task, Tier, mentions, values_of};

/// Added to the tags of a changed row, so that its rates are told apart.
pub const HIDDEN_TAG: &str = "hidden";
/// Mentions of one value that are removed.
const MAX_MENTIONS: usize = 50;
/// Words of a label.
const MAX_LABEL_WORDS: usize = 4;
/// Words that say nothing without the value after them.
const PREPOSITIONS: [&str; 13] = [
    "from", "dated", "on", "of", "for", "by", "at", "to", "in", "since", "until", "till", "with",
];

/// A field to hide, and in which share of the rows that expect a value there.
#[derive(Debug, Clone, PartialEq)]
pub struct HiddenField {
    pub path: String,
    pub share: f64,
}

/// What became of the rows of a set.
#[derive(Debug, Default)]
pub struct HiddenRows {
    /// Changed rows by line of the file, as they are written.
    pub rows: BTreeMap<usize, serde_json::Map<String, Value>>,
    pub fields: Vec<FieldReport>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct FieldReport {
    pub field: String,
    /// Rows that expect a value there.
    pub expecting: usize,
    pub wanted: usize,
    pub hidden: usize,
    /// Why others cannot be changed: reason, rows, line of the first.
    pub left_alone: Vec<(String, usize, usize)>,
}

/// Hides values in a set's rows; `seed` decides in which.
///
/// # Errors
/// A field that no row expects, or that may not be null.
pub fn hide_values(
    task: &Task,
    scorer: &Scorer,
    rows: &[PromptRow],
    fields: &[HiddenField],
    seed: u64,
) -> Result<HiddenRows, String> {
    let mut current: Vec<PromptRow> = rows.to_vec();
    let mut found = HiddenRows::default();
    let mut changed: Vec<bool> = vec![false; rows.len()];
    for HiddenField { path, share } in fields {
        let hide = Hide {
            task,
            scorer,
            path: names(path),
        };
        let expecting: Vec<usize> = (0..current.len())
            .filter(|place| !hide.values(&current[*place]).is_empty())
            .collect();
        let Some(first) = expecting.first() else {
            return Err(format!(
                "no row expects a value at {path}; fields: {}",
                known(rows)
            ));
        };
        hide.check_schema(&current[*first], path)?;
        let mut tried: Vec<(usize, PromptRow)> = Vec::new();
        let mut left_alone: Vec<(String, usize, usize)> = Vec::new();
        for place in &expecting {
            match hide.hidden(&current[*place]) {
                Ok(row) => tried.push((*place, row)),
                Err(why) => match left_alone.iter_mut().find(|(known, ..)| *known == why) {
                    Some((_, count, _)) => *count += 1,
                    None => left_alone.push((why, 1, current[*place].line)),
                },
            }
        }
        let order = |(_, row): &(usize, PromptRow)| {
            mix(text_hash(&row.id) ^ mix(text_hash(path) ^ mix(seed)))
        };
        tried.sort_by_cached_key(order);
        let wanted = (share * expecting.len() as f64).round() as usize;
        let chosen: Vec<_> = tried.into_iter().take(wanted).collect();
        found.fields.push(FieldReport {
            field: path.clone(),
            expecting: expecting.len(),
            wanted,
            hidden: chosen.len(),
            left_alone,
        });
        for (place, row) in chosen {
            current[place] = row;
            changed[place] = true;
        }
    }
    let rows = current
        .into_iter()
        .zip(changed)
        .filter(|(_, changed)| *changed);
    found.rows = rows.map(|(row, _)| (row.line, written(&row))).collect();
    Ok(found)
}

fn names(path: &str) -> Vec<String> {
    let names = path.split('.').filter(|name| *name != "*");
    names.map(str::to_owned).collect()
}

fn known(rows: &[PromptRow]) -> String {
    let target = rows.iter().find_map(|row| row.expected.as_ref());
    let values = target.map(|expected| values_of(&expected_target(expected)));
    let mut paths: Vec<String> = Vec::new();
    for value in values.unwrap_or_default() {
        let path = value.path.join(".");
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths.join(", ")
}

/// The row as written, with what was changed.
fn written(row: &PromptRow) -> serde_json::Map<String, Value> {
    let mut fields = row.fields.whole();
    if let Some(messages) = fields.get_mut("messages").and_then(Value::as_array_mut) {
        for (message, turn) in messages.iter_mut().zip(&row.messages) {
            if message["content"].is_string() {
                message["content"] = json!(turn.content);
            }
        }
    }
    fields.insert("expected".to_owned(), json!(row.expected));
    let mut tags = row.tags.clone();
    if !tags.iter().any(|tag| tag == HIDDEN_TAG) {
        tags.push(HIDDEN_TAG.to_owned());
    }
    fields.insert("tags".to_owned(), json!(tags));
    fields
}

struct Hide<'h> {
    task: &'h Task,
    scorer: &'h Scorer,
    path: Vec<String>,
}

impl Hide<'_> {
    /// Pointers and values at the path.
    fn values(&self, row: &PromptRow) -> Vec<(String, StatedLeaf)> {
        let Some(expected) = &row.expected else {
            return Vec::new();
        };
        let values = values_of(&expected_target(expected)).into_iter();
        values
            .filter(|value| value.path == self.path && value.leaf != StatedLeaf::Nothing)
            .map(|value| (value.pointer, value.leaf))
            .collect()
    }

    fn with_null(&self, row: &PromptRow) -> Option<Value> {
        let mut expected = row.expected.clone()?;
        for (pointer, _) in self.values(row) {
            *expected.pointer_mut(&pointer)? = Value::Null;
        }
        Some(expected)
    }

    fn is_valid(&self, expected: &Value, row: &PromptRow) -> bool {
        let text = self.scorer.expected_completion(expected, Some(row));
        text.is_some_and(|text| self.scorer.score_alone((&text, Some(row))).tier == Tier::Valid)
    }

    fn check_schema(&self, row: &PromptRow, path: &str) -> Result<(), String> {
        let is_right = |own: &Value| self.is_valid(own, row);
        let allows = self.with_null(row).is_none_or(|hidden| {
            self.is_valid(&hidden, row) || !row.expected.as_ref().is_some_and(is_right)
        });
        if allows || has_own_schema(row) {
            return Ok(());
        }
        Err(format!(
            "{} allows no null at {path}: write the schema that does with `grpo-tui task audit {} --nullable {path} --write`",
            self.task.label(&self.task.definition_file),
            self.task.name
        ))
    }

    /// The row without its values at the path.
    ///
    /// # Errors
    /// Why it stays as it is.
    fn hidden(&self, row: &PromptRow) -> Result<PromptRow, String> {
        let has = |key: &str| row.fields.get(key).is_some_and(|value| !value.is_null());
        if has("turns") || row.has_demonstration() {
            return Err("it has later turns or a demonstration".to_owned());
        }
        let values = self.values(row);
        let own = row.expected.as_ref();
        let target = own.map(expected_target).unwrap_or_default();
        let same = |(pointer, _): &(String, StatedLeaf)| {
            own.and_then(|own| own.pointer(pointer)) == target.pointer(pointer)
        };
        let expected = self.with_null(row).filter(|_| values.iter().all(same));
        let expected = expected.ok_or("`expected` has several right answers")?;
        let stated = mentions(row);
        let mut others = values_of(&target);
        others.retain(|other| other.path != self.path && !stated(&other.leaf).is_empty());
        let mut hidden = row.clone();
        for (_, leaf) in &values {
            let mut leaves = vec![leaf.clone()];
            leaves.extend(self.aliases(leaf));
            if leaves.iter().all(|leaf| stated(leaf).is_empty()) {
                return Err("the prompt does not state the value".to_owned());
            }
            for leaf in &leaves {
                remove(&mut hidden, &others, leaf)?;
            }
        }
        hidden.expected = Some(expected.clone());
        match self.is_valid(&expected, &hidden) {
            true => Ok(hidden),
            false => Err("its schema allows no null there".to_owned()),
        }
    }

    /// Texts that mean the same by `[score.aliases]`.
    fn aliases(&self, leaf: &StatedLeaf) -> Vec<StatedLeaf> {
        let StatedLeaf::Text(text) = leaf else {
            return Vec::new();
        };
        let groups = self.task.score.leaves.aliases.iter();
        let of_path = groups.filter(|(path, _)| self.path.starts_with(&names(path)));
        of_path
            .flat_map(|(_, groups)| groups)
            .filter(|group| group.contains(text))
            .flatten()
            .filter(|alias| *alias != text)
            .map(|alias| StatedLeaf::Text(alias.clone()))
            .collect()
    }
}

/// Removes every mention of a value from a row that states the others.
fn remove(hidden: &mut PromptRow, others: &[StatedValue], leaf: &StatedLeaf) -> Result<(), String> {
    for _ in 0..MAX_MENTIONS {
        let Some((message, span)) = first_mention(hidden, leaf) else {
            return Ok(());
        };
        let text = hidden.messages[message].content.clone();
        let mut lost = None;
        for removed in without(&text, with_ends(&text, span, leaf)) {
            hidden.messages[message].content = removed;
            let stated = mentions(hidden);
            lost = others.iter().find(|other| stated(&other.leaf).is_empty());
            if lost.is_none() {
                break;
            }
        }
        if let Some(other) = lost {
            return Err(format!("the same text states {}", other.path.join(".")));
        }
    }
    Err("the prompt states the value too often".to_owned())
}

fn first_mention(row: &PromptRow, leaf: &StatedLeaf) -> Option<(usize, Range<usize>)> {
    if let Some(found) = mentions(row)(leaf).into_iter().next() {
        return Some(found);
    }
    // A sign such as `€` has no words.
    let StatedLeaf::Text(sign) = leaf else {
        return None;
    };
    if sign.is_empty() || sign.contains(char::is_alphanumeric) {
        return None;
    }
    let sources = row.messages.iter().enumerate();
    let mut sources = sources.filter(|(_, turn)| matches!(&*turn.role, "user" | "tool"));
    sources.find_map(|(message, turn)| {
        let start = turn.content.find(sign)?;
        Some((message, start..start + sign.len()))
    })
}

/// The text without a value: without its line, if nothing but a label is on it; then, without the
/// value alone.
fn without(text: &str, span: Range<usize>) -> Vec<String> {
    let span = with_quotes(text, span);
    let start = text[..span.start].rfind('\n').map_or(0, |end| end + 1);
    let end = text[span.end..]
        .find('\n')
        .map_or(text.len(), |end| span.end + end);
    let (before, after) = (&text[start..span.start], &text[span.end..end]);
    let mut texts = Vec::new();
    if is_label(text, before, after) {
        let end = (end + 1).min(text.len());
        texts.push(
            format!("{}{}", &text[..start], &text[end..])
                .trim_end()
                .to_owned(),
        );
    }
    let is_cell = before.contains('|') || after.contains('|');
    let (mut head, mut tail) = (&text[..span.start], &text[span.end..]);
    if !is_cell {
        head = without_label(head, start, after);
        let (glued, first) = (head.ends_with(char::is_whitespace), tail.chars().next());
        if glued && first.is_none_or(|next| next.is_whitespace() || ",.;:)!?".contains(next)) {
            head = head.trim_end_matches([' ', '\t']);
        }
        let clause_end = tail.trim_start_matches([' ', '\t']);
        if clause_end.starts_with([',', ';', '.']) {
            head = head.trim_end_matches([' ', '\t', ',', ';']);
        }
        if head.is_empty() || head.ends_with('\n') {
            tail = tail.trim_start_matches([' ', '\t', ',', ';']);
        }
    }
    texts.push(format!("{head}{tail}"));
    texts
}

/// The span with the punctuation at the ends of the value: `S.A.`
fn with_ends(text: &str, span: Range<usize>, leaf: &StatedLeaf) -> Range<usize> {
    let StatedLeaf::Text(value) = leaf else {
        return span;
    };
    let ends = |letter: char| !letter.is_alphanumeric();
    let first = &value[..value.len() - value.trim_start_matches(ends).len()];
    let last = &value[value.trim_end_matches(ends).len()..];
    let start = match text[..span.start].ends_with(first) {
        true => span.start - first.len(),
        false => span.start,
    };
    match text[span.end..].starts_with(last) {
        true => start..span.end + last.len(),
        false => start..span.end,
    }
}

/// The span with the quotes or brackets around it.
fn with_quotes(text: &str, mut span: Range<usize>) -> Range<usize> {
    const PAIRS: [(&str, &str); 8] = [
        ("\"", "\""),
        ("'", "'"),
        ("(", ")"),
        ("[", "]"),
        ("“", "”"),
        ("«", "»"),
        ("`", "`"),
        ("*", "*"),
    ];
    while let Some((open, close)) = PAIRS.iter().find(|(open, close)| {
        text[..span.start].ends_with(open) && text[span.end..].starts_with(close)
    }) {
        span = span.start - open.len()..span.end + close.len();
    }
    span
}

/// Whether the rest of a line only names what was removed: `Date:`, `| Date |`, `<<< dated`, or
/// nothing.
fn is_label(text: &str, before: &str, after: &str) -> bool {
    let is_said = |letter: char| letter.is_alphanumeric() || "€$£¥₹₩₽฿₺₴%".contains(letter);
    let has = |part: &str| part.contains(is_said);
    let is_short = |part: &str| {
        part.split_whitespace().count() <= MAX_LABEL_WORDS
            && !part.contains(|letter: char| letter.is_ascii_digit())
    };
    let is_rule = |line: &str| line.contains("--") && !line.contains(is_said);
    let is_table = (before.contains('|') || after.contains('|'))
        && text.lines().any(|line| line.contains('|') && is_rule(line));
    let (label, note) = (before.trim_end(), after.trim_start());
    match (has(before), has(after)) {
        (false, false) => true,
        (true, false) => !is_table && label.ends_with([':', '=', '|', '>']) && is_short(label),
        (false, true) => !is_table && note.starts_with(['<', ':', '=', '|']) && is_short(note),
        (true, true) => false,
    }
}

/// What is before a value, without the label (`Date:`) or the preposition that names only it.
fn without_label<'t>(head: &'t str, line_start: usize, after: &str) -> &'t str {
    let line = &head[line_start..];
    let trimmed = line.trim_end();
    let ends_clause = after.trim_start().chars().next();
    let ends_clause = ends_clause.is_none_or(|next| ",.;|)".contains(next));
    if ends_clause && trimmed.ends_with([':', '=']) {
        let clause = trimmed
            .rfind([',', ';', '.', '(', '|'])
            .map_or(0, |at| at + 1);
        let label = &trimmed[clause..];
        if label.split_whitespace().count() <= MAX_LABEL_WORDS {
            return head[..line_start + clause].trim_end_matches([' ', '\t', ',', ';']);
        }
    }
    let word_start = trimmed
        .rfind(|letter: char| !letter.is_alphanumeric())
        .map_or(0, |at| {
            at + trimmed[at..].chars().next().map_or(1, char::len_utf8)
        });
    let word = &trimmed[word_start..];
    let is_apart = trimmed.len() < line.len();
    let is_preposition = PREPOSITIONS
        .iter()
        .any(|other| word.eq_ignore_ascii_case(other));
    if is_apart && is_preposition {
        return &head[..line_start + word_start];
    }
    head
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_with_its_line_its_label_or_its_preposition() {
        for (text, value, left) in [
            ("Vendor: Acme\nTotal: 5", "Acme", "Total: 5"),
            ("a\nInvoice date: 2028/04/27\nb", "2028/04/27", "a\nb"),
            ("x\n*** Acme AB ***\ny", "Acme AB", "x\ny"),
            ("12 May 2025 <<< dated\nz", "12 May 2025", "z"),
            ("Total: 5 SEK", "5", "Total: SEK"),
            ("Total: €5.10\nb", "5.10", "Total: €\nb"),
            ("26 May 2020  till 9", "26 May 2020", "till 9"),
            ("a bill from Acme -- EUR 4", "Acme", "a bill -- EUR 4"),
            (
                "Dear Sir, on May 1, 2020 we sent",
                "May 1, 2020",
                "Dear Sir, we sent",
            ),
            (
                "all in, dated 2020/11/20, no 7",
                "2020/11/20",
                "all in, no 7",
            ),
            ("Kind regards, Acme", "Acme", "Kind regards,"),
            (
                "sent (Acme) today, vendor: Bolt, 5",
                "Acme",
                "sent today, vendor: Bolt, 5",
            ),
            ("sent today, vendor: Bolt, 5", "Bolt", "sent today, 5"),
            (
                "| Date | Vendor |\n|---|---|\n| May | Acme |",
                "Acme",
                "| Date | Vendor |\n|---|---|\n| May |  |",
            ),
            ("| Vendor | Acme |\n| Total | 5 |", "Acme", "| Total | 5 |"),
        ] {
            let start = text.find(value).unwrap();
            let texts = without(text, start..start + value.len());
            assert_eq!(texts[0], left, "{text}");
        }
    }
}
