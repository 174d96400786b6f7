//! Maps by which Hopper copies boxes of a matrix to shared memory.

use std::mem::MaybeUninit;

use candle_core::cuda_backend::cudarc::driver::sys;
use candle_core::{DType, Result, Tensor, bail};

use super::cuda::{Argument, address, failed};

/// Columns of a box: inner indices of a pipeline stage.
pub(super) const CHUNK: usize = 64;

/// Of a bf16 matrix whose rows may be strided: boxes of 64 columns, zeros outside of the matrix,
/// 16-byte pieces swizzled for wgmma.
pub(super) struct RowsMap([u64; 16]);

impl RowsMap {
    /// Whether a matrix can have one: its rows begin at multiples of 16 bytes.
    pub(super) fn supports(matrix: &Tensor) -> Result<bool> {
        let &[stride, 1] = matrix.stride() else {
            return Ok(false);
        };
        let is_aligned = stride.is_multiple_of(8) && address(matrix)?.is_multiple_of(16);
        Ok(is_aligned && matrix.dtype() == DType::BF16)
    }

    /// Boxes of `rows` rows.
    pub(super) fn new(matrix: &Tensor, rows: usize) -> Result<Self> {
        if !Self::supports(matrix)? {
            bail!("a map of {matrix:?}")
        }
        let (count, columns) = matrix.dims2()?;
        let (sizes, stride) = (
            [columns as u64, count as u64],
            [2 * matrix.stride()[0] as u64],
        );
        let (piece, steps) = ([CHUNK as u32, rows as u32], [1_u32; 2]);
        let mut map = MaybeUninit::<sys::CUtensorMap>::uninit();
        // SAFETY: the arrays have two sizes, one stride and two steps, as a matrix needs; `map` is written where the call
        // succeeds, and is 128 bytes without padding.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                address(matrix)? as *mut _,
                sizes.as_ptr(),
                stride.as_ptr(),
                piece.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
            .result()
            .map_err(|error| failed("the map of a matrix", error))?;
            Ok(Self(std::mem::transmute::<sys::CUtensorMap, [u64; 16]>(
                map.assume_init(),
            )))
        }
    }

    /// As kernels take it by value.
    pub(super) fn argument(&self) -> Argument {
        Argument::Struct(self.0.as_ptr().cast())
    }
}
