//! The lines of the forecast: failures and the checks before the start first, then a line each on time, memory and
//! whether groups are informative, then their details, and differences from the last run.

use ratatui::text::{Line, Span};

use super::key_help::last_value;
use super::{Launch, value};
use crate::config::KEYS;
use crate::page::{Block, Level};
use crate::pane::page::PageLines;
use crate::run::RowChanges;
use crate::shared::Shared;
use crate::style_role::Role;

pub(super) fn lines(launch: &Launch, shared: &Shared, columns: usize) -> Vec<Line<'static>> {
    let page = PageLines {
        theme: &shared.theme,
        columns,
    };
    let text = Text {
        launch,
        shared,
        page,
    };
    let (mut page, mut details) = (Vec::new(), Vec::new());
    if let Some(failure) = &launch.failure {
        page.push(text.page.finding(Level::Error, failure));
    }
    if let Some(job) = &launch.forecast_job {
        let seconds = shared.now_ms.saturating_sub(job.since_ms) / 1000;
        let what = if job.samples {
            "sampling"
        } else {
            "loading the model"
        };
        let cancel = shared.key_of("launch.cancel");
        let state = format!("{what}, {seconds} s; {cancel} cancels");
        let progress = (!job.progress.is_empty()).then(|| Block::detail(&job.progress));
        let state = Block::Finding(Level::Request, state);
        let state: Vec<_> = std::iter::once(state).chain(progress).collect();
        page.push(text.page.lines(&state));
    }
    // Asked for, and the last to come.
    if let Some(measured) = &launch.signal {
        let stale = text.stale(measured.is_stale(&launch.form), "launch.can_it_learn");
        page.push([stale, text.page.lines(&measured.value.verdict(""))].concat());
        details.push(text.page.lines(&measured.value.details()));
    }
    page.push(text.page.lines(&text.preflight()));
    match &launch.forecast {
        Some(measured) => {
            let stale = text.stale(measured.is_stale(&launch.form), "launch.forecast");
            page.push([stale, text.page.lines(&measured.value.summary())].concat());
            details.insert(0, text.page.lines(&measured.value.memory_parts()));
        }
        None if launch.forecast_job.is_none() => page.push(vec![
            Line::from("No forecast yet."),
            text.keyed("launch.forecast", "plan memory and time"),
            text.keyed("launch.can_it_learn", "forecast and check learnability"),
        ]),
        None => {}
    }
    page.append(&mut details);
    page.retain(|part| !part.is_empty());
    let mut lines: Vec<_> = page
        .into_iter()
        .flat_map(|part| part.into_iter().chain([Line::default()]))
        .collect();
    text.differences(&mut lines);
    lines
}

struct Text<'a> {
    launch: &'a Launch,
    shared: &'a Shared,
    page: PageLines<'a>,
}

impl Text<'_> {
    /// Every finding, then what passed and what was not checked.
    fn preflight(&self) -> Vec<Block> {
        let shared = self.shared;
        if shared.task_error.is_some() {
            return vec![Block::detail(
                "preflight not checked: the task cannot be read",
            )];
        }
        let keys = ["launch.forecast", "launch.can_it_learn"].map(|id| shared.key_of(id));
        let mut page = self
            .launch
            .preflight
            .page(&format!("press {}", keys.join(" or ")));
        if shared.is_busy("launch.data") {
            let checking = "checking prompt sets ...".to_owned();
            page.push(Block::Finding(Level::Request, checking));
        }
        page
    }

    fn differences(&self, lines: &mut Vec<Line<'static>>) {
        let Some(context) = &self.launch.context else {
            lines.push(self.faint("loading the last run ..."));
            return;
        };
        let Some(last) = &context.last else {
            lines.push(self.title("last run"));
            lines.push(self.faint("no runs of this task yet"));
            return;
        };
        lines.push(self.title(&format!("diff to last run, {}", last.id)));
        let keys = KEYS.iter().filter_map(|key| {
            let (now, then) = (
                value(self.launch, key),
                last_value(self.launch, key).unwrap_or_default(),
            );
            let shown = |text: &str| {
                if text.is_empty() {
                    "empty".to_owned()
                } else {
                    super::context::short_name(text)
                }
            };
            (now != then).then(|| (key.name.to_owned(), shown(&then), shown(&now)))
        });
        let digest = |digest: &Option<String>| {
            digest.as_ref().map_or_else(
                || "none".to_owned(),
                |digest| digest.chars().take(8).collect(),
            )
        };
        let files = last.files.iter().map(|file| {
            let rows = file
                .rows
                .map(RowChanges::summary)
                .filter(|rows| !rows.is_empty());
            let rows = rows.map_or_else(String::new, |rows| format!(" (rows: {rows})"));
            (
                file.name.clone(),
                digest(&file.before),
                digest(&file.after) + &rows,
            )
        });
        let differences: Vec<_> = files.chain(keys).collect();
        if differences.is_empty() {
            lines.push(self.faint("no difference: same configuration and task files"));
        }
        for (name, then, now) in differences {
            lines.push(Line::from(vec![
                Span::raw(format!("{name} ")),
                self.shared.theme.span(then, Role::Removed),
                self.shared.theme.span(" → ", Role::Faint),
                self.shared.theme.span(now, Role::Added),
            ]));
        }
        if self.shared.draft.is_changed() {
            let name = self.shared.draft.name();
            let text =
                format!("the {name} in the editor is not saved: the run uses the saved file");
            lines.extend(self.page.finding(Level::Warning, &text));
        }
    }

    fn title(&self, text: &str) -> Line<'static> {
        self.shared.theme.line(text.to_owned(), Role::Title)
    }

    fn faint(&self, text: &str) -> Line<'static> {
        self.shared.theme.line(text.to_owned(), Role::Faint)
    }

    fn stale(&self, is_stale: bool, id: &str) -> Vec<Line<'static>> {
        let key = self.shared.key_of(id);
        let text = format!("stale: settings changed; {key} updates");
        if is_stale {
            self.page.finding(Level::Warning, &text)
        } else {
            Vec::new()
        }
    }

    fn keyed(&self, id: &str, text: &str) -> Line<'static> {
        let key = format!("{}  ", self.shared.key_of(id));
        Line::from(vec![
            self.shared.theme.span(key, Role::Key),
            Span::raw(text.to_owned()),
        ])
    }
}
