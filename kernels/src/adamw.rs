//! AdamW over one flat buffer (Loshchilov and Hutter 2017, arXiv 1711.05101), in place.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::cpu_slice::{in_place, numbers};
use super::real::vectorised;

/// Hyperparameters and bias corrections of one AdamW update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// Gradient clipping factor; 1: none.
    pub gradient_scale: f64,
    /// 1-based.
    pub update: u64,
}

/// Updates the elements of `range`. `parameters`, `moments` and `gradient` are f32; `moments`:
/// first moments, then second, [2 * n]. `working`: rounded copy read by the layers unless they read
/// `parameters`, `[n]`.
pub fn adamw(
    parameters: &Tensor,
    moments: &Tensor,
    gradient: &Tensor,
    step: AdamWStep,
    working: Option<&Tensor>,
    range: Range<usize>,
) -> Result<()> {
    let n = parameters.dims1()?;
    let part = |tensor: &Tensor, offset: usize| tensor.narrow(0, offset + range.start, range.len());
    let (first, second) = (part(moments, 0)?, part(moments, n)?);
    let (parameters, gradient) = (&part(parameters, 0)?, &part(gradient, 0)?);
    let working = working.map(|working| part(working, 0)).transpose()?;
    on_gpu!(parameters =>
        gpu::adamw(parameters, [&first, &second], gradient, step, working.as_ref()));
    let scale = step.gradient_scale as f32;
    average(&first, gradient, step.beta1, |g| g * scale)?;
    average(&second, gradient, step.beta2, |g| {
        let g = g * scale;
        g * g
    })?;
    update(parameters, [&first, &second], step)?;
    working.map_or(Ok(()), |working| cast_into(parameters, &working))
}

/// Copies `source` to `target`, `[n]` each, converting to its dtype; bf16 on a GPU.
pub fn cast_into(source: &Tensor, target: &Tensor) -> Result<()> {
    on_gpu!(source => gpu::cast_into(source, target));
    target.slice_set(&source.to_dtype(target.dtype())?, 0, 0)
}

/// Scaled GPU copies of a flat buffer's tensors into packed matrices, in their dtype.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, reason = "only a GPU has them")
)]
pub struct MatrixCopies {
    /// [tensors, 7] of i64: first element, columns, count, address, row stride, column stride, bits
    /// of the scale.
    table: Tensor,
    /// Keeps the destinations alive.
    places: Vec<Tensor>,
}

/// A tensor of a flat buffer inside a matrix.
#[derive(Clone, Debug)]
pub struct MatrixCopy {
    /// First element in the buffer.
    pub offset: usize,
    /// Part of a matrix: [rows, columns].
    pub place: Tensor,
    pub scale: f64,
}

impl MatrixCopies {
    /// Copies of one dtype; `None` if empty.
    ///
    /// # Errors
    /// Destinations not on a GPU, or of several dtypes.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "only a GPU has them")
    )]
    pub fn new(copies: Vec<MatrixCopy>) -> Result<Option<Self>> {
        #[cfg(feature = "cuda")]
        return gpu::matrix_copies(copies);
        #[cfg(not(feature = "cuda"))]
        Ok(None)
    }

    /// Performs the copies. `flat`: `[n]`, f32.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "only a GPU has them")
    )]
    pub fn write(&self, flat: &Tensor) -> Result<()> {
        #[cfg(feature = "cuda")]
        gpu::write_copies(flat, &self.table, &self.places)?;
        Ok(())
    }
}

/// Euclidean norm of `flat`: `[n]`, f32 or on a GPU bf16, summed in f64. The only synchronisation
/// of an update.
pub fn norm(flat: &Tensor) -> Result<f64> {
    on_gpu!(flat => gpu::norm(flat));
    let sum: f64 = match flat.dtype() {
        DType::F64 => flat.to_vec1::<f64>()?.iter().map(|g| g * g).sum(),
        _ => flat
            .to_vec1::<f32>()?
            .iter()
            .map(|&g| f64::from(g) * f64::from(g))
            .sum(),
    };
    Ok(sum.sqrt())
}

/// [`AdamWStep`] as used by both devices.
struct Factors {
    /// Bias correction of the first moment times the learning rate.
    correct_first: f32,
    correct_second: f32,
    /// Factor of weight decay.
    keep: f32,
}

impl AdamWStep {
    fn factors(&self) -> Factors {
        let update = self.update as f64;
        Factors {
            correct_first: (self.learning_rate / (1.0 - self.beta1.powf(update))) as f32,
            correct_second: (1.0 / (1.0 - self.beta2.powf(update))) as f32,
            keep: (1.0 - self.learning_rate * self.weight_decay) as f32,
        }
    }
}

/// `moment = keep * moment + (1 - keep) * of(gradient)`.
fn average(moment: &Tensor, gradient: &Tensor, keep: f64, of: impl Fn(f32) -> f32) -> Result<()> {
    let (keep, add) = (keep as f32, (1.0 - keep) as f32);
    let average = in_place("adamw moment", |moment: &mut [f32], gradient: &[f32]| {
        vectorised!(|| {
            for (m, &g) in moment.iter_mut().zip(gradient) {
                *m = keep * *m + add * of(g);
            }
        });
        Ok(())
    });
    moment.inplace_op2(gradient, &average)
}

fn update(parameters: &Tensor, [first, second]: [&Tensor; 2], step: AdamWStep) -> Result<()> {
    let Factors {
        correct_first,
        correct_second,
        keep,
    } = step.factors();
    let epsilon = step.epsilon as f32;
    numbers!(f32: second = second);
    let update = in_place("adamw", |parameters: &mut [f32], first: &[f32]| {
        vectorised!(|| {
            for ((p, &m), &v) in parameters.iter_mut().zip(first).zip(second) {
                *p = keep * *p - correct_first * m / ((v * correct_second).sqrt() + epsilon);
            }
        });
        Ok(())
    });
    parameters.inplace_op2(first, &update)
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::{AdamWStep, Factors, MatrixCopies, MatrixCopy};
    use crate::cuda::{Argument, Grid, Module, address, arguments, at, device, empty, module};

    static MODULE: Module = module!("adamw");

    pub(super) fn adamw(
        parameters: &Tensor,
        [first, second]: [&Tensor; 2],
        gradient: &Tensor,
        step: AdamWStep,
        working: Option<&Tensor>,
    ) -> Result<()> {
        let count = parameters.dims1()?;
        check(parameters, DType::F32, count)?;
        check(first, DType::F32, count)?;
        check(second, DType::F32, count)?;
        check(gradient, DType::F32, count)?;
        if let Some(working) = working {
            check(working, DType::BF16, count)?;
        }
        let Factors {
            correct_first,
            correct_second,
            keep,
        } = step.factors();
        let arguments = arguments!(
            at parameters, first, second, gradient;
            given working.map_or(Ok(Argument::Address(0)), at)?; long count;
            float step.gradient_scale, step.beta1, 1.0 - step.beta1, step.beta2, 1.0 - step.beta2;
            given Argument::Float(correct_first), Argument::Float(correct_second),
            Argument::Float(keep); float step.epsilon
        );
        MODULE
            .kernel("adamw")
            .launch(device(parameters)?, Grid::elements(count), &arguments)
    }

    pub(super) fn cast_into(source: &Tensor, target: &Tensor) -> Result<()> {
        let count = source.elem_count();
        check(source, DType::F32, count)?;
        check(target, DType::BF16, count)?;
        let arguments = arguments!(at source, target; long count);
        MODULE
            .kernel("cast")
            .launch(device(source)?, Grid::elements(count), &arguments)
    }

    pub(super) fn matrix_copies(copies: Vec<MatrixCopy>) -> Result<Option<MatrixCopies>> {
        let Some(first) = copies.first() else {
            return Ok(None);
        };
        let (device, dtype) = (first.place.device().clone(), first.place.dtype());
        let mut table = Vec::with_capacity(7 * copies.len());
        for MatrixCopy {
            offset,
            place,
            scale,
        } in &copies
        {
            let (rows, columns) = place.dims2()?;
            if place.dtype() != dtype {
                bail!("a copy in {:?} beside others in {dtype:?}", place.dtype())
            }
            let [row_stride, column_stride] = [place.stride()[0], place.stride()[1]];
            let numbers = [
                *offset,
                columns,
                rows * columns,
                address(place)? as usize,
                row_stride,
                column_stride,
            ];
            table.extend(numbers.map(|number| number as i64));
            table.push(i64::from((*scale as f32).to_bits()));
        }
        let table = Tensor::from_vec(table, (copies.len(), 7), &device)?;
        Ok(Some(MatrixCopies {
            table,
            places: copies.into_iter().map(|copy| copy.place).collect(),
        }))
    }

    pub(super) fn write_copies(flat: &Tensor, table: &Tensor, places: &[Tensor]) -> Result<()> {
        check(flat, DType::F32, flat.elem_count())?;
        let Some(place) = places.first() else {
            return Ok(());
        };
        // Blocks per tensor such that a thread has about ten elements of the largest.
        let largest = places.iter().map(Tensor::elem_count).max().unwrap_or(0);
        let grid = Grid::blocks((largest.div_ceil(256 * 10), places.len(), 1), 256);
        MODULE.typed("write_copies", place.dtype()).launch(
            device(flat)?,
            grid,
            &[at(flat)?, at(table)?],
        )
    }

    pub(super) fn norm(flat: &Tensor) -> Result<f64> {
        let count = flat.elem_count();
        if count == 0 {
            return Ok(0.0);
        }
        check(
            flat,
            if flat.dtype() == DType::BF16 {
                DType::BF16
            } else {
                DType::F32
            },
            count,
        )?;
        let device = device(flat)?;
        let parts = count.div_ceil(1024).min(1056); // eight blocks per multiprocessor of the largest GPUs
        let partial = empty(parts, DType::F64, device)?;
        let sum = empty(1, DType::F64, device)?;
        let arguments = arguments!(at flat, &partial; long count);
        MODULE
            .typed("squares", flat.dtype())
            .launch(device, Grid::rows(parts, 256), &arguments)?;
        MODULE.kernel("total").launch(
            device,
            Grid::rows(1, 1024),
            &arguments!(at &partial, &sum; int parts),
        )?;
        Ok(sum.to_vec1::<f64>()?.iter().sum::<f64>().sqrt())
    }

    fn check(tensor: &Tensor, dtype: DType, count: usize) -> Result<()> {
        if tensor.dtype() != dtype || tensor.elem_count() != count {
            bail!("an update needs {count} values of {dtype:?}, not {tensor:?}")
        }
        Ok(())
    }
}
