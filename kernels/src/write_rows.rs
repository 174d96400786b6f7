//! Writes rows or columns into a matrix, on a GPU by driver copies: candle's kernels would be
//! compiled at a machine's first run.

use candle_core::{Result, Tensor};

/// Writes `source`, [n, columns], to the rows of `target`, [rows, at least as many columns], from
/// row `first` on. The source may have strided rows; on the CPU widths are equal.
pub fn write_rows(target: &Tensor, first: usize, source: &Tensor) -> Result<()> {
    on_gpu!(target => gpu::write(target, (first, 0), source));
    target.slice_set(&source.contiguous()?, 0, first)
}

/// Writes `source`, [rows, columns], to the columns of `target`, [rows, at least as many], from
/// column `first` on.
pub fn write_columns(target: &Tensor, first: usize, source: &Tensor) -> Result<()> {
    on_gpu!(target => gpu::write(target, (0, first), source));
    target.slice_set(&source.contiguous()?, 1, first)
}

/// Concatenates `parts`, [rows, columns] each, possibly strided, into new memory.
pub fn join_columns(parts: &[&Tensor]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if parts.first().is_some_and(|part| part.device().is_cuda()) {
        return gpu::join(parts);
    }
    Tensor::cat(parts, 1)?.contiguous()
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::cuda_backend::cudarc::driver::sys;
    use candle_core::{Result, Tensor, bail};

    use crate::cuda::{address, device, empty, failed, stream};

    pub(super) fn join(parts: &[&Tensor]) -> Result<Tensor> {
        let widths = parts
            .iter()
            .map(|part| Ok(part.dims2()?.1))
            .collect::<Result<Vec<_>>>()?;
        let shape = (parts[0].dims2()?.0, widths.iter().sum::<usize>());
        let joined = empty(shape, parts[0].dtype(), device(parts[0])?)?;
        let mut column = 0;
        for (part, width) in parts.iter().zip(widths) {
            write(&joined, (0, column), part)?;
            column += width;
        }
        Ok(joined)
    }

    pub(super) fn write(
        target: &Tensor,
        (first, column): (usize, usize),
        source: &Tensor,
    ) -> Result<()> {
        let ((rows, width), (count, columns)) = (target.dims2()?, source.dims2()?);
        let size = target.dtype().size_in_bytes();
        let [stride, 1] = *source.stride() else {
            bail!("rows to write have strides {:?}", source.stride())
        };
        if !target.is_contiguous()
            || target.dtype() != source.dtype()
            || column + columns > width
            || first + count > rows
        {
            let from = (source.shape(), source.dtype());
            let to = (target.shape(), target.dtype());
            bail!("{from:?} written into {to:?} from row {first} and column {column} on")
        }
        if count == 0 || columns == 0 {
            return Ok(());
        }
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: std::ptr::null(),
            srcDevice: address(source)?,
            srcArray: std::ptr::null_mut(),
            srcPitch: stride.max(columns) * size,
            dstXInBytes: column * size,
            dstY: first,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: address(target)?,
            dstArray: std::ptr::null_mut(),
            dstPitch: width * size,
            WidthInBytes: columns * size,
            Height: count,
        };
        let stream = stream(device(target)?)?;
        // SAFETY: both matrices have these rows (checked above); they live until the stream has run the copy, whatever is
        // freed after it.
        unsafe { sys::cuMemcpy2DAsync_v2(&raw const copy, stream.cu_stream()) }
            .result()
            .map_err(|error| failed("a copy of rows", error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rows_of_wider_ones_arrive_and_nothing_else_changes() {
        let target = Tensor::zeros((4, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let wide = Tensor::arange(0f32, 12., &Device::Cpu)
            .unwrap()
            .reshape((3, 4))
            .unwrap();
        write_rows(
            &target,
            1,
            &wide.narrow(1, 1, 2).unwrap().narrow(0, 1, 2).unwrap(),
        )
        .unwrap();
        assert_eq!(
            target.to_vec2::<f32>().unwrap(),
            [[0., 0.], [5., 6.], [9., 10.], [0., 0.]]
        );
        write_columns(
            &target,
            1,
            &wide
                .narrow(1, 0, 1)
                .unwrap()
                .flatten_all()
                .unwrap()
                .reshape((3, 1))
                .unwrap(),
        )
        .unwrap_err();
        write_columns(&target, 1, &target.narrow(1, 0, 1).unwrap().copy().unwrap()).unwrap();
        assert_eq!(
            target.to_vec2::<f32>().unwrap(),
            [[0., 0.], [5., 5.], [9., 9.], [0., 0.]]
        );
        assert!(write_rows(&target, 3, &wide.narrow(1, 0, 2).unwrap()).is_err());
    }
}
