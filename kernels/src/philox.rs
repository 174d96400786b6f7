//! Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
//! easy as 1, 2, 3").

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

/// Counter of a random number; different keys never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleKey {
    /// Optimizer step, or another counter.
    pub step: u32,
    pub prompt: u32,
    /// Index of the prompt's completion.
    pub sample: u32,
    /// Token index in the completion.
    pub position: u32,
}

/// Four random words of a seed and counter.
pub fn philox(seed: u64, counter: [u32; 4]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    for _ in 0..10 {
        let (p0, p1) = (u64::from(c0) * 0xD251_1F53, u64::from(c2) * 0xCD9E_8D57);
        (c0, c1, c2, c3) = (
            (p1 >> 32) as u32 ^ c1 ^ k0,
            p1 as u32,
            (p0 >> 32) as u32 ^ c3 ^ k1,
            p0 as u32,
        );
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

/// Uniform in [0, 1) with 53 random bits.
pub fn uniform(seed: u64, key: SampleKey) -> f64 {
    let [a, b, _, _] = philox(seed, [key.step, key.prompt, key.sample, key.position]);
    ((u64::from(a) << 21) | u64::from(b >> 11)) as f64 / (1_u64 << 53) as f64
}

/// `n` numbers in [-bound, bound) of stream `stream`, for initial weights.
pub fn uniform_weights(seed: u64, stream: u32, n: usize, bound: f64) -> Vec<f64> {
    (0..n as u32)
        .map(|index| {
            bound
                * (2.0
                    * uniform(
                        seed,
                        SampleKey {
                            step: stream,
                            prompt: u32::MAX,
                            sample: u32::MAX,
                            position: index,
                        },
                    )
                    - 1.0)
        })
        .collect()
}

/// [`uniform_weights`] as a tensor on `device`, rounded to f32 and then to `dtype`. A GPU generates
/// its own: on the CPU an 8B model would take minutes.
pub fn uniform_weights_on(
    device: &Device,
    seed: u64,
    stream: u32,
    shape: &[usize],
    bound: f64,
    dtype: DType,
) -> Result<Tensor> {
    let shape = Shape::from(shape);
    let count = shape.elem_count();
    if count > u32::MAX as usize {
        bail!("{count} weights in one stream: its keys are 32 bits")
    }
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return gpu::uniform_weights(device, seed, stream, shape, bound, dtype);
    }
    Tensor::from_vec(uniform_weights(seed, stream, count, bound), shape, device)?
        .to_dtype(DType::F32)?
        .to_dtype(dtype)
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{CudaDevice, DType, Result, Shape, Tensor};

    use crate::cuda::{Argument, Grid, Module, at, empty, module};

    static MODULE: Module = module!("philox");

    pub(super) fn uniform_weights(
        device: &CudaDevice,
        seed: u64,
        stream: u32,
        shape: Shape,
        bound: f64,
        dtype: DType,
    ) -> Result<Tensor> {
        let count = shape.elem_count();
        let output = empty(shape, dtype, device)?;
        let arguments = [
            at(&output)?,
            Argument::Long(seed),
            Argument::Unsigned(stream),
            Argument::Double(bound),
            Argument::Long(count as u64),
        ];
        MODULE
            .typed("uniform_weights", dtype)
            .launch(device, Grid::elements(count), &arguments)?;
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published test vectors (Random123, kat_vectors).
    #[test]
    fn known_answers() {
        let check = |seed: u64, counter, expected| assert_eq!(philox(seed, counter), expected);
        check(
            0,
            [0; 4],
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
        );
        check(
            u64::MAX,
            [u32::MAX; 4],
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
        );
        check(
            0x299f_31d0_a409_3822,
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        );
    }

    #[test]
    fn uniform_stays_below_one() {
        for position in 0..10_000 {
            let x = uniform(
                7,
                SampleKey {
                    step: 1,
                    prompt: 2,
                    sample: 3,
                    position,
                },
            );
            assert!((0.0..1.0).contains(&x));
        }
    }
}
