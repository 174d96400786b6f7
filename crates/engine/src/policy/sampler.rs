//! Samples completions of conversations: a policy, or a model loaded by another process.

use std::sync::Arc;

use candle_core::Result;

use super::{Policy, PolicyVersion, ServedModel};
use crate::hub::ModelConfig;
use crate::rollout::{
    DecodeCounts, GpuFallback, Request, Sampling, SizedSource, ThreadPool, decoded_together,
};
use crate::text::Tokenizer;

#[derive(Clone, Copy)]
pub(super) enum Sampler<'a> {
    Policy(&'a Policy),
    Served(&'a ServedModel<'a>),
}

impl<'a> Sampler<'a> {
    pub(super) fn tokenizer(self) -> &'a Arc<Tokenizer> {
        match self {
            Self::Policy(policy) => &policy.tokenizer,
            Self::Served(served) => &served.tokenizer,
        }
    }

    pub(super) fn threads(self) -> &'a ThreadPool {
        match self {
            Self::Policy(policy) => &policy.threads,
            Self::Served(served) => &served.threads,
        }
    }

    pub(super) fn config(self) -> &'a ModelConfig {
        match self {
            Self::Policy(policy) => policy.model.config(),
            Self::Served(served) => &served.config,
        }
    }

    /// Requests decoded together, in order.
    pub(super) fn parts(self, version: PolicyVersion, requests: &[Request]) -> Vec<&[Request]> {
        match self {
            Self::Policy(policy) => decoded_together(policy.model_of(version).0, requests),
            Self::Served(_) => vec![requests],
        }
    }

    /// Whether rounding depends on what is decoded together.
    pub(super) fn is_paced(self) -> bool {
        matches!(self, Self::Policy(policy) if policy.engine.device.is_cpu())
    }

    /// Decodes requests of sources, one per part.
    pub(super) fn decode(
        self,
        version: PolicyVersion,
        sources: &[SizedSource<'_>],
        sampling: &Sampling,
    ) -> Result<(DecodeCounts, Vec<GpuFallback>)> {
        match self {
            Self::Policy(policy) => policy.rollout_from(version, sources, sampling),
            Self::Served(served) => served.decode(sources).map(|()| Default::default()),
        }
    }
}
