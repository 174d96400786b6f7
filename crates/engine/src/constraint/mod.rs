//! Constrained decoding: what a task takes as an answer, and the text so far -> the tokens that may come next.

mod answer; // what a task, or a row's tools, take as an answer
mod bounds; // bounds of numbers that the compiler takes for wider than they are
mod calls; // calls of functions in the format of a model family
mod finite_patterns; // patterns of a few keys as properties
mod formats; // formats of strings as patterns
mod grammar; // answers and think blocks as grammars
mod literals; // names, values and patterns that answers can have
mod overlap; // whether schemas accept no value in common
mod positive; // `not`, `if`, `oneOf` and `uniqueItems` in other keywords
mod requests; // the requests that an API takes as schemas
mod schema; // a JSON Schema in one piece, or the keyword that cannot be enforced
mod vocabulary; // the bytes of tokens

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use llguidance::Matcher;
use serde_json::Value;

use crate::dataset::PromptRow;
use crate::prompts::{thinking_of, tools_of};
use crate::score::{Task, for_model};
use crate::task::TaskError;
use crate::text::{TextError, ThinkMarks, Thinking, Tokenizer};

pub use answer::{Answer, Instead};
pub use schema::SchemaFile;
pub use vocabulary::Vocabulary;
use vocabulary::advance;

/// The limit of processor time for one grammar, so that it does not depend on what else runs. Thousands of schemas take
/// seconds, and most such grammars are too large then.
pub const COMPILE_TIME: Duration = Duration::from_secs(10);

/// How often the limit is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Why completions cannot be constrained.
#[derive(Debug, thiserror::Error)]
pub enum ConstraintError {
    #[error(
        "no constraint can be made of {task} (kind {kind:?}): only json_schema, tool_calls, http_request and regex have a grammar; sample without `constrained:`"
    )]
    Kind { task: String, kind: &'static str },
    /// A schema, at the place of what cannot be enforced.
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
    /// The tokens of one completion.
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
    /// Reads from a rendered prompt whether it opens a think block.
    pub fn for_prompt(thinking: Thinking, prompt: &str, marks: &ThinkMarks) -> Self {
        match thinking {
            Thinking::Off => Self::Off,
            Thinking::On if marks.is_opened_by(prompt) => Self::Open,
            Thinking::On => Self::Allowed,
        }
    }
}

/// A compiled grammar of answers, in the tokens of one model.
pub struct Constraint {
    /// At the beginning. In a lock, since copies share what they learn.
    start: Mutex<Matcher>,
    vocabulary: Arc<Vocabulary>,
    reasoning: Reasoning,
}

impl PartialEq for Constraint {
    /// Whether they are one and the same.
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
    /// Takes [`COMPILE_TIME`] at most, whatever the answer.
    ///
    /// # Errors
    /// [`ConstraintError`] naming what cannot be enforced, with its place.
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

    /// A copy that computes on another thread without waiting for this one.
    #[must_use]
    pub fn independent(&self) -> Self {
        let start = self
            .start
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .deep_clone();
        Self {
            start: Mutex::new(start),
            vocabulary: Arc::clone(&self.vocabulary),
            reasoning: self.reasoning,
        }
    }

    /// A completion without tokens.
    pub fn begin(&self) -> Progress {
        let matcher = self
            .start
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let block = match self.reasoning {
            // Every answer has a header of its own.
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

/// Does work on a thread of its own, which is left behind where it takes too much processor time: the compiler counts
/// what it does, so the thread ends at some time, but not soon. At most as many are left behind as there are cores.
fn within<R: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, ConstraintError> {
    /// Threads that work.
    static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());
    /// Gives its place back.
    struct Place;
    impl Drop for Place {
        fn drop(&mut self) {
            *RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            RUNNING.1.notify_one();
        }
    }
    let (start, too_long) = (Instant::now(), || ConstraintError::Time {
        seconds: limit.as_secs(),
    });
    let most = std::thread::available_parallelism().map_or(1, NonZero::get);
    let running = RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = RUNNING
        .1
        .wait_timeout_while(running, limit, |running| *running >= most);
    let (mut running, waited) = waited.unwrap_or_else(PoisonError::into_inner);
    if waited.timed_out() {
        let seconds = limit.as_secs();
        return Err(ConstraintError::Busy { seconds });
    }
    *running += 1;
    drop(running);
    let (place, (sender, receiver)) = (Place, channel());
    let id = Arc::new(OnceLock::new());
    let started_as = Arc::clone(&id);
    // Schemas are nested, and the compiler follows them.
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

/// What a thread of this process has computed; `None` where the kernel does not say.
fn processor_time(thread: rustix::thread::Pid) -> Option<Duration> {
    let id = thread.as_raw_nonzero();
    let text = std::fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).ok()?;
    let nanoseconds = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// The parser's state after the tokens of one completion.
pub struct Progress {
    matcher: Matcher,
    vocabulary: Arc<Vocabulary>,
    block: Block,
    /// How many bytes of the end of a think block the text ends with.
    matched: usize,
    tokens: usize,
}

/// The part of the completion under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// So many bytes of the mark that opens a block were written, and nothing else.
    Beginning(usize),
    Thinking,
    /// Another end in it would hide what is before.
    Answer,
}

/// The message for compiler errors after allowed tokens.
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
    /// Sets the bits of the tokens that may come next and clears all others: bit `id % 32` of word `id / 32`. At least
    /// one is set; stop tokens only where the answer may end.
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

    /// Appends a token that the last mask allows. A stop token ends the completion: nothing may be asked after it.
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

/// The constraints of a task's rows, each compiled once.
#[derive(Debug)]
pub struct TaskConstraints {
    task: Task,
    vocabulary: Arc<Vocabulary>,
    compiled: Mutex<CompiledConstraints>,
}

/// Constraints by a row's own tools and by whether its prompt opens a think block.
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
            vocabulary,
            compiled: Mutex::default(),
        };
        if !task.calls_functions() || task.tools().is_some() {
            constraints.compiled(None, Reasoning::Off)?;
        }
        Ok(constraints)
    }

    /// The constraint of a row. `prompt`: rendered, as the model reads it.
    ///
    /// # Errors
    /// [`ConstraintError`].
    pub fn for_row(
        &self,
        row: &PromptRow,
        prompt: &str,
    ) -> Result<Arc<Constraint>, ConstraintError> {
        tools_of(&self.task, Some(row))?;
        let own = row.tools().filter(|_| self.task.calls_functions());
        self.compiled(
            own,
            Reasoning::for_prompt(thinking_of(&self.task), prompt, self.vocabulary.marks),
        )
    }

    fn compiled(
        &self,
        own: Option<&Value>,
        reasoning: Reasoning,
    ) -> Result<Arc<Constraint>, ConstraintError> {
        let key = (own.cloned(), reasoning);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = compiled.get(&key) {
            return Ok(Arc::clone(found));
        }
        let answer = Answer::for_task(&self.task, own)?;
        let constraint = Arc::new(Constraint::compile(&self.vocabulary, &answer, reasoning)?);
        compiled.insert(key, Arc::clone(&constraint));
        Ok(constraint)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
