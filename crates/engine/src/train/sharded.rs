//! Parameters and moments that the ranks divide, for a checkpoint, which has all of them: rank 0 asks the others piece by
//! piece as it writes. Peak memory: two pieces.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::trainer::{Trainer, tensor_error};
use crate::checkpoint::{CheckpointError, Numbers, STAGE_BYTES, StreamedTensor, WriteChunk};
use crate::files::failpoint;
use crate::kernels::pinned_memory::copy_to_host;
use crate::ranks::RankError;

/// What ranks may divide.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Sharded {
    Parameters,
    Moments,
}

/// A part of what a rank has.
#[derive(Debug, Serialize, Deserialize)]
struct Piece {
    of: Sharded,
    range: Range<usize>,
}

/// All parameters and all moments of a run, on rank 0.
pub(super) fn all_numbers(trainer: &Trainer) -> [Box<dyn Numbers + '_>; 2] {
    [Sharded::Parameters, Sharded::Moments].map(|of| -> Box<dyn Numbers + '_> {
        match is_whole(trainer) {
            true => Box::new(StreamedTensor::new(tensor(trainer, of))),
            false => Box::new(OfAllRanks { trainer, of }),
        }
    })
}

/// Sends rank 0 the pieces that it asks for, as another rank, until it has all.
pub(super) fn serve_pieces(trainer: &Trainer) -> std::result::Result<(), TrainError> {
    if is_whole(trainer) {
        return Ok(());
    }
    while let Some(Piece { of, range }) = trainer.ranks.receive::<Option<Piece>>()? {
        failpoint("checkpoint.numbers", &trainer.ranks.rank().to_string());
        trainer.ranks.send_bytes(&bytes(trainer, of, range)?)?;
    }
    Ok(())
}

/// Tells the other ranks, as rank 0, that it has all pieces.
pub(super) fn stop_serving(trainer: &Trainer) -> std::result::Result<(), TrainError> {
    if !is_whole(trainer) {
        (1..trainer.ranks.size()).try_for_each(|rank| trainer.ranks.send_to(rank, &None::<Piece>))?;
    }
    Ok(())
}

fn is_whole(trainer: &Trainer) -> bool {
    trainer.policy.model.parameters().shard().is_whole()
}

/// As f32.
fn bytes(trainer: &Trainer, of: Sharded, range: Range<usize>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; range.len() * DType::F32.size_in_bytes()];
    copy_to_host(&tensor(trainer, of).narrow(0, range.start, range.len())?, &mut bytes)?;
    Ok(bytes)
}

fn tensor(trainer: &Trainer, of: Sharded) -> &Tensor {
    match of {
        Sharded::Parameters => trainer.policy.model.parameters().flat(),
        Sharded::Moments => trainer.optimizer.moments(),
    }
}

struct OfAllRanks<'a> {
    trainer: &'a Trainer,
    of: Sharded,
}

impl OfAllRanks<'_> {
    fn ask(&self, (rank, range): &(usize, Range<usize>)) -> std::result::Result<(), RankError> {
        let piece = Piece { of: self.of, range: range.clone() };
        if *rank == 0 { Ok(()) } else { self.trainer.ranks.send_to(*rank, &Some(piece)) }
    }

    fn answer(&self, (rank, range): &(usize, Range<usize>)) -> std::result::Result<Vec<u8>, CheckpointError> {
        match rank {
            0 => Ok(bytes(self.trainer, self.of, range.clone())?),
            rank => Ok(self.trainer.ranks.receive_bytes_of(*rank).map_err(tensor_error)?),
        }
    }
}

impl Numbers for OfAllRanks<'_> {
    fn give(&mut self, range: Range<usize>, take: &mut WriteChunk<'_>) -> std::result::Result<(), CheckpointError> {
        let parameters = self.trainer.policy.model.parameters();
        let most = STAGE_BYTES / DType::F32.size_in_bytes();
        let pieces = parameters.shard().pieces(parameters.count(), range, most);
        // The next piece comes while this one is written.
        pieces.first().map_or(Ok(()), |first| self.ask(first)).map_err(tensor_error)?;
        for (index, piece) in pieces.iter().enumerate() {
            let next = pieces.get(index + 1);
            next.map_or(Ok(()), |next| self.ask(next)).map_err(tensor_error)?;
            if let Err(error) = take(&self.answer(piece)?) {
                // What was asked for arrives in any case.
                next.map_or(Ok(Vec::new()), |next| self.answer(next))?;
                return Err(error);
            }
        }
        Ok(())
    }
}
