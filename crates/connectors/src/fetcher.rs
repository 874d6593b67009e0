//! How a connector that blocks meets the worker, which never waits: a thread per subtask fetches and decodes, a bounded
//! queue hands over, the worker is woken when it waits for more.
//!
//! ```text
//! fetching thread                      queue                    worker
//! Fetch::fetch ── Emitter::push ──▶ batches, at most 8 ──▶ SourceReader::poll
//!   ▲ waits for room, new splits                              │ position of the last record emitted
//!   └──────────────── woken by ◀──────────────────────────────┘ stands in the split
//! ```
//!
//! Every record travels with the position behind it, so a snapshot is right whatever still waits in the queue. A batch is
//! handed over whole: its records change places with the worker's empty ones, which go back to be filled again.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_core::source::{Poll, ReaderContext, SourceOutput, SourceReader, Split};
use tidemill_core::{DeadLetter, Error, Result, SharedClock};

/// How many batches may wait for the worker.
pub const QUEUE_BATCHES_MAX: usize = 8;

/// A full queue is filled again when so few wait: several batches for each time the thread is woken.
const QUEUE_REFILLED_AT: usize = QUEUE_BATCHES_MAX / 2;

/// How many records a batch holds at most.
pub const BATCH_RECORDS_MAX: usize = 1024;

/// A batch is full with so many bytes, too: a queue of large records is as bounded as one of small ones.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// What one connector does on its own thread.
pub trait Fetch: Send + 'static {
    /// What records become.
    type Value: Send + 'static;
    /// Where to go on in a split.
    type Position: Clone + Send + Serialize + DeserializeOwned + 'static;

    /// Takes over a split; `index` is what [`Emitter::push`] wants. `None`: from the beginning.
    fn add_split(&mut self, index: usize, id: &str, position: Option<Self::Position>) -> Result<()>;

    /// Reads some records, or waits for them; comes back soon after [`Fetch::interrupter`] was called, and at once when
    /// [`Emitter::push`] says so.
    fn fetch(&mut self, out: &mut Emitter<Self::Value, Self::Position>) -> Result<Fetched>;

    /// Whether it can leave out single splits; see [`Fetch::pause_splits`]. Default: no.
    fn can_pause(&self) -> bool {
        false
    }

    /// Reads nothing of the splits with `paused[index]` from now on, until it is told otherwise. Splits beyond the list are
    /// not paused.
    fn pause_splits(&mut self, paused: &[bool]) {
        let _ = paused;
    }

    /// Ends a wait inside [`Fetch::fetch`] from another thread. Not needed by those that never wait there.
    fn interrupter(&self) -> Box<dyn Fn() + Send + Sync> {
        Box::new(|| {})
    }
}

/// What [`Fetch::fetch`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// There may be more at once.
    More,
    /// Nothing now: ask again after this time, or when there are new splits.
    Idle(Duration),
    /// All splits are finished; ask again when there are new ones.
    Done,
}

/// What was read of one split, in order.
struct Batch<T, P> {
    split: usize,
    records: Vec<(i64, T)>,
    /// Behind each of the records.
    positions: Vec<P>,
    letters: Vec<Letter<P>>,
    /// What they were made of.
    bytes: usize,
    fetched_ms: i64,
}

/// A record that could not be read.
struct Letter<P> {
    /// Records of the batch before it.
    before: usize,
    letter: DeadLetter,
    position: P,
}

impl<T, P> Batch<T, P> {
    fn new() -> Self {
        Batch { split: 0, records: Vec::new(), positions: Vec::new(), letters: Vec::new(), bytes: 0, fetched_ms: 0 }
    }

    fn len(&self) -> usize {
        self.records.len() + self.letters.len()
    }

    fn is_full(&self) -> bool {
        self.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Moves all of it to `output` and returns the position behind it.
    fn emit(&mut self, output: &mut SourceOutput<T>) -> Option<P> {
        let records = self.records.len();
        self.bytes = 0;
        output.push_batch(self.split, &mut self.records);
        let mut position = self.positions.pop();
        self.positions.clear();
        for Letter { before, letter, position: behind } in self.letters.drain(..) {
            output.reject(letter);
            if before == records {
                position = Some(behind);
            }
        }
        position
    }

    /// Moves what comes first to `output`, `most` of it, and returns the position behind that.
    fn emit_some(&mut self, most: usize, output: &mut SourceOutput<T>) -> Option<P> {
        let letters = self.letters.iter().enumerate().take_while(|(at, letter)| letter.before + at < most).count();
        let records = self.records.len().min(most - letters);
        let mut first = Batch {
            split: self.split,
            records: self.records.drain(..records).collect(),
            positions: self.positions.drain(..records).collect(),
            letters: self.letters.drain(..letters).collect(),
            bytes: 0,
            fetched_ms: self.fetched_ms,
        };
        self.letters.iter_mut().for_each(|letter| letter.before -= records);
        first.emit(output)
    }
}

enum Entry<T, P> {
    Batch(Batch<T, P>),
    /// This split is read to its end.
    Finished(usize),
    Failed(Error),
}

impl<T, P> Entry<T, P> {
    fn split(&self) -> Option<usize> {
        match self {
            Entry::Batch(Batch { split, .. }) | Entry::Finished(split) => Some(*split),
            Entry::Failed(_) => None,
        }
    }

    /// Its records, also those that could not be read.
    fn len(&self) -> usize {
        match self {
            Entry::Batch(batch) => batch.len(),
            Entry::Finished(_) | Entry::Failed(_) => 0,
        }
    }
}

struct NewSplit<P> {
    index: usize,
    id: String,
    position: Option<P>,
}

struct State<T, P> {
    queue: VecDeque<Entry<T, P>>,
    /// Records in the queue.
    queued: u64,
    /// Empty batches, to be filled again.
    spare: Vec<Batch<T, P>>,
    new_splits: Vec<NewSplit<P>>,
    /// Which splits to leave out, when that has changed.
    new_pauses: Option<Vec<bool>>,
    /// The worker was told `Pending` and wants to be woken.
    worker_waits: bool,
    stopped: bool,
}

struct Shared<T, P> {
    state: Mutex<State<T, P>>,
    /// Room in the queue, new splits or the end.
    changed: Condvar,
    waker: Waker,
    /// Records known to wait behind what was fetched; `u64::MAX`: not known.
    pending_outside: AtomicU64,
}

impl<T, P> Shared<T, P> {
    fn lock(&self) -> MutexGuard<'_, State<T, P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, State<T, P>>) -> MutexGuard<'a, State<T, P>> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an entry into the queue when there is room; `false` when the reader is gone.
    fn send(&self, entry: Entry<T, P>) -> bool {
        let mut state = self.lock();
        while state.queue.len() >= QUEUE_BATCHES_MAX && !state.stopped {
            state = self.wait(state);
        }
        if state.stopped {
            return false;
        }
        state.queued += entry.len() as u64;
        state.queue.push_back(entry);
        let wake = std::mem::take(&mut state.worker_waits);
        drop(state);
        if wake {
            self.waker.wake_by_ref();
        }
        true
    }
}

/// Takes what a [`Fetch`] reads.
pub struct Emitter<T, P> {
    shared: Arc<Shared<T, P>>,
    clock: SharedClock,
    batch: Batch<T, P>,
}

impl<T, P> Emitter<T, P> {
    /// Emits a record, made of so many `bytes`, and the position behind it, or why there is none. Waits for room; `false`: the
    /// reader is gone or has been stopped, so come back from `fetch`.
    #[must_use]
    pub fn push(
        &mut self,
        split: usize,
        timestamp_ms: i64,
        value: Result<T, DeadLetter>,
        bytes: usize,
        position: P,
    ) -> bool {
        if (split != self.batch.split || self.batch.is_full()) && !self.flush() {
            return false;
        }
        self.batch.split = split;
        self.batch.bytes += bytes;
        let Batch { records, positions, letters, .. } = &mut self.batch;
        match value {
            Ok(value) => {
                records.push((timestamp_ms, value));
                positions.push(position);
            }
            Err(letter) => letters.push(Letter { before: records.len(), letter, position }),
        }
        true
    }

    /// Says that a split is read to its end.
    #[must_use]
    pub fn finish(&mut self, split: usize) -> bool {
        self.flush() && self.shared.send(Entry::Finished(split))
    }

    /// Whether the reader is gone.
    pub fn is_stopped(&self) -> bool {
        self.shared.lock().stopped
    }

    /// Tells how many records are known to wait outside, behind what was pushed.
    pub fn set_pending(&self, records: u64) {
        self.shared.pending_outside.store(records.min(u64::MAX - 1), Ordering::Relaxed);
    }

    /// Hands over what was pushed; for a [`Fetch`] that goes on to wait by itself.
    #[must_use]
    pub fn flush(&mut self) -> bool {
        if self.batch.len() == 0 {
            return true;
        }
        self.batch.fetched_ms = self.clock.now_ms();
        let empty = self.shared.lock().spare.pop().unwrap_or_else(Batch::new);
        self.shared.send(Entry::Batch(std::mem::replace(&mut self.batch, empty)))
    }
}

/// The worker's side: a [`SourceReader`] over a [`Fetch`] on its own thread. The thread begins with the first split and
/// ends soon after this is dropped.
pub struct FetchReader<F: Fetch> {
    shared: Arc<Shared<F::Value, F::Position>>,
    /// Until the thread takes it.
    fetch: Option<F>,
    interrupt: Box<dyn Fn() + Send + Sync>,
    thread_name: String,
    splits: Vec<Held<F::Position>>,
    unfinished: usize,
    /// What is left of the batch at hand.
    current: Option<Batch<F::Value, F::Position>>,
    /// A batch that was emitted, on its way back.
    spare: Option<Batch<F::Value, F::Position>>,
    clock: SharedClock,
    /// When what was emitted last was fetched.
    fetched_ms: Option<i64>,
    failed: Option<Error>,
    can_pause: bool,
    paused: Vec<bool>,
    /// What was fetched of splits that are paused: at most the queue and what one more [`Fetch::fetch`] brings.
    held_back: VecDeque<Entry<F::Value, F::Position>>,
}

struct Held<P> {
    split: Split,
    emitted: Option<P>,
}

impl<F: Fetch> FetchReader<F> {
    /// A reader over `fetch`; `name` is the source's, for messages.
    pub fn new(name: &str, context: &ReaderContext, fetch: F) -> Self {
        let state = State {
            queue: VecDeque::new(),
            queued: 0,
            spare: Vec::new(),
            new_splits: Vec::new(),
            new_pauses: None,
            worker_waits: false,
            stopped: false,
        };
        FetchReader {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Condvar::new(),
                waker: context.waker.clone(),
                pending_outside: AtomicU64::new(u64::MAX),
            }),
            interrupt: fetch.interrupter(),
            can_pause: fetch.can_pause(),
            paused: Vec::new(),
            held_back: VecDeque::new(),
            fetch: Some(fetch),
            thread_name: format!("{name} [{}]", context.subtask),
            splits: Vec::new(),
            unfinished: 0,
            current: None,
            spare: None,
            clock: context.clock.clone(),
            fetched_ms: None,
            failed: None,
        }
    }

    /// The position behind the last record emitted of a split, or where it begins; `None` at the beginning of all.
    pub fn position(&self, split: usize) -> Option<&F::Position> {
        self.splits.get(split).and_then(|held| held.emitted.as_ref())
    }

    fn start(&mut self) -> Result<()> {
        let Some(fetch) = self.fetch.take() else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        let (name, clock) = (self.thread_name.clone(), self.clock.clone());
        std::thread::Builder::new()
            // The kernel shows 15 bytes of it.
            .name(name.chars().filter(|c| *c != '`' && *c != '\0').collect())
            .spawn(move || {
                let work = AssertUnwindSafe(|| run(fetch, &shared, clock));
                let failure = match std::panic::catch_unwind(work) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error.context(&name),
                    Err(_) => Error::bug(format!("{name}: its reading thread panicked")),
                };
                shared.send(Entry::Failed(failure));
            })
            .map_err(|error| Error::io(format!("start the reading thread of {}", self.thread_name), error))?;
        Ok(())
    }

    /// Moves the batch at hand to `output`, whole if it has room; a part of it only into an empty output, so that batches of
    /// odd sizes are not cut again and again.
    fn emit_current(&mut self, output: &mut SourceOutput<F::Value>) {
        let Some(batch) = &mut self.current else { return };
        let (room, split, fetched_ms) = (output.room(), batch.split, batch.fetched_ms);
        let position = if batch.len() <= room {
            let position = batch.emit(output);
            self.spare = self.current.take();
            position
        } else if output.is_empty() {
            batch.emit_some(room, output)
        } else {
            None
        };
        if position.is_some() {
            self.splits[split].emitted = position;
            self.fetched_ms = Some(fetched_ms);
        }
    }

    fn is_paused(&self, entry: &Entry<F::Value, F::Position>) -> bool {
        entry.split().is_some_and(|split| self.paused.get(split).copied().unwrap_or(false))
    }

    /// The next entry of a split that is not paused.
    fn next_entry(&mut self) -> Option<Entry<F::Value, F::Position>> {
        if let Some(at) = self.held_back.iter().position(|entry| !self.is_paused(entry)) {
            return self.held_back.remove(at);
        }
        loop {
            let entry = self.take_entry()?;
            if !self.is_paused(&entry) {
                return Some(entry);
            }
            self.held_back.push_back(entry);
        }
    }

    fn take_entry(&mut self) -> Option<Entry<F::Value, F::Position>> {
        let mut state = self.shared.lock();
        let entry = state.queue.pop_front()?;
        state.queued -= entry.len() as u64;
        if state.spare.len() < QUEUE_BATCHES_MAX {
            state.spare.extend(self.spare.take());
        }
        if state.queue.len() == QUEUE_REFILLED_AT {
            self.shared.changed.notify_all();
        }
        Some(entry)
    }
}

impl<F: Fetch> SourceReader<F::Value> for FetchReader<F> {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        let mut added = Vec::with_capacity(splits.len());
        for split in splits {
            let position: Option<F::Position> = match &split.position {
                serde_json::Value::Null => None,
                position => Some(serde_json::from_value(position.clone()).map_err(|error| {
                    Error::input(format!(
                        "{}: split `{}`: {position} is no position: {error}",
                        self.thread_name, split.id
                    ))
                })?),
            };
            added.push(NewSplit { index: self.splits.len(), id: split.id.clone(), position: position.clone() });
            self.splits.push(Held { split, emitted: position });
        }
        if added.is_empty() {
            return Ok(());
        }
        self.unfinished += added.len();
        self.shared.lock().new_splits.extend(added);
        self.shared.changed.notify_all();
        (self.interrupt)();
        self.start()
    }

    fn poll(&mut self, output: &mut SourceOutput<F::Value>) -> Result<Poll> {
        loop {
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            self.emit_current(output);
            if self.current.is_some() {
                return Ok(Poll::More);
            }
            match self.next_entry() {
                Some(Entry::Batch(batch)) => self.current = Some(batch),
                Some(Entry::Finished(split)) => {
                    self.unfinished -= 1;
                    output.finish_split(split);
                }
                // What was read before it is handed over first.
                Some(Entry::Failed(error)) if output.is_empty() => self.failed = Some(error),
                Some(Entry::Failed(error)) => {
                    self.failed = Some(error);
                    return Ok(Poll::More);
                }
                None if self.unfinished == 0 => return Ok(Poll::End),
                None => {
                    let mut state = self.shared.lock();
                    if state.queue.is_empty() {
                        state.worker_waits = true;
                        return Ok(Poll::Pending { wake_at_ms: None });
                    }
                }
            }
        }
    }

    fn pause_splits(&mut self, paused: &[bool]) -> bool {
        if !self.can_pause {
            return false;
        }
        if self.paused != paused {
            self.paused = paused.to_vec();
            // Nothing of its split is held back, so in front of all it is in its place.
            if let Some(rest) = self.current.take() {
                self.held_back.push_front(Entry::Batch(rest));
            }
            self.shared.lock().new_pauses = Some(paused.to_vec());
            self.shared.changed.notify_all();
            (self.interrupt)();
        }
        true
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        let with_position = |held: &Held<F::Position>| {
            let mut split = held.split.clone();
            if let Some(position) = &held.emitted {
                split.position = serde_json::to_value(position)
                    .map_err(|error| Error::bug(format!("a position does not become JSON: {error}")))?;
            }
            Ok(split)
        };
        self.splits.iter().map(with_position).collect()
    }

    fn pending_records(&self) -> Option<u64> {
        let outside = self.shared.pending_outside.load(Ordering::Relaxed);
        let current = self.current.as_ref().map_or(0, Batch::len);
        let at_hand = (current + self.held_back.iter().map(Entry::len).sum::<usize>()) as u64;
        (outside != u64::MAX).then(|| outside + self.shared.lock().queued + at_hand)
    }

    fn fetched_ms(&self) -> Option<i64> {
        self.fetched_ms
    }
}

impl<F: Fetch> Drop for FetchReader<F> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        (self.interrupt)();
    }
}

/// The fetching thread.
fn run<F: Fetch>(mut fetch: F, shared: &Arc<Shared<F::Value, F::Position>>, clock: SharedClock) -> Result<()> {
    let mut emitter = Emitter { shared: Arc::clone(shared), clock, batch: Batch::new() };
    let mut next = Fetched::More;
    loop {
        let mut state = shared.lock();
        while state.new_splits.is_empty() && state.new_pauses.is_none() && !state.stopped && next != Fetched::More {
            if let Fetched::Idle(time) = next {
                let (guard, _) = shared.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner);
                state = guard;
                next = Fetched::More;
            } else {
                state = shared.wait(state);
            }
        }
        if state.stopped {
            return Ok(());
        }
        let new_splits = std::mem::take(&mut state.new_splits);
        let new_pauses = state.new_pauses.take();
        drop(state);
        if let Some(paused) = new_pauses {
            fetch.pause_splits(&paused);
        }
        for split in new_splits {
            fetch.add_split(split.index, &split.id, split.position)?;
        }
        let fetched = fetch.fetch(&mut emitter);
        // Also before an error travels: what was read in front of it is good.
        if !emitter.flush() {
            return Ok(());
        }
        next = fetched?;
    }
}
