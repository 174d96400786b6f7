//! Calls of any format as a JSON list of `{"name", "arguments"}`.

use std::ops::{Deref, DerefMut, Range};

use super::super::transcript::Transcript;

/// The list without its brackets, as far as it is written: calls, with commas between.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CallList {
    calls: Transcript,
    /// The name of the last call that begins with it, and where its arguments are.
    last: Option<(String, Range<usize>)>,
}

impl Deref for CallList {
    type Target = Transcript;

    fn deref(&self) -> &Transcript {
        &self.calls
    }
}

impl DerefMut for CallList {
    fn deref_mut(&mut self) -> &mut Transcript {
        &mut self.calls
    }
}

impl CallList {
    /// The whole list.
    pub(super) fn into_list(self) -> Transcript {
        self.calls.into_list()
    }

    /// The name of the last call, where that is known before its arguments.
    pub(super) fn name(&self) -> Option<String> {
        self.last.as_ref().map(|(name, _)| name.clone())
    }

    /// What is written of the last call from its arguments on, where its name is known before.
    pub(super) fn arguments(&self) -> Option<&str> {
        let json = self.json();
        self.last
            .as_ref()
            .and_then(|(_, range)| json.get(range.start..range.end.min(json.len())))
    }

    /// Begins a call that is copied whole.
    pub(super) fn begin_call(&mut self, at: usize) {
        let comma = if self.json().is_empty() { "" } else { ", " };
        self.literal(comma, at);
    }

    /// Begins a call, up to its arguments; [`Self::end_call`] ends it.
    pub(super) fn begin_named(&mut self, text: &str, name: Range<usize>) {
        self.begin_call(name.start);
        self.literal("{\"name\": ", name.start);
        self.string(&text[name.clone()], name.start);
        self.literal(", \"arguments\": ", name.end);
        self.last = Some((text[name].to_owned(), self.json().len()..usize::MAX));
    }

    pub(super) fn end_call(&mut self, at: usize) {
        let end = self.json().len();
        self.last.iter_mut().for_each(|(_, range)| range.end = end);
        self.literal("}", at);
    }
}
