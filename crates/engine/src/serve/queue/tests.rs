//! Tests: rows among bodies, clients that are gone, prompts that are read, and the end.

use tokio::sync::mpsc::{Receiver, channel};

use super::*;

const SIZE: QueueSize = QueueSize {
    rows: 32,
    completion_tokens: 9 * 32,
    prompt_tokens: 100,
};

fn unread(_: &ReadPrompt) -> Result<Vec<ReadToken>, String> {
    Ok(vec![ReadToken {
        log_prob: -0.5,
        likeliest: Vec::new(),
    }])
}

fn job(samples: usize, by_token: bool, room: usize) -> (DecodeRequest, Receiver<Event>) {
    let (events, receiver) = channel(room);
    let sampling = Sampling {
        draft_tokens: 0,
        ..Sampling::plain(1.0, 9, 1)
    };
    let job = DecodeRequest {
        body: Arc::default(),
        request: Request::new(vec![1, 2], 0, 0, samples),
        sampling,
        adapter: None,
        first_index: 5,
        by_token,
        stopped: (0..samples).map(|_| AtomicBool::new(false)).collect(),
        first_stopped: 0,
        events,
        arrived: Instant::now(),
    };
    (job, receiver)
}

fn taken(worker: &mut Worker<'_>, rows: usize, is_idle: bool) -> Vec<u64> {
    match worker.arrivals(rows, is_idle) {
        Arrivals::Requests(queued) => queued.iter().map(|queued| queued.id).collect(),
        Arrivals::Closed => vec![u64::MAX],
    }
}

fn completion(tokens: usize) -> Completion {
    Completion::new(vec![7; tokens], vec![-0.5; tokens], StopReason::Length)
}

#[test]
fn a_client_that_does_not_read_or_is_gone_loses_its_rows() {
    let queue = Queue::new(9);
    let mut worker = Worker::new(&queue, SIZE, &unread);
    let (slow, mut unread) = job(1, true, 2);
    let (gone, receiver) = job(1, false, 2);
    let (stopped, _kept) = job(1, true, 2);
    let flag = Arc::clone(&stopped.stopped);
    assert_eq!(queue.push(vec![slow, gone, stopped], Vec::new()), Ok(()));
    assert_eq!(taken(&mut worker, 32, true), [0, 1, 2]);
    assert!(worker.on_token(0, 0, &completion(1)) && worker.on_token(0, 0, &completion(2)));
    assert!(
        !worker.on_token(0, 0, &completion(3)),
        "two tokens wait already"
    );
    assert!(worker.on_token(1, 0, &completion(1)));
    drop(receiver);
    assert!(
        !worker.on_token(1, 0, &completion(2)),
        "nobody waits for it"
    );
    assert!(worker.on_token(2, 0, &completion(1)));
    flag[0].store(true, Ordering::Relaxed);
    assert!(
        !worker.on_token(2, 0, &completion(2)),
        "its stop text has come"
    );
    (0..3).for_each(|id| worker.on_end(id, 0, completion(3)));
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(
        (
            count(&queue.metrics.lost_clients),
            count(&queue.metrics.rows)
        ),
        (2, 0)
    );
    assert!(matches!(
        unread.try_recv(),
        Ok(Event::Token {
            index: 5,
            token_id: 7,
            ..
        })
    ));
}

#[test]
fn a_body_that_waits_alone_takes_what_it_needs_and_leaves_some_where_that_is_too_much() {
    let check = |samples: usize, limit: usize, expected: (usize, usize)| {
        let queue = Queue::new(99);
        let mut worker = Worker::new(&queue, SIZE, &unread);
        let (mut alone, _alone) = job(samples, false, 99);
        alone.sampling.max_completion_tokens = limit;
        assert_eq!(queue.push(vec![alone], Vec::new()), Ok(()));
        assert_eq!(taken(&mut worker, 32, true), [0], "{samples}");
        let rows = worker.running[&0].unfinished;
        let (next, _next) = job(1, false, 99);
        assert_eq!(queue.push(vec![next], Vec::new()), Ok(()));
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
fn a_body_of_many_completions_leaves_rows_to_others() {
    let queue = Queue::new(99);
    let mut worker = Worker::new(&queue, SIZE, &unread);
    let (first, _first) = job(16, false, 99);
    let (mut more, _more) = job(16, false, 99);
    more.body = Arc::clone(&first.body);
    (more.request.first_sample, more.first_index) = (16, 21);
    let (second, mut told) = job(12, false, 99);
    assert_eq!(queue.push(vec![first, more, second], Vec::new()), Ok(()));
    // The later client is served first, because none of its rows is decoded, and there is room.
    assert_eq!(taken(&mut worker, 32, true), [0, 1]);
    let (third, _third) = job(1, false, 99);
    assert_eq!(queue.push(vec![third], Vec::new()), Ok(()));
    assert_eq!(taken(&mut worker, 8, false), [2]);
    let rows = |id: u64, worker: &Worker<'_>| worker.running[&id].unfinished;
    assert_eq!(
        (rows(0, &worker), rows(1, &worker), rows(2, &worker)),
        (16, 8, 1)
    );
    // The rest of a body has the numbers after those that were taken.
    (0..8).for_each(|sample| worker.on_end(1, sample, completion(1)));
    assert_eq!(taken(&mut worker, 15, false), [3, 4]);
    let rest = &worker.running[&3].job;
    assert_eq!(
        (
            rest.request.first_sample,
            rest.request.samples,
            rest.first_index
        ),
        (8, 4, 13)
    );
    worker.on_end(3, 3, completion(1));
    let index = |event| {
        if let Event::Ended { index, .. } = event {
            index
        } else {
            0
        }
    };
    let told: Vec<usize> = std::iter::from_fn(|| told.try_recv().ok())
        .map(index)
        .collect();
    assert_eq!(told, [5, 6, 7, 8, 9, 10, 11, 12, 16]);
    // Long completions leave tokens of the cache.
    let (mut long, _long) = job(16, false, 99);
    long.sampling.max_completion_tokens = 90;
    assert_eq!(queue.push(vec![long], Vec::new()), Ok(()));
    let mut idle = Worker::new(&queue, SIZE, &unread);
    assert_eq!(taken(&mut idle, 32, true), [0, 1]);
    assert_eq!((rows(0, &idle), rows(1, &idle)), (1, 8));
}

#[test]
fn the_queue_is_bounded_and_ends_when_it_is_closed() {
    let queue = Queue::new(2);
    let mut worker = Worker::new(&queue, SIZE, &unread);
    let (large, mut told) = job(40, false, 64);
    let (second, other) = job(1, false, 2);
    assert_eq!(queue.push(vec![large, second], Vec::new()), Ok(()));
    let (third, _kept) = job(1, false, 2);
    assert_eq!(queue.push(vec![third], Vec::new()), Err(QueueError::Full));
    drop(other);
    let (third, _kept) = job(1, false, 2);
    assert_eq!(
        queue.push(vec![third], Vec::new()),
        Ok(()),
        "a client that is gone made room"
    );
    assert!(taken(&mut worker, 0, false).is_empty());
    queue.close();
    let (late, _kept) = job(1, false, 2);
    assert_eq!(queue.push(vec![late], Vec::new()), Err(QueueError::Closed));
    assert_eq!(
        taken(&mut worker, 32, false),
        [0, 1, 2],
        "what was queued is still decoded, and no body takes all rows"
    );
    assert_eq!(queue.metrics.rows.load(Ordering::Relaxed), 16 + 1 + 12);
    (0..16).for_each(|_| worker.on_end(0, 0, completion(1)));
    assert_eq!(taken(&mut worker, 19, false), [3]);
    assert_eq!(taken(&mut worker, 7, false), [u64::MAX]);
    worker.fail("why");
    let last = std::iter::from_fn(|| told.try_recv().ok()).last();
    assert!(matches!(last, Some(Event::Failed(why)) if why == "why"));
}

#[test]
fn a_prompt_is_read_between_two_passes_and_before_the_end() {
    let queue = Queue::new(9);
    let mut worker = Worker::new(&queue, SIZE, &unread);
    let (events, mut told) = channel(4);
    let prompt = |index| ReadPrompt {
        index,
        token_ids: vec![1, 2],
        likeliest: 0,
        adapter: None,
        events: events.clone(),
    };
    let (first, _kept) = job(1, false, 2);
    assert_eq!(queue.push(vec![first], vec![prompt(0), prompt(1)]), Ok(()));
    queue.close();
    assert_eq!(taken(&mut worker, 32, true), [0]);
    assert!(
        taken(&mut worker, 31, false).is_empty(),
        "the second prompt is read first"
    );
    assert_eq!(taken(&mut worker, 31, false), [u64::MAX]);
    let index = |event| {
        if let Event::PromptRead { prompt, .. } = event {
            prompt
        } else {
            usize::MAX
        }
    };
    assert_eq!(
        std::iter::from_fn(|| told.try_recv().ok())
            .map(index)
            .collect::<Vec<_>>(),
        [0, 1]
    );
}
