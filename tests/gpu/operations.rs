//! Every other operation on the GPU against the CPU, forward and backward.

use candle_core::{DType, Device, Tensor};
use grpo_tui::kernels::decode_attention::{DecodeRow, DecodeRows};
use grpo_tui::kernels::device::Engine;
use grpo_tui::kernels::embedding::{Table, embedding_backward, gather_rows, scatter_rows};
use grpo_tui::kernels::heads::Heads;
use grpo_tui::kernels::log_probs::{
    TokenWeight, token_log_probs, token_log_probs_backward, token_log_probs_backward_as,
};
use grpo_tui::kernels::matmul::matmul_f32;
use grpo_tui::kernels::open_rows::{OpenAdapters, OpenRows, complete_rows};
use grpo_tui::kernels::philox::{SampleKey, uniform};
use grpo_tui::kernels::rms_norm::{
    Norm, add_rms_norm, rms_norm, rms_norm_backward, rms_norm_backward_weight, rms_norm_open,
};
use grpo_tui::kernels::rope::{
    QueryKeyContext, RopeTable, query_key_rope, query_key_rope_backward,
    query_key_rope_backward_all, query_key_rope_open,
};
use grpo_tui::kernels::swiglu::{Activation, gated, gated_backward, gated_open};
use grpo_tui::kernels::write_rows::write_rows;

use super::{NUMBER_TYPES, assert_close, gpu, on_gpu, pair, poison, random, rounded, tolerance};

const ACTIVATIONS: [Activation; 2] = [Activation::Silu, Activation::GeluTanh];

fn norm_by(weight: &Tensor, offset: f64) -> Norm<'_> {
    Norm {
        weight,
        offset,
        epsilon: 1e-6,
    }
}

fn ids(count: usize, below: u32, stream: u32) -> Vec<u32> {
    let place = |position: usize| SampleKey {
        step: stream,
        prompt: 0,
        sample: 0,
        position: position as u32,
    };
    (0..count)
        .map(|position| (uniform(5, place(position)) * f64::from(below)) as u32)
        .collect()
}

#[test]
#[ignore = "needs a GPU"]
fn rms_norm_agrees() {
    for (dtype, offset) in NUMBER_TYPES
        .into_iter()
        .flat_map(|dtype| [(dtype, 0.0), (dtype, 1.0)])
    {
        for (rows, width) in [(1, 8), (5, 40), (3, 7), (300, 24), (64, 4096), (2, 10_000)] {
            let [(x_cpu, x), (seed_cpu, seed), (addend_cpu, addend)] =
                [1, 3, 4].map(|n| pair(n, &[rows, width], dtype));
            let (weight_cpu, weight) = pair(2, &[width], dtype);
            let (expected_sum, expected_norm) = add_rms_norm(
                &x_cpu,
                &OpenRows::complete(addend_cpu.clone()),
                norm_by(&weight_cpu, offset),
                0,
            )
            .unwrap();
            let residuals = [(None, None), (Some(&addend_cpu), Some(&addend))];
            for adapter_columns in [0, 5, 16] {
                let own = |wide: Tensor| wide.narrow(1, 0, width).unwrap().contiguous().unwrap();
                poison(rows * (width + adapter_columns));
                let y = own(rms_norm(&x, norm_by(&weight, offset), adapter_columns).unwrap());
                assert_close(
                    "rms_norm",
                    &y,
                    &rms_norm(&x_cpu, norm_by(&weight_cpu, offset), 0).unwrap(),
                    tolerance(dtype),
                );
                poison(rows * (width + adapter_columns));
                let (sum, normed) = add_rms_norm(
                    &x,
                    &OpenRows::complete(addend.clone()),
                    norm_by(&weight, offset),
                    adapter_columns,
                )
                .unwrap();
                let normed = own(normed);
                assert_close("residual sum", &sum, &expected_sum, tolerance(dtype));
                assert_close("norm of the sum", &normed, &expected_norm, tolerance(dtype));
                let again = rms_norm(&sum, norm_by(&weight, offset), 0).unwrap();
                assert_close("norm of the sum as it is kept", &normed, &again, 1e-4);
                for (residual_cpu, residual) in residuals {
                    poison(rows * (width + adapter_columns));
                    let dx = own(rms_norm_backward(
                        &seed,
                        &x,
                        norm_by(&weight, offset),
                        residual,
                        adapter_columns,
                    )
                    .unwrap());
                    let expected = rms_norm_backward(
                        &seed_cpu,
                        &x_cpu,
                        norm_by(&weight_cpu, offset),
                        residual_cpu,
                        0,
                    )
                    .unwrap();
                    assert_close("rms_norm backward", &dx, &expected, tolerance(dtype));
                }
            }
            let dw = rms_norm_backward_weight(&seed, &x, 1e-6).unwrap();
            assert_eq!(dw.dtype(), DType::F32);
            assert_close(
                "rms_norm weight",
                &dw,
                &rms_norm_backward_weight(&seed_cpu, &x_cpu, 1e-6).unwrap(),
                1e-5,
            );
        }
    }
}

/// The residual stream in f32 beside bf16: nothing of it is rounded.
#[test]
#[ignore = "needs a GPU"]
fn a_stream_in_f32_agrees() {
    for (rows, width, offset) in [
        (1, 8, 0.0),
        (3, 7, 1.0),
        (300, 24, 0.0),
        (64, 4096, 0.0),
        (64, 640, 1.0),
    ] {
        let (x_cpu, x) = pair(1, &[rows, width], DType::F32);
        let [(seed_cpu, seed), (addend_cpu, addend)] =
            [3, 4].map(|n| pair(n, &[rows, width], DType::BF16));
        let (weight_cpu, weight) = pair(2, &[width], DType::BF16);
        let half = tolerance(DType::BF16);
        assert_close(
            "norm",
            &rms_norm(&x, norm_by(&weight, offset), 0).unwrap(),
            &rms_norm(&x_cpu, norm_by(&weight_cpu, offset), 0).unwrap(),
            half,
        );
        poison(rows * width);
        let (sum, normed) = add_rms_norm(
            &x,
            &OpenRows::complete(addend.clone()),
            norm_by(&weight, offset),
            0,
        )
        .unwrap();
        let (expected_sum, expected) = add_rms_norm(
            &x_cpu,
            &OpenRows::complete(addend_cpu.clone()),
            norm_by(&weight_cpu, offset),
            0,
        )
        .unwrap();
        assert_eq!((sum.dtype(), normed.dtype()), (DType::F32, DType::BF16));
        assert_close("sum", &sum, &expected_sum, 1e-7);
        assert_close("norm of the sum", &normed, &expected, half);
        poison(rows * width);
        let dx = rms_norm_backward(&seed, &x, norm_by(&weight, offset), Some(&addend), 0).unwrap();
        let expected = rms_norm_backward(
            &seed_cpu,
            &x_cpu,
            norm_by(&weight_cpu, offset),
            Some(&addend_cpu),
            0,
        )
        .unwrap();
        assert_close("backward", &dx, &expected, half);
        let dw = rms_norm_backward_weight(&seed, &x, 1e-6).unwrap();
        assert_close(
            "weight",
            &dw,
            &rms_norm_backward_weight(&seed_cpu, &x_cpu, 1e-6).unwrap(),
            1e-5,
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn rotary_positions_agree() {
    for dtype in NUMBER_TYPES {
        let shapes = [
            (3, 4, 2, 6),
            (7, 3, 1, 8),
            (1, 2, 2, 10),
            (300, 4, 2, 16),
            (33, 32, 8, 128),
            (5, 2, 1, 256),
        ];
        for (rows, query, key_value, dimension) in shapes {
            let heads = Heads {
                query,
                key_value,
                dimension,
            };
            let [(packed_cpu, packed), (seed_cpu, seed)] =
                [1, 2].map(|n| pair(n, &[rows, heads.row_width()], dtype));
            let [query_norm, key_norm] = [3, 4].map(|n| pair(n, &[dimension], dtype));
            let positions_cpu = Tensor::new(ids(rows, 90, 6), &Device::Cpu).unwrap();
            let positions = positions_cpu.to_device(&gpu()).unwrap();
            let table_cpu = RopeTable::new(90, dimension, 1e4, DType::F32, &Device::Cpu).unwrap();
            let table = RopeTable::new(90, dimension, 1e4, DType::F32, &gpu()).unwrap();
            for (normed, norm_offset) in [(true, 0.0), (true, 1.0), (false, 0.0)] {
                let on_cpu = normed.then_some((&query_norm.0, &key_norm.0));
                let context_cpu = QueryKeyContext {
                    heads,
                    norms: on_cpu,
                    norm_offset,
                    epsilon: 1e-6,
                    positions: &positions_cpu,
                    table: &table_cpu,
                };
                let on_device = normed.then_some((&query_norm.1, &key_norm.1));
                let context = QueryKeyContext {
                    norms: on_device,
                    positions: &positions,
                    table: &table,
                    ..context_cpu
                };
                poison(packed.elem_count());
                let rotated = query_key_rope(&packed, context).unwrap();
                assert_close(
                    "rope",
                    &rotated,
                    &query_key_rope(&packed_cpu, context_cpu).unwrap(),
                    tolerance(dtype),
                );
                let (cache_cpu, cache) = pair(7, &[2 * (rows + 1), 2 * heads.key_width()], dtype);
                let places: Vec<DecodeRow> = (0..rows)
                    .map(|row| DecodeRow {
                        first: 2 * (rows - row),
                        prefix: (0, 1),
                        length: 1 + row % 2,
                        states: (0, 0),
                    })
                    .collect();
                let numbers: Vec<u32> = places
                    .iter()
                    .flat_map(|row| [row.first as u32, 0, 1, row.length as u32])
                    .collect();
                let on_device = table_of(numbers);
                let again = query_key_rope_open(
                    &OpenRows::complete(packed.to_dtype(DType::F32).unwrap()),
                    context,
                    &cache,
                    &on_device,
                )
                .unwrap();
                assert_close("rope with a cache", &again, &rotated, tolerance(dtype));
                let complete = OpenRows::complete(packed_cpu.clone());
                query_key_rope_open(
                    &complete,
                    context_cpu,
                    &cache_cpu,
                    &DecodeRows::Listed(places),
                )
                .unwrap();
                assert_close("cache", &cache, &cache_cpu, tolerance(dtype));
                poison(packed.elem_count());
                let (dx, dq, dk) = query_key_rope_backward_all(&seed, &packed, context).unwrap();
                let (dx_cpu, dq_cpu, dk_cpu) =
                    query_key_rope_backward_all(&seed_cpu, &packed_cpu, context_cpu).unwrap();
                assert_close("rope backward", &dx, &dx_cpu, tolerance(dtype));
                for adapter_columns in [0, 5, 8] {
                    poison(rows * (heads.row_width() + adapter_columns));
                    let wide =
                        query_key_rope_backward(&seed, &packed, context, adapter_columns).unwrap();
                    let own = wide
                        .narrow(1, 0, heads.row_width())
                        .unwrap()
                        .contiguous()
                        .unwrap();
                    // Rows that are not aligned are read one by one, and so summed in another order.
                    assert_close(
                        "rope backward alone",
                        &own,
                        &dx,
                        if adapter_columns == 5 {
                            tolerance(dtype)
                        } else {
                            0.0
                        },
                    );
                }
                assert_close("query norm", &dq, &dq_cpu, 1e-5);
                assert_close("key norm", &dk, &dk_cpu, 1e-5);
            }
        }
    }
}

/// By our kernel on Hopper: with a matrix inside of wider rows, outputs that do not fill blocks, one, two and four blocks an inner
/// index.
#[test]
#[ignore = "needs a GPU"]
fn products_of_few_rows_agree() {
    let shapes = [
        (1, 4096, 1028),
        (8, 65 * 64, 1084),
        (9, 12_288, 400),
        (17, 2048, 6272),
        (32, 1024, 13_000),
    ];
    for (rows, inputs, outputs) in shapes {
        let (x_cpu, x) = pair(1, &[rows, inputs], DType::BF16);
        let (wide_cpu, wide) = pair(2, &[outputs, inputs + 64], DType::BF16);
        let weights = |wide: &Tensor| wide.narrow(1, 0, inputs).unwrap().t().unwrap();
        let found = matmul_f32(&x, &weights(&wide)).unwrap();
        let expected = x_cpu
            .matmul(&weights(&wide_cpu).contiguous().unwrap())
            .unwrap();
        assert_close("product", &found, &expected, 1e-5);
        // Whatever other rows there are.
        let few = rows.min(5);
        let alone = matmul_f32(&x.narrow(0, 0, few).unwrap(), &weights(&wide)).unwrap();
        if Engine::gpu(0).unwrap().capability() == Some(90) {
            assert_close("alone", &alone, &expected.narrow(0, 0, few).unwrap(), 1e-5);
            let first = found.narrow(0, 0, few).unwrap();
            assert_close("whatever others", &alone, &first, 0.0);
        }
    }
}

/// What adapters add while decoding, in the kernels that read the rows: as if it had been added before.
#[test]
#[ignore = "needs a GPU"]
fn open_rows_agree() {
    let shapes = [
        (DType::F32, 8, 3, 64),
        (DType::F32, 16, 70, 64),
        (DType::BF16, 8, 1, 128),
        (DType::BF16, 16, 9, 80),
        (DType::BF16, 24, 64, 64),
        (DType::BF16, 32, 37, 128),
        (DType::BF16, 16, 20, 256),
    ];
    for (dtype, rank, rows, dimension) in shapes {
        let heads = Heads {
            query: 4,
            key_value: 2,
            dimension,
        };
        // Rows of `width` numbers, then those of each part's A; and the same with everything added.
        let open = |widths: &[usize]| {
            let (width, columns) = (widths.iter().sum::<usize>(), widths.len() * rank);
            let (wide_cpu, wide) = pair(1, &[rows, width + columns], DType::F32);
            let (b_cpu, b) = pair(2, &[width, rank], dtype);
            let mut added = Vec::new();
            let mut first = 0;
            for (part, &outputs) in widths.iter().enumerate() {
                let inner = wide_cpu
                    .narrow(1, width + part * rank, rank)
                    .unwrap()
                    .contiguous()
                    .unwrap();
                let own = b_cpu
                    .narrow(0, first, outputs)
                    .unwrap()
                    .t()
                    .unwrap()
                    .contiguous()
                    .unwrap();
                added.push(rounded(&inner, dtype).matmul(&own).unwrap());
                first += outputs;
            }
            let added = Tensor::cat(&added, 1).unwrap();
            let complete = rounded(
                &(wide_cpu.narrow(1, 0, width).unwrap() + added).unwrap(),
                dtype,
            );
            (
                complete,
                OpenRows {
                    rows: wide,
                    adapters: Some(OpenAdapters {
                        b,
                        parts: widths.len(),
                    }),
                },
            )
        };
        let allowed = tolerance(dtype);
        let (complete, found) = open(&[48, 48]);
        for activation in ACTIVATIONS {
            let product = gated_open(&found, activation, dtype).unwrap();
            assert_close(
                "gated",
                &product,
                &gated(&complete, activation, 0).unwrap(),
                allowed,
            );
        }

        // The second is not a multiple of 16.
        for width in [96, 88] {
            let (complete, found) = open(&[width]);
            let b = found.adapters.unwrap().b;
            // As in a joined matrix, where rows of B are strided.
            let wide = Tensor::cat(&[&b, &b], 1)
                .unwrap()
                .narrow(1, 0, rank)
                .unwrap();
            let completed = complete_rows(&found.rows, &wide).unwrap();
            assert_close("completed", &completed, &complete, allowed);
        }

        // The second as in a model, where tensor cores serve: a stream in f32, rows of whole 64 numbers.
        for (width, stream, offset) in [
            (160, dtype, 0.0),
            (1088, DType::F32, 0.0),
            (1088, DType::F32, 1.0),
        ] {
            let (complete, found) = open(&[width]);
            let [(x_cpu, x), (weight_cpu, weight)] =
                [pair(3, &[rows, width], stream), pair(4, &[width], dtype)];
            let (sum, normed) = add_rms_norm(&x, &found, norm_by(&weight, offset), 0).unwrap();
            let alone = rms_norm_open(&found, norm_by(&weight, offset)).unwrap();
            assert_close(
                "alone",
                &alone,
                &rms_norm(&complete, norm_by(&weight_cpu, offset), 0).unwrap(),
                allowed,
            );
            let expected = add_rms_norm(
                &x_cpu,
                &OpenRows::complete(complete),
                norm_by(&weight_cpu, offset),
                0,
            )
            .unwrap();
            assert_close("sum", &sum, &expected.0, allowed);
            assert_close("norm", &normed, &expected.1, allowed);
        }

        let (complete, found) = open(&[heads.query_width(), heads.key_width(), heads.key_width()]);
        let [query_norm, key_norm] = [5, 6].map(|n| pair(n, &[heads.dimension], dtype));
        let positions_cpu = Tensor::new(ids(rows, 90, 6), &Device::Cpu).unwrap();
        let positions = positions_cpu.to_device(&gpu()).unwrap();
        let table_cpu = RopeTable::new(90, heads.dimension, 1e4, DType::F32, &Device::Cpu).unwrap();
        let table = RopeTable::new(90, heads.dimension, 1e4, DType::F32, &gpu()).unwrap();
        let norms = Some((&query_norm.0, &key_norm.0));
        let context_cpu = QueryKeyContext {
            heads,
            norms,
            norm_offset: 1.0,
            epsilon: 1e-6,
            positions: &positions_cpu,
            table: &table_cpu,
        };
        let expected = query_key_rope(&complete, context_cpu).unwrap();
        let norms = Some((&query_norm.1, &key_norm.1));
        let context = QueryKeyContext {
            norms,
            positions: &positions,
            table: &table,
            ..context_cpu
        };
        let cache = Tensor::zeros((rows, 2 * heads.key_width()), dtype, &gpu()).unwrap();
        let numbers: Vec<u32> = (0..rows as u32).flat_map(|row| [row, 0, 1, 1]).collect();
        let places = table_of(numbers);
        let rotated = query_key_rope_open(&found, context, &cache, &places).unwrap();
        assert_close("rope", &rotated, &expected, allowed);
        let keys_values = expected
            .narrow(1, heads.query_width(), 2 * heads.key_width())
            .unwrap()
            .contiguous()
            .unwrap();
        assert_close("cache", &cache, &keys_values, allowed);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn the_gated_activation_agrees() {
    let [silu, gelu] = ACTIVATIONS;
    let all = [
        silu,
        gelu,
        Activation::Clamped {
            slope: 1.702,
            limit: 4.0,
        },
    ];
    for (dtype, activation) in NUMBER_TYPES
        .into_iter()
        .flat_map(|dtype| all.map(|a| (dtype, a)))
    {
        for (rows, width) in [(1, 3), (5, 24), (3, 1001), (40, 12_288)] {
            let gate_up = random(1, &[rows, 2 * width]).affine(6.0, 0.0).unwrap();
            let (gate_up_cpu, gate_up) = (rounded(&gate_up, dtype), on_gpu(&gate_up, dtype));
            let (seed_cpu, seed) = pair(2, &[rows, width], dtype);
            for adapter_columns in [0, 5, 16] {
                poison(rows * (width + adapter_columns));
                let own = gated(&gate_up, activation, adapter_columns)
                    .unwrap()
                    .narrow(1, 0, width)
                    .unwrap()
                    .contiguous()
                    .unwrap();
                assert_close(
                    &format!("{activation:?}, {dtype:?}, {width}"),
                    &own,
                    &gated(&gate_up_cpu, activation, 0).unwrap(),
                    tolerance(dtype),
                );
                poison(rows * (2 * width + adapter_columns));
                let wide = gated_backward(&seed, &gate_up, activation, adapter_columns).unwrap();
                let own = wide.narrow(1, 0, 2 * width).unwrap().contiguous().unwrap();
                let expected = gated_backward(&seed_cpu, &gate_up_cpu, activation, 0).unwrap();
                assert_close(
                    &format!("{activation:?} backward, {dtype:?}, {width}"),
                    &own,
                    &expected,
                    tolerance(dtype),
                );
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn embeddings_agree() {
    for dtype in NUMBER_TYPES {
        for (vocabulary, count, width) in
            [(5, 9, 3), (11, 400, 24), (700, 50, 600), (3000, 2, 4096)]
        {
            let ((table_cpu, table), token_ids) = (
                pair(1, &[vocabulary, width], dtype),
                ids(count, vocabulary as u32, 3),
            );
            let (seed_cpu, seed) = pair(2, &[count, width], dtype);
            let ids_cpu = Tensor::new(token_ids.as_slice(), &Device::Cpu).unwrap();
            for gathered in [dtype, DType::F32] {
                let rows =
                    gather_rows(&table, &ids_cpu.to_device(&gpu()).unwrap(), gathered).unwrap();
                assert_eq!(rows.dtype(), gathered);
                let expected = gather_rows(&table_cpu, &ids_cpu, table_cpu.dtype()).unwrap();
                assert_close("gathered rows", &rows, &expected, 0.0);
                let rows = Table::in_host_memory(table.clone());
                assert!(rows.host_bytes() > 0, "{:?}", rows.refusal());
                let rows = rows.gather(&ids_cpu.to_device(&gpu()).unwrap(), gathered);
                assert_close("rows from host memory", &rows.unwrap(), &expected, 0.0);
                let part = |table: &Tensor| table.narrow(1, width / 3, width - width / 3).unwrap();
                let rows =
                    gather_rows(&part(&table), &ids_cpu.to_device(&gpu()).unwrap(), gathered)
                        .unwrap();
                assert_close("parts of gathered rows", &rows, &part(&expected), 0.0);
            }
            poison(vocabulary * width);
            let expected = embedding_backward(&seed_cpu, &token_ids, vocabulary).unwrap();
            let gradient = embedding_backward(&seed, &token_ids, vocabulary).unwrap();
            assert_eq!(gradient.dtype(), DType::F32);
            assert_close("embedding backward", &gradient, &expected, 1e-6);
            poison(vocabulary * width);
            let scattered = scatter_rows(&seed, &token_ids, vocabulary).unwrap();
            assert_eq!(scattered.dtype(), dtype);
            assert_close("scattered rows", &scattered, &expected, tolerance(dtype));
        }
        assert!(
            scatter_rows(&on_gpu(&random(1, &[1, 4]), dtype), &[7], 7).is_err(),
            "a row outside the result"
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn rows_are_written_at_their_place() {
    for dtype in NUMBER_TYPES {
        for (rows, width, columns, wide, first, count) in [
            (1, 1, 1, 1, 0, 1),
            (7, 5, 3, 9, 2, 4),
            (70, 4160, 4096, 4096, 3, 67),
            (300, 2048, 2048, 6144, 0, 299),
        ] {
            let ((target_cpu, target), (_, source)) = (
                pair(1, &[rows, width], dtype),
                pair(2, &[count, wide], dtype),
            );
            let part = source.narrow(1, wide - columns, columns).unwrap();
            write_rows(&target, first, &part).unwrap();
            let exact = |tensor: &Tensor| {
                tensor
                    .to_device(&Device::Cpu)
                    .unwrap()
                    .to_dtype(DType::F32)
                    .unwrap()
                    .to_vec2::<f32>()
                    .unwrap()
            };
            let mut expected = exact(&target_cpu);
            for (row, written) in expected[first..].iter_mut().zip(exact(&source)) {
                row[..columns].copy_from_slice(&written[wide - columns..]);
            }
            assert!(exact(&target) == expected, "{rows} {width} {columns}");
            assert!(write_rows(&target, rows, &part).is_err());
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn log_probs_agree() {
    for (rows, vocabulary) in [(4, 9), (7, 1000), (3, 5003), (5, 151_936)] {
        let logits_cpu = random(1, &[rows, vocabulary]).affine(8.0, 1.0).unwrap();
        let (logits, targets) = (
            on_gpu(&logits_cpu, DType::F32),
            ids(rows, vocabulary as u32, 4),
        );
        let of = [(0.7, 0.0), (0.0, 0.0), (-1.3, 0.4), (0.0, -0.9)];
        let weights: Vec<TokenWeight> = (0..rows)
            .map(|row| of[row % 4])
            .map(|(log_prob, entropy)| TokenWeight { log_prob, entropy })
            .collect();
        for temperature in [1.0, 0.6] {
            let found = token_log_probs(&logits, &targets, temperature).unwrap();
            for (found, expected) in found
                .iter()
                .zip(token_log_probs(&logits_cpu, &targets, temperature).unwrap())
            {
                let near = |a: f32, b: f32| (a - b).abs() <= 2e-6 * b.abs().max(1.0);
                assert!(
                    near(found.log_prob, expected.log_prob)
                        && near(found.entropy, expected.entropy),
                    "{found:?}, not {expected:?}"
                );
            }
            let expected =
                token_log_probs_backward(&logits_cpu, &targets, &weights, temperature).unwrap();
            for dtype in NUMBER_TYPES {
                poison(rows * vocabulary);
                let gradient =
                    token_log_probs_backward_as(&logits, &targets, &weights, temperature, dtype)
                        .unwrap();
                assert_eq!(gradient.dtype(), dtype);
                assert_close(
                    "gradient of the logits",
                    &gradient,
                    &expected,
                    tolerance(dtype),
                );
            }
        }
    }
    let bad = on_gpu(
        &Tensor::new(&[[0.0_f32, f32::NAN, 1.0]], &Device::Cpu).unwrap(),
        DType::F32,
    );
    assert!(
        token_log_probs(&bad, &[0], 1.0).unwrap()[0]
            .log_prob
            .is_nan()
    );
}

/// Rows of decoding without states. `numbers`: [rows, 4].
fn table_of(numbers: Vec<u32>) -> DecodeRows {
    let rows = numbers.len() / 4;
    let states = Tensor::zeros((rows, 2), DType::U32, &gpu()).unwrap();
    DecodeRows::Table {
        rows: Tensor::from_vec(numbers, (rows, 4), &gpu()).unwrap(),
        states,
        longest: 1,
    }
}
