//! A page as Markdown, for a pull request. The caller masks secrets.

use super::text::mark;
use super::{Block, Cell, Level, Row, letters};
use crate::secrets::visible;

pub fn render(page: &[Block]) -> String {
    page.iter().map(block).collect()
}

fn block(block: &Block) -> String {
    match block {
        Block::Heading(text) => format!("\n#### {}\n", line(text)),
        Block::Finding(level, text) => format!("\n{}{}\n", mark(*level), line(text)),
        Block::Text(Level::Good | Level::Warning | Level::Error, text) => {
            format!("\n**{}**\n", line(text))
        }
        Block::Text(_, text) => format!("\n{}\n", line(text)),
        Block::List(items) => {
            let items = items.iter().map(|item| format!("- {}\n", line(item)));
            format!("\n{}", items.collect::<String>())
        }
        Block::Facts(_) | Block::Bars(_) | Block::Table(_) => {
            let Some(found) = block.table() else {
                return String::new();
            };
            let row = |row: &Row| {
                let cells = row.cells.iter().map(|cell| match cell {
                    Cell::Text(text) => line(text),
                    _ => cell.to_string(),
                });
                std::iter::once(line(&row.label)).chain(cells).collect()
            };
            let rows: Vec<Vec<String>> = found.rows.iter().map(row).collect();
            let mut head = escaped(&found.head);
            head.resize(rows.first().map_or(head.len(), Vec::len), String::new());
            table(&head, &rows, found.align)
        }
    }
}

/// Its cells are escaped; `align` has a letter per column, `r` for right.
pub fn table(head: &[String], rows: &[Vec<String>], align: &str) -> String {
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let letters = letters(align).take(head.len());
    let rule: String = letters
        .map(|letter| if letter == 'r' { "---:|" } else { "---|" })
        .collect();
    std::iter::once(format!("\n{}|{rule}\n", row(head)))
        .chain(rows.iter().map(|cells| row(cells)))
        .collect()
}

pub fn escaped(cells: &[String]) -> Vec<String> {
    cells.iter().map(|cell| line(cell)).collect()
}

/// One line of text that cannot begin a cell, a link or markup of its own. An underscore inside a word is none: escaped,
/// it would hide a secret from who masks them.
pub fn line(text: &str) -> String {
    let (text, mut escaped) = (visible(text), String::new());
    let mut letters = text.chars().peekable();
    let mut is_in_word = false;
    while let Some(letter) = letters.next() {
        let continues = is_in_word && letters.peek().is_some_and(|next| next.is_alphanumeric());
        if "\\`*_[]<>|#".contains(letter) && !(letter == '_' && continues) {
            escaped.push('\\');
        }
        is_in_word = letter.is_alphanumeric() || (letter == '_' && is_in_word);
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_cell_without_markup() {
        assert_eq!(
            line("a|b\n<i>_x_ [y](z)"),
            "a\\|b␊\\<i\\>\\_x\\_ \\[y\\](z)"
        );
        assert_eq!(line("ghp_ab_c __d e_"), "ghp_ab_c \\_\\_d e\\_");
    }
}
