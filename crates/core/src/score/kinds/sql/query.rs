//! Parses a query: a single read-only statement of a dialect.

use sqlparser::ast::{
    Expr, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, Value,
};
use sqlparser::dialect::{Dialect, dialect_from_str};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

/// Limit per query. Bounds the stack, as the syntax tree is dropped recursively.
const MAX_TOKENS: usize = 4_000;
/// Limit per query.
const MAX_BYTES: usize = 64 << 10;

/// First keywords of queries in some dialect.
const QUERY_STARTS: [Keyword; 7] = [
    Keyword::SELECT,
    Keyword::WITH,
    Keyword::VALUES,
    Keyword::FROM,
    Keyword::TABLE,
    Keyword::PIVOT,
    Keyword::UNPIVOT,
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueryError {
    pub(super) message: String,
    /// 1-based, within the text.
    pub(super) line: usize,
    /// 1-based, in characters.
    pub(super) column: usize,
    /// Whether the text ends too early.
    pub(super) is_truncated: bool,
    /// Whether no grammar accepts it: the parser's may lack parts of the dialect.
    pub(super) is_certain: bool,
}

impl QueryError {
    fn at(message: String, line: usize, column: usize) -> Self {
        Self {
            message,
            line,
            column,
            is_truncated: false,
            is_certain: true,
        }
    }

    pub(super) fn by_sqlite(message: String, text: &str, offset: Option<usize>) -> Self {
        let (line, column) = crate::format::line_column(text, offset.unwrap_or(text.len()));
        Self {
            is_truncated: offset.is_none(),
            ..Self::at(message, line, column)
        }
    }

    pub(super) fn offset(&self, text: &str) -> usize {
        let lines = text
            .split_inclusive('\n')
            .take(self.line.saturating_sub(1))
            .map(str::len)
            .sum::<usize>();
        let rest = text.get(lines..).unwrap_or_default();
        lines
            + rest
                .chars()
                .take(self.column.saturating_sub(1))
                .map(char::len_utf8)
                .sum::<usize>()
    }
}

/// Static properties of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Read-only; for an unparsable statement, whether it begins like a query.
    pub(super) is_query: bool,
    /// Has a top-level `ORDER BY`.
    pub(super) is_ordered: bool,
    pub(super) refused: Option<QueryError>,
}

pub(super) fn dialect(name: &str) -> Option<Box<dyn Dialect>> {
    dialect_from_str(name)
}

/// Parses one statement with an optional semicolon.
///
/// # Errors
/// No statement, several, or one beyond the limits.
pub(super) fn parse(dialect: &dyn Dialect, text: &str) -> Result<Parsed, QueryError> {
    if text.len() > MAX_BYTES {
        return Err(QueryError::at(
            format!("the query is longer than {} KiB", MAX_BYTES >> 10),
            1,
            1,
        ));
    }
    let mut tokens = Vec::new();
    let scanned = Tokenizer::new(dialect, text).tokenize_with_location_into_buf(&mut tokens);
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    if let Some(token) = tokens.get(MAX_TOKENS) {
        let (line, column) = (
            token.span.start.line as usize,
            token.span.start.column as usize,
        );
        return Err(QueryError::at(
            format!("the query has more than {MAX_TOKENS} tokens"),
            line,
            column,
        ));
    }
    let outline = Outline::from_tokens(&tokens);
    if let Err(error) = scanned {
        let is_truncated = error.message.starts_with("Unterminated");
        let (line, column) = (error.location.line as usize, error.location.column as usize);
        return Ok(outline.refused(QueryError {
            is_truncated,
            ..QueryError::at(error.message, line, column)
        }));
    }
    let mut statements = match Parser::new(dialect)
        .with_tokens_with_locations(tokens.clone())
        .parse_statements()
    {
        Ok(statements) => statements,
        Err(error) => {
            let refusal = refusal(error, &tokens, &outline);
            return Ok(outline.refused(refusal));
        }
    };
    if statements.len() > 1 {
        return Err(QueryError::at(
            format!("{} statements; write one query", statements.len()),
            1,
            1,
        ));
    }
    let Some(statement) = statements.pop() else {
        return Err(QueryError::at("no query in the text".to_owned(), 1, 1));
    };
    let (is_query, is_ordered) = match &statement {
        Statement::Query(query) => (
            reads(&query.body) && query.locks.is_empty(),
            query.order_by.is_some(),
        ),
        _ => (false, false),
    };
    Ok(Parsed {
        is_query,
        is_ordered,
        refused: None,
    })
}

/// Candidate queries that add each row's rank in a last column: rows with equal sort keys share a
/// rank. Running them shows which one works. `columns`: of the query's result.
pub(super) fn ranked(dialect: &dyn Dialect, text: &str, columns: &[String]) -> Vec<String> {
    let statement = Parser::parse_sql(dialect, text)
        .ok()
        .and_then(|mut all| all.pop());
    let Some(Statement::Query(query)) = statement else {
        return Vec::new();
    };
    let Some(OrderByKind::Expressions(terms)) = query.order_by.as_ref().map(|order| &order.kind)
    else {
        return Vec::new();
    };
    let mut texts = Vec::new();
    if let SetExpr::Select(select) = &*query.body
        && select.distinct.is_none()
        && let Some(rank) = rank(terms, |term| selected(select, term))
    {
        let mut select = select.clone();
        select
            .projection
            .push(SelectItem::UnnamedExpr(Expr::Identifier(
                rank.as_str().into(),
            )));
        let query = Query {
            body: Box::new(SetExpr::Select(select)),
            ..(*query).clone()
        };
        texts.push(query.to_string());
    }
    // With DISTINCT or set operations, sort keys are columns of the result.
    let named = |number: usize| {
        let name = columns.get(number)?;
        Some(Expr::Identifier(sqlparser::ast::Ident::with_quote(
            '"', name,
        )))
    };
    let column = |term: &Expr| match ordinal(term) {
        Some(number) => named(number),
        None => Some(term.clone()),
    };
    if let Some(rank) = rank(terms, column) {
        let rows = Query {
            with: None,
            order_by: None,
            limit_clause: None,
            ..(*query).clone()
        };
        let with = query.with.as_ref().map(|with| format!("{with} "));
        let limit = query.limit_clause.as_ref().map(ToString::to_string);
        texts.push(format!(
            "{}SELECT *, {rank} FROM ({rows}) {}{}",
            with.unwrap_or_default(),
            query
                .order_by
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            limit.unwrap_or_default()
        ));
    }
    texts
}

/// A row's rank as SQL; `meant` resolves terms of `ORDER BY`.
fn rank(terms: &[OrderByExpr], meant: impl Fn(&Expr) -> Option<Expr>) -> Option<String> {
    let term = |term: &OrderByExpr| {
        let expr = meant(&term.expr)?;
        Some(
            OrderByExpr {
                expr,
                ..term.clone()
            }
            .to_string(),
        )
    };
    let terms = terms.iter().map(term).collect::<Option<Vec<_>>>()?;
    Some(format!("dense_rank() OVER (ORDER BY {})", terms.join(", ")))
}

/// Resolves a term of `ORDER BY`: a result column by number or alias, else itself.
fn selected(select: &Select, term: &Expr) -> Option<Expr> {
    if let Some(number) = ordinal(term) {
        let is_expression = |item: &SelectItem| {
            matches!(
                item,
                SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
            )
        };
        let items = select.projection.get(..=number)?;
        return match items.last()? {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }
                if items.iter().all(is_expression) =>
            {
                Some(expr.clone())
            }
            _ => None,
        };
    }
    let aliased = |item: &SelectItem| match (item, term) {
        (SelectItem::ExprWithAlias { expr, alias }, Expr::Identifier(name))
            if alias.value.eq_ignore_ascii_case(&name.value) =>
        {
            Some(expr.clone())
        }
        _ => None,
    };
    let named = select.projection.iter().find_map(aliased);
    Some(named.unwrap_or_else(|| term.clone()))
}

/// Result column of an integer, from 0.
fn ordinal(term: &Expr) -> Option<usize> {
    let Expr::Value(value) = term else {
        return None;
    };
    match &value.value {
        Value::Number(number, _) => number.parse::<usize>().ok()?.checked_sub(1),
        _ => None,
    }
}

/// Properties of a statement by its tokens.
struct Outline {
    is_query: bool,
    is_ordered: bool,
    is_balanced: bool,
}

impl Outline {
    fn from_tokens(tokens: &[TokenWithSpan]) -> Self {
        let keyword = |token: Option<&TokenWithSpan>| match token.map(|token| &token.token) {
            Some(Token::Word(word)) => word.keyword,
            _ => Keyword::NoKeyword,
        };
        let (mut depth, mut is_ordered, mut is_balanced) = (0_i64, false, true);
        for (index, token) in tokens.iter().enumerate() {
            depth += match token.token {
                Token::LParen => 1,
                Token::RParen => -1,
                _ => 0,
            };
            is_balanced &= depth >= 0;
            let is_order = keyword(Some(token)) == Keyword::ORDER
                && keyword(tokens.get(index + 1)) == Keyword::BY;
            is_ordered |= is_order && depth == 0;
        }
        let first = tokens.iter().find(|token| token.token != Token::LParen);
        let is_query = QUERY_STARTS.contains(&keyword(first));
        Self {
            is_query,
            is_ordered,
            is_balanced: is_balanced && depth == 0,
        }
    }

    fn refused(self, why: QueryError) -> Parsed {
        Parsed {
            is_query: self.is_query,
            is_ordered: self.is_ordered,
            refused: Some(why),
        }
    }
}

fn refusal(error: ParserError, tokens: &[TokenWithSpan], outline: &Outline) -> QueryError {
    let message = match error {
        ParserError::RecursionLimitExceeded => "the query is nested too deep".to_owned(),
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
    };
    let start = |token: &TokenWithSpan| {
        (
            token.span.start.line as usize,
            token.span.start.column as usize,
        )
    };
    let end = tokens.last().map_or((1, 1), |last| {
        (last.span.end.line as usize, last.span.end.column as usize)
    });
    let (message, place) = split_place(&message);
    let is_truncated = message.contains("found: EOF");
    let (line, column) = place.unwrap_or(end);
    let is_stray = |token: &TokenWithSpan| {
        matches!(token.token, Token::Char(_)) && start(token) == (line, column)
    };
    let is_certain = is_truncated
        || !outline.is_balanced
        || (!outline.is_query && (line, column) == (1, 1))
        || tokens.iter().any(is_stray);
    let message = message
        .replace("EOF", "the end")
        .chars()
        .take(300)
        .collect();
    QueryError {
        message,
        line,
        column,
        is_truncated,
        is_certain,
    }
}

/// `INSERT`, `UPDATE` etc. may follow `WITH`.
fn reads(body: &SetExpr) -> bool {
    !matches!(
        body,
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
    )
}

/// Splits `message at Line: 1, Column: 5`.
fn split_place(message: &str) -> (String, Option<(usize, usize)>) {
    let found = message.rsplit_once(" at Line: ").and_then(|(text, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((
            text.to_owned(),
            (line.parse().ok()?, column.trim().parse().ok()?),
        ))
    });
    found.map_or((message.to_owned(), None), |(text, place)| {
        (text, Some(place))
    })
}
