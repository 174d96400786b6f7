//! The decoder once more, in candle's plain differentiable operations on its tape: slow, short, and the oracle for
//! ours.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor, Var};
use grpo_tui::hub::{Activation, ModelConfig, RopeScaling, Scope};
use grpo_tui::kernels::heads::{Attention, Heads};

/// Over the last dimension, as are the two below.
pub(super) fn log_softmax(x: &Tensor) -> Tensor {
    let x = x.broadcast_sub(&x.max_keepdim(D::Minus1).unwrap()).unwrap();
    x.broadcast_sub(&x.exp().unwrap().sum_keepdim(D::Minus1).unwrap().log().unwrap()).unwrap()
}

pub(super) fn softmax(x: &Tensor) -> Tensor {
    log_softmax(x).exp().unwrap()
}

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Tensor {
    let mean_square = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    x.broadcast_div(&(mean_square + epsilon).unwrap().sqrt().unwrap()).unwrap().broadcast_mul(weight).unwrap()
}

/// Plain causal attention of one sequence: packed rows [time, row_width], rotated -> [time, query_width].
pub(super) fn attention(packed: &Tensor, attention: Attention) -> Tensor {
    let (heads, window) = (attention.heads, attention.window.unwrap_or(usize::MAX));
    let time = packed.dims()[0];
    let split = |start: usize, count: usize| {
        let columns = packed.narrow(1, start * heads.dimension, count * heads.dimension).unwrap();
        columns.reshape((time, count, heads.dimension)).unwrap().transpose(0, 1).unwrap().contiguous().unwrap()
    };
    let repeat = |x: Tensor| {
        let sharing = heads.query / heads.key_value;
        let x = x.unsqueeze(1).unwrap().broadcast_as((heads.key_value, sharing, time, heads.dimension)).unwrap();
        x.contiguous().unwrap().reshape((heads.query, time, heads.dimension)).unwrap()
    };
    let query = split(0, heads.query);
    let key = repeat(split(heads.query, heads.key_value));
    let value = repeat(split(heads.query + heads.key_value, heads.key_value));
    let scores = (query.matmul(&key.transpose(1, 2).unwrap()).unwrap() / attention.divisor).unwrap();
    let is_seen = |query: usize, key: usize| key <= query && query - key < window;
    let mask = (0..time * time).map(|i| if is_seen(i / time, i % time) { 0.0 } else { -1e300 });
    let mask: Vec<f64> = mask.collect();
    let mask = Tensor::from_vec(mask, (time, time), &Device::Cpu).unwrap().to_dtype(packed.dtype()).unwrap();
    let probabilities = softmax(&scores.broadcast_add(&mask).unwrap());
    let mixed = probabilities.matmul(&value).unwrap();
    mixed.transpose(0, 1).unwrap().contiguous().unwrap().reshape((time, heads.query_width())).unwrap()
}

/// Named weights on the tape, and adapters as (A, B, scale) per matrix.
pub(super) struct Plain<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) weights: HashMap<String, Var>,
    pub(super) lora_scale: f64,
}

impl Plain<'_> {
    fn get(&self, name: &str) -> &Tensor {
        self.weights.get(name).unwrap_or_else(|| panic!("{name}")).as_tensor()
    }

    fn linear(&self, x: &Tensor, layer: usize, part: &str) -> Tensor {
        let mut y = x.matmul(&self.get(&format!("model.layers.{layer}.{part}.weight")).t().unwrap()).unwrap();
        if let Some(bias) = self.weights.get(&format!("model.layers.{layer}.{part}.bias")) {
            y = y.broadcast_add(bias).unwrap();
        }
        let adapter =
            |which| self.weights.get(&format!("base_model.model.model.layers.{layer}.{part}.lora_{which}.weight"));
        match (adapter("A"), adapter("B")) {
            (Some(a), Some(b)) => {
                let delta = x.matmul(&a.t().unwrap()).unwrap().matmul(&b.t().unwrap()).unwrap();
                (y + (delta * self.lora_scale).unwrap()).unwrap()
            }
            _ => y,
        }
    }

    fn norm(&self, x: &Tensor, name: &str) -> Tensor {
        let weight = (self.get(name) + self.config.options.norm_offset).unwrap();
        rms_norm(x, &weight, self.config.rms_norm_eps)
    }

    /// What a block adds to the stream, after its norm if it has one.
    fn added(&self, x: Tensor, name: &str) -> Tensor {
        if self.config.options.has_output_norms { self.norm(&x, name) } else { x }
    }

    /// One sequence -> logits [time, vocabulary].
    pub(super) fn logits(&self, token_ids: &[u32]) -> Tensor {
        let config = self.config;
        let heads = Heads {
            query: config.num_attention_heads,
            key_value: config.num_key_value_heads,
            dimension: config.head_dim,
        };
        let time = token_ids.len();
        let embedding = self.get("model.embed_tokens.weight");
        let mut hidden = embedding.embedding(&Tensor::new(token_ids, &Device::Cpu).unwrap()).unwrap();
        hidden = (hidden * config.options.embedding_scale).unwrap();
        for layer in 0..config.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let x = self.norm(&hidden, &name("input_layernorm"));
            let heads_of = |part: &str, count: usize| {
                self.linear(&x, layer, part).reshape((time, count, heads.dimension)).unwrap()
            };
            let rotated = |part: &str, norm: &str, count: usize| {
                let x = heads_of(part, count);
                let x = if self.weights.contains_key(&name(norm)) {
                    self.norm(&x.contiguous().unwrap(), &name(norm))
                } else {
                    x
                };
                self.rope(&x, config.scope(layer)).reshape((time, count * heads.dimension)).unwrap()
            };
            let query = rotated("self_attn.q_proj", "self_attn.q_norm", heads.query);
            let key = rotated("self_attn.k_proj", "self_attn.k_norm", heads.key_value);
            let value = heads_of("self_attn.v_proj", heads.key_value).reshape((time, heads.key_width())).unwrap();
            let window = config.options.window.as_ref().filter(|_| config.scope(layer) == Scope::Window);
            let divisor =
                config.options.query_scalar.unwrap_or(heads.dimension as f64).sqrt() / self.yarn_factor().powi(2);
            let how = Attention { heads, divisor, window: window.map(|window| window.tokens) };
            let attended = attention(&Tensor::cat(&[query, key, value], 1).unwrap(), how);
            let after_attention = name("post_attention_layernorm");
            hidden =
                (hidden + self.added(self.linear(&attended, layer, "self_attn.o_proj"), &after_attention)).unwrap();
            let before =
                if config.options.has_output_norms { name("pre_feedforward_layernorm") } else { after_attention };
            let x = self.norm(&hidden, &before);
            let gate = self.linear(&x, layer, "mlp.gate_proj");
            let gate = match config.options.activation {
                Activation::Silu => gate.silu().unwrap(),
                // candle's is the approximation by tanh.
                Activation::GeluTanh => gate.gelu().unwrap(),
            };
            let inner = (gate * self.linear(&x, layer, "mlp.up_proj")).unwrap();
            let down = self.linear(&inner, layer, "mlp.down_proj");
            hidden = (hidden + self.added(down, &name("post_feedforward_layernorm"))).unwrap();
        }
        let hidden = self.norm(&hidden, "model.norm.weight");
        let head = if config.tie_word_embeddings { embedding } else { self.get("lm_head.weight") };
        hidden.matmul(&head.t().unwrap()).unwrap()
    }

    /// What rotated queries and keys are multiplied by.
    fn yarn_factor(&self) -> f64 {
        match self.config.rope_scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        }
    }

    /// Radians a token of pair `i`; Llama 3's rule in three cases, as its authors write it.
    fn frequency(&self, i: usize, dimension: usize, scope: Scope) -> f64 {
        let window = self.config.options.window.as_ref().filter(|_| scope == Scope::Window);
        let theta = window.map_or(self.config.rope_theta, |window| window.rope_theta);
        let plain = 1.0 / theta.powf(2.0 * i as f64 / dimension as f64);
        if let (Scope::Everything, RopeScaling::Linear { factor }) = (scope, self.config.rope_scaling) {
            return plain / factor;
        }
        if let RopeScaling::Yarn { factor, fast_turns, slow_turns, original_positions, .. } = self.config.rope_scaling {
            // As in the paper: the pair whose wavelength goes so often into the original length.
            let pair = |turns: f64| {
                let wavelength = original_positions as f64 / turns;
                dimension as f64 / 2.0 * (wavelength / std::f64::consts::TAU).log(theta)
            };
            let (low, high) = (pair(fast_turns).floor().max(0.0), pair(slow_turns).ceil().min(dimension as f64 - 1.0));
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            return plain / factor * ramp + plain * (1.0 - ramp);
        }
        let RopeScaling::Llama3 { factor, low_frequency_factor: low, high_frequency_factor: high, original_positions } =
            self.config.rope_scaling
        else {
            return plain;
        };
        let (length, wavelength) = (original_positions as f64, std::f64::consts::TAU / plain);
        if wavelength < length / high {
            plain
        } else if wavelength > length / low {
            plain / factor
        } else {
            let smooth = (length / wavelength - low) / (high - low);
            (1.0 - smooth) * plain / factor + smooth * plain
        }
    }

    /// x: [time, heads, dimension]; positions 0, 1, 2, ...
    fn rope(&self, x: &Tensor, scope: Scope) -> Tensor {
        let (time, _, dimension) = x.dims3().unwrap();
        let half = dimension / 2;
        let angle = |i: usize| (i / half) as f64 * self.frequency(i % half, dimension, scope);
        let table = |f: fn(f64) -> f64| {
            let numbers: Vec<f64> = (0..time * half).map(|i| f(angle(i))).collect();
            Tensor::from_vec(numbers, (time, 1, half), &Device::Cpu).unwrap().to_dtype(x.dtype()).unwrap()
        };
        let (cosine, sine) = (table(f64::cos), table(f64::sin));
        let (low, high) = (x.narrow(2, 0, half).unwrap(), x.narrow(2, half, half).unwrap());
        let mul = |a: &Tensor, b: &Tensor| a.broadcast_mul(b).unwrap();
        let new_low = (mul(&low, &cosine) - mul(&high, &sine)).unwrap();
        let new_high = (mul(&high, &cosine) + mul(&low, &sine)).unwrap();
        Tensor::cat(&[new_low, new_high], 2).unwrap()
    }

    /// Log-probs of a completion given its prompt: [completion], on the tape.
    pub(super) fn log_probs(&self, prompt: &[u32], completion: &[u32]) -> Tensor {
        let tokens = [prompt, &completion[..completion.len() - 1]].concat();
        let logits = self.logits(&tokens).narrow(0, prompt.len() - 1, completion.len()).unwrap();
        let log_probs = log_softmax(&logits);
        let targets = Tensor::new(completion, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
        log_probs.gather(&targets, 1).unwrap().squeeze(1).unwrap()
    }
}

/// A tensor as a leaf of the tape.
pub(super) fn leaf(tensor: &Tensor) -> Var {
    Var::from_tensor(&tensor.to_dtype(DType::F64).unwrap()).unwrap()
}
