//! Tools that rows bring along, compiled once for each content.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::super::ScoreError;
use super::tools::Tools;

/// Compiled functions that are kept at most; a group of completions asks for the same ones.
const MAX_FUNCTIONS: usize = 1_000;

type Compiled = Result<Arc<Tools>, String>;

#[derive(Debug)]
pub(super) struct OwnTools {
    assert_formats: bool,
    kept: Mutex<CacheEntry>,
}

#[derive(Debug, Default)]
struct CacheEntry {
    by_content: HashMap<Value, Compiled>,
    functions: usize,
}

impl OwnTools {
    pub(super) fn new(assert_formats: bool) -> Self {
        Self {
            assert_formats,
            kept: Mutex::default(),
        }
    }

    /// # Errors
    /// A sentence: what is wrong, and at which JSON pointer.
    pub(super) fn compiled(&self, tools: &Value) -> Compiled {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().by_content.get(tools) {
            return known.clone();
        }
        // Not under the lock: other threads go on.
        let compiled = Tools::compile("", "", tools, self.assert_formats)
            .map(Arc::new)
            .map_err(|error| match error {
                ScoreError::Schema {
                    pointer, message, ..
                } => format!("`tools`{pointer} of the row: {message}"),
                other => format!("`tools` of the row: {other}"),
            });
        let mut kept = lock();
        let functions = compiled.as_ref().map_or(1, |tools| tools.len().max(1));
        if kept.functions + functions > MAX_FUNCTIONS {
            *kept = CacheEntry::default();
        }
        kept.functions += functions;
        kept.by_content.insert(tools.clone(), compiled.clone());
        compiled
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tools_of_one_content_are_compiled_once_and_few_are_kept() {
        let own = OwnTools::new(false);
        let tools = |number: usize| json!([{"name": format!("f{number}")}, {"name": "g"}]);
        let first = own.compiled(&tools(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &own.compiled(&tools(0)).unwrap()));
        for number in 1..=MAX_FUNCTIONS {
            own.compiled(&tools(number)).unwrap();
            let kept = own.kept.lock().unwrap();
            assert!(kept.functions <= MAX_FUNCTIONS && kept.by_content.len() <= MAX_FUNCTIONS / 2);
        }
        assert!(!Arc::ptr_eq(&first, &own.compiled(&tools(0)).unwrap()));
        assert_eq!(
            own.compiled(&json!([{"name": "f", "parameters": {"type": "text"}}]))
                .unwrap_err(),
            "`tools`/0/parameters/type of the row: \"text\" is not a type; the types are array, boolean, integer, null, number, object and string"
        );
    }
}
