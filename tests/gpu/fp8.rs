//! Matrices in e4m3 on the GPU: the CPU's numbers, and the kernel of decoding against plain products with them.

use candle_core::{DType, Tensor};
use grpo_tui::kernels::fp8::{Fp8Matrix, rounded as to_fp8};

use super::{assert_close, on_gpu, poison, random, rounded};

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
        let numbers = to_fp8(&weight).unwrap();
        for dtype in [DType::F32, DType::BF16] {
            let what = |name: &str| format!("{name} of {outputs} x {inputs} in {dtype:?}");
            let matrix = Fp8Matrix::quantize(&on_gpu(&weight, dtype)).unwrap();
            let here = |tensor: &Tensor| {
                tensor
                    .to_device(weight.device())
                    .unwrap()
                    .to_dtype(DType::F32)
                    .unwrap()
            };
            assert_close(
                &what("numbers"),
                &here(&matrix.numbers(dtype).unwrap()),
                &numbers,
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
            assert_close(&what("W"), &part(0, outputs, 0, inputs), &numbers, 0.0);
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
                    .matmul(&Tensor::cat(&[&numbers, &here(&a)], 0).unwrap().t().unwrap())
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
    }
}
