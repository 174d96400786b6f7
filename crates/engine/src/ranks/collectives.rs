//! Collectives over ranks: on GPUs by NCCL, otherwise by rank 0, which adds in rank order.

use std::time::Instant;

use candle_core::{DType, Tensor};

use super::link::Link;
use super::{RankError, Ranks};
use crate::kernels::nccl::Communicator;
use crate::kernels::pinned_memory::copy_to_host;

impl Ranks {
    /// All-reduce of a contiguous f32 tensor; in place on a GPU.
    ///
    /// # Errors
    /// [`RankError::Lost`], [`RankError::Failed`] and [`RankError::Cancelled`]; tensors of
    /// different sizes, and NCCL's errors.
    pub fn all_reduce(&self, own: &Tensor) -> Result<Tensor, RankError> {
        if self.size == 1 {
            return Ok(own.clone());
        }
        if let Some(summed) = self.on_gpus(|communicator, goes_on| communicator.sum(own, goes_on)) {
            return summed;
        }
        if self.rank > 0 {
            return self.by_rank_0(own);
        }
        let sum = self.added(own)?;
        self.links
            .iter()
            .try_for_each(|link| link.send_bytes(&sum))?;
        tensor_of(&sum, own)
    }

    /// This rank's part of the sum, of equal ones. `own`, `[n]`, is used as scratch memory.
    pub fn reduce_scatter(&self, own: &Tensor) -> Result<Tensor, RankError> {
        if self.size == 1 {
            return Ok(own.clone());
        }
        if let Some(part) =
            self.on_gpus(|communicator, goes_on| communicator.reduce_scatter(own, goes_on))
        {
            return part;
        }
        if self.rank > 0 {
            return self.by_rank_0(own);
        }
        let sum = self.added(own)?;
        let bytes = sum.len() / self.size;
        let part = |rank: usize| &sum[rank * bytes..(rank + 1) * bytes];
        (1..)
            .zip(&self.links)
            .try_for_each(|(rank, link)| link.send_bytes(part(rank)))?;
        tensor_of(part(0), own)
    }

    /// Distributes each rank's part to all, in place. `all`: `[n]`, f32, or on a GPU bf16.
    pub fn all_gather(&self, all: &Tensor) -> Result<(), RankError> {
        if self.size == 1 {
            return Ok(());
        }
        if let Some(gathered) =
            self.on_gpus(|communicator, goes_on| communicator.all_gather(all, goes_on))
        {
            return gathered.map(drop);
        }
        let part = all.elem_count() / self.size;
        let own = all.narrow(0, self.rank * part, part)?;
        let whole = if self.rank > 0 {
            self.by_rank_0(&own)?
        } else {
            let mut whole = bytes_of(&own)?;
            let bytes = whole.len();
            for link in &self.links {
                whole.extend(self.bytes_from(link, bytes)?);
            }
            self.links
                .iter()
                .try_for_each(|link| link.send_bytes(&whole))?;
            tensor_of(&whole, all)?
        };
        Ok(all.slice_set(&whole, 0, 0)?)
    }

    /// Runs an NCCL call; `None` if the ranks have no GPUs.
    fn on_gpus(
        &self,
        call: impl FnOnce(&Communicator, &dyn Fn() -> bool) -> candle_core::Result<Tensor>,
    ) -> Option<Result<Tensor, RankError>> {
        let communicator = self.communicator.get()?;
        let found = self.waited(
            Instant::now(),
            call(communicator, &|| self.keep_waiting().is_ok()),
        );
        Some(found.map_err(|error| self.explained(error)))
    }

    /// `expected` bytes from another rank.
    fn bytes_from(&self, link: &Link, expected: usize) -> Result<Vec<u8>, RankError> {
        let found = self.bytes(link)?;
        if found.len() == expected {
            return Ok(found);
        }
        let message = format!(
            "its part has {} bytes, that of rank 0 {expected}",
            found.len()
        );
        Err(RankError::Failed {
            peer: link.peer().to_owned(),
            message,
        })
    }

    /// Rank 0's own data plus what it receives, added in rank order.
    fn added(&self, own: &Tensor) -> Result<Vec<u8>, RankError> {
        let mut sum = bytes_of(own)?;
        for link in &self.links {
            let more = self.bytes_from(link, sum.len())?;
            for (sum, more) in sum
                .as_chunks_mut::<4>()
                .0
                .iter_mut()
                .zip(more.as_chunks::<4>().0)
            {
                *sum = (f32::from_le_bytes(*sum) + f32::from_le_bytes(*more)).to_le_bytes();
            }
        }
        Ok(sum)
    }

    /// Rank 0's result from all ranks' data.
    fn by_rank_0(&self, own: &Tensor) -> Result<Tensor, RankError> {
        self.send_bytes(&bytes_of(own)?)?;
        tensor_of(&self.bytes(&self.links[0])?, own)
    }
}

/// Bytes of an f32 tensor.
fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, RankError> {
    let mut bytes = vec![0; tensor.elem_count() * DType::F32.size_in_bytes()];
    copy_to_host(tensor, &mut bytes)?;
    Ok(bytes)
}

/// A tensor of `bytes`, on the device of `beside`.
fn tensor_of(bytes: &[u8], beside: &Tensor) -> Result<Tensor, RankError> {
    let count = bytes.len() / DType::F32.size_in_bytes();
    Ok(Tensor::from_raw_buffer(
        bytes,
        DType::F32,
        &[count],
        beside.device(),
    )?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    use candle_core::Device;

    use super::super::rendezvous::gather;
    use super::*;

    /// Results of three ranks, here threads. `first_stays`: rank 0 ends last.
    fn of_three<T: Send>(first_stays: bool, work: impl Fn(&Ranks) -> T + Sync) -> Vec<T> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let met = |mut ranks: Ranks| {
            assert!(ranks.rendezvous().unwrap() >= 1);
            let found = work(&ranks);
            (found, ranks)
        };
        std::thread::scope(|scope| {
            let others = [1, 2].map(|rank| {
                let (address, met) = (&address, &met);
                scope.spawn(move || {
                    met(Ranks::connect(address, rank, "secret".to_owned(), "").unwrap()).0
                })
            });
            let peers = gather(&listener, 3, "secret", Duration::from_secs(20), "", || {
                Ok(())
            })
            .unwrap();
            let (first, ranks) = met(Ranks::first(peers, "").unwrap());
            let _ranks = first_stays.then_some(ranks);
            std::iter::once(first)
                .chain(others.map(|other| other.join().unwrap()))
                .collect()
        })
    }

    /// Six numbers whose sums depend on rank order.
    fn own(rank: usize) -> Tensor {
        let numbers = (0..6)
            .map(|at| [1.0_f32, 1e8, -1e8][rank] + at as f32)
            .collect::<Vec<_>>();
        Tensor::from_vec(numbers, 6, &Device::Cpu).unwrap()
    }

    fn together(ranks: &Ranks) -> [Vec<f32>; 4] {
        let (rank, size) = (ranks.rank(), ranks.size());
        let all = Tensor::zeros(6, DType::F32, &Device::Cpu).unwrap();
        let mine = Tensor::full(rank as f32 + 0.5, 2, &Device::Cpu).unwrap();
        all.slice_set(&mine, 0, 2 * rank).unwrap();
        let summed = ranks.all_reduce(&own(rank)).unwrap();
        let part = ranks.reduce_scatter(&own(rank)).unwrap();
        ranks.all_gather(&all).unwrap();
        let count = ranks.sum(rank as f64).unwrap() as f32 + size as f32;
        [
            summed,
            part,
            all,
            Tensor::new(&[count], &Device::Cpu).unwrap(),
        ]
        .map(|found| found.to_vec1().unwrap())
    }

    #[test]
    fn ranks_sum_in_their_order_and_gather_their_parts() {
        let sum: Vec<f32> = (0..6)
            .map(|at| at as f32)
            .map(|at| (1.0 + at) + (1e8 + at) + (-1e8 + at))
            .collect();
        assert!(
            sum.iter()
                .zip(0..)
                .any(|(sum, at)| *sum != (1 + 3 * at) as f32),
            "another order would give the same"
        );
        for (rank, found) in of_three(true, together).into_iter().enumerate() {
            let part = sum[2 * rank..2 * rank + 2].to_vec();
            assert_eq!(
                found,
                [
                    sum.clone(),
                    part,
                    vec![0.5, 0.5, 1.5, 1.5, 2.5, 2.5],
                    vec![6.0]
                ],
                "rank {rank}"
            );
        }
    }

    #[test]
    fn ranks_exchange_what_they_have() {
        let found = of_three(true, |ranks| {
            let own = format!("of {}", ranks.rank());
            let all = ranks.exchange(own.clone()).unwrap();
            let first = ranks.broadcast((own.clone(), f64::NAN)).unwrap();
            let gathered = ranks.gather(ranks.share(10)).unwrap();
            (
                all,
                first.0,
                first.1.is_nan(),
                ranks.any(ranks.rank() == 2).unwrap(),
                gathered,
            )
        });
        for (rank, (all, first, is_nan, any, gathered)) in found.into_iter().enumerate() {
            assert_eq!(
                (all, first.as_str(), is_nan, any),
                (
                    vec!["of 0".to_owned(), "of 1".to_owned(), "of 2".to_owned()],
                    "of 0",
                    true,
                    true
                )
            );
            assert_eq!(
                gathered,
                if rank == 0 {
                    vec![0..3, 3..6, 6..10]
                } else {
                    Vec::new()
                }
            );
        }
    }

    #[test]
    fn a_rank_with_another_size_is_named() {
        let found = of_three(false, |ranks| match ranks.rank() {
            0 => ranks.reduce_scatter(&own(0)).unwrap_err().to_string(),
            rank => match ranks.reduce_scatter(&own(rank).narrow(0, 0, 3).unwrap()) {
                Err(RankError::Lost { .. }) => String::new(),
                found => format!("{found:?}"),
            },
        });
        assert!(
            found[0].starts_with("rank 1 (pid ")
                && found[0].ends_with("has 12 bytes, that of rank 0 24"),
            "{found:?}"
        );
        assert_eq!(found[1..], ["", ""]);
    }
}
