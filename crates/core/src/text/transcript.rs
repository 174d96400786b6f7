//! A conversation's token ids: those read and sampled stay as they are, only new text is encoded,
//! and text of tools never becomes a control token.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Value as Json, json};

use super::{Message, TemplateOptions, TextError, Tokenizer, json_line};

/// Placeholder for answers and tool results, to locate the template's own text.
const ANSWER: &str = "qZanswer";
const RESULT: &str = "qZresult";
const THOUGHT: &str = "qZthought";
const END: &str = "Zq";

/// Characters of an excerpt in a message.
const EXCERPT: usize = 40;

#[derive(Clone, Copy, Debug)]
pub struct TemplateInput<'a> {
    pub tools: Option<&'a Json>,
    pub options: &'a TemplateOptions,
}

/// A conversation as its model has read it, up to where an answer begins.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// Messages with placeholders for answers and results.
    messages: Vec<Message>,
    rendered: String,
    answers: usize,
    results: usize,
    token_ids: Vec<u32>,
}

/// New text, and the parts that tools wrote.
#[derive(Debug, Default, PartialEq)]
struct NewText {
    text: String,
    of_tools: Vec<Range<usize>>,
}

impl Transcript {
    /// `rendered`: prompt of the messages; `token_ids`: its encoding.
    pub fn new(messages: Vec<Message>, rendered: String, token_ids: Vec<u32>) -> Self {
        Self {
            messages,
            rendered,
            answers: 0,
            results: 0,
            token_ids,
        }
    }

    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Adds an answer as sampled, with its stop token, and what follows. `functions`: those it
    /// calls. Results of tools have the role `tool`; their text is data.
    ///
    /// # Errors
    /// A template that rejects the messages, changes text already read, or changes results.
    pub fn push(
        &mut self,
        tokenizer: &Tokenizer,
        input: TemplateInput<'_>,
        sampled: &[u32],
        functions: &[&str],
        following: &[Message],
    ) -> Result<(), TextError> {
        let refuse = |problem: String| tokenizer.refused_template(problem);
        let stop = sampled
            .last()
            .filter(|id| tokenizer.stop_ids().contains(id))
            .and_then(|id| tokenizer.token(*id));
        let stop = stop.ok_or_else(|| {
            refuse("an answer without its stop token is followed by nothing".to_owned())
        })?;
        let answer = format!("{ANSWER}{}{END}", self.answers);
        let mut messages = self.messages.clone();
        messages.push(assistant(&answer, functions));
        let first_result = self.results;
        let (mut hidden, mut shown, mut texts) = (messages.clone(), messages, Vec::new());
        for (index, message) in following.iter().enumerate() {
            let mut message = message.clone();
            if message.role == "tool" {
                let call = json!(call_id(index));
                message.other.insert("tool_call_id".to_owned(), call);
                message.other.extend(
                    functions
                        .get(index)
                        .map(|name| ("name".to_owned(), json!(written_name(name)))),
                );
                let placeholder = format!("{RESULT}{}{END}", first_result + texts.len());
                hidden.push(Message {
                    content: placeholder,
                    ..message.clone()
                });
                texts.push(message.content.clone());
            } else {
                hidden.push(message.clone());
            }
            shown.push(message);
        }
        let rendered = tokenizer.prompt(&hidden, input.tools, input.options)?;
        let head = self.end_of_answer(tokenizer, &rendered, &answer)?;
        let placeholders = (first_result..first_result + texts.len())
            .map(|number| format!("{RESULT}{number}{END}"));
        let placeholders: Vec<String> = placeholders.collect();
        let results = self.messages.len();
        let real = tokenizer.prompt_until(&shown, input.tools, input.options, results)?;
        let real = real
            .get(head..)
            .filter(|_| real.starts_with(&rendered[..head]))
            .unwrap_or_default();
        // As it is, trimmed, or as a JSON string.
        let forms: [fn(&str) -> Option<String>; 3] = [
            |text| Some(text.to_owned()),
            |text| Some(text.trim().to_owned()),
            |text| {
                json_line(&json!(text))
                    .ok()
                    .and_then(|line| Some(line.get(1..line.len() - 1)?.to_owned()))
            },
        ];
        let filled = forms.iter().find_map(|form| {
            let texts = texts
                .iter()
                .map(|text| form(text))
                .collect::<Option<Vec<String>>>()?;
            fill(&rendered[head..], &placeholders, &texts).filter(|filled| filled.text == real)
        });
        let filled = filled.ok_or_else(|| {
            refuse("the chat template changes the text of a tool's result".to_owned())
        })?;
        self.token_ids.extend_from_slice(sampled);
        self.token_ids
            .extend(tokenizer.encode_after(&stop, &filled)?);
        (self.messages, self.rendered) = (hidden, rendered);
        self.answers += 1;
        self.results += texts.len();
        Ok(())
    }

    /// Offset of the new text in a rendering: after the answer's turn, which follows what the model
    /// has read.
    fn end_of_answer(
        &self,
        tokenizer: &Tokenizer,
        rendered: &str,
        answer: &str,
    ) -> Result<usize, TextError> {
        let refuse = |problem: String| Err(tokenizer.refused_template(problem));
        let Some(start) = rendered.find(answer) else {
            return refuse(
                "the chat template drops the text of an answer that calls a tool".to_owned(),
            );
        };
        // A generation prompt may have more than an answer's header, and answers may begin
        // differently.
        let (before, read) = (&rendered[..start], self.rendered.as_str());
        let ends_turn = |text: &str| stops(tokenizer).any(|stop| text.contains(&stop));
        let is_header = |rest: &str| !ends_turn(rest) && !rest.contains(END);
        let is_same = before
            .strip_prefix(read)
            .or_else(|| read.strip_prefix(before))
            .is_some_and(is_header);
        if !is_same {
            let at = before
                .bytes()
                .zip(read.bytes())
                .take_while(|(new, old)| new == old)
                .count();
            let at = (0..=at)
                .rev()
                .find(|at| before.is_char_boundary(*at) && read.is_char_boundary(*at));
            let excerpt = |text: &str| {
                text[at.unwrap_or(0)..]
                    .chars()
                    .take(EXCERPT)
                    .collect::<String>()
            };
            let (old, new) = (excerpt(read), excerpt(rendered));
            return refuse(format!(
                "the chat template rewrites earlier turns: {old:?} becomes {new:?} after an answer; take a template that only adds text"
            ));
        }
        let rest = &rendered[start + answer.len()..];
        let end = stops(tokenizer)
            .filter_map(|stop| Some((rest.find(&stop)?, stop.len())))
            .min();
        match end {
            Some((at, length)) => Ok(start + answer.len() + at + length),
            None => refuse(
                "the chat template ends an answer without one of the model's stop tokens"
                    .to_owned(),
            ),
        }
    }
}

fn stops(tokenizer: &Tokenizer) -> impl Iterator<Item = String> {
    tokenizer
        .stop_ids()
        .iter()
        .filter_map(|id| tokenizer.token(*id))
}

/// Rejects a template that cannot continue a conversation token for token: one that rewrites
/// earlier text, loses results or, for reasoning models, thoughts between calls. `messages`: of any
/// row.
///
/// # Errors
/// [`TextError::Template`] with the first difference.
pub fn check_continuation(
    tokenizer: &Tokenizer,
    input: TemplateInput<'_>,
    messages: &[Message],
    keeps_thoughts: bool,
) -> Result<(), TextError> {
    let rendered = tokenizer.prompt(messages, input.tools, input.options)?;
    let stop = tokenizer
        .turn_end_id()
        .or_else(|| tokenizer.stop_ids().first().copied());
    let sampled: Vec<u32> = stop.into_iter().collect();
    let mut transcript = Transcript::new(messages.to_vec(), rendered, Vec::new());
    for _ in 0..2 {
        let result = Message::new("tool", "{\"rows\": 1}");
        transcript.push(tokenizer, input, &sampled, &["probe"], &[result])?;
    }
    let mut thinking = messages.to_vec();
    let marks = tokenizer.think_marks();
    let thought = format!("{}\n{THOUGHT}\n{}\n\n{ANSWER}", marks.open, marks.close);
    thinking.push(assistant(&thought, &["probe"]));
    thinking.push(Message {
        other: result_fields(),
        ..Message::new("tool", RESULT)
    });
    if keeps_thoughts
        && !tokenizer
            .prompt(&thinking, input.tools, input.options)?
            .contains(THOUGHT)
    {
        let problem = "the chat template drops the reasoning of answers that call tools, which the model has sampled; \
                       take a template that keeps it, or set `thinking = false`";
        return Err(tokenizer.refused_template(problem.to_owned()));
    }
    Ok(())
}

fn result_fields() -> serde_json::Map<String, Json> {
    [
        ("tool_call_id".to_owned(), json!(call_id(0))),
        ("name".to_owned(), json!("probe")),
    ]
    .into_iter()
    .collect()
}

/// Mistral's templates only accept ids of nine letters and digits.
fn call_id(index: usize) -> String {
    format!("call{index:05}")
}

fn written_name(name: &str) -> String {
    let kept = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    name.chars().filter(kept).take(64).collect()
}

/// An answer with calls: templates read the names; what they write of the calls is not used.
fn assistant(content: &str, functions: &[&str]) -> Message {
    let call = |(index, name): (usize, &&str)| json!({"id": call_id(index), "type": "function", "function": {"name": written_name(name), "arguments": {}}});
    let mut message = Message::new("assistant", content);
    if !functions.is_empty() {
        message.other.insert(
            "tool_calls".to_owned(),
            functions.iter().enumerate().map(call).collect(),
        );
    }
    message
}

/// Replaces placeholders by texts; `None` if one is missing, repeated or out of order.
fn fill(text: &str, placeholders: &[String], texts: &[String]) -> Option<NewText> {
    let (mut filled, mut rest) = (NewText::default(), text);
    for (placeholder, text) in placeholders.iter().zip(texts) {
        let (before, after) = rest.split_once(placeholder.as_str())?;
        filled.text.push_str(before);
        let start = filled.text.len();
        filled.text.push_str(text);
        filled.of_tools.push(start..filled.text.len());
        rest = after;
    }
    filled.text.push_str(rest);
    (!rest.contains(RESULT)).then_some(filled)
}

impl Tokenizer {
    /// Tokens of a text after a stop token, as if encoded as a whole, but without control tokens in
    /// tool text.
    fn encode_after(
        &self,
        stop: &str,
        NewText { text, of_tools }: &NewText,
    ) -> Result<Vec<u32>, TextError> {
        let touches = |found: &Range<usize>| {
            of_tools
                .iter()
                .any(|tool| found.start < tool.end && tool.start < found.end)
        };
        let mut cuts = BTreeSet::from([0, text.len()]);
        loop {
            let mut found = BTreeSet::new();
            for (start, end) in cuts.iter().zip(cuts.iter().skip(1)) {
                for place in self.control_places(&text[*start..*end])? {
                    let place = start + place.start..start + place.end;
                    let first = text[place.clone()].chars().next().map_or(1, char::len_utf8);
                    if touches(&place) && place.start + first < place.end {
                        found.insert(place.start + first);
                    }
                }
            }
            if found.is_empty() {
                break;
            }
            cuts.extend(found);
        }
        let mut ids = Vec::new();
        for (start, end) in cuts.iter().zip(cuts.iter().skip(1)) {
            // After another token some tokenizers drop a text's leading space.
            let encoded = self.encode(&format!("{stop}{}", &text[*start..*end]))?;
            ids.extend_from_slice(match encoded.first() {
                Some(first) if self.token(*first).as_deref() == Some(stop) => &encoded[1..],
                _ => {
                    return Err(self.refused_template(format!(
                        "the tokenizer does not read `{stop}` as one token"
                    )));
                }
            });
        }
        Ok(ids)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
