//! Operations in candle's plain differentiable operations: what the forward passes of fused operations are compared with.

use candle_core::{D, Device, Tensor};
use grpo_tui::hub::ClampedGate;
use grpo_tui::kernels::heads::Attention;

/// Over the last dimension, as are the two below.
pub(super) fn log_softmax(x: &Tensor) -> Tensor {
    let x = x.broadcast_sub(&x.max_keepdim(D::Minus1).unwrap()).unwrap();
    x.broadcast_sub(
        &x.exp()
            .unwrap()
            .sum_keepdim(D::Minus1)
            .unwrap()
            .log()
            .unwrap(),
    )
    .unwrap()
}

pub(super) fn softmax(x: &Tensor) -> Tensor {
    log_softmax(x).exp().unwrap()
}

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Tensor {
    let mean_square = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    x.broadcast_div(&(mean_square + epsilon).unwrap().sqrt().unwrap())
        .unwrap()
        .broadcast_mul(weight)
        .unwrap()
}

pub(super) fn sigmoid(x: &Tensor) -> Tensor {
    (x.neg().unwrap().exp().unwrap() + 1.0)
        .unwrap()
        .recip()
        .unwrap()
}

/// gpt-oss's activation of gate and up in alternating columns: [rows, 2 * width] -> [rows, width].
pub(super) fn clamped(
    both: &Tensor,
    ClampedGate { slope, limit }: ClampedGate,
) -> candle_core::Result<Tensor> {
    let (rows, double) = both.dims2()?;
    let pairs = both.reshape((rows, double / 2, 2))?;
    let (gate, up) = (
        pairs.narrow(2, 0, 1)?.squeeze(2)?,
        pairs.narrow(2, 1, 1)?.squeeze(2)?,
    );
    let most = (gate.ones_like()? * limit)?;
    let (gate, up) = (
        gate.minimum(&most)?,
        up.minimum(&most)?.maximum(&most.neg()?)?,
    );
    (&gate * sigmoid(&(&gate * slope)?))? * (up + 1.0)?
}

/// A causal convolution of each column, then SiLU: `x` [time, width], `weight` [width, 1, kernel].
pub(super) fn convolution(x: &Tensor, weight: &Tensor) -> Tensor {
    let ((time, width), kernel) = (x.dims2().unwrap(), weight.dims()[2]);
    let before = Tensor::zeros((kernel - 1, width), x.dtype(), &Device::Cpu).unwrap();
    let padded = Tensor::cat(&[&before, x], 0).unwrap();
    let part = |i: usize| {
        let weight = weight.narrow(2, i, 1).unwrap().reshape((1, width)).unwrap();
        padded
            .narrow(0, i, time)
            .unwrap()
            .broadcast_mul(&weight)
            .unwrap()
    };
    (1..kernel)
        .map(part)
        .fold(part(0), |sum, part| (sum + part).unwrap())
        .silu()
        .unwrap()
}

/// Plain causal attention of one sequence: packed rows [time, row_width], rotated -> [time, query_width].
pub(super) fn attention(packed: &Tensor, attention: Attention) -> Tensor {
    let (heads, window) = (attention.heads, attention.window.unwrap_or(usize::MAX));
    let time = packed.dims()[0];
    let split = |start: usize, count: usize| {
        let columns = packed
            .narrow(1, start * heads.dimension, count * heads.dimension)
            .unwrap();
        columns
            .reshape((time, count, heads.dimension))
            .unwrap()
            .transpose(0, 1)
            .unwrap()
            .contiguous()
            .unwrap()
    };
    let repeat = |x: Tensor| {
        let sharing = heads.query / heads.key_value;
        let x = x
            .unsqueeze(1)
            .unwrap()
            .broadcast_as((heads.key_value, sharing, time, heads.dimension))
            .unwrap();
        x.contiguous()
            .unwrap()
            .reshape((heads.query, time, heads.dimension))
            .unwrap()
    };
    let query = split(0, heads.query);
    let key = repeat(split(heads.query, heads.key_value));
    let value = repeat(split(heads.query + heads.key_value, heads.key_value));
    let scores =
        (query.matmul(&key.transpose(1, 2).unwrap()).unwrap() / attention.divisor).unwrap();
    let is_seen = |query: usize, key: usize| key <= query && query - key < window;
    let mask = (0..time * time).map(|i| {
        if is_seen(i / time, i % time) {
            0.0
        } else {
            -1e300
        }
    });
    let mask: Vec<f64> = mask.collect();
    let mask = Tensor::from_vec(mask, (time, time), &Device::Cpu)
        .unwrap()
        .to_dtype(packed.dtype())
        .unwrap();
    let mut scores = scores.broadcast_add(&mask).unwrap();
    if let Some(sinks) = attention.sinks {
        let column = sinks
            .reshape((heads.query, 1, 1))
            .unwrap()
            .broadcast_as((heads.query, time, 1))
            .unwrap();
        scores = Tensor::cat(&[&scores, &column], 2).unwrap();
    }
    let probabilities = softmax(&scores)
        .narrow(2, 0, time)
        .unwrap()
        .contiguous()
        .unwrap();
    let mixed = probabilities.matmul(&value).unwrap();
    mixed
        .transpose(0, 1)
        .unwrap()
        .contiguous()
        .unwrap()
        .reshape((time, heads.query_width()))
        .unwrap()
}
