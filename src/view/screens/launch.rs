//! Screen: A new run.

use super::ScreenParts;

/// The screen's own part of the model.
#[derive(Debug, Default)]
pub struct Launch {}

/// The screen.
pub const PARTS: ScreenParts = ScreenParts { title: "Launch", help: "A new run.", ..ScreenParts::PLAIN };
