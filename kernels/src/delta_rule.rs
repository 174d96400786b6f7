//! The gated delta rule (Yang et al. 2024, arXiv 2412.06464): each value head has a state S, [key
//! dimension, value dimension], which a token decays and then corrects towards its value at its
//! key: `S' = a S`, `u = b (v - S'^T k)`, `S = S' + k u^T`, output `S^T q`. Queries and keys have
//! unit length; `a = exp(-exp(A) softplus(x + bias))`, `b = sigmoid(y)`. Token by token on a CPU,
//! in chunks on a GPU.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};

use super::Real;
use super::attention::{Segment, Segments};
use super::cpu_slice::{by_number_type, in_place, numbers};
use super::decode_attention::{DecodeRow, DecodeRows};
use super::real::{dot, sigmoid, vectorised};
use backward::backward;

mod backward;
#[cfg(feature = "cuda")]
mod gpu;

/// Layout of a row of queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaHeads {
    /// Number of key heads, and of query heads; each serves `value / key` adjacent value heads.
    pub key: usize,
    pub value: usize,
    /// Dimension of a query or key head.
    pub key_dimension: usize,
    /// Dimension of a value head.
    pub value_dimension: usize,
}

impl DeltaHeads {
    pub fn row_width(&self) -> usize {
        2 * self.key_width() + self.value_width()
    }

    pub fn value_width(&self) -> usize {
        self.value * self.value_dimension
    }

    /// Elements of a sequence's state.
    pub fn state_width(&self) -> usize {
        self.value_width() * self.key_dimension
    }

    fn key_width(&self) -> usize {
        self.key * self.key_dimension
    }

    fn state_size(&self) -> usize {
        self.key_dimension * self.value_dimension
    }

    /// Columns of a value head's query, key and value.
    fn columns(&self, head: usize) -> [std::ops::Range<usize>; 3] {
        let key = head / (self.value / self.key) * self.key_dimension;
        let value = 2 * self.key_width() + head * self.value_dimension;
        [
            key..key + self.key_dimension,
            self.key_width() + key..self.key_width() + key + self.key_dimension,
            value..value + self.value_dimension,
        ]
    }
}

/// Inputs of the rule besides queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct DeltaRule<'a> {
    pub heads: DeltaHeads,
    /// [rows, ..]: from `column` on, per value head the logits of `b`, then those of the decay.
    pub packed: &'a Tensor,
    pub column: usize,
    /// A: [value heads].
    pub decay: &'a Tensor,
    /// [value heads].
    pub bias: &'a Tensor,
}

/// Added to the squared length of a query or key.
const EPSILON: f64 = 1e-6;

/// `convolved`: [rows, row_width] -> [rows, value_width]. A completion starts from its prompt's
/// state.
pub fn delta_rule(convolved: &Tensor, rule: DeltaRule<'_>, segments: &Segments) -> Result<Tensor> {
    on_gpu!(convolved => Ok(gpu::forward(convolved, rule, segments, false)?.0));
    Ok(by_number_type!(convolved, forward(convolved, rule, segments.list(), false))?.0)
}

/// States after each segment: [segments, state_width]; f32 on a GPU.
pub fn delta_rule_states(
    convolved: &Tensor,
    rule: DeltaRule<'_>,
    segments: &Segments,
) -> Result<Tensor> {
    on_gpu!(convolved => Ok(gpu::forward(convolved, rule, segments, true)?.1));
    Ok(by_number_type!(convolved, forward(convolved, rule, segments.list(), true))?.1)
}

/// Gradients of the rule's inputs.
#[derive(Debug)]
pub struct DeltaGradients {
    /// [rows, row_width].
    pub convolved: Tensor,
    /// [rows, 2 * value heads], as in [`DeltaRule::packed`].
    pub gates: Tensor,
    /// f32 on a GPU, as `bias`.
    pub decay: Tensor,
    pub bias: Tensor,
}

/// `gradient`: [rows, value_width]. Recomputes states.
pub fn delta_rule_backward(
    gradient: &Tensor,
    convolved: &Tensor,
    rule: DeltaRule<'_>,
    segments: &Segments,
) -> Result<DeltaGradients> {
    on_gpu!(convolved => gpu::backward(gradient, convolved, rule, segments));
    by_number_type!(
        convolved,
        backward(gradient, convolved, rule, segments.list())
    )
}

/// Decode step: [rows, row_width] -> [rows, value_width]. `states`: [slots, state_width], f32 on a
/// GPU; each row reads one slot and writes one.
pub fn delta_rule_step(
    convolved: &Tensor,
    rule: DeltaRule<'_>,
    states: &Tensor,
    rows: &DecodeRows,
) -> Result<Tensor> {
    on_gpu!(convolved => gpu::step(convolved, rule, states, rows.states()?));
    by_number_type!(convolved, step(convolved, rule, states, rows.listed()?))
}

/// Prepared inputs of rows.
struct Prepared<T> {
    heads: DeltaHeads,
    /// Queries and keys of unit length, queries divided by the root of their dimension; values.
    rows: Vec<T>,
    /// Gates by row and value head.
    gates: Vec<Gate<T>>,
}

#[derive(Clone, Copy)]
struct Gate<T> {
    /// `b`.
    strength: T,
    /// Logarithm of `a`.
    log_decay: T,
    /// Derivative of `softplus(x + bias)`.
    slope: T,
}

impl<T: Real> Prepared<T> {
    fn new(convolved: &[T], rule: DeltaRule<'_>) -> Result<Self> {
        let DeltaRule {
            heads,
            packed,
            column,
            decay,
            bias,
        } = rule;
        numbers!(T: numbers = packed, decays = decay, biases = bias);
        let stride = packed.dims2()?.1;
        let mut rows = convolved.to_vec();
        let scale = T::constant(1.0 / (heads.key_dimension as f64).sqrt());
        vectorised!(|| {
            for row in rows.chunks_exact_mut(heads.row_width()) {
                for (index, head) in row[..2 * heads.key_width()]
                    .chunks_exact_mut(heads.key_dimension)
                    .enumerate()
                {
                    let factor =
                        inverse_length(head) * if index < heads.key { scale } else { T::one() };
                    head.iter_mut().for_each(|x| *x *= factor);
                }
            }
        });
        let gate = |row: &[T], head: usize| {
            let strength = sigmoid(row[column + head]);
            let x = row[column + heads.value + head] + biases[head];
            let zero = T::zero();
            let step = (if x > zero { x } else { zero })
                + num_traits::Float::ln_1p((-num_traits::Float::abs(x)).exponential());
            Gate {
                strength,
                log_decay: -decays[head].exponential() * step,
                slope: sigmoid(x),
            }
        };
        let gates = numbers
            .chunks_exact(stride)
            .flat_map(|row| (0..heads.value).map(move |head| (row, head)));
        let gates = gates.map(|(row, head)| gate(row, head)).collect();
        Ok(Self { heads, rows, gates })
    }

    /// Query, key and value of a head's row.
    #[inline(always)]
    fn token(&self, row: usize, head: usize) -> [&[T]; 3] {
        let row = &self.rows[row * self.heads.row_width()..(row + 1) * self.heads.row_width()];
        self.heads.columns(head).map(|columns| &row[columns])
    }

    #[inline(always)]
    fn gate(&self, row: usize, head: usize) -> Gate<T> {
        self.gates[row * self.heads.value + head]
    }
}

/// Inverse length of an unnormalised vector.
#[inline(always)]
fn inverse_length<T: Real>(vector: &[T]) -> T {
    T::one() / (dot(vector, vector) + T::constant(EPSILON)).sqrt()
}

/// `S' = a S`, and `update = b (v - S'^T k)`.
#[inline(always)]
fn decay_state<T: Real>(
    state: &mut [T],
    [_, key, value]: [&[T]; 3],
    gate: Gate<T>,
    update: &mut [T],
) {
    let decay = gate.log_decay.exponential();
    update.fill(T::zero());
    for (line, &k) in state.chunks_exact_mut(value.len()).zip(key) {
        for (s, u) in line.iter_mut().zip(update.iter_mut()) {
            *s *= decay;
            *u += k * *s;
        }
    }
    for (u, &v) in update.iter_mut().zip(value) {
        *u = gate.strength * (v - *u);
    }
}

/// `S = S' + k u^T`.
#[inline(always)]
fn correct_state<T: Real>(state: &mut [T], key: &[T], update: &[T]) {
    for (line, &k) in state.chunks_exact_mut(update.len()).zip(key) {
        for (s, &u) in line.iter_mut().zip(update) {
            *s += k * u;
        }
    }
}

/// Both, and `output = S^T q`.
#[inline(always)]
fn advance<T: Real>(
    state: &mut [T],
    token: [&[T]; 3],
    gate: Gate<T>,
    update: &mut [T],
    output: &mut [T],
) {
    decay_state(state, token, gate, update);
    let [query, key, _] = token;
    output.fill(T::zero());
    for ((line, &k), &q) in state.chunks_exact_mut(update.len()).zip(key).zip(query) {
        for ((s, &u), o) in line.iter_mut().zip(update.iter()).zip(output.iter_mut()) {
            *s += k * u;
            *o += q * *s;
        }
    }
}

/// Whether a segment starts from the state after the one at `start`.
fn is_prefix(segments: &[Segment], start: usize) -> bool {
    segments
        .iter()
        .any(|segment| segment.prefix.1 > 0 && segment.prefix.0 == start)
}

fn forward<T: Real>(
    convolved: &Tensor,
    rule: DeltaRule<'_>,
    segments: &[Segment],
    keeps_states: bool,
) -> Result<(Tensor, Tensor)> {
    let heads = rule.heads;
    let (rows, _) = convolved.dims2()?;
    numbers!(T: numbers = convolved);
    let prepared = Prepared::<T>::new(numbers, rule)?;
    let (size, width) = (heads.state_size(), heads.value_width());
    let mut output = vec![T::zero(); rows * width];
    let mut states = vec![
        T::zero();
        if keeps_states {
            segments.len() * heads.state_width()
        } else {
            0
        }
    ];
    let mut state = vec![T::zero(); size];
    let mut update = vec![T::zero(); heads.value_dimension];
    for head in 0..heads.value {
        // States after prompts, by first row.
        let mut prompts: BTreeMap<usize, Vec<T>> = BTreeMap::new();
        for (index, segment) in segments.iter().enumerate() {
            start_from(&mut state, *segment, &prompts)?;
            vectorised!(|| {
                for row in segment.start..segment.start + segment.length {
                    let at = row * width + head * heads.value_dimension;
                    let out = &mut output[at..at + heads.value_dimension];
                    advance(
                        &mut state,
                        prepared.token(row, head),
                        prepared.gate(row, head),
                        &mut update,
                        out,
                    );
                }
            });
            if segment.prefix.1 == 0 && is_prefix(segments, segment.start) {
                prompts.insert(segment.start, state.clone());
            }
            if keeps_states {
                let at = index * heads.state_width() + head * size;
                states[at..at + size].copy_from_slice(&state);
            }
        }
    }
    let device = convolved.device();
    let count = if keeps_states { segments.len() } else { 0 };
    Ok((
        Tensor::from_vec(output, (rows, width), device)?,
        Tensor::from_vec(states, (count, heads.state_width()), device)?,
    ))
}

/// Sets `state` to a segment's initial state.
fn start_from<T: Real>(
    state: &mut [T],
    segment: Segment,
    prompts: &BTreeMap<usize, Vec<T>>,
) -> Result<()> {
    match prompts.get(&segment.prefix.0) {
        _ if segment.prefix.1 == 0 => state.fill(T::zero()),
        Some(prompt) => state.copy_from_slice(prompt),
        None => bail!("a completion before its prompt, in row {}", segment.start),
    }
    Ok(())
}

fn step<T: Real>(
    convolved: &Tensor,
    rule: DeltaRule<'_>,
    states: &Tensor,
    rows: &[DecodeRow],
) -> Result<Tensor> {
    let heads = rule.heads;
    let (size, width) = (heads.state_size(), heads.value_width());
    let mut output = vec![T::zero(); rows.len() * width];
    let mut update = vec![T::zero(); heads.value_dimension];
    let step = in_place("delta rule step", |states: &mut [T], convolved: &[T]| {
        let prepared = Prepared::<T>::new(convolved, rule)?;
        vectorised!(|| {
            for (row, out) in output.chunks_exact_mut(width).enumerate() {
                let (before, slot) = rows[row].states;
                let of = |slot: usize| slot * heads.state_width()..(slot + 1) * heads.state_width();
                if before != slot {
                    states.copy_within(of(before), of(slot).start);
                }
                let state = &mut states[of(slot)];
                let parts = state
                    .chunks_exact_mut(size)
                    .zip(out.chunks_exact_mut(heads.value_dimension));
                for (head, (state, out)) in parts.enumerate() {
                    advance(
                        state,
                        prepared.token(row, head),
                        prepared.gate(row, head),
                        &mut update,
                        out,
                    );
                }
            }
        });
        Ok(())
    });
    states.inplace_op2(convolved, &step)?;
    Tensor::from_vec(output, (rows.len(), width), convolved.device())
}
