//! One optimizer step: log-probs, policy losses and KL, gradients over micro-batches, clipping,
//! AdamW.

mod log_probs; // log-probs of completions and their gradient, in chunks of rows
mod loss; // policy losses
mod micro_batch; // packed groups; their gradients, summed in order
mod optimizer; // AdamW, warm-up, clipping; non-finite gradients
mod policy; // the GRPO update
mod supervised; // the next-token update of SFT and pretraining

pub use log_probs::{
    LogitRow, ReadToken, ReadingModel, log_probs, read_logits, read_text, read_tokens,
};
pub use loss::{
    LossSequence, LossSettings, SequenceLoss, SequenceTerms, StepTotals, kl_term, sequence_loss,
};
pub use micro_batch::{MicroBatch, Piece, pack};
pub use optimizer::{Optimizer, OptimizerSettings, StepOutcome};
pub use policy::{
    PolicyGroup, PolicySample, PolicySettings, PolicyStatistics, completion_log_probs,
    policy_gradient, set_log_ratios,
};
pub use supervised::{Example, SupervisedSettings, supervised_gradient};
