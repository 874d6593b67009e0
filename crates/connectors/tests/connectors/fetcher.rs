//! The fetcher's own promises: bounds, order of errors, panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use tidemill_connectors::conformance::{Alarm, DEADLINE};
use tidemill_connectors::fetcher::{BATCH_RECORDS_MAX, Emitter, Fetch, FetchReader, Fetched, QUEUE_BATCHES_MAX};
use tidemill_core::source::{Poll, ReaderContext, SourceOutput, SourceReader, Split};
use tidemill_core::{Error, Kind, ManualClock, Result};

/// Emits numbers for ever, and fails or panics where it is told to.
struct Numbers {
    next: u64,
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
            if !out.push(0, 0, Ok(self.next), self.next + 1) {
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
    let context = ReaderContext { subtask: 0, parallelism: 1, waker, clock: Arc::new(ManualClock::new(0)) };
    let pushed = Arc::new(AtomicUsize::new(0));
    let fetch = Numbers { next: 0, pushed: Arc::clone(&pushed), fail_at, panic_at };
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
    let context = ReaderContext { subtask: 0, parallelism: 1, waker, clock: Arc::new(ManualClock::new(0)) };
    let fetch = Numbers { next: 0, pushed: Arc::default(), fail_at: None, panic_at: None };
    let mut reader = FetchReader::new("numbers", &context, fetch);
    assert_eq!(reader.poll(&mut SourceOutput::with_capacity(1)).unwrap(), Poll::End);
    reader.add_splits(Vec::new()).unwrap();
    assert!(reader.snapshot().unwrap().is_empty());
}
