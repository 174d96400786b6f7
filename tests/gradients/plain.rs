//! The decoder once more, in candle's plain differentiable operations on its tape: slow, short, and the oracle for
//! ours.

mod experts;

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor, Var};
use grpo_tui::hub::{
    Activation, ClampedGate, GatedDelta, KeysValues, LayerHeads, Mixer, ModelConfig, RopeScaling,
    Scope,
};
use grpo_tui::kernels::heads::{Attention, Heads};
use grpo_tui::update::PolicySample;

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

/// Named weights on the tape, and adapters as (A, B, scale) per matrix.
pub(super) struct Plain<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) weights: HashMap<String, Var>,
    pub(super) lora_scale: f64,
}

impl Plain<'_> {
    fn get(&self, name: &str) -> &Tensor {
        self.weights
            .get(name)
            .unwrap_or_else(|| panic!("{name}"))
            .as_tensor()
    }

    fn linear(&self, x: &Tensor, layer: usize, part: &str) -> Tensor {
        let mut y = x
            .matmul(
                &self
                    .get(&format!("model.layers.{layer}.{part}.weight"))
                    .t()
                    .unwrap(),
            )
            .unwrap();
        if let Some(bias) = self
            .weights
            .get(&format!("model.layers.{layer}.{part}.bias"))
        {
            y = y.broadcast_add(bias).unwrap();
        }
        let adapter = |which| {
            self.weights.get(&format!(
                "base_model.model.model.layers.{layer}.{part}.lora_{which}.weight"
            ))
        };
        match (adapter("A"), adapter("B")) {
            (Some(a), Some(b)) => {
                let delta = x
                    .matmul(&a.t().unwrap())
                    .unwrap()
                    .matmul(&b.t().unwrap())
                    .unwrap();
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
        if self.config.options.has_output_norms {
            self.norm(&x, name)
        } else {
            x
        }
    }

    /// The output of a layer's attention: [time, hidden]. `shared`: by layer keys and values.
    fn attended(
        &self,
        x: &Tensor,
        layer: usize,
        scope: Scope,
        shared: &mut HashMap<usize, [Tensor; 2]>,
    ) -> Tensor {
        let (config, time) = (self.config, x.dims()[0]);
        let LayerHeads {
            key_value,
            dimension,
        } = config.heads(layer);
        let query = config.num_attention_heads;
        let heads = Heads {
            query,
            key_value,
            dimension,
        };
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}.weight");
        let heads_of = |part: &str, count: usize| {
            self.linear(x, layer, part)
                .reshape((time, count, ()))
                .unwrap()
        };
        let rotated = |x: Tensor, norm: &str| {
            let x = x.contiguous().unwrap();
            let x = if self.weights.contains_key(&name(norm)) {
                self.norm(&x, &name(norm))
            } else {
                x
            };
            self.rope(&x, scope).reshape((time, ())).unwrap()
        };
        let both = heads_of("self_attn.q_proj", query);
        let own_values = |part: &str| {
            let value = heads_of(part, key_value).contiguous().unwrap();
            let ones = Tensor::ones(dimension, DType::F64, &Device::Cpu).unwrap();
            let normed = config
                .options
                .has_value_norms
                .then(|| rms_norm(&value, &ones, config.rms_norm_eps));
            normed.unwrap_or(value).reshape((time, ())).unwrap()
        };
        let own_keys = || rotated(heads_of("self_attn.k_proj", key_value), "k_norm");
        let [key, value] = match config.keys_values(layer) {
            KeysValues::Own => [own_keys(), own_values("self_attn.v_proj")],
            KeysValues::AreKeys => [own_keys(), own_values("self_attn.k_proj")],
            KeysValues::OfLayer(source) => shared[&source].clone(),
        };
        shared.insert(layer, [key.clone(), value.clone()]);
        let own = rotated(both.narrow(2, 0, dimension).unwrap(), "q_norm");
        let window = config
            .options
            .window
            .as_ref()
            .filter(|_| scope == Scope::Window);
        let divisor = config
            .options
            .query_scalar
            .unwrap_or(dimension as f64)
            .sqrt()
            / self.yarn_factor().powi(2);
        let sinks = self
            .weights
            .get(&format!("model.layers.{layer}.self_attn.sinks"))
            .map(|sinks| sinks.as_tensor());
        let how = Attention {
            heads,
            divisor,
            window: window.map(|window| window.tokens),
            sinks,
        };
        let mut attended = attention(&Tensor::cat(&[own, key, value], 1).unwrap(), how);
        if config.options.has_attention_gate {
            let gate = both
                .narrow(2, dimension, dimension)
                .unwrap()
                .contiguous()
                .unwrap();
            attended = (attended * sigmoid(&gate.reshape((time, ())).unwrap())).unwrap();
        }
        self.linear(&attended, layer, "self_attn.o_proj")
    }

    /// The output of a layer's gated delta rule, token by token: [time, hidden].
    fn gated_delta(&self, x: &Tensor, layer: usize, delta: &GatedDelta) -> Tensor {
        let time = x.dims()[0];
        let get = |part: &str| self.get(&format!("model.layers.{layer}.linear_attn.{part}"));
        let linear = |part: &str| self.linear(x, layer, &format!("linear_attn.{part}"));
        let sharing = delta.value_heads / delta.key_heads;
        let convolved = convolution(&linear("in_proj_qkv"), get("conv1d.weight"));
        let heads = |start: usize, count: usize, size: usize| {
            convolved
                .narrow(1, start, count * size)
                .unwrap()
                .reshape((time, count, size))
                .unwrap()
        };
        let keys = delta.key_heads * delta.key_dimension;
        let unit = |start: usize| {
            let x = heads(start, delta.key_heads, delta.key_dimension)
                .contiguous()
                .unwrap();
            let length = (x.sqr().unwrap().sum_keepdim(D::Minus1).unwrap() + 1e-6)
                .unwrap()
                .sqrt()
                .unwrap();
            let x = x.broadcast_div(&length).unwrap().unsqueeze(2).unwrap();
            let shape = (time, delta.key_heads, sharing, delta.key_dimension);
            x.broadcast_as(shape)
                .unwrap()
                .reshape((time, delta.value_heads, delta.key_dimension))
                .unwrap()
        };
        let (query, key) = (
            (unit(0) / (delta.key_dimension as f64).sqrt()).unwrap(),
            unit(keys),
        );
        let value = heads(2 * keys, delta.value_heads, delta.value_dimension);
        let strength = sigmoid(&linear("in_proj_b"));
        let step = linear("in_proj_a").broadcast_add(get("dt_bias")).unwrap();
        let step = (step.exp().unwrap() + 1.0).unwrap().log().unwrap();
        let decay = step
            .broadcast_mul(&get("A_log").exp().unwrap())
            .unwrap()
            .neg()
            .unwrap()
            .exp()
            .unwrap();
        let shape = (
            delta.value_heads,
            delta.key_dimension,
            delta.value_dimension,
        );
        let mut state = Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        let mut outputs = Vec::new();
        for t in 0..time {
            // [value heads, 1, 1], [value heads, 1, size].
            let factor = |x: &Tensor| {
                x.narrow(0, t, 1)
                    .unwrap()
                    .reshape((delta.value_heads, 1, 1))
                    .unwrap()
            };
            let row = |x: &Tensor| {
                x.narrow(0, t, 1)
                    .unwrap()
                    .squeeze(0)
                    .unwrap()
                    .unsqueeze(1)
                    .unwrap()
            };
            let key = row(&key);
            state = state.broadcast_mul(&factor(&decay)).unwrap();
            let correction = (row(&value) - key.matmul(&state).unwrap()).unwrap();
            let update = correction.broadcast_mul(&factor(&strength)).unwrap();
            state = (state
                + key
                    .transpose(1, 2)
                    .unwrap()
                    .contiguous()
                    .unwrap()
                    .matmul(&update)
                    .unwrap())
            .unwrap();
            outputs.push(row(&query).matmul(&state).unwrap().transpose(0, 1).unwrap());
        }
        let mixed = Tensor::cat(&outputs, 0).unwrap().contiguous().unwrap();
        let normed = rms_norm(&mixed, get("norm.weight"), self.config.rms_norm_eps)
            .reshape((time, ()))
            .unwrap();
        self.linear(
            &(normed * linear("in_proj_z").silu().unwrap()).unwrap(),
            layer,
            "linear_attn.out_proj",
        )
    }

    fn gated_mlp(&self, x: &Tensor, layer: usize, prefix: &str) -> Tensor {
        let linear =
            |x: &Tensor, part: &str| self.linear(x, layer, &format!("{prefix}.{part}_proj"));
        let gate = linear(x, "gate");
        linear(&(self.activated(&gate) * linear(x, "up")).unwrap(), "down")
    }

    fn activated(&self, x: &Tensor) -> Tensor {
        match self.config.options.activation {
            Activation::Silu => x.silu().unwrap(),
            // The tape of candle's has constants of six digits.
            Activation::GeluTanh => {
                let inner = ((x.powf(3.0).unwrap() * 0.044715).unwrap() + x).unwrap();
                let gate = ((inner * (2.0 / std::f64::consts::PI).sqrt())
                    .unwrap()
                    .tanh()
                    .unwrap()
                    + 1.0)
                    .unwrap();
                (gate * x).unwrap().affine(0.5, 0.0).unwrap()
            }
        }
    }

    /// One sequence -> logits [time, vocabulary]; `replayed`: by token its experts in all layers, or nothing.
    fn logits(&self, token_ids: &[u32], replayed: &[u16]) -> Tensor {
        let config = self.config;
        let embedding = self.get("model.embed_tokens.weight");
        let mut hidden = embedding
            .embedding(&Tensor::new(token_ids, &Device::Cpu).unwrap())
            .unwrap();
        hidden = (hidden * config.options.embedding_scale).unwrap();
        let inputs = config
            .options
            .layer_input
            .map(|width| self.layer_inputs(token_ids, &hidden, width));
        let mut shared = HashMap::new();
        for layer in 0..config.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let x = self.norm(&hidden, &name("input_layernorm"));
            let mixed = match config.mixer(layer) {
                Mixer::Attention(scope) => self.attended(&x, layer, scope, &mut shared),
                Mixer::GatedDelta(delta) => self.gated_delta(&x, layer, delta),
            };
            let after_attention = name("post_attention_layernorm");
            hidden = (hidden + self.added(mixed, &after_attention)).unwrap();
            let before = if config.options.has_output_norms {
                name("pre_feedforward_layernorm")
            } else {
                after_attention
            };
            let x = self.norm(&hidden, &before);
            let down = match config.experts(layer) {
                None => self.gated_mlp(&x, layer, "mlp"),
                Some(experts) if experts.is_beside_dense => {
                    let dense = self.norm(
                        &self.gated_mlp(&x, layer, "mlp"),
                        &name("post_feedforward_layernorm_1"),
                    );
                    (dense + self.experts_beside(&hidden, layer, experts, replayed)).unwrap()
                }
                Some(experts) => self.experts(&x, layer, experts, replayed),
            };
            hidden = (hidden + self.added(down, &name("post_feedforward_layernorm"))).unwrap();
            if let Some(inputs) = &inputs {
                let own = inputs.narrow(1, layer, 1).unwrap().squeeze(1).unwrap();
                let gate = self.activated(&self.linear(&hidden, layer, "per_layer_input_gate"));
                let output = self.linear(&(gate * own).unwrap(), layer, "per_layer_projection");
                hidden = (hidden + self.norm(&output, &name("post_per_layer_input_norm"))).unwrap();
            }
            if config.options.has_layer_factors {
                hidden = hidden
                    .broadcast_mul(self.get(&format!("model.layers.{layer}.layer_scalar")))
                    .unwrap();
            }
        }
        let hidden = self.norm(&hidden, "model.norm.weight");
        let head = if config.tie_word_embeddings {
            embedding
        } else {
            self.get("lm_head.weight")
        };
        let logits = hidden.matmul(&head.t().unwrap()).unwrap();
        config.options.logit_cap.map_or(logits.clone(), |cap| {
            ((logits / cap).unwrap().tanh().unwrap() * cap).unwrap()
        })
    }

    /// What each layer has besides the stream: [time, layers, width].
    fn layer_inputs(&self, token_ids: &[u32], hidden: &Tensor, width: usize) -> Tensor {
        let shape = (token_ids.len(), self.config.num_hidden_layers, width);
        let ids = Tensor::new(token_ids, &Device::Cpu).unwrap();
        let by_token = self
            .get("model.embed_tokens_per_layer.weight")
            .embedding(&ids)
            .unwrap()
            .reshape(shape)
            .unwrap();
        let product = hidden
            .matmul(
                &self
                    .get("model.per_layer_model_projection.weight")
                    .t()
                    .unwrap(),
            )
            .unwrap();
        let product = (product / (self.config.hidden_size as f64).sqrt())
            .unwrap()
            .reshape(shape)
            .unwrap();
        let normed = self.norm(&product, "model.per_layer_projection_norm.weight");
        ((normed + (by_token * (width as f64).sqrt()).unwrap()).unwrap() / 2.0_f64.sqrt()).unwrap()
    }

    /// What rotated queries and keys are multiplied by.
    fn yarn_factor(&self) -> f64 {
        match self.config.rope_scaling {
            RopeScaling::Yarn {
                attention_factor, ..
            } => attention_factor,
            _ => 1.0,
        }
    }

    /// Radians a token of pair `i`; Llama 3's rule in three cases, as its authors write it.
    fn frequency(&self, i: usize, dimension: usize, scope: Scope) -> f64 {
        let window = self
            .config
            .options
            .window
            .as_ref()
            .filter(|_| scope == Scope::Window);
        let theta = window.map_or(self.config.rope_theta, |window| window.rope_theta);
        let plain = 1.0 / theta.powf(2.0 * i as f64 / dimension as f64);
        match (scope, self.config.rope_scaling) {
            (Scope::Everything, RopeScaling::Linear { factor }) => return plain / factor,
            (Scope::Everything, RopeScaling::Proportional { share, .. })
                if i >= (share * dimension as f64 / 2.0) as usize =>
            {
                return 0.0;
            }
            _ => {}
        }
        if let RopeScaling::Yarn {
            factor,
            fast_turns,
            slow_turns,
            original_positions,
            has_whole_bounds,
            ..
        } = self.config.rope_scaling
        {
            // As in the paper: the pair whose wavelength goes so often into the original length.
            let pair = |turns: f64| {
                let wavelength = original_positions as f64 / turns;
                dimension as f64 / 2.0 * (wavelength / std::f64::consts::TAU).log(theta)
            };
            let (low, high) = (pair(fast_turns), pair(slow_turns));
            let (low, high) = if has_whole_bounds {
                (low.floor(), high.ceil())
            } else {
                (low, high)
            };
            let (low, high) = (low.max(0.0), high.min(dimension as f64 - 1.0));
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            return plain / factor * ramp + plain * (1.0 - ramp);
        }
        let RopeScaling::Llama3 {
            factor,
            low_frequency_factor: low,
            high_frequency_factor: high,
            original_positions,
        } = self.config.rope_scaling
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
        let (time, _, all) = x.dims3().unwrap();
        let dimension = self.config.options.rotary_dimension.unwrap_or(all);
        let half = dimension / 2;
        let angle = |i: usize| (i / half) as f64 * self.frequency(i % half, dimension, scope);
        let table = |f: fn(f64) -> f64| {
            let numbers: Vec<f64> = (0..time * half).map(|i| f(angle(i))).collect();
            Tensor::from_vec(numbers, (time, 1, half), &Device::Cpu)
                .unwrap()
                .to_dtype(x.dtype())
                .unwrap()
        };
        let (cosine, sine) = (table(f64::cos), table(f64::sin));
        let (low, high) = (
            x.narrow(2, 0, half).unwrap(),
            x.narrow(2, half, half).unwrap(),
        );
        let mul = |a: &Tensor, b: &Tensor| a.broadcast_mul(b).unwrap();
        let new_low = (mul(&low, &cosine) - mul(&high, &sine)).unwrap();
        let new_high = (mul(&high, &cosine) + mul(&low, &sine)).unwrap();
        let rest = x.narrow(2, dimension, all - dimension).unwrap();
        Tensor::cat(&[new_low, new_high, rest], 2).unwrap()
    }

    /// Log-probs of a completion given its prompt: [completion], on the tape.
    pub(super) fn log_probs(&self, prompt: &[u32], sample: &PolicySample<'_>) -> Tensor {
        let completion = &*sample.token_ids;
        let tokens = [prompt, &completion[..completion.len() - 1]].concat();
        let replayed = sample
            .experts
            .map(|own| {
                let pieces = own.prompt.iter().chain([&own.completion]);
                pieces
                    .flat_map(|piece| piece.iter().copied())
                    .collect::<Vec<u16>>()
            })
            .unwrap_or_default();
        let logits = self
            .logits(&tokens, &replayed)
            .narrow(0, prompt.len() - 1, completion.len())
            .unwrap();
        let log_probs = log_softmax(&logits);
        let targets = Tensor::new(completion, &Device::Cpu)
            .unwrap()
            .unsqueeze(1)
            .unwrap();
        log_probs.gather(&targets, 1).unwrap().squeeze(1).unwrap()
    }
}

/// A tensor as a leaf of the tape.
pub(super) fn leaf(tensor: &Tensor) -> Var {
    Var::from_tensor(&tensor.to_dtype(DType::F64).unwrap()).unwrap()
}
