//! Allocations of recorded work, which kernels' results share: an allocation between two kernels is a
//! node of the graph, after which the second cannot start early.

use std::cell::RefCell;

use candle_core::{CudaDevice, DType, Device, Result, Tensor};

/// Those of this thread.
pub(super) struct Chunks {
    numbers: usize,
    /// The newest of each dtype, and how many of its numbers are taken.
    newest: Vec<(Tensor, usize)>,
}

/// Ends a thread's use of chunks, also after a panic.
pub(super) struct End;

impl Drop for End {
    fn drop(&mut self) {
        CHUNKS.set(None);
    }
}

impl Chunks {
    /// Until the result is dropped, results of this thread's kernels are parts of allocations of
    /// `numbers`; 0: each has its own.
    pub(super) fn start(numbers: usize) -> End {
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

/// While this thread records in chunks, an uninitialised part of one, if one has room. `allocate`:
/// memory for so many numbers.
pub(super) fn part_of_chunk(
    count: usize,
    dtype: DType,
    device: &CudaDevice,
    allocate: impl Fn(usize) -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    CHUNKS.with_borrow_mut(|chunks| {
        let Some(Chunks { numbers, newest }) = chunks
            .as_mut()
            .filter(|chunks| (1..=chunks.numbers).contains(&count))
        else {
            return Ok(None);
        };
        let on_device =
            |chunk: &Tensor| matches!(chunk.device(), Device::Cuda(own) if own.id() == device.id());
        let is_alike = |chunk: &Tensor| chunk.dtype() == dtype && on_device(chunk);
        let has_room =
            |(chunk, taken): &(Tensor, usize)| is_alike(chunk) && taken + count <= *numbers;
        if !newest.iter().any(has_room) {
            newest.retain(|(chunk, _)| !is_alike(chunk));
            newest.push((allocate(*numbers)?, 0));
        }
        let found = newest.iter_mut().find(|(chunk, _)| is_alike(chunk));
        found
            .map(|(chunk, taken)| {
                let part = chunk.narrow(0, *taken, count)?;
                *taken = (*taken + count).next_multiple_of(ALIGNMENT);
                Ok(part)
            })
            .transpose()
    })
}
