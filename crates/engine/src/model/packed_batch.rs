//! Packs sequences without padding; completions of one prompt share its rows.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};

use super::AdapterUse;
use super::expert_record::{ExpertLayers, replayed};
use super::side_inputs::Beside;
use crate::kernels::attention::{Segment, Segments};
use crate::kernels::router::Selection;

/// A micro-batch: one row per token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// One per row.
    pub token_ids: Vec<u32>,
    /// Position of each row in its sequence, from 0.
    pub positions: Vec<u32>,
    pub segments: Vec<Segment>,
    /// Rows with replayed experts, as in [`ExpertRecord`](super::ExpertRecord); others select
    /// freely.
    pub replayed: Vec<(Range<usize>, Arc<Vec<u16>>)>,
}

/// Rows of one completion: row `rows[t]` predicts token `targets[t]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The first is the prompt's last row.
    pub rows: Vec<u32>,
    pub targets: Vec<u32>,
}

/// A batch's tables on the model's device.
#[derive(Clone, Debug)]
pub(super) struct DeviceBatch {
    /// [rows], u32.
    pub(super) token_ids: Tensor,
    /// [rows], u32.
    pub(super) positions: Tensor,
    pub(super) segments: Segments,
    /// [layers with experts, rows, active], u32, with replayed experts.
    pub(super) replayed: Option<Tensor>,
}

/// Context of a batch's rows for a layer: positions, segments, adapters, expert selection, side
/// inputs.
#[derive(Clone, Copy, Debug)]
pub struct RowContext<'a> {
    /// `[rows]`, u32.
    pub positions: &'a Tensor,
    pub segments: &'a Segments,
    pub selection: Selection<'a>,
    pub adapters: AdapterUse<'a>,
    pub beside: Beside<'a>,
}

impl PackedBatch {
    /// Copies the batch to a device.
    ///
    /// # Errors
    /// A token outside the vocabulary, a position beyond the model's, or unknown replayed experts.
    pub(super) fn place(
        &self,
        (vocabulary, positions): (usize, usize),
        experts: Option<ExpertLayers>,
        device: &Device,
    ) -> Result<DeviceBatch> {
        if let Some(id) = self.token_ids.iter().find(|&&id| id as usize >= vocabulary) {
            bail!("token {id} is outside the vocabulary of {vocabulary}")
        }
        if let Some(position) = self
            .positions
            .iter()
            .find(|&&position| position as usize >= positions)
        {
            bail!("position {position} is beyond the model's {positions} positions")
        }
        let row_tensor = |numbers: &[u32]| Tensor::from_slice(numbers, numbers.len(), device);
        Ok(DeviceBatch {
            token_ids: row_tensor(&self.token_ids)?,
            positions: row_tensor(&self.positions)?,
            segments: Segments::new(self.segments.clone(), device)?,
            replayed: replayed(&self.replayed, self.rows(), experts, device)?,
        })
    }

    /// One per token.
    pub fn rows(&self) -> usize {
        self.token_ids.len()
    }

    /// Appends a prompt (not empty); returns its segment for [`PackedBatch::push_completion`].
    pub fn push_prompt(&mut self, prompt: &[u32]) -> Segment {
        self.push(prompt, (0, 0))
    }

    /// Appends a completion of `prompt`. Its last token predicts nothing, so has no row.
    pub fn push_completion(&mut self, prompt: Segment, completion: &[u32]) -> Sequence {
        let inputs = &completion[..completion.len().saturating_sub(1)];
        let prompt_end = (prompt.start + prompt.length) as u32;
        let segment = self.push(inputs, (prompt.start, prompt.length));
        let own = segment.start as u32..(segment.start + segment.length) as u32;
        let rows = std::iter::once(prompt_end - 1)
            .chain(own)
            .take(completion.len())
            .collect();
        Sequence {
            rows,
            targets: completion.to_vec(),
        }
    }

    fn push(&mut self, token_ids: &[u32], prefix: (usize, usize)) -> Segment {
        let segment = Segment {
            start: self.rows(),
            length: token_ids.len(),
            prefix,
        };
        self.token_ids.extend_from_slice(token_ids);
        self.positions
            .extend((prefix.1..prefix.1 + token_ids.len()).map(|position| position as u32));
        if segment.length > 0 {
            self.segments.push(segment);
        }
        segment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_shares_its_prompt() {
        let mut batch = PackedBatch::default();
        let prompt = batch.push_prompt(&[7, 8, 9]);
        let first = batch.push_completion(prompt, &[1, 2, 3]);
        let second = batch.push_completion(prompt, &[4]);
        assert_eq!(batch.token_ids, [7, 8, 9, 1, 2]);
        assert_eq!(batch.positions, [0, 1, 2, 3, 4]);
        assert_eq!(
            first,
            Sequence {
                rows: vec![2, 3, 4],
                targets: vec![1, 2, 3]
            }
        );
        assert_eq!(
            second,
            Sequence {
                rows: vec![2],
                targets: vec![4]
            }
        );
        assert_eq!(
            batch.segments.len(),
            2,
            "a completion of one token adds no row"
        );
    }
}
