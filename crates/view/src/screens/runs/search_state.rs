//! A search through completions and what it has found so far.

use std::path::PathBuf;
use std::time::Instant;

use crate::format::count;
use crate::message::Command;
use crate::run::SearchHit;
use crate::theme::Theme;
use crate::widgets::list_cursor::Cursor;
use crate::widgets::text_width::fitted;

/// A search and what it has found so far.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub(super) text: String,
    pub(super) runs: Vec<PathBuf>,
    pub(super) hits: Vec<SearchHit>,
    /// All matching completions, also those that are not held.
    pub(super) found: usize,
    pub(super) completions: usize,
    pub(super) progress: f64,
    pub(super) problems: Vec<String>,
    pub(super) cursor: Cursor,
}

/// One message of a search to the screen.
#[derive(Default)]
pub(super) struct News {
    pub(super) hits: Vec<SearchHit>,
    pub(super) found: usize,
    pub(super) completions: usize,
    pub(super) progress: f64,
    pub(super) problems: Vec<String>,
    pub(super) sent: Option<Instant>,
}

impl Matches {
    pub(super) fn apply(&mut self, news: News) -> Vec<Command> {
        // The cursor stays on its match.
        let under = self
            .under()
            .map(|hit| (hit.run, hit.step, hit.prompt_id.clone(), hit.sample));
        self.found += news.found;
        self.completions += news.completions;
        self.progress = news.progress;
        self.problems.extend(news.problems);
        if !news.hits.is_empty() {
            self.hits.extend(news.hits);
            self.hits.sort_by(SearchHit::order);
            let same = |hit: &SearchHit| {
                Some((hit.run, hit.step, hit.prompt_id.clone(), hit.sample)) == under
            };
            let place = self
                .hits
                .iter()
                .position(same)
                .filter(|_| self.cursor.index > 0);
            self.cursor.index = place.unwrap_or(self.cursor.index);
        }
        Vec::new()
    }

    pub(super) fn under(&self) -> Option<&SearchHit> {
        self.hits.get(self.cursor.at(self.hits.len())?)
    }

    pub(super) fn title(&self, theme: &Theme) -> String {
        let (found, of) = (count(self.found), count(self.completions));
        let runs = if self.runs.len() == 1 {
            String::new()
        } else {
            format!(" of {} runs", self.runs.len())
        };
        let shown = if self.found > self.hits.len() {
            format!(", {} shown", self.hits.len())
        } else {
            String::new()
        };
        let state = if self.progress < 1.0 {
            format!(", {:.0}% searched", 100.0 * self.progress)
        } else {
            String::new()
        };
        let separator = theme.glyph("·", "-");
        format!(
            "\"{}\" {separator} {found} matches in {of} completions{runs}{shown}{state}",
            fitted(&self.text, 30)
        )
    }
}
