//! A CUDA graph: recorded work, launched again at the cost of one call. Inputs may change between
//! launches, their addresses may not.

use candle_core::cuda_backend::cudarc::driver::{CudaGraph, sys};
use candle_core::{Device, Result, bail};

use super::chunks::Chunks;
use super::cuda::failed;

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
