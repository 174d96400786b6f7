//! Mixtures of experts on the GPU against the CPU: the choice of each row's experts, their products with and without biases, the
//! sums over a row's experts, and the gradient of the router.

use candle_core::{DType, Device, Tensor};
use grpo_tui::kernels::mxfp4::{BLOCK, Mxfp4Stack, StoredMxfp4};
use grpo_tui::kernels::router::{
    ExpertBias, LowRankLayout, Router, Selection, StackedMatrices, route, route_backward,
};
use grpo_tui::kernels::upload::Uploader;

use super::{NUMBER_TYPES, assert_close, gpu, on_gpu, poison, random, rounded, tolerance};

/// Few pairs an expert and many, an expert without any, more experts than a warp has lanes; of the shapes that tensor cores take.
const SHAPES: [Shape; 5] = [
    Shape {
        rows: 5,
        experts: 6,
        active: 3,
        inputs: 64,
        outputs: 40,
    },
    Shape {
        rows: 300,
        experts: 6,
        active: 3,
        inputs: 40,
        outputs: 72,
    },
    Shape {
        rows: 1,
        experts: 40,
        active: 4,
        inputs: 2880,
        outputs: 96,
    },
    Shape {
        rows: 70,
        experts: 256,
        active: 8,
        inputs: 128,
        outputs: 136,
    },
    Shape {
        rows: 40,
        experts: 512,
        active: 32,
        inputs: 16,
        outputs: 8,
    },
];

#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: usize,
    experts: usize,
    active: usize,
    inputs: usize,
    outputs: usize,
}

#[test]
#[ignore = "needs a GPU"]
fn experts_agree() {
    for (dtype, shape) in NUMBER_TYPES
        .into_iter()
        .flat_map(|dtype| SHAPES.map(|shape| (dtype, shape)))
    {
        for is_renormalised in [false, true] {
            check(dtype, shape, is_renormalised);
        }
    }
}

/// Few pairs an expert and many, tiles that end within the matrix, inputs of a tile and more.
#[test]
#[ignore = "needs a GPU"]
fn products_of_mxfp4_have_the_bits_of_dequantized_matrices() {
    for (rows, experts, active, inputs, outputs) in [
        (5, 6, 3, 64, 48),
        (1, 40, 4, 2880, 96),
        (70, 256, 8, 32, 144),
        (300, 6, 3, 96, 80),
        (20, 8, 4, 2880, 5760),
        (70, 8, 4, 2880, 5760),
        (70, 8, 4, 1440, 2880),
    ] {
        let router = Router {
            active,
            is_renormalised: true,
        };
        let logits = on_gpu(&random(1, &[rows, experts]), DType::BF16);
        let routing = route(&logits, router, Selection::Free).unwrap();
        let of_pairs = |stream, width| {
            let x = on_gpu(&random(stream, &[rows, width]), DType::BF16);
            routing.gather(&x).unwrap()
        };
        let bytes = |stream, count: usize, most: f32| -> Vec<u8> {
            let numbers = random(stream, &[count]).to_vec1::<f32>().unwrap();
            let byte = |x: f32| ((x + 1.0) / 2.0 * most) as u8;
            numbers.into_iter().map(byte).collect()
        };
        let count = experts * outputs * inputs / BLOCK;
        let blocks = bytes(4, 16 * count, 256.0);
        let (x, gradient) = (of_pairs(2, inputs), of_pairs(3, outputs));
        let bias = on_gpu(&random(6, &[experts, outputs]), DType::BF16);
        // All scales of the kernels; those of subnormal numbers alone.
        for most in [129.0, 6.0] {
            let stored = StoredMxfp4 {
                blocks: blocks.as_slice().into(),
                scales: bytes(5, count, most).into(),
                outputs,
                blocks_a_row: inputs / BLOCK,
            };
            let codes = Mxfp4Stack::new(&stored, &Uploader::default(), &gpu());
            let codes = codes.unwrap().unwrap();
            let (numbers, shape) = (stored.dequantize().unwrap(), [experts * inputs, outputs]);
            let numbers = Tensor::from_raw_buffer(&numbers, DType::BF16, &shape, &gpu()).unwrap();
            let bits = |x, matrices: StackedMatrices<'_>, is_transposed, bias| {
                poison(rows * active * inputs.max(outputs));
                let product = routing.product(x, matrices, is_transposed, bias).unwrap();
                let numbers = product.to_dtype(DType::F32).unwrap().flatten_all();
                let numbers = numbers.unwrap().to_vec1::<f32>().unwrap();
                numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let what = format!("{rows} {experts} {active} {inputs} {outputs} {most}");
            let bias = Some(ExpertBias {
                vectors: &bias,
                is_weighted: true,
            });
            for bias in [None, bias] {
                let expected = bits(&x, StackedMatrices::Numbers(&numbers), true, bias);
                assert!(expected.iter().any(|bits| *bits != 0), "{what}");
                assert!(
                    bits(&x, StackedMatrices::Mxfp4(&codes), false, bias) == expected,
                    "{what}"
                );
            }
            let expected = bits(&gradient, StackedMatrices::Numbers(&numbers), false, None);
            assert!(expected.iter().any(|bits| *bits != 0), "{what}");
            let found = bits(&gradient, StackedMatrices::Mxfp4(&codes), true, None);
            assert!(found == expected, "{what}");
        }
    }
}

fn check(dtype: DType, shape: Shape, is_renormalised: bool) {
    let Shape {
        rows,
        experts,
        active,
        inputs,
        outputs,
    } = shape;
    let (router, pairs) = (
        Router {
            active,
            is_renormalised,
        },
        rows * active,
    );
    let what =
        |part: &str| format!("{part}, {dtype:?}, {shape:?}, renormalised: {is_renormalised}");
    let both = |stream: u32, dims: &[usize]| {
        let tensor = random(stream, dims);
        (rounded(&tensor, dtype), on_gpu(&tensor, dtype))
    };
    // Some logits are equal in bf16: of these the first is chosen. In f32 probabilities are too far apart to change places.
    let logits = (random(1, &[rows, experts]) * 8.0).unwrap();
    let (logits_cpu, logits) = (rounded(&logits, dtype), on_gpu(&logits, dtype));
    let room = || Tensor::zeros((rows, active), DType::U32, &Device::Cpu).unwrap();
    let (chosen_cpu, chosen) = (room(), room().to_device(&gpu()).unwrap());
    let here = route(&logits_cpu, router, Selection::Recorded(&chosen_cpu)).unwrap();
    let there = route(&logits, router, Selection::Recorded(&chosen)).unwrap();
    let numbers = |tensor: &Tensor| {
        tensor
            .to_device(&Device::Cpu)
            .unwrap()
            .to_vec2::<u32>()
            .unwrap()
    };
    assert_eq!(numbers(&chosen), numbers(&chosen_cpu), "{}", what("choice"));

    let (x_cpu, x) = both(2, &[rows, inputs]);
    poison(pairs * inputs);
    let (of_pairs_cpu, of_pairs) = (here.gather(&x_cpu).unwrap(), there.gather(&x).unwrap());
    assert_close(&what("rows of pairs"), &of_pairs, &of_pairs_cpu, 0.0);
    poison(pairs * inputs);
    let (factors_cpu, factors) = both(8, &[experts, 1]);
    for (factors_cpu, factors) in [(None, None), (Some(&factors_cpu), Some(&factors))] {
        let weighed = there.weigh(&of_pairs, factors).unwrap();
        let expected = here.weigh(&of_pairs_cpu, factors_cpu).unwrap();
        assert_close(&what("weighed rows"), &weighed, &expected, tolerance(dtype));
    }
    poison(rows * inputs);
    let sums = there.combine(&of_pairs, rows).unwrap();
    assert_close(
        &what("sums"),
        &sums,
        &here.combine(&of_pairs_cpu, rows).unwrap(),
        tolerance(dtype),
    );

    let (bias_cpu, bias) = both(3, &[experts, outputs]);
    poison(pairs * outputs);
    let (spread_cpu, spread) = (
        here.spread(&bias_cpu).unwrap(),
        there.spread(&bias).unwrap(),
    );
    assert_close(&what("biases of pairs"), &spread, &spread_cpu, 0.0);
    let weighed_cpu = here.weigh(&spread_cpu, None).unwrap();
    for is_transposed in [false, true] {
        let [below, beside] = if is_transposed {
            [inputs, outputs]
        } else {
            [outputs, inputs]
        };
        let (matrices_cpu, matrices) = both(4, &[experts * below, beside]);
        let product = |(expert, range): (usize, &std::ops::Range<usize>)| {
            let matrix = matrices_cpu.narrow(0, expert * below, below).unwrap();
            let matrix = if is_transposed {
                matrix
            } else {
                matrix.t().unwrap()
            };
            of_pairs_cpu
                .narrow(0, range.start, range.len())
                .unwrap()
                .matmul(&matrix)
                .unwrap()
        };
        let used = here
            .listed()
            .unwrap()
            .ranges
            .iter()
            .enumerate()
            .filter(|(_, range)| !range.is_empty());
        let plain = Tensor::cat(&used.map(product).collect::<Vec<_>>(), 0).unwrap();
        let biases = [None, Some(false), Some(true)];
        let expected = [
            plain.clone(),
            (&plain + &spread_cpu).unwrap(),
            (&plain + &weighed_cpu).unwrap(),
        ];
        for (is_weighted, expected) in biases.into_iter().zip(expected) {
            let bias = is_weighted.map(|is_weighted| ExpertBias {
                vectors: &bias,
                is_weighted,
            });
            poison(pairs * outputs);
            let found = there
                .product(
                    &of_pairs,
                    StackedMatrices::Numbers(&matrices),
                    is_transposed,
                    bias,
                )
                .unwrap();
            let what = what(&format!(
                "products, transposed: {is_transposed}, weighted bias: {is_weighted:?}"
            ));
            assert_close(&what, &found, &expected, tolerance(dtype));
        }
        let (sum_cpu, sum) = both(5, &[pairs, outputs]);
        there
            .add_product(&sum, &of_pairs, &matrices, is_transposed)
            .unwrap();
        let expected = (sum_cpu + plain).unwrap();
        assert_close(
            &what(&format!("added, transposed: {is_transposed}")),
            &sum,
            &expected,
            tolerance(dtype),
        );
    }

    // [experts, inputs, rank].
    let (rank, scale) = (16, 0.5);
    let (narrow_cpu, narrow) = both(6, &[pairs, rank]);
    let outer = |range: &std::ops::Range<usize>| match range.len() {
        0 => Tensor::zeros((inputs, rank), DType::F32, &Device::Cpu).unwrap(),
        own => {
            let part = |tensor: &Tensor| tensor.narrow(0, range.start, own).unwrap();
            part(&of_pairs_cpu)
                .t()
                .unwrap()
                .matmul(&part(&narrow_cpu))
                .unwrap()
        }
    };
    let expected = Tensor::stack(
        &here
            .listed()
            .unwrap()
            .ranges
            .iter()
            .map(outer)
            .collect::<Vec<_>>(),
        0,
    )
    .unwrap();
    for (layout, order) in [
        (LowRankLayout::Below, [0, 2, 1]),
        (LowRankLayout::Interleaved, [1, 2, 0]),
    ] {
        let (sum_cpu, sum) = {
            let start = random(7, &[experts * inputs * rank]);
            (start.clone(), on_gpu(&start, DType::F32))
        };
        there
            .add_outer((&of_pairs, &narrow), &sum, layout, scale)
            .unwrap();
        let own = (expected.permute(order).unwrap().flatten_all().unwrap() * scale).unwrap();
        assert_close(
            &what(&format!("{layout:?}")),
            &sum,
            &(sum_cpu + own).unwrap(),
            1e-5,
        );
    }

    let products = here.dot(&spread_cpu, &weighed_cpu).unwrap();
    let found = there.dot(&spread, &on_gpu(&weighed_cpu, dtype)).unwrap();
    assert_close(
        &what("products of rows"),
        &found,
        &here
            .dot(&spread_cpu, &rounded(&weighed_cpu, dtype))
            .unwrap(),
        1e-5,
    );
    let expected = route_backward(&products, &here, router, DType::F32).unwrap();
    let found = route_backward(&on_gpu(&products, DType::F32), &there, router, dtype).unwrap();
    assert_close(
        &what("gradient of the logits"),
        &found,
        &expected,
        tolerance(dtype),
    );
}
