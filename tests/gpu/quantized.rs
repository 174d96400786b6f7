//! Matrices in e4m3 and NF4 on the GPU: the CPU's numbers, and the kernel of decoding against plain products with them.

use candle_core::{DType, Device, Tensor};
use grpo_tui::kernels::nf4;
use grpo_tui::kernels::quantized::{self, Precision, QuantizedMatrix, StoredNf4};

use super::{assert_close, gpu, on_gpu, poison, random, rounded};

#[test]
#[ignore = "needs a GPU"]
fn products_agree() {
    let shapes = [
        (48, 64),
        (4096, 4096),
        (1008, 640),
        (144, 128),
        (80, 1280),
        (1536, 576),
        (24_576, 512),
        (100, 12_288),
    ];
    for (outputs, inputs) in shapes {
        let weight = rounded(&random(2, &[outputs, inputs]), DType::BF16);
        for precision in [Precision::Fp8, Precision::Nf4] {
            let numbers = quantized::rounded(&weight, precision).unwrap();
            for dtype in [DType::F32, DType::BF16] {
                let what = format!("{precision:?} of {outputs} x {inputs} in {dtype:?}");
                let matrix = QuantizedMatrix::quantize(&on_gpu(&weight, dtype), precision).unwrap();
                check(&what, &matrix, &numbers, dtype);
            }
        }
    }
}

/// Parts with groups of scales of their own, the second as bitsandbytes stores it.
#[test]
#[ignore = "needs a GPU"]
fn stacked_parts_agree() {
    for (outputs, inputs) in [
        ([48, 20, 100], 576),
        ([64, 4, 12], 320),
        ([128, 64, 64], 4096),
    ] {
        let bytes = |stream, count: usize| -> Vec<u8> {
            let numbers = random(stream, &[count]).to_vec1::<f32>().unwrap();
            numbers.iter().map(|x| (x.abs() * 256.0) as u8).collect()
        };
        let weight = |index: usize| {
            let scale = 10_f64.powi(index as i32 - 1);
            let part = random(10 + index as u32, &[outputs[index], inputs]);
            rounded(&part.affine(scale, 0.0).unwrap(), DType::BF16)
        };
        let blocks = outputs[1] * inputs / nf4::BLOCK;
        let group_scales = random(20, &[blocks.div_ceil(nf4::GROUP)]);
        let group_scales = group_scales.abs().unwrap().to_vec1::<f32>().unwrap();
        // Not those of other parts.
        let scale_numbers = nf4::scale_numbers().map(|number| number.next_up());
        let stored = StoredNf4 {
            codes: &bytes(21, outputs[1] * inputs / 2),
            scale_codes: &bytes(22, blocks),
            group_scales: &group_scales,
            offset: 1.25,
            scale_numbers: &scale_numbers,
        };
        let number = |i: usize| {
            let byte = stored.codes[i / 2];
            let code = if i.is_multiple_of(2) {
                byte >> 4
            } else {
                byte & 15
            };
            let block = i / nf4::BLOCK;
            let scale = scale_numbers[usize::from(stored.scale_codes[block])]
                * group_scales[block / nf4::GROUP]
                + stored.offset;
            nf4::weight(nf4::NUMBERS[usize::from(code)], scale).to_f32()
        };
        let shape = (outputs[1], inputs);
        let second = (0..outputs[1] * inputs).map(number).collect::<Vec<_>>();
        let rounded = |index| quantized::rounded(&weight(index), Precision::Nf4).unwrap();
        let numbers = [
            rounded(0),
            Tensor::from_vec(second, shape, &Device::Cpu).unwrap(),
            rounded(2),
        ];
        let numbers = Tensor::cat(&numbers, 0).unwrap();
        for dtype in [DType::F32, DType::BF16] {
            let quantized = |index| {
                QuantizedMatrix::quantize(&on_gpu(&weight(index), dtype), Precision::Nf4).unwrap()
            };
            let parts = [
                quantized(0),
                QuantizedMatrix::from_stored(&stored, shape, &gpu()).unwrap(),
                quantized(2),
            ];
            let what = format!("{outputs:?} x {inputs} in {dtype:?}");
            check(
                &what,
                &QuantizedMatrix::stacked(&parts).unwrap(),
                &numbers,
                dtype,
            );
        }
    }
}

/// `numbers`: those that the matrix holds, [outputs, inputs] on the CPU.
fn check(what: &str, matrix: &QuantizedMatrix, numbers: &Tensor, dtype: DType) {
    let (outputs, inputs) = numbers.dims2().unwrap();
    let what = |name: &str| format!("{name} of {what}");
    let here = |tensor: &Tensor| {
        tensor
            .to_device(&Device::Cpu)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap()
    };
    assert_close(
        &what("numbers"),
        &here(&matrix.numbers(dtype).unwrap()),
        numbers,
        0.0,
    );
    let (beside, a) = (
        on_gpu(&random(4, &[outputs, 24]), dtype),
        on_gpu(&random(5, &[24, inputs]), dtype),
    );
    poison((outputs + 24) * (inputs + 64));
    let joined = here(&matrix.joined(&beside, &a, 64).unwrap());
    let part = |row: usize, rows: usize, column: usize, columns: usize| {
        joined
            .narrow(0, row, rows)
            .unwrap()
            .narrow(1, column, columns)
            .unwrap()
            .contiguous()
            .unwrap()
    };
    assert_close(&what("W"), &part(0, outputs, 0, inputs), numbers, 0.0);
    assert_close(
        &what("beside"),
        &part(0, outputs, inputs, 24),
        &here(&beside),
        0.0,
    );
    assert_close(
        &what("below"),
        &part(outputs, 24, 0, inputs),
        &here(&a),
        0.0,
    );
    let rest = part(0, outputs + 24, inputs + 24, 40)
        .abs()
        .unwrap()
        .max_all()
        .unwrap();
    assert_eq!(rest.to_scalar::<f32>().unwrap(), 0.0);
    for rows in [1, 7, 16, 20, 33, 64, 100, 256, 300] {
        let x = rounded(&random(1, &[rows, inputs]), dtype);
        let own = on_gpu(&x, dtype);
        poison(rows * (outputs + 24));
        let found = here(&matrix.decode(&own, Some(&a)).unwrap());
        let expected = x
            .matmul(&Tensor::cat(&[numbers, &here(&a)], 0).unwrap().t().unwrap())
            .unwrap();
        assert_close(&what(&format!("{rows} rows")), &found, &expected, 2e-5);
        let found = here(&matrix.decode(&own, None).unwrap());
        let alone = expected
            .narrow(1, 0, outputs)
            .unwrap()
            .contiguous()
            .unwrap();
        assert_close(&what(&format!("{rows} rows alone")), &found, &alone, 2e-5);
    }
}
