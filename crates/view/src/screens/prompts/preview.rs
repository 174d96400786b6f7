//! Previews the selected row as the model will see it: template applied, special tokens visible, with the expected
//! answer.

use ratatui::text::Line;

use super::table_row::row;
use super::{Chat, Counter, Prompts, TokenUse};
use crate::command_log::CommandLine;
use crate::dataset::{PromptRow, expected_target, row_schema, schema_name};
use crate::exact_json;
use crate::format::counted;
use crate::message::{Command, Work};
use crate::popup::{Page, Popup};
use crate::prompts::{prompt_text, turns_of};
use crate::score::{Tier, json};
use crate::secrets::visible_letter;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::subprocess::task_argument;
use crate::text::{Message, TextError};
use crate::theme::Theme;
use crate::widgets::text_width::one_line;

/// The most lines of a prompt that are shown.
const MAX_LINES: usize = 5_000;
/// The most characters of one line that are shown.
const MAX_LINE_CHARS: usize = 10_000;

pub(super) fn show(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let Some(entry) = prompts.selected() else {
        prompts.chat = None;
        return Vec::new();
    };
    if prompts.chat.as_ref().is_none_or(|chat| chat.entry != entry) {
        prompts.chat_top = Default::default();
    }
    let (Some(open), Some(counter)) = (shared.task.clone(), prompts.counter.clone()) else {
        return Vec::new();
    };
    let scorer = shared.scorer();
    vec![Work::latest(
        "prompts.chat",
        move |_| {
            // With several turns the last one, after the expected answers.
            let turns = row(&open, entry)?.all_turns(|expected, row| {
                scorer
                    .as_ref()
                    .and_then(|scorer| scorer.expected_completion(expected, Some(row)))
            });
            let row = turns.last()?;
            let expected = row.expected.as_ref().map(|expected| {
                json::format(&exact_json::write(expected)).unwrap_or_else(|_| expected.to_string())
            });
            let schema = match row_schema(&open.task, row) {
                Some(Ok(schema)) => {
                    let text = schema.to_string();
                    let name = schema_name(&open.task, row).unwrap_or_default();
                    Some((name, json::format(&text).unwrap_or(text)))
                }
                Some(Err(problem)) => Some(("unreadable".to_owned(), problem)),
                None => None,
            };
            let rendered = counter.and_then(|counter| {
                let turns = turns_of(&open.task, Some(&counter.tokenizer), &row.messages)
                    .map_err(|error| error.to_string())?;
                let prompt = prompt_text(&open.task, &counter.tokenizer, row)
                    .map_err(|error| error.to_string())?;
                let special = counter
                    .tokenizer
                    .special_places(&prompt)
                    .map_err(|error| error.to_string())?;
                let tokens = token_use(&counter, &prompt, &turns, row)?;
                Ok((lines(&prompt, &special), tokens, prompt))
            });
            let (lines, tokens, prompt) = match rendered {
                Ok((lines, tokens, prompt)) => (Ok(lines), Some(tokens), prompt),
                Err(error) => (Err(error), None, String::new()),
            };
            let score = scorer
                .zip(row.expected.as_ref())
                .and_then(|(scorer, expected)| {
                    Some(scorer.score(&scorer.expected_completion(expected, Some(row))?, Some(row)))
                });
            let rejected = score.as_ref().filter(|score| score.tier != Tier::Valid);
            let reason = rejected.and_then(|score| score.errors.first());
            let invalid = reason.map(|error| {
                format!("{} {}", error.instance_path, error.message)
                    .trim()
                    .to_owned()
            });
            Some(Chat {
                entry,
                lines,
                tokens,
                invalid,
                expected,
                schema,
                prompt,
            })
        },
        |prompts: &mut Prompts, _, chat| {
            prompts.chat = chat;
            Vec::new()
        },
    )]
}

/// The number of tokens and the lines of a prompt, or why there is none.
type Rendered = Result<(usize, Vec<Vec<(String, bool)>>), String>;

/// Opens the whole prompt of the row under the cursor as a page: what `task render` prints of the chosen model.
pub(super) fn open(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let (Some(entry), Some(open)) = (prompts.selected(), shared.task.clone()) else {
        return Vec::new();
    };
    let counter = match prompts.counter.clone() {
        Some(Ok(counter)) => counter,
        Some(Err(error)) => return shared.complain(error),
        None => return shared.warn("loading tokenizer ..."),
    };
    let Some(id) = row(&open, entry).map(|row| row.id.clone()) else {
        return Vec::new();
    };
    let task = task_argument(shared).unwrap_or_default();
    let id_of_set = format!("{}:{id}", entry.set.name());
    let line: CommandLine = [
        "task",
        "render",
        &task,
        &id_of_set,
        "--model",
        &counter.name,
    ]
    .into_iter()
    .collect();
    let title = format!("{} as {} reads it", one_line(&id), one_line(&counter.name));
    let note = counter.note.clone();
    let render = move |_: &_| {
        let row = row(&open, entry)?;
        let rendered = prompt_text(&open.task, &counter.tokenizer, row).and_then(|prompt| {
            let special = counter.tokenizer.special_places(&prompt)?;
            Ok((
                counter.tokenizer.encode(&prompt)?.len(),
                lines(&prompt, &special),
            ))
        });
        Some(rendered.map_err(|error: TextError| error.to_string()))
    };
    let show =
        move |_: &mut Prompts, shared: &mut Shared, rendered: Option<Rendered>| match rendered {
            Some(Ok(_)) if shared.takes_text() => {
                let key = shared.key_of("prompts.rendered");
                shared.complain(format!("prompt rendered: press {key} again to show it"))
            }
            Some(Ok((tokens, pieces))) => {
                let theme = &shared.theme;
                let warning = |note| theme.line(note, Role::Warning);
                let text = pieces.iter().map(|pieces| line_of(theme, pieces));
                let lines = note.map(warning).into_iter().chain(text).collect();
                let title = format!("{title}, {}", counted(tokens, "token"));
                shared.open_popup(Popup::Page(Page::new(title, lines)))
            }
            Some(Err(error)) => shared.complain(error),
            None => Vec::new(),
        };
    vec![Work::latest("prompts.rendered", render, show).like(line)]
}

pub(super) fn line_of(theme: &Theme, pieces: &[(String, bool)]) -> Line<'static> {
    let span = |(text, is_special): &(String, bool)| {
        let role = if *is_special {
            Role::Special
        } else {
            Role::Text
        };
        theme.span(text.clone(), role)
    };
    Line::from(pieces.iter().map(span).collect::<Vec<_>>())
}

/// The text of each part is counted alone; what is left of the whole prompt is the template's.
fn token_use(
    counter: &Counter,
    prompt: &str,
    turns: &[Message],
    row: &PromptRow,
) -> Result<TokenUse, String> {
    let count = |text: &str| {
        counter
            .tokenizer
            .encode(text)
            .map(|ids| ids.len())
            .map_err(|error| error.to_string())
    };
    let mut tokens = TokenUse {
        prompt: count(prompt)?,
        ..TokenUse::default()
    };
    for turn in turns {
        let part = if turn.role == "system" {
            &mut tokens.system
        } else {
            &mut tokens.turns
        };
        *part += count(&turn.content)?;
    }
    let target = row
        .expected
        .as_ref()
        .map(|expected| exact_json::write(&expected_target(expected)));
    tokens.expected = target.map(|target| count(&target)).transpose()?;
    Ok(tokens)
}

fn lines(prompt: &str, special: &[std::ops::Range<usize>]) -> Vec<Vec<(String, bool)>> {
    let mut lines: Vec<Vec<(String, bool)>> = vec![Vec::new()];
    let mut add = |text: &str, is_special: bool| {
        for (index, part) in text.split('\n').enumerate() {
            if index > 0 {
                lines.push(Vec::new());
            }
            if let Some(line) = lines.last_mut().filter(|_| !part.is_empty()) {
                let shown: String = part
                    .chars()
                    .take(MAX_LINE_CHARS)
                    .map(visible_letter)
                    .collect();
                let cut = if part.chars().nth(MAX_LINE_CHARS).is_some() {
                    "… (truncated on screen)"
                } else {
                    ""
                };
                line.push((shown + cut, is_special));
            }
        }
    };
    let mut at = 0;
    for place in special {
        add(prompt.get(at..place.start).unwrap_or(""), false);
        add(prompt.get(place.clone()).unwrap_or(""), true);
        at = place.end;
    }
    add(prompt.get(at..).unwrap_or(""), false);
    let left = lines.len().saturating_sub(MAX_LINES);
    lines.truncate(MAX_LINES);
    if left > 0 {
        lines.push(vec![(format!("… {}", counted(left, "more line")), false)]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_cut_at_lines_and_special_tokens() {
        let text = "<s>user\nHi\n</s>";
        let piece = |text: &str, special| (text.to_owned(), special);
        let expected = vec![
            vec![piece("<s>", true), piece("user", false)],
            vec![piece("Hi", false)],
            vec![piece("</s>", true)],
        ];
        assert_eq!(lines(text, &[0..3, 11..15]), expected);
        assert_eq!(lines("", &[]), vec![Vec::new()]);
        assert_eq!(lines(&"\n".repeat(6000), &[]).len(), MAX_LINES + 1);
    }
}
