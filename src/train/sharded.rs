//! Numbers that the ranks divide: each moves its own, and a checkpoint has all. Rank 0 asks for them piece by piece as it
//! writes, so no memory holds more of them than two pieces.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::job::Job;
use super::ranked::{Command, ShardedTensor, tensor_error};
use crate::checkpoint::{CheckpointError, Numbers, STAGE_BYTES, StreamedTensor, WriteChunk};
use crate::kernels::pinned_memory::copy_to_host;
use crate::ranks::RankError;

/// All parameters and all moments of a run.
pub(super) fn all_numbers(job: &Job) -> [Box<dyn Numbers + '_>; 2] {
    [ShardedTensor::Parameters, ShardedTensor::Moments].map(|which| -> Box<dyn Numbers + '_> {
        match job.model.parameters().shard().is_whole() {
            true => Box::new(StreamedTensor::new(own(job, which))),
            false => Box::new(OfAllRanks { job, which }),
        }
    })
}

/// A piece of what this rank has, as f32.
pub(super) fn own_bytes(job: &Job, which: ShardedTensor, range: Range<usize>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; range.len() * DType::F32.size_in_bytes()];
    copy_to_host(&own(job, which).narrow(0, range.start, range.len())?, &mut bytes)?;
    Ok(bytes)
}

fn own(job: &Job, which: ShardedTensor) -> &Tensor {
    match which {
        ShardedTensor::Parameters => job.model.parameters().flat(),
        ShardedTensor::Moments => job.optimizer.moments(),
    }
}

struct OfAllRanks<'a> {
    job: &'a Job,
    which: ShardedTensor,
}

impl OfAllRanks<'_> {
    fn ask(&self, (rank, range): &(usize, Range<usize>)) -> std::result::Result<(), RankError> {
        let (which, range) = (self.which, range.clone());
        if *rank == 0 { Ok(()) } else { self.job.ranks.send_to(*rank, &Command::Numbers { which, range }) }
    }

    fn answer(&self, (rank, range): &(usize, Range<usize>)) -> std::result::Result<Vec<u8>, CheckpointError> {
        match rank {
            0 => Ok(own_bytes(self.job, self.which, range.clone())?),
            rank => Ok(self.job.ranks.receive_bytes_of(*rank).map_err(tensor_error)?),
        }
    }
}

impl Numbers for OfAllRanks<'_> {
    fn give(&mut self, range: Range<usize>, take: &mut WriteChunk<'_>) -> std::result::Result<(), CheckpointError> {
        let parameters = self.job.model.parameters();
        let most = STAGE_BYTES / DType::F32.size_in_bytes();
        let pieces = parameters.shard().pieces(parameters.count(), range, most);
        // The next piece comes while this one is written.
        pieces.first().map_or(Ok(()), |first| self.ask(first)).map_err(tensor_error)?;
        for (index, piece) in pieces.iter().enumerate() {
            let next = pieces.get(index + 1);
            next.map_or(Ok(()), |next| self.ask(next)).map_err(tensor_error)?;
            if let Err(error) = take(&self.answer(piece)?) {
                // What was asked for is taken in any case: the next command has other replies.
                next.map_or(Ok(Vec::new()), |next| self.answer(next))?;
                return Err(error);
            }
        }
        Ok(())
    }
}
