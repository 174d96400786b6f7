//! Allows null in fields whose values an answer must make up.

use super::Schema;
use crate::score::audit::to_allow_null;
use crate::score::with_null;
use crate::shared::Shared;

pub(super) fn nothing_made_up(schema: &Schema) -> Option<String> {
    let fields = schema.degenerate.as_deref().map(to_allow_null);
    fields
        .is_none_or(|fields| fields.is_empty())
        .then(|| "no field has to be made up".to_owned())
}

/// Changes the editor's text, an edit like any other: undone by undo, written by save. Returns
/// whether it did.
pub(super) fn allow_null(schema: &mut Schema, shared: &mut Shared) -> bool {
    let fields = schema.degenerate.as_deref().map(to_allow_null);
    let fields = fields.unwrap_or_default();
    let old = schema.editor.text();
    let (save, undo) = (shared.key_of("schema.save"), shared.key_of("schema.undo"));
    match with_null(&old, &fields) {
        Ok(text) if text == old => {
            shared.say(format!("{} may be null already", fields.join(", ")));
            false
        }
        Ok(text) => {
            schema.editor.replace(&text);
            shared.say(format!(
                "null allowed in {}: {save} saves, {undo} undoes",
                fields.join(", ")
            ));
            true
        }
        Err(why) => {
            shared.complain(why);
            false
        }
    }
}
