//! A page as values of `report/templates/parts.html`, which masks and escapes them.

use serde_json::{Value, json};

use super::{Block, Level};

pub fn values(page: &[Block]) -> Vec<Value> {
    page.iter().map(block).collect()
}

/// Every key is there: an unknown name in a template is an error.
fn block(block: &Block) -> Value {
    let mut value = json!({"heading": "", "text": "", "class": "", "items": [], "titles": [], "rows": [], "align": "lr"});
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
            value["rows"] = found.texts().collect();
            (value["titles"], value["align"]) = (json!(found.head), json!(found.align));
        }
    }
    value
}

fn class(level: Level) -> &'static str {
    match level {
        Level::Good => "good",
        Level::Request | Level::Warning | Level::Error => "bad",
        Level::Step => "soft",
        _ => "",
    }
}
