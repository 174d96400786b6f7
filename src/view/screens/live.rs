//! Screen: A run as it goes.

use super::ScreenParts;

/// The screen's own part of the model.
#[derive(Debug, Default)]
pub struct Live {}

/// The screen.
pub const PARTS: ScreenParts = ScreenParts { title: "Live", help: "A run as it goes.", ..ScreenParts::PLAIN };
