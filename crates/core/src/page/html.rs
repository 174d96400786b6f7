//! A page as values of `report/templates/parts.html`, which masks and escapes them.

use serde_json::{Value, json};

use super::{Block, Level, letters};

pub fn values(page: &[Block]) -> Vec<Value> {
    page.iter().map(block).collect()
}

/// Every key is there: an unknown name in a template is an error.
fn block(block: &Block) -> Value {
    let mut value = json!({"heading": "", "text": "", "class": "", "items": [], "titles": [], "rows": [], "classes": []});
    match block {
        Block::Heading(text) => value["heading"] = json!(text),
        Block::Text(level, text) | Block::Finding(level, text) => {
            (value["text"], value["class"]) = (json!(text), json!(class(*level)));
        }
        Block::List(items) => value["items"] = json!(items),
        Block::Facts(_) | Block::Bars(_) | Block::Table(_) => {
            let Some(found) = block.table() else {
                return value;
            };
            let rows: Vec<Vec<String>> = found.texts().collect();
            let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
            value["classes"] = (0..columns.max(found.head.len()))
                .zip(letters(found.align))
                .map(|(column, letter)| {
                    let side = found.levels.get(column).map_or("", |level| class(*level));
                    let right = if letter == 'r' { "right " } else { "" };
                    format!("{right}{side}").trim_end().to_owned()
                })
                .collect();
            (value["titles"], value["rows"]) = (json!(found.head), json!(rows));
        }
    }
    value
}

fn class(level: Level) -> &'static str {
    match level {
        Level::Good => "good",
        Level::Request | Level::Warning | Level::Error => "bad",
        Level::Step => "soft",
        Level::Base => "base",
        Level::Trained => "trained",
        Level::Info => "",
    }
}
