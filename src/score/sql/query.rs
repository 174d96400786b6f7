//! A query as text: parsed in its dialect, one statement that only reads.

use sqlparser::ast::{SetExpr, Statement};
use sqlparser::dialect::{Dialect, dialect_from_str};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Tokenizer};

/// Tokens of a query at most. A tree of them is taken apart recursively, so this bounds the stack.
const MOST_TOKENS: usize = 4_000;
/// Bytes of a query at most.
const MOST_BYTES: usize = 64 << 10;

/// Why a text is not a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotParsed {
    pub(super) message: String,
    /// 1-based, within the text.
    pub(super) line: usize,
    /// 1-based, in characters.
    pub(super) column: usize,
    /// Whether the text ends too early.
    pub(super) is_truncated: bool,
}

/// What is known of a query without running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parsed {
    /// It reads and does nothing else.
    pub(super) is_query: bool,
    /// Its rows have an order: `ORDER BY` at its top.
    pub(super) is_ordered: bool,
}

pub(super) fn dialect(name: &str) -> Option<Box<dyn Dialect>> {
    dialect_from_str(name)
}

/// Parses one statement, with or without a semicolon at its end.
pub(super) fn parse(dialect: &dyn Dialect, text: &str) -> Result<Parsed, NotParsed> {
    let at = |message: String, line: usize, column: usize| NotParsed { message, line, column, is_truncated: false };
    if text.len() > MOST_BYTES {
        return Err(at(format!("the query is longer than {} KiB", MOST_BYTES >> 10), 1, 1));
    }
    let tokens = Tokenizer::new(dialect, text).tokenize_with_location().map_err(|error| NotParsed {
        is_truncated: error.message.starts_with("Unterminated"),
        ..at(error.message, error.location.line as usize, error.location.column as usize)
    })?;
    let mut meant = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    if let Some(token) = meant.clone().nth(MOST_TOKENS) {
        let place = token.span.start;
        return Err(at(
            format!("the query has more than {MOST_TOKENS} tokens"),
            place.line as usize,
            place.column as usize,
        ));
    }
    let last = meant.next_back().map(|token| token.span.end);
    let mut parser = Parser::new(dialect).with_tokens_with_locations(tokens);
    let mut statements = parser.parse_statements().map_err(|error| {
        let message = match error {
            ParserError::RecursionLimitExceeded => "the query is nested too deep".to_owned(),
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        };
        let end = last.map_or((1, 1), |end| (end.line as usize, end.column as usize));
        let (message, place) = split_place(&message);
        let is_truncated = message.contains("found: EOF");
        let (line, column) = place.unwrap_or(end);
        NotParsed { message: message.replace("EOF", "the end").chars().take(300).collect(), line, column, is_truncated }
    })?;
    if statements.len() > 1 {
        return Err(at(format!("{} statements; one query is asked for", statements.len()), 1, 1));
    }
    let Some(statement) = statements.pop() else { return Err(at("no query in the text".to_owned(), 1, 1)) };
    Ok(match &statement {
        Statement::Query(query) => {
            let reads = reads(&query.body) && query.locks.is_empty();
            Parsed { is_query: reads, is_ordered: query.order_by.is_some() }
        }
        _ => Parsed { is_query: false, is_ordered: false },
    })
}

/// `INSERT`, `UPDATE` and the like may stand after `WITH`.
fn reads(body: &SetExpr) -> bool {
    !matches!(body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_))
}

/// `message at Line: 1, Column: 5` as message and place.
fn split_place(message: &str) -> (String, Option<(usize, usize)>) {
    let found = message.rsplit_once(" at Line: ").and_then(|(text, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((text.to_owned(), (line.parse().ok()?, column.trim().parse().ok()?)))
    });
    found.map_or((message.to_owned(), None), |(text, place)| (text, Some(place)))
}
