//! Layers of experts on the tape.

use candle_core::{D, Device, Tensor};
use grpo_tui::hub::{ExpertTensors, Experts, Role};

use super::{Plain, clamped, rms_norm, sigmoid, softmax};

impl Plain<'_> {
    /// What an expert's adapter adds, by PEFT's names; `None` where there is none.
    fn expert_delta(
        &self,
        x: &Tensor,
        layer: usize,
        module: &str,
        (index, experts): (usize, &Experts),
    ) -> Option<Tensor> {
        let get = |which| {
            let name =
                format!("base_model.model.model.layers.{layer}.mlp.{module}.lora_{which}.weight");
            self.weights.get(&name).map(|tensor| tensor.as_tensor())
        };
        let (a, b) = (get("A")?, get("B")?);
        let own_a = a
            .reshape((experts.count, (), a.dims()[1]))
            .unwrap()
            .get(index)
            .unwrap();
        let own_b = b
            .reshape((b.dims()[0], (), experts.count))
            .unwrap()
            .narrow(2, index, 1)
            .unwrap()
            .squeeze(2)
            .unwrap();
        let delta = x
            .matmul(&own_a.t().unwrap())
            .unwrap()
            .matmul(&own_b.t().unwrap().contiguous().unwrap())
            .unwrap();
        Some((delta * self.lora_scale).unwrap())
    }

    /// One expert on every token.
    fn expert(&self, x: &Tensor, layer: usize, index: usize, experts: &Experts) -> Tensor {
        let adapted = |y: Tensor, x: &Tensor, module| match self.expert_delta(
            x,
            layer,
            module,
            (index, experts),
        ) {
            Some(delta) => (y + delta).unwrap(),
            None => y,
        };
        if experts.tensors == ExpertTensors::Separate {
            let linear = |x: &Tensor, part: &str| {
                self.linear(x, layer, &format!("mlp.experts.{index}.{part}_proj"))
            };
            let (gate, up) = (linear(x, "gate"), linear(x, "up"));
            let both = adapted(
                Tensor::cat(&[gate, up], 1).unwrap(),
                x,
                "experts.base_layer",
            );
            let (gate, up) = (
                both.narrow(1, 0, both.dims()[1] / 2),
                both.narrow(1, both.dims()[1] / 2, both.dims()[1] / 2),
            );
            let inner = (gate.unwrap().silu().unwrap() * up.unwrap()).unwrap();
            return adapted(linear(&inner, "down"), &inner, "experts");
        }
        let own = |part: &str| {
            let prefix = if experts.is_beside_dense {
                "experts"
            } else {
                "mlp.experts"
            };
            let all = self
                .weights
                .get(&format!("model.layers.{layer}.{prefix}.{part}"))?;
            Some(all.as_tensor().get(index).unwrap())
        };
        let product = |x: &Tensor, part: &str| {
            let weight = own(part).unwrap();
            let weight = if experts.tensors == ExpertTensors::Fused {
                weight.t().unwrap()
            } else {
                weight
            };
            let y = x.matmul(&weight).unwrap();
            own(&format!("{part}_bias")).map_or(y.clone(), |bias| y.broadcast_add(&bias).unwrap())
        };
        let (both, width) = (
            adapted(product(x, "gate_up_proj"), x, "experts.base_layer"),
            experts.intermediate_size,
        );
        let inner = match experts.clamped {
            None => {
                self.activated(&both.narrow(1, 0, width).unwrap())
                    * both.narrow(1, width, width).unwrap()
            }
            Some(gate) => clamped(&both, gate),
        };
        let inner = inner.unwrap();
        adapted(product(&inner, "down_proj"), &inner, "experts")
    }

    /// Every expert on every token, times a weight that is 0 where it was not chosen; `replayed`: by token those of all
    /// layers that are, or nothing.
    pub(super) fn experts(
        &self,
        x: &Tensor,
        layer: usize,
        experts: &Experts,
        replayed: &[u16],
    ) -> Tensor {
        self.routed_experts(x, x, layer, experts, replayed)
    }

    /// Of the stream, beside a dense block.
    pub(super) fn experts_beside(
        &self,
        hidden: &Tensor,
        layer: usize,
        experts: &Experts,
        replayed: &[u16],
    ) -> Tensor {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let scale = self.get(&name("router.scale"));
        let router_x = rms_norm(hidden, scale, self.config.rms_norm_eps);
        let router_x = (router_x / (self.config.hidden_size as f64).sqrt()).unwrap();
        let x = self.norm(hidden, &name("pre_feedforward_layernorm_2.weight"));
        let output = self.routed_experts(&router_x, &x, layer, experts, replayed);
        self.norm(&output, &name("post_feedforward_layernorm_2.weight"))
    }

    fn routed_experts(
        &self,
        router_x: &Tensor,
        x: &Tensor,
        layer: usize,
        experts: &Experts,
        replayed: &[u16],
    ) -> Tensor {
        let table = self.config.tensors_of(Some(layer));
        let router = table.iter().find(|spec| spec.role == Role::Router).unwrap();
        let probabilities = softmax(&self.linear(router_x, layer, router.module()));
        let earlier = (0..layer)
            .filter(|&layer| self.config.experts(layer).is_some())
            .count();
        let by_token = replayed.len() / x.dims()[0];
        let chosen = |(token, row): (usize, Vec<f64>)| {
            let rank = |p: f64| row.iter().filter(|other| **other > p).count();
            let own = (by_token > 0).then(|| {
                &replayed[token * by_token + earlier * experts.active..][..experts.active]
            });
            let is_chosen = |expert: usize| match own {
                Some(own) => own.contains(&(expert as u16)),
                None => rank(row[expert]) < experts.active,
            };
            (0..row.len())
                .map(|expert| f64::from(u8::from(is_chosen(expert))))
                .collect::<Vec<_>>()
        };
        let rows = probabilities.to_vec2().unwrap();
        let chosen: Vec<Vec<f64>> = rows.into_iter().enumerate().map(chosen).collect();
        let mut weights = (probabilities * Tensor::new(chosen, &Device::Cpu).unwrap()).unwrap();
        if experts.is_renormalised {
            weights = weights
                .broadcast_div(&weights.sum_keepdim(D::Minus1).unwrap())
                .unwrap();
        }
        if experts.is_beside_dense {
            let factors = self.get(&format!("model.layers.{layer}.router.per_expert_scale"));
            weights = weights.broadcast_mul(factors).unwrap();
        }
        let weighted = |index: usize| {
            let output = self.expert(x, layer, index, experts);
            output
                .broadcast_mul(&weights.narrow(1, index, 1).unwrap())
                .unwrap()
        };
        let sum = (1..experts.count)
            .map(weighted)
            .fold(weighted(0), |sum, own| (sum + own).unwrap());
        if experts.shared_size.is_none() {
            return sum;
        }
        let share = sigmoid(&self.linear(x, layer, "mlp.shared_expert_gate"));
        (sum + self
            .gated_mlp(x, layer, "mlp.shared_expert")
            .broadcast_mul(&share)
            .unwrap())
        .unwrap()
    }
}
