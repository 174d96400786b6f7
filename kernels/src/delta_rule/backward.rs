//! Gradient of the gated delta rule. Keeps only states at chunk starts, and recomputes the others.

use super::*;

/// Tokens whose states are held at once.
const CHUNK: usize = 64;

pub(super) fn backward<T: Real>(
    gradient: &Tensor,
    convolved: &Tensor,
    rule: DeltaRule<'_>,
    segments: &[Segment],
) -> Result<DeltaGradients> {
    let heads = rule.heads;
    let (rows, width) = convolved.dims2()?;
    numbers!(T: gradients = gradient, numbers = convolved, decays = rule.decay);
    let prepared = Prepared::<T>::new(numbers, rule)?;
    let zeros = |count: usize| vec![T::zero(); count];
    let mut work = Work {
        prepared: &prepared,
        gradient: gradients,
        rows: zeros(rows * width),
        corrections: zeros(rows * heads.value),
        log_decays: zeros(rows * heads.value),
        inner: zeros(heads.value_dimension),
    };
    for head in 0..heads.value {
        for prompt in segments.iter().filter(|segment| segment.prefix.1 == 0) {
            let mut state = zeros(heads.state_size());
            let starts = work.chunk_starts(&mut state, *prompt, head);
            let mut last = zeros(heads.state_size());
            let is_own =
                |segment: &&Segment| segment.prefix.1 > 0 && segment.prefix.0 == prompt.start;
            for completion in segments.iter().filter(is_own) {
                let mut own = zeros(heads.state_size());
                let starts = work.chunk_starts(&mut state.clone(), *completion, head);
                work.segment(*completion, head, &starts, &mut own);
                last.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
            }
            work.segment(*prompt, head, &starts, &mut last);
        }
    }
    let Work {
        rows: mut row_gradients,
        corrections,
        log_decays,
        ..
    } = work;
    vectorised!(|| unnormalise(&mut row_gradients, numbers, heads));
    let mut gates = zeros(rows * 2 * heads.value);
    let mut decay = zeros(heads.value);
    let mut bias = zeros(heads.value);
    for (index, gate) in prepared.gates.iter().enumerate() {
        let (row, head) = (index / heads.value, index % heads.value);
        let at = row * 2 * heads.value + head;
        let by_step = -decays[head].exponential() * gate.slope * log_decays[index];
        gates[at] = corrections[index] * (T::one() - gate.strength);
        gates[at + heads.value] = by_step;
        bias[head] += by_step;
        decay[head] += log_decays[index] * gate.log_decay;
    }
    let device = convolved.device();
    Ok(DeltaGradients {
        convolved: Tensor::from_vec(row_gradients, (rows, width), device)?,
        gates: Tensor::from_vec(gates, (rows, 2 * heads.value), device)?,
        decay: Tensor::from_vec(decay, heads.value, device)?,
        bias: Tensor::from_vec(bias, heads.value, device)?,
    })
}

/// Backpropagates through the normalisation of queries and keys, in place.
#[inline(always)]
fn unnormalise<T: Real>(gradients: &mut [T], numbers: &[T], heads: DeltaHeads) {
    let scale = T::constant(1.0 / (heads.key_dimension as f64).sqrt());
    let width = heads.row_width();
    for (gradients, row) in gradients
        .chunks_exact_mut(width)
        .zip(numbers.chunks_exact(width))
    {
        let parts = gradients[..2 * heads.key_width()].chunks_exact_mut(heads.key_dimension);
        for (index, (gradient, vector)) in
            parts.zip(row.chunks_exact(heads.key_dimension)).enumerate()
        {
            let inverse = inverse_length(vector);
            let along = dot(gradient, vector) * inverse * inverse;
            let factor = inverse * if index < heads.key { scale } else { T::one() };
            for (g, &x) in gradient.iter_mut().zip(vector) {
                *g = factor * (*g - x * along);
            }
        }
    }
}

struct Work<'a, T> {
    prepared: &'a Prepared<T>,
    /// [rows, value_width].
    gradient: &'a [T],
    /// Gradients of the prepared rows, [rows, row_width].
    rows: Vec<T>,
    /// `u` times its gradient, which is `b` times b's: [rows, value heads].
    corrections: Vec<T>,
    /// Likewise of the logarithm of `a`.
    log_decays: Vec<T>,
    /// Gradient of u for one token: [value dimension].
    inner: Vec<T>,
}

impl<T: Real> Work<'_, T> {
    /// States at a segment's chunk starts; advances `state` from the segment's start to its end.
    fn chunk_starts(&self, state: &mut [T], segment: Segment, head: usize) -> Vec<T> {
        let mut starts = Vec::with_capacity(segment.length.div_ceil(CHUNK) * state.len());
        let mut update = vec![T::zero(); self.prepared.heads.value_dimension];
        vectorised!(|| {
            for token in 0..segment.length {
                if token.is_multiple_of(CHUNK) {
                    starts.extend_from_slice(state);
                }
                let row = segment.start + token;
                let gate = self.prepared.gate(segment.start + token, head);
                let parts = self.prepared.token(row, head);
                decay_state(state, parts, gate, &mut update);
                correct_state(state, parts[1], &update);
            }
        });
        starts
    }

    /// `last`: gradient of the state after the segment -> of the state before it.
    fn segment(&mut self, segment: Segment, head: usize, starts: &[T], last: &mut [T]) {
        let (size, values) = (last.len(), self.prepared.heads.value_dimension);
        let longest = CHUNK.min(segment.length);
        let mut decayed = vec![T::zero(); longest * size];
        let mut updates = vec![T::zero(); longest * values];
        let mut state = vec![T::zero(); size];
        vectorised!(|| {
            for (chunk, start) in starts.chunks_exact(size).enumerate().rev() {
                let first = segment.start + chunk * CHUNK;
                let rows = first..(first + CHUNK).min(segment.start + segment.length);
                state.copy_from_slice(start);
                for (index, row) in rows.clone().enumerate() {
                    let update = &mut updates[index * values..(index + 1) * values];
                    let token = self.prepared.token(row, head);
                    decay_state(&mut state, token, self.prepared.gate(row, head), update);
                    decayed[index * size..(index + 1) * size].copy_from_slice(&state);
                    correct_state(&mut state, token[1], update);
                }
                for (index, row) in rows.enumerate().rev() {
                    let update = &updates[index * values..(index + 1) * values];
                    self.token(
                        row,
                        head,
                        &decayed[index * size..(index + 1) * size],
                        update,
                        last,
                    );
                }
            }
        });
    }

    /// One token: `decayed`: S', `update`: u, `state`: gradient of S -> of the state before the
    /// token.
    #[inline(always)]
    fn token(&mut self, row: usize, head: usize, decayed: &[T], update: &[T], state: &mut [T]) {
        let heads = self.prepared.heads;
        let (values, zero) = (heads.value_dimension, T::zero());
        let [query, key, _] = self.prepared.token(row, head);
        let gate = self.prepared.gate(row, head);
        let output = &self.gradient[row * heads.value_width() + head * values..][..values];
        let [query_columns, key_columns, value_columns] = heads.columns(head);
        let own = &mut self.rows[row * heads.row_width()..(row + 1) * heads.row_width()];
        let along = dot(update, output);
        let inner = &mut self.inner;
        inner.fill(zero);
        for i in 0..query.len() {
            let line = &mut state[i * values..(i + 1) * values];
            let old = &decayed[i * values..(i + 1) * values];
            own[query_columns.start + i] += dot(old, output) + key[i] * along;
            for ((g, &o), u) in line.iter_mut().zip(output).zip(inner.iter_mut()) {
                *g += query[i] * o;
                *u += key[i] * *g;
            }
            own[key_columns.start + i] += dot(line, update);
        }
        // u = b (v - m), m = S'^T k.
        self.corrections[row * heads.value + head] = dot(inner, update);
        inner.iter_mut().for_each(|u| *u *= gate.strength);
        own[value_columns].copy_from_slice(inner);
        let (decay, mut log_decay) = (gate.log_decay.exponential(), zero);
        for i in 0..query.len() {
            let line = &mut state[i * values..(i + 1) * values];
            let old = &decayed[i * values..(i + 1) * values];
            own[key_columns.start + i] -= dot(old, inner);
            for (g, &u) in line.iter_mut().zip(inner.iter()) {
                *g -= key[i] * u;
            }
            log_decay += dot(line, old);
            line.iter_mut().for_each(|g| *g *= decay);
        }
        self.log_decays[row * heads.value + head] = log_decay;
    }
}
