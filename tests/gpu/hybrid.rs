//! The operations of hybrid models on the GPU against the same on the CPU: convolution, gated delta rule, norms and attention
//! with gates, heads that are rotated in part.

use candle_core::{DType, Device, Tensor};
use grpo_tui::kernels::attention::{Segment, Segments};
use grpo_tui::kernels::attention_gate::{
    gated_attention, gated_attention_backward, join_gate, split_gate,
};
use grpo_tui::kernels::convolution::{
    causal_convolution, causal_convolution_backward, convolution_states, convolution_step,
};
use grpo_tui::kernels::decode_attention::{DecodeRow, DecodeRows, NO_STATE};
use grpo_tui::kernels::delta_rule::{
    DeltaHeads, DeltaRule, delta_rule, delta_rule_backward, delta_rule_states, delta_rule_step,
};
use grpo_tui::kernels::gated_norm::{gated_norm, gated_norm_backward};
use grpo_tui::kernels::heads::Heads;
use grpo_tui::kernels::matmul::matmul;
use grpo_tui::kernels::open_rows::{OpenAdapters, OpenRows};
use grpo_tui::kernels::rms_norm::Norm;
use grpo_tui::kernels::rope::{
    QueryKeyContext, RopeTable, query_key_rope, query_key_rope_backward_all,
};
use grpo_tui::kernels::shared_gate::{add_shared, add_shared_backward, add_shared_open};

use super::{
    NUMBER_TYPES, assert_close, delta_rule_factor, gpu, on_gpu, poison, random, rounded, tolerance,
};

/// Two prompts with completions, the second prompt shorter than a convolution, and one alone; the last completion is long.
fn segments() -> [Segments; 2] {
    let own = [
        (0, 70, (0, 0)),
        (70, 2, (0, 70)),
        (72, 40, (0, 70)),
        (112, 2, (0, 0)),
        (114, 1, (112, 2)),
        (115, 3, (112, 2)),
        (118, 5, (0, 0)),
        (123, 300, (118, 5)),
    ];
    let list: Vec<Segment> = own
        .map(|(start, length, prefix)| Segment {
            start,
            length,
            prefix,
        })
        .to_vec();
    [gpu(), Device::Cpu].map(|device| Segments::new(list.clone(), &device).unwrap())
}

const ROWS: usize = 423;

/// Both places of a tensor.
fn both(tensor: &Tensor, dtype: DType) -> [Tensor; 2] {
    [on_gpu(tensor, dtype), rounded(tensor, dtype)]
}

/// Both places' rows of a decode: three sequences, of which the second has two drafted tokens, and a row that repeats the last.
fn decoded_rows() -> [DecodeRows; 2] {
    let states = [(3, 3), (0, 0), (0, 5), (5, 1), (4, 2)];
    let row = |states| DecodeRow {
        first: 0,
        prefix: (0, 0),
        length: 1,
        states,
    };
    let numbers: Vec<u32> = states
        .iter()
        .flat_map(|&(before, own)| [before as u32, own as u32])
        .chain([NO_STATE; 2])
        .collect();
    let table = DecodeRows::Table {
        rows: Tensor::zeros((6, 4), DType::U32, &gpu()).unwrap(),
        states: Tensor::from_vec(numbers, (6, 2), &gpu()).unwrap(),
        longest: 1,
    };
    [table, DecodeRows::Listed(states.map(row).to_vec())]
}

/// With the last row once more.
fn repeated(rows: &Tensor) -> Tensor {
    Tensor::cat(&[rows, &rows.narrow(0, rows.dims()[0] - 1, 1).unwrap()], 0).unwrap()
}

#[test]
#[ignore = "needs a GPU"]
fn convolutions_agree() {
    let [there, here] = segments();
    // In decoding four columns are read at once if rows are aligned.
    let sizes = [(300, 4, 9), (300, 4, 8), (2060, 4, 8), (8, 2, 9)];
    for (dtype, (width, taps, more)) in NUMBER_TYPES
        .into_iter()
        .flat_map(|dtype| sizes.map(|sizes| (dtype, sizes)))
    {
        let packed = both(&random(1, &[ROWS, width + more]), dtype);
        let weight = both(&random(2, &[width, taps]), dtype);
        let seed = both(&random(3, &[ROWS, width]), dtype);
        let what = |part: &str| format!("{part}, {dtype:?}, {width} of {} columns", width + more);
        poison(ROWS * width);
        let found = causal_convolution(&packed[0], &weight[0], &there).unwrap();
        let expected = causal_convolution(&packed[1], &weight[1], &here).unwrap();
        assert_close(&what("convolution"), &found, &expected, tolerance(dtype));
        let found =
            causal_convolution_backward(&seed[0], &packed[0], &weight[0], &there, true).unwrap();
        let expected =
            causal_convolution_backward(&seed[1], &packed[1], &weight[1], &here, true).unwrap();
        assert_close(
            &what("rows' gradient"),
            &found.0,
            &expected.0,
            tolerance(dtype),
        );
        assert_close(
            &what("weight's gradient"),
            &found.1.unwrap(),
            &expected.1.unwrap(),
            1e-5,
        );
        let found = convolution_states(&packed[0], &weight[0], &there).unwrap();
        let expected = convolution_states(&packed[1], &weight[1], &here).unwrap();
        assert_close(&what("states"), &found, &expected, 0.0);

        let states = both(&random(4, &[6, (taps - 1) * width]), dtype);
        let [table, listed] = decoded_rows();
        let own = [
            packed[0].narrow(0, 0, 6).unwrap(),
            packed[1].narrow(0, 0, 5).unwrap(),
        ];
        let found = convolution_step(&own[0], &weight[0], &states[0], &table).unwrap();
        let expected =
            repeated(&convolution_step(&own[1], &weight[1], &states[1], &listed).unwrap());
        assert_close(&what("a step"), &found, &expected, tolerance(dtype));
        assert_close(&what("states after it"), &states[0], &states[1], 0.0);
    }
}

fn delta_heads([key, value, key_dimension, value_dimension]: [usize; 4]) -> DeltaHeads {
    DeltaHeads {
        key,
        value,
        key_dimension,
        value_dimension,
    }
}

/// Asserts that outputs, states and gradients of the rule agree; `decay`: added to random logarithms of how fast states decay.
fn assert_delta_rule(heads: DeltaHeads, dtype: DType, [there, here]: &[Segments; 2], decay: f64) {
    let rows: usize = there.list().iter().map(|segment| segment.length).sum();
    let convolved = both(&random(1, &[rows, heads.row_width()]), dtype);
    let packed = both(&random(2, &[rows, 2 * heads.value + 3]), dtype);
    let (decays, bias) = (
        both(
            &random(3, &[heads.value]).affine(1.0, decay).unwrap(),
            dtype,
        ),
        both(&random(4, &[heads.value]), dtype),
    );
    let seed = both(&random(5, &[rows, heads.value_width()]), dtype);
    let rule = |at: usize| DeltaRule {
        heads,
        packed: &packed[at],
        column: 1,
        decay: &decays[at],
        bias: &bias[at],
    };
    let factor = delta_rule_factor();
    let allowed = match dtype {
        DType::F32 => tolerance(dtype) * factor,
        _ => tolerance(dtype),
    };
    let what = |part: &str| format!("{part}, {dtype:?}, {heads:?}");
    poison(rows * heads.value_width());
    let found = delta_rule(&convolved[0], rule(0), there).unwrap();
    let expected = delta_rule(&convolved[1], rule(1), here).unwrap();
    assert_close(&what("delta rule"), &found, &expected, allowed);
    let found = delta_rule_states(&convolved[0], rule(0), there).unwrap();
    let expected = delta_rule_states(&convolved[1], rule(1), here).unwrap();
    assert_close(&what("states"), &found, &expected, 1e-5 * factor);

    poison(rows * heads.row_width());
    let found = delta_rule_backward(&seed[0], &convolved[0], rule(0), there).unwrap();
    let expected = delta_rule_backward(&seed[1], &convolved[1], rule(1), here).unwrap();
    let parts = |all: &Tensor| {
        let (key, value) = (heads.key * heads.key_dimension, heads.value_width());
        [(0, key), (key, key), (2 * key, value)]
            .map(|(from, width)| all.narrow(1, from, width).unwrap())
    };
    let named = ["queries", "keys", "values"]
        .into_iter()
        .zip(parts(&found.convolved));
    for ((name, found), expected) in named.zip(parts(&expected.convolved)) {
        assert_close(&what(name), &found, &expected, allowed);
    }
    for (name, column) in [("strengths", 0), ("decays", heads.value)] {
        let part = |all: &Tensor| all.narrow(1, column, heads.value).unwrap();
        assert_close(
            &what(name),
            &part(&found.gates),
            &part(&expected.gates),
            allowed,
        );
    }
    // Sums over rows of what nearly cancels out.
    let of_sums = if dtype == DType::F32 {
        1e-4 * factor
    } else {
        allowed
    };
    assert_close(&what("A"), &found.decay, &expected.decay, of_sums);
    assert_close(&what("bias"), &found.bias, &expected.bias, of_sums);
}

#[test]
#[ignore = "needs a GPU"]
fn delta_rules_agree() {
    let segments = segments();
    let all = [[2, 4, 128, 128], [1, 3, 12, 40]].map(delta_heads);
    for (dtype, heads) in NUMBER_TYPES
        .into_iter()
        .flat_map(|dtype| all.map(|heads| (dtype, heads)))
    {
        assert_delta_rule(heads, dtype, &segments, 0.0);
    }
}

/// Segments of several chunks of 64 tokens, whole ones and others, with states that last over them.
#[test]
#[ignore = "needs a GPU"]
fn delta_rules_over_chunks_agree() {
    let own = [
        (200, 0),
        (150, 200),
        (64, 200),
        (65, 200),
        (1, 200),
        (128, 0),
        (63, 128),
    ];
    let mut list: Vec<Segment> = Vec::new();
    let (mut start, mut prompt) = (0, 0);
    for (length, prefix) in own {
        if prefix == 0 {
            prompt = start;
        }
        list.push(Segment {
            start,
            length,
            prefix: (if prefix == 0 { 0 } else { prompt }, prefix),
        });
        start += length;
    }
    let segments = [gpu(), Device::Cpu].map(|device| Segments::new(list.clone(), &device).unwrap());
    let all = [
        [1, 2, 128, 128],
        [2, 2, 24, 64],
        [1, 3, 64, 96],
        [2, 2, 96, 23],
    ]
    .map(delta_heads);
    for (dtype, heads) in NUMBER_TYPES
        .into_iter()
        .flat_map(|dtype| all.map(|heads| (dtype, heads)))
    {
        assert_delta_rule(heads, dtype, &segments, -3.0);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn delta_rule_steps_agree() {
    let all = [[2, 4, 128, 128], [1, 3, 12, 40]].map(delta_heads);
    for (dtype, heads) in NUMBER_TYPES
        .into_iter()
        .flat_map(|dtype| all.map(|heads| (dtype, heads)))
    {
        let convolved = both(&random(1, &[6, heads.row_width()]), dtype);
        let packed = both(&random(2, &[6, 2 * heads.value + 3]), dtype);
        let (decay, bias) = (
            both(&random(3, &[heads.value]), dtype),
            both(&random(4, &[heads.value]), dtype),
        );
        let rule = |at: usize| DeltaRule {
            heads,
            packed: &packed[at],
            column: 1,
            decay: &decay[at],
            bias: &bias[at],
        };
        let what = |part: &str| format!("{part}, {dtype:?}, {heads:?}");
        let states = both(&random(6, &[6, heads.state_width()]), DType::F32);
        let [table, listed] = decoded_rows();
        let steps = |at: usize, count: usize| {
            let narrow = |tensor: &Tensor| tensor.narrow(0, 0, count).unwrap();
            let (convolved, packed) = (narrow(&convolved[at]), narrow(&packed[at]));
            let rule = DeltaRule {
                packed: &packed,
                ..rule(at)
            };
            delta_rule_step(
                &convolved,
                rule,
                &states[at],
                if at == 0 { &table } else { &listed },
            )
            .unwrap()
        };
        let found = steps(0, 6);
        assert_close(
            &what("a step"),
            &found,
            &repeated(&steps(1, 5)),
            tolerance(dtype),
        );
        assert_close(&what("states after it"), &states[0], &states[1], 1e-5);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn norms_and_attention_with_gates_agree() {
    for (dtype, size) in NUMBER_TYPES
        .into_iter()
        .flat_map(|dtype| [(dtype, 128), (dtype, 20), (dtype, 256)])
    {
        let (rows, width) = (37, 3 * size);
        let (x, packed) = (
            both(&random(1, &[rows, width]), dtype),
            both(&random(2, &[rows, width + 7]), dtype),
        );
        let (weight, seed) = (
            both(&random(3, &[size]), dtype),
            both(&random(4, &[rows, width]), dtype),
        );
        let norm = |at: usize| Norm {
            weight: &weight[at],
            offset: 0.5,
            epsilon: 1e-6,
        };
        let what = |part: &str| format!("{part}, {dtype:?}, heads of {size}");
        poison(rows * (width + 64));
        let found = gated_norm(&x[0], (&packed[0], 3), norm(0), 64)
            .unwrap()
            .narrow(1, 0, width)
            .unwrap();
        let expected = gated_norm(&x[1], (&packed[1], 3), norm(1), 0).unwrap();
        assert_close(&what("norm"), &found, &expected, tolerance(dtype));
        let found = gated_norm_backward(&seed[0], &x[0], (&packed[0], 3), norm(0)).unwrap();
        let expected = gated_norm_backward(&seed[1], &x[1], (&packed[1], 3), norm(1)).unwrap();
        assert_close(
            &what("rows' gradient"),
            &found.0,
            &expected.0,
            tolerance(dtype),
        );
        assert_close(
            &what("gates' gradient"),
            &found.1,
            &expected.1,
            tolerance(dtype),
        );
        assert_close(&what("weight's gradient"), &found.2, &expected.2, 1e-5);

        let heads = Heads {
            query: 4,
            key_value: 2,
            dimension: size,
        };
        let all = both(
            &random(5, &[rows, heads.row_width() + heads.query_width()]),
            dtype,
        );
        let [found, expected] = all.each_ref().map(|all| split_gate(all, heads).unwrap());
        assert_close(
            &what("queries, keys and values"),
            &found.0,
            &expected.0,
            0.0,
        );
        assert_close(&what("gates"), &found.1, &expected.1, 0.0);
        let joined = join_gate(&found.0, &found.1, heads, 64)
            .unwrap()
            .narrow(1, 0, all[0].dims()[1])
            .unwrap();
        assert_close(&what("joined"), &joined, &all[1], 0.0);
        let attended = both(&random(6, &[rows, heads.query_width()]), dtype);
        let seed = both(&random(7, &[rows, heads.query_width()]), dtype);
        let product = gated_attention(&attended[0], &found.1, 64)
            .unwrap()
            .narrow(1, 0, heads.query_width())
            .unwrap();
        let expected_product = gated_attention(&attended[1], &expected.1, 0).unwrap();
        assert_close(
            &what("attention"),
            &product,
            &expected_product,
            tolerance(dtype),
        );
        let found = gated_attention_backward(&seed[0], &attended[0], &found.1).unwrap();
        let expected = gated_attention_backward(&seed[1], &attended[1], &expected.1).unwrap();
        assert_close(
            &what("attention's gradient"),
            &found.0,
            &expected.0,
            tolerance(dtype),
        );
        assert_close(
            &what("its gates' gradient"),
            &found.1,
            &expected.1,
            tolerance(dtype),
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn heads_rotated_in_part_agree() {
    for (dtype, size, turned) in NUMBER_TYPES
        .into_iter()
        .flat_map(|dtype| [(dtype, 256, 64), (dtype, 128, 32), (dtype, 12, 6)])
    {
        let heads = Heads {
            query: 4,
            key_value: 2,
            dimension: size,
        };
        let rows = 29;
        let packed = both(&random(1, &[rows, heads.row_width()]), dtype);
        let seed = both(&random(2, &[rows, heads.row_width()]), dtype);
        let norms = [
            both(&random(3, &[size]), dtype),
            both(&random(4, &[size]), dtype),
        ];
        let positions: Vec<u32> = (0..rows as u32).map(|row| row * 7 % 50).collect();
        let places = [gpu(), Device::Cpu];
        let positions = places
            .each_ref()
            .map(|place| Tensor::new(positions.as_slice(), place).unwrap());
        let tables = places
            .each_ref()
            .map(|place| RopeTable::new(50, turned, 1e4, DType::F32, place).unwrap());
        let context = |at: usize| QueryKeyContext {
            heads,
            norms: Some((&norms[0][at], &norms[1][at])),
            norm_offset: 1.0,
            epsilon: 1e-6,
            positions: &positions[at],
            table: &tables[at],
        };
        let what = |part: &str| format!("{part}, {dtype:?}, {turned} of {size}");
        let [found, expected] = [0, 1].map(|at| query_key_rope(&packed[at], context(at)).unwrap());
        assert_close(&what("rotation"), &found, &expected, tolerance(dtype));
        let [found, expected] = [0, 1]
            .map(|at| query_key_rope_backward_all(&seed[at], &packed[at], context(at)).unwrap());
        assert_close(
            &what("rows' gradient"),
            &found.0,
            &expected.0,
            tolerance(dtype),
        );
        assert_close(&what("query norm's gradient"), &found.1, &expected.1, 1e-4);
        assert_close(&what("key norm's gradient"), &found.2, &expected.2, 1e-4);
    }
}

/// The expert that every row uses, of whose product and gate adapters may have yet to be added.
#[test]
#[ignore = "needs a GPU"]
fn shared_experts_with_gates_agree() {
    for (dtype, width) in NUMBER_TYPES
        .into_iter()
        .flat_map(|dtype| [(dtype, 64), (dtype, 2048), (dtype, 301)])
    {
        let (rows, rank) = (37, 8);
        let [sum, shared, gradient] = [1, 2, 3].map(|n| both(&random(n, &[rows, width]), dtype));
        let gate = both(&random(4, &[rows, 1]).affine(3.0, 0.0).unwrap(), dtype);
        let what = |part: &str| format!("{part}, {dtype:?}, {width} columns");
        poison(rows * width);
        let found = add_shared(&sum[0], &shared[0], &gate[0]).unwrap();
        let expected = add_shared(&sum[1], &shared[1], &gate[1]).unwrap();
        assert_close(
            &what("a shared expert"),
            &found,
            &expected,
            tolerance(dtype),
        );
        poison(rows * (width + 64));
        let found = add_shared_backward(&gradient[0], &shared[0], &gate[0], [64, 8]).unwrap();
        let expected = add_shared_backward(&gradient[1], &shared[1], &gate[1], [0, 0]).unwrap();
        assert_close(
            &what("its gradient"),
            &found.0.narrow(1, 0, width).unwrap(),
            &expected.0,
            tolerance(dtype),
        );
        assert_close(
            &what("its gate's"),
            &found.1.narrow(1, 0, 1).unwrap(),
            &expected.1,
            tolerance(dtype),
        );

        // Products and the numbers of A side by side in f32, the numbers of A as the kernel rounds them.
        let open = |stream: u32, outputs: usize| {
            let (rows, b) = (
                random(stream, &[rows, outputs + rank]),
                both(&random(stream + 1, &[outputs, rank]), dtype),
            );
            let (own, inner) = (
                rows.narrow(1, 0, outputs).unwrap(),
                rounded(&rows.narrow(1, outputs, rank).unwrap(), dtype),
            );
            let closed = (&own + matmul(&inner, &b[1].t().unwrap()).unwrap()).unwrap();
            let adapters = Some(OpenAdapters {
                b: b[0].clone(),
                parts: 1,
            });
            (
                OpenRows {
                    rows: on_gpu(&rows, DType::F32),
                    adapters,
                },
                rounded(&closed, dtype),
            )
        };
        let ((shared, shared_cpu), (gate, gate_cpu)) = (open(5, width), open(7, 1));
        poison(rows * width);
        let found = add_shared_open(&sum[0], &shared, &gate).unwrap();
        let expected = add_shared(&sum[1], &shared_cpu, &gate_cpu).unwrap();
        assert_close(&what("with adapters"), &found, &expected, tolerance(dtype));
        let complete = OpenRows::complete(on_gpu(&shared_cpu, DType::F32));
        let found = add_shared_open(
            &sum[0],
            &complete,
            &OpenRows::complete(on_gpu(&gate_cpu, DType::F32)),
        )
        .unwrap();
        assert_close(
            &what("without adapters"),
            &found,
            &expected,
            tolerance(dtype),
        );
    }
}
