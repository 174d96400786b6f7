//! Constrained decoding: a task's answers as grammars, and the tokens that may follow a text.

mod answer; // answers that a task or a row's tools accept
mod bounds; // numeric bounds that the compiler widens
mod calls; // function calls in a model family's format
mod finite_patterns; // patterns of a few keys as properties
mod formats; // string formats as patterns
mod grammar; // answers and think blocks as grammars
mod literals; // expressible names, values and patterns
mod overlap; // disjoint schemas
mod positive; // rewrites `not`, `if`, `oneOf` and `uniqueItems`
mod requests; // API requests as schemas
mod schema; // bundles a schema, or reports an unenforceable keyword
mod vocabulary; // bytes of tokens

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use llguidance::Matcher;
use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use crate::dataset::{PromptRow, row_schema};
use crate::openai::AnswerSchema;
use crate::prompts::{thinking_of, tools_of};
use crate::score::{Grammar, Task, for_model};
use crate::task::TaskError;
use crate::text::{CallFormat, TextError, ThinkMarks, Thinking, Tokenizer};

pub use answer::{Answer, Instead};
pub use schema::SchemaFile;
pub use vocabulary::Vocabulary;
use vocabulary::advance;

/// CPU time limit per grammar, independent of system load. Thousands of schemas take seconds, and
/// most such grammars are too large anyway.
pub const COMPILE_TIME: Duration = Duration::from_secs(10);

/// Interval of checking the limit.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum ConstraintError {
    #[error(
        "no constraint can be made of {task} (kind {kind:?}): only json_schema, tool_calls, http_request and regex have a grammar; sample without `constrained:`"
    )]
    Kind { task: String, kind: &'static str },
    /// An unsupported construct in a schema, with position.
    #[error("{label} line {line} column {column} ({pointer}): {message}")]
    Schema {
        label: String,
        /// 1-based.
        line: usize,
        /// 1-based, in characters.
        column: usize,
        /// JSON pointer into the file, or words.
        pointer: String,
        message: String,
    },
    #[error("{label}: the pattern cannot be enforced while decoding: {message}")]
    Pattern { label: String, message: String },
    #[error(
        "calls in the format {name:?} cannot be enforced while decoding: set another `call_format`, or sample without a constraint"
    )]
    CallFormat { name: &'static str },
    #[error("{label}: {message}")]
    Tools { label: String, message: String },
    #[error(
        "the tokenizer names no stop token, so a constrained completion would never end: add `eos_token` to tokenizer_config.json"
    )]
    NoStopToken,
    #[error(
        "the grammar of the answers took longer than {seconds} s of processor time to compile, the limit: simplify the schema (fewer alternatives, shorter bounds and patterns)"
    )]
    Time { seconds: u64 },
    #[error("every thread that compiles grammars was occupied for {seconds} s")]
    Busy { seconds: u64 },
    #[error("no constraint can be made for this tokenizer: {0}")]
    Vocabulary(String),
    /// A failure after some tokens of a completion.
    #[error("the constraint failed after {tokens} tokens: {why}; simplify the schema or pattern")]
    Mask { tokens: usize, why: &'static str },
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Task(#[from] TaskError),
}

/// Whether a completion may begin with a think block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reasoning {
    Off,
    /// It may write one.
    Allowed,
    /// The prompt has opened one.
    Open,
}

impl Reasoning {
    /// Detects whether a rendered prompt opens a think block.
    pub fn for_prompt(thinking: Thinking, prompt: &str, marks: &ThinkMarks) -> Self {
        match thinking {
            Thinking::Off => Self::Off,
            Thinking::On if marks.is_opened_by(prompt) => Self::Open,
            Thinking::On => Self::Allowed,
        }
    }
}

/// A grammar compiled for one model's tokens.
pub struct Constraint {
    /// Initial state. Locked, since copies share what they learn.
    start: Mutex<Matcher>,
    vocabulary: Arc<Vocabulary>,
    reasoning: Reasoning,
}

impl PartialEq for Constraint {
    /// Identity.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Constraint {}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Constraint")
            .field("reasoning", &self.reasoning)
            .finish_non_exhaustive()
    }
}

impl Constraint {
    /// Takes at most [`COMPILE_TIME`].
    ///
    /// # Errors
    /// [`ConstraintError`] naming the unsupported construct, with position.
    pub fn compile(
        vocabulary: &Arc<Vocabulary>,
        answer: &Answer,
        reasoning: Reasoning,
    ) -> Result<Self, ConstraintError> {
        let (own, answer) = (Arc::clone(vocabulary), answer.clone());
        let start = within(COMPILE_TIME, move || {
            let until = Instant::now() + COMPILE_TIME / 2;
            grammar::compile(&own, &answer, reasoning, until)
        })??;
        Ok(Self {
            start: Mutex::new(start),
            vocabulary: Arc::clone(vocabulary),
            reasoning,
        })
    }

    /// A copy for another thread, without a shared lock.
    #[must_use]
    pub fn independent(&self) -> Self {
        let start = self.start.lock().deep_clone();
        Self {
            start: Mutex::new(start),
            vocabulary: Arc::clone(&self.vocabulary),
            reasoning: self.reasoning,
        }
    }

    /// The tokens that it was compiled for.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// State of an empty completion.
    pub fn begin(&self) -> Progress {
        let matcher = self.start.lock().clone();
        let block = match self.reasoning {
            // An answer begins with a header, even without a think block.
            _ if !self.vocabulary.marks.answer.is_empty() => Block::Thinking,
            Reasoning::Off => Block::Answer,
            Reasoning::Allowed => Block::Beginning(0),
            Reasoning::Open => Block::Thinking,
        };
        Progress {
            matcher,
            vocabulary: Arc::clone(&self.vocabulary),
            block,
            matched: 0,
            tokens: 0,
        }
    }
}

/// Runs `work` on a new thread, which is abandoned if it exceeds the CPU time: it ends eventually,
/// as the compiler bounds its work. At most as many are abandoned as there are cores.
fn within<R: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, ConstraintError> {
    /// Number of running threads.
    static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());
    /// Frees its slot on drop.
    struct Place;
    impl Drop for Place {
        fn drop(&mut self) {
            *RUNNING.0.lock() -= 1;
            RUNNING.1.notify_one();
        }
    }
    let start = Instant::now();
    let too_long = || ConstraintError::Time {
        seconds: limit.as_secs(),
    };
    let most = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut running = RUNNING.0.lock();
    RUNNING
        .1
        .wait_while_for(&mut running, |running| *running >= most, limit);
    if *running >= most {
        let seconds = limit.as_secs();
        return Err(ConstraintError::Busy { seconds });
    }
    *running += 1;
    drop(running);
    let (place, (sender, receiver)) = (Place, channel());
    let id = Arc::new(OnceLock::new());
    let started_as = Arc::clone(&id);
    // The compiler recurses into nested schemas.
    let thread = std::thread::Builder::new()
        .name("constraint".to_owned())
        .stack_size(32 << 20);
    let started = thread.spawn(move || {
        let _place = place;
        _ = started_as.set(rustix::thread::gettid());
        _ = sender.send(work());
    });
    started.map_err(|error| ConstraintError::Vocabulary(error.to_string()))?;
    let has_time = || match id.get() {
        Some(id) => processor_time(*id).unwrap_or_else(|| start.elapsed()) < limit,
        None => limit > Duration::ZERO,
    };
    loop {
        match receiver.recv_timeout(LOOK.min(limit)) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) if has_time() => {}
            Err(_) => return Err(too_long()),
        }
    }
}

/// CPU time of a thread of this process; `None` if unavailable.
fn processor_time(thread: rustix::thread::Pid) -> Option<Duration> {
    let id = thread.as_raw_nonzero();
    let text = std::fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).ok()?;
    let nanoseconds = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// Parser state after a completion's tokens.
pub struct Progress {
    matcher: Matcher,
    vocabulary: Arc<Vocabulary>,
    block: Block,
    /// Bytes of an end mark of think blocks that the text ends with.
    matched: usize,
    tokens: usize,
}

/// Current part of the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// This many bytes of the opening mark were written, and nothing else.
    Beginning(usize),
    Thinking,
    /// Another end mark would hide preceding text.
    Answer,
}

/// Message for compiler errors after allowed tokens.
const OUTGROWN: &str = "the grammar has too many ways to continue the text";

impl std::fmt::Debug for Progress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Progress")
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl Progress {
    /// Sets the bits of allowed next tokens and clears all others: bit `id % 32` of word `id / 32`.
    /// At least one is set; stop tokens only if the answer may end.
    ///
    /// # Errors
    /// [`ConstraintError::Mask`].
    pub fn mask(&mut self, words: &mut [u32]) -> Result<(), ConstraintError> {
        let tokens = self.tokens;
        let fault = |why| ConstraintError::Mask { tokens, why };
        let mask = self
            .matcher
            .compute_mask_or_eos()
            .map_err(|_| fault(OUTGROWN))?;
        let found = mask.as_slice();
        words.fill(0);
        for (word, found) in words.iter_mut().zip(found) {
            *word = *found;
        }
        if self.block == Block::Answer {
            for &id in &self.vocabulary.ending[self.matched] {
                if let Some(word) = words.get_mut(id as usize / 32) {
                    *word &= !(1 << (id % 32));
                }
            }
        }
        if words.iter().all(|word| *word == 0) {
            return Err(fault("no token may follow"));
        }
        Ok(())
    }

    /// Appends a token allowed by the last mask. A stop token ends the completion: call nothing
    /// afterwards.
    ///
    /// # Errors
    /// [`ConstraintError::Mask`].
    pub fn push(&mut self, id: u32) -> Result<(), ConstraintError> {
        self.tokens += 1;
        if self.vocabulary.stop_ids.contains(&id) {
            return Ok(());
        }
        let fault = |_| ConstraintError::Mask {
            tokens: self.tokens,
            why: OUTGROWN,
        };
        self.matcher.consume_token(id).map_err(fault)?;
        let open = self.vocabulary.marks.open.as_bytes();
        let end = self.vocabulary.marks.end();
        for &byte in self.vocabulary.bytes.get(id as usize).into_iter().flatten() {
            self.matched = advance(end, self.matched, byte);
            self.block = match self.block {
                Block::Beginning(count) if open[count] != byte => Block::Answer,
                Block::Beginning(count) if count + 1 == open.len() => Block::Thinking,
                Block::Beginning(count) => Block::Beginning(count + 1),
                Block::Thinking if self.matched == end.len() => Block::Answer,
                other => other,
            };
            self.matched %= end.len();
        }
        Ok(())
    }
}

/// Constraints of a task's rows, each compiled once.
#[derive(Debug)]
pub struct TaskConstraints {
    task: Task,
    /// Format of a call of the task's tools, if that is what is constrained.
    calls: Option<&'static CallFormat>,
    vocabulary: Arc<Vocabulary>,
    compiled: Mutex<CompiledConstraints>,
}

/// Rows' own constraints that are kept.
const MAX_COMPILED: usize = 512;

/// Constraints by a row's own tools or schema and whether its prompt opens a think block.
type CompiledConstraints = HashMap<(Option<Value>, Reasoning), Arc<Constraint>>;

impl TaskConstraints {
    /// Compiles what all rows share.
    ///
    /// # Errors
    /// [`ConstraintError`].
    pub fn new(task: &Task, tokenizer: &Tokenizer) -> Result<Self, ConstraintError> {
        let vocabulary = Vocabulary::new(tokenizer)?;
        let constraints = Self {
            task: for_model(task, tokenizer),
            calls: None,
            vocabulary,
            compiled: Mutex::default(),
        };
        if !task.calls_functions() || task.tools().is_some() {
            constraints.compiled(None, Reasoning::Off)?;
        }
        Ok(constraints)
    }

    /// One call of a row's live tools, instead of an answer.
    ///
    /// # Errors
    /// [`ConstraintError`].
    pub fn of_calls(task: &Task, tokenizer: &Tokenizer) -> Result<Self, ConstraintError> {
        let constraints = Self {
            task: task.clone(),
            calls: Some(tokenizer.call_format_of(task.call_format())),
            vocabulary: Vocabulary::new(tokenizer)?,
            compiled: Mutex::default(),
        };
        let tools = tools_of(task, None)?;
        constraints.compiled(tools, Reasoning::Off)?;
        Ok(constraints)
    }

    /// The constraint of a row. `prompt`: rendered.
    ///
    /// # Errors
    /// [`ConstraintError`].
    pub fn for_row(
        &self,
        row: &PromptRow,
        prompt: &str,
    ) -> Result<Arc<Constraint>, ConstraintError> {
        self.compiled(
            self.own(row)?,
            Reasoning::for_prompt(thinking_of(&self.task), prompt, self.vocabulary.marks),
        )
    }

    /// A row's answers as another process compiles them; `None`: they are not JSON by a schema.
    ///
    /// # Errors
    /// [`ConstraintError`].
    pub fn answer_schema(&self, row: &PromptRow) -> Result<Option<AnswerSchema>, ConstraintError> {
        let own = self.own(row)?;
        let described = Answer::for_task(&self.task, own.as_ref())?.description();
        Ok(described.map(|described| AnswerSchema {
            thinking: thinking_of(&self.task) == Thinking::On,
            ..described
        }))
    }

    /// A row's own tools or schema.
    fn own(&self, row: &PromptRow) -> Result<Option<Value>, ConstraintError> {
        let listed = tools_of(&self.task, Some(row))?;
        Ok(match self.calls {
            Some(_) => listed,
            None => {
                match self.task.grammar() {
                    Some(Grammar::ToolCalls(_)) => row.tools().cloned(),
                    Some(Grammar::JsonSchema(_)) => row_schema(&self.task, row)
                        .transpose()
                        .map_err(|message| ConstraintError::Tools {
                            label: format!("row {}", row.id),
                            message,
                        })?,
                    _ => None,
                }
            }
        })
    }

    fn compiled(
        &self,
        own: Option<Value>,
        reasoning: Reasoning,
    ) -> Result<Arc<Constraint>, ConstraintError> {
        let key = (own, reasoning);
        let mut compiled = self.compiled.lock();
        if let Some(found) = compiled.get(&key) {
            return Ok(Arc::clone(found));
        }
        let own = key.0.as_ref();
        let answer = match self.calls {
            Some(format) => Answer::one_call(&self.task, own, format)?,
            None => Answer::for_task(&self.task, own)?,
        };
        let constraint = Arc::new(Constraint::compile(&self.vocabulary, &answer, reasoning)?);
        if compiled.len() >= MAX_COMPILED {
            compiled.clear();
        }
        compiled.insert(key, Arc::clone(&constraint));
        Ok(constraint)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
