//! Frozen matrices in e4m3 or NF4: rounded on the CPU, packed on a GPU, where decoding widens
//! weights on reading and training a matrix at a time.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::{fp8, nf4};

#[cfg(feature = "cuda")]
mod gpu;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Fp8,
    Nf4,
}

/// `weight`: [outputs, inputs] -> the numbers of its quantized form in its dtype, on any device.
/// On a GPU in f32 or bf16.
///
/// # Errors
/// A non-finite weight; on a GPU also a shape without quantized form.
pub fn rounded(weight: &Tensor, precision: Precision) -> Result<Tensor> {
    if weight.device().is_cuda() {
        return QuantizedMatrix::quantize(weight, precision)?.numbers(weight.dtype());
    }
    check_finite(weight)?;
    let (outputs, inputs) = weight.dims2()?;
    let mut numbers = weight
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    match precision {
        Precision::Fp8 => fp8::round(&mut numbers, inputs),
        Precision::Nf4 => nf4::round(&mut numbers),
    }
    Tensor::from_vec(numbers, (outputs, inputs), weight.device())?.to_dtype(weight.dtype())
}

fn check_finite(weight: &Tensor) -> Result<()> {
    if weight
        .sum_all()?
        .to_dtype(DType::F64)?
        .to_scalar::<f64>()?
        .is_finite()
    {
        return Ok(());
    }
    bail!("a weight is not a finite number")
}

/// A matrix on a GPU.
#[derive(Clone, Debug)]
pub struct QuantizedMatrix {
    /// Bytes in the layout read by the kernels (`fp8.cuh`, `nf4.cuh`): [outputs, bytes of a row].
    codes: Tensor,
    inputs: usize,
    scales: Scales,
}

#[derive(Clone, Debug)]
enum Scales {
    /// `[outputs]`, f32.
    Fp8(Tensor),
    Nf4(BlockScales),
}

/// Scales of blocks of 64 inner indices (`nf4.cuh`).
#[derive(Clone, Debug)]
struct BlockScales {
    /// [inputs / 128 rounded up, outputs, 2], u8.
    codes: Tensor,
    /// Scale and offset of 256 blocks: [groups, 2], f32.
    groups: Tensor,
    /// Number of each row's first block, and of its tables above [`TABLES_BIT`]: `[outputs]`, u32.
    first_blocks: Tensor,
    /// Numbers of codes and of scale codes: [parts, 272], f32.
    tables: Tensor,
}

/// A matrix in NF4 as bitsandbytes stores it.
#[derive(Clone, Copy, Debug)]
pub struct StoredNf4<'a> {
    /// Two codes a byte, the first in the upper half.
    pub codes: &'a [u8],
    /// A byte a block.
    pub scale_codes: &'a [u8],
    /// One for each 256 blocks.
    pub group_scales: &'a [f32],
    pub offset: f32,
    /// Of scale codes.
    pub scale_numbers: &'a [f32; 256],
}

#[cfg_attr(
    not(feature = "cuda"),
    expect(unused_variables, reason = "the CPU has no use for it")
)]
impl QuantizedMatrix {
    /// `weight`: [outputs, inputs].
    ///
    /// # Errors
    /// A non-finite weight, or a shape without quantized form.
    pub fn quantize(weight: &Tensor, precision: Precision) -> Result<Self> {
        check_finite(weight)?;
        #[cfg(feature = "cuda")]
        return gpu::quantize(weight, precision);
        #[cfg(not(feature = "cuda"))]
        bail!("a quantized matrix is for a GPU")
    }

    /// A matrix of (outputs, inputs) with the same numbers.
    ///
    /// # Errors
    /// A shape without quantized form.
    pub fn from_stored(
        stored: &StoredNf4<'_>,
        shape: (usize, usize),
        device: &Device,
    ) -> Result<Self> {
        #[cfg(feature = "cuda")]
        return gpu::from_stored(stored, shape, device);
        #[cfg(not(feature = "cuda"))]
        bail!("a quantized matrix is for a GPU")
    }

    /// Stacks matrices with the same input and precision.
    pub fn stacked(parts: &[Self]) -> Result<Self> {
        let first = match parts {
            [one] => return Ok(one.clone()),
            [first, ..] => first,
            [] => bail!("no matrix to stack"),
        };
        let codes: Vec<&Tensor> = parts.iter().map(|part| &part.codes).collect();
        let (mut of_rows, mut of_blocks) = (Vec::new(), Vec::new());
        for part in parts {
            match &part.scales {
                Scales::Fp8(scales) => of_rows.push(scales),
                Scales::Nf4(scales) => of_blocks.push(scales),
            }
        }
        let scales = match of_blocks.is_empty() {
            true => Scales::Fp8(Tensor::cat(&of_rows, 0)?),
            false => Scales::Nf4(BlockScales::stacked(&of_blocks)?),
        };
        Ok(Self {
            codes: Tensor::cat(&codes, 0)?,
            inputs: first.inputs,
            scales,
        })
    }

    /// (outputs, inputs).
    pub fn dims2(&self) -> Result<(usize, usize)> {
        Ok((self.codes.dims2()?.0, self.inputs))
    }

    /// `[[W, beside], [below, 0]]` in `below`'s dtype, with rows `adapter_columns` longer than W's.
    /// `beside`: [outputs, at most adapter_columns], `below`: [rank, inputs].
    pub fn joined(
        &self,
        beside: &Tensor,
        below: &Tensor,
        adapter_columns: usize,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        return gpu::joined(self, beside, below, adapter_columns);
        #[cfg(not(feature = "cuda"))]
        bail!("a quantized matrix is for a GPU")
    }

    /// Dequantized, [outputs, inputs].
    pub fn numbers(&self, dtype: DType) -> Result<Tensor> {
        let (outputs, inputs) = self.dims2()?;
        let none = |rows: usize, columns: usize| {
            Tensor::zeros((rows, columns), dtype, self.codes.device())
        };
        self.joined(&none(outputs, 0)?, &none(0, inputs)?, 0)
    }

    /// Decoding: `x`: [rows, inputs] in bf16 -> products with this matrix and with `a`, [rank,
    /// inputs], side by side: [rows, outputs + rank] in f32.
    pub fn decode(&self, x: &Tensor, a: Option<&Tensor>) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        return gpu::decode(self, x, a);
        #[cfg(not(feature = "cuda"))]
        bail!("a quantized matrix is for a GPU")
    }
}

/// Bits below it count blocks: 2^30 weights.
const TABLES_BIT: u32 = 24;

impl BlockScales {
    fn stacked(parts: &[&Self]) -> Result<Self> {
        let stack = |tensor: fn(&Self) -> &Tensor, dimension| {
            let tensors: Vec<&Tensor> = parts.iter().map(|part| tensor(part)).collect();
            Tensor::cat(&tensors, dimension)
        };
        let (mut first_blocks, mut groups, mut tables) = (Vec::new(), 0, 0);
        for part in parts {
            let before = ((groups * nf4::GROUP) | (tables << TABLES_BIT)) as u32;
            groups += part.groups.dim(0)?;
            tables += part.tables.dim(0)?;
            check_scales(groups, tables)?;
            let own = part.first_blocks.to_vec1::<u32>()?;
            first_blocks.extend(own.into_iter().map(|first| first + before));
        }
        let count = first_blocks.len();
        Ok(Self {
            codes: stack(|part| &part.codes, 1)?,
            groups: stack(|part| &part.groups, 0)?,
            first_blocks: Tensor::from_vec(first_blocks, count, parts[0].groups.device())?,
            tables: stack(|part| &part.tables, 0)?,
        })
    }
}

/// The numbers of a row's first block and of its tables share 32 bits.
fn check_scales(groups: usize, tables: usize) -> Result<()> {
    let (most_groups, most_tables) = ((1 << TABLES_BIT) / nf4::GROUP, 1 << (32 - TABLES_BIT));
    if groups >= most_groups || tables >= most_tables {
        bail!(
            "{groups} groups of scales with {tables} tables are too many: at most {} with {}",
            most_groups - 1,
            most_tables - 1
        )
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_nf4_have_the_same_sizes() {
        let sizes = format!(
            "NUMBERS = {}, SCALES = {}, BLOCK = {}, GROUP = {}, TABLES_BIT = {TABLES_BIT};",
            nf4::NUMBERS.len(),
            nf4::scale_numbers().len(),
            nf4::BLOCK,
            nf4::GROUP
        );
        assert!(include_str!("nf4.cuh").contains(&sizes), "{sizes}");
    }

    #[test]
    fn more_scales_than_a_row_can_number_are_refused() {
        let scales = |groups: usize, first: u32| BlockScales {
            codes: Tensor::zeros((1, 1, 2), DType::U8, &Device::Cpu).unwrap(),
            groups: Tensor::zeros((groups, 2), DType::F32, &Device::Cpu).unwrap(),
            first_blocks: Tensor::from_slice(&[first], 1, &Device::Cpu).unwrap(),
            tables: Tensor::zeros((1, 272), DType::F32, &Device::Cpu).unwrap(),
        };
        let (one, half) = (scales(1, 3), scales(1 << 15, 7));
        let stacked = BlockScales::stacked(&[&one, &half]).unwrap();
        let first_blocks = stacked.first_blocks.to_vec1::<u32>().unwrap();
        assert_eq!(first_blocks, [3, (1 << TABLES_BIT) + 256 + 7]);
        let many = vec![&one; 256];
        for (parts, expected) in [
            (&[&half, &half][..], "65536 groups of scales with 2 tables"),
            (&many, "256 groups of scales with 256 tables"),
        ] {
            let message = BlockScales::stacked(parts).unwrap_err().to_string();
            let expected = format!("{expected} are too many: at most 65535 with 255");
            assert!(message.starts_with(&expected), "{message}");
        }
    }

    #[test]
    fn weights_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            let numbers: Vec<f32> = (0..64).map(|i| if i == 7 { bad } else { 1.0 }).collect();
            let weight = Tensor::from_vec(numbers, (1, 64), &Device::Cpu).unwrap();
            for precision in [Precision::Fp8, Precision::Nf4] {
                let message = rounded(&weight, precision).unwrap_err().to_string();
                assert!(message.contains("not a finite number"), "{message}");
            }
        }
    }
}
