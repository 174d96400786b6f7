//! Tokens to logits: the differentiable decoder, with a backward written by hand, layer by layer.

mod adapter; // low-rank adapters
mod adapter_names; // adapters in PEFT's names
mod attention; // the mixer of layers with attention
mod beside_dense; // a dense block beside a mixture of experts
mod decoder; // embedding, layers, final norm, head
mod expert_adapters; // how PEFT writes those of experts
mod expert_record; // the experts that sampled tokens went through
mod expert_stack; // the matrices of experts on a GPU
mod experts; // a mixture of experts
mod feed_forward; // a layer's gated MLP, or its experts
mod gated_delta; // the mixer of layers with the gated delta rule
mod gated_mlp; // a gated MLP, wherever there is one
mod gradients; // one flat buffer of gradients
mod keys_values; // keys and values of a layer's attention
mod layer; // one decoder layer, forward and backward
mod layer_input; // the input that each layer has besides the stream
mod linear; // x W^T with adapters
mod load; // a decoder put together from a checkpoint
mod load_experts; // its feed-forward blocks
mod matrix; // a layer's matrix, in the model's dtype or in fp8
mod mixed_inputs; // what follows from a mixer's input, also in its backward
mod mixer; // either of the two
mod norm; // a norm's weight
mod packed_batch; // packed tokens
mod parameters; // the flat buffer of what is trained
mod shared_expert; // the expert that every row uses
mod shard; // what each rank moves of it
mod side_inputs; // what layers read besides the residual stream
mod weights; // a checkpoint's tensors under their Hugging Face names

pub use adapter::{AdapterUse, Adapters};
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
pub use shard::{Shard, ShardPiece};
pub use side_inputs::Beside;
pub use weights::{LoadProgress, Weights, watch_loading};

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
    #[error("{0}")]
    Hub(#[from] crate::hub::HubError),
    #[error("{0}")]
    Weights(String),
}
