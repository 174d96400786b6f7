//! C preprocessor directives and operators that change compiler reports, found as the compiler
//! does: after trigraphs, line splices and comments.

use super::edit::Edit;

/// Pragmas unrelated to warnings. All others are hidden.
const KEPT_PRAGMAS: [&str; 14] = [
    "STDC",
    "acc",
    "comment",
    "endregion",
    "ivdep",
    "mark",
    "omp",
    "once",
    "pack",
    "pop_macro",
    "push_macro",
    "region",
    "unroll",
    "weak",
];

/// Tokens after `_Pragma`, which takes one literal, or one made by a macro.
const MAX_OPERAND_TOKENS: usize = 64;

/// A reading of the source by standards and options. A checker's are unknown, so all are tried.
#[derive(Debug, Clone, Copy)]
struct Reading {
    has_trigraphs: bool,
    has_raw_strings: bool,
    has_digit_separators: bool,
    has_line_comments: bool,
    has_header_names: bool,
}

/// Length of a raw string's delimiter; compilers reject longer ones.
const MAX_DELIMITER: usize = 16;

pub(super) fn find(text: &[char]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let joined = [true, false].map(|has_trigraphs| joined_lines(text, has_trigraphs));
    let has_pair = |is: fn(char, char) -> bool| {
        let mut pairs = joined.iter().flat_map(|letters| letters.windows(2));
        pairs.any(|pair| is(pair[0].0, pair[1].0))
    };
    // Standards differ here.
    let is_open = [
        text.windows(2).any(|pair| pair == ['?', '?']),
        has_pair(|first, second| (first, second) == ('R', '"')),
        has_pair(|first, second| second == '\'' && (is_word(first) || first == '.')),
        has_pair(|first, second| (first, second) == ('/', '/')),
        text.contains(&'<'),
    ];
    let is_reading =
        |bits: &u8| (0..5_u8).all(|bit| bits & (1 << bit) == 0 || is_open[usize::from(bit)]);
    for bits in (0..32_u8).filter(is_reading) {
        let has = |bit: u8| bits & (1 << bit) == 0;
        let reading = Reading {
            has_trigraphs: has(0),
            has_raw_strings: has(1),
            has_digit_separators: has(2),
            has_line_comments: has(3),
            has_header_names: has(4),
        };
        let letters = &joined[usize::from(!reading.has_trigraphs)];
        edits.extend(Lexer::new(letters, text.len(), reading).edits());
    }
    edits
}

enum Token {
    Word(String),
    Number,
    Literal,
    Sign(char),
    LineEnd,
}

struct Lexer<'t> {
    reading: Reading,
    /// Characters after trigraphs and splices, each with its start in the source.
    letters: &'t [(char, usize)],
    /// Index in `letters`.
    at: usize,
    source_length: usize,
    /// Whether `<` begins a header's name.
    takes_header: bool,
    edits: Vec<Edit>,
}

impl<'t> Lexer<'t> {
    fn new(letters: &'t [(char, usize)], source_length: usize, reading: Reading) -> Self {
        Self {
            reading,
            letters,
            at: 0,
            source_length,
            takes_header: false,
            edits: Vec::new(),
        }
    }

    fn edits(mut self) -> Vec<Edit> {
        let mut is_line_start = true;
        loop {
            self.skip_space();
            let start = self.at;
            let Some(token) = self.next() else {
                return self.edits;
            };
            match token {
                Token::LineEnd => is_line_start = true,
                _ if is_line_start && self.is_hash(start) => {
                    self.directive(start);
                    is_line_start = false;
                }
                token => {
                    self.operator(&token, start);
                    is_line_start = false;
                }
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.letters.get(self.at + ahead).map(|(letter, _)| *letter)
    }

    fn letter(&self, at: usize) -> Option<char> {
        self.letters.get(at).map(|(letter, _)| *letter)
    }

    /// Position in the source of one of `letters`.
    fn place(&self, at: usize) -> usize {
        self.letters
            .get(at)
            .map_or(self.source_length, |(_, place)| *place)
    }

    /// `#` or its digraph; trigraphs are already replaced.
    fn is_hash(&self, at: usize) -> bool {
        self.letter(at) == Some('#')
            || (self.letter(at), self.letter(at + 1)) == (Some('%'), Some(':'))
    }

    fn skip_space(&mut self) {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    self.at += 2;
                    while self.at < self.letters.len()
                        && (self.peek(0), self.peek(1)) != (Some('*'), Some('/'))
                    {
                        self.at += 1;
                    }
                    self.at += 2;
                }
                (Some('/'), Some('/')) if self.reading.has_line_comments => {
                    while self.peek(0).is_some_and(|letter| letter != '\n') {
                        self.at += 1;
                    }
                }
                (Some(letter), _) if is_space(letter) => self.at += 1,
                _ => return,
            }
        }
    }

    /// The next token; expects no white space.
    fn next(&mut self) -> Option<Token> {
        let first = self.peek(0)?;
        let start = self.at;
        if first == '\n' {
            self.at += 1;
            self.takes_header = false;
            return Some(Token::LineEnd);
        }
        if first == '"' || first == '\'' {
            return Some(self.literal(first));
        }
        if first == '<' && self.takes_header {
            return Some(self.literal('>'));
        }
        if is_word(first) && !first.is_ascii_digit() {
            while self.peek(0).is_some_and(is_word) {
                self.at += 1;
            }
            let word = self.text(start, self.at);
            if self.peek(0) == Some('"') && word.ends_with('R') && self.reading.has_raw_strings {
                return Some(self.raw_string());
            }
            return Some(Token::Word(word));
        }
        let is_number = first.is_ascii_digit()
            || (first == '.' && self.peek(1).is_some_and(|next| next.is_ascii_digit()));
        if is_number {
            self.number();
            return Some(Token::Number);
        }
        self.at += if (first, self.peek(1)) == ('%', Some(':')) {
            2
        } else {
            1
        };
        Some(Token::Sign(first))
    }

    fn text(&self, start: usize, end: usize) -> String {
        let end = end.min(self.letters.len());
        self.letters[start..end]
            .iter()
            .map(|(letter, _)| letter)
            .collect()
    }

    fn literal(&mut self, close: char) -> Token {
        self.at += 1;
        while let Some(letter) = self.peek(0) {
            if letter == '\n' {
                break;
            }
            self.at += 1;
            if letter == close {
                break;
            }
            if letter == '\\' && close != '>' && self.peek(0) != Some('\n') {
                self.at += 1;
            }
        }
        Token::Literal
    }

    /// Reads from `"` on: `"x( .. )x"`.
    fn raw_string(&mut self) -> Token {
        let start = self.at;
        let mut end = start + 1;
        while self
            .letter(end)
            .is_some_and(|letter| !matches!(letter, '(' | '\n' | '"'))
        {
            end += 1;
        }
        if self.letter(end) != Some('(') || end - start - 1 > MAX_DELIMITER {
            return self.literal('"');
        }
        let close = format!("){}\"", self.text(start + 1, end));
        let length = close.chars().count();
        while end < self.letters.len() && self.text(end, end + length) != close {
            end += 1;
        }
        self.at = (end + length).min(self.letters.len());
        Token::Literal
    }

    fn number(&mut self) {
        while let Some(letter) = self.peek(0) {
            let next = self.peek(1);
            let is_exponent =
                matches!(letter, 'e' | 'E' | 'p' | 'P') && matches!(next, Some('+' | '-'));
            let is_separator = letter == '\''
                && self.reading.has_digit_separators
                && next.is_some_and(|next| next.is_ascii_alphanumeric() || next == '_');
            if is_exponent || is_separator {
                self.at += 2;
            } else if is_word(letter) || letter == '.' {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    /// Reads after `#` at the start of a line.
    fn directive(&mut self, start: usize) {
        self.takes_header = self.reading.has_header_names;
        self.skip_space();
        let name = self.at;
        let Some(token) = self.next() else {
            return;
        };
        match token {
            Token::LineEnd => self.at = name,
            Token::Number => self.blank_line(start),
            Token::Word(word) if matches!(word.as_str(), "line" | "nullable") => {
                self.blank_line(start);
            }
            Token::Word(word) if word == "pragma" => {
                self.skip_space();
                let kind = self.at;
                match self.next() {
                    Some(Token::Word(kind)) if KEPT_PRAGMAS.contains(&kind.as_str()) => {}
                    Some(_) => {
                        self.at = kind;
                        self.blank_line(start);
                    }
                    None => {}
                }
            }
            Token::Word(word) if matches!(word.as_str(), "include" | "include_next" | "import") => {
                self.header(name);
            }
            _ => {}
        }
    }

    /// A header path with `..` may be the answer itself read as a system header, which is not
    /// reported; one named by a macro may be too. Both are made invalid.
    fn header(&mut self, keyword: usize) {
        let end = self.at;
        self.skip_space();
        let operand = self.at;
        match self.next() {
            Some(Token::Literal) => {
                for at in operand..self.at.saturating_sub(1) {
                    if (self.letter(at), self.letter(at + 1)) == (Some('.'), Some('.')) {
                        for dot in [at, at + 1] {
                            let place = self.place(dot);
                            self.edits.push(Edit::cross_out(place..place + 1));
                        }
                    }
                }
            }
            Some(Token::Word(_)) => {
                let place = self.place(keyword)..self.place(end - 1) + 1;
                self.edits.push(Edit::cross_out(place));
            }
            Some(Token::LineEnd) => self.at = operand,
            _ => {}
        }
    }

    fn blank_line(&mut self, start: usize) {
        loop {
            self.skip_space();
            if self.peek(0).is_none_or(|letter| letter == '\n') {
                break;
            }
            self.next();
        }
        self.blank(start);
    }

    fn blank(&mut self, start: usize) {
        let range = self.place(start)..self.place(self.at);
        self.edits.push(Edit::blank(range));
    }

    /// `_Pragma ( .. )`, or the bare name.
    fn operator(&mut self, token: &Token, start: usize) {
        let is_pragma =
            matches!(token, Token::Word(word) if word == "_Pragma" || word == "__pragma");
        if !is_pragma {
            return;
        }
        let name_end = self.at;
        let mut depth = 0_usize;
        for count in 0.. {
            if count > MAX_OPERAND_TOKENS {
                self.at = name_end;
                break;
            }
            while self.peek(0) == Some('\n') && depth > 0 {
                self.at += 1;
            }
            self.skip_space();
            match self.next() {
                Some(Token::Sign('(')) => depth += 1,
                Some(Token::Sign(')')) if depth > 1 => depth -= 1,
                Some(Token::Sign(')')) if depth == 1 => break,
                Some(Token::LineEnd) if depth == 0 && self.is_call_ahead() => {}
                Some(_) if depth > 0 => {}
                _ => {
                    self.at = name_end;
                    break;
                }
            }
        }
        self.blank(start);
    }

    fn is_call_ahead(&self) -> bool {
        self.letters[self.at.min(self.letters.len())..]
            .iter()
            .map(|(letter, _)| *letter)
            .find(|letter| !is_space(*letter) && *letter != '\n')
            == Some('(')
    }
}

/// Characters seen by the compiler's lexer: without trigraphs and line continuations.
fn joined_lines(text: &[char], has_trigraphs: bool) -> Vec<(char, usize)> {
    let mut letters = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&letter) = text.get(at) {
        let trigraph = (has_trigraphs && letter == '?' && text.get(at + 1) == Some(&'?'))
            .then(|| trigraph(*text.get(at + 2)?))
            .flatten();
        let (shown, length) = trigraph.map_or((letter, 1), |shown| (shown, 3));
        if shown == '\\' {
            // Compilers allow white space between the backslash and the line end.
            let rest = &text[at + length..];
            let blanks = rest
                .iter()
                .take_while(|letter| is_space(**letter) && **letter != '\n')
                .count();
            if rest.get(blanks) == Some(&'\n') {
                at += length + blanks + 1;
                continue;
            }
        }
        letters.push((shown, at));
        at += length;
    }
    letters
}

fn trigraph(last: char) -> Option<char> {
    Some(match last {
        '=' => '#',
        '/' => '\\',
        '\'' => '^',
        '(' => '[',
        ')' => ']',
        '!' => '|',
        '<' => '{',
        '>' => '}',
        '-' => '~',
        _ => return None,
    })
}

/// White space within a line, including a carriage return without a line feed.
fn is_space(letter: char) -> bool {
    matches!(
        letter,
        ' ' | '\t' | '\u{b}' | '\u{c}' | '\r' | '\0' | '\u{feff}'
    )
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '$')
}
