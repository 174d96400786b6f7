//! Tokens to logits: the differentiable decoder, with a backward written by hand, layer by layer.

mod adapter; // low-rank adapters
mod adapter_names; // PEFT's names of adapters
mod attention; // attention as mixer
mod beside_dense; // dense block parallel to a mixture of experts
mod decoder; // embedding, layers, final norm, head
mod expert_adapters; // PEFT's layout of experts' adapters
mod expert_record; // router replay
mod expert_stack; // stacked experts on a GPU
mod experts; // mixture of experts
mod feed_forward; // gated MLP or experts of a layer
mod gated_delta; // gated delta rule as mixer
mod gated_mlp; // gated MLP
mod gradients; // flat buffer of gradients
mod keys_values; // keys and values of a layer's attention
mod layer; // decoder layer, forward and backward
mod layer_input; // per-layer inputs
mod linear; // x W^T with adapters
mod load; // loads a decoder
mod load_experts; // loads feed-forward blocks
mod matrix; // matrix in the model's dtype or quantized
mod mixed_inputs; // activations derived from a mixer's input
mod mixer; // attention or gated delta rule
mod norm; // norm with its weight
mod packed_batch; // packed sequences
mod pauses; // breaks in a forward pass
mod parameters; // flat buffer of trained parameters
mod shared_expert; // expert used by every row
mod shard; // sharding over ranks
mod side_inputs; // layer inputs besides the residual stream
mod weights; // tensors of a checkpoint by Hugging Face name

pub use adapter::{AdapterUse, Adapters};
pub(crate) use adapter_names::peft_name;
pub use adapter_names::{adapter_names, fresh_adapters, nested_name};
pub use decoder::{Activations, Decoder};
pub use expert_adapters::{TARGET_PARAMETERS, beside_each_other, is_of_experts};
pub use expert_record::ExpertRecord;
pub(crate) use expert_record::{ExpertLayers, PassExperts};
pub use experts::RouterUse;
pub use gradients::Gradients;
pub use layer::Layer;
pub(crate) use mixer::{CacheView, CacheWidth, PrefilledRows};
pub use packed_batch::{PackedBatch, RowContext, Sequence};
pub use parameters::{ParameterSlot, Parameters, Trainable};
pub(crate) use pauses::Pauses;
pub use pauses::without_breaks;
pub use shard::{Shard, ShardPiece};
pub use side_inputs::Beside;
pub use weights::{LoadProgress, Weights, watch_loading};

use crate::kernels::cuda_errors::explained;

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{}", explained(&.0.to_string()))]
    Tensor(#[from] candle_core::Error),
    #[error("{0}")]
    Hub(#[from] crate::hub::HubError),
    #[error("{}", explained(.0))]
    Weights(String),
}

#[cfg(test)]
mod tests {
    use super::ModelError;

    #[test]
    fn a_gpu_without_room_is_explained() {
        let error = ModelError::Weights(
            "`model.norm.weight`: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"
                .to_owned(),
        );
        assert!(error.to_string().contains("fp8"), "{error}");
    }
}
