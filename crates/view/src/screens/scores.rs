//! The scores screen: how completions score against the schema in the editor, one by one and in groups.

pub mod actions;
mod differing_parts;
mod draw;
mod interaction;
pub mod items;
mod prompt_choice;
mod sampling;
mod save;
mod score_details;
pub mod scoring;
mod source;
mod summary;

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::choices;
use crate::format::unknown_last;
use crate::score::{FailureClass, Scorer, Tier};
use crate::shared::OpenTask;
use crate::subprocess::CancelToken;
use crate::widgets::editor::Editor;
use crate::widgets::filter::Filter;
use crate::widgets::list_cursor::Cursor;
use items::{Items, Rows, Written};
use scoring::{ScoredItems, holds};

choices! {
    #[derive(Default)]
    Source {
        #[default]
        Samples = "task samples",
        /// Written or pasted here.
        Written = "written completions",
        /// Sampled from a model here.
        Sampled = "sampled completions",
    }
}

#[derive(Debug, Default)]
pub struct Scores {
    pub source: Source,
    /// The source before a completion was written or pasted.
    source_before: Source,
    pub items: Arc<Items>,
    /// The reason if there are none.
    pub error: Option<String>,
    /// Their scores under the last schema that compiled.
    pub scored: Option<ScoredItems>,
    /// The tiers before the schema's last change that moved any.
    pub moved: Vec<Option<Tier>>,
    pub written: Vec<Written>,
    /// Sampled here, the latest last.
    pub sampled: Vec<Written>,
    pub sampled_task: String,
    pub editor: Option<Editor>,
    /// Its index among the written ones.
    pub editing: usize,
    pub cursor: Cursor,
    pub only: Only,
    pub filter: Filter,
    pub order: Order,
    pub pane: Option<&'static str>,
    /// The first visible lines of the completion and of the summary.
    pub tops: [Cursor; 2],
    /// Sample from the base instead of the trained model.
    pub from_base: bool,
    /// Whether sampled values get their confidence.
    pub with_confidence: bool,
    pub sampling: Option<SamplingJob>,
    /// Why the last sampling failed.
    pub sampling_error: Option<String>,
    /// The number of samplings: each has a seed of its own.
    pub samplings: u64,
    /// Whether the schema has changed since the scores were made.
    is_old: bool,
    /// The lines of the list after filter and order.
    shown: Vec<Shown>,
    /// Sampling has started and brought nothing yet.
    fresh: bool,
    rows: Option<(Arc<OpenTask>, Arc<Rows>)>,
    /// The task of the open run, if it is not the open task.
    own: Option<RunTask>,
}

/// The task in a run's folder, or why it cannot be used.
#[derive(Debug, Clone)]
struct RunTask {
    folder: PathBuf,
    read: Result<Arc<ScoredTask>, String>,
}

/// A task with the scorer of its saved definition.
#[derive(Debug)]
struct ScoredTask {
    open: OpenTask,
    rows: Rows,
    scorer: Arc<Scorer>,
}

#[derive(Debug, Clone)]
pub struct SamplingJob {
    pub cancel: CancelToken,
    /// Count, prompt and model.
    pub what: String,
    pub progress: String,
    /// Start time, milliseconds since 1970.
    pub since_ms: u64,
}

const LIST: &str = "completions";
const COMPLETION: &str = "completion";
const SUMMARY: &str = "summary";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Only {
    #[default]
    All,
    Tier(Tier),
    /// Those whose tier changed with the schema.
    Moved,
    Failure(FailureClass),
}

choices! {
    #[derive(Default)]
    Order {
        /// The order of their source.
        #[default]
        Source = "",
        Worst = "worst first",
        Best = "best first",
        Longest = "longest first",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Group(usize),
    /// A completion, by its index among all and its number among those shown.
    Completion(usize, usize),
}

impl Scores {
    /// An order is that of all; of the written ones the newest is last.
    fn is_grouped(&self) -> bool {
        self.order == Order::Source && self.source != Source::Written
    }
}

impl Only {
    /// A label; empty if all are shown.
    fn name(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Tier(tier) => tier.name(),
            Self::Moved => "changed by edit",
            Self::Failure(class) => class.name(),
        }
    }
}

/// Rebuilds the lines of the list, after every change of the scores, the filters or the order. Drawing and moving only
/// read them.
fn arrange(scores: &mut Scores) {
    scores.shown = lines(scores);
}

fn lines(scores: &Scores) -> Vec<Shown> {
    let Some(scored) = &scores.scored else {
        return Vec::new();
    };
    let text = scores.filter.text().to_lowercase();
    let mut places: Vec<usize> = (0..scored.scores.len())
        .filter(|place| is_wanted(scores, scored, &text, *place))
        .collect();
    let reward = |place: &usize| scored.scores.get(*place).map_or(0.0, |score| score.reward);
    let length = |place: &usize| {
        scored
            .items
            .all
            .get(*place)
            .map_or(0, |item| item.text.len())
    };
    match scores.order {
        Order::Source => {}
        Order::Worst => places.sort_by(|a, b| unknown_last(reward(a), reward(b), false)),
        Order::Best => places.sort_by(|a, b| unknown_last(reward(a), reward(b), true)),
        Order::Longest => places.sort_by_key(|place| std::cmp::Reverse(length(place))),
    }
    // The sort is stable, so groups stay together in the order of their first completion.
    let group = |place: &usize| scored.items.all.get(*place).map_or(0, |item| item.group);
    let is_grouped = scores.is_grouped();
    if is_grouped {
        places.sort_by_key(group);
    }
    let mut lines = Vec::new();
    let mut last = None;
    for (number, place) in places.into_iter().enumerate() {
        let group = group(&place);
        if is_grouped && last != Some(group) {
            lines.push(Shown::Group(group));
            last = Some(group);
        }
        lines.push(Shown::Completion(place, number));
    }
    lines
}

fn is_wanted(scores: &Scores, scored: &ScoredItems, text: &str, place: usize) -> bool {
    let (Some(item), Some(score)) = (scored.items.all.get(place), scored.scores.get(place)) else {
        return false;
    };
    let is_chosen = match scores.only {
        Only::All => true,
        Only::Tier(tier) => score.tier == tier,
        Only::Moved => scores.moved.get(place).is_some_and(Option::is_some),
        Only::Failure(class) => score.failure == Some(class),
    };
    let name = scored
        .items
        .groups
        .get(item.group)
        .map_or("", String::as_str);
    is_chosen && holds(item, name, text)
}

/// The number of completions that the list shows.
fn length(scores: &Scores) -> usize {
    // The last line is a completion: no group is shown without one.
    match scores.shown.last() {
        Some(Shown::Completion(_, number)) => number + 1,
        _ => 0,
    }
}

/// The index among all of the completion under the cursor.
fn selected(scores: &Scores) -> Option<usize> {
    let at = scores.cursor.at(length(scores))?;
    scores.shown.iter().find_map(|line| match line {
        Shown::Completion(place, number) if *number == at => Some(*place),
        _ => None,
    })
}

/// The next of all, the tiers, the changed ones and the failures that there are.
fn next_filter(scores: &Scores) -> Only {
    let tally = scores.scored.as_ref().map(|scored| &scored.tally);
    let failures = tally.map_or(&[][..], |tally| &tally.failures);
    let tiers = Tier::ALL.into_iter();
    let tiers = tiers.filter(|tier| tally.is_some_and(|tally| tally.tiers[*tier as usize] > 0));
    let moved = scores.moved.iter().any(Option::is_some);
    let all: Vec<Only> = tiers
        .map(Only::Tier)
        .chain(moved.then_some(Only::Moved))
        .chain(failures.iter().map(|(class, _)| Only::Failure(*class)))
        .collect();
    let next = all.iter().position(|only| *only == scores.only);
    all.get(next.map_or(0, |at| at + 1))
        .copied()
        .unwrap_or_default()
}
