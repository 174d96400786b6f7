//! Tests of shares, thinking conversations, out-of-memory attempts, and closing.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::kernels::philox::{SampleKey, uniform};
use crate::rollout::StopReason;

/// Events received by clients.
#[derive(Debug, PartialEq)]
enum Told {
    Token(u32),
    Ended(u32),
    Failed(String),
}

struct Listener {
    told: Mutex<Sender<Told>>,
    is_gone: AtomicBool,
}

impl Listener {
    fn tell(&self, told: Told) {
        _ = self.told.lock().send(told);
    }
}

impl Client for Listener {
    fn on_token(&self, sample: u32, _: &Completion, _: Vec<(u32, f32)>) -> bool {
        self.tell(Told::Token(sample));
        !self.is_gone()
    }

    fn on_end(&self, sample: u32, _: Completion) {
        self.tell(Told::Ended(sample));
    }

    fn on_failure(&self, _: usize, why: &str) {
        self.tell(Told::Failed(why.to_owned()));
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

fn job(samples: usize) -> (Job, Receiver<Told>, Arc<Listener>) {
    let (told, receiver) = channel();
    let client = Arc::new(Listener {
        told: Mutex::new(told),
        is_gone: AtomicBool::new(false),
    });
    let request = Request::new(vec![1, 2], 0, 0, samples);
    let sampling = Sampling::plain(1.0, 9, 1);
    let job = Job::new(request, sampling, Arc::clone(&client) as _);
    (job, receiver, client)
}

fn shares(waiting: usize) -> Queue {
    Queue::new(Order::Shares {
        waiting,
        // With four prompts of two tokens.
        tokens: 9 * 32 + 4 * 2,
    })
}

fn taken(worker: &mut Worker<'_>, rows: usize, is_idle: bool) -> Vec<u64> {
    match worker.arrivals(rows, is_idle) {
        Arrivals::Requests(queued) => queued.iter().map(|queued| queued.id).collect(),
        Arrivals::Closed => vec![u64::MAX],
    }
}

fn completion(tokens: usize) -> Completion {
    Completion::new(vec![7; tokens], vec![-0.5; tokens], StopReason::Stop)
}

#[test]
fn a_client_that_is_gone_loses_its_rows_and_its_place() {
    let (queue, pool) = (shares(9), ThreadPool::calling());
    let mut worker = Worker::new(&queue, &pool);
    let ((first, told, client), (second, _told, waits)) = (job(2), job(1));
    queue.push(vec![first, second]).unwrap();
    waits.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(taken(&mut worker, 32, true), [0]);
    assert!(worker.on_token(0, 1, &completion(1), Vec::new()));
    client.is_gone.store(true, Ordering::Relaxed);
    assert!(!worker.on_token(0, 1, &completion(2), Vec::new()));
    (0..2).for_each(|sample| worker.on_end(0, sample, completion(2)));
    assert!(
        !worker.on_token(0, 1, &completion(3), Vec::new()),
        "it has ended"
    );
    let told: Vec<_> = told.try_iter().collect();
    let expected = [
        Told::Token(1),
        Told::Token(1),
        Told::Ended(0),
        Told::Ended(1),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_client_that_waits_alone_takes_what_it_needs_and_leaves_some_where_that_is_too_much() {
    let check = |samples: usize, limit: usize, expected: (usize, usize)| {
        let (queue, pool) = (shares(99), ThreadPool::calling());
        let mut worker = Worker::new(&queue, &pool);
        let mut alone = job(samples).0;
        alone.sampling.max_completion_tokens = limit;
        queue.push(vec![alone]).unwrap();
        assert_eq!(taken(&mut worker, 32, true), [0], "{samples}");
        let rows = worker.running[&0].unfinished.len();
        queue.push(vec![job(1).0]).unwrap();
        let next = taken(&mut worker, 32 - rows, false);
        assert_eq!((rows, next.len()), expected, "{samples} of {limit} tokens");
    };
    check(8, 9, (8, 1));
    check(32, 9, (32, 0));
    check(128, 9, (28, 1));
    // The KV cache has room for 16, then for 3.
    check(16, 18, (16, 0));
    check(32, 18, (14, 1));
    check(9, 90, (2, 1));
}

#[test]
fn a_client_of_many_completions_leaves_rows_to_others() {
    let (queue, pool) = (shares(99), ThreadPool::calling());
    let mut worker = Worker::new(&queue, &pool);
    let (first, (mut more, ..)) = (job(16).0, job(16));
    more.decoded = Arc::clone(&first.decoded);
    more.request.first_sample = 16;
    let (second, told, _client) = job(12);
    queue.push(vec![first, more, second]).unwrap();
    // The later client is first, since none of its rows is decoded, and there is room.
    assert_eq!(taken(&mut worker, 32, true), [0, 1]);
    queue.push(vec![job(1).0]).unwrap();
    assert_eq!(taken(&mut worker, 8, false), [2]);
    let rows = |id: u64, worker: &Worker<'_>| worker.running[&id].unfinished.len();
    let decoded = [0, 1, 2].map(|id| rows(id, &worker));
    assert_eq!(decoded, [16, 8, 1]);
    // The rest of a client has the numbers after those taken.
    (0..8).for_each(|sample| worker.on_end(1, sample, completion(1)));
    assert_eq!(taken(&mut worker, 15, false), [3, 4]);
    let rest = &worker.running[&3].job;
    let numbers = (rest.request.first_sample, rest.request.samples);
    assert_eq!((numbers, rest.first_sample), ((8, 4), 8));
    worker.on_end(3, 3, completion(1));
    let told: Vec<_> = told.try_iter().collect();
    let ended = (0..8).chain([11]).map(Told::Ended);
    assert_eq!(told, ended.collect::<Vec<_>>());
    // Long completions leave cache tokens.
    let mut long = job(16).0;
    long.sampling.max_completion_tokens = 90;
    queue.push(vec![long]).unwrap();
    let mut idle = Worker::new(&queue, &pool);
    assert_eq!(taken(&mut idle, 32, true), [0, 1]);
    assert_eq!((rows(0, &idle), rows(1, &idle)), (1, 8));
}

#[test]
fn a_long_prompt_is_not_kept_waiting_by_short_ones() {
    let (queue, pool) = (shares(99), ThreadPool::calling());
    let mut worker = Worker::new(&queue, &pool);
    let mut long = job(1).0;
    long.request.prompt = vec![1; 9 * 32 - 9];
    queue.push(vec![job(1).0]).unwrap();
    assert_eq!(taken(&mut worker, 32, true), [0]);
    queue.push(vec![long]).unwrap();
    queue.push(vec![job(1).0]).unwrap();
    assert!(taken(&mut worker, 31, false).is_empty());
    worker.on_end(0, 0, completion(1));
    assert_eq!(taken(&mut worker, 32, false), [1]);
    worker.on_end(1, 0, completion(1));
    assert_eq!(taken(&mut worker, 32, false), [2]);
}

#[test]
fn the_queue_is_bounded_and_ends_when_it_is_closed() {
    let (queue, pool) = (shares(2), ThreadPool::calling());
    let mut worker = Worker::new(&queue, &pool);
    let ((large, told, _client), (second, _second, gone)) = (job(40), job(1));
    queue.push(vec![large, second]).unwrap();
    let push = || queue.push(vec![job(1).0]);
    assert_eq!(push(), Err(QueueError::Full(2)));
    gone.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(push(), Ok(()), "a client that is gone made room");
    assert!(taken(&mut worker, 0, false).is_empty());
    queue.close();
    assert_eq!(push(), Err(QueueError::Closed));
    assert_eq!(
        taken(&mut worker, 32, false),
        [0, 1, 2],
        "what was queued is still decoded, and no client takes all rows"
    );
    (0..16).for_each(|sample| worker.on_end(0, sample, completion(1)));
    assert_eq!(taken(&mut worker, 19, false), [3]);
    assert_eq!(taken(&mut worker, 7, false), [u64::MAX]);
    worker.fail("why");
    let last = told.try_iter().last();
    assert_eq!(last, Some(Told::Failed("why".to_owned())));
}

/// One errand between two passes.
struct Errands(Mutex<usize>);

impl Decoding for Errands {
    fn is_cancelled(&self) -> bool {
        false
    }

    fn has_errand(&self) -> bool {
        *self.0.lock() > 0
    }

    fn run_errand(&self) -> bool {
        let mut left = self.0.lock();
        let has_worked = *left > 0;
        *left = left.saturating_sub(1);
        has_worked
    }
}

#[test]
fn errands_are_run_between_two_passes_and_before_the_end() {
    let (queue, errands) = (shares(9), Errands(Mutex::new(2)));
    let mut worker = Worker::new(&queue, &errands);
    queue.push(vec![job(1).0]).unwrap();
    queue.close();
    assert_eq!(taken(&mut worker, 32, true), [0]);
    assert!(taken(&mut worker, 31, false).is_empty(), "the second first");
    assert_eq!(taken(&mut worker, 31, false), [u64::MAX]);
}

const PACED: Order = Order::Conversations {
    is_paced: true,
    agents: 0,
};

/// A request of a conversation, its first sample's.
fn request(conversation: usize, number: u32, samples: usize) -> (Job, Receiver<Told>) {
    let (mut job, told, _) = job(samples);
    job.request.first_sample = number << 16;
    job.place = Some(Place {
        conversation,
        number,
        follows: number.checked_sub(1),
        later_tokens: Some(99),
        shares_prompt: false,
    });
    (job, told)
}

#[test]
fn what_has_ended_before_memory_ran_out_is_sampled_once() {
    let (queue, pool) = (Queue::new(PACED), ThreadPool::calling());
    let mut worker = Worker::new(&queue, &pool);
    (0..3).for_each(|conversation| queue.enter(conversation));
    let (all, told) = request(0, 0, 3);
    queue.ask(all);
    let asked = |arrivals: Arrivals| match arrivals {
        Arrivals::Requests(requests) => requests
            .iter()
            .map(|queued| (queued.id, queued.request.first_sample))
            .collect(),
        Arrivals::Closed => vec![(u64::MAX, 0)],
    };
    assert_eq!(asked(worker.arrivals(9, true)), [(0, 0)]);
    worker.on_end(0, 0, completion(1));
    worker.on_end(0, 1, completion(1));
    // The first conversation has its next request already; the second leaves.
    let (next, next_told) = request(0, 1, 1);
    queue.ask(next);
    queue.leave(1);
    worker.begin_again();
    assert_eq!(
        asked(worker.arrivals(9, false)),
        [(0, 0)],
        "the third is asked for beside the others"
    );
    assert!(
        !worker.on_token(0, 0, &completion(1), Vec::new())
            && worker.on_token(0, 2, &completion(1), Vec::new())
    );
    worker.on_end(0, 0, completion(1));
    worker.on_end(0, 2, completion(1));
    queue.leave(2);
    assert_eq!(asked(worker.arrivals(9, true)), [(1, 1 << 16)]);
    worker.begin_again();
    assert_eq!(asked(worker.arrivals(9, true)), [(1, 1 << 16)]);
    worker.on_end(1, 0, completion(1));
    queue.leave(0);
    assert_eq!(asked(worker.arrivals(9, true)), [(u64::MAX, 0)]);
    let ended: Vec<_> = told
        .try_iter()
        .filter(|told| matches!(told, Told::Ended(_)))
        .collect();
    assert_eq!(
        ended,
        [0, 1, 2].map(Told::Ended),
        "each completion is told once"
    );
    assert_eq!(next_told.try_iter().collect::<Vec<_>>(), [Told::Ended(0)]);
}

#[test]
fn conversations_whose_answers_are_compared_go_on_together() {
    let (queue, pool) = (Queue::new(PACED), ThreadPool::calling());
    let mut worker = Worker::new(&queue, &pool);
    (0..3).for_each(|conversation| queue.enter(conversation));
    queue.ask(request(0, 0, 3).0);
    assert_eq!(taken(&mut worker, 9, true), [0]);
    worker.on_end(0, 0, completion(1));
    queue.wait(0, 0, 3);
    // The first has no score yet: nothing waits for it, however many passes.
    (0..20).for_each(|_| assert!(taken(&mut worker, 9, false).is_empty()));
    // The second calls a tool first, the third ends.
    worker.on_end(0, 1, completion(1));
    worker.on_end(0, 2, completion(1));
    queue.ask(request(1, 1, 1).0);
    queue.leave(2);
    (0..7).for_each(|_| assert!(taken(&mut worker, 9, false).is_empty()));
    assert_eq!(taken(&mut worker, 9, false), [1]);
    worker.on_end(1, 0, completion(1));
    queue.wait(1, 0, 3);
    (0..8).for_each(|_| assert!(taken(&mut worker, 9, false).is_empty()));
    (0..2).for_each(|conversation| queue.ask(request(conversation, 2, 1).0));
    (0..7).for_each(|_| assert!(taken(&mut worker, 9, false).is_empty()));
    assert_eq!(taken(&mut worker, 9, false), [2, 3]);
}

/// Conversations that begin and continue in each pass; each submits three requests, thinks for
/// `thought` uncounted passes, and completions end after a few.
fn passes(thought: impl Fn() -> usize + Send + Clone) -> Vec<Vec<(usize, u32)>> {
    const CONVERSATIONS: usize = 6;
    let (queue, pool) = (Queue::new(PACED), ThreadPool::calling());
    let mut worker = Worker::new(&queue, &pool);
    let told: Vec<_> = (0..CONVERSATIONS)
        .map(|conversation| {
            queue.enter(conversation);
            let (first, told) = request(conversation, 0, 1);
            queue.ask(first);
            told
        })
        .collect();
    let (mut found, mut running) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        for (conversation, mut told) in told.into_iter().enumerate() {
            let (queue, thought) = (&queue, thought.clone());
            scope.spawn(move || {
                for number in 1.. {
                    while told.recv().is_ok_and(|told| told != Told::Ended(0)) {}
                    (0..thought()).for_each(|_| std::thread::yield_now());
                    if number == 3 {
                        return queue.leave(conversation);
                    }
                    let (next, next_told) = request(conversation, number, 1);
                    queue.ask(next);
                    told = next_told;
                }
            });
        }
        for pass in 1.. {
            let Arrivals::Requests(come) = worker.arrivals(99, running.is_empty()) else {
                return;
            };
            let mut begun = Vec::new();
            for queued in come {
                let place = worker.running[&queued.id].job.place.unwrap();
                let lasts = 2 + (place.conversation * 7 + place.number as usize * 5) % 9;
                begun.push((place.conversation, place.number));
                running.push((pass + lasts, queued.id));
            }
            found.push(begun);
            let ended: Vec<_> = running.extract_if(.., |(end, _)| *end <= pass).collect();
            ended
                .iter()
                .for_each(|(_, id)| worker.on_end(*id, 0, completion(1)));
        }
    });
    found
}

#[test]
fn conversations_go_on_in_the_same_passes_however_long_they_think() {
    let at_once = passes(|| 0);
    assert_eq!(at_once.iter().flatten().count(), 18);
    for seed in 0..4 {
        let calls = Arc::new(AtomicUsize::new(0));
        let thought = move || {
            let position = calls.fetch_add(1, Ordering::Relaxed) as u32;
            let key = SampleKey {
                step: 0,
                prompt: 0,
                sample: 0,
                position,
            };
            (uniform(seed, key) * 400.0) as usize
        };
        assert_eq!(passes(thought), at_once, "seed {seed}");
    }
}

#[test]
fn later_requests_keep_the_limit_of_their_task() {
    let order = Order::Conversations {
        is_paced: true,
        agents: 0,
    };
    let question = QueuedQuestion {
        queue: Arc::new(Queue::new(order)),
        first: Request {
            lengths: vec![3, 4],
            ..Request::new(vec![1], 0, 0, 2)
        },
        sampling: Sampling::plain(1.0, 9, 0),
        conversation: 0,
        max_prompt_tokens: None,
    };
    let later = question.later_request(1, 2, &[1, 2]);
    assert_eq!((later.samples, later.lengths), (1, vec![4]));
}
