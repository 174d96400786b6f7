//! Token embeddings: rows of a table, and the scatter of their gradient back into it.

use candle_core::{Result, Tensor};

use super::Real;
use super::memory::{by_number_type, read};
use super::numbers::add_scaled;

/// `table`: [vocabulary, width] -> [ids, width].
pub fn embedding(table: &Tensor, token_ids: &Tensor) -> Result<Tensor> {
    table.index_select(token_ids, 0)
}

/// The rows of `gradient` [ids, width] added up per id, in the order of the ids -> [vocabulary, width].
pub fn embedding_backward(gradient: &Tensor, token_ids: &[u32], vocabulary: usize) -> Result<Tensor> {
    by_number_type!(gradient, scatter(gradient, token_ids, vocabulary))
}

fn scatter<T: Real>(gradient: &Tensor, token_ids: &[u32], vocabulary: usize) -> Result<Tensor> {
    let (_, width) = gradient.dims2()?;
    let gradient_read = read(gradient)?;
    let mut output = vec![T::of(0.0); vocabulary * width];
    for (row, &id) in gradient_read.numbers::<T>()?.chunks_exact(width).zip(token_ids) {
        let at = id as usize * width;
        add_scaled(&mut output[at..at + width], T::of(1.0), row);
    }
    Tensor::from_vec(output, (vocabulary, width), gradient.device())
}
