//! Completions scored under a schema, each with its group's mean, standard deviation and advantage;
//! total counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::items::{Item, Items};
use crate::advantage::{
    Advantage, GroupSignal, group_advantages, group_signal, mean_and_deviation, parts_differ,
    step_advantages,
};
use crate::dataset::PromptRow;
use crate::score::{FailureClass, PartWeights, QueryResult, Score, Scorer, Tier};

/// Returns false once the result is no longer needed.
pub type IsWanted<'a> = &'a (dyn Fn() -> bool + Sync);

#[derive(Debug)]
pub struct ScoredItems {
    pub items: Arc<Items>,
    /// In the order of the items.
    pub scores: Vec<Score>,
    /// In the order of the items.
    pub advantages: Vec<f64>,
    pub groups: Vec<Group>,
    pub tally: Tally,
    /// Query results of the first completions, actual and expected, if they differ.
    pub results: Vec<Option<[QueryResult; 2]>>,
}

/// Maximum completions whose queries are run again for display.
const MAX_RESULTS: usize = 1_000;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// Indices of its completions.
    pub members: Vec<usize>,
    pub mean: f64,
    /// Sample standard deviation of the rewards; 0 for fewer than two.
    pub deviation: f64,
    pub state: GroupSignal,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// All scored completions; scorer failures are only in `failures`.
    pub all: usize,
    /// Completions by tier, in the order of [`Tier::ALL`].
    pub tiers: [usize; 3],
    /// Valid after unwrapping: as they are, or without a fence or prose around them.
    pub tolerant: usize,
    /// Exact matches, and completions with a known expected answer.
    pub exact: (usize, usize),
    pub failures: Vec<(FailureClass, usize)>,
}

/// Scores all items, on every core; `None` once `is_wanted` returns false.
pub fn score(items: &Arc<Items>, scorer: &Scorer, is_wanted: IsWanted<'_>) -> Option<ScoredItems> {
    let rows: Vec<Option<PromptRow>> = items.all.iter().map(Item::scored_row).collect();
    let rows = items
        .all
        .iter()
        .zip(&rows)
        .map(|(item, row)| row.as_ref().or(item.row.as_deref()));
    let texts: Vec<_> = items
        .all
        .iter()
        .map(|item| item.text.as_str())
        .zip(rows)
        .collect();
    let scores = scorer.score_while(&texts, is_wanted)?;
    let advantage = items.advantage.unwrap_or(Advantage::Standardized);
    let mut groups = vec![Group::default(); items.groups.len()];
    for (place, item) in items.all.iter().enumerate() {
        if let Some(group) = groups.get_mut(item.group) {
            group.members.push(place);
        }
    }
    let mut advantages = vec![0.0; scores.len()];
    let weights = scorer.part_weights();
    for group in &mut groups {
        let rewards: Vec<f64> = group
            .members
            .iter()
            .filter_map(|place| scores.get(*place))
            .map(|score| score.reward)
            .collect();
        (group.mean, group.deviation) = mean_and_deviation(&rewards);
        let members = || group.members.iter().filter_map(|place| scores.get(*place));
        group.state = group_signal(
            &rewards,
            members().all(Score::is_max),
            members().all(Score::is_min),
        );
        if advantage == Advantage::PerPart && parts_differ(&members().collect::<Vec<_>>(), &weights)
        {
            group.state = GroupSignal::Mixed;
        }
        for (place, found) in group
            .members
            .iter()
            .zip(group_advantages(&rewards, advantage))
        {
            if let Some(advantage) = advantages.get_mut(*place) {
                *advantage = found;
            }
        }
    }
    if advantage == Advantage::PerPart && weights.0.len() > 1 {
        advantages = per_part(&scores, &groups, &weights);
    }
    Some(ScoredItems {
        tally: tally(&scores),
        items: Arc::clone(items),
        scores,
        advantages,
        groups,
        results: Vec::new(),
    })
}

/// [`step_advantages`], in the order of the scores.
fn per_part(scores: &[Score], groups: &[Group], weights: &PartWeights) -> Vec<f64> {
    let members = |group: &Group| {
        group
            .members
            .iter()
            .filter_map(|place| scores.get(*place))
            .collect()
    };
    let found = step_advantages(&groups.iter().map(members).collect::<Vec<_>>(), weights);
    let mut advantages = vec![0.0; scores.len()];
    for (place, advantage) in groups
        .iter()
        .flat_map(|group| &group.members)
        .zip(found.concat())
    {
        if let Some(found) = advantages.get_mut(*place) {
            *found = advantage;
        }
    }
    advantages
}

/// Query results that differ from the expected ones, in the order of the completions.
pub fn query_results(scored: &ScoredItems, scorer: &Scorer) -> Vec<Option<[QueryResult; 2]>> {
    let one = |(item, score): (&Item, &Score)| {
        let differs = score.failure == Some(FailureClass::WrongResult);
        item.row
            .as_ref()
            .filter(|_| differs)
            .and_then(|row| scorer.query_results(&item.text, row))
    };
    scored
        .items
        .all
        .iter()
        .zip(&scored.scores)
        .take(MAX_RESULTS)
        .map(one)
        .collect()
}

fn tally(scores: &[Score]) -> Tally {
    let mut tally = Tally::default();
    let mut failures: BTreeMap<FailureClass, usize> = BTreeMap::new();
    for score in scores {
        if let Some(class) = score.failure {
            *failures.entry(class).or_default() += 1;
        }
        if score.is_error() {
            continue;
        }
        tally.all += 1;
        tally.tiers[score.tier as usize] += 1;
        tally.tolerant += usize::from(score.tolerant);
        if let Some(exact) = score.exact {
            tally.exact.0 += usize::from(exact);
            tally.exact.1 += 1;
        }
    }
    tally.failures = failures.into_iter().collect();
    tally
}

/// Previous tiers of completions whose tier changed; `None` if the completions differ.
pub fn moved(before: &ScoredItems, now: &ScoredItems) -> Option<Vec<Option<Tier>>> {
    let same = Arc::ptr_eq(&before.items, &now.items);
    let one = |(before, now): (&Score, &Score)| (before.tier != now.tier).then_some(before.tier);
    same.then(|| before.scores.iter().zip(&now.scores).map(one).collect())
}

/// Whether a completion or its prompt's name contains a text, ignoring case; `query` must be
/// lowercase.
pub fn holds(item: &Item, name: &str, query: &str) -> bool {
    query.is_empty()
        || item.text.to_lowercase().contains(query)
        || name.to_lowercase().contains(query)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::Task;
    use crate::screens::scores::items::{Rows, Written};

    fn items(texts: &[&str], advantage: Advantage) -> Arc<Items> {
        let written = texts.iter().map(|text| Written {
            text: (*text).to_owned(),
            prompt_id: Some("p".to_owned()),
            ..Written::default()
        });
        Arc::new(Items::written(written, &Rows::new(), Some(advantage)))
    }

    const VALID: &str = r#"{"vendor": "a", "date": "b", "amount": 1, "currency": "c"}"#;

    fn scored(items: &Arc<Items>) -> ScoredItems {
        let task = Task::embedded("invoice").unwrap();
        score(items, &Scorer::new(&task).unwrap(), &|| true).unwrap()
    }

    #[test]
    fn what_is_scored_is_counted() {
        let mixed = [VALID, "{}", "no", VALID];
        let tally = scored(&items(&mixed, Advantage::Centered)).tally;
        assert_eq!(
            (tally.tiers, tally.tolerant, tally.exact),
            ([1, 1, 2], 2, (0, 0))
        );
        assert_eq!(
            tally.failures,
            [(FailureClass::Prose, 1), (FailureClass::MissingKey, 1)]
        );
    }

    #[test]
    fn moves_are_told_only_of_the_same_completions() {
        let some = items(&["{}"], Advantage::Standardized);
        let (before, now) = (scored(&some), scored(&some));
        assert_eq!(moved(&before, &now), Some(vec![None]));
        let mut changed = scored(&some);
        changed.scores[0].tier = Tier::Valid;
        assert_eq!(moved(&changed, &now), Some(vec![Some(Tier::Valid)]));
        assert_eq!(
            moved(&scored(&items(&["{}"], Advantage::Standardized)), &now),
            None
        );
    }
}
