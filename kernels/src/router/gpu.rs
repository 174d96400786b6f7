//! Expert selection and products on a GPU, unknown to the host, so that a decode step can be
//! recorded.

use candle_core::{DType, Result, Tensor, bail};

use super::{ExpertBias, GPU_EXPERTS, LowRankLayout, Router, Selection, StackedMatrices};
use crate::cuda::{
    Argument, Grid, Module, address, arguments, at, capability, device, empty, float, int, module,
};
use crate::mxfp4;

static MODULE: Module = module!("experts");

/// Average pairs per expert from which large tiles are faster. On an H100, 128 experts of 1,536 x
/// 2,048 take 330 us in small tiles and 341 us in large ones for 16 pairs each, 497 and 349 us
/// for 32.
const MANY_PAIRS: usize = 24;

/// Sorted pairs of rows and experts.
#[derive(Clone, Debug)]
pub struct SortedPairs {
    /// Experts by row, [rows, active].
    selected: Tensor,
    /// First pair by expert, and the end.
    offsets: Tensor,
    /// Row of each pair.
    pub(super) rows: Tensor,
    /// Expert of each pair.
    pub(super) experts: Tensor,
    /// Sorted position of each pair in `selected`.
    places: Tensor,
    /// Weight per pair, f32.
    weights: Tensor,
    /// [rows, experts], f32.
    probabilities: Tensor,
}

/// A product's tiles: the template parameters BM, BN, BK and STAGES of its kernel.
#[derive(Clone, Copy)]
struct Tiles {
    pairs: usize,
    outputs: usize,
    inputs: usize,
    stages: usize,
}

impl Tiles {
    fn few(is_mxfp4: bool, is_transposed: bool) -> Self {
        let (outputs, inputs, stages) = match (is_mxfp4, is_transposed) {
            (false, _) => (64, 64, 3),
            (true, false) => (64, 128, 4),
            (true, true) => (128, 64, 4),
        };
        Self {
            pairs: 16,
            outputs,
            inputs,
            stages,
        }
    }

    fn many(is_mxfp4: bool, has_clusters: bool) -> Self {
        Self {
            pairs: 128,
            outputs: 128,
            inputs: 64,
            stages: if is_mxfp4 || has_clusters { 3 } else { 2 },
        }
    }

    /// Rows are padded by 16 bytes.
    fn shared_bytes(self, is_mxfp4: bool, is_transposed: bool) -> usize {
        let (rows, columns) = if is_transposed {
            (self.inputs, self.outputs)
        } else {
            (self.outputs, self.inputs)
        };
        let own = if is_mxfp4 {
            rows * (columns / 2 + 16 + columns / mxfp4::BLOCK)
        } else {
            rows * 2 * (columns + 8)
        };
        self.stages * (self.pairs * 2 * (self.inputs + 8) + own)
    }
}

pub(super) fn route(
    logits: &Tensor,
    router: Router,
    selection: Selection<'_>,
) -> Result<SortedPairs> {
    let (rows, experts) = logits.dims2()?;
    let Router {
        active,
        is_renormalised,
    } = router;
    if active > GPU_EXPERTS.1 || experts > GPU_EXPERTS.0 {
        bail!(
            "{active} of {experts} experts; a GPU has at most {} of {}",
            GPU_EXPERTS.1,
            GPU_EXPERTS.0
        )
    }
    let (device, pairs) = (device(logits)?, rows * active);
    let words = |count: usize| empty(count, DType::U32, device);
    let numbers = |shape: (usize, usize)| empty(shape, DType::F32, device);
    let (selected, is_replayed) = match selection {
        Selection::Free => (words(pairs)?, false),
        Selection::Recorded(experts) => (experts.clone(), false),
        Selection::Replayed(experts) => (experts.clone(), true),
    };
    let unsorted = numbers((rows, active))?;
    let offsets = words(experts + 1)?;
    let of_pairs = words(pairs)?;
    let owners = words(pairs)?;
    let places = words(pairs)?;
    let (weights, probabilities) = (numbers((pairs, 1))?, numbers((rows, experts))?);
    let arguments = arguments!(
        at logits, &selected, &unsorted, &probabilities; int rows, experts, active,
        usize::from(is_renormalised), usize::from(is_replayed)
    );
    MODULE.typed("experts_route", logits.dtype()).launch(
        device,
        Grid::rows(rows.div_ceil(4), 128),
        &arguments,
    )?;
    let arguments = arguments!(
        at &selected, &unsorted, &offsets, &of_pairs, &owners, &places, &weights; int pairs,
        experts, active
    );
    MODULE
        .kernel("experts_sort")
        .launch(device, Grid::rows(experts, 256), &arguments)?;
    Ok(SortedPairs {
        selected,
        offsets,
        rows: of_pairs,
        experts: owners,
        places,
        weights,
        probabilities,
    })
}

/// `a`, `b`: [pairs, width] -> [pairs, 1], f32.
pub(super) fn dot(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((pairs, width), device) = (a.dims2()?, device(a)?);
    if b.dims2()? != (pairs, width) || a.dtype() != b.dtype() {
        bail!("products of {:?} and {:?}", a.shape(), b.shape())
    }
    let output = empty((pairs, 1), DType::F32, device)?;
    let arguments = arguments!(at a, b, &output; int width);
    MODULE
        .typed("experts_dot", a.dtype())
        .launch(device, Grid::rows(pairs, 128), &arguments)?;
    Ok(output)
}

impl SortedPairs {
    fn check(&self, x: &Tensor) -> Result<usize> {
        match x.dims2()? {
            (pairs, width) if pairs == self.rows.elem_count() => Ok(width),
            other => bail!("{other:?} for {} pairs", self.rows.elem_count()),
        }
    }

    pub(super) fn weigh(&self, x: &Tensor, factors: Option<&Tensor>) -> Result<Tensor> {
        let (width, device) = (self.check(x)?, device(x)?);
        if let Some(factors) = factors
            && (factors.elem_count() != self.experts() || factors.dtype() != x.dtype())
        {
            bail!("factors of {factors:?} for {} experts", self.experts())
        }
        let factors = factors.map_or(Ok(Argument::Address(0)), at)?;
        let output = empty(x.shape().clone(), x.dtype(), device)?;
        let arguments = arguments!(
            at x, &self.weights; given factors; at &self.experts, &output; int width
        );
        MODULE.typed("experts_weigh", x.dtype()).launch(
            device,
            Grid::rows(x.dims2()?.0, 128),
            &arguments,
        )?;
        Ok(output)
    }

    pub(super) fn combine(&self, x: &Tensor, rows: usize) -> Result<Tensor> {
        let width = self.check(x)?;
        let device = device(x)?;
        let active = self.rows.elem_count() / rows.max(1);
        let output = empty((rows, width), x.dtype(), device)?;
        let arguments = arguments!(at x, &self.places, &output; int width, active);
        MODULE.typed("experts_combine", x.dtype()).launch(
            device,
            Grid::rows(rows, 256),
            &arguments,
        )?;
        Ok(output)
    }

    fn experts(&self) -> usize {
        self.offsets.elem_count() - 1
    }

    /// `x` times each pair's expert matrix; added to `sum`, if given.
    pub(super) fn product(
        &self,
        x: &Tensor,
        (matrices, is_transposed): (StackedMatrices<'_>, bool),
        bias: Option<ExpertBias<'_>>,
        sum: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (inputs, device, experts) = (self.check(x)?, device(x)?, self.experts());
        let (below, beside, dtype, addresses) = match matrices {
            StackedMatrices::Numbers(stack) => {
                let (below, beside) = stack.dims2()?;
                (below, beside, stack.dtype(), [address(stack)?, 0])
            }
            StackedMatrices::Mxfp4(stack) => {
                let (below, bytes) = stack.codes.dims2()?;
                let addresses = [address(&stack.codes)?, address(&stack.exponents)?];
                (below, 2 * bytes, DType::BF16, addresses)
            }
        };
        let (pairs, is_mxfp4) = (x.dims2()?.0, matches!(matrices, StackedMatrices::Mxfp4(_)));
        let (expected, outputs) = if is_transposed {
            (below / experts, beside)
        } else {
            (beside, below / experts)
        };
        if below % experts != 0 || expected != inputs || x.dtype() != dtype {
            bail!("{x:?} for {experts} experts of {matrices:?}")
        }
        let output = match sum {
            Some(sum) if sum.dims2()? == (pairs, outputs) && sum.dtype() == x.dtype() => {
                sum.clone()
            }
            Some(sum) => bail!("{outputs} outputs of {pairs} pairs added to {sum:?}"),
            None => empty((pairs, outputs), x.dtype(), device)?,
        };
        let [vectors, weights] = self.bias((experts, outputs), x.dtype(), bias)?;
        let own = match matrices {
            StackedMatrices::Numbers(stack) => at(stack)?,
            StackedMatrices::Mxfp4(_) => Argument::Struct(addresses.as_ptr().cast()),
        };
        let mut arguments = arguments!(
            at x; given own; at &output, &self.offsets; given vectors, weights
        )
        .to_vec();
        arguments.extend([experts, outputs, inputs, usize::from(sum.is_some())].map(int));
        if x.dtype() == DType::F32 {
            arguments.push(int(usize::from(is_transposed)));
            let grid = Grid::blocks((outputs.div_ceil(256), pairs, 1), 256);
            MODULE
                .kernel("experts_product_f32")
                .launch(device, grid, &arguments)?;
            return Ok(output);
        }
        // Rows are copied 16 bytes at a time.
        if !(inputs | outputs).is_multiple_of(8) || !(address(x)? | addresses[0]).is_multiple_of(16)
        {
            bail!(
                "experts of {outputs} outputs and {inputs} inputs in {:?}: a GPU takes multiples of 8",
                x.dtype()
            )
        }
        let capability = capability(device)?;
        let many = Tiles::many(is_mxfp4, capability.has_clusters());
        let many_bytes = many.shared_bytes(is_mxfp4, is_transposed);
        let is_many = pairs >= MANY_PAIRS * experts && many_bytes <= capability.shared_bytes;
        let tiles = if is_many {
            many
        } else {
            Tiles::few(is_mxfp4, is_transposed)
        };
        let name = match (is_mxfp4, is_many, is_transposed) {
            (false, false, false) => "experts_product_few",
            (false, true, false) => "experts_product_many",
            (false, false, true) => "experts_product_few_transposed",
            (false, true, true) => "experts_product_many_transposed",
            (true, false, false) => "experts_product_mxfp4_few",
            (true, true, false) => "experts_product_mxfp4_many",
            (true, false, true) => "experts_product_mxfp4_few_transposed",
            (true, true, true) => "experts_product_mxfp4_many_transposed",
        };
        // Each expert's last tile may be partial.
        let of_pairs = pairs / tiles.pairs + experts.min(pairs);
        let grid = Grid {
            blocks: (outputs.div_ceil(tiles.outputs), of_pairs, 1),
            threads: if is_many { 256 } else { 128 },
            shared_bytes: tiles.shared_bytes(is_mxfp4, is_transposed),
        };
        MODULE.kernel(name).launch(device, grid, &arguments)?;
        Ok(output)
    }

    /// `wide`: [pairs, width], `narrow`: [pairs, rank]; adds `scale` times their product per expert
    /// to `sum`, f32.
    pub(super) fn add_outer(
        &self,
        (wide, narrow): (&Tensor, &Tensor),
        sum: &Tensor,
        layout: LowRankLayout,
        scale: f64,
    ) -> Result<()> {
        let width = self.check(wide)?;
        let rank = self.check(narrow)?;
        let experts = self.experts();
        let dtype = wide.dtype();
        if sum.elem_count() != experts * width * rank
            || sum.dtype() != DType::F32
            || narrow.dtype() != dtype
        {
            bail!("{wide:?} times {narrow:?} to {sum:?}")
        }
        if width % 2 != 0 || rank % 8 != 0 {
            bail!("a rank of {rank} beside {width} numbers: a GPU takes multiples of 8 and 2")
        }
        let [expert, column, row] = match layout {
            LowRankLayout::Below => [rank * width, 1, width],
            LowRankLayout::Interleaved => [1, rank * experts, experts],
        };
        let mut arguments = arguments!(
            at wide, narrow, sum, &self.offsets; int width, rank
        )
        .to_vec();
        arguments.extend([expert, column, row].map(|stride| Argument::Long(stride as u64)));
        arguments.push(float(scale));
        let grid = Grid::blocks((width.div_ceil(512), experts, rank / 8), 256);
        MODULE
            .typed("experts_add_outer", dtype)
            .launch(device(wide)?, grid, &arguments)
    }

    /// Vectors and their weights; null for none.
    fn bias(
        &self,
        shape: (usize, usize),
        dtype: DType,
        bias: Option<ExpertBias<'_>>,
    ) -> Result<[Argument; 2]> {
        let none = Argument::Address(0);
        let Some(ExpertBias {
            vectors,
            is_weighted,
        }) = bias
        else {
            return Ok([none, none]);
        };
        if vectors.dims2()? != shape || vectors.dtype() != dtype {
            bail!("biases of {vectors:?} for {shape:?} {dtype:?}")
        }
        Ok([
            at(vectors)?,
            if is_weighted {
                at(&self.weights)?
            } else {
                none
            },
        ])
    }

    pub(super) fn backward(
        &self,
        products: &Tensor,
        router: Router,
        dtype: DType,
    ) -> Result<Tensor> {
        let ((rows, experts), device) = (self.probabilities.dims2()?, device(products)?);
        let gradient = empty((rows, experts), dtype, device)?;
        let arguments = arguments!(
            at products, &self.selected, &self.places, &self.weights, &self.probabilities,
            &gradient; int experts, router.active, usize::from(router.is_renormalised)
        );
        MODULE.typed("experts_route_backward", dtype).launch(
            device,
            Grid::rows(rows, 128),
            &arguments,
        )?;
        Ok(gradient)
    }
}
