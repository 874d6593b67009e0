//! The fetcher's own promises: bounds, order of errors, panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use tidemill_connectors::conformance::{Alarm, DEADLINE};
use tidemill_connectors::fetcher::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Emitter, Fetch, FetchReader, Fetched, QUEUE_BATCHES_MAX,
};
use tidemill_core::source::{Poll, ReaderContext, SourceOutput, SourceReader, Split};
use tidemill_core::{DeadLetter, Error, Kind, ManualClock, Result};

/// Emits numbers for ever, and fails or panics where it is told to.
struct Numbers {
    next: u64,
    /// What each is said to be made of.
    bytes: usize,
    pushed: Arc<AtomicUsize>,
    fail_at: Option<u64>,
    panic_at: Option<u64>,
}

impl Fetch for Numbers {
    type Value = u64;
    type Position = u64;

    fn add_split(&mut self, _index: usize, _id: &str, position: Option<u64>) -> Result<()> {
        self.next = position.unwrap_or(0);
        Ok(())
    }

    fn fetch(&mut self, out: &mut Emitter<u64, u64>) -> Result<Fetched> {
        for _ in 0..100 {
            if self.fail_at == Some(self.next) {
                return Err(Error::external("the line is dead"));
            }
            assert!(self.panic_at != Some(self.next), "as asked for");
            if !out.push(0, 0, Ok(self.next), self.bytes, self.next + 1) {
                return Ok(Fetched::More);
            }
            self.next += 1;
            self.pushed.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Fetched::More)
    }
}

fn start(fail_at: Option<u64>, panic_at: Option<u64>) -> (FetchReader<Numbers>, Arc<AtomicUsize>, Arc<Alarm>) {
    let (alarm, waker): (_, Waker) = Alarm::new();
    let context = ReaderContext::new(0, 1, waker, Arc::new(ManualClock::new(0)));
    let pushed = Arc::new(AtomicUsize::new(0));
    let fetch = Numbers { next: 0, bytes: 8, pushed: Arc::clone(&pushed), fail_at, panic_at };
    let mut reader = FetchReader::new("numbers", &context, fetch);
    reader.add_splits(vec![Split { id: "0".into(), slot: 0, position: serde_json::json!(10) }]).unwrap();
    (reader, pushed, alarm)
}

#[test]
fn what_waits_is_bounded_and_the_snapshot_counts_only_what_was_emitted() {
    let (mut reader, pushed, _alarm) = start(None, None);
    // Full: the queue, one batch that has no place, and one record that found it full.
    let most = (QUEUE_BATCHES_MAX + 1) * BATCH_RECORDS_MAX;
    crate::wait_until("the queue is full", || {
        reader.pending_records().is_none() && pushed.load(Ordering::SeqCst) > 700
    });
    let mut output = SourceOutput::with_capacity(5);
    assert_eq!(reader.poll(&mut output).unwrap(), Poll::More);
    assert_eq!(output.take().0.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
    assert_eq!(reader.snapshot().unwrap()[0].position, 15);
    assert!(pushed.load(Ordering::SeqCst) <= most);
}

/// As many as stand in the queue, one that has no place there, and none beside it.
#[test]
fn large_records_are_bounded_by_their_bytes() {
    let (_alarm, waker): (_, Waker) = Alarm::new();
    let context = ReaderContext::new(0, 1, waker, Arc::new(ManualClock::new(0)));
    let pushed = Arc::new(AtomicUsize::new(0));
    let bytes = BATCH_BYTES_MAX;
    let fetch = Numbers { next: 0, bytes, pushed: Arc::clone(&pushed), fail_at: None, panic_at: None };
    let mut reader = FetchReader::new("large", &context, fetch);
    reader.add_splits(vec![Split { id: "0".into(), slot: 0, position: serde_json::json!(0) }]).unwrap();
    let count = || pushed.load(Ordering::SeqCst);
    crate::wait_until("the queue is full", || count() > QUEUE_BATCHES_MAX);
    assert_eq!(count(), QUEUE_BATCHES_MAX + 1);
    let mut output = SourceOutput::with_capacity(1);
    for number in 0..QUEUE_BATCHES_MAX as u64 {
        reader.poll(&mut output).unwrap();
        assert_eq!(output.take().0, [(0, number)]);
    }
}

#[test]
fn an_error_comes_after_what_was_read_before_it_and_stays() {
    let (mut reader, _, alarm) = start(Some(13), None);
    let mut output = SourceOutput::with_capacity(100);
    let error = loop {
        match reader.poll(&mut output) {
            Ok(Poll::Pending { .. }) => assert!(alarm.wait(DEADLINE)),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(output.take().0.len(), 3);
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::External, "numbers [0]: the line is dead"));
    assert!(reader.poll(&mut output).is_err(), "it stays failed");
}

#[test]
fn a_panic_of_the_thread_is_an_error_of_the_source() {
    let (mut reader, _, alarm) = start(None, Some(110));
    let mut output = SourceOutput::with_capacity(1000);
    let error = loop {
        match reader.poll(&mut output) {
            Ok(Poll::Pending { .. }) => assert!(alarm.wait(DEADLINE)),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Bug);
}

#[test]
fn a_reader_without_splits_is_at_its_end() {
    let (_alarm, waker) = Alarm::new();
    let context = ReaderContext::new(0, 1, waker, Arc::new(ManualClock::new(0)));
    let fetch = Numbers { next: 0, bytes: 8, pushed: Arc::default(), fail_at: None, panic_at: None };
    let mut reader = FetchReader::new("numbers", &context, fetch);
    assert_eq!(reader.poll(&mut SourceOutput::with_capacity(1)).unwrap(), Poll::End);
    reader.add_splits(Vec::new()).unwrap();
    assert!(reader.snapshot().unwrap().is_empty());
}

/// Splits of numbers, all read in turn; a number is 100 × its split and the count.
struct InTurn {
    splits: Vec<(usize, u64)>,
    paused: Vec<bool>,
}

impl Fetch for InTurn {
    type Value = u64;
    type Position = u64;

    fn add_split(&mut self, index: usize, _id: &str, position: Option<u64>) -> Result<()> {
        self.splits.push((index, position.unwrap_or(0)));
        Ok(())
    }

    fn can_pause(&self) -> bool {
        true
    }

    fn pause_splits(&mut self, paused: &[bool]) {
        self.paused = paused.to_vec();
    }

    fn fetch(&mut self, out: &mut Emitter<u64, u64>) -> Result<Fetched> {
        for (index, next) in &mut self.splits {
            if *next < 100 && !self.paused.get(*index).copied().unwrap_or(false) {
                let number = *index as u64 * 100 + *next;
                *next += 1;
                let _ = out.push(*index, 0, Ok(number), 8, *next) && (*next < 100 || out.finish(*index));
            }
        }
        let done = self.splits.iter().all(|(_, next)| *next == 100);
        Ok(if done { Fetched::Done } else { Fetched::More })
    }
}

/// Pauses splits at random; each still comes whole and in order, and nothing of a paused one comes.
#[test]
fn paused_splits_wait_and_lose_nothing() {
    for seed in 1..=20u64 {
        let mut state = seed;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let (alarm, waker) = Alarm::new();
        let context = ReaderContext::new(0, 1, waker, Arc::new(ManualClock::new(0)));
        let mut reader = FetchReader::new("in turn", &context, InTurn { splits: Vec::new(), paused: Vec::new() });
        let split = |slot: u32| Split { id: slot.to_string(), slot, position: serde_json::Value::Null };
        reader.add_splits((0..3).map(split).collect()).unwrap();
        let (mut seen, mut finished) = (vec![Vec::new(); 3], Vec::new());
        let mut paused = vec![false; 3];
        loop {
            if below(3) == 0 {
                paused = (0..3).map(|_| below(2) == 0).collect();
                assert!(reader.pause_splits(&paused));
            }
            let mut output = SourceOutput::with_capacity(1 + below(20) as usize);
            let polled = reader.poll(&mut output).unwrap();
            for number in output.take().0.into_iter().map(|(_, number)| number) {
                let split = (number / 100) as usize;
                assert!(!paused[split], "seed {seed}: {number} of a paused split");
                seen[split].push(number % 100);
            }
            finished.extend(output.take_finished());
            let positions: Vec<u64> =
                reader.snapshot().unwrap().iter().map(|s| s.position.as_u64().unwrap_or(0)).collect();
            assert_eq!(positions, seen.iter().map(|seen| seen.len() as u64).collect::<Vec<_>>(), "seed {seed}");
            match polled {
                Poll::More => {}
                Poll::End => break,
                Poll::Pending { .. } if paused.contains(&true) => {
                    paused = vec![false; 3];
                    assert!(reader.pause_splits(&paused));
                }
                Poll::Pending { .. } => assert!(alarm.wait(DEADLINE)),
            }
        }
        assert!(seen.iter().all(|seen| *seen == (0..100).collect::<Vec<_>>()), "seed {seed}");
        finished.sort();
        assert_eq!(finished, [0, 1, 2], "seed {seed}");
    }
}

/// Batches of random sizes of one split after the other, with bad records between; the position counts both.
struct Mixed {
    state: u64,
    next: u64,
}

const MIXED: u64 = 20_000;

impl Mixed {
    fn is_bad(number: u64) -> bool {
        // Some alone, some in a row.
        number.is_multiple_of(97) || (number / 50) % 31 == 7
    }
}

impl Fetch for Mixed {
    type Value = u64;
    type Position = u64;

    fn add_split(&mut self, _index: usize, _id: &str, position: Option<u64>) -> Result<()> {
        self.next = position.unwrap_or(0);
        Ok(())
    }

    fn fetch(&mut self, out: &mut Emitter<u64, u64>) -> Result<Fetched> {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        for _ in 0..1 + (self.state >> 33) % 3000 {
            if self.next == MIXED {
                return Ok(if out.finish(0) { Fetched::Done } else { Fetched::More });
            }
            let number = self.next;
            let value = match Mixed::is_bad(number) {
                true => Err(DeadLetter::new("mixed", number.to_string(), "bad", b"")),
                false => Ok(number),
            };
            self.next += 1;
            if !out.push(0, number as i64, value, 8, self.next) {
                break;
            }
        }
        Ok(Fetched::More)
    }
}

/// Whatever room there is: good and bad records come once, each kind in order, and after each poll the position is behind
/// exactly those that came.
#[test]
fn batches_are_handed_over_whole_or_in_parts_and_the_position_is_exact() {
    for seed in 1..=10u64 {
        let (alarm, waker) = Alarm::new();
        let context = ReaderContext::new(0, 1, waker, Arc::new(ManualClock::new(0)));
        let mut reader = FetchReader::new("mixed", &context, Mixed { state: seed, next: 0 });
        reader.add_splits(vec![Split { id: "0".into(), slot: 0, position: serde_json::Value::Null }]).unwrap();
        let (mut good, mut bad, mut room) = (Vec::new(), Vec::new(), seed);
        loop {
            room = room.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
            let capacity = [1, 7, 500, 1024, 5000][(room >> 33) as usize % 5];
            let mut output = SourceOutput::with_capacity(capacity);
            let polled = reader.poll(&mut output).unwrap();
            let letters = output.take_rejected();
            let (records, runs) = output.take();
            assert!(records.len() + letters.len() <= capacity, "seed {seed}: room was for {capacity}");
            assert_eq!(runs.last().map_or(0, |run| run.1), records.len(), "seed {seed}");
            assert!(records.iter().all(|(time, number)| *time == *number as i64), "seed {seed}");
            good.extend(records.into_iter().map(|record| record.1));
            bad.extend(letters.into_iter().map(|letter| letter.position.parse::<u64>().unwrap()));
            let position = reader.snapshot().unwrap()[0].position.as_u64().unwrap_or(0);
            assert_eq!(position, (good.len() + bad.len()) as u64, "seed {seed}");
            let (bads, goods): (Vec<u64>, Vec<u64>) = (0..position).partition(|number| Mixed::is_bad(*number));
            assert!(
                good.last() == goods.last() && bad.last() == bads.last() && good.len() == goods.len(),
                "seed {seed}"
            );
            match polled {
                Poll::More => {}
                Poll::End => break,
                Poll::Pending { .. } => assert!(alarm.wait(DEADLINE)),
            }
        }
        let (expected_bad, expected): (Vec<u64>, Vec<u64>) = (0..MIXED).partition(|number| Mixed::is_bad(*number));
        assert!(good == expected && bad == expected_bad, "seed {seed}");
    }
}
