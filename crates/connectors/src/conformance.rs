//! What every source and sink must pass, whatever it connects to. A connector's tests call this with a way to make it;
//! all checks panic with what went wrong, so call them from tests only.
//!
//! Nothing here sleeps: a reader that says `Pending` must wake the worker, or name a time to which the clock of the test
//! is then moved.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use tidemill_core::sink::{Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::source::{Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{Clock, DeadLetter, ManualClock, Result};

/// How long a check waits for a connector before it calls it stuck.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A waker that can be waited for.
#[derive(Default)]
pub struct Alarm {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

impl Alarm {
    /// A new one and the waker that rings it.
    pub fn new() -> (Arc<Alarm>, Waker) {
        let alarm = Arc::new(Alarm::default());
        (Arc::clone(&alarm), Waker::from(alarm))
    }

    /// Waits until it rings and takes that back; `false` when it did not in time.
    pub fn wait(&self, timeout: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) =
            self.changed.wait_timeout_while(rung, timeout, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }
}

/// One reader driven as a worker does it.
pub struct Driven<T> {
    reader: Box<dyn SourceReader<T>>,
    alarm: Arc<Alarm>,
    clock: Arc<ManualClock>,
    place: (usize, usize),
    split_ids: Vec<String>,
    /// The first of the splits of the stage it is in.
    stage_begin: usize,
    /// Everything emitted, by split.
    pub records: BTreeMap<String, Vec<T>>,
    /// Everything rejected.
    pub rejected: Vec<DeadLetter>,
    /// How many records were emitted or rejected.
    pub count: usize,
}

impl<T: 'static> Driven<T> {
    /// A reader of `source` as subtask `subtask` of `parallelism`, with the splits it owns.
    ///
    /// # Panics
    /// When the source cannot make it.
    pub fn start(source: &dyn Source<T>, subtask: usize, parallelism: usize, splits: &[Split]) -> Driven<T> {
        let (alarm, waker) = Alarm::new();
        let clock = Arc::new(ManualClock::new(1_000_000));
        let context = ReaderContext::new(subtask, parallelism, waker, clock.clone());
        let reader = must(source.reader(context), "make a reader");
        let (records, rejected) = (BTreeMap::new(), Vec::new());
        let place = (subtask, parallelism);
        let (split_ids, stage_begin) = (Vec::new(), 0);
        let mut driven = Driven { reader, alarm, clock, place, split_ids, stage_begin, records, rejected, count: 0 };
        driven.begin_stage(splits);
        driven
    }

    /// Gives the reader its own of the splits of a stage.
    ///
    /// # Panics
    /// When it does not take them.
    pub fn begin_stage(&mut self, splits: &[Split]) {
        let (subtask, parallelism) = self.place;
        let own: Vec<Split> =
            splits.iter().filter(|split| split.slot as usize % parallelism == subtask).cloned().collect();
        self.stage_begin = self.split_ids.len();
        self.split_ids.extend(own.iter().map(|split| split.id.clone()));
        must(self.reader.add_splits(own), "add splits");
    }

    /// Polls once, with room for `room` records.
    pub fn poll(&mut self, room: usize) -> Result<Poll> {
        let mut output = SourceOutput::with_capacity(room);
        let polled = self.reader.poll(&mut output)?;
        let rejected = output.take_rejected();
        let (records, runs) = output.take();
        assert!(records.len() + rejected.len() <= room, "emitted more than there was room for");
        self.count += records.len() + rejected.len();
        self.rejected.extend(rejected);
        let mut records = records.into_iter();
        let mut begin = 0;
        for (split, end) in runs {
            assert!(split < self.split_ids.len() && end > begin, "a run of a split it does not have, or of nothing");
            let run = records.by_ref().take(end - begin).map(|(_, record)| record);
            self.records.entry(self.split_ids[split].clone()).or_default().extend(run);
            begin = end;
        }
        assert_eq!(records.len(), 0, "records outside of runs");
        Ok(polled)
    }

    /// Polls until `enough` says so or all is read, waiting as a worker does. Whether all is read.
    ///
    /// # Panics
    /// When the reader fails, or waits and does not wake the worker in time.
    pub fn run_until(&mut self, room: usize, mut enough: impl FnMut(&Self) -> bool) -> bool {
        while !enough(self) {
            let polled = must(self.poll(room), "poll");
            if enough(self) {
                return false;
            }
            match polled {
                Poll::More => {}
                Poll::End => return true,
                Poll::Pending { wake_at_ms: Some(wake_at_ms) } => {
                    assert!(wake_at_ms > self.clock.now_ms(), "a time to wake up at that has passed");
                    self.clock.set(wake_at_ms);
                }
                Poll::Pending { wake_at_ms: None } => {
                    assert!(self.alarm.wait(DEADLINE), "pending, and the worker was not woken");
                }
            }
        }
        false
    }

    /// The reader's snapshot.
    ///
    /// # Panics
    /// When it fails, or when splits are missing in it.
    pub fn snapshot(&mut self) -> Vec<Split> {
        let splits = must(self.reader.snapshot(), "snapshot");
        let ids: Vec<&str> = splits.iter().map(|split| split.id.as_str()).collect();
        let of_stage: Vec<&str> = self.split_ids[self.stage_begin..].iter().map(String::as_str).collect();
        assert!(ids.ends_with(&of_stage), "a snapshot has all splits, in the order they were added: {ids:?}");
        splits
    }

    /// The reader itself.
    pub fn reader(&mut self) -> &mut dyn SourceReader<T> {
        &mut *self.reader
    }
}

fn must<R>(result: Result<R>, what: &str) -> R {
    match result {
        Ok(done) => done,
        Err(error) => panic!("cannot {what}: {error}"),
    }
}

/// Checks a bounded source: it gives `expected` records (in any order over splits) and `rejected` dead letters; whatever
/// is emitted before a snapshot, a reader restored from it emits exactly the rest, with 1 to 3 subtasks before and after;
/// it keeps to its room and wakes the worker. A source with stages is led through them.
///
/// # Panics
/// When it does not.
pub fn check_bounded_source<T: Clone + Debug + Ord + 'static>(source: &dyn Source<T>, expected: &[T], rejected: usize) {
    let splits = must(source.splits(), "list splits");
    assert_eq!(splits, must(source.splits(), "list splits"), "splits are listed alike each time");
    let begin = At { splits, stage: 0, before: Vec::new() };
    let whole = read_to_end(source, 1, &begin, 7);
    let mut all: Vec<T> = whole.records.values().flatten().cloned().collect();
    let mut wanted = expected.to_vec();
    all.sort();
    wanted.sort();
    assert_eq!(all, wanted, "all records, each once");
    assert_eq!(whole.rejected, rejected, "dead letters");
    let total = expected.len() + rejected;
    for before in 1..=3 {
        for after in 1..=3 {
            for k in snapshot_points(total) {
                check_restore(source, &begin, &whole, before, after, k);
            }
        }
    }
}

/// All of 0 to `total` when they are few; else some of the beginning, the middle and the end.
fn snapshot_points(total: usize) -> Vec<usize> {
    if total <= 12 {
        return (0..=total).collect();
    }
    vec![0, 1, 2, 3, total / 3, total / 2, total - 2, total - 1, total]
}

/// Where a source is: what a checkpoint of it holds.
struct At {
    splits: Vec<Split>,
    stage: u32,
    /// The splits of the stage before at their ends.
    before: Vec<Split>,
}

/// All subtasks of a source, one after the other.
struct Run<'a, T> {
    source: &'a dyn Source<T>,
    readers: Vec<Driven<T>>,
    stage: u32,
    before: Vec<Split>,
}

impl<'a, T: 'static> Run<'a, T> {
    fn start(source: &'a dyn Source<T>, parallelism: usize, at: &At) -> Self {
        let mut splits = at.splits.clone();
        if at.stage > 0 {
            let listed = must(source.stage_splits(at.stage, &at.before), "list the splits of a stage");
            splits.extend(listed.into_iter().filter(|split| !at.splits.iter().any(|known| known.id == split.id)));
        }
        let readers = (0..parallelism).map(|subtask| Driven::start(source, subtask, parallelism, &splits)).collect();
        Run { source, readers, stage: at.stage, before: at.before.clone() }
    }

    fn count(&self) -> usize {
        self.readers.iter().map(|reader| reader.count).sum()
    }

    /// Reads until `count` records are out, stage by stage, or all are.
    fn read(&mut self, room: usize, count: usize) {
        loop {
            for at in 0..self.readers.len() {
                let others = self.count() - self.readers[at].count;
                let left = count.saturating_sub(others);
                let room = room.min(left.saturating_sub(self.readers[at].count)).max(1);
                if !self.readers[at].run_until(room, |driven| driven.count >= left) {
                    return;
                }
            }
            if self.stage + 1 >= self.source.stages() {
                return;
            }
            self.before = self.at().splits;
            self.before.sort_by(|a, b| a.id.cmp(&b.id));
            self.stage += 1;
            let splits = must(self.source.stage_splits(self.stage, &self.before), "list the splits of a stage");
            self.readers.iter_mut().for_each(|reader| reader.begin_stage(&splits));
        }
    }

    fn at(&mut self) -> At {
        let splits = self.readers.iter_mut().flat_map(Driven::snapshot).collect();
        At { splits, stage: self.stage, before: self.before.clone() }
    }
}

struct ReadAll<T> {
    records: BTreeMap<String, Vec<T>>,
    rejected: usize,
    at_end: At,
}

fn read_to_end<T: 'static>(source: &dyn Source<T>, parallelism: usize, at: &At, room: usize) -> ReadAll<T> {
    let mut run = Run::start(source, parallelism, at);
    run.read(room, usize::MAX);
    let at_end = run.at();
    let rejected = run.readers.iter().map(|reader| reader.rejected.len()).sum();
    ReadAll { records: run.readers.into_iter().flat_map(|reader| reader.records).collect(), rejected, at_end }
}

/// Stops when `k` records are out, restores with another parallelism, and compares both parts with the whole.
fn check_restore<T: Clone + Debug + PartialEq + 'static>(
    source: &dyn Source<T>,
    begin: &At,
    whole: &ReadAll<T>,
    before: usize,
    after: usize,
    k: usize,
) {
    let what = format!("{before} -> {after} subtasks, snapshot after {k} records");
    let mut run = Run::start(source, before, begin);
    run.read(5, k);
    let snapshot = run.at();
    let mut records: HashMap<String, Vec<T>> = HashMap::new();
    let mut rejected = 0;
    for reader in run.readers {
        rejected += reader.rejected.len();
        records.extend(reader.records);
    }
    let rest = read_to_end(source, after, &snapshot, 100);
    rejected += rest.rejected;
    for (split, more) in rest.records {
        records.entry(split).or_default().extend(more);
    }
    for (split, expected) in &whole.records {
        assert_eq!(records.get(split), Some(expected), "{what}: split `{split}`");
    }
    assert_eq!((records.len(), rejected), (whole.records.len(), whole.rejected), "{what}");
    // A split that is finished stays so.
    let again = read_to_end(source, after, &rest.at_end, 100);
    assert!(again.records.is_empty() && again.rejected == 0, "{what}: read again after the end");
}

/// A place a sink writes to: the sink, and a way to see what is published there.
pub struct Target<T> {
    /// Writes there.
    pub sink: Box<dyn Sink<T>>,
    /// All records published there now, in any order.
    pub published: Box<dyn Fn() -> Vec<T>>,
}

/// The scope the checks of sinks work in.
pub fn scope() -> SinkScope {
    SinkScope::new("0123456789abcdef0123456789abcdef", "sink")
}

/// What a writer is told in the checks.
pub fn writer_context(subtask: usize, parallelism: usize, epoch: u64, attempt: u64, waker: Waker) -> WriterContext {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let checkpoint_interval_ms = Some(10_000);
    WriterContext { scope: scope(), subtask, parallelism, epoch, attempt, checkpoint_interval_ms, waker, clock }
}

/// Writes a batch as a worker does: waits for the writer to be ready.
///
/// # Panics
/// When the writer fails, or is not ready in time.
pub fn write<T: 'static>(writer: &mut dyn SinkWriter<T>, alarm: &Alarm, batch: Vec<(i64, T)>) {
    while !writer.ready() {
        assert!(alarm.wait(DEADLINE), "not ready, and the worker was not woken");
    }
    must(writer.write(batch), "write");
}

/// A writer and what its waker rings.
type Writer<T> = (Box<dyn SinkWriter<T>>, Arc<Alarm>);

/// One attempt of a job with a two-phase sink, step by step.
struct Attempt<T> {
    target: Target<T>,
    parallelism: usize,
    next: u64,
    attempt: u64,
}

impl<T: Clone + Debug + Ord + 'static> Attempt<T> {
    fn writers(&mut self, epoch: u64) -> Vec<Writer<T>> {
        self.attempt += 1;
        let make = |subtask| {
            let (alarm, waker) = Alarm::new();
            let context = writer_context(subtask, self.parallelism, epoch, self.attempt, waker);
            (must(self.target.sink.writer(context), "make a writer"), alarm)
        };
        (0..self.parallelism).map(make).collect()
    }

    /// Writes five records a subtask.
    fn write(&mut self, writers: &mut [Writer<T>], make: &dyn Fn(u64) -> T) -> Vec<T> {
        let mut written = Vec::new();
        for (writer, alarm) in writers {
            for size in [2, 3] {
                let batch: Vec<(i64, T)> = (0..size).map(|i| (self.next as i64, make(self.next + i))).collect();
                self.next += size;
                written.extend(batch.iter().map(|(_, record)| record.clone()));
                write(&mut **writer, alarm, batch);
            }
        }
        written
    }

    fn pre_commit(writers: &mut [Writer<T>], epoch: u64) -> Vec<Token> {
        let close = |(writer, _): &mut Writer<T>| must(writer.pre_commit(epoch), "pre-commit");
        let closes: Vec<_> = writers.iter_mut().map(close).collect();
        // On another thread, as the engine does it.
        closes
            .into_iter()
            .flat_map(|close| match std::thread::spawn(close).join() {
                Ok(tokens) => must(tokens, "wait for a pre-commit"),
                Err(_) => panic!("a pre-commit panicked"),
            })
            .collect()
    }

    fn commit(&self, tokens: &[Token]) {
        let Some(mut committer) = must(self.target.sink.committer(&scope()), "make a committer") else {
            panic!("a two-phase sink has a committer");
        };
        must(committer.commit(tokens), "commit");
    }

    fn recover(&self, tokens: &[Token]) {
        must(self.target.sink.recover(&scope(), tokens), "recover");
    }

    fn expect(&self, expected: &[T], what: &str) {
        let mut published = (self.target.published)();
        let mut expected = expected.to_vec();
        published.sort();
        expected.sort();
        assert_eq!(published, expected, "{what} ({} subtasks)", self.parallelism);
    }
}

/// Checks a two-phase sink on a fresh target each time: nothing shows before its commit; a crash at each step, and the
/// recovery from what the last checkpoint knew, leaves each record of committed epochs exactly once; committing twice
/// changes nothing. `record(i)` makes records that differ.
///
/// # Panics
/// When it does not hold.
pub fn check_two_phase_sink<T: Clone + Debug + Ord + 'static>(
    fresh: impl Fn() -> Target<T>,
    record: impl Fn(u64) -> T,
) {
    for parallelism in 1..=3 {
        for crash in Crash::ALL {
            check_crash(Attempt { target: fresh(), parallelism, next: 0, attempt: 0 }, &record, crash);
        }
    }
}

/// Where the second epoch of the first attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    /// Nothing of the epoch was closed.
    Writing,
    /// Closed, but the manifest was not written: the tokens are lost.
    BeforeManifest,
    /// The manifest was written, but not committed: recovery has the tokens.
    AfterManifest,
    /// Committed, but nobody took note: recovery has the tokens again.
    Committed,
}

impl Crash {
    const ALL: [Crash; 4] = [Crash::Writing, Crash::BeforeManifest, Crash::AfterManifest, Crash::Committed];
}

fn check_crash<T: Clone + Debug + Ord + 'static>(mut attempt: Attempt<T>, record: &dyn Fn(u64) -> T, crash: Crash) {
    attempt.recover(&[]);
    let mut writers = attempt.writers(1);
    let first = attempt.write(&mut writers, record);
    let tokens = Attempt::<T>::pre_commit(&mut writers, 1);
    attempt.expect(&[], "nothing shows before the commit");
    // Written for the next epoch before the commit of this one: must not slip into it.
    let second = attempt.write(&mut writers, record);
    for _ in 0..2 {
        attempt.commit(&tokens);
        attempt.expect(&first, "the first epoch shows once, however often it is committed");
    }
    let mut in_manifest = tokens;
    let mut expected = first;
    if crash != Crash::Writing {
        let tokens = Attempt::<T>::pre_commit(&mut writers, 2);
        if crash != Crash::BeforeManifest {
            in_manifest = tokens;
            expected.extend(second);
        }
        if crash == Crash::Committed {
            attempt.commit(&in_manifest);
        }
    }
    drop(writers);
    for _ in 0..2 {
        attempt.recover(&in_manifest);
        attempt.expect(&expected, &format!("after a crash {crash:?} and recovery"));
    }
    // The next attempt, with another parallelism, goes on in the epoch that was lost.
    attempt.parallelism = attempt.parallelism % 3 + 1;
    let mut writers = attempt.writers(2);
    expected.extend(attempt.write(&mut writers, record));
    let tokens = Attempt::<T>::pre_commit(&mut writers, 2);
    // An epoch in which nothing was written.
    let none = Attempt::<T>::pre_commit(&mut writers, 3);
    attempt.commit(&tokens);
    attempt.commit(&none);
    attempt.expect(&expected, &format!("the attempt after a crash {crash:?}"));
}
