//! Drafts next tokens of a completion by n-grams in its prompt and in earlier completions: prompt
//! lookup and n-gram speculation (vLLM's `ngram` method). Exact: a token's randomness depends only
//! on its position, so a draft is accepted as far as it equals what is sampled anyway.

/// Completion tokens per generation; the last one or two generations are searched.
const GENERATION_TOKENS: usize = 1 << 16;
/// Maximum steps per generation.
const GENERATION_STEPS: u64 = 16;
/// Precedes each completion; not a token id.
const START: u32 = u32::MAX;
/// Contexts before a drafted token, including the start, looked up in earlier completions and in
/// the prompt.
const CONTEXTS: [(Source, usize); 6] = [
    (Source::History, 4),
    (Source::History, 3),
    (Source::History, 2),
    (Source::Prompt, 3),
    (Source::Prompt, 2),
    (Source::Prompt, 1),
];
const MAX_NGRAM: usize = 4;
/// Levels by how often in a row the same token followed a context.
const LEVELS: [u8; 3] = [0, 3, 12];
/// Prior acceptance rate by level, and the number of tokens it counts as.
const ASSUMED: [f64; 3] = [0.35, 0.4, 0.9];
const ASSUMED_TOKENS: f64 = 8.0;
/// Maximum streak; halved by a different token.
const MAX_STREAK: u8 = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    History,
    Prompt,
}

/// A run's newest completions. Determined by the rollouts of the last steps, so that a resumed run
/// drafts equally.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DraftHistory {
    older: Ngrams,
    newer: Ngrams,
    /// Generation of the newer completions, by steps; `None` before the first.
    generation: Option<u64>,
}

impl DraftHistory {
    /// Adds completions of a step (from 1). `kept`: steps whose rollouts a resumed run finds,
    /// besides the last checkpoint's; 0: all.
    pub fn add<'c>(
        &mut self,
        step: u64,
        completions: impl IntoIterator<Item = &'c [u32]>,
        kept: u64,
    ) {
        let Some(generation) = (step - 1).checked_div(generation_steps(kept)) else {
            return;
        };
        if self.generation.replace(generation) != Some(generation) {
            self.turn();
        }
        for completion in completions {
            if self.newer.tokens.len() + completion.len() > GENERATION_TOKENS {
                self.turn();
            }
            self.newer.learn(completion);
        }
    }

    /// The oldest step that the history after `step` may depend on.
    pub fn first_step(step: u64, kept: u64) -> u64 {
        let steps = generation_steps(kept).max(1);
        (step.saturating_sub(1) / steps).saturating_sub(1) * steps + 1
    }

    fn turn(&mut self) {
        let next = Ngrams::with_room(GENERATION_TOKENS);
        self.older = std::mem::replace(&mut self.newer, next);
    }

    fn after(&self, context: &[u32]) -> Option<(u32, usize)> {
        let newest = self.newer.after(context);
        newest.or_else(|| self.older.after(context))
    }
}

/// Two generations never exceed the kept steps; 0: no history.
fn generation_steps(kept: u64) -> u64 {
    match kept {
        0 => GENERATION_STEPS,
        _ => GENERATION_STEPS.min(kept / 2),
    }
}

/// Continuations of n-grams.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ngrams {
    /// Texts, each after a [`START`].
    tokens: Vec<u32>,
    /// Index of the following token (0: none) and its streak, by n-gram hash.
    following: Vec<(u32, u8)>,
}

impl Ngrams {
    pub(super) fn from_text(text: &[u32]) -> Self {
        let mut ngrams = Self::with_room(text.len());
        ngrams.learn(text);
        ngrams
    }

    /// Sized for about `tokens`; more lose n-grams.
    fn with_room(tokens: usize) -> Self {
        Self {
            tokens: Vec::new(),
            following: vec![(0, 0); (2 * MAX_NGRAM * tokens).next_power_of_two()],
        }
    }

    fn learn(&mut self, text: &[u32]) {
        let start = self.tokens.len();
        self.tokens.push(START);
        self.tokens.extend_from_slice(text);
        for end in start + 1..self.tokens.len() {
            (1..=MAX_NGRAM.min(end - start)).for_each(|length| self.learn_one(end, length));
        }
    }

    /// Learns that the token at `end` follows the `length` before it.
    fn learn_one(&mut self, end: usize, length: usize) {
        let context = &self.tokens[end - length..end];
        let place = self.place(context);
        let (known, streak) = self.following[place];
        self.following[place] = match self.follows(known, context) {
            Some(token) if token == self.tokens[end] => (end as u32, (streak + 1).min(MAX_STREAK)),
            Some(_) if streak > 1 => (known, streak / 2),
            _ => (end as u32, 0),
        };
    }

    fn place(&self, context: &[u32]) -> usize {
        let start = 0xCBF2_9CE4_8422_2325 + context.len() as u64;
        let hash = context.iter().fold(start, |hash, &token| {
            let mixed = (hash ^ u64::from(token)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed ^ (mixed >> 32)
        });
        hash as usize & (self.following.len().max(1) - 1)
    }

    /// The token at `end` if preceded by `context`: hashes may collide.
    fn follows(&self, end: u32, context: &[u32]) -> Option<u32> {
        let end = end as usize;
        (end >= context.len() && end > 0 && self.tokens[end - context.len()..end] == *context)
            .then(|| self.tokens[end])
    }

    /// The continuation of `context`, and its level.
    fn after(&self, context: &[u32]) -> Option<(u32, usize)> {
        let &(end, streak) = self.following.get(self.place(context))?;
        let level = LEVELS.iter().rposition(|least| streak >= *least);
        Some((self.follows(end, context)?, level.unwrap_or(0)))
    }
}

/// Likely next tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) tokens: Vec<u32>,
    /// Estimated probability that a token and those before are accepted.
    pub(super) probabilities: Vec<f64>,
    /// Index in [`CONTEXTS`] and level, by token.
    kinds: Vec<(usize, usize)>,
}

impl Draft {
    pub(super) fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.probabilities.truncate(tokens);
        self.kinds.truncate(tokens);
    }
}

/// Drafts for the rows of one rollout, trusting contexts by their acceptance rates.
pub(super) struct Drafter {
    /// Limit per draft.
    most_tokens: usize,
    /// Accepted and compared tokens, by context and level.
    seen: [[(f64, f64); LEVELS.len()]; CONTEXTS.len()],
}

impl Drafter {
    pub(super) fn new(most_tokens: usize) -> Self {
        let seen = ASSUMED.map(|share| (share * ASSUMED_TOKENS, ASSUMED_TOKENS));
        Self {
            most_tokens,
            seen: [seen; CONTEXTS.len()],
        }
    }

    /// Drafts at most `most` tokens likely to follow `tokens`, while their joint probability is at
    /// least `least`.
    pub(super) fn draft(
        &self,
        (history, prompt): (&DraftHistory, &Ngrams),
        tokens: &[u32],
        most: usize,
        least: f64,
    ) -> Draft {
        let mut draft = Draft::default();
        // The end of completion and draft, after the start if near.
        let mut end = match tokens.len() < MAX_NGRAM {
            true => vec![START],
            false => Vec::new(),
        };
        end.extend_from_slice(&tokens[tokens.len().saturating_sub(MAX_NGRAM)..]);
        let mut probability = 1.0;
        while draft.tokens.len() < most.min(self.most_tokens) {
            let Some((share, token, kind)) = self.next(history, prompt, &end) else {
                break;
            };
            probability *= share;
            if probability < least {
                break;
            }
            draft.tokens.push(token);
            draft.probabilities.push(probability);
            draft.kinds.push(kind);
            end.push(token);
        }
        draft
    }

    /// The likeliest token after `end`: acceptance rate, token, context and level.
    fn next(
        &self,
        history: &DraftHistory,
        prompt: &Ngrams,
        end: &[u32],
    ) -> Option<(f64, u32, (usize, usize))> {
        let contexts = CONTEXTS.iter().enumerate();
        let candidates = contexts.filter_map(|(context, &(source, length))| {
            let last = &end[end.len().checked_sub(length)?..];
            let (token, level) = match source {
                Source::History => history.after(last)?,
                Source::Prompt => prompt.after(last)?,
            };
            let (held, compared) = self.seen[context][level];
            Some((held / compared, token, (context, level)))
        });
        // Of equals the first, which has the longest context.
        candidates.reduce(|best, other| if other.0 > best.0 { other } else { best })
    }

    /// Learns from a draft whose first `held` tokens were accepted.
    pub(super) fn observe(&mut self, draft: &Draft, held: usize) {
        for (index, &(context, level)) in draft.kinds.iter().take(held + 1).enumerate() {
            let (all_held, compared) = &mut self.seen[context][level];
            *all_held += f64::from(u8::from(index < held));
            *compared += 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafted(history: &DraftHistory, prompt: &[u32], tokens: &[u32], most: usize) -> Vec<u32> {
        Drafter::new(8)
            .draft((history, &Ngrams::from_text(prompt)), tokens, most, 0.05)
            .tokens
    }

    #[test]
    fn what_followed_is_drafted() {
        let mut history = DraftHistory::default();
        assert_eq!(drafted(&history, &[5, 6, 7, 8], &[6], 8), [7, 8]);
        assert_eq!(drafted(&history, &[5, 6, 7, 8], &[6], 1), [7]);
        assert!(
            drafted(&history, &[5, 6, 7, 8], &[8], 8).is_empty()
                && drafted(&history, &[], &[8], 8).is_empty()
        );
        history.add(1, [[1, 2, 3, 4].as_slice(), &[1, 2, 9, 4]], 0);
        // The start of a completion is a context; a text ends where the next begins.
        assert_eq!(drafted(&history, &[], &[1], 8), [2, 9]);
        assert_eq!(drafted(&history, &[], &[2, 3], 8), [4]);
        assert!(drafted(&history, &[], &[3, 4], 8).is_empty());
    }

    #[test]
    fn contexts_are_believed_by_what_held() {
        let mut history = DraftHistory::default();
        history.add(1, [[1, 2, 3].as_slice()], 0);
        let prompt = Ngrams::from_text(&[2, 7]);
        let mut drafter = Drafter::new(8);
        assert_eq!(
            drafter.draft((&history, &prompt), &[1, 2], 8, 0.05).tokens,
            [3],
            "of equals the longest context"
        );
        for _ in 0..60 {
            let draft = drafter.draft((&history, &prompt), &[1, 2], 8, 0.05);
            drafter.observe(&draft, usize::from(draft.tokens == [7]));
        }
        assert_eq!(
            drafter.draft((&history, &prompt), &[1, 2], 8, 0.05).tokens,
            [7]
        );
        // No draft if none is likely enough.
        assert!(
            drafter
                .draft((&history, &prompt), &[1, 2], 8, 0.99)
                .tokens
                .is_empty()
        );
    }

    #[test]
    fn what_always_followed_is_more_likely() {
        let mut history = DraftHistory::default();
        for value in 0..20 {
            history.add(1, [[1, 2, 100 + value, 3, 4, 5].as_slice()], 0);
        }
        let drafter = Drafter::new(8);
        let draft = |tokens: &[u32], least: f64| {
            drafter
                .draft((&history, &Ngrams::default()), tokens, 8, least)
                .tokens
        };
        assert_eq!(draft(&[1], 0.8), [2], "not the value");
        assert_eq!(draft(&[1, 2], 0.2), [119], "the newest value");
        assert!(
            draft(&[1, 2, 119, 3], 0.8).is_empty(),
            "seen with one value only"
        );
        assert_eq!(draft(&[9, 9, 3, 4], 0.8), [5]);
    }

    #[test]
    fn a_resumed_run_has_the_history_of_one_that_was_not_interrupted() {
        // Generations end after steps, and with the last size in the middle of one.
        for (kept, length) in [(0, 3), (10, 3), (3, 3), (0, 7000)] {
            let completions = |step: u64| {
                [
                    [step as u32, 2, 3].repeat(length / 3),
                    vec![4, step as u32 % 7],
                ]
            };
            let mut history = DraftHistory::default();
            for step in 1..60 {
                history.add(step, completions(step).iter().map(Vec::as_slice), kept);
                let first = DraftHistory::first_step(step, kept);
                assert!(
                    kept == 0 || first + kept > step,
                    "step {step} of {kept} kept"
                );
                let mut resumed = DraftHistory::default();
                (first..=step).for_each(|step| {
                    resumed.add(step, completions(step).iter().map(Vec::as_slice), kept)
                });
                let next =
                    |history: &DraftHistory| [4, 5, 6].map(|token| history.after(&[START, token]));
                assert_eq!(
                    (next(&resumed), &resumed.newer),
                    (next(&history), &history.newer),
                    "step {step}"
                );
                let turned = step > 2 * generation_steps(kept);
                assert!(!turned || resumed.older == history.older, "step {step}");
            }
        }
    }

    #[test]
    fn the_oldest_completions_are_forgotten() {
        let mut history = DraftHistory::default();
        history.add(1, [[1, 2].as_slice()], 0);
        history.add(17, [[3, 4].as_slice()], 0);
        assert_eq!(history.after(&[START, 1]), Some((2, 0)));
        history.add(33, [[5, 6].as_slice()], 0);
        assert_eq!(
            (history.after(&[START, 1]), history.after(&[START, 3])),
            (None, Some((4, 0)))
        );
        // With rollouts of one step kept, a resumed run could not know.
        let mut none = DraftHistory::default();
        none.add(1, [[1, 2].as_slice()], 1);
        assert_eq!(none.after(&[START, 1]), None);
        // Many completions in one step need no more memory.
        let long = vec![7; GENERATION_TOKENS - 1];
        history.add(34, [long.as_slice(), &long, &long], 0);
        assert!(history.newer.tokens.len() <= 2 * GENERATION_TOKENS);
    }
}
