//! Mistral's `config.json`, text-only or multimodal.

use super::options::{DecoderOptions, Scope, SlidingWindow};
use super::{HubError, Reader, RopeScaling};

pub(super) const DEFAULTS: [(&str, usize); 3] = [
    ("num_key_value_heads", 8),
    ("max_position_embeddings", 131_072),
    ("sliding_window", 4096),
];

impl Reader<'_> {
    /// A window applies to every layer; one as long as the longest sequence has no effect.
    pub(super) fn mistral_options(&self) -> Result<DecoderOptions, HubError> {
        if self.given("sliding_window").is_none() {
            return Ok(DecoderOptions::PLAIN);
        }
        let tokens = self.count("sliding_window")?;
        if tokens >= self.count("max_position_embeddings")? {
            return Ok(DecoderOptions::PLAIN);
        }
        if self.rope_scaling()? != RopeScaling::Unscaled {
            return Err(self.unsupported(
                "scaled rotary positions of layers with a window",
                "use a model without",
            ));
        }
        let scopes = vec![Scope::Window; self.count("num_hidden_layers")?];
        let rope_scaling = RopeScaling::Unscaled;
        let window = SlidingWindow {
            tokens,
            scopes,
            rope_theta: self.rope_theta()?,
            rope_scaling,
        };
        Ok(DecoderOptions {
            window: Some(window),
            ..DecoderOptions::PLAIN
        })
    }
}
