//! Writes sharded parameters and moments to a checkpoint: rank 0 requests them piece by piece. Peak
//! memory: two pieces.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::trainer::{Trainer, tensor_error};
use crate::checkpoint::{CheckpointError, ElementSource, STAGE_BYTES, StreamedTensor, WriteChunk};
use crate::files::failpoint;
use crate::kernels::pinned_memory::copy_to_host;
use crate::model::ShardPiece;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Sharded {
    Parameters,
    Moments,
}

/// Rank 0's request for a piece.
#[derive(Debug, Serialize, Deserialize)]
struct PieceRequest {
    of: Sharded,
    range: Range<usize>,
}

/// All parameters and moments of a run, on rank 0.
pub(super) fn parameters_and_moments(trainer: &Trainer) -> [Box<dyn ElementSource + '_>; 2] {
    [Sharded::Parameters, Sharded::Moments].map(|of| -> Box<dyn ElementSource + '_> {
        match is_whole(trainer) {
            true => Box::new(StreamedTensor::new(tensor(trainer, of))),
            false => Box::new(OfAllRanks { trainer, of }),
        }
    })
}

/// Sends rank 0 the requested pieces until it has all.
pub(super) fn serve_pieces(trainer: &Trainer) -> std::result::Result<(), TrainError> {
    if is_whole(trainer) {
        return Ok(());
    }
    while let Some(PieceRequest { of, range }) = trainer.ranks.receive::<Option<PieceRequest>>()? {
        failpoint("checkpoint.numbers", &trainer.ranks.rank().to_string());
        trainer.ranks.send_bytes(&bytes(trainer, of, range)?)?;
    }
    Ok(())
}

/// Ends [`serve_pieces`] on the other ranks, as rank 0.
pub(super) fn stop_serving(trainer: &Trainer) -> std::result::Result<(), TrainError> {
    if !is_whole(trainer) {
        (1..trainer.ranks.size())
            .try_for_each(|rank| trainer.ranks.send_to(rank, &None::<PieceRequest>))?;
    }
    Ok(())
}

fn is_whole(trainer: &Trainer) -> bool {
    trainer.policy.model.parameters().shard().is_whole()
}

/// The range as f32 bytes.
fn bytes(trainer: &Trainer, of: Sharded, range: Range<usize>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; range.len() * DType::F32.size_in_bytes()];
    copy_to_host(
        &tensor(trainer, of).narrow(0, range.start, range.len())?,
        &mut bytes,
    )?;
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
    fn ask(&self, piece: Option<&ShardPiece>) -> Result<()> {
        let Some(ShardPiece {
            rank: rank @ 1..,
            range,
        }) = piece
        else {
            return Ok(());
        };
        let request = PieceRequest {
            of: self.of,
            range: range.clone(),
        };
        self.trainer
            .ranks
            .send_to(*rank, &Some(request))
            .map_err(tensor_error)
    }

    fn answer(&self, ShardPiece { rank, range }: &ShardPiece) -> Result<Vec<u8>> {
        match rank {
            0 => bytes(self.trainer, self.of, range.clone()),
            rank => self
                .trainer
                .ranks
                .receive_bytes_of(*rank)
                .map_err(tensor_error),
        }
    }
}

impl ElementSource for OfAllRanks<'_> {
    fn write_range(
        &mut self,
        range: Range<usize>,
        write: &mut WriteChunk<'_>,
    ) -> std::result::Result<(), CheckpointError> {
        let parameters = self.trainer.policy.model.parameters();
        let most = STAGE_BYTES / DType::F32.size_in_bytes();
        let pieces = parameters.shard().pieces(parameters.count(), range, most);
        // Fetch the next piece while this one is written.
        self.ask(pieces.first())?;
        for (index, piece) in pieces.iter().enumerate() {
            let next = pieces.get(index + 1);
            self.ask(next)?;
            if let Err(error) = write(&self.answer(piece)?) {
                // What was requested arrives in any case.
                next.map_or(Ok(Vec::new()), |next| self.answer(next))?;
                return Err(error);
            }
        }
        Ok(())
    }
}
