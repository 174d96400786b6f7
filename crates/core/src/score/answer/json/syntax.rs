//! JSON syntax errors: each has its own name and sentence.

use std::fmt;

/// Nesting of arrays and objects.
pub const MAX_DEPTH: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub reason: Syntax,
    /// Byte offset of the offending character (the text's length at an early end).
    pub offset: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// The text is only white space.
    Empty,
    ByteOrderMark,
    Fence,
    NoValue,
    TextBefore,
    TextAfter,
    Truncated,
    /// `NaN`
    NotANumber,
    /// `Infinity`, `-Infinity`
    Infinity,
    /// `True`, `False`, `None`, `undefined` or another bare word.
    BareWord,
    /// `,` before `]` or `}`.
    TrailingComma,
    /// `//`, `/*` or `#`.
    Comment,
    /// `'` in place of `"`.
    SingleQuote,
    KeyWithoutQuotes,
    MissingColon,
    /// No `,` or closing bracket after an item or member.
    MissingComma,
    WrongBracket,
    /// A number such as `01`.
    LeadingZero,
    /// A number such as `+1`.
    PlusSign,
    /// A number that begins or ends with its point, or lacks digits after `e` or `-`.
    IncompleteNumber,
    /// An unescaped control character in a string.
    ControlCharacter(u8),
    BadEscape,
    /// `\u` without four hexadecimal digits.
    BadUnicodeEscape,
    /// Half of a surrogate pair.
    LoneSurrogate,
    /// More than [`MAX_DEPTH`] levels.
    TooDeep,
    Unexpected(char),
}

impl fmt::Display for Syntax {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            Self::Empty => "the completion is empty",
            Self::ByteOrderMark => "byte order mark before the JSON value",
            Self::Fence => "Markdown fence before the JSON value",
            Self::NoValue => "no JSON value in the text",
            Self::TextBefore => "text before the JSON value",
            Self::TextAfter => "text after the JSON value",
            Self::Truncated => "the text ends inside the JSON value",
            Self::NotANumber => "NaN is not JSON",
            Self::Infinity => "Infinity is not JSON",
            Self::BareWord => "a bare word is not a JSON value (only true, false and null are)",
            Self::TrailingComma => "trailing comma",
            Self::Comment => "JSON has no comments",
            Self::SingleQuote => "strings take double quotes, not single ones",
            Self::KeyWithoutQuotes => "a key must be a string in double quotes",
            Self::MissingColon => "a colon is missing after the key",
            Self::MissingComma => "a comma or the closing bracket is missing",
            Self::WrongBracket => "the closing bracket does not match the opening one",
            Self::LeadingZero => "a number must not begin with a zero that other digits follow",
            Self::PlusSign => "a number must not begin with a plus sign",
            Self::IncompleteNumber => "the number is incomplete: a digit is missing",
            Self::ControlCharacter(byte) => {
                return write!(
                    formatter,
                    "control character U+{byte:04X} in a string must be escaped"
                );
            }
            Self::BadEscape => "JSON has no such escape in strings",
            Self::BadUnicodeEscape => "\\u needs four hexadecimal digits",
            Self::LoneSurrogate => "unpaired surrogate",
            Self::TooDeep => return write!(formatter, "nested deeper than {MAX_DEPTH} levels"),
            Self::Unexpected(character) => {
                return write!(formatter, "unexpected character {character:?}");
            }
        };
        formatter.write_str(sentence)
    }
}
