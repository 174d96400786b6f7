//! A model on another stream of its GPU: every tensor in the same memory.

use candle_core::{Device, Result};

use super::adapter::{AdapterPart, AdapterSet, JoinedAdapter};
use super::attention::AttentionMixer;
use super::beside_dense::BesideDense;
use super::expert_stack::{Stack, StackAdapters, StackWeights};
use super::experts::{Expert, Experts, Matrices};
use super::feed_forward::{FeedForward, Mixture};
use super::gated_delta::GatedDeltaMixer;
use super::gated_mlp::GatedMlp;
use super::keys_values::KeysValues;
use super::layer::{Factor, Layer};
use super::layer_input::{LayerInputs, OwnInput};
use super::linear::{Bias, Linear};
use super::matrix::Matrix;
use super::mixer::Mixer;
use super::norm::NormWeight;
use super::shared_expert::SharedExpert;
use crate::kernels::second_stream::OnStream;

/// Fields with tensors of each struct; the others are cloned.
macro_rules! on_stream {
    ($($name:ident { $($field:ident),+ })+) => {$(
        #[allow(clippy::needless_update, reason = "some have no other fields")]
        impl OnStream for $name {
            fn on_stream(&self, device: &Device) -> Result<Self> {
                Ok(Self { $($field: self.$field.on_stream(device)?,)+ ..self.clone() })
            }
        }
    )+};
}

on_stream! {
    AdapterPart { b }
    AdapterSet { a, parts, joined }
    AttentionMixer { keys_values, sinks, rope, head_norms }
    BesideDense { mlp, router_norm, experts_norm, output_norms }
    Bias { vector }
    Expert { gate_up, down }
    Experts { gate, matrices, output_bias, factors }
    Factor { stored }
    GatedDeltaMixer { convolution, decay, bias, norm }
    GatedMlp { gate_up, down }
    JoinedAdapter { whole, a, diagonal, b }
    KeysValues { norm }
    Layer {
        input_norm, mixer_input, mixer, mixer_output, mixer_output_norm, middle_norm, feed_forward,
        down_norm, own_input, factor
    }
    LayerInputs { table, projection, norm }
    Linear { weight, bias, adapters }
    Mixture { experts, shared, beside }
    NormWeight { weight }
    OwnInput { gate, projection, norm }
    SharedExpert { gate, mlp }
    Stack { weights, bias, adapters }
    StackAdapters { a, b }
}

impl OnStream for Matrices {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Apart(experts) => Self::Apart(experts.on_stream(device)?),
            Self::Stacked { gate_up, down } => Self::Stacked {
                gate_up: gate_up.on_stream(device)?,
                down: down.on_stream(device)?,
            },
        })
    }
}

impl OnStream for Matrix {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Numbers(weight) => Self::Numbers(weight.on_stream(device)?),
            Self::Transposed(weight) => Self::Transposed(weight.on_stream(device)?),
            Self::Quantized(matrix) => Self::Quantized(matrix.on_stream(device)?),
        })
    }
}

impl OnStream for StackWeights {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Numbers(stack) => Self::Numbers(stack.on_stream(device)?),
            Self::Transposed(stack) => Self::Transposed(stack.on_stream(device)?),
            Self::Mxfp4(stack) => Self::Mxfp4(stack.on_stream(device)?),
        })
    }
}

impl OnStream for Mixer {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Attention(mixer) => Self::Attention(mixer.on_stream(device)?),
            Self::GatedDelta(mixer) => Self::GatedDelta(mixer.on_stream(device)?),
        })
    }
}

impl OnStream for FeedForward {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Dense(dense) => Self::Dense(dense.on_stream(device)?),
            Self::Experts(mixture) => Self::Experts(mixture.on_stream(device)?),
        })
    }
}
