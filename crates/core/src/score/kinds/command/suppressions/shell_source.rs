//! Code in strings of a shell script: `eval '..'`, `bash -c '..'`, here documents for a shell.
//! Moved into the place of the command, so that the checker reads it.

use std::collections::HashSet;
use std::ops::Range;

const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ksh", "ash", "zsh"];
/// Commands that run the following one.
const PREFIXES: [&str; 5] = ["command", "builtin", "exec", "nohup", "time"];
/// Keywords before a command.
const KEYWORDS: [&str; 9] = [
    "if", "then", "else", "elif", "while", "until", "do", "{", "!",
];
/// Names of standard input.
const STDIN: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

#[derive(Debug)]
struct Word {
    start: usize,
    end: usize,
    /// Characters with positions; `None` if only known at run time.
    text: Option<Vec<(char, usize)>>,
}

impl Word {
    fn value(&self) -> Option<String> {
        let text = self.text.as_ref()?;
        Some(text.iter().map(|(letter, _)| *letter).collect())
    }
}

struct HereDocument {
    /// Index of its command.
    command: usize,
    delimiter: String,
    is_literal: bool,
    strips_tabs: bool,
}

#[derive(Default)]
struct Command {
    words: Vec<Word>,
    /// Index of the command whose output it reads.
    reads_from: Option<usize>,
    bodies: Vec<Body>,
}

struct Body {
    text: Vec<(char, usize)>,
    operator: usize,
    end: usize,
}

/// Nested code in strings.
const MAX_NESTING: usize = 8;

pub(super) fn unwrap(text: &mut [char]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for _ in 0..MAX_NESTING {
        let commands = commands(text);
        let mut changed = Vec::new();
        let fed: HashSet<usize> = commands
            .iter()
            .filter(|command| reads_script(command))
            .filter_map(|command| command.reads_from)
            .collect();
        for (index, command) in commands.iter().enumerate() {
            changed.extend(unwrap_words(text, command));
            if reads_script(command) || fed.contains(&index) {
                changed.extend(unwrap_bodies(text, command));
            }
        }
        if changed.is_empty() {
            break;
        }
        found.append(&mut changed);
    }
    found
}

/// Index of the command's name, after assignments and prefix commands.
fn name_at(command: &Command) -> usize {
    let is_before = |word: &Word| match word.value() {
        Some(value) => {
            KEYWORDS.contains(&value.as_str())
                || PREFIXES.contains(&value.as_str())
                || value.split_once('=').is_some_and(|(name, _)| {
                    !name.is_empty()
                        && name
                            .chars()
                            .all(|letter| letter.is_alphanumeric() || letter == '_')
                })
        }
        None => false,
    };
    command
        .words
        .iter()
        .take_while(|word| is_before(word))
        .count()
}

fn base_name(word: &Word) -> Option<String> {
    Some(word.value()?.rsplit('/').next()?.to_owned())
}

fn reads_script(command: &Command) -> bool {
    let words = &command.words[name_at(command)..];
    let Some(name) = words.first().and_then(base_name) else {
        return false;
    };
    let mut arguments = words[1..]
        .iter()
        .map(|word| word.value().unwrap_or_default());
    if SHELLS.contains(&name.as_str()) {
        let is_option = |word: &String| {
            STDIN.contains(&word.as_str()) || (word.starts_with(['-', '+']) && !word.contains('c'))
        };
        return arguments.next().is_none_or(|first| is_option(&first));
    }
    matches!(name.as_str(), "source" | ".")
        && arguments
            .next()
            .is_some_and(|file| STDIN.contains(&file.as_str()))
}

/// `eval WORD ..` and `SHELL -c WORD ..`.
fn unwrap_words(text: &mut [char], command: &Command) -> Option<Range<usize>> {
    let first = name_at(command);
    let words = &command.words[first..];
    let name = base_name(words.first()?)?;
    let code: &[Word] = if name == "eval" {
        &words[1..]
    } else if SHELLS.contains(&name.as_str()) {
        let option = words[1..].iter().position(|word| {
            word.value().is_some_and(|word| {
                word.starts_with('-') && !word.starts_with("--") && word.contains('c')
            })
        })?;
        words.get(option + 2..option + 3)?
    } else {
        return None;
    };
    let mut decoded = Vec::new();
    for word in code {
        if let (Some(_), Some(before)) = (decoded.last(), word.start.checked_sub(1)) {
            decoded.push((' ', before));
        }
        decoded.extend(word.text.as_ref()?.iter().copied());
    }
    if decoded.is_empty() {
        return None;
    }
    let range = words[0].start..words.last()?.end;
    let breaks =
        |letters: &mut dyn Iterator<Item = char>| letters.filter(|letter| *letter == '\n').count();
    let has_same_lines = breaks(&mut text[range.clone()].iter().copied())
        == breaks(&mut decoded.iter().map(|(letter, _)| *letter));
    if !has_same_lines {
        return None;
    }
    blank(text, range.clone());
    place(text, &decoded);
    Some(range)
}

fn unwrap_bodies(text: &mut [char], command: &Command) -> Vec<Range<usize>> {
    let Some(start) = command.words.get(name_at(command)).map(|word| word.start) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for Body {
        text: decoded,
        operator,
        end,
    } in &command.bodies
    {
        let line_end = (*operator..text.len())
            .find(|at| text[*at] == '\n')
            .unwrap_or(text.len());
        // `bash <<'E'` becomes `:`.
        let operator_end = (*operator..line_end)
            .find(|at| matches!(text[*at], ';' | '|' | '&' | ')' | '>'))
            .unwrap_or(line_end);
        blank(text, start..operator_end);
        text[start] = ':';
        blank(text, line_end..*end);
        place(text, decoded);
        found.push(start..*end);
    }
    found
}

fn blank(text: &mut [char], range: Range<usize>) {
    for letter in text.get_mut(range).unwrap_or_default() {
        if *letter != '\n' {
            *letter = ' ';
        }
    }
}

/// Writes characters at their positions; where quotes were removed, preceding text moves right.
fn place(text: &mut [char], decoded: &[(char, usize)]) {
    let mut next: Option<usize> = None;
    for (letter, origin) in decoded.iter().rev() {
        let at = match (*letter, next) {
            ('\n', _) | (_, None) => *origin,
            (_, Some(next)) => next.saturating_sub(1),
        };
        if let Some(place) = text.get_mut(at).filter(|place| **place != '\n') {
            *place = *letter;
        }
        next = if *letter == '\n' { None } else { Some(at) };
    }
}

fn commands(text: &[char]) -> Vec<Command> {
    let mut commands = vec![Command::default()];
    let mut waiting: Vec<(HereDocument, usize)> = Vec::new();
    let mut at = 0;
    while let Some(&letter) = text.get(at) {
        let current = commands.len() - 1;
        match letter {
            '\n' => {
                at += 1;
                for (document, operator) in waiting.drain(..) {
                    at = read_body(text, at, &document, operator, &mut commands);
                }
                commands.push(Command::default());
            }
            '\\' if text.get(at + 1) == Some(&'\n') => at += 2,
            '#' => {
                while text.get(at).is_some_and(|letter| *letter != '\n') {
                    at += 1;
                }
            }
            ';' | '(' | ')' | '&' => {
                at += 1;
                commands.push(Command::default());
            }
            '|' => {
                let next = text.get(at + 1);
                let is_pipe = next != Some(&'|');
                at += if matches!(next, Some('|' | '&')) {
                    2
                } else {
                    1
                };
                commands.push(Command {
                    reads_from: is_pipe.then_some(current),
                    ..Command::default()
                });
            }
            '<' if text.get(at + 1) == Some(&'<') && text.get(at + 2) != Some(&'<') => {
                let operator = at;
                at += 2;
                let strips_tabs = text.get(at) == Some(&'-');
                at += usize::from(strips_tabs);
                while text
                    .get(at)
                    .is_some_and(|letter| matches!(letter, ' ' | '\t'))
                {
                    at += 1;
                }
                let word = read_word(text, at);
                let is_quoted = text[at..word.end]
                    .iter()
                    .any(|letter| matches!(letter, '\'' | '"' | '\\'));
                at = word.end.max(at + 1);
                if let Some(delimiter) = word.value() {
                    let document = HereDocument {
                        command: current,
                        delimiter,
                        is_literal: is_quoted,
                        strips_tabs,
                    };
                    waiting.push((document, operator));
                }
            }
            '<' | '>' => {
                // A redirection's file is not an argument.
                at += 1;
                while text
                    .get(at)
                    .is_some_and(|letter| matches!(letter, ' ' | '\t' | '<' | '>' | '&' | '|'))
                {
                    at += 1;
                }
                at = read_word(text, at).end.max(at);
            }
            _ if letter.is_whitespace() => at += 1,
            _ => {
                let word = read_word(text, at);
                at = word.end.max(at + 1);
                commands[current].words.push(word);
            }
        }
    }
    commands
}

fn read_body(
    text: &[char],
    start: usize,
    document: &HereDocument,
    operator: usize,
    commands: &mut [Command],
) -> usize {
    let mut at = start;
    loop {
        let line_end = (at..text.len())
            .find(|at| text[*at] == '\n')
            .unwrap_or(text.len());
        let line: String = text[at..line_end].iter().collect();
        let line = if document.strips_tabs {
            line.trim_start_matches('\t')
        } else {
            &line
        };
        if line == document.delimiter || line_end == text.len() {
            let body = &text[start..at];
            let decoded = if document.is_literal {
                let places = body.iter().enumerate();
                Some(
                    places
                        .map(|(place, letter)| (*letter, start + place))
                        .collect(),
                )
            } else {
                unescaped(body, start)
            };
            if let (Some(text), Some(command)) = (decoded, commands.get_mut(document.command)) {
                command.bodies.push(Body {
                    text,
                    operator,
                    end: line_end,
                });
            }
            return (line_end + 1).min(text.len());
        }
        at = line_end + 1;
    }
}

/// Unescapes text in which `$`, `` ` `` and `\` are special; `None` if one is unescaped.
fn unescaped(body: &[char], start: usize) -> Option<Vec<(char, usize)>> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while let Some(&letter) = body.get(at) {
        match letter {
            '$' | '`' => return None,
            '\\' if body
                .get(at + 1)
                .is_some_and(|next| matches!(next, '$' | '`' | '\\' | '"')) =>
            {
                at += 1;
                decoded.push((body[at], start + at));
            }
            _ => decoded.push((letter, start + at)),
        }
        at += 1;
    }
    Some(decoded)
}

fn read_word(text: &[char], start: usize) -> Word {
    let mut at = start;
    let mut decoded = Some(Vec::new());
    while let Some(&letter) = text.get(at) {
        match letter {
            '\'' => {
                let end = (at + 1..text.len())
                    .find(|end| text[*end] == '\'')
                    .unwrap_or(text.len());
                if let Some(decoded) = &mut decoded {
                    decoded.extend((at + 1..end).map(|place| (text[place], place)));
                }
                at = end + 1;
            }
            '"' => {
                let mut end = at + 1;
                while text.get(end).is_some_and(|letter| *letter != '"') {
                    end += if text[end] == '\\' { 2 } else { 1 };
                }
                let end = end.min(text.len());
                match (unescaped(&text[at + 1..end], at + 1), &mut decoded) {
                    (Some(inner), Some(decoded)) => decoded.extend(inner),
                    _ => decoded = None,
                }
                at = end + 1;
            }
            '\\' => {
                if let (Some(decoded), Some(&next)) = (&mut decoded, text.get(at + 1))
                    && next != '\n'
                {
                    decoded.push((next, at + 1));
                }
                at += 2;
            }
            '$' | '`' => {
                decoded = None;
                at += 1;
                if letter == '$' && text.get(at) == Some(&'{') {
                    at = (at..text.len())
                        .find(|end| text[*end] == '}')
                        .map_or(text.len(), |end| end + 1);
                }
            }
            ';' | '|' | '&' | '(' | ')' | '<' | '>' => break,
            _ if letter.is_whitespace() => break,
            _ => {
                if let Some(decoded) = &mut decoded {
                    decoded.push((letter, at));
                }
                at += 1;
            }
        }
    }
    Word {
        start,
        end: at.min(text.len()),
        text: decoded,
    }
}
