//! Every fused operation against finite differences, and its forward against plain candle operations.

use candle_core::{DType, Device, Tensor};
use grpo_tui::hub::ClampedGate;
use grpo_tui::kernels::attention::{
    Segment, Segments, segment_attention, segment_attention_backward,
    segment_attention_backward_all,
};
use grpo_tui::kernels::attention_gate::{
    gated_attention, gated_attention_backward, join_gate, split_gate,
};
use grpo_tui::kernels::convolution::{causal_convolution, causal_convolution_backward};
use grpo_tui::kernels::delta_rule::{DeltaHeads, DeltaRule, delta_rule, delta_rule_backward};
use grpo_tui::kernels::embedding::{embedding_backward, gather_rows};
use grpo_tui::kernels::gated_norm::{gated_norm, gated_norm_backward};
use grpo_tui::kernels::heads::{Attention, Heads};
use grpo_tui::kernels::log_probs::{TokenWeight, token_log_probs, token_log_probs_backward};
use grpo_tui::kernels::rms_norm::{Norm, rms_norm, rms_norm_backward, rms_norm_backward_weight};
use grpo_tui::kernels::rope::{
    QueryKeyContext, RopeTable, query_key_rope, query_key_rope_backward_all,
};
use grpo_tui::kernels::router::{NOT_RECORDED, Router, Selection, route, route_backward};
use grpo_tui::kernels::swiglu::{Activation, gated, gated_backward};

use super::finite_differences::{check, random, seeded};
use super::plain;

const HEADS: Heads = Heads {
    query: 4,
    key_value: 2,
    dimension: 6,
};

fn close(name: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    let difference = (a - b)
        .unwrap()
        .abs()
        .unwrap()
        .max_all()
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
        .to_scalar::<f64>()
        .unwrap();
    assert!(difference < tolerance, "{name}: {difference}");
}

#[test]
fn rms_norm_matches() {
    let (x, weight, seed) = (random(1, &[3, 7]), random(2, &[7]), random(3, &[3, 7]));
    for offset in [0.0, 1.0] {
        let norm = |x: &Tensor, weight: &Tensor| {
            rms_norm(
                x,
                Norm {
                    weight,
                    offset,
                    epsilon: 1e-6,
                },
                0,
            )
            .unwrap()
        };
        let expected = plain::rms_norm(&x, &(&weight + offset).unwrap(), 1e-6);
        close("rms_norm", &norm(&x, &weight), &expected, 1e-12);
        let with = Norm {
            weight: &weight,
            offset,
            epsilon: 1e-6,
        };
        let gradient = rms_norm_backward(&seed, &x, with, None, 0).unwrap();
        check("x", &x, &gradient, |x| seeded(&norm(x, &weight), &seed));
        let gradient = rms_norm_backward_weight(&seed, &x, 1e-6).unwrap();
        check("weight", &weight, &gradient, |weight| {
            seeded(&norm(&x, weight), &seed)
        });
    }
}

#[test]
fn gated_activations_match() {
    let (x, seed) = (
        random(1, &[3, 10]).affine(3.0, 0.0).unwrap(),
        random(2, &[3, 5]),
    );
    let (gate, up) = (x.narrow(1, 0, 5).unwrap(), x.narrow(1, 5, 5).unwrap());
    let (slope, limit) = (1.7, 1.3);
    let expected = [
        (Activation::Silu, gate.silu().unwrap() * &up),
        (Activation::GeluTanh, gate.gelu().unwrap() * &up),
        (
            Activation::Clamped { slope, limit },
            plain::clamped(&x, ClampedGate { slope, limit }),
        ),
    ];
    for (activation, expected) in expected {
        let product = |x: &Tensor| gated(x, activation, 0).unwrap();
        close("product", &product(&x), &expected.unwrap(), 1e-12);
        check(
            "gate_up",
            &x,
            &gated_backward(&seed, &x, activation, 0).unwrap(),
            |x| seeded(&product(x), &seed),
        );
    }
}

#[test]
fn query_key_rope_matches() {
    let table = RopeTable::new(16, HEADS.dimension, 1e4, DType::F64, &Device::Cpu).unwrap();
    let (packed, seed) = (
        random(1, &[3, HEADS.row_width()]),
        random(2, &[3, HEADS.row_width()]),
    );
    let (query_norm, key_norm) = (random(3, &[HEADS.dimension]), random(4, &[HEADS.dimension]));
    let positions = Tensor::new(&[0_u32, 5, 11], &Device::Cpu).unwrap();
    let forward = |packed: &Tensor, query: &Tensor, key: &Tensor| {
        let context = QueryKeyContext {
            heads: HEADS,
            norms: Some((query, key)),
            norm_offset: 1.0,
            epsilon: 1e-6,
            positions: &positions,
            table: &table,
        };
        query_key_rope(packed, context).unwrap()
    };
    let context = QueryKeyContext {
        heads: HEADS,
        norms: Some((&query_norm, &key_norm)),
        norm_offset: 1.0,
        epsilon: 1e-6,
        positions: &positions,
        table: &table,
    };
    let (dx, dq, dk) = query_key_rope_backward_all(&seed, &packed, context).unwrap();
    check("packed", &packed, &dx, |x| {
        seeded(&forward(x, &query_norm, &key_norm), &seed)
    });
    check("query norm", &query_norm, &dq, |w| {
        seeded(&forward(&packed, w, &key_norm), &seed)
    });
    check("key norm", &key_norm, &dk, |w| {
        seeded(&forward(&packed, &query_norm, w), &seed)
    });

    let bare = QueryKeyContext {
        norms: None,
        ..context
    };
    let (dx, _, _) = query_key_rope_backward_all(&seed, &packed, bare).unwrap();
    check("packed without norms", &packed, &dx, |x| {
        seeded(&query_key_rope(x, bare).unwrap(), &seed)
    });
}

#[test]
fn segment_attention_matches() {
    // A prompt of 3 with completions of 2 and 4, then a prompt of 2 alone.
    let segments = [
        Segment {
            start: 0,
            length: 3,
            prefix: (0, 0),
        },
        Segment {
            start: 3,
            length: 2,
            prefix: (0, 3),
        },
        Segment {
            start: 5,
            length: 4,
            prefix: (0, 3),
        },
        Segment {
            start: 9,
            length: 2,
            prefix: (0, 0),
        },
    ];
    let (packed, seed) = (
        random(1, &[11, HEADS.row_width()]),
        random(2, &[11, HEADS.query_width()]),
    );
    let segments_of_batch = Segments::new(segments.to_vec(), &Device::Cpu).unwrap();
    // Windows that end in the prompt, in the completion, and beyond both.
    let windows = [None, Some(1), Some(2), Some(4), Some(20)];
    let sinks = random(3, &[HEADS.query]).affine(2.0, 0.0).unwrap();
    let all = windows
        .into_iter()
        .flat_map(|window| [(window, None), (window, Some(&sinks))]);
    for attention in all.map(|(window, sinks)| Attention {
        heads: HEADS,
        divisor: 1.7,
        window,
        sinks,
    }) {
        let y = segment_attention(&packed, attention, &segments_of_batch, 0).unwrap();
        for (start, rows) in [
            (0, vec![0, 1, 2]),
            (3, vec![0, 1, 2, 3, 4]),
            (5, vec![0, 1, 2, 5, 6, 7, 8]),
            (9, vec![9, 10]),
        ] {
            let rows: Vec<u32> = rows;
            let own = packed
                .index_select(&Tensor::new(rows.as_slice(), &Device::Cpu).unwrap(), 0)
                .unwrap();
            let expected = plain::attention(&own, attention);
            let length = segments
                .iter()
                .find(|segment| segment.start == start)
                .unwrap()
                .length;
            let expected = expected.narrow(0, rows.len() - length, length).unwrap();
            close(
                "attention",
                &y.rows.narrow(0, start, length).unwrap(),
                &expected,
                1e-12,
            );
        }
        let gradient =
            segment_attention_backward(&seed, &packed, &y, attention, &segments_of_batch).unwrap();
        check("packed", &packed, &gradient, |x| {
            seeded(
                &segment_attention(x, attention, &segments_of_batch, 0)
                    .unwrap()
                    .rows,
                &seed,
            )
        });
        if attention.sinks.is_some() {
            let all = segment_attention_backward_all(&seed, &packed, attention, &segments_of_batch)
                .unwrap();
            close("packed", &all.0, &gradient, 1e-12);
            check("sinks", &sinks, &all.1, |sinks| {
                let attention = Attention {
                    sinks: Some(sinks),
                    ..attention
                };
                seeded(
                    &segment_attention(&packed, attention, &segments_of_batch, 0)
                        .unwrap()
                        .rows,
                    &seed,
                )
            });
        }
    }
}

#[test]
fn embedding_adds_up_repeated_ids() {
    let (table, seed, ids) = (random(1, &[5, 3]), random(2, &[4, 3]), [1_u32, 4, 1, 0]);
    let ids_tensor = Tensor::new(&ids, &Device::Cpu).unwrap();
    let gradient = embedding_backward(&seed, &ids, 5).unwrap();
    check("table", &table, &gradient, |table| {
        seeded(
            &gather_rows(table, &ids_tensor, table.dtype()).unwrap(),
            &seed,
        )
    });
}

#[test]
fn log_probs_match() {
    let (logits, targets, weights) = (
        random(1, &[4, 9]).affine(4.0, 0.0).unwrap(),
        [0_u32, 8, 3, 3],
        [1.0, -2.0, 0.5, 0.0],
    );
    // Of the last rows one has an entropy's weight, one has no weight at all.
    let entropy_weights = [0.0, 0.7, -1.5, 0.0];
    for temperature in [1.0, 0.6] {
        let probabilities = plain::softmax(&logits.affine(1.0 / temperature, 0.0).unwrap())
            .to_vec2::<f64>()
            .unwrap();
        for ((token, row), &target) in token_log_probs(&logits, &targets, temperature)
            .unwrap()
            .iter()
            .zip(&probabilities)
            .zip(&targets)
        {
            assert!((f64::from(token.log_prob) - row[target as usize].ln()).abs() < 1e-6);
            let entropy: f64 = row.iter().map(|p| -p * p.ln()).sum();
            assert!((f64::from(token.entropy) - entropy).abs() < 1e-6);
        }
        // The loss in f64, by plain operations, since the operation itself returns f32.
        let loss = |logits: &Tensor| {
            let log_probs = plain::log_softmax(&logits.affine(1.0 / temperature, 0.0).unwrap());
            let rows = log_probs.to_vec2::<f64>().unwrap();
            let entropy = |row: &[f64]| {
                -row.iter()
                    .map(|log_prob| log_prob.exp() * log_prob)
                    .sum::<f64>()
            };
            let terms = rows
                .iter()
                .zip(targets)
                .zip(weights.iter().zip(entropy_weights));
            terms
                .map(|((row, target), (of, by))| of * row[target as usize] + by * entropy(row))
                .sum()
        };
        let weights: Vec<TokenWeight> = weights
            .iter()
            .zip(entropy_weights)
            .map(|(&log_prob, entropy)| TokenWeight { log_prob, entropy })
            .collect();
        check(
            "logits",
            &logits,
            &token_log_probs_backward(&logits, &targets, &weights, temperature).unwrap(),
            loss,
        );
    }
}

/// Masked by a model or a mask: its share is 0, and the others are as if it were not there.
#[test]
fn a_logit_of_minus_infinity_leaves_the_entropy_finite() {
    let rows = |logits: &[f64]| {
        Tensor::new(logits, &Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap()
    };
    let (all, masked) = (
        rows(&[0.5, -1.0, 2.0]),
        rows(&[0.5, f64::NEG_INFINITY, -1.0, 2.0]),
    );
    for dtype in [DType::F64, DType::F32] {
        let of = |logits: &Tensor, target| {
            let logits = logits.to_dtype(dtype).unwrap();
            let weights = [TokenWeight {
                log_prob: 1.0,
                entropy: 0.5,
            }];
            let token = token_log_probs(&logits, &[target], 1.0).unwrap().remove(0);
            let gradient = token_log_probs_backward(&logits, &[target], &weights, 1.0).unwrap();
            let gradient = gradient
                .to_dtype(DType::F64)
                .unwrap()
                .to_vec2::<f64>()
                .unwrap();
            (token, gradient.concat())
        };
        let ((token, gradient), (same, rest)) = (of(&masked, 3), of(&all, 2));
        assert!(
            (token.entropy - same.entropy).abs() < 1e-6,
            "{token:?}, {same:?}"
        );
        assert!(
            (token.log_prob - same.log_prob).abs() < 1e-6,
            "{token:?}, {same:?}"
        );
        assert!(gradient[1].abs() < 1e-30, "{gradient:?}");
        let others = [gradient[0], gradient[2], gradient[3]];
        assert!(
            others.iter().zip(&rest).all(|(a, b)| (a - b).abs() < 1e-6),
            "{gradient:?}, {rest:?}"
        );
    }
}

/// Two prompts, two completions of the first, one of the second, of which the shortest are shorter than a kernel of 4.
fn prompts_and_completions() -> Segments {
    let own = [
        (0, 3, (0, 0)),
        (3, 2, (0, 3)),
        (5, 1, (0, 0)),
        (6, 4, (0, 3)),
        (10, 2, (5, 1)),
    ];
    let segment = |(start, length, prefix)| Segment {
        start,
        length,
        prefix,
    };
    Segments::new(own.map(segment).to_vec(), &Device::Cpu).unwrap()
}

#[test]
fn causal_convolution_matches() {
    let segments = prompts_and_completions();
    // Of seven columns the first five are convolved.
    let (packed, weight, seed) = (random(1, &[12, 7]), random(2, &[5, 4]), random(3, &[12, 5]));
    let forward =
        |packed: &Tensor, weight: &Tensor| causal_convolution(packed, weight, &segments).unwrap();
    let own = packed.narrow(1, 0, 5).unwrap().contiguous().unwrap();
    for (rows, last) in [
        (vec![0_u32, 1, 2, 6, 7, 8, 9], 9),
        (vec![5, 10, 11], 11),
        (vec![0, 1, 2, 3, 4], 4),
    ] {
        let rows = Tensor::new(rows, &Device::Cpu).unwrap();
        let expected = plain::convolution(
            &own.index_select(&rows, 0).unwrap(),
            &weight.unsqueeze(1).unwrap(),
        );
        let found = forward(&packed, &weight).narrow(0, last, 1).unwrap();
        close(
            "convolution",
            &found,
            &expected.narrow(0, rows.dims()[0] - 1, 1).unwrap(),
            1e-12,
        );
    }
    let (x, w) = causal_convolution_backward(&seed, &packed, &weight, &segments, true).unwrap();
    assert!(
        causal_convolution_backward(&seed, &packed, &weight, &segments, false)
            .unwrap()
            .1
            .is_none()
    );
    let padded = Tensor::cat(
        &[x, Tensor::zeros((12, 2), DType::F64, &Device::Cpu).unwrap()],
        1,
    )
    .unwrap();
    check("x", &packed, &padded, |packed| {
        seeded(&forward(packed, &weight), &seed)
    });
    check("weight", &weight, &w.unwrap(), |weight| {
        seeded(&forward(&packed, weight), &seed)
    });
}

#[test]
fn delta_rule_matches() {
    let heads = DeltaHeads {
        key: 1,
        value: 3,
        key_dimension: 4,
        value_dimension: 2,
    };
    let long = Segment {
        start: 0,
        length: 70,
        prefix: (0, 0),
    };
    let after = Segment {
        start: 70,
        length: 3,
        prefix: (0, 70),
    };
    for (segments, rows) in [
        (prompts_and_completions(), 12),
        (Segments::new(vec![long, after], &Device::Cpu).unwrap(), 73),
    ] {
        let (convolved, packed) = (random(1, &[rows, heads.row_width()]), random(2, &[rows, 7]));
        let (decay, bias) = (random(3, &[3]).affine(1.0, -2.0).unwrap(), random(4, &[3]));
        let seed = random(5, &[rows, heads.value_width()]);
        let forward = |convolved: &Tensor, packed: &Tensor, decay: &Tensor, bias: &Tensor| {
            let rule = DeltaRule {
                heads,
                packed,
                column: 1,
                decay,
                bias,
            };
            seeded(&delta_rule(convolved, rule, &segments).unwrap(), &seed)
        };
        let rule = DeltaRule {
            heads,
            packed: &packed,
            column: 1,
            decay: &decay,
            bias: &bias,
        };
        let found = delta_rule_backward(&seed, &convolved, rule, &segments).unwrap();
        check("decay", &decay, &found.decay, |decay| {
            forward(&convolved, &packed, decay, &bias)
        });
        check("bias", &bias, &found.bias, |bias| {
            forward(&convolved, &packed, &decay, bias)
        });
        let zeros = Tensor::zeros((rows, 1), DType::F64, &Device::Cpu).unwrap();
        let gates = Tensor::cat(&[zeros, found.gates], 1).unwrap();
        check("gates", &packed, &gates, |packed| {
            forward(&convolved, packed, &decay, &bias)
        });
        check("rows", &convolved, &found.convolved, |convolved| {
            forward(convolved, &packed, &decay, &bias)
        });
    }
}

#[test]
fn gated_norm_matches() {
    let (x, packed, weight, seed) = (
        random(1, &[3, 8]),
        random(2, &[3, 11]),
        random(3, &[4]),
        random(4, &[3, 8]),
    );
    let forward = |x: &Tensor, packed: &Tensor, weight: &Tensor| {
        gated_norm(x, (packed, 2), Norm::plain(weight, 1e-6), 0).unwrap()
    };
    let normed = plain::rms_norm(&x.reshape((3, 2, 4)).unwrap(), &weight, 1e-6)
        .reshape((3, 8))
        .unwrap();
    let expected = (normed * packed.narrow(1, 2, 8).unwrap().silu().unwrap()).unwrap();
    close(
        "gated_norm",
        &forward(&x, &packed, &weight),
        &expected,
        1e-12,
    );
    let (dx, gate, dw) =
        gated_norm_backward(&seed, &x, (&packed, 2), Norm::plain(&weight, 1e-6)).unwrap();
    let zeros = |columns: usize| Tensor::zeros((3, columns), DType::F64, &Device::Cpu).unwrap();
    let gate = Tensor::cat(&[zeros(2), gate, zeros(1)], 1).unwrap();
    check("x", &x, &dx, |x| {
        seeded(&forward(x, &packed, &weight), &seed)
    });
    check("gate", &packed, &gate, |packed| {
        seeded(&forward(&x, packed, &weight), &seed)
    });
    check("weight", &weight, &dw, |weight| {
        seeded(&forward(&x, &packed, weight), &seed)
    });
}

#[test]
fn attention_gates_match() {
    let packed = random(1, &[3, HEADS.row_width() + HEADS.query_width()]);
    let (rows, gate) = split_gate(&packed, HEADS).unwrap();
    close(
        "split",
        &join_gate(&rows, &gate, HEADS, 0).unwrap(),
        &packed,
        1e-300,
    );
    close(
        "query",
        &rows.narrow(1, 6, 6).unwrap(),
        &packed.narrow(1, 12, 6).unwrap(),
        1e-300,
    );
    let (attended, seed) = (
        random(2, &[3, HEADS.query_width()]),
        random(3, &[3, HEADS.query_width()]),
    );
    let forward = |attended: &Tensor, gate: &Tensor| gated_attention(attended, gate, 0).unwrap();
    close(
        "gated",
        &forward(&attended, &gate),
        &(&attended * plain::sigmoid(&gate)).unwrap(),
        1e-12,
    );
    let (by_attended, by_gate) = gated_attention_backward(&seed, &attended, &gate).unwrap();
    check("attended", &attended, &by_attended, |attended| {
        seeded(&forward(attended, &gate), &seed)
    });
    check("gate", &gate, &by_gate, |gate| {
        seeded(&forward(&attended, gate), &seed)
    });
}

#[test]
fn routers_match() {
    let logits = random(1, &[4, 5]).affine(2.0, 0.0).unwrap();
    let replayed = Tensor::new(
        &[[4u32, 1], [NOT_RECORDED; 2], [0, 3], [2, 4]],
        &Device::Cpu,
    )
    .unwrap();
    let fixed = Selection::Replayed(&replayed);
    for (is_renormalised, active, selection) in [
        (false, 1, Selection::Free),
        (false, 3, Selection::Free),
        (true, 2, Selection::Free),
        (true, 5, Selection::Free),
        (false, 2, fixed),
        (true, 2, fixed),
    ] {
        let router = Router {
            active,
            is_renormalised,
        };
        let (seed, ones) = (
            random(2, &[4 * active, 1]),
            random(2, &[4 * active, 1]).ones_like().unwrap(),
        );
        let routing = route(&logits, router, selection).unwrap();
        let products = routing.weigh(&seed, None).unwrap();
        let gradient = route_backward(&products, &routing, router, DType::F64).unwrap();
        let weights = |logits: &Tensor| {
            route(logits, router, selection)
                .unwrap()
                .weigh(&ones, None)
                .unwrap()
        };
        check("logits", &logits, &gradient, |logits| {
            seeded(&weights(logits), &seed)
        });
    }
}
