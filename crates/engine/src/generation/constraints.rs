//! Constraints of requests, by response format or tools, compiled once for equal requests.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{OnceCell, Semaphore};

use super::responses::{busy, server_error};
use crate::constraint::{
    Answer, Constraint, ConstraintError, Instead, Reasoning, SchemaFile, Vocabulary,
};
use crate::openai::{AnswerSchema, ApiError, ResponseFormat, ToolChoice, Tools};
use crate::score::has_json_arguments;
use crate::text::{CallFormat, Tokenizer};

/// Cached constraints, and total bytes of their specifications; least recently used ones are
/// evicted.
const MAX_CACHED: usize = 64;
const MAX_CACHED_BYTES: usize = 4 << 20;
/// Parallel compilations: the other blocking threads prepare prompts.
static COMPILING: Semaphore = Semaphore::const_new(2);

/// Label of a response format's schema.
const FORMAT: &str = "response_format";
const TOOLS: &str = "tools";
const CONFIDENCE: &str = "x_confidence";

/// A request's response format and tools, not yet compiled.
#[derive(Debug)]
pub(crate) struct ConstraintSpec {
    format: ResponseFormat,
    /// The field that set `format`.
    format_field: &'static str,
    tools: Option<Tools>,
    /// Both as JSON, preserving key order.
    key: String,
}

type Compiled = Result<Arc<Constraint>, ApiError>;
type Key = (String, Reasoning);

#[derive(Debug)]
struct CacheEntry {
    key: Key,
    cell: Arc<OnceCell<Compiled>>,
}

/// A server's compiled constraints.
#[derive(Debug, Default)]
pub(crate) struct Constraints {
    /// Prepared for the first request that needs it.
    vocabulary: OnceLock<Result<Arc<Vocabulary>, ApiError>>,
    /// Most recently used last. Requests for one being compiled wait for it.
    held: Mutex<VecDeque<CacheEntry>>,
}

impl ConstraintSpec {
    /// `None` for unconstrained completions.
    pub(crate) fn new(
        (format, format_field): (&ResponseFormat, &'static str),
        tools: Option<&Tools>,
    ) -> Option<Arc<Self>> {
        let are_bound = |tools: &Tools| {
            tools.choice != ToolChoice::Auto
                || !tools.strict.is_empty()
                || !tools.allowed.is_empty()
                || !tools.parallel
        };
        let is_free = *format == ResponseFormat::Text && !tools.is_some_and(are_bound);
        let wanted = || {
            let key = json!([format_field, {"format": format, "tools": tools}]).to_string();
            Arc::new(Self {
                format: format.clone(),
                format_field,
                tools: tools.cloned(),
                key,
            })
        };
        (!is_free).then(wanted)
    }

    /// Of a completion's confidence alone.
    pub(crate) fn of_confidence(schema: Box<AnswerSchema>) -> Option<Arc<Self>> {
        Self::new((&ResponseFormat::Described(schema), CONFIDENCE), None)
    }

    /// The first field that constrains completions.
    pub(crate) fn field(&self) -> &'static str {
        match &self.tools {
            _ if self.format != ResponseFormat::Text => self.format_field,
            Some(tools) if tools.choice != ToolChoice::Auto || !tools.allowed.is_empty() => {
                "tool_choice"
            }
            Some(tools) if !tools.strict.is_empty() => "tools.function.strict",
            _ => "parallel_tool_calls",
        }
    }

    fn answer(&self, format: &'static CallFormat) -> Result<Answer, ConstraintError> {
        let of_format = match &self.format {
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject => Some(Answer::object()),
            ResponseFormat::JsonSchema(schema) => Some(Answer::schema(FORMAT, schema)),
            ResponseFormat::Described(schema) => Some(Answer::described(FORMAT, schema)),
        };
        let Some(tools) = &self.tools else {
            return Ok(of_format.unwrap_or_else(Answer::object));
        };
        let mut answer = Answer::calls((TOOLS, ""), &tools.list, format, true)?;
        if let Answer::Calls {
            functions,
            instead,
            is_single,
            ..
        } = &mut answer
        {
            *is_single = !tools.parallel;
            if !tools.allowed.is_empty() {
                functions.retain(|(name, _)| tools.allowed.contains(name));
            }
            match &tools.choice {
                ToolChoice::Required => {}
                ToolChoice::Function(name) => {
                    functions.retain(|(known, _)| known == name);
                    *is_single = true;
                }
                ToolChoice::Auto => {
                    // Other calls are free, if the format can be parsed without their schemas.
                    let is_free =
                        |name: &String| !tools.strict.contains(name) && has_json_arguments(format);
                    for (name, file) in functions.iter_mut().filter(|(name, _)| is_free(name)) {
                        *file = SchemaFile::alone(
                            &format!("{TOOLS} `{name}`"),
                            &json!({"type": "object"}),
                        );
                    }
                    *instead = match of_format {
                        Some(Answer::Json { files, .. }) => Instead::Value(files),
                        _ => Instead::Text,
                    };
                }
            }
        }
        Ok(answer)
    }

    /// OpenAI's form, by the faulty field.
    fn refusal(&self, error: &ConstraintError) -> ApiError {
        match error {
            ConstraintError::Schema {
                label,
                pointer,
                message,
                ..
            } => {
                let (field, place) = match (label.as_str(), self.format_field) {
                    (FORMAT, FORMAT) => (FORMAT, "response_format.json_schema.schema"),
                    (FORMAT, field) => (field, field),
                    _ => (TOOLS, TOOLS),
                };
                let at = Some(pointer.as_str()).filter(|at| at.starts_with('/'));
                let at = at.unwrap_or_default();
                ApiError::invalid(field, format!("`{place}`{at}: {message}"))
            }
            ConstraintError::Tools { message, .. } => {
                ApiError::invalid(TOOLS, format!("`{TOOLS}`: {message}"))
            }
            other => {
                let field = match self.tools {
                    Some(_) => TOOLS,
                    None => self.format_field,
                };
                ApiError::invalid(field, format!("`{field}`: {other}"))
            }
        }
    }
}

impl Constraints {
    /// Compiles a constraint, unless known, on a blocking thread.
    pub(crate) async fn compiled(
        self: &Arc<Self>,
        wanted: &Arc<ConstraintSpec>,
        reasoning: Reasoning,
        tokenizer: &Arc<Tokenizer>,
    ) -> Compiled {
        let cell = self.cell((wanted.key.clone(), reasoning));
        let compile = async {
            let _turn = COMPILING.acquire().await;
            let all = (Arc::clone(self), Arc::clone(wanted), Arc::clone(tokenizer));
            let compile = move || all.0.compile(&all.1, reasoning, &all.2);
            let compiled = tokio::task::spawn_blocking(compile).await;
            compiled.unwrap_or_else(|_| Err(server_error("the constraint could not be compiled")))
        };
        let compiled = cell.get_or_init(|| compile).await.clone();
        // The machine may be less busy later.
        let timed_out =
            |error: &ApiError| error.code == Some(TIMED_OUT) || error.retry_seconds.is_some();
        if compiled.as_ref().is_err_and(timed_out) {
            self.forget(|held| Arc::ptr_eq(held, &cell));
        }
        compiled
    }

    /// Drops a failed constraint, whose grammar state has become large.
    pub(crate) fn forget_constraint(&self, constraint: &Arc<Constraint>) {
        let is_this = |held: &Arc<Constraint>| Arc::ptr_eq(held, constraint);
        self.forget(|held| matches!(held.get(), Some(Ok(held)) if is_this(held)));
    }

    fn forget(&self, which: impl Fn(&Arc<OnceCell<Compiled>>) -> bool) {
        self.held.lock().retain(|held| !which(&held.cell));
    }

    fn cell(&self, key: Key) -> Arc<OnceCell<Compiled>> {
        let mut held = self.held.lock();
        let at = held.iter().position(|known| known.key == key);
        let entry = at.and_then(|at| held.remove(at));
        let entry = entry.unwrap_or_else(|| CacheEntry {
            key,
            cell: Arc::default(),
        });
        let cell = Arc::clone(&entry.cell);
        held.push_back(entry);
        let is_full = |held: &VecDeque<CacheEntry>| {
            let bytes = held.iter().map(|held| held.key.0.len());
            held.len() > MAX_CACHED || bytes.sum::<usize>() > MAX_CACHED_BYTES
        };
        while held.len() > 1 && is_full(&held) {
            held.pop_front();
        }
        cell
    }

    /// The tokens of all constraints.
    pub(crate) fn vocabulary(&self, tokenizer: &Tokenizer) -> Result<&Arc<Vocabulary>, ApiError> {
        let of_tokenizer = || {
            let refuse = |error| ApiError::invalid(FORMAT, format!("constraints: {error}"));
            Vocabulary::new(tokenizer).map_err(refuse)
        };
        let vocabulary = self.vocabulary.get_or_init(of_tokenizer);
        vocabulary.as_ref().map_err(Clone::clone)
    }

    fn compile(
        &self,
        wanted: &ConstraintSpec,
        reasoning: Reasoning,
        tokenizer: &Tokenizer,
    ) -> Compiled {
        let vocabulary = self.vocabulary(tokenizer)?;
        let refuse = |error: &ConstraintError| wanted.refusal(error);
        let answer = wanted.answer(tokenizer.call_format());
        let answer = answer.map_err(|error| refuse(&error))?;
        let compiled = Constraint::compile(vocabulary, &answer, reasoning);
        compiled.map(Arc::new).map_err(|error| match error {
            ConstraintError::Busy { .. } => busy(&error.to_string()),
            ConstraintError::Time { .. } => ApiError {
                code: Some(TIMED_OUT),
                ..refuse(&error)
            },
            _ => refuse(&error),
        })
    }
}

/// Error code of a schema that takes too long to compile.
const TIMED_OUT: &str = "schema_too_complex";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_were_asked_for_last_are_held() {
        let constraints = Constraints::default();
        let key = |number: u8| (number.to_string(), Reasoning::Off);
        let large_key = || (" ".repeat(MAX_CACHED_BYTES + 1), Reasoning::Off);
        let first = constraints.cell(key(0));
        for number in 1..MAX_CACHED as u8 {
            constraints.cell(key(number));
        }
        assert!(
            Arc::ptr_eq(&first, &constraints.cell(key(0))),
            "asked for again"
        );
        constraints.cell(key(100));
        assert!(
            Arc::ptr_eq(&first, &constraints.cell(key(0))),
            "the second went"
        );
        assert_eq!(constraints.held.lock().len(), MAX_CACHED);
        let large = constraints.cell(large_key());
        assert!(Arc::ptr_eq(&large, &constraints.cell(large_key())), "alone");
        assert_eq!(constraints.held.lock().len(), 1);
        assert!(!Arc::ptr_eq(&first, &constraints.cell(key(0))));
        let other = constraints.cell(key(1));
        constraints.forget(|cell| Arc::ptr_eq(cell, &other));
        assert!(!Arc::ptr_eq(&other, &constraints.cell(key(1))));
    }

    #[test]
    fn properties_in_another_order_are_another_constraint() {
        let key = |text: &str| {
            let schema = serde_json::from_str(text).unwrap_or_default();
            ConstraintSpec::new((&ResponseFormat::JsonSchema(schema), FORMAT), None)
                .map(|wanted| wanted.key.clone())
        };
        let [one, other] = [
            r#"{"properties": {"a": {}, "b": {}}}"#,
            r#"{"properties": {"b": {}, "a": {}}}"#,
        ];
        assert_eq!(key(one), key(one));
        assert_ne!(key(one), key(other));
    }
}
