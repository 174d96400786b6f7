//! A build without `serve` runs no agents.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender};

use super::conversing::{Conversing, Ended};

impl Conversing<'_> {
    pub(super) fn run_agents(&self, _: &Mutex<Receiver<usize>>, _: &Sender<Ended>) {}
}
