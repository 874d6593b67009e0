//! How a sink that talks to the outside meets the worker, which never waits: a bounded queue and a thread per subtask
//! that delivers in batches of whatever waits, again and again while the other side is away.
//!
//! ```text
//! worker                                  queue                       delivering thread
//! SinkWriter::write ── Buffered::push ──▶ items … mark(7) items ──▶ Deliver::deliver, until it succeeds
//! SinkWriter::pre_commit(7) ─ mark(7) ─▶                          ─▶ Deliver::close(7) → tokens
//! closure of pre_commit ◀──────────────────── answer ◀───────────────┘
//! ```

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tidemill_core::sink::{PreCommit, SinkWriter, Token};
use tidemill_core::{Error, Kind, Result, WATERMARK_MIN};

/// What one sink does on its own thread.
pub trait Deliver: Send + 'static {
    /// What is delivered.
    type Item: Send + 'static;

    /// Delivers all of `items`, in order; on `Ok` all have arrived. After an error of `Kind::External` or `Kind::Full`
    /// it is called again with the same items, so what had arrived of them must not count twice; other errors fail the
    /// job.
    fn deliver(&mut self, items: &[Self::Item]) -> Result<()>;

    /// The watermark at the end of the epoch that is closed next.
    fn watermark(&mut self, watermark_ms: i64) {
        let _ = watermark_ms;
    }

    /// All items of the epoch were delivered: makes them durable and returns the tokens to commit them by. Called again
    /// after a failure like [`Deliver::deliver`].
    fn close(&mut self, epoch: u64) -> Result<Vec<Token>> {
        let _ = epoch;
        Ok(Vec::new())
    }
}

/// The bounds of a buffered sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferOptions {
    /// From so many waiting items on the sink takes no more; default 16384.
    pub queue_items_max: usize,
    /// From so many bytes of waiting items on the sink takes no more, either; default 64 MiB. What an item weighs the engine
    /// finds out by samples of the records.
    pub queue_bytes_max: usize,
    /// The most items delivered at once; default 4096.
    pub batch_items_max: usize,
    /// About the most bytes delivered at once, or a single item; default 16 MiB.
    pub batch_bytes_max: usize,
    /// The wait before the first new try after a failure, in ms; doubled each time. Default 20.
    pub retry_first_ms: u64,
    /// The longest wait between two tries, in ms; default 2000.
    pub retry_most_ms: u64,
    /// How often to try again before the job fails; default: for ever, under backpressure.
    pub retries_max: Option<u32>,
}

impl Default for BufferOptions {
    fn default() -> Self {
        BufferOptions {
            queue_items_max: 16_384,
            queue_bytes_max: 64 << 20,
            batch_items_max: 4096,
            batch_bytes_max: 16 << 20,
            retry_first_ms: 20,
            retry_most_ms: 2000,
            retries_max: None,
        }
    }
}

enum Entry<I> {
    /// What was written at once.
    Items(Items<I>),
    /// The end of an epoch.
    Mark { epoch: u64, watermark_ms: i64, answer: SyncSender<Result<Vec<Token>>> },
}

struct Items<I> {
    items: Vec<I>,
    bytes: usize,
}

impl<I> Items<I> {
    /// Cuts off what is behind the first items, so many at most and of so many bytes, one at least.
    fn split_off(&mut self, most: usize, bytes_max: usize) -> Option<Self> {
        let each = self.bytes.div_ceil(self.items.len().max(1)).max(1);
        let most = most.min(bytes_max / each).max(1);
        if self.items.len() <= most {
            return None;
        }
        let rest = self.items.split_off(most);
        let bytes = self.bytes.saturating_sub(each * most);
        self.bytes -= bytes;
        Some(Items { items: rest, bytes })
    }
}

struct State<I> {
    queue: VecDeque<Entry<I>>,
    /// Items in the queue, and their bytes.
    queued: usize,
    queued_bytes: usize,
    worker_waits: bool,
    watermark_ms: i64,
    /// The writer is gone.
    dropped: bool,
    /// Closures of `pre_commit` that wait, or may come to.
    closures: usize,
    failed: Option<Error>,
}

struct Shared<I> {
    state: Mutex<State<I>>,
    /// Something to do, or the end.
    changed: Condvar,
    waker: Waker,
    options: BufferOptions,
}

impl<I> State<I> {
    fn has_room(&self, options: &BufferOptions) -> bool {
        self.queued < options.queue_items_max && self.queued_bytes < options.queue_bytes_max
    }

    /// Nobody is left who wants anything delivered.
    fn stopped(&self) -> bool {
        self.dropped && self.closures == 0
    }
}

impl<I> Shared<I> {
    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the thread's failure.
    fn failure(&self) -> Error {
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.failed {
                return error.clone();
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wake_worker(&self, mut state: MutexGuard<'_, State<I>>) {
        let wake = std::mem::take(&mut state.worker_waits);
        drop(state);
        if wake {
            self.waker.wake_by_ref();
        }
    }
}

/// The worker's side. The thread ends soon after this and all closures of [`Buffered::pre_commit`] are dropped; what
/// was not asked for by one of them may then not be delivered.
pub struct Buffered<I> {
    shared: Arc<Shared<I>>,
}

impl<I: Send + 'static> Buffered<I> {
    /// Starts the thread; `name` is the sink's, for messages.
    pub fn start<D: Deliver<Item = I>>(
        name: &str,
        waker: Waker,
        options: BufferOptions,
        deliver: D,
    ) -> Result<Buffered<I>> {
        let state = State {
            queue: VecDeque::new(),
            queued: 0,
            queued_bytes: 0,
            worker_waits: false,
            watermark_ms: WATERMARK_MIN,
            dropped: false,
            closures: 0,
            failed: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), waker, options });
        let theirs = Arc::clone(&shared);
        let title = name.to_string();
        std::thread::Builder::new()
            .name(name.chars().filter(|c| *c != '`' && *c != '\0').collect())
            .spawn(move || {
                let work = AssertUnwindSafe(|| run(deliver, &theirs));
                let failure = match std::panic::catch_unwind(work) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error.context(&title),
                    Err(_) => Error::bug(format!("{title}: its writing thread panicked")),
                };
                let mut state = theirs.lock();
                // Their senders go with the marks: whoever waits for an answer looks for the failure.
                state.queue.clear();
                (state.queued, state.queued_bytes) = (0, 0);
                state.failed = Some(failure);
                theirs.changed.notify_all();
                theirs.wake_worker(state);
            })
            .map_err(|error| Error::io(format!("start the writing thread of {name}"), error))?;
        Ok(Buffered { shared })
    }

    /// Whether there is room. When not, the waker is called once there is. After a failure there is, so that
    /// [`Buffered::push`] can tell of it.
    pub fn ready(&self) -> bool {
        let mut state = self.shared.lock();
        let ready = state.failed.is_some() || state.has_room(&self.shared.options);
        state.worker_waits = !ready;
        ready
    }

    /// Queues items of about so many `bytes`; takes them all even where they go beyond the bound.
    pub fn push(&self, items: impl IntoIterator<Item = I>, bytes: usize) -> Result<()> {
        let items: Vec<I> = items.into_iter().collect();
        let mut state = self.shared.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        state.queued += items.len();
        state.queued_bytes += bytes;
        state.queue.push_back(Entry::Items(Items { items, bytes }));
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// What [`Deliver::watermark`] is told at the end of the epoch.
    pub fn watermark(&self, watermark_ms: i64) {
        self.shared.lock().watermark_ms = watermark_ms;
    }

    /// Closes an epoch: the closure waits until all pushed before was delivered and [`Deliver::close`] has its tokens.
    pub fn pre_commit(&self, epoch: u64) -> Result<PreCommit> {
        let (answer, answered): (_, Receiver<Result<Vec<Token>>>) = sync_channel(1);
        let mut state = self.shared.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let watermark_ms = state.watermark_ms;
        state.queue.push_back(Entry::Mark { epoch, watermark_ms, answer });
        state.closures += 1;
        drop(state);
        self.shared.changed.notify_all();
        let waiting = Waiting(Arc::clone(&self.shared));
        Ok(Box::new(move || match answered.recv() {
            Ok(answer) => answer,
            // The thread failed; it says why in a moment.
            Err(_) => Err(waiting.0.failure()),
        }))
    }
}

/// Held by a closure of `pre_commit`.
struct Waiting<I>(Arc<Shared<I>>);

impl<I> Drop for Waiting<I> {
    fn drop(&mut self) {
        self.0.lock().closures -= 1;
        self.0.changed.notify_all();
    }
}

impl<I> Drop for Buffered<I> {
    fn drop(&mut self) {
        self.shared.lock().dropped = true;
        self.shared.changed.notify_all();
    }
}

/// Makes items of records with their timestamps.
type Convert<T, I> = dyn FnMut(Vec<(i64, T)>) -> Result<Vec<I>>;

/// A [`SinkWriter`] that turns records into items and leaves the rest to [`Buffered`].
pub struct BufferedWriter<T, I> {
    buffer: Buffered<I>,
    convert: Box<Convert<T, I>>,
    /// Of the batch that comes next.
    bytes: usize,
}

impl<T, I: Send + 'static> BufferedWriter<T, I> {
    /// `convert` appends the items of a record with its timestamp.
    pub fn new(buffer: Buffered<I>, mut convert: impl FnMut(i64, T, &mut Vec<I>) -> Result<()> + 'static) -> Self {
        Self::of_batches(buffer, move |batch| {
            let mut items = Vec::with_capacity(batch.len());
            for (timestamp_ms, record) in batch {
                convert(timestamp_ms, record, &mut items)?;
            }
            Ok(items)
        })
    }

    /// `convert` makes the items of a whole batch.
    pub fn of_batches(buffer: Buffered<I>, convert: impl FnMut(Vec<(i64, T)>) -> Result<Vec<I>> + 'static) -> Self {
        BufferedWriter { buffer, convert: Box::new(convert), bytes: 0 }
    }
}

impl<T, I: Send + 'static> SinkWriter<T> for BufferedWriter<T, I> {
    fn ready(&mut self) -> bool {
        self.buffer.ready()
    }

    fn weigh(&mut self, bytes: usize) {
        self.bytes = bytes;
    }

    fn write(&mut self, batch: Vec<(i64, T)>) -> Result<()> {
        self.buffer.push((self.convert)(batch)?, std::mem::take(&mut self.bytes))
    }

    fn watermark(&mut self, watermark_ms: i64) -> Result<()> {
        self.buffer.watermark(watermark_ms);
        Ok(())
    }

    fn pre_commit(&mut self, epoch: u64) -> Result<PreCommit> {
        self.buffer.pre_commit(epoch)
    }
}

/// The delivering thread.
fn run<D: Deliver>(mut deliver: D, shared: &Shared<D::Item>) -> Result<()> {
    let mut batch = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.queue.is_empty() && !state.stopped() {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped() {
            return Ok(());
        }
        let (mut mark, mut batch_bytes) = (None, 0);
        let BufferOptions { batch_items_max, batch_bytes_max, .. } = shared.options;
        while batch.len() < batch_items_max && (batch.is_empty() || batch_bytes < batch_bytes_max) {
            match state.queue.pop_front() {
                Some(Entry::Items(mut some)) => {
                    if let Some(rest) =
                        some.split_off(batch_items_max - batch.len(), batch_bytes_max.saturating_sub(batch_bytes))
                    {
                        state.queue.push_front(Entry::Items(rest));
                    }
                    state.queued -= some.items.len();
                    state.queued_bytes -= some.bytes;
                    batch_bytes += some.bytes;
                    batch.append(&mut some.items);
                }
                Some(Entry::Mark { epoch, watermark_ms, answer }) => {
                    deliver.watermark(watermark_ms);
                    mark = Some((epoch, answer));
                    break;
                }
                None => break,
            }
        }
        if state.has_room(&shared.options) {
            shared.wake_worker(state);
        } else {
            drop(state);
        }
        if !batch.is_empty() {
            if again_and_again(shared, || deliver.deliver(&batch))?.is_none() {
                return Ok(());
            }
            batch.clear();
        }
        if let Some((epoch, answer)) = mark {
            let Some(tokens) = again_and_again(shared, || deliver.close(epoch))? else { return Ok(()) };
            // Nobody waits any more when the job was cancelled.
            let _ = answer.send(Ok(tokens));
        }
    }
}

/// Tries until it succeeds; `None` when the writer went away meanwhile.
fn again_and_again<I, R>(shared: &Shared<I>, mut attempt: impl FnMut() -> Result<R>) -> Result<Option<R>> {
    let mut wait_ms = shared.options.retry_first_ms;
    let mut retries = 0;
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        let may_help = matches!(error.kind(), Kind::External | Kind::Full);
        if !may_help || shared.options.retries_max.is_some_and(|most| retries >= most) {
            return Err(error);
        }
        retries += 1;
        let wait = Duration::from_millis(wait_ms);
        let state = shared.lock();
        let (state, _) = shared
            .changed
            .wait_timeout_while(state, wait, |state| !state.stopped())
            .unwrap_or_else(PoisonError::into_inner);
        if state.stopped() {
            return Ok(None);
        }
        wait_ms = (wait_ms * 2).min(shared.options.retry_most_ms);
    }
}
