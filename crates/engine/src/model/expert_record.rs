//! Router replay (arXiv 2510.11370): records a sampled sequence's experts, so that the update uses
//! the same.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::kernels::router::NOT_RECORDED;

/// Experts of a sequence: token by token, for each layer with experts in order.
#[derive(Clone, Debug, Default)]
pub struct ExpertRecord {
    /// Experts of prompt tokens, in pieces: other completions of the prompt, and later ones of a
    /// conversation, share them.
    pub prompt: Vec<Arc<Vec<u16>>>,
    /// Experts of completion tokens except the last, which the model does not read.
    pub completion: Arc<Vec<u16>>,
}

impl ExpertRecord {
    pub(crate) fn of_prompt(prompt: Vec<u16>) -> Self {
        Self {
            prompt: vec![Arc::new(prompt)],
            ..Self::default()
        }
    }

    /// The record of everything read, for a sequence that continues after this completion.
    pub(crate) fn followed(mut self) -> Self {
        self.prompt.extend([self.completion, Arc::default()]);
        Self {
            prompt: self.prompt,
            ..Self::default()
        }
    }

    /// The end of the prompt, of a sequence that continues.
    pub(crate) fn prompt_mut(&mut self) -> Option<&mut Vec<u16>> {
        self.prompt.last_mut().map(Arc::make_mut)
    }

    fn experts(&self) -> impl Iterator<Item = &u16> {
        let pieces = self.prompt.iter().chain([&self.completion]);
        pieces.flat_map(|piece| piece.iter())
    }
}

/// However the prompt is split.
impl PartialEq for ExpertRecord {
    fn eq(&self, other: &Self) -> bool {
        self.completion == other.completion && self.experts().eq(other.experts())
    }
}

impl Eq for ExpertRecord {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpertLayers {
    pub(crate) layers: usize,
    /// Experts per layer.
    pub(crate) count: usize,
    /// Experts per token and layer.
    pub(crate) active: usize,
}

impl ExpertLayers {
    /// Total over the layers.
    pub(crate) fn per_token(self) -> usize {
        self.layers * self.active
    }

    /// Buffer for a pass, [layers, rows, active].
    pub(crate) fn room(self, rows: usize, device: &Device) -> Result<Tensor> {
        Tensor::zeros((self.layers, rows, self.active), DType::U32, device)
    }
}

/// Experts selected in a pass.
#[derive(Clone, Debug)]
pub(crate) struct PassExperts {
    /// [layers, rows, active], flat.
    selected: Vec<u32>,
    experts: ExpertLayers,
}

impl PassExperts {
    /// `selected`: [layers, rows, active], flat.
    pub(crate) fn new(selected: Vec<u32>, experts: ExpertLayers) -> Self {
        Self { selected, experts }
    }

    /// `selected`: [layers, rows, active], u32.
    pub(crate) fn read(selected: &Tensor, experts: ExpertLayers) -> Result<Self> {
        Ok(Self::new(selected.flatten_all()?.to_vec1()?, experts))
    }

    /// Appends some rows' experts to a record.
    pub(crate) fn append(&self, rows: Range<usize>, record: &mut Vec<u16>) {
        let ExpertLayers { layers, active, .. } = self.experts;
        for row in rows {
            for layer in self.selected.chunks_exact(self.selected.len() / layers) {
                record.extend(
                    layer[row * active..(row + 1) * active]
                        .iter()
                        .map(|&expert| expert as u16),
                );
            }
        }
    }
}

/// Records for ranges of a batch's rows -> [layers, rows, active], u32, on the device; other rows
/// select freely.
pub(super) fn replayed(
    records: &[(Range<usize>, Arc<Vec<u16>>)],
    rows: usize,
    experts: Option<ExpertLayers>,
    device: &Device,
) -> Result<Option<Tensor>> {
    let Some(experts) = experts.filter(|_| !records.is_empty()) else {
        return Ok(None);
    };
    let ExpertLayers {
        layers,
        count,
        active,
    } = experts;
    let mut found = vec![NOT_RECORDED; rows * experts.per_token()];
    for (range, record) in records {
        if record.len() != range.len() * experts.per_token() || range.end > rows {
            bail!(
                "{} recorded experts for rows {range:?} of {rows}, {experts:?}",
                record.len()
            )
        }
        if let Some(expert) = record.iter().find(|&&expert| usize::from(expert) >= count) {
            bail!("recorded expert {expert} is not among the layer's {count}")
        }
        for (row, own) in range.clone().zip(record.chunks_exact(experts.per_token())) {
            for (layer, own) in own.chunks_exact(active).enumerate() {
                let start = (layer * rows + row) * active;
                found[start..start + active]
                    .iter_mut()
                    .zip(own)
                    .for_each(|(place, &expert)| *place = expert.into());
            }
        }
    }
    Tensor::from_vec(found, (layers, rows, active), device).map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pass_selects_is_replayed_at_the_rows_of_its_tokens() {
        // Two layers, three rows, two experts per row.
        let experts = ExpertLayers {
            layers: 2,
            count: 9,
            active: 2,
        };
        let pass = PassExperts::new(vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2], experts);
        let mut record = Vec::new();
        pass.append(1..3, &mut record);
        assert_eq!(record, [2, 3, 8, 0, 4, 5, 1, 2]);
        let place = |records: &[(Range<usize>, Vec<u16>)]| {
            let records: Vec<_> = records
                .iter()
                .map(|(rows, own)| (rows.clone(), Arc::new(own.clone())))
                .collect();
            let found = replayed(&records, 3, Some(experts), &Device::Cpu);
            found
                .map(|found| found.map(|found| found.to_vec3::<u32>().unwrap()))
                .map_err(|error| error.to_string())
        };
        let none = [NOT_RECORDED; 2];
        let expected = vec![vec![[2, 3], [4, 5], none], vec![[8, 0], [1, 2], none]];
        let expected: Vec<Vec<Vec<u32>>> = expected
            .into_iter()
            .map(|layer| layer.into_iter().map(Vec::from).collect())
            .collect();
        assert_eq!(place(&[(0..2, record.clone())]), Ok(Some(expected)));
        assert_eq!(place(&[]), Ok(None));
        for (records, expected) in [
            (
                (0..3, record.clone()),
                "8 recorded experts for rows 0..3 of 3",
            ),
            ((2..4, record), "8 recorded experts for rows 2..4 of 3"),
            (
                (0..1, vec![0, 1, 9, 2]),
                "recorded expert 9 is not among the layer's 9",
            ),
        ] {
            let error = place(&[records]).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
