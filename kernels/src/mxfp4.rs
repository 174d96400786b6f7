//! Experts in MXFP4 (OCP Microscaling Formats 1.0): e2m1 codes, 32 per power-of-two scale. Their
//! numbers in bf16 are exact; on a GPU they stay codes, which products widen on reading.

use std::borrow::Cow;

use candle_core::{DType, Device, Result, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::upload::Uploader;

/// Elements per block.
pub const BLOCK: usize = 32;
/// Values by code without sign.
const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
/// Six times a greater power of two exceeds bf16; 255 is e8m0's NaN.
const MAX_SCALE: u8 = 252;
/// What the exponent of a kernel's factor is above a scale, and the largest scale with such a
/// factor: a number of 2 or more. No trained matrix has one.
const FACTOR: u8 = 126;
const MAX_GPU_SCALE: u8 = u8::MAX - 1 - FACTOR;

/// The scale of evenly random codes with about this standard deviation.
pub fn scale(deviation: f64) -> u8 {
    let square: f32 = MAGNITUDES.iter().map(|x| x * x).sum();
    let own = f64::from(square / MAGNITUDES.len() as f32).sqrt();
    ((deviation / own).log2().round() + 127.0).clamp(0.0, f64::from(MAX_GPU_SCALE)) as u8
}

/// Matrices of all experts as checkpoints store them.
#[derive(Clone, Debug)]
pub struct StoredMxfp4<'a> {
    /// [experts, outputs, blocks, 16]: two codes per byte, first in the low half.
    pub blocks: Cow<'a, [u8]>,
    /// [experts, outputs, blocks]: exponents + 127.
    pub scales: Cow<'a, [u8]>,
    pub outputs: usize,
    /// Blocks per output.
    pub blocks_a_row: usize,
}

impl StoredMxfp4<'_> {
    /// code * 2^(scale - 127), little-endian bf16: [experts, inputs, outputs].
    ///
    /// # Errors
    /// A scale that is too large: its value and place.
    pub fn dequantize(&self) -> std::result::Result<Vec<u8>, String> {
        if let Some(at) = self
            .scales
            .par_iter()
            .position_first(|&scale| scale > MAX_SCALE)
        {
            return Err(format!(
                "scale {} at number {at}, supported are 0 to {MAX_SCALE}",
                self.scales[at]
            ));
        }
        let (outputs, blocks) = (self.outputs, self.blocks_a_row);
        let mut bytes = vec![0; self.scales.len() * BLOCK * 2];
        // An expert's block of inputs is contiguous.
        bytes
            .par_chunks_exact_mut(2 * BLOCK * outputs)
            .enumerate()
            .for_each(|(index, bytes)| {
                let (expert, block) = (index / blocks, index % blocks);
                for output in 0..outputs {
                    let at = (expert * outputs + output) * blocks + block;
                    let power = (f64::from(self.scales[at]) - 127.0).exp2() as f32;
                    let numbers: [[u8; 2]; 16] = std::array::from_fn(|code| {
                        bf16::from_f32(sign(code) * MAGNITUDES[code & 7] * power).to_le_bytes()
                    });
                    for (pair, codes) in self.blocks[at * 16..][..16].iter().enumerate() {
                        for (half, code) in [codes & 15, codes >> 4].into_iter().enumerate() {
                            let to = 2 * ((2 * pair + half) * outputs + output);
                            bytes[to..to + 2].copy_from_slice(&numbers[usize::from(code)]);
                        }
                    }
                }
            });
        Ok(bytes)
    }

    /// Whether a GPU's kernels read the codes: outputs in sixteens, no scale beyond their factors.
    fn has_gpu_form(&self) -> bool {
        let is_beyond = |&scale: &u8| scale > MAX_GPU_SCALE;
        self.outputs.is_multiple_of(16) && !self.scales.par_iter().any(is_beyond)
    }

    /// Codes in the layout of `mxfp4.cuh`.
    fn packed_codes(&self) -> Vec<u8> {
        let words = words();
        let mut packed = vec![0; self.blocks.len()];
        packed
            .par_chunks_exact_mut(16)
            .zip(self.blocks.par_chunks_exact(16))
            .with_min_len(1 << 12)
            .for_each(|(packed, block)| {
                for (t, word) in packed.chunks_exact_mut(4).enumerate() {
                    let of_byte = |q: usize| words[q][usize::from(block[4 * q + t])];
                    let own = of_byte(0) | of_byte(1) | of_byte(2) | of_byte(3);
                    word.copy_from_slice(&own.to_le_bytes());
                }
            });
        packed
    }

    /// Exponents of the kernels' factors: [experts, blocks, outputs].
    fn packed_exponents(&self) -> Vec<u8> {
        let (outputs, blocks) = (self.outputs, self.blocks_a_row);
        let mut packed = vec![0; self.scales.len()];
        packed
            .par_chunks_exact_mut(outputs * blocks)
            .zip(self.scales.par_chunks_exact(outputs * blocks))
            .for_each(|(packed, scales)| {
                for (block, own) in packed.chunks_exact_mut(outputs).enumerate() {
                    for (output, exponent) in own.iter_mut().enumerate() {
                        *exponent = scales[output * blocks + block] + FACTOR;
                    }
                }
            });
        packed
    }
}

fn sign(code: usize) -> f32 {
    if code < 8 { 1.0 } else { -1.0 }
}

/// The bits of byte q of a lane's four bytes in its word, by byte: the first code in the lower half.
/// A code's place is such that a shift moves its sign to that of a bf16 number and the rest to the
/// end of the exponent; two bits of the last one are apart.
fn words() -> [[u32; 256]; 4] {
    let place = |q: usize, code: usize| -> u32 {
        let (sign, rest) = ((code >> 3) as u32, (code & 7) as u32);
        match q {
            0..=2 => (sign << 15 | rest << 6) >> (3 * q),
            _ => sign << 14 | (rest >> 2) << 13 | (rest & 3) << 10,
        }
    };
    std::array::from_fn(|q| {
        std::array::from_fn(|byte| place(q, byte & 15) | place(q, byte >> 4) << 16)
    })
}

/// Matrices of all experts on a GPU, [outputs, inputs] each.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, reason = "read on a GPU alone")
)]
pub struct Mxfp4Stack {
    /// [experts * outputs, inputs / 2], u8: words of eight codes.
    pub(super) codes: Tensor,
    /// [experts * blocks, outputs], u8.
    pub(super) exponents: Tensor,
}

impl Mxfp4Stack {
    /// `None` if the kernels have no form of these: outputs that are not a multiple of 16, or
    /// numbers of 2 or more.
    pub fn new(
        stored: &StoredMxfp4<'_>,
        uploader: &Uploader,
        device: &Device,
    ) -> Result<Option<Self>> {
        if !stored.has_gpu_form() {
            return Ok(None);
        }
        let (outputs, blocks) = (stored.outputs, stored.blocks_a_row);
        let experts = stored.scales.len() / (outputs * blocks);
        let tensor =
            |bytes: &[u8], shape: [usize; 2]| uploader.tensor(bytes, DType::U8, &shape, device);
        let codes = tensor(&stored.packed_codes(), [experts * outputs, 16 * blocks])?;
        let exponents = tensor(&stored.packed_exponents(), [experts * blocks, outputs])?;
        Ok(Some(Self { codes, exponents }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `mxfp4.cuh` does: four pairs of a word.
    fn widen(word: u32, exponent: u8) -> [[u16; 2]; 4] {
        let mask = 0x81c0_81c0;
        let last =
            (word << 1 & 0x8000_8000) | (word >> 5 & 0x0100_0100) | (word >> 4 & 0x00c0_00c0);
        let factor = bf16::from_bits(u16::from(exponent) << 7).to_f32();
        [word & mask, word << 3 & mask, word << 6 & mask, last].map(|pair| {
            [pair as u16, (pair >> 16) as u16]
                .map(|bits| bf16::from_f32(bf16::from_bits(bits).to_f32() * factor).to_bits())
        })
    }

    /// Every code with every scale, subnormal numbers among them, at every place of a block.
    #[test]
    fn packed_codes_are_widened_to_the_dequantized_numbers() {
        let (outputs, blocks_a_row) = (16, 2);
        let scales: Vec<u8> = (0..=MAX_GPU_SCALE).cycle().take(160).collect();
        let blocks: Vec<u8> = (0..16 * scales.len())
            .map(|i| (i * 37 + i / 256) as u8)
            .collect();
        let stored = StoredMxfp4 {
            blocks: blocks.into(),
            scales: scales.into(),
            outputs,
            blocks_a_row,
        };
        assert!(stored.has_gpu_form());
        let (codes, exponents) = (stored.packed_codes(), stored.packed_exponents());
        let expected = stored.dequantize();
        let expected = expected.iter().flatten().copied().collect::<Vec<u8>>();
        let (inputs, experts) = (
            BLOCK * blocks_a_row,
            stored.scales.len() / outputs / blocks_a_row,
        );
        for expert in 0..experts {
            for output in 0..outputs {
                for block in 0..blocks_a_row {
                    let row = (expert * outputs + output) * blocks_a_row + block;
                    let exponent = exponents[(expert * blocks_a_row + block) * outputs + output];
                    for (t, word) in codes[16 * row..][..16].chunks_exact(4).enumerate() {
                        let word = word
                            .iter()
                            .rev()
                            .fold(0, |all, &byte| all << 8 | u32::from(byte));
                        for (q, pair) in widen(word, exponent).into_iter().enumerate() {
                            for (half, bits) in pair.into_iter().enumerate() {
                                let input = BLOCK * block + 8 * q + 2 * t + half;
                                let at = 2 * ((expert * inputs + input) * outputs + output);
                                let expected = u16::from_le_bytes([expected[at], expected[at + 1]]);
                                assert_eq!(bits, expected, "{expert} {output} {input}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_without_a_factor_have_no_gpu_form() {
        let form = |outputs, scale| {
            let stored = StoredMxfp4 {
                blocks: vec![0; 16 * outputs].into(),
                scales: vec![scale; outputs].into(),
                outputs,
                blocks_a_row: 1,
            };
            stored.has_gpu_form()
        };
        assert!(form(16, 128) && !form(16, 129) && !form(24, 128));
    }
}
