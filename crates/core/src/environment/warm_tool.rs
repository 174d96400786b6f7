//! Stateless programs (`stateless = true`): a process serves conversations in turn.

use std::sync::Arc;

use parking_lot::Mutex;

use super::calls::ToolCall;
use super::live_tool::{LiveTool, RawReply};

/// Idle processes: at most as many as there were parallel conversations.
#[derive(Debug, Default)]
pub(super) struct IdleTools(Mutex<Vec<Box<dyn LiveTool>>>);

/// A process that becomes idle again when dropped.
#[derive(Debug)]
pub(super) struct WarmTool {
    idle: Arc<IdleTools>,
    /// `None` only during drop.
    tool: Option<Box<dyn LiveTool>>,
}

impl IdleTools {
    /// Reuses a running process, or calls `start`.
    pub(super) fn open(
        self: &Arc<Self>,
        start: impl FnOnce() -> Result<Box<dyn LiveTool>, String>,
    ) -> Result<Box<dyn LiveTool>, String> {
        let mut found = self.pop();
        while found.as_mut().is_some_and(|tool| !tool.is_idle()) {
            found = self.pop();
        }
        let tool = found.map_or_else(start, Ok)?;
        Ok(Box::new(WarmTool {
            idle: Arc::clone(self),
            tool: Some(tool),
        }))
    }

    fn pop(&self) -> Option<Box<dyn LiveTool>> {
        self.0.lock().pop()
    }
}

impl LiveTool for WarmTool {
    fn call(&mut self, calls: &[&ToolCall]) -> Vec<RawReply> {
        self.tool
            .as_mut()
            .map_or_else(Vec::new, |tool| tool.call(calls))
    }
}

impl Drop for WarmTool {
    fn drop(&mut self) {
        self.idle.0.lock().extend(self.tool.take());
    }
}
