//! A base for sinks that send batches of entries to a service (Flink's `AsyncSinkBase`): batches by count, bytes and age,
//! several requests at once, single entries tried again, and a rate that adapts to what the service takes.
//!
//! ```text
//! worker                          queue                 sending threads, one for each request under way
//! SinkWriter::write ── entries ──▶ … 3 2 1 ── a batch ──▶ Submit::submit ── arrived
//!       ▲ ready: room in the queue      ▲──── those that failed, in order, in front ◀──┘
//! ```
//!
//! At least once: a checkpoint waits until every entry written before it has arrived. With one request at a time (the
//! default) entries arrive in the order written, those tried again before later ones; with more, batches overtake each
//! other. A sink whose service knows transactions stands on [`crate::buffered`] instead, which hands out tokens.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tidemill_core::sink::{PreCommit, Sink, SinkWriter, WriterContext};
use tidemill_core::{Error, Kind, Result};

/// Sends batches; one value for each request under way, each on its own thread.
pub trait Submit: Send + 'static {
    /// What is sent.
    type Entry: Send + 'static;

    /// An entry's size, for the bounds in bytes; default 0.
    fn bytes(&self, entry: &Self::Entry) -> usize {
        let _ = entry;
        0
    }

    /// Sends `entries`, in order, and waits for the answer: the indices of those that did not arrive and shall be tried
    /// again, in growing order. After an error of `Kind::External` or `Kind::Full` all are tried again; other errors fail the job.
    fn submit(&mut self, entries: &[Self::Entry]) -> Result<Vec<usize>>;
}

/// How much may be under way, learnt from what the service took.
pub trait RateStrategy: Send + 'static {
    /// How many entries may be under way at once; at least 1.
    fn entries_max(&self) -> usize;

    /// A request has ended: of `sent` entries `failed` did not arrive.
    fn completed(&mut self, sent: usize, failed: usize);
}

/// More entries under way, by a constant, after each request that arrived whole; half of them after one that did not.
#[derive(Debug, Clone)]
pub struct AdditiveIncrease {
    entries: usize,
    most: usize,
    step: usize,
}

impl AdditiveIncrease {
    /// Begins with `most`, never allows more, and goes up by `step`.
    pub fn new(most: usize, step: usize) -> Self {
        AdditiveIncrease { entries: most.max(1), most: most.max(1), step }
    }
}

impl RateStrategy for AdditiveIncrease {
    fn entries_max(&self) -> usize {
        self.entries
    }

    fn completed(&mut self, _sent: usize, failed: usize) {
        self.entries = match failed {
            0 => (self.entries + self.step).min(self.most),
            _ => (self.entries / 2).max(1),
        };
    }
}

/// The bounds of an [`AsyncSink`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncSinkOptions {
    /// The most entries in a batch; default 500.
    pub batch_entries_max: usize,
    /// The most bytes in a batch; an entry that is larger alone is a batch of its own. Default 5 MiB.
    pub batch_bytes_max: usize,
    /// A batch that is not full is sent when its first entry has waited so long, in ms; default 1000. A checkpoint does not wait
    /// for it.
    pub batch_age_ms: u64,
    /// Requests under way at once, each on a thread of its own; default 1, which keeps the order.
    pub requests_max: usize,
    /// From so many waiting entries on the sink takes no more; default 10000.
    pub queue_entries_max: usize,
    /// From so many bytes of waiting entries on the sink takes no more, either; default 64 MiB. What an entry weighs the engine
    /// finds out by samples of the records.
    pub queue_bytes_max: usize,
    /// The wait before a new try, in ms; doubled with each failure in a row, and up to half of it left off by chance. Default 100.
    pub retry_first_ms: u64,
    /// The longest wait before a new try, in ms; default 10000.
    pub retry_most_ms: u64,
    /// How often an entry is tried again before the job fails; default: for ever, under backpressure.
    pub retries_max: Option<u32>,
    /// Where chance begins.
    pub seed: u64,
}

impl Default for AsyncSinkOptions {
    fn default() -> Self {
        AsyncSinkOptions {
            batch_entries_max: 500,
            batch_bytes_max: 5 << 20,
            batch_age_ms: 1000,
            requests_max: 1,
            queue_entries_max: 10_000,
            queue_bytes_max: 64 << 20,
            retry_first_ms: 100,
            retry_most_ms: 10_000,
            retries_max: None,
            seed: 0,
        }
    }
}

impl AsyncSinkOptions {
    fn check(&self, name: &str) -> Result<()> {
        let counts = [
            self.batch_entries_max,
            self.batch_bytes_max,
            self.requests_max,
            self.queue_entries_max,
            self.queue_bytes_max,
        ];
        match counts.contains(&0) {
            true => Err(Error::input(format!("{name}: bounds of batches, requests and the queue must be above 0"))),
            false => Ok(()),
        }
    }

    /// The wait after so many failures in a row.
    fn wait(&self, failures: u32, chance: &mut u64) -> Duration {
        let whole = self.retry_first_ms.saturating_mul(1 << failures.saturating_sub(1).min(32)).min(self.retry_most_ms);
        // SplitMix64.
        *chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (*chance ^ (*chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis(whole - (bits ^ (bits >> 31)) % (whole / 2 + 1))
    }
}

type MakeSubmit<S> = Box<dyn Fn(&WriterContext) -> Result<S> + Send + Sync>;
type Convert<T, E> = Arc<dyn Fn(i64, T, &mut Vec<E>) -> Result<()> + Send + Sync>;
type MakeStrategy = Box<dyn Fn() -> Box<dyn RateStrategy> + Send + Sync>;

/// A sink over a [`Submit`].
pub struct AsyncSink<T, S: Submit> {
    name: String,
    options: AsyncSinkOptions,
    submit: MakeSubmit<S>,
    convert: Convert<T, S::Entry>,
    strategy: MakeStrategy,
}

impl<T, S: Submit> AsyncSink<T, S> {
    /// `submit` makes what sends, once for each request under way; `convert` appends the entries of a record with its event time.
    pub fn new(
        name: impl Into<String>,
        options: AsyncSinkOptions,
        submit: impl Fn(&WriterContext) -> Result<S> + Send + Sync + 'static,
        convert: impl Fn(i64, T, &mut Vec<S::Entry>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let most = options.batch_entries_max.saturating_mul(options.requests_max);
        let strategy = move || Box::new(AdditiveIncrease::new(most, 10)) as Box<dyn RateStrategy>;
        AsyncSink {
            name: name.into(),
            options,
            submit: Box::new(submit),
            convert: Arc::new(convert),
            strategy: Box::new(strategy),
        }
    }

    /// How much may be under way; default [`AdditiveIncrease`] up to what batches and requests allow, by 10.
    pub fn rate_strategy<R: RateStrategy>(mut self, make: impl Fn() -> R + Send + Sync + 'static) -> Self {
        self.strategy = Box::new(move || Box::new(make()));
        self
    }
}

impl<T: 'static, S: Submit> Sink<T> for AsyncSink<T, S> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        self.options.check(&self.name)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                queued_bytes: 0,
                epoch: context.epoch,
                unfinished: BTreeMap::new(),
                flushed: None,
                under_way: 0,
                failures: 0,
                not_before: None,
                strategy: (self.strategy)(),
                chance: self.options.seed.wrapping_add(context.subtask as u64),
                worker_waits: false,
                dropped: false,
                closures: 0,
                failed: None,
            }),
            changed: Condvar::new(),
            waker: context.waker.clone(),
            options: self.options,
        });
        // Made first: when the writer is dropped on an error below, threads already begun end.
        let writer = AsyncWriter {
            shared: Arc::clone(&shared),
            convert: Arc::clone(&self.convert),
            entries: Vec::new(),
            bytes: 0,
        };
        for _ in 0..self.options.requests_max {
            let (submit, shared, name) = ((self.submit)(&context)?, Arc::clone(&shared), self.name.clone());
            std::thread::Builder::new()
                .name(self.name.chars().filter(|c| *c != '`' && *c != '\0').collect())
                .spawn(move || {
                    let work = AssertUnwindSafe(|| run(submit, &shared));
                    let failure = match std::panic::catch_unwind(work) {
                        Ok(Ok(())) => return,
                        Ok(Err(error)) => error.context(&name),
                        Err(_) => Error::bug(format!("{name}: a sending thread panicked")),
                    };
                    let mut state = shared.lock();
                    state.failed.get_or_insert(failure);
                    shared.changed.notify_all();
                    shared.wake_worker(state);
                })
                .map_err(|error| Error::io(format!("start a sending thread of {}", self.name), error))?;
        }
        Ok(Box::new(writer))
    }
}

struct Entry<E> {
    entry: E,
    /// About how many, by what the engine knows of the record.
    bytes: usize,
    /// The epoch it was written in.
    epoch: u64,
    since: Instant,
    tries: u32,
}

struct State<E> {
    queue: VecDeque<Entry<E>>,
    queued_bytes: usize,
    /// The epoch that is open.
    epoch: u64,
    /// By epoch, entries that have not arrived.
    unfinished: BTreeMap<u64, usize>,
    /// Entries up to this epoch are sent without waiting for more.
    flushed: Option<u64>,
    /// Entries under way.
    under_way: usize,
    /// Requests in a row that failed, wholly or in part.
    failures: u32,
    not_before: Option<Instant>,
    strategy: Box<dyn RateStrategy>,
    chance: u64,
    worker_waits: bool,
    /// The writer is gone.
    dropped: bool,
    /// Closures of `pre_commit` that wait, or may come to.
    closures: usize,
    failed: Option<Error>,
}

struct Shared<E> {
    state: Mutex<State<E>>,
    changed: Condvar,
    waker: Waker,
    options: AsyncSinkOptions,
}

impl<E> State<E> {
    fn stopped(&self) -> bool {
        self.failed.is_some() || self.dropped && self.closures == 0
    }

    fn has_room(&self, options: &AsyncSinkOptions) -> bool {
        self.queue.len() < options.queue_entries_max && self.queued_bytes < options.queue_bytes_max
    }

    /// Whether all entries up to `epoch` have arrived.
    fn arrived(&self, epoch: u64) -> bool {
        self.unfinished.range(..=epoch).next().is_none()
    }

    /// A batch may be sent: `Ok(None)`; else how long to wait at most.
    fn wait(&self, options: &AsyncSinkOptions, bytes_full: bool) -> Option<Option<Duration>> {
        let Some(first) = self.queue.front() else { return Some(None) };
        if self.under_way >= self.strategy.entries_max() {
            return Some(None);
        }
        let now = Instant::now();
        if let Some(left) = self.not_before.and_then(|at| at.checked_duration_since(now)).filter(|left| !left.is_zero())
        {
            return Some(Some(left));
        }
        let flushed = self.flushed.is_some_and(|flushed| first.epoch <= flushed);
        let full = bytes_full || self.queue.len() >= options.batch_entries_max || !self.has_room(options);
        if flushed || first.tries > 0 || full {
            return None;
        }
        let age = Duration::from_millis(options.batch_age_ms);
        let left = age.saturating_sub(now.saturating_duration_since(first.since));
        (!left.is_zero()).then_some(Some(left))
    }
}

impl<E> Shared<E> {
    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_worker(&self, mut state: MutexGuard<'_, State<E>>) {
        let wake = std::mem::take(&mut state.worker_waits);
        drop(state);
        if wake {
            self.waker.wake_by_ref();
        }
    }
}

/// One sending thread.
fn run<S: Submit>(mut submit: S, shared: &Shared<S::Entry>) -> Result<()> {
    let options = &shared.options;
    loop {
        let mut state = shared.lock();
        let count = loop {
            if state.stopped() {
                return Ok(());
            }
            let (count, bytes_full) = batch(&state, &submit, options);
            match state.wait(options, bytes_full) {
                None => break count,
                Some(None) => state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Some(left)) => {
                    state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        };
        let taken: Vec<Entry<S::Entry>> = state.queue.drain(..count).collect();
        state.under_way += taken.len();
        state.queued_bytes -= taken.iter().map(|entry| entry.bytes).sum::<usize>();
        shared.wake_worker(state);
        let (mut entries, mut rest) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for Entry { entry, bytes, epoch, since, tries } in taken {
            entries.push(entry);
            rest.push(Entry { entry: (), bytes, epoch, since, tries });
        }
        let (failed, why) = match submit.submit(&entries) {
            Ok(failed) => (failed, None),
            Err(error) if matches!(error.kind(), Kind::External | Kind::Full) => ((0..count).collect(), Some(error)),
            Err(error) => return Err(error),
        };
        completed(shared, (entries, rest), &failed, why)?;
    }
}

/// How many entries the next batch has, and whether it has no room for more.
fn batch<S: Submit>(state: &State<S::Entry>, submit: &S, options: &AsyncSinkOptions) -> (usize, bool) {
    let most = options.batch_entries_max.min(state.strategy.entries_max().saturating_sub(state.under_way)).max(1);
    let mut bytes = 0usize;
    for (count, entry) in state.queue.iter().take(most).enumerate() {
        bytes = bytes.saturating_add(submit.bytes(&entry.entry));
        if bytes > options.batch_bytes_max {
            return (count.max(1), true);
        }
    }
    let count = state.queue.len().min(most);
    (count, bytes == options.batch_bytes_max || count < state.queue.len())
}

/// Entries that were sent, and what is known of each.
type Sent<E> = (Vec<E>, Vec<Entry<()>>);

/// Counts what has arrived, and puts the rest in front of the queue, in order.
fn completed<E>(shared: &Shared<E>, (entries, rest): Sent<E>, failed: &[usize], why: Option<Error>) -> Result<()> {
    let sent = entries.len();
    if let Some(wrong) = failed.iter().find(|index| **index >= sent) {
        return Err(Error::bug(format!("entry {wrong} of a batch of {sent} is said to have failed")));
    }
    let mut again = Vec::new();
    let mut state = shared.lock();
    for (index, (entry, Entry { bytes, epoch, since, tries, .. })) in entries.into_iter().zip(rest).enumerate() {
        if failed.binary_search(&index).is_ok() {
            if shared.options.retries_max.is_some_and(|most| tries >= most) {
                let text = format!("an entry did not arrive in {} tries", u64::from(tries) + 1);
                return Err(why.map_or_else(|| Error::external(&text), |why| why.context(&text)));
            }
            state.queued_bytes += bytes;
            again.push(Entry { entry, bytes, epoch, since, tries: tries + 1 });
        } else if let Some(unfinished) = state.unfinished.get_mut(&epoch) {
            *unfinished -= 1;
            if *unfinished == 0 {
                state.unfinished.remove(&epoch);
            }
        }
    }
    state.under_way -= sent;
    state.strategy.completed(sent, again.len());
    if again.is_empty() {
        (state.failures, state.not_before) = (0, None);
    } else {
        state.failures = state.failures.saturating_add(1);
        let (failures, mut chance) = (state.failures, state.chance);
        state.not_before = Some(Instant::now() + shared.options.wait(failures, &mut chance));
        state.chance = chance;
    }
    again.into_iter().rev().for_each(|entry| state.queue.push_front(entry));
    drop(state);
    shared.changed.notify_all();
    Ok(())
}

struct AsyncWriter<T, E> {
    shared: Arc<Shared<E>>,
    convert: Convert<T, E>,
    entries: Vec<E>,
    /// Of the batch that comes next.
    bytes: usize,
}

impl<T, E: Send + 'static> SinkWriter<T> for AsyncWriter<T, E> {
    fn ready(&mut self) -> bool {
        let mut state = self.shared.lock();
        let ready = state.failed.is_some() || state.has_room(&self.shared.options);
        state.worker_waits = !ready;
        ready
    }

    fn weigh(&mut self, bytes: usize) {
        self.bytes = bytes;
    }

    fn write(&mut self, batch: Vec<(i64, T)>) -> Result<()> {
        for (timestamp_ms, record) in batch {
            (self.convert)(timestamp_ms, record, &mut self.entries)?;
        }
        let mut state = self.shared.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let (epoch, since) = (state.epoch, Instant::now());
        if !self.entries.is_empty() {
            *state.unfinished.entry(epoch).or_default() += self.entries.len();
        }
        let bytes = std::mem::take(&mut self.bytes).div_ceil(self.entries.len().max(1));
        state.queued_bytes += bytes * self.entries.len();
        state.queue.extend(self.entries.drain(..).map(|entry| Entry { entry, bytes, epoch, since, tries: 0 }));
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    fn pre_commit(&mut self, epoch: u64) -> Result<PreCommit> {
        let mut state = self.shared.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let closed = state.epoch.max(epoch);
        state.flushed = Some(closed);
        state.epoch = closed + 1;
        state.closures += 1;
        drop(state);
        self.shared.changed.notify_all();
        let waiting = Waiting(Arc::clone(&self.shared));
        Ok(Box::new(move || {
            let mut state = waiting.0.lock();
            loop {
                if state.arrived(closed) {
                    return Ok(Vec::new());
                }
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                state = waiting.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }))
    }
}

/// Held by a closure of `pre_commit`.
struct Waiting<E>(Arc<Shared<E>>);

impl<E> Drop for Waiting<E> {
    fn drop(&mut self) {
        self.0.lock().closures -= 1;
        self.0.changed.notify_all();
    }
}

impl<T, E> Drop for AsyncWriter<T, E> {
    fn drop(&mut self) {
        self.shared.lock().dropped = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_the_same_with_the_same_seed() {
        let options = AsyncSinkOptions { retry_first_ms: 100, retry_most_ms: 1000, ..AsyncSinkOptions::default() };
        let waits = |seed: u64| -> Vec<u64> {
            let mut chance = seed;
            (1..=40).map(|failures| options.wait(failures, &mut chance).as_millis() as u64).collect()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
        for (at, wait) in waits(7).into_iter().enumerate() {
            let whole = (100u64 << at.min(20)).min(1000);
            assert!((whole / 2..=whole).contains(&wait), "{wait} after {} failures", at + 1);
        }
    }

    #[test]
    fn the_rate_halves_with_failures_and_grows_by_steps() {
        let mut rate = AdditiveIncrease::new(100, 10);
        let mut seen = Vec::new();
        for failed in [0, 1, 3, 0, 0, 1, 1, 1, 1, 1, 1, 0] {
            rate.completed(10, failed);
            seen.push(rate.entries_max());
        }
        assert_eq!(seen, [100, 50, 25, 35, 45, 22, 11, 5, 2, 1, 1, 11]);
    }
}
