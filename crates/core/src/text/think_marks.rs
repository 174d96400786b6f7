//! Think-block marks of model families, recognised by markers in chat templates.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ThinkMarks {
    /// All of them occur in chat templates of this family.
    templates: &'static [&'static str],
    pub open: &'static str,
    pub close: &'static str,
    /// What ends the thinking message, and what opens the answer with and without a block; empty if
    /// block and answer are one message.
    pub turn: &'static str,
    pub answer: &'static str,
    /// Closes an open block, as templates write an empty one; the answer follows.
    pub closing: &'static str,
    /// Tokens of the marks: decoding keeps them, though some tokenizers declare them special.
    pub tokens: &'static [&'static str],
}

/// Marks in order of comparison; the last is the default.
pub static THINK_MARKS: [ThinkMarks; 4] = [
    // Gemma 4
    ThinkMarks {
        templates: &["<|channel>", "<channel|>"],
        open: "<|channel>thought",
        close: "<channel|>",
        turn: "",
        answer: "",
        closing: "\n<channel|>",
        tokens: &["<|channel>", "<channel|>"],
    },
    // gpt-oss: thoughts and answer are separate messages
    ThinkMarks {
        templates: &["<|channel|>", "analysis"],
        open: "<|channel|>analysis<|message|>",
        close: "<|end|>",
        turn: "<|start|>assistant",
        answer: "<|channel|>final<|message|>",
        closing: "<|end|><|start|>assistant<|channel|>final<|message|>",
        tokens: &["<|start|>", "<|channel|>", "<|message|>", "<|end|>"],
    },
    // Magistral
    ThinkMarks {
        templates: &["[THINK]", "[/THINK]"],
        open: "[THINK]",
        close: "[/THINK]",
        turn: "",
        answer: "",
        closing: "[/THINK]",
        tokens: &["[THINK]", "[/THINK]"],
    },
    // Qwen, DeepSeek, SmolLM
    ThinkMarks {
        templates: &[],
        open: "<think>",
        close: "</think>",
        turn: "",
        answer: "",
        closing: "\n</think>\n\n",
        tokens: &["<think>", "</think>"],
    },
];

impl ThinkMarks {
    /// `<think>` if the template has none.
    pub fn for_template(source: &str) -> &'static Self {
        let is_of = |marks: &&Self| marks.templates.iter().all(|text| source.contains(text));
        THINK_MARKS.iter().find(is_of).unwrap_or(Self::tags())
    }

    pub fn tags() -> &'static Self {
        &THINK_MARKS[3]
    }

    pub fn end(&self) -> &'static str {
        if self.answer.is_empty() {
            self.close
        } else {
            self.answer
        }
    }

    pub fn is_opened_by(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::text::{Tokenizer, train_tokenizer};

    /// Excerpts of the families' templates.
    #[test]
    fn templates_are_recognised_by_how_they_write_thoughts() {
        for (source, open) in [
            (
                r"{{- '<|channel>thought\n' + thinking_text + '\n<channel|>' -}}",
                "<|channel>thought",
            ),
            (
                r"{%- for part in text.split('<channel|>') -%}{%- if '<|channel>' in part -%}",
                "<|channel>thought",
            ),
            (
                r#"{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}"#,
                "<|channel|>analysis<|message|>",
            ),
            (
                r"{{- '[THINK]' + block['thinking'] + '[/THINK]' }}",
                "[THINK]",
            ),
            (
                r"{{- '<think>\n' + reasoning_content + '\n</think>\n\n' }}",
                "<think>",
            ),
            (r"{{- '<|im_start|>' + message.role }}", "<think>"),
        ] {
            assert_eq!(ThinkMarks::for_template(source).open, open, "{source}");
        }
        for marks in THINK_MARKS {
            assert!(
                marks.closing.contains(marks.close) && marks.closing.contains(marks.end()),
                "{marks:?}"
            );
            assert!(
                marks.is_opened_by(&format!("user\n{}\n", marks.open)),
                "{marks:?}"
            );
            assert!(
                !marks.is_opened_by(&format!("user\n{}{}", marks.open, marks.closing)),
                "{marks:?}"
            );
        }
        assert_eq!(ThinkMarks::tags().open, "<think>");
    }

    #[test]
    fn answers_are_written_with_the_header_of_their_family() {
        for (template, answer, expected) in [
            ("", "{}", "{}<|im_end|>"),
            ("<|channel> <channel|>", "{}", "{}<|im_end|>"),
            (
                "<|channel|>analysis",
                "{}",
                "<|channel|>final<|message|>{}<|im_end|>",
            ),
            (
                "<|channel|>analysis",
                "<|channel|>commentary to=functions.f",
                "<|channel|>commentary to=functions.f<|im_end|>",
            ),
        ] {
            let files = train_tokenizer(
                ["{}".to_owned()].into_iter().cycle().take(20),
                300,
                template,
            )
            .unwrap();
            let tokenizer = Tokenizer::from_files(&files).unwrap();
            assert_eq!(
                tokenizer
                    .decode(&tokenizer.answer_ids(answer).unwrap(), false)
                    .unwrap(),
                expected
            );
        }
    }
}
