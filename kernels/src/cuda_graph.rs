//! A CUDA graph: recorded work, launched again at the cost of one call. Inputs may change between
//! launches, their addresses may not.

use std::cell::RefCell;

use candle_core::cuda_backend::cudarc::driver::{CudaGraph, sys};
use candle_core::{CudaDevice, DType, Device, Result, Tensor, bail};

use super::cuda::{allocate, failed};

/// A recorded CUDA graph.
pub struct Graph {
    graph: CudaGraph,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Graph").finish_non_exhaustive()
    }
}

// SAFETY: a graph belongs to no thread; `start` takes it into the thread's context, and nothing starts it twice at once,
// since it is not `Sync`.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` would launch; nothing runs yet. `work` must not synchronise or copy to
    /// or from the GPU, and its kernels must have run before (modules load on first use). Results of
    /// kernels are parts of allocations of `chunk` numbers; 0: each has its own.
    ///
    /// # Errors
    /// Those of `work`, and what CUDA refuses to record.
    pub fn record(
        device: &Device,
        chunk: usize,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let Device::Cuda(cuda) = device else {
            bail!("only a GPU records work")
        };
        let stream = cuda.cuda_stream();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream
            .begin_capture(mode)
            .map_err(|error| failed("recording", error))?;
        let result = {
            let _chunks = Chunks::start(chunk);
            work()
        };
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        // End the capture even after a failure: otherwise the stream rejects everything that
        // follows.
        let recorded = stream.end_capture(flags);
        result?;
        match recorded.map_err(|error| failed("recording", error))? {
            Some(graph) => Ok(Self { graph }),
            None => bail!("recording gave no graph"),
        }
    }

    /// Launches the graph.
    pub fn start(&self) -> Result<()> {
        self.graph
            .launch()
            .map_err(|error| failed("recorded work", error))
    }
}

/// Allocations of a recording. An allocation between two kernels is a node of the graph, after which
/// the second cannot start early.
struct Chunks {
    numbers: usize,
    /// The newest of each dtype, and how many of its numbers are taken.
    newest: Vec<(Tensor, usize)>,
}

/// Ends a thread's use of chunks, also after a panic.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        CHUNKS.set(None);
    }
}

impl Chunks {
    fn start(numbers: usize) -> End {
        CHUNKS.set((numbers > 0).then(|| Self {
            numbers,
            newest: Vec::new(),
        }));
        End
    }
}

thread_local! {
    static CHUNKS: RefCell<Option<Chunks>> = const { RefCell::new(None) };
}

/// Alignment in a chunk, in numbers.
const ALIGNMENT: usize = 256;

/// While this thread records in chunks, an uninitialised part of one, if one has room.
pub(super) fn part_of_chunk(
    count: usize,
    dtype: DType,
    device: &CudaDevice,
) -> Result<Option<Tensor>> {
    CHUNKS.with_borrow_mut(|chunks| {
        let Some(chunks) = chunks
            .as_mut()
            .filter(|chunks| (1..=chunks.numbers).contains(&count))
        else {
            return Ok(None);
        };
        let on_device =
            |chunk: &Tensor| matches!(chunk.device(), Device::Cuda(own) if own.id() == device.id());
        let of_dtype = |(chunk, _): &(Tensor, usize)| chunk.dtype() == dtype && on_device(chunk);
        let fits = |&(_, taken): &(Tensor, usize)| taken + count <= chunks.numbers;
        let place = chunks.newest.iter().position(of_dtype);
        let place = match place.filter(|&place| fits(&chunks.newest[place])) {
            Some(place) => place,
            None => {
                place.map(|place| chunks.newest.swap_remove(place));
                let chunk = allocate(chunks.numbers.into(), dtype, device)?;
                chunks.newest.push((chunk, 0));
                chunks.newest.len() - 1
            }
        };
        let (chunk, taken) = &mut chunks.newest[place];
        let part = chunk.narrow(0, *taken, count)?;
        *taken = (*taken + count).next_multiple_of(ALIGNMENT);
        Ok(Some(part))
    })
}
