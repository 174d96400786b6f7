//! Answers that a task, or a row's tools, accept.

use std::sync::Arc;

use serde_json::{Value, json};

use super::ConstraintError;
use super::requests::request_files;
use super::schema::{HOME, SchemaFile};
use crate::openai::AnswerSchema;
use crate::score::{Grammar, Task, closed_parameters};
use crate::task::{encode_path, encode_reference, functions};
use crate::text::CallFormat;

/// Forms of accepted answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A value valid by the first file.
    Json {
        files: Vec<SchemaFile>,
        assert_formats: bool,
    },
    /// A value valid by one of the files alone.
    AnyJson {
        files: Vec<SchemaFile>,
        assert_formats: bool,
    },
    /// Function calls. By name: schema of the arguments.
    Calls {
        functions: Vec<(String, SchemaFile)>,
        format: &'static CallFormat,
        instead: Instead,
        /// Whether at most one call is allowed.
        is_single: bool,
        assert_formats: bool,
    },
    /// Text that contains a match of a pattern.
    Text { pattern: String, label: String },
}

/// Alternatives to calls.
#[derive(Clone, Debug)]
pub enum Instead {
    /// None: at least one call.
    Nothing,
    /// `[]`, which tasks read as no calls.
    EmptyList,
    /// Text, also before, between and after calls.
    Text,
    /// A value valid by the first file.
    Value(Vec<SchemaFile>),
}

impl Answer {
    /// Any JSON object.
    pub fn object() -> Self {
        Self::Json {
            files: vec![SchemaFile::alone("json_object", &json!({"type": "object"}))],
            assert_formats: false,
        }
    }

    /// A value valid by a self-contained schema, including formats. `label`: its name in errors.
    pub fn schema(label: &str, schema: &Value) -> Self {
        Self::Json {
            files: vec![SchemaFile::alone(label, schema)],
            assert_formats: true,
        }
    }

    /// A value valid by a described schema. `label`: its name in errors.
    pub fn described(label: &str, described: &AnswerSchema) -> Self {
        let root = (&described.address, &described.schema);
        let file = |(address, schema): (&String, &Value)| SchemaFile {
            address: address.clone(),
            ..SchemaFile::alone(label, schema)
        };
        let all = std::iter::once(root).chain(&described.references);
        Self::Json {
            files: all.map(file).collect(),
            assert_formats: described.assert_formats,
        }
    }

    /// The description of [`Self::described`]; `None` of other answers.
    pub(super) fn description(self) -> Option<AnswerSchema> {
        let Self::Json {
            files,
            assert_formats,
        } = self
        else {
            return None;
        };
        let mut files = files.into_iter();
        let root = files.next()?;
        Some(AnswerSchema {
            schema: root.schema,
            address: root.address,
            references: files.map(|file| (file.address, file.schema)).collect(),
            assert_formats,
            thinking: false,
        })
    }

    /// Requires at least one call of the tools, in OpenAI's schema. `text`: the tools' source, for
    /// positions in errors.
    ///
    /// # Errors
    /// [`ConstraintError::Tools`].
    pub fn calls(
        (label, text): (&str, &str),
        tools: &Value,
        format: &'static CallFormat,
        assert_formats: bool,
    ) -> Result<Self, ConstraintError> {
        let fault = |message: String| ConstraintError::Tools {
            label: label.to_owned(),
            message,
        };
        let text: Arc<str> = text.into();
        let listed = functions(tools).map_err(|error| fault(error.to_string()))?;
        if listed.is_empty() {
            return Err(fault("there are none, so no call can be made".to_owned()));
        }
        let of_function = |function: &crate::task::Function<'_>| {
            let file = SchemaFile {
                label: label.to_owned(),
                text: Arc::clone(&text),
                pointer: format!("{}/parameters", function.pointer()),
                address: format!("{HOME}part.json"),
                schema: closed_parameters(function.parameters.unwrap_or(&json!({}))),
                origin: None,
            };
            (function.name.to_owned(), file)
        };
        let functions = listed.iter().map(of_function).collect();
        Ok(Self::Calls {
            functions,
            format,
            instead: Instead::Nothing,
            is_single: false,
            assert_formats,
        })
    }

    /// One call of a task's live tools, of which a row lists these.
    ///
    /// # Errors
    /// [`ConstraintError::Tools`].
    pub(super) fn one_call(
        task: &Task,
        listed: Option<&Value>,
        format: &'static CallFormat,
    ) -> Result<Self, ConstraintError> {
        let (none, label) = (json!([]), format!("the tools of {}", task.name));
        let listed = listed.unwrap_or(&none);
        let text = listed.to_string();
        let mut calls = Self::calls((&label, &text), listed, format, task.score.assert_formats)?;
        if let Self::Calls { is_single, .. } = &mut calls {
            *is_single = true;
        }
        Ok(calls)
    }

    /// Right answers of a task; `own`: a row's tools, or its schema.
    ///
    /// # Errors
    /// [`ConstraintError`] for a task without a grammar, or unreadable files.
    pub(super) fn for_task(task: &Task, own: Option<&Value>) -> Result<Self, ConstraintError> {
        let label = task.label(&task.definition_file);
        let assert_formats = task.score.assert_formats;
        match task.grammar() {
            Some(Grammar::JsonSchema(files)) => {
                if let Some(own) = own {
                    return Ok(Self::Json {
                        files: vec![SchemaFile::alone("`schema` of the row", own)],
                        assert_formats,
                    });
                }
                let mut found = vec![SchemaFile {
                    label,
                    text: task.definition_text.as_str().into(),
                    pointer: String::new(),
                    address: format!("{HOME}{}", encode_path(&task.definition_file)),
                    schema: files.schema.clone(),
                    origin: None,
                }];
                for (address, file) in &files.references {
                    found.push(referenced(
                        task,
                        address,
                        file,
                        files.inherited_drafts.get(address),
                    )?);
                }
                Ok(Self::Json {
                    files: found,
                    assert_formats,
                })
            }
            Some(Grammar::ToolCalls(rules)) => {
                let format = rules.call_format();
                let mut calls = match (own, &rules.tools) {
                    (Some(own), _) => Self::calls(
                        ("`tools` of the row", &own.to_string()),
                        own,
                        format,
                        assert_formats,
                    ),
                    (None, Some(tools)) => Self::calls(
                        (&label, &task.definition_text),
                        tools,
                        format,
                        assert_formats,
                    ),
                    (None, None) => {
                        let message = "neither the task nor the row has any".to_owned();
                        Err(ConstraintError::Tools { label, message })
                    }
                }?;
                if let Self::Calls { instead, .. } = &mut calls
                    && rules.allows_none
                {
                    *instead = Instead::EmptyList;
                }
                Ok(calls)
            }
            Some(Grammar::HttpMessage(rules)) => {
                let files = request_files((&label, &task.definition_text), rules, assert_formats)?;
                Ok(Self::AnyJson {
                    files,
                    assert_formats,
                })
            }
            Some(Grammar::Pattern(pattern)) => Ok(Self::Text {
                pattern: pattern.to_owned(),
                label,
            }),
            None => Err(ConstraintError::Kind {
                task: task.name.clone(),
                kind: task.kind(),
            }),
        }
    }

    pub(super) fn asserts_formats(&self) -> bool {
        match self {
            Self::Json { assert_formats, .. }
            | Self::AnyJson { assert_formats, .. }
            | Self::Calls { assert_formats, .. } => *assert_formats,
            Self::Text { .. } => false,
        }
    }
}

/// A file that the schema refers to.
fn referenced(
    task: &Task,
    address: &str,
    file: &str,
    draft: Option<&String>,
) -> Result<SchemaFile, ConstraintError> {
    let label = task.label(file);
    let bytes = task.read(file)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut schema: Value =
        serde_json::from_str(&text).map_err(|error| ConstraintError::Tools {
            label: label.clone(),
            message: error.to_string(),
        })?;
    if let (Some(members), Some(draft)) = (schema.as_object_mut(), draft) {
        members
            .entry("$schema")
            .or_insert_with(|| draft.clone().into());
    }
    let address = if address.contains(':') {
        encode_reference(address)
    } else {
        format!("{HOME}{}", address.trim_start_matches("./"))
    };
    Ok(SchemaFile {
        label,
        text: text.into_owned().into(),
        pointer: String::new(),
        address,
        schema,
        origin: None,
    })
}
