//! Matrix products: plain on the CPU; on a GPU by cuBLAS, of strided views, into any dtype,
//! optionally accumulating.
//!
//! On a GPU the input of a matrix with adapters has *adapter columns* after its own (see the
//! engine's `model/linear.rs`): earlier operations leave them unwritten, [`matmul_into`] fills
//! them. On the CPU there are none.

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor, bail};

use super::gemm::{View, multiply};

/// `left`: [m, k], `right`: [k, n] -> [m, n] in `left`'s dtype.
pub fn matmul(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    on_gpu!(left => gpu::matmul(left, right, left.dtype()));
    left.matmul(right)
}

/// As [`matmul`], in f32 (f64 for f64): for logits, where rounding to bf16 would be the model's
/// largest error.
pub fn matmul_f32(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    on_gpu!(left => gpu::matmul(left, right, candle_core::DType::F32));
    left.matmul(right)
}

/// `target = left x right`, in place, on a GPU. `target`: [m, n], rows contiguous.
#[cfg_attr(
    not(feature = "cuda"),
    expect(unused_variables, reason = "the CPU has no use for it")
)]
pub fn matmul_into(target: &Tensor, left: &Tensor, right: &Tensor) -> Result<()> {
    on_gpu!(left => gpu::matmul_into(target, left, right, 1.0, 0.0));
    bail!("rows with adapter columns are for a GPU")
}

/// # Errors
/// Adapter columns, which the CPU does not have.
pub(super) fn no_adapter_columns(adapter_columns: usize) -> Result<()> {
    if adapter_columns > 0 {
        bail!("rows with {adapter_columns} adapter columns are for a GPU")
    } else {
        Ok(())
    }
}

/// `target += scale * left x right`, in place. `target`: [m, n], rows contiguous (possibly columns
/// of a wider matrix), of any dtype on a GPU.
pub fn matmul_add(target: &Tensor, left: &Tensor, right: &Tensor, scale: f64) -> Result<()> {
    on_gpu!(left => gpu::matmul_into(target, left, right, scale, 1.0));
    target.inplace_op3(left, right, &MatmulAdd { scale })
}

struct MatmulAdd {
    scale: f64,
}

impl InplaceOp3 for MatmulAdd {
    fn name(&self) -> &'static str {
        "matmul_add"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        left: &CpuStorage,
        left_layout: &Layout,
        right: &CpuStorage,
        right_layout: &Layout,
    ) -> Result<()> {
        let views = (
            view(target_layout)?,
            view(left_layout)?,
            view(right_layout)?,
        );
        match (target, left, right) {
            (CpuStorage::F32(target), CpuStorage::F32(left), CpuStorage::F32(right)) => {
                multiply(
                    (target, views.0),
                    (left, views.1),
                    (right, views.2),
                    self.scale as f32,
                    true,
                );
            }
            (CpuStorage::F64(target), CpuStorage::F64(left), CpuStorage::F64(right)) => {
                multiply(
                    (target, views.0),
                    (left, views.1),
                    (right, views.2),
                    self.scale,
                    true,
                );
            }
            _ => bail!("matmul_add needs three f32 or three f64 tensors"),
        }
        Ok(())
    }
}

fn view(layout: &Layout) -> Result<View> {
    let (rows, columns) = layout.shape().dims2()?;
    let [row_stride, column_stride] = *layout.stride() else {
        bail!("a matrix has two strides")
    };
    Ok(View {
        offset: layout.start_offset(),
        rows,
        columns,
        row_stride,
        column_stride,
    })
}

#[cfg(feature = "cuda")]
mod gpu {
    use std::ffi::{c_int, c_void};

    use candle_core::cuda_backend::cudarc::cublas::{result, sys};
    use candle_core::{DType, Result, Tensor, bail};

    use crate::cuda::{
        Grid, Module, address, arguments, capability, device, empty, failed, module,
    };
    use crate::rows_map::{CHUNK, RowsMap};

    static DECODE: Module = module!("decode_matmul");

    /// Rows up to which a decode step's products are faster by our kernel than by cuBLAS.
    const MAX_DECODED_ROWS: usize = 32;
    /// Numbers of a matrix from which on reading it is what takes time.
    const MIN_WEIGHTS: usize = 1 << 22;
    /// Outputs of a block, and bytes of shared memory for its weights and rows, with three blocks a
    /// multiprocessor.
    const OUTPUTS: usize = 64;
    const SHARED_BYTES: usize = 74 << 10;
    /// As in `decode_matmul.cu`.
    const MAX_STAGES: usize = 8;

    /// A matrix in cuBLAS's column-major view: ours transposed.
    struct Operand {
        address: u64,
        dtype: sys::cudaDataType,
        stride: c_int,
        operation: sys::cublasOperation_t,
    }

    fn operand(tensor: &Tensor) -> Result<Operand> {
        let (rows, columns) = tensor.dims2()?;
        let (operation, stride) = match *tensor.stride() {
            // The stride of a dimension of size one is irrelevant.
            [row, 1] if row >= columns || rows == 1 => {
                (sys::cublasOperation_t::CUBLAS_OP_N, row.max(columns))
            }
            [1, column] if column >= rows || columns == 1 => {
                (sys::cublasOperation_t::CUBLAS_OP_T, column.max(rows))
            }
            [row, _] if columns == 1 => (sys::cublasOperation_t::CUBLAS_OP_N, row),
            [_, column] if rows == 1 => (sys::cublasOperation_t::CUBLAS_OP_T, column),
            ref other => {
                bail!("matmul of a tensor of shape [{rows}, {columns}] with strides {other:?}")
            }
        };
        Ok(Operand {
            address: address(tensor)?,
            dtype: cuda_type(tensor.dtype())?,
            stride: stride as c_int,
            operation,
        })
    }

    fn cuda_type(dtype: DType) -> Result<sys::cudaDataType> {
        Ok(match dtype {
            DType::F32 => sys::cudaDataType::CUDA_R_32F,
            DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
            other => bail!("matmul on a GPU works on f32 and bf16, not {other:?}"),
        })
    }

    pub(super) fn matmul(left: &Tensor, right: &Tensor, dtype: DType) -> Result<Tensor> {
        let target = empty((left.dims2()?.0, right.dims2()?.1), dtype, device(left)?)?;
        if dtype != DType::F32 || !decode(&target, left, &right.t()?)? {
            matmul_into(&target, left, right, 1.0, 0.0)?;
        }
        Ok(target)
    }

    /// `target = x weights^T` if there is a kernel for it. `weights`: [outputs, inputs].
    fn decode(target: &Tensor, x: &Tensor, weights: &Tensor) -> Result<bool> {
        let ((rows, inputs), (outputs, inner)) = (x.dims2()?, weights.dims2()?);
        let gpu = device(x)?;
        let serves = (1..=MAX_DECODED_ROWS).contains(&rows)
            && inputs == inner
            && inputs * outputs >= MIN_WEIGHTS
            && inputs.is_multiple_of(CHUNK)
            && outputs.is_multiple_of(4)
            && capability(gpu)?.has_warpgroups()
            && RowsMap::supports(x)?
            && RowsMap::supports(weights)?;
        if !serves {
            return Ok(false);
        }
        let (name, room) = match rows {
            ..=8 => ("decode_matmul_8", 8),
            9..=16 => ("decode_matmul_16", 16),
            _ => ("decode_matmul_32", 32),
        };
        let tiles = outputs.div_ceil(OUTPUTS);
        // Measured on an H200: larger clusters do not fit three times on each multiprocessor.
        let splits = match tiles {
            ..=88 => 4,
            89..=198 => 2,
            _ => 1,
        }
        .min(inputs / CHUNK);
        let stage_bytes = (OUTPUTS + room) * CHUNK * 2;
        let stages = (SHARED_BYTES / stage_bytes).min(MAX_STAGES);
        let sums_bytes = (room + splits) * (OUTPUTS + 4) * size_of::<f32>();
        let maps = [RowsMap::new(x, room)?, RowsMap::new(weights, OUTPUTS)?];
        let arguments = arguments!(
            given maps[0].argument(), maps[1].argument();
            at target; int rows, inputs, outputs, stages
        );
        let grid = Grid {
            blocks: (splits, tiles, 1),
            threads: 2 * OUTPUTS,
            shared_bytes: (stages * stage_bytes).max(sums_bytes),
        };
        DECODE
            .kernel(name)
            .early()
            .clusters(splits)
            .launch(gpu, grid, &arguments)?;
        Ok(true)
    }

    /// `target = keep * target + scale * left x right`.
    pub(super) fn matmul_into(
        target: &Tensor,
        left: &Tensor,
        right: &Tensor,
        scale: f64,
        keep: f64,
    ) -> Result<()> {
        let ((m, k), (inner, n)) = (left.dims2()?, right.dims2()?);
        if k != inner || target.dims2()? != (m, n) || left.dtype() != right.dtype() {
            let left = (left.shape(), left.dtype());
            let right = (right.shape(), right.dtype());
            let target = target.shape();
            bail!("matmul of {left:?} and {right:?} into {target:?}")
        }
        if m == 0 || n == 0 {
            return Ok(());
        }
        let (a, b, c) = (operand(right)?, operand(left)?, operand(target)?);
        if c.operation != sys::cublasOperation_t::CUBLAS_OP_N {
            bail!(
                "the output rows of a matmul must be contiguous; its strides are {:?}",
                target.stride()
            )
        }
        let (scale, keep) = (scale as f32, keep as f32);
        let handle = device(target)?.cublas_handle();
        // SAFETY: the three operands' shapes and strides were just checked; they live until the stream has run the
        // call, whatever is freed after it.
        unsafe {
            result::gemm_ex(
                *handle.handle(),
                a.operation,
                b.operation,
                n as c_int,
                m as c_int,
                k as c_int,
                std::ptr::from_ref(&scale).cast::<c_void>(),
                a.address as *const c_void,
                a.dtype,
                a.stride,
                b.address as *const c_void,
                b.dtype,
                b.stride,
                std::ptr::from_ref(&keep).cast::<c_void>(),
                c.address as *mut c_void,
                c.dtype,
                c.stride,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        }
        .map_err(|error| failed("matmul", error))
    }
}
