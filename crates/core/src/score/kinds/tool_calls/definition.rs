//! `[score] kind = "tool_calls"`: callable functions, and comparison of calls.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::judge::ToolCalls;
use super::known_formats::syntax_of;
use crate::dataset::PromptRow;
use crate::format::did_you_mean;
use crate::score::definition::degenerate_answers::{FillStyle, answer};
use crate::score::definition::{
    ALIASES, ASSERT_FORMATS, Definition, FoundDefinition, GROUNDED, Grammar, Judge, KeyInfo, Kind,
    LazyAnswer, NORMALISE, TOLERANCE, ToolRules, text_digest,
};
use crate::score::error::ScoreError;
use crate::task::{Function, Home, Read, Section, TASK_FILE, TaskFiles, functions};
use crate::text::{CALL_FORMATS, CallFormat};

pub(crate) static KIND: Kind = Kind {
    name: "tool_calls",
    about: include_str!("about.md"),
    keys: &[],
    score_keys: &[
        KeyInfo::new("tools", "those of each row", "the file of the functions"),
        KeyInfo::new("order", "true", "whether the order of calls counts"),
        KeyInfo::new(
            "call_format",
            "that of the model's chat template",
            "the format that calls are written in",
        ),
        KeyInfo::new(
            "prose",
            "refuse",
            "text before the first call: \"allow\" where the model's chat template writes it",
        ),
        KeyInfo::new(
            "allow_no_call",
            "false",
            "whether an answer may make no call, `[]`",
        ),
        ASSERT_FORMATS,
        NORMALISE,
        TOLERANCE,
        ALIASES,
        GROUNDED,
    ],
    read,
};

fn read(_top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition> {
    let in_order = score.boolean("order")?.unwrap_or(true);
    let allows_none = score.boolean("allow_no_call")?.unwrap_or(false);
    let named_format = score
        .string("call_format")?
        .map(|name| format_named(score, &name))
        .transpose()?;
    let found = home.file_of(score, "tools")?;
    let tools = found
        .as_ref()
        .map(|(file, text)| home.parse_json(file, text))
        .transpose()?;
    let allows_prose = match score.string("prose")?.as_deref() {
        None | Some("refuse") => false,
        Some("allow") => true,
        Some(other) => {
            let offset = score.get("prose").map_or(0, |(_, offset)| offset);
            return Err(score.error(
                "prose",
                offset,
                format!("must be allow or refuse, not {other:?}"),
            ));
        }
    };
    let rules = ToolRules {
        tools,
        in_order,
        allows_none,
        named_format,
        model_format: CallFormat::hermes(),
        allows_prose,
        model_writes_prose: true,
    };
    Ok((Arc::new(rules), found))
}

fn format_named(score: &Section<'_>, name: &str) -> Read<&'static CallFormat> {
    let known = || CALL_FORMATS.iter().map(|format| format.name);
    CallFormat::named(name).ok_or_else(|| {
        let advice = did_you_mean(name, known());
        let offset = score.get("call_format").map_or(0, |(_, offset)| offset);
        let names = known().collect::<Vec<_>>().join(", ");
        score.error(
            "call_format",
            offset,
            format!("must be one of {names}, not {name:?}{advice}"),
        )
    })
}

impl ToolRules {
    pub fn call_format(&self) -> &'static CallFormat {
        self.named_format.unwrap_or(self.model_format)
    }

    /// Set by the task, independent of the model.
    pub fn named_call_format(&self) -> Option<&'static CallFormat> {
        self.named_format
    }

    /// Whether text is allowed before the first call.
    pub fn takes_prose(&self) -> bool {
        self.allows_prose && self.model_writes_prose
    }

    /// The task's; empty if malformed.
    fn functions(&self) -> Vec<Function<'_>> {
        self.tools
            .as_ref()
            .and_then(|tools| functions(tools).ok())
            .unwrap_or_default()
    }
}

impl Definition for ToolRules {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(ToolCalls::new(task, self)?))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Owned(json!({"type": ["array", "object"]}))
    }

    fn lazy_answers<'a>(
        &self,
        _task: &'a TaskFiles,
        _rows: &'a [PromptRow],
    ) -> Vec<LazyAnswer<'a>> {
        let narrow =
            "give every row an `expected`, and `[[reward]]` part \"fields\" or \"exact\" a weight";
        let mut answers = vec![
            LazyAnswer::same("no call", "[]", narrow),
            LazyAnswer::same("a word", "x", narrow),
        ];
        if let Some(first) = self.functions().first() {
            let write =
                |arguments: Value| syntax_of(self.call_format()).write(&[(first.name, &arguments)]);
            let call = |arguments: Value| write(arguments).unwrap_or_default();
            let parameters = first
                .parameters
                .cloned()
                .unwrap_or_else(|| json!({"type": "object"}));
            answers.push(LazyAnswer::same(
                "the first tool without arguments",
                call(json!({})),
                narrow,
            ));
            let least = call(answer(&parameters, FillStyle::Least));
            answers.push(LazyAnswer::same(
                "the first tool with the least arguments",
                least,
                narrow,
            ));
        }
        answers
    }

    fn digest(&self, task: &TaskFiles) -> String {
        let tools = self
            .tools
            .as_ref()
            .map(|_| task.definition_text.as_str())
            .unwrap_or_default();
        let none = if self.allows_none { "none\n" } else { "" };
        let format = self
            .named_format
            .map_or_else(String::new, |format| format!("{}\n", format.name));
        let prose = if self.allows_prose { "prose\n" } else { "" };
        text_digest(&format!(
            "tool_calls\n{}\n{none}{prose}{format}{tools}",
            self.in_order
        ))
    }

    fn file_name(&self) -> &'static str {
        if self.tools.is_some() {
            "tools"
        } else {
            TASK_FILE
        }
    }

    fn with_text(&self, home: &Home, file: &str, text: &str) -> Read<Option<Arc<dyn Definition>>> {
        Ok(Some(Arc::new(Self {
            tools: Some(home.parse_json(file, text)?),
            ..*self
        })))
    }

    fn answer_names(&self, _task: &TaskFiles) -> Vec<String> {
        self.functions()
            .iter()
            .map(|function| function.name.to_owned())
            .collect()
    }

    fn grammar(&self) -> Option<Grammar<'_>> {
        Some(Grammar::ToolCalls(self))
    }

    fn with_model(
        &self,
        format: &'static CallFormat,
        writes_prose: bool,
    ) -> Option<Arc<dyn Definition>> {
        Some(Arc::new(Self {
            model_format: format,
            model_writes_prose: writes_prose,
            ..self.clone()
        }))
    }
}
