//! A conversation with tools or an agent: why it ended, then each completion with its calls and
//! results, tokens and times, up to the heading of the answer.

use ratatui::text::{Line, Span};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::json;
use super::text_value::block;
use super::text_width::{wrapped, wrapped_line};
use crate::environment::{AgentRequest, AnsweredCall, CallOutcome, ChainEnd, ToolChain};
use crate::format::{counted, duration, grouped};
use crate::report::chain_counts;
use crate::score::text_before_calls;
use crate::secrets::visible;
use crate::style_role::Role;
use crate::theme::Theme;

/// How much of a text is shown: results can be 1 MiB, and lines are built for every frame.
#[derive(Debug, Clone, Copy)]
struct Extent {
    lines: usize,
    bytes: usize,
}

const SHORT: Extent = Extent {
    lines: 8,
    bytes: 800,
};
const WHOLE: Extent = Extent {
    lines: 2_000,
    bytes: 64 << 10,
};
const INDENT: usize = 2;

#[derive(Debug, Clone)]
pub struct Conversation<'a> {
    pub chain: &'a ToolChain,
    /// Seconds of each call; empty if not recorded.
    pub call_seconds: &'a [f64],
    /// Sampled tokens including the answer; `None` if not counted.
    pub tokens: Option<usize>,
    /// Whether long texts are shown in full, up to a limit.
    pub is_whole: bool,
    /// Key that toggles `is_whole`.
    pub whole_key: String,
    pub width: usize,
}

impl Conversation<'_> {
    /// Number and time of calls, and why the conversation ended; failures are among the reasons of
    /// its score.
    pub fn summary(&self, theme: &Theme) -> Vec<Line<'static>> {
        let time: f64 = self.call_seconds.iter().sum();
        let time = if self.call_seconds.is_empty() {
            String::new()
        } else {
            format!(" in {}", duration(time))
        };
        let role = match self.chain.end {
            ChainEnd::Answer => Role::Text,
            ChainEnd::ToolFailed
            | ChainEnd::NotRecorded
            | ChainEnd::AgentFailed
            | ChainEnd::NoRequest => Role::Bad,
            _ => Role::Warning,
        };
        let end = format!(
            "{}{time}; ended: {}",
            chain_counts(self.chain),
            self.chain.end.described()
        );
        let mut texts = vec![(end, role)];
        if let Some(agent) = &self.chain.agent {
            let refused = agent
                .refused
                .iter()
                .map(|(code, count)| format!("refused {count} with {}", visible(code)));
            let mut parts: Vec<String> = refused.collect();
            let ignored = agent.ignored.iter().map(|(name, count)| {
                let requests = counted(*count, "request");
                format!("{} ignored in {requests}", visible(name))
            });
            parts.extend(ignored);
            parts.push(match agent.exit_code {
                Some(code) => format!("the program ended with exit code {code}"),
                None => "the program was ended".to_owned(),
            });
            parts.extend(
                agent
                    .output
                    .as_ref()
                    .map(|line| format!("its last line: {}", visible(line))),
            );
            texts.push((parts.join("; "), Role::Faint));
        }
        let lines = texts.into_iter().flat_map(|(text, role)| {
            let start: String = text.chars().take(WHOLE.bytes).collect();
            wrapped(&start, self.width)
                .into_iter()
                .map(move |line| theme.line(line, role))
        });
        lines.collect()
    }

    pub fn steps(&self, theme: &Theme) -> Vec<Line<'static>> {
        let (chain, mut lines, mut times) =
            (self.chain, Vec::new(), self.call_seconds.iter().copied());
        for (number, step) in chain.steps.iter().enumerate() {
            let read = match step.reply_tokens {
                0 => String::new(),
                read => format!(", {} read", grouped(read as u64)),
            };
            // A person's turns have no tokens.
            let tokens = if step.tokens > 0 {
                format!("  {}{read}", counted(step.tokens, "token"))
            } else {
                read
            };
            lines.extend(self.turn(theme, number, &tokens));
            let text = if step.calls.is_empty() {
                step.text.trim_end()
            } else {
                text_before_calls(&step.text)
            };
            lines.extend(self.text(theme, text, 0));
            lines.extend(
                step.calls
                    .iter()
                    .flat_map(|call| self.call(theme, call, times.next(), "")),
            );
        }
        lines
    }

    pub fn heading(&self, theme: &Theme) -> Vec<Line<'static>> {
        let chain = self.chain;
        // An agent without requests has no answer.
        if self.tokens == Some(0) && chain.steps.is_empty() {
            return Vec::new();
        }
        let own = self
            .tokens
            .map(|tokens| tokens.saturating_sub(chain.tokens()));
        let tokens = own.map_or_else(String::new, |own| format!("  {}", counted(own, "token")));
        self.turn(theme, chain.steps.len(), &tokens)
    }

    pub fn turns(&self, theme: &Theme) -> Vec<Line<'static>> {
        [self.steps(theme), self.heading(theme)].concat()
    }

    /// Below the answer: its calls whose results the model did not read, and the final state.
    pub fn rest(&self, theme: &Theme) -> Vec<Line<'static>> {
        let before = self.chain.steps.iter().map(|step| step.calls.len()).sum();
        let mut times = self.call_seconds.iter().copied().skip(before);
        let calls = self.chain.last_calls.iter();
        let mut lines: Vec<Line<'static>> = calls
            .flat_map(|call| self.call(theme, call, times.next(), ", not read by the model"))
            .collect();
        for state in self.chain.states.values() {
            lines.push(theme.line("final state", Role::Special));
            let text = state
                .as_str()
                .map_or_else(|| state.to_string(), str::to_owned);
            lines.extend(self.text(theme, &text, INDENT));
        }
        lines
    }

    /// `turn 2  24 tokens, 31 read ────`; for an agent also the preceding request and the added
    /// messages.
    fn turn(&self, theme: &Theme, number: usize, tokens: &str) -> Vec<Line<'static>> {
        let agent = self.chain.agent.as_deref();
        let request = agent.and_then(|agent| agent.requests.get(number));
        let name = match (agent, number == self.chain.steps.len()) {
            (Some(_), _) => format!("request {}", number + 1),
            (None, true) if self.chain.end == ChainEnd::Answer => "answer".to_owned(),
            (None, _) => format!("turn {}", number + 1),
        };
        let place = request
            .and_then(|request| place_of(number, request))
            .map_or_else(String::new, |place| format!(", {place}"));
        let text = format!("{name}{place}{tokens}");
        let rule = "─".repeat(self.width.saturating_sub(text.width() + 1));
        let heading = Line::from(vec![
            theme.span(text, Role::Special),
            theme.span(format!(" {rule}"), Role::Border),
        ]);
        let mut lines = wrapped_line(heading, self.width);
        // The first request contains the prompt; tool results are below their calls.
        let own = request
            .filter(|_| number > 0)
            .into_iter()
            .flat_map(|request| &request.messages);
        for message in own.filter(|message| message.role != "tool") {
            lines.push(theme.line(visible(&message.role).into_owned(), Role::Faint));
            lines.extend(self.text(theme, &message.content, INDENT));
        }
        lines
    }

    /// `→ query {"sql": "SELECT 1"}  2 ms`, and the result.
    fn call(
        &self,
        theme: &Theme,
        call: &AnsweredCall,
        seconds: Option<f64>,
        note: &str,
    ) -> Vec<Line<'static>> {
        let (outcome, role) = match call.outcome {
            CallOutcome::Answered => ("answered", Role::Faint),
            CallOutcome::Refused => ("refused", Role::Warning),
            CallOutcome::Failed => ("the tool failed", Role::Bad),
            CallOutcome::NotRecorded => ("not recorded", Role::Bad),
        };
        // A refused call reaches no tool.
        let seconds = seconds.filter(|_| call.outcome != CallOutcome::Refused);
        let time = seconds.map_or_else(String::new, |seconds| format!(" in {}", duration(seconds)));
        // Code is shown below the call, as written.
        let (code, short): (Vec<_>, Vec<_>) = call
            .arguments
            .iter()
            .partition(|(_, value)| block(value).is_some());
        let short = short
            .into_iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        let arguments = Value::Object(short.collect()).to_string();
        let (shown, rest) = clipped(&arguments, self.extent());
        let mut spans = vec![
            theme.span("→ ", Role::Accent),
            theme.span(visible(&call.name).into_owned(), Role::Accent),
            Span::raw(" "),
        ];
        spans.extend(
            json::lines(theme, shown, &[])
                .into_iter()
                .flat_map(|line| line.spans),
        );
        spans.extend(rest.map(|rest| theme.span(format!(" {}", self.note(rest)), Role::Faint)));
        spans.push(theme.span(format!("  {outcome}{time}{note}"), role));
        let mut lines = wrapped_line(Line::from(spans), self.width);
        for (name, value) in code {
            let name = format!("{}{}:", " ".repeat(INDENT), visible(name));
            lines.push(theme.line(name, Role::Faint));
            let code = block(value).unwrap_or_default();
            lines.extend(self.text(theme, code, 2 * INDENT));
        }
        lines.extend(self.text(theme, &call.reply, INDENT));
        lines
    }

    fn text(&self, theme: &Theme, text: &str, indent: usize) -> Vec<Line<'static>> {
        if text.is_empty() {
            return Vec::new();
        }
        let (shown, rest) = clipped(text, self.extent());
        let mut lines = json::lines(theme, shown, &[]);
        lines.extend(rest.map(|rest| theme.line(self.note(rest), Role::Faint)));
        let rows = lines
            .into_iter()
            .flat_map(|line| wrapped_line(line, self.width.saturating_sub(indent)));
        rows.map(|mut line| {
            line.spans.insert(0, Span::raw(" ".repeat(indent)));
            line
        })
        .collect()
    }

    fn extent(&self) -> Extent {
        if self.is_whole { WHOLE } else { SHORT }
    }

    /// `… 1,047,776 more bytes; W shows more`
    fn note(&self, rest: usize) -> String {
        let more = if self.is_whole {
            String::new()
        } else {
            format!("; {} shows more", self.whole_key)
        };
        format!("… {} more bytes{more}", grouped(rest as u64))
    }
}

pub fn parts<'p>(
    theme: &Theme,
    parts: impl Iterator<Item = (&'p str, f64)>,
    width: usize,
) -> Vec<Line<'static>> {
    let parts: Vec<String> = parts
        .map(|(name, value)| format!("{} {value:.3}", visible(name)))
        .collect();
    if parts.is_empty() {
        return Vec::new();
    }
    let rows = wrapped(
        &format!("parts, before their weights: {}", parts.join(", ")),
        width,
    )
    .into_iter();
    rows.map(|row| theme.line(row, Role::Faint)).collect()
}

/// The request that this one follows, unless it is the previous one.
fn place_of(number: usize, request: &AgentRequest) -> Option<String> {
    match (&request.follows, &request.split) {
        _ if number == 0 => None,
        (Some(earlier), _) if *earlier + 1 == number => None,
        (Some(earlier), _) => Some(format!("after request {}", earlier + 1)),
        (None, None) => Some("a branch of its own".to_owned()),
        (None, Some(why)) => Some(format!("a branch of its own: {}", visible(why))),
    }
}

fn clipped(text: &str, extent: Extent) -> (&str, Option<usize>) {
    let start = &text[..text.floor_char_boundary(extent.bytes)];
    let lines = start
        .match_indices('\n')
        .nth(extent.lines - 1)
        .map_or(start.len(), |(at, _)| at);
    let rest = text.len() - lines;
    // A lone line end does not count as omitted.
    if text[lines..].trim().is_empty() {
        (&text[..lines], None)
    } else {
        (&text[..lines], Some(rest))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(chain: &ToolChain, call_seconds: &[f64], is_whole: bool) -> Vec<String> {
        let theme = Theme::default();
        let talk = Conversation {
            chain,
            call_seconds,
            tokens: Some(41),
            is_whole,
            whole_key: "W".to_owned(),
            width: 60,
        };
        let lines = [talk.summary(&theme), talk.turns(&theme), talk.rest(&theme)].concat();
        assert!(lines.iter().all(|line| line.width() <= 60), "{lines:?}");
        lines
            .iter()
            .map(|line| line.to_string().trim_end_matches(['─', ' ']).to_owned())
            .collect()
    }

    fn chain(value: Value) -> ToolChain {
        serde_json::from_value(value).unwrap()
    }

    fn call(name: &str, reply: &str, outcome: &str) -> Value {
        serde_json::json!({"name": name, "arguments": {"sql": "SELECT 1"}, "reply": reply, "outcome": outcome})
    }

    #[test]
    fn turns_have_calls_replies_tokens_and_times() {
        let text = "I look.\n<tool_call>\n{\"name\": \"query\"}\n</tool_call>";
        let talk = chain(serde_json::json!({
            "steps": [{"text": text, "tokens": 24, "reply_tokens": 31,
                "calls": [call("query", "[[1]]", "answered"), call("quary", "error: no function \"quary\"", "refused")]}],
            "last_calls": [call("query", "the tool \"shop\" ended", "failed")],
            "end": "tool_failed", "failure": "the tool \"shop\" ended", "states": {"k": {"rows": [[5]]}}
        }));
        assert_eq!(
            shown(&talk, &[0.002, 0.0, 1.25], false),
            [
                "3 calls in 1.3 s; ended: a tool failed, so there is no",
                "reward",
                "turn 1  24 tokens, 31 read",
                "I look.",
                "→ query {\"sql\":\"SELECT 1\"}  answered in 2 ms",
                "  [[1]]",
                "→ quary {\"sql\":\"SELECT 1\"}  refused",
                "  error: no function \"quary\"",
                "turn 2  17 tokens",
                "→ query {\"sql\":\"SELECT 1\"}  the tool failed in 1.2 s, not",
                "read by the model",
                "  the tool \"shop\" ended",
                "final state",
                "  {\"rows\":[[5]]}",
            ]
        );
        let none = chain(serde_json::json!({"steps": [], "end": "answer"}));
        assert_eq!(
            shown(&none, &[], false),
            [
                "0 calls; ended: the model answered without a call",
                "answer  41 tokens"
            ]
        );
    }

    #[test]
    fn a_long_result_is_clipped_and_nothing_of_it_reaches_the_terminal_raw() {
        let reply = format!("\u{1b}[2J{}\n", "x".repeat(1 << 20));
        let talk = chain(serde_json::json!({
            "steps": [{"text": "", "tokens": 24, "reply_tokens": 0, "calls": [call("query", &reply, "answered")]}], "end": "answer"
        }));
        let (short, whole) = (shown(&talk, &[], false), shown(&talk, &[], true));
        assert!(
            short.iter().any(|line| line.starts_with("  ␛[2Jxxx")),
            "{short:?}"
        );
        assert!(
            short.contains(&"  … 1,047,781 more bytes; W shows more".to_owned()),
            "{short:?}"
        );
        assert!(
            short.len() < 25 && whole.len() < 1_200,
            "{} {}",
            short.len(),
            whole.len()
        );
        let lines = chain(serde_json::json!({
            "steps": [{"text": "", "tokens": 1, "reply_tokens": 0, "calls": [call("f", &"a\n".repeat(9), "answered")]}], "end": "answer"
        }));
        assert!(shown(&lines, &[], false).contains(&"  … 3 more bytes; W shows more".to_owned()));
    }

    #[test]
    fn requests_of_an_agent_say_what_they_follow() {
        let step = |text: &str| serde_json::json!({"text": text, "tokens": 5, "reply_tokens": 0, "calls": []});
        let message = |text: &str| serde_json::json!([{"role": "user", "content": text}]);
        let talk = chain(serde_json::json!({
            "steps": [step("one"), step("two"), step("three")], "end": "answer",
            "agent": {"exit_code": 0, "output": "{\"score\": 1}", "requests": [
                {"messages": message("the row")}, {"follows": 0, "messages": message("Go on.")},
                {"messages": message("Summarize."), "split": "another tool list"}, {"follows": 0, "messages": message("Again.")}]}
        }));
        assert_eq!(
            shown(&talk, &[], false),
            [
                "4 requests in 3 branches; ended: the model answered without",
                "a call",
                "the program ended with exit code 0; its last line: {\"score\":",
                "1}",
                "request 1  5 tokens",
                "one",
                "request 2  5 tokens",
                "user",
                "  Go on.",
                "two",
                "request 3, a branch of its own: another tool list  5 tokens",
                "user",
                "  Summarize.",
                "three",
                "request 4, after request 1  26 tokens",
                "user",
                "  Again.",
            ]
        );
    }
}
