//! The base for sinks that send batches: what a batch is, what is tried again and in which order, bounds, the end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use tidemill_connectors::async_sink::{AdditiveIncrease, AsyncSink, AsyncSinkOptions, Submit};
use tidemill_connectors::conformance::{Alarm, DEADLINE, write, writer_context};
use tidemill_core::sink::{PreCommit, Sink, SinkWriter};
use tidemill_core::{Error, Kind, Result};

/// What becomes of a request: which entries fail, or all with an error.
type Outcome = Result<Vec<usize>>;

/// A service that does with each request as it is told, or takes everything when nobody tells it any more.
struct Service {
    arrived: Arc<Mutex<Vec<Vec<u32>>>>,
    outcomes: Option<Receiver<Outcome>>,
}

impl Submit for Service {
    type Entry = u32;

    fn bytes(&self, entry: &u32) -> usize {
        *entry as usize % 10
    }

    fn submit(&mut self, entries: &[u32]) -> Outcome {
        let failed = match &self.outcomes {
            Some(outcomes) => outcomes.recv().unwrap_or(Ok(Vec::new()))?,
            None => Vec::new(),
        };
        let arrived = entries.iter().enumerate().filter(|(index, _)| !failed.contains(index)).map(|(_, entry)| *entry);
        self.arrived.lock().unwrap().push(arrived.collect());
        Ok(failed)
    }
}

type Started = (Box<dyn SinkWriter<u32>>, Arc<Mutex<Vec<Vec<u32>>>>, Sender<Outcome>, Arc<Alarm>);

fn start(options: AsyncSinkOptions) -> Started {
    let (alarm, waker) = Alarm::new();
    let (outcome, outcomes) = channel();
    let arrived: Arc<Mutex<Vec<Vec<u32>>>> = Arc::default();
    let (theirs, outcomes) = (Arc::clone(&arrived), Mutex::new(Some(outcomes)));
    let sink = AsyncSink::new(
        "service",
        options,
        move |_| Ok(Service { arrived: Arc::clone(&theirs), outcomes: outcomes.lock().unwrap().take() }),
        |_, n: u32, entries| {
            entries.push(n);
            Ok(())
        },
    );
    (sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap(), arrived, outcome, alarm)
}

/// Batches of at most four, which wait for ever to be full, and new tries at once.
fn options() -> AsyncSinkOptions {
    let wait = AsyncSinkOptions { retry_first_ms: 1, retry_most_ms: 2, ..AsyncSinkOptions::default() };
    AsyncSinkOptions { batch_entries_max: 4, batch_age_ms: u64::MAX, ..wait }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<(i64, u32)> {
    range.map(|n| (0, n)).collect()
}

fn flush(writer: &mut dyn SinkWriter<u32>, epoch: u64) -> Result<()> {
    let close: PreCommit = writer.pre_commit(epoch)?;
    std::thread::spawn(close).join().unwrap().map(|tokens| assert!(tokens.is_empty()))
}

#[test]
fn a_batch_goes_when_it_is_full_in_number_or_bytes_or_old_enough() {
    let (mut writer, arrived, outcome, alarm) = start(options());
    drop(outcome);
    write(&mut *writer, &alarm, numbers(0..10));
    crate::wait_until("two full batches", || arrived.lock().unwrap().len() == 2);
    flush(&mut *writer, 1).unwrap();
    assert_eq!(*arrived.lock().unwrap(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    // Nine bytes each: one does not go with another.
    let (mut writer, arrived, outcome, alarm) = start(AsyncSinkOptions { batch_bytes_max: 12, ..options() });
    drop(outcome);
    write(&mut *writer, &alarm, vec![(0, 9), (0, 19), (0, 2), (0, 1), (0, 29)]);
    flush(&mut *writer, 1).unwrap();
    assert_eq!(*arrived.lock().unwrap(), [vec![9], vec![19, 2, 1], vec![29]]);
    let (mut writer, arrived, outcome, alarm) = start(AsyncSinkOptions { batch_age_ms: 5, ..options() });
    drop(outcome);
    write(&mut *writer, &alarm, numbers(0..1));
    crate::wait_until("an old batch", || *arrived.lock().unwrap() == [vec![0]]);
}

#[test]
fn entries_that_failed_come_again_in_order_before_later_ones() {
    let (mut writer, arrived, outcome, alarm) = start(options());
    outcome.send(Ok(vec![1, 3])).unwrap();
    outcome.send(Err(Error::external("away"))).unwrap();
    outcome.send(Ok(vec![0])).unwrap();
    drop(outcome);
    write(&mut *writer, &alarm, numbers(0..10));
    flush(&mut *writer, 1).unwrap();
    // 1 and 3 failed, so that only two may be under way; both failed, so that only one may; 1 failed once more.
    let expected = [vec![0, 2], vec![], vec![1], vec![3, 4, 5, 6], vec![7, 8, 9]];
    assert_eq!(*arrived.lock().unwrap(), expected);
}

#[test]
fn a_checkpoint_waits_for_what_was_written_before_it_and_no_more() {
    let (mut writer, arrived, outcome, alarm) = start(options());
    write(&mut *writer, &alarm, numbers(0..2));
    let close = writer.pre_commit(1).unwrap();
    let closing = std::thread::spawn(close);
    write(&mut *writer, &alarm, numbers(2..3));
    outcome.send(Ok(vec![0])).unwrap();
    crate::wait_until("the rest is tried again", || arrived.lock().unwrap().len() == 1);
    assert!(!closing.is_finished());
    outcome.send(Ok(Vec::new())).unwrap();
    closing.join().unwrap().unwrap();
    drop(outcome);
    flush(&mut *writer, 2).unwrap();
    let mut all: Vec<u32> = arrived.lock().unwrap().concat();
    all.sort();
    assert_eq!(all, [0, 1, 2]);
}

#[test]
fn the_queue_is_bounded_and_the_worker_woken() {
    // By entries, and by bytes: two of sixty are beyond, and a batch of them is on its way, full or not.
    for (bounds, most) in [
        (AsyncSinkOptions { queue_entries_max: 8, ..options() }, 8..=12),
        (AsyncSinkOptions { queue_bytes_max: 100, ..options() }, 2..=4),
    ] {
        let (mut writer, _, outcome, alarm) = start(bounds);
        let mut next = 0;
        while writer.ready() {
            writer.weigh(60);
            writer.write(numbers(next..next + 1)).unwrap();
            next += 1;
        }
        assert!(most.contains(&next), "{next}");
        drop(outcome);
        while !writer.ready() {
            assert!(alarm.wait(DEADLINE), "woken");
        }
    }
}

#[test]
fn too_many_tries_and_what_no_try_can_mend_fail_the_sink() {
    let (mut writer, _, outcome, alarm) = start(AsyncSinkOptions { retries_max: Some(2), ..options() });
    (0..3).for_each(|_| outcome.send(Ok(vec![0])).unwrap());
    write(&mut *writer, &alarm, numbers(0..1));
    let error = flush(&mut *writer, 1).unwrap_err();
    assert_eq!(error.kind(), Kind::External);
    assert!(error.to_string().contains("did not arrive in 3 tries"), "{error}");
    assert!(writer.ready() && writer.write(numbers(0..1)).is_err(), "and tells it to whoever writes on");

    for wrong in [Err(Error::input("refused")), Ok(vec![7])] {
        let (mut writer, _, outcome, alarm) = start(options());
        outcome.send(wrong).unwrap();
        write(&mut *writer, &alarm, numbers(0..1));
        assert!(flush(&mut *writer, 1).is_err());
    }
    let none = AsyncSinkOptions { requests_max: 0, ..options() };
    let sink = AsyncSink::new(
        "none",
        none,
        |_| Ok(Service { arrived: Arc::default(), outcomes: None }),
        |_, _: u32, _| Ok(()),
    );
    assert!(sink.writer(writer_context(0, 1, 1, 1, Alarm::new().1)).is_err());
}

/// Counts how many entries are under way at once.
struct Counting {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    arrived: Arc<Mutex<BTreeSet<u32>>>,
    state: u64,
}

impl Submit for Counting {
    type Entry = u32;

    fn submit(&mut self, entries: &[u32]) -> Outcome {
        let now = self.now.fetch_add(entries.len(), Ordering::SeqCst) + entries.len();
        self.most.fetch_max(now, Ordering::SeqCst);
        self.requests.fetch_add(1, Ordering::SeqCst);
        std::thread::yield_now();
        let mut failed = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match (self.state >> 33) % 5 {
                0 => failed.push(index),
                _ => assert!(self.arrived.lock().unwrap().insert(*entry), "{entry} came twice"),
            }
        }
        self.now.fetch_sub(entries.len(), Ordering::SeqCst);
        Ok(failed)
    }
}

#[test]
fn several_requests_at_once_lose_and_double_nothing_and_keep_to_the_rate() {
    for seed in 1..=5 {
        let (now, most, requests) = (Arc::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let arrived: Arc<Mutex<BTreeSet<u32>>> = Arc::default();
        let options = AsyncSinkOptions { batch_entries_max: 10, requests_max: 4, seed, ..options() };
        let shared = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&requests), Arc::clone(&arrived));
        let sink = AsyncSink::new(
            "counting",
            options,
            move |_| {
                let (now, most, requests, arrived) = shared.clone();
                Ok(Counting { now, most, requests, arrived, state: seed })
            },
            |_, n: u32, entries| {
                entries.push(n);
                Ok(())
            },
        )
        .rate_strategy(|| AdditiveIncrease::new(25, 5));
        let (alarm, waker) = Alarm::new();
        let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap();
        for epoch in 1..=4u32 {
            write(&mut *writer, &alarm, numbers((epoch - 1) * 50..epoch * 50));
            flush(&mut *writer, epoch.into()).unwrap();
            assert_eq!(arrived.lock().unwrap().len() as u32, epoch * 50, "seed {seed}");
        }
        assert!(most.load(Ordering::SeqCst) <= 25, "seed {seed}: {most:?} under way");
    }
}
