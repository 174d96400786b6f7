//! What samples the completions of conversations: a policy, or a model that another process has loaded.

use std::sync::Arc;

use candle_core::Result;

use super::{Policy, PolicyVersion};
use crate::hub::ModelConfig;
use crate::rollout::{
    DecodeCounts, GpuFallback, Request, Sampling, SizedSource, ThreadPool, decoded_together,
};
use crate::text::Tokenizer;

/// Samples completions.
pub(super) trait Sampler: Sync {
    fn tokenizer(&self) -> &Arc<Tokenizer>;

    fn threads(&self) -> &ThreadPool;

    fn config(&self) -> &ModelConfig;

    /// The requests that are decoded together, in order.
    fn parts<'r>(&self, version: PolicyVersion, requests: &'r [Request]) -> Vec<&'r [Request]>;

    /// Whether rounding depends on what is decoded together.
    fn is_paced(&self) -> bool;

    /// Decodes what sources have; there is one for each part.
    fn decode(
        &self,
        version: PolicyVersion,
        sources: &[SizedSource<'_>],
        sampling: &Sampling,
    ) -> Result<(DecodeCounts, Vec<GpuFallback>)>;
}

impl Sampler for Policy {
    fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    fn threads(&self) -> &ThreadPool {
        &self.threads
    }

    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn parts<'r>(&self, version: PolicyVersion, requests: &'r [Request]) -> Vec<&'r [Request]> {
        decoded_together(self.model_of(version).0, requests)
    }

    fn is_paced(&self) -> bool {
        self.engine.device.is_cpu()
    }

    fn decode(
        &self,
        version: PolicyVersion,
        sources: &[SizedSource<'_>],
        sampling: &Sampling,
    ) -> Result<(DecodeCounts, Vec<GpuFallback>)> {
        self.rollout_from(version, sources, sampling)
    }
}
