//! Router of a mixture of experts (Shazeer et al. 2017, arXiv 1701.06538): softmax over experts per
//! row and top-k; and operations on (row, expert) pairs.

use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};

use super::Real;
use super::cpu_slice::{by_number_type, numbers};
use super::embedding::{gather_rows, scatter_rows};
use super::mxfp4::Mxfp4Stack;
use super::real::vectorised;

#[cfg(feature = "cuda")]
mod gpu;

/// GPU limits: experts of a layer, and active experts of a row.
pub const GPU_EXPERTS: (usize, usize) = (512, 32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// Experts per row.
    pub active: usize,
    /// Whether a row's expert weights are normalised to sum 1.
    pub is_renormalised: bool,
}

/// Selection of experts.
#[derive(Clone, Copy, Debug, Default)]
pub enum Selection<'a> {
    /// Top-k.
    #[default]
    Free,
    /// Top-k, written to this tensor: [rows, active], u32.
    Recorded(&'a Tensor),
    /// Given: [rows, active], u32. A row that begins with [`NOT_RECORDED`] selects freely; a GPU
    /// writes its selection there.
    Replayed(&'a Tensor),
}

/// Marks a row without recorded experts.
pub const NOT_RECORDED: u32 = u32::MAX;

/// (Row, expert) pairs, sorted by expert, then by row.
#[derive(Clone, Debug)]
pub enum Routing {
    /// Listed on the CPU.
    Listed(ListedPairs),
    /// Sorted on a GPU, unknown to the host.
    #[cfg(feature = "cuda")]
    Sorted(gpu::SortedPairs),
}

/// Bias of the experts' products.
#[derive(Clone, Copy, Debug)]
pub struct ExpertBias<'a> {
    /// [experts, outputs].
    pub vectors: &'a Tensor,
    /// Whether it is scaled by the pair's weight.
    pub is_weighted: bool,
}

/// A matrix of every expert on a GPU.
#[derive(Clone, Copy, Debug)]
pub enum StackedMatrices<'a> {
    /// Stacked: [outputs, inputs] each, or if transposed [inputs, outputs].
    Numbers(&'a Tensor),
    Mxfp4(&'a Mxfp4Stack),
}

/// Layout of all experts' low-rank matrices in one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowRankLayout {
    /// Stacked: [experts * rank, width].
    Below,
    /// Interleaved columns: [width, rank * experts].
    Interleaved,
}

/// Pairs known to the host.
#[derive(Clone, Debug)]
pub struct ListedPairs {
    /// Row of each pair.
    rows: Vec<u32>,
    /// Pairs by expert.
    pub ranges: Vec<Range<usize>>,
    /// [pairs, 1].
    weights: Tensor,
    /// [rows, experts].
    probabilities: Tensor,
}

impl Routing {
    /// `x`: [rows, width] -> the row of each pair, [pairs, width].
    pub fn gather(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Listed(pairs) => gather_rows(
                x,
                &Tensor::new(pairs.rows.as_slice(), x.device())?,
                x.dtype(),
            ),
            #[cfg(feature = "cuda")]
            Self::Sorted(pairs) => gather_rows(x, &pairs.rows, x.dtype()),
        }
    }

    /// `x`: [pairs, width] -> sum over each row's pairs, [rows, width].
    pub fn combine(&self, x: &Tensor, rows: usize) -> Result<Tensor> {
        match self {
            Self::Listed(pairs) => scatter_rows(x, &pairs.rows, rows),
            #[cfg(feature = "cuda")]
            Self::Sorted(pairs) => pairs.combine(x, rows),
        }
    }

    /// `x`: [pairs, width], scaled by the pairs' weights and optionally by `factors`: [experts, 1].
    pub fn weigh(&self, x: &Tensor, factors: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Listed(pairs) => {
                let weighed = x.broadcast_mul(&pairs.weights)?;
                factors.map_or(Ok(weighed.clone()), |factors| {
                    weighed.broadcast_mul(&self.spread(factors)?)
                })
            }
            #[cfg(feature = "cuda")]
            Self::Sorted(pairs) => pairs.weigh(x, factors),
        }
    }

    /// `vectors`: [experts, width] -> each pair's, [pairs, width].
    pub fn spread(&self, vectors: &Tensor) -> Result<Tensor> {
        let experts = match self {
            Self::Listed(pairs) => {
                let ranges = pairs.ranges.iter().enumerate();
                let experts: Vec<u32> = ranges
                    .flat_map(|(expert, pairs)| std::iter::repeat_n(expert as u32, pairs.len()))
                    .collect();
                Tensor::new(experts, vectors.device())?
            }
            #[cfg(feature = "cuda")]
            Self::Sorted(pairs) => pairs.experts.clone(),
        };
        gather_rows(vectors, &experts, vectors.dtype())
    }

    /// `x`: [pairs, width] -> sum over each expert's pairs, [experts, width]; CPU only.
    pub fn sum_by_expert(&self, x: &Tensor) -> Result<Tensor> {
        let sums = self
            .listed()?
            .ranges
            .iter()
            .map(|pairs| x.narrow(0, pairs.start, pairs.len())?.sum_keepdim(0));
        Tensor::cat(&sums.collect::<Result<Vec<_>>>()?, 0)
    }

    /// `a`, `b`: [pairs, width] -> dot products, [pairs, 1], f32 on a GPU.
    pub fn dot(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        match self {
            Self::Listed(_) => (a * b)?.sum_keepdim(1),
            #[cfg(feature = "cuda")]
            Self::Sorted(_) => gpu::dot(a, b),
        }
    }

    /// GPU only: `x`: [pairs, inputs] times each pair's expert matrix, [outputs, inputs], or if
    /// transposed [inputs, outputs] -> [pairs, outputs].
    pub fn product(
        &self,
        x: &Tensor,
        matrices: StackedMatrices<'_>,
        is_transposed: bool,
        bias: Option<ExpertBias<'_>>,
    ) -> Result<Tensor> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Sorted(pairs) => pairs.product(x, (matrices, is_transposed), bias, None),
            Self::Listed(_) => {
                bail!(
                    "stacked experts of {matrices:?} {is_transposed} {bias:?} for {:?}",
                    x.device()
                )
            }
        }
    }

    /// As [`Routing::product`], added to `sum`: [pairs, outputs].
    pub fn add_product(
        &self,
        sum: &Tensor,
        x: &Tensor,
        matrices: &Tensor,
        is_transposed: bool,
    ) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Sorted(pairs) => pairs
                .product(
                    x,
                    (StackedMatrices::Numbers(matrices), is_transposed),
                    None,
                    Some(sum),
                )
                .map(drop),
            Self::Listed(_) => {
                bail!("{matrices:?} {is_transposed} added to {sum:?} {x:?}")
            }
        }
    }

    /// GPU only: gradient of low-rank matrices. Adds to `sum`, f32, per expert `scale` times the
    /// outer products of its pairs' `wide`: [pairs, width] and `narrow`: [pairs, rank].
    pub fn add_outer(
        &self,
        (wide, narrow): (&Tensor, &Tensor),
        sum: &Tensor,
        layout: LowRankLayout,
        scale: f64,
    ) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Sorted(pairs) => pairs.add_outer((wide, narrow), sum, layout, scale),
            Self::Listed(_) => bail!("{wide:?} {narrow:?} {layout:?} {scale} to {sum:?}"),
        }
    }

    /// Row of each pair, if only a GPU knows it.
    pub fn rows_of_pairs(&self) -> Option<&Tensor> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Sorted(pairs) => Some(&pairs.rows),
            Self::Listed(_) => None,
        }
    }

    /// # Errors
    /// Pairs unknown to the host.
    pub fn listed(&self) -> Result<&ListedPairs> {
        match self {
            Self::Listed(pairs) => Ok(pairs),
            #[cfg(feature = "cuda")]
            Self::Sorted(_) => bail!("pairs on a GPU for matrices on the CPU"),
        }
    }
}

impl ListedPairs {
    /// Sum over rows of the entropy over all experts, nats.
    pub fn entropy(&self) -> Result<f64> {
        by_number_type!(self.probabilities, entropy(&self.probabilities))
    }
}

/// `logits`: [rows, experts]. Ties select the first expert. Weights come from the probabilities of
/// `logits`, also for replayed experts.
pub fn route(logits: &Tensor, router: Router, selection: Selection<'_>) -> Result<Routing> {
    let ((rows, count), active) = (logits.dims2()?, router.active);
    if active == 0 || active > count {
        bail!("{active} of {count} experts")
    }
    if let Selection::Recorded(experts) | Selection::Replayed(experts) = selection
        && (experts.dims2()? != (rows, active) || experts.dtype() != DType::U32)
    {
        bail!("{experts:?} for {active} experts of {rows} rows")
    }
    on_gpu!(logits => gpu::route(logits, router, selection).map(Routing::Sorted));
    by_number_type!(logits, forward(logits, router, selection)).map(Routing::Listed)
}

/// `products`: [pairs, 1], each weight times its gradient -> gradient of the logits, [rows,
/// experts], in `dtype`.
pub fn route_backward(
    products: &Tensor,
    routing: &Routing,
    router: Router,
    dtype: DType,
) -> Result<Tensor> {
    match routing {
        Routing::Listed(pairs) => {
            by_number_type!(products, backward(products, pairs, router))?.to_dtype(dtype)
        }
        #[cfg(feature = "cuda")]
        Routing::Sorted(pairs) => pairs.backward(products, router, dtype),
    }
}

fn forward<T: Real>(
    logits: &Tensor,
    router: Router,
    selection: Selection<'_>,
) -> Result<ListedPairs> {
    let ((rows, count), active) = (logits.dims2()?, router.active);
    let mut selected = match selection {
        Selection::Replayed(experts) => experts.flatten_all()?.to_vec1::<u32>()?,
        _ => vec![NOT_RECORDED; rows * active],
    };
    numbers!(T: numbers = logits);
    let mut probabilities = numbers.to_vec();
    let mut pairs: Vec<Vec<(u32, T)>> = vec![Vec::new(); count];
    let mut order: Vec<u32> = (0..count as u32).collect();
    let rows_selected = probabilities
        .chunks_exact_mut(count)
        .zip(selected.chunks_exact_mut(active));
    for (row, (own, selected)) in rows_selected.enumerate() {
        softmax(own);
        let probability = |expert: u32| own[expert as usize].double();
        let by_probability =
            |a: &u32, b: &u32| probability(*b).total_cmp(&probability(*a)).then(a.cmp(b));
        if selected[0] == NOT_RECORDED {
            order.sort_unstable_by(by_probability);
            selected.copy_from_slice(&order[..active]);
        } else {
            // Sort, so that equal selections have equal sums.
            selected.sort_unstable_by(by_probability);
        }
        let sum: T = selected.iter().map(|&expert| own[expert as usize]).sum();
        let divisor = if router.is_renormalised {
            sum
        } else {
            T::one()
        };
        for &expert in &*selected {
            pairs[expert as usize].push((row as u32, own[expert as usize] / divisor));
        }
    }
    if let Selection::Recorded(experts) = selection {
        experts.slice_set(
            &Tensor::from_vec(selected, (rows, active), logits.device())?,
            0,
            0,
        )?;
    }
    let mut end = 0;
    let range = |own: &Vec<_>| {
        let start = end;
        end += own.len();
        start..end
    };
    let ranges = pairs.iter().map(range).collect();
    let (rows_of_pairs, weights): (Vec<u32>, Vec<T>) = pairs.into_iter().flatten().unzip();
    Ok(ListedPairs {
        weights: Tensor::from_vec(weights, (rows_of_pairs.len(), 1), logits.device())?,
        rows: rows_of_pairs,
        ranges,
        probabilities: Tensor::from_vec(probabilities, (rows, count), logits.device())?,
    })
}

fn entropy<T: Real>(probabilities: &Tensor) -> Result<f64> {
    numbers!(T: numbers = probabilities);
    let terms = numbers
        .iter()
        .map(|probability| probability.double())
        .filter(|&p| p > 0.0);
    Ok(terms.map(|p| -p * p.ln()).sum())
}

fn softmax<T: Real>(row: &mut [T]) {
    vectorised!(|| {
        let most = row.iter().fold(T::neg_infinity(), |most, &logit| {
            num_traits::Float::max(most, logit)
        });
        row.iter_mut()
            .for_each(|logit| *logit = (*logit - most).exponential());
        let sum: T = row.iter().copied().sum();
        row.iter_mut().for_each(|probability| *probability /= sum);
    });
}

/// Gradient of a logit: its product minus weight times the row's sum of products; without
/// renormalisation also for unselected experts, by probability.
fn backward<T: Real>(products: &Tensor, routing: &ListedPairs, router: Router) -> Result<Tensor> {
    let (rows, count) = routing.probabilities.dims2()?;
    numbers!(T: products = products, weights = &routing.weights, probabilities = &routing.probabilities);
    let mut gradient = vec![T::zero(); rows * count];
    let mut sums = vec![T::zero(); rows];
    let pairs = routing.ranges.iter().enumerate();
    let pairs = || {
        pairs
            .clone()
            .flat_map(|(expert, range)| range.clone().map(move |pair| (expert, pair)))
    };
    for (expert, pair) in pairs() {
        let row = routing.rows[pair] as usize;
        gradient[row * count + expert] += products[pair];
        sums[row] += products[pair];
    }
    if router.is_renormalised {
        for (expert, pair) in pairs() {
            let row = routing.rows[pair] as usize;
            gradient[row * count + expert] -= weights[pair] * sums[row];
        }
    } else {
        let rows = gradient
            .chunks_exact_mut(count)
            .zip(probabilities.chunks_exact(count));
        for ((own, probabilities), &sum) in rows.zip(&sums) {
            own.iter_mut()
                .zip(probabilities)
                .for_each(|(gradient, &probability)| *gradient -= probability * sum);
        }
    }
    Tensor::from_vec(gradient, (rows, count), routing.probabilities.device())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rows_go_to_their_most_probable_experts() {
        // Probabilities 1/8, 1/2, 1/4, 1/8; and four equal ones.
        let logits = Tensor::new(
            &[[0.0, 4_f64.ln(), 2_f64.ln(), 0.0], [0.0; 4]],
            &Device::Cpu,
        )
        .unwrap();
        let routed = |active: usize, is_renormalised: bool| {
            let routing = route(
                &logits,
                Router {
                    active,
                    is_renormalised,
                },
                Selection::Free,
            )
            .unwrap();
            let routing = routing.listed().unwrap().clone();
            let weights = routing
                .weights
                .flatten_all()
                .unwrap()
                .to_vec1::<f64>()
                .unwrap();
            (
                routing.rows,
                routing.ranges,
                weights
                    .iter()
                    .map(|weight| (weight * 24.0).round())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            routed(1, false),
            (vec![1, 0], vec![0..1, 1..2, 2..2, 2..2], vec![6.0, 12.0])
        );
        let two = (vec![1, 0, 1, 0], vec![0..1, 1..3, 3..4, 4..4]);
        assert_eq!(
            routed(2, false),
            (two.0.clone(), two.1.clone(), vec![6.0, 12.0, 6.0, 6.0])
        );
        assert_eq!(routed(2, true), (two.0, two.1, vec![12.0, 16.0, 12.0, 8.0]));
        let two = Router {
            active: 2,
            is_renormalised: true,
        };
        let recorded = Tensor::zeros((2, 2), DType::U32, &Device::Cpu).unwrap();
        let routing = route(&logits, two, Selection::Recorded(&recorded)).unwrap();
        assert_eq!(recorded.to_vec2::<u32>().unwrap(), [[1, 2], [0, 1]]);
        // 7/4 and 2 bits.
        let entropy = routing.listed().unwrap().entropy().unwrap();
        assert!((entropy - 3.75 * 2_f64.ln()).abs() < 1e-12, "{entropy}");
        for active in [5, 0] {
            assert!(
                route(
                    &logits,
                    Router {
                        active,
                        is_renormalised: true
                    },
                    Selection::Free
                )
                .is_err(),
                "{active}"
            );
        }
        let error = route(
            &logits,
            Router { active: 1, ..two },
            Selection::Recorded(&recorded),
        )
        .unwrap_err();
        assert!(
            error.to_string().contains(" for 1 experts of 2 rows"),
            "{error}"
        );
    }

    #[test]
    fn replayed_rows_go_to_recorded_experts_with_new_weights() {
        let logits = Tensor::new(
            &[[0.0, 4_f64.ln(), 2_f64.ln(), 0.0], [0.0; 4]],
            &Device::Cpu,
        )
        .unwrap();
        // (recorded, renormalised) -> (rows of pairs, ranges of experts, 24 times the weights).
        let check = |recorded: [[u32; 2]; 2],
                     is_renormalised,
                     expected: (&[u32], [Range<usize>; 4], &[f64])| {
            let recorded = Tensor::new(&recorded, &Device::Cpu).unwrap();
            let router = Router {
                active: 2,
                is_renormalised,
            };
            let routing = route(&logits, router, Selection::Replayed(&recorded)).unwrap();
            let pairs = routing.listed().unwrap();
            let weights = pairs
                .weights
                .flatten_all()
                .unwrap()
                .to_vec1::<f64>()
                .unwrap();
            let weights: Vec<f64> = weights
                .iter()
                .map(|weight| (weight * 24.0).round())
                .collect();
            assert_eq!(
                (&*pairs.rows, &*pairs.ranges, &*weights),
                (expected.0, expected.1.as_slice(), expected.2)
            );
        };
        let none = NOT_RECORDED;
        check(
            [[3, 1], [2, 3]],
            true,
            (
                &[0, 1, 0, 1],
                [0..0, 0..1, 1..2, 2..4],
                &[19.0, 12.0, 5.0, 12.0],
            ),
        );
        check(
            [[0, 3], [none, none]],
            false,
            (
                &[0, 1, 1, 0],
                [0..2, 2..3, 3..3, 3..4],
                &[3.0, 6.0, 6.0, 3.0],
            ),
        );
        check(
            [[none, none], [3, 0]],
            true,
            (
                &[1, 0, 0, 1],
                [0..1, 1..2, 2..3, 3..4],
                &[12.0, 16.0, 8.0, 12.0],
            ),
        );
    }
}
