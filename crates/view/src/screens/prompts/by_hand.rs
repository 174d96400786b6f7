//! A prompt that a person answers in the model's place: what is known of it, and how it is drawn.

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use serde_json::Value;

use crate::dataset::PromptRow;
use crate::pane::content::{Content, Place};
use crate::prompts::{HandChain, HandConversation};
use crate::score::Score;
use crate::secrets::visible;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::task::functions;
use crate::theme::Theme;
use crate::widgets::conversation::{Conversation, parts};
use crate::widgets::editor::Editor;
use crate::widgets::json;
use crate::widgets::list_cursor::Cursor;
use crate::widgets::text_width::wrapped;

pub(super) const HAND: &str = "by hand";

#[derive(Debug)]
pub(super) struct ByHand {
    pub(super) row: PromptRow,
    pub(super) editor: Editor,
    pub(super) is_typing: bool,
    /// `None` while its tools are opened or called, and once it has ended.
    pub(super) talk: Option<Box<HandConversation>>,
    pub(super) definitions: Value,
    /// What is read and written in each turn so far; none before the tools are open.
    pub(super) turns: Vec<HandChain>,
    /// What runs, and since when, milliseconds since 1970.
    pub(super) waiting: Option<(String, u64)>,
    pub(super) error: Option<String>,
    pub(super) top: Cursor,
}

impl ByHand {
    pub(super) fn has_ended(&self) -> bool {
        self.error.is_some() || self.turns.last().is_some_and(|turn| turn.score.is_some())
    }
}

/// The conversation, and below it what is written: the one that has the keys is the first.
pub(super) fn places(hand: &ByHand, area: Rect) -> Vec<Place> {
    let place = |part, area| Place {
        part,
        ..Place::new(HAND, area)
    };
    if hand.has_ended() {
        return vec![place(0, area)];
    }
    let rows = (hand.editor.lines().len() + 3).clamp(5, usize::from(area.height / 2).max(5)) as u16;
    let [above, below] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(rows)]).areas(area);
    vec![
        place(usize::from(hand.is_typing), above),
        place(usize::from(!hand.is_typing), below),
    ]
}

pub(super) fn content<'a>(hand: &'a ByHand, shared: &'a Shared, place: &Place) -> Content<'a> {
    let key = |id| shared.key_of(id);
    let is_editor = !hand.has_ended() && (place.part == 0) == hand.is_typing;
    if is_editor {
        let title = match &hand.waiting {
            Some((what, since)) => {
                let seconds = shared.now_ms.saturating_sub(*since) / 1000;
                format!("{what}, {seconds} s; {} cancels", key("prompts.hand.leave"))
            }
            None => format!(
                "your turn: {} calls, {} answers",
                key("prompts.hand.call"),
                key("prompts.hand.answer")
            ),
        };
        let typing = hand.is_typing && hand.waiting.is_none();
        let wraps = shared.wraps(&hand.editor);
        return Content::titled(title).editor(&hand.editor, typing, wraps);
    }
    let lines = lines(hand, shared, place.inside().width.into());
    let end = if hand.has_ended() {
        format!(", {} starts over", key("prompts.hand.again"))
    } else {
        String::new()
    };
    let turn = match hand.row.turn_count() {
        1 => String::new(),
        count => format!(", turn {} of {count}", hand.turns.len().max(1)),
    };
    let title = format!(
        "{} by hand: you are the model{turn}{end}",
        visible(&hand.row.id)
    );
    Content::titled(title).text(place.inside(), lines, hand.top)
}

fn lines(hand: &ByHand, shared: &Shared, width: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let mut lines = Vec::new();
    for (index, written) in hand.turns.iter().enumerate() {
        lines.extend((index > 0).then(Line::default));
        for message in &written.messages {
            lines.push(theme.line(visible(&message.role).into_owned(), Role::Special));
            lines.extend(json::lines(theme, &message.content, &[]));
            let calls = message.tool_calls().iter();
            lines.extend(
                calls.flat_map(|call| styled(theme, &call.to_string(), Role::Faint, width)),
            );
        }
        if index == 0 {
            lines.extend(tools(theme, &hand.definitions, width));
        }
        lines.push(Line::default());
        lines.extend(turn(written, shared, width));
    }
    lines.extend(
        hand.error
            .iter()
            .flat_map(|why| styled(theme, why, Role::Bad, width)),
    );
    lines
}

fn turn(written: &HandChain, shared: &Shared, width: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let styled = |text: &str, role: Role| styled(theme, text, role, width);
    let talk = Conversation {
        chain: &written.chain,
        call_seconds: &written.call_seconds,
        tokens: None,
        is_whole: shared.whole_results,
        whole_key: shared.key_of("prompts.results"),
        width,
    };
    let mut lines = talk.steps(theme);
    match &written.score {
        Some(score) => {
            lines.extend(talk.heading(theme));
            lines.extend(json::lines(theme, &written.answer, &[]));
            lines.extend(talk.rest(theme));
            lines.push(Line::default());
            lines.extend(talk.summary(theme));
            lines.extend(scored(theme, score, width));
            lines.extend(
                score
                    .errors
                    .iter()
                    .flat_map(|reason| styled(&reason.message, Role::Bad)),
            );
            lines.extend(
                score
                    .warnings
                    .iter()
                    .flat_map(|warning| styled(warning, Role::Warning)),
            );
            let expected = written.expected.as_ref();
            lines.extend(
                expected
                    .into_iter()
                    .flat_map(|value| styled(&format!("expected {value}"), Role::Faint)),
            );
        }
        None => {
            let form = "A call is a name and its arguments as JSON, several calls one after the other; an answer is any text.";
            lines.extend(styled(form, Role::Faint));
        }
    }
    lines
}

fn styled(theme: &Theme, text: &str, role: Role, width: usize) -> Vec<Line<'static>> {
    let lines = wrapped(&visible(text), width).into_iter();
    lines.map(|line| theme.line(line, role)).collect()
}

/// `query(sql: string): Runs a query.`
fn tools(theme: &Theme, definitions: &Value, width: usize) -> Vec<Line<'static>> {
    let functions = functions(definitions).unwrap_or_default();
    let mut lines = Vec::new();
    if !functions.is_empty() {
        lines.push(theme.line("tools", Role::Special));
    }
    for function in functions {
        let properties = function
            .parameters
            .and_then(|parameters| parameters["properties"].as_object());
        let required = function
            .parameters
            .and_then(|parameters| parameters["required"].as_array());
        let shown = |(name, schema): (&String, &Value)| {
            let is_required =
                required.is_some_and(|required| required.contains(&Value::from(name.as_str())));
            let mark = if is_required { "" } else { "?" };
            match (schema["enum"].as_array(), schema["type"].as_str()) {
                (Some(values), _) => {
                    format!("{name}{mark}: one of {}", Value::from(values.clone()))
                }
                (None, Some(kind)) => format!("{name}{mark}: {kind}"),
                (None, None) => format!("{name}{mark}"),
            }
        };
        let arguments: Vec<String> = properties.into_iter().flatten().map(shown).collect();
        let about = definitions.pointer(&format!("{}/description", function.pointer()));
        let about = about
            .and_then(Value::as_str)
            .map_or_else(String::new, |text| format!(": {text}"));
        let text = format!("{}({}){about}", function.name, arguments.join(", "));
        let mut rows = wrapped(&visible(&text), width).into_iter();
        lines.extend(rows.next().map(|row| theme.line(row, Role::Accent)));
        lines.extend(rows.map(|row| theme.line(row, Role::Faint)));
    }
    lines
}

/// Tier, reward and the parts of it.
fn scored(theme: &Theme, score: &Score, width: usize) -> Vec<Line<'static>> {
    let (tier, role) = (score.outcome(), Theme::tier_role(score.outcome()));
    let mut lines = vec![Line::from(vec![
        theme.span(format!("{} {tier}", theme.tier_glyph(tier)), role),
        Span::raw(format!("  reward {}", score.reward_text())),
    ])];
    lines.extend(parts(
        theme,
        score.parts.iter().map(|(name, value)| (name, *value)),
        width,
    ));
    lines
}
