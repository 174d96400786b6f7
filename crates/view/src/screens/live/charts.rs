//! The charts that can be drawn: the program's, and one for each other metric of the log; which of them are small ones.

use super::Live;
use crate::followed_run::FollowedRun;
use crate::message::Command;
use crate::shared::Shared;

/// Curves that share a chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Subject<'a> {
    /// Also its name in the user's settings.
    pub(super) title: &'a str,
    metrics: Metrics<'a>,
    /// Between 0 and 1.
    pub(super) share: bool,
    /// A note for the reader, empty if none is needed.
    pub(super) note: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Metrics<'a> {
    /// Names in the legend and in the log.
    Several(&'static [(&'static str, &'static str)]),
    /// The name in the log.
    One(&'a str),
}

const fn subject(
    title: &'static str,
    metrics: &'static [(&'static str, &'static str)],
    share: bool,
    note: &'static str,
) -> Subject<'static> {
    Subject {
        title,
        metrics: Metrics::Several(metrics),
        share,
        note,
    }
}

/// The charts of the program; the first is the default of the large chart, the others of the small ones.
const SUBJECTS: [Subject<'static>; 11] = [
    subject(
        "reward, valid and exact",
        &[
            ("reward", "reward"),
            ("valid", "tiers/valid"),
            ("exact", "exact"),
        ],
        true,
        "",
    ),
    subject(
        "informative groups",
        &[
            ("mixed", "groups/frac_mixed"),
            ("zero variance", "frac_reward_zero_std"),
        ],
        true,
        "zero-variance groups give no gradient",
    ),
    subject(
        "entropy",
        &[("entropy", "entropy")],
        false,
        "near 0: no exploration",
    ),
    subject(
        "completion length",
        &[
            ("mean", "completions/mean_length"),
            ("longest", "completions/max_length"),
        ],
        false,
        "tokens",
    ),
    subject(
        "gradient norm",
        &[("grad norm", "grad_norm")],
        false,
        "before clipping",
    ),
    subject("KL to reference", &[("kl", "kl")], false, "nats/token"),
    subject(
        "loss",
        &[("loss", "loss")],
        false,
        "near 0 is normal on-policy",
    ),
    subject(
        "sampler/trainer logprob difference",
        &[("mean", "sampling/sampling_logp_difference/mean")],
        false,
        "keep near 0",
    ),
    subject(
        "truncated completions",
        &[("truncated", "completions/clipped_ratio")],
        true,
        "share at max_completion_tokens",
    ),
    subject(
        "learning rate",
        &[("learning rate", "learning_rate")],
        false,
        "",
    ),
    subject("step time", &[("s/step", "step_time")], false, ""),
];

impl<'a> Subject<'a> {
    /// Names in the legend and in the log.
    pub(super) fn metrics(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let (several, one) = match self.metrics {
            Metrics::Several(metrics) => (metrics, None),
            Metrics::One(name) => (
                Default::default(),
                Some((name.rsplit('/').next().unwrap_or(name), name)),
            ),
        };
        several.iter().copied().chain(one)
    }

    /// Whether it is the first one, over which evals are drawn.
    pub(super) fn is_first(self) -> bool {
        self.title == SUBJECTS[0].title
    }

    /// Whether a name in the settings means it.
    pub(super) fn is_called(self, name: &str) -> bool {
        self.title == name || self.metrics().any(|(_, metric)| metric == name)
    }
}

/// All charts of a run.
pub(super) fn all(run: &FollowedRun) -> Vec<Subject<'_>> {
    let known = |name: &str| {
        SUBJECTS
            .iter()
            .any(|subject| subject.metrics().any(|(_, metric)| metric == name))
    };
    // The log's `seconds` is the step time of the program's chart.
    let others = run
        .history
        .metrics
        .keys()
        .map(String::as_str)
        .filter(|name| *name != "seconds" && !known(name));
    let own = |title| Subject {
        title,
        metrics: Metrics::One(title),
        share: false,
        note: "",
    };
    SUBJECTS.into_iter().chain(others.map(own)).collect()
}

/// The charts that match the filter, in the chooser.
pub(super) fn matching<'a>(live: &Live, run: &'a FollowedRun) -> Vec<Subject<'a>> {
    let matches = |subject: &Subject<'_>| {
        live.metrics.matches(subject.title)
            || subject
                .metrics()
                .any(|(_, name)| live.metrics.matches(name))
    };
    all(run).into_iter().filter(matches).collect()
}

/// The small charts: those that match the filter, else the chosen ones, else the program's, with values first.
pub(super) fn small<'a>(live: &Live, shared: &Shared, run: &'a FollowedRun) -> Vec<Subject<'a>> {
    if !live.metrics.text().is_empty() {
        return matching(live, run);
    }
    let chosen = &shared.options.live_charts;
    if chosen.is_empty() {
        let is_empty = |subject: &Subject<'_>| {
            !subject
                .metrics()
                .any(|(_, name)| run.history.metrics.contains_key(name))
        };
        let mut subjects = SUBJECTS[1..].to_vec();
        subjects.sort_by_key(is_empty);
        return subjects;
    }
    let all = all(run);
    chosen
        .iter()
        .filter_map(|name| all.iter().copied().find(|subject| subject.is_called(name)))
        .collect()
}

/// The large chart.
pub(super) fn large<'a>(live: &Live, run: &'a FollowedRun) -> Subject<'a> {
    let title = live.view.large.as_deref().unwrap_or_default();
    all(run)
        .into_iter()
        .find(|subject| subject.title == title)
        .unwrap_or(SUBJECTS[0])
}

/// Makes the next chart large: the first one, then the small ones.
pub(super) fn turn_large(live: &mut Live, shared: &Shared, by: isize) -> Vec<Command> {
    let Some(run) = shared.current_run() else {
        return Vec::new();
    };
    let first = SUBJECTS[0].title;
    let others = small(live, shared, run)
        .into_iter()
        .map(|subject| subject.title)
        .filter(|title| *title != first);
    let titles: Vec<&str> = std::iter::once(first).chain(others).collect();
    let now = large(live, run).title;
    let at = titles.iter().position(|title| *title == now).unwrap_or(0);
    let next = (at as isize + by).rem_euclid(titles.len() as isize) as usize;
    live.view.large = Some(titles[next].to_owned());
    Vec::new()
}

/// Begins the small charts with the next one.
pub(super) fn turn_small(live: &mut Live, shared: &Shared, by: isize) -> Vec<Command> {
    let count = shared
        .current_run()
        .map_or(0, |run| small(live, shared, run).len());
    if count > 0 {
        live.view.small = (live.view.small as isize + by).rem_euclid(count as isize) as usize;
    }
    Vec::new()
}

/// Makes the first small chart large.
pub(super) fn enlarge(live: &mut Live, shared: &Shared) {
    let Some(run) = shared.current_run() else {
        return;
    };
    let small = small(live, shared, run);
    let title = small
        .get(live.view.small % small.len().max(1))
        .map(|subject| subject.title.to_owned());
    live.view.large = title.or(live.view.large.take());
}
