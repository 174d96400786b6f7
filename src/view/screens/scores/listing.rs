//! Which completions are shown, and in which order: filters, groups, sorting.

use super::scoring::{Scored, holds};
use crate::score::{FailureClass, Tier};
use crate::view::app::Model;

/// Which completions are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TierFilter {
    #[default]
    All,
    /// Those of one tier.
    Tier(Tier),
    /// Those whose tier the schema's last change moved.
    Moved,
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they come.
    #[default]
    Source,
    /// The worst first.
    Worst,
    /// The best first.
    Best,
    /// The longest first.
    Longest,
}

/// One line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// The head of a group.
    Group(usize),
    /// A completion, by its place among all, and its number among those shown.
    Completion(usize, usize),
}

impl TierFilter {
    /// The next filter.
    pub(super) fn next(self) -> Self {
        match self {
            Self::All => Self::Tier(Tier::Unparsable),
            Self::Tier(Tier::Unparsable) => Self::Tier(Tier::Invalid),
            Self::Tier(Tier::Invalid) => Self::Tier(Tier::Valid),
            Self::Tier(Tier::Valid) => Self::Moved,
            Self::Moved => Self::All,
        }
    }

    /// In words; empty where all are shown.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Tier(tier) => tier.name(),
            Self::Moved => "changed by schema",
        }
    }
}

impl Order {
    /// The next order.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Source => Self::Worst,
            Self::Worst => Self::Best,
            Self::Best => Self::Longest,
            Self::Longest => Self::Source,
        }
    }

    /// In words; empty where they stand as they come.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Source => "",
            Self::Worst => "worst first",
            Self::Best => "best first",
            Self::Longest => "longest first",
        }
    }
}

/// Make the lines of the list anew: after every change of the scores, the filters or the order. Drawing and moving only read them.
pub(super) fn arrange(model: &mut Model) {
    model.scores.shown = lines(model);
}

fn lines(model: &Model) -> Vec<Shown> {
    let Some(scored) = &model.scores.scored else { return Vec::new() };
    let text = model.scores.filter.text().to_lowercase();
    let mut places: Vec<usize> = (0..scored.scores.len()).filter(|place| is_wanted(model, scored, &text, *place)).collect();
    let reward = |place: &usize| scored.scores.get(*place).map_or(0.0, |score| score.reward);
    let length = |place: &usize| scored.items.all.get(*place).map_or(0, |item| item.text.len());
    match model.scores.order {
        Order::Source => {}
        Order::Worst => places.sort_by(|a, b| reward(a).total_cmp(&reward(b))),
        Order::Best => places.sort_by(|a, b| reward(b).total_cmp(&reward(a))),
        Order::Longest => places.sort_by_key(|place| std::cmp::Reverse(length(place))),
    }
    // Sorting is stable, so groups stay together in the order in which their first completion comes.
    let group = |place: &usize| scored.items.all.get(*place).map_or(0, |item| item.group);
    if !model.scores.is_flat {
        places.sort_by_key(group);
    }
    let mut lines = Vec::new();
    let mut last = None;
    for (number, place) in places.into_iter().enumerate() {
        let group = group(&place);
        if !model.scores.is_flat && last != Some(group) {
            lines.push(Shown::Group(group));
            last = Some(group);
        }
        lines.push(Shown::Completion(place, number));
    }
    lines
}

fn is_wanted(model: &Model, scored: &Scored, text: &str, place: usize) -> bool {
    let scores = &model.scores;
    let (Some(item), Some(score)) = (scored.items.all.get(place), scored.scores.get(place)) else { return false };
    let tier = match scores.only {
        TierFilter::All => true,
        TierFilter::Tier(tier) => score.tier == tier,
        TierFilter::Moved => scores.moved.get(place).is_some_and(Option::is_some),
    };
    let name = scored.items.groups.get(item.group).map_or("", String::as_str);
    tier && scores.class.is_none_or(|class| score.failure == Some(class)) && holds(item, name, text)
}

/// How many completions the list shows.
pub(super) fn length(model: &Model) -> usize {
    // The last line is a completion: no group is shown without one.
    match model.scores.shown.last() {
        Some(Shown::Completion(_, number)) => number + 1,
        _ => 0,
    }
}

/// The place among all of the completion under the cursor.
pub(super) fn selected(model: &Model) -> Option<usize> {
    let at = model.scores.cursor.at(length(model))?;
    model.scores.shown.iter().find_map(|line| match line {
        Shown::Completion(place, number) if *number == at => Some(*place),
        _ => None,
    })
}

/// The next kind of failure among those that occur; after the last, all.
pub(super) fn next_class(model: &Model) -> Option<FailureClass> {
    let failures = &model.scores.scored.as_ref()?.tally.failures;
    match model.scores.class {
        None => failures.first().map(|(class, _)| *class),
        Some(now) => failures.iter().map(|(class, _)| *class).find(|class| *class > now),
    }
}
