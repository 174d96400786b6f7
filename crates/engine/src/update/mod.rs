//! One optimizer step: log-probs of the completions, policy losses and KL, gradients over micro-batches, clipping,
//! AdamW.

mod log_probs; // log-probs of completions and their gradient, in chunks of rows
mod loss; // policy losses, one arm and function each
mod micro_batch; // groups packed by tokens; their gradients, summed in order
mod optimizer; // AdamW, warm-up, clipping, and what to do with a gradient that is not finite
mod policy; // the GRPO update
mod supervised; // the next-token update of SFT and pretraining

pub use log_probs::{ReadToken, log_probs, read_tokens};
pub use loss::{LossSettings, SequenceLoss, SequenceTerms, StepTotals, kl_term, sequence_loss};
pub use micro_batch::{MicroBatch, Piece, pack};
pub use optimizer::{Optimizer, OptimizerSettings, StepOutcome};
pub use policy::{
    PolicyGroup, PolicySample, PolicySettings, PolicyStatistics, completion_log_probs,
    policy_gradient,
};
pub use supervised::{Example, SupervisedSettings, supervised_gradient};
