//! Sums and exchanges over two GPUs by NCCL, as two ranks take them, here as two threads.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};
use grpo_tui::kernels::device::Engine;
use grpo_tui::kernels::nccl::{Communicator, leave_multicast_off};

#[test]
#[ignore = "needs two GPUs"]
fn two_gpus_sum_and_who_waits_for_one_that_gave_up_ends() {
    assert!(Engine::gpus() > 1, "{} of 2 GPUs", Engine::gpus());
    // SAFETY: these tests run one at a time, and the harness waits meanwhile.
    unsafe { leave_multicast_off() };
    let id = Communicator::new_id().unwrap();
    // More than one of NCCL's buffers, and no multiple of anything.
    let numbers = |rank: u32| {
        (0..3_000_001)
            .map(|index| (index % 1000 + rank * 7) as f32)
            .collect::<Vec<f32>>()
    };
    let expected: Vec<f32> = numbers(0)
        .iter()
        .zip(&numbers(1))
        .map(|(a, b)| a + b)
        .collect();
    let (is_over, summed) = (AtomicBool::new(false), Barrier::new(2));
    std::thread::scope(|scope| {
        for rank in 0..2_u32 {
            let (id, expected, is_over, summed) = (&id, &expected, &is_over, &summed);
            scope.spawn(move || {
                let device = Engine::gpu(rank as usize).unwrap().device;
                let joined = Communicator::join(id, (rank as usize, 2), &device, &|| true).unwrap();
                for _ in 0..3 {
                    let tensor = Tensor::from_vec(numbers(rank), expected.len(), &device).unwrap();
                    joined.sum(&tensor, &|| true).unwrap();
                    assert!(tensor.to_vec1::<f32>().unwrap() == *expected, "rank {rank}");
                }
                // Each has its half of the sum, then both have both, in f32 and in bf16.
                let half = expected.len() / 2;
                for dtype in [DType::F32, DType::BF16] {
                    let tensor =
                        Tensor::from_vec(numbers(rank)[..2 * half].to_vec(), 2 * half, &device)
                            .unwrap();
                    let part = joined.reduce_scatter(&tensor, &|| true).unwrap();
                    let own = rank as usize * half;
                    assert!(
                        part.to_vec1::<f32>().unwrap() == expected[own..own + half],
                        "rank {rank}"
                    );
                    let all = Tensor::zeros(2 * half, dtype, &device).unwrap();
                    all.slice_set(&part.to_dtype(dtype).unwrap().copy().unwrap(), 0, own)
                        .unwrap();
                    joined.all_gather(&all, &|| true).unwrap();
                    let whole =
                        Tensor::from_vec(expected[..2 * half].to_vec(), 2 * half, &device).unwrap();
                    let [all, whole] = [all, whole.to_dtype(dtype).unwrap()].map(|tensor| {
                        tensor
                            .to_dtype(DType::F32)
                            .unwrap()
                            .to_vec1::<f32>()
                            .unwrap()
                    });
                    assert!(all == whole, "rank {rank}, {dtype:?}");
                }
                assert!(
                    joined
                        .reduce_scatter(&Tensor::zeros(3, DType::F32, &device).unwrap(), &|| true)
                        .is_err()
                );
                summed.wait();
                if rank == 1 {
                    // It never comes to the next sum.
                    std::thread::sleep(Duration::from_secs(1));
                    is_over.store(true, Ordering::Relaxed);
                    return;
                }
                let tensor = Tensor::from_vec(numbers(rank), expected.len(), &device).unwrap();
                let start = Instant::now();
                let error = joined
                    .sum(&tensor, &|| !is_over.load(Ordering::Relaxed))
                    .unwrap_err();
                let took = start.elapsed();
                println!("gave up after {took:?}: {error}");
                assert!(took < Duration::from_secs(5), "{took:?}");
                assert!(joined.sum(&tensor, &|| true).is_err(), "it sums no more");
            });
        }
    });
}
