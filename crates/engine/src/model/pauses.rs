//! Breaks in a forward pass, for what else the device has to do.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Rows through one layer between two breaks: about 8 ms of an H200 with a layer of Qwen3-8B.
const ROWS: usize = 8192;
/// A row through the head costs about as much as through this many layers.
const LAYERS_OF_HEAD: usize = 4;
/// A row whose logits the host reads, as much as this many: 0.6 MB of Qwen3-8B.
const LAYERS_OF_LOGITS: usize = 128;

/// Where a forward pass may be broken: whoever polls it decides when it goes on.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    /// Since the last break, counted by layer.
    rows: usize,
}

impl Pauses {
    pub(crate) async fn after(&mut self, rows: usize) {
        self.rows += rows;
        if self.rows < ROWS {
            return;
        }
        self.rows = 0;
        let mut has_paused = false;
        poll_fn(|_| match std::mem::replace(&mut has_paused, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    pub(crate) async fn after_head(&mut self, rows: usize) {
        self.after(rows * LAYERS_OF_HEAD).await;
    }

    pub(crate) async fn after_logits(&mut self, rows: usize) {
        self.after(rows * LAYERS_OF_LOGITS).await;
    }
}

/// Goes on after each break of a reading until its end.
pub fn without_breaks<T>(reading: impl Future<Output = T>) -> T {
    let mut reading = pin!(reading);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(read) = reading.as_mut().poll(&mut context) {
            return read;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_comes_after_enough_rows_and_head_and_logits_count_for_several_layers() {
        let reading = async {
            let mut pauses = Pauses::default();
            for _ in 0..4 {
                pauses.after(ROWS / 2).await;
            }
            pauses.after_head(ROWS / LAYERS_OF_HEAD).await;
            pauses.after_logits(ROWS / LAYERS_OF_LOGITS).await;
            pauses.after(1).await;
        };
        let (mut reading, mut breaks) = (pin!(reading), 0);
        let mut context = Context::from_waker(Waker::noop());
        while reading.as_mut().poll(&mut context).is_pending() {
            breaks += 1;
        }
        assert_eq!(breaks, 4);
    }
}
