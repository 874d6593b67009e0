//! What all tables on disk of a process share: the scratch folder, the memory limit with its parts, and the threads that
//! write out and merge what tables put into their stores.
//!
//! The folder is scratch: it begins empty with each start, since a job that starts again loads its state from a checkpoint.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use lsm_tree::{AbstractTree, AnyTree, Cache, DescriptorTable, InternalValue, SeqNo, SequenceNumberCounter, ValueType};
use tidemill_core::{Error, Result};

use super::buffer::Sealed;
use super::scratch::Scratch;

/// The least memory that can be given to the disk backend, in bytes.
pub const STATE_MEMORY_MIN_BYTES: usize = 1024 * 1024;

/// Files of all stores held open at a time.
const OPEN_FILES_MAX: usize = 256;

/// Buffers of a store: one is filled, the other is written out.
pub(super) const BUFFERS: usize = 2;

/// A buffer is never smaller, in bytes, however many tables share the memory.
const BUFFER_MIN_BYTES: usize = 64 * 1024;

/// A buffer is never larger, in bytes: a worker may have to wait while one is put in order or written out.
const BUFFER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A store with so many runs in its first level takes no more before some are merged.
const RUNS_MAX: usize = 32;

/// So many runs in a store's first level are merged into the next. A look for a key asks the filter of each; merging them
/// later writes less (measured: 8 and 12 take a tenth and a fiftieth more of processor time in all, 24 no less).
const RUNS_WANTED: u8 = 16;

/// Files that a merge writes have about so many bytes.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Whoever waits for room looks at least this often whether there is some.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The scratch folder of a process and what its tables share.
pub(crate) struct DiskHome {
    scratch: Scratch,
    memory_max: usize,
    buffer_min: usize,
    blocks: Arc<Cache>,
    descriptors: Arc<DescriptorTable>,
    tables: AtomicUsize,
    names: AtomicUsize,
    health: Arc<Health>,
    flushes: Mutex<Option<Sender<Arc<Upkeep>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How the background work is going.
#[derive(Default)]
struct Health {
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
    stopping: AtomicBool,
    progress: Condvar,
}

/// A store as the threads see it.
pub(crate) struct Upkeep {
    pub tree: AnyTree,
    pub seqno: SequenceNumberCounter,
    pub folder: PathBuf,
    /// To be written out, the earliest first.
    sealed: Mutex<VecDeque<Arc<Sealed>>>,
    flush_asked: AtomicBool,
    merge_asked: AtomicBool,
    /// What is older than this may be needed by who makes an iterator now; no number is larger when nobody does.
    beginning: AtomicU64,
    /// Files with nothing but keys before this one go.
    forgotten: Mutex<Option<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error of the store, with what was tried.
pub(super) fn store_error(tried: &str, folder: &Path, error: lsm_tree::Error) -> Error {
    let tried = format!("{tried} the state store in `{}`", folder.display());
    match error {
        lsm_tree::Error::Io(error) => Error::io(tried, error).hint(
            "make room on its disk, or name a folder on a larger one (`state_dir`, `TIDEMILL_STATE_DIR`); the job goes on \
             from its last checkpoint",
        ),
        other => Error::corrupt(format!("cannot {tried}: {other:?}")),
    }
}

impl Upkeep {
    pub fn new(tree: AnyTree, seqno: SequenceNumberCounter, folder: PathBuf) -> Arc<Self> {
        let (flush_asked, merge_asked) = (AtomicBool::new(false), AtomicBool::new(false));
        let (beginning, forgotten, sealed) = (AtomicU64::new(SeqNo::MAX), Mutex::default(), Mutex::default());
        Arc::new(Upkeep { tree, seqno, folder, sealed, flush_asked, merge_asked, beginning, forgotten })
    }

    /// Calls `make` with the number behind the last file, for an iterator over what was written out before. The threads keep
    /// the version that it needs: without that they could let it go between the look at the number and the look for the
    /// version, which the tree answers with a panic. Only the worker that owns the store calls this.
    pub fn iterate<R>(&self, make: impl FnOnce(SeqNo) -> R) -> R {
        self.beginning.store(self.seqno.get(), Ordering::SeqCst);
        let made = make(self.seqno.get());
        self.beginning.store(SeqNo::MAX, Ordering::SeqCst);
        made
    }

    /// Files with nothing but keys before this one go, with the next merging.
    pub fn forget_before(&self, key: Vec<u8>) {
        *lock(&self.forgotten) = Some(key);
    }

    /// What is older than this is needed by nobody but those who hold it.
    fn settled(&self) -> SeqNo {
        // In this order: whoever begins behind the second look sees all that the first one counts.
        let written = self.seqno.get();
        written.min(self.beginning.load(Ordering::SeqCst))
    }

    /// Makes a file of each buffer.
    fn flush(&self) -> Result<()> {
        self.flush_asked.store(false, Ordering::Release);
        loop {
            let Some(sealed) = lock(&self.sealed).front().cloned() else { return Ok(()) };
            self.write(&sealed).map_err(|e| store_error("write", &self.folder, e))?;
            sealed.set_written();
            lock(&self.sealed).pop_front();
        }
    }

    fn write(&self, sealed: &Sealed) -> lsm_tree::Result<()> {
        let seqno = self.seqno.next();
        let entries = sealed.entries().map(|(key, value)| match value {
            Some(value) => Ok(InternalValue::from_components(key, value, seqno, ValueType::Value)),
            None => Ok(InternalValue::new_tombstone(key, seqno)),
        });
        match self.tree.flush_to_tables(entries)? {
            Some((tables, _)) => self.tree.register_tables(&tables, None, None, &[], self.settled()),
            None => Ok(()),
        }
    }

    fn merge(&self) -> Result<()> {
        self.merge_asked.store(false, Ordering::Release);
        if let Some(key) = lock(&self.forgotten).take() {
            let dropped = self.tree.drop_range::<Vec<u8>, _>(..key);
            dropped.map_err(|e| store_error("drop files of", &self.folder, e))?;
        }
        let strategy = lsm_tree::compaction::Leveled::default().with_table_target_size(FILE_BYTES);
        let strategy = Arc::new(strategy.with_l0_threshold(RUNS_WANTED));
        let merged = self.tree.compact(strategy, self.settled());
        merged.map_err(|e| store_error("merge files of", &self.folder, e))
    }

    /// Whether it takes more without growing beyond its bounds.
    fn has_room(&self) -> bool {
        lock(&self.sealed).len() < BUFFERS - 1 && self.tree.l0_run_count() < RUNS_MAX
    }
}

impl Health {
    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
        self.progress.notify_all();
    }
}

impl DiskHome {
    /// Makes `folder` empty and starts the threads.
    pub fn open(folder: PathBuf, memory_max: usize) -> Result<Arc<Self>> {
        if memory_max < STATE_MEMORY_MIN_BYTES {
            return Err(Error::input(format!("the memory for state is {memory_max} bytes"))
                .hint(format!("give it at least {STATE_MEMORY_MIN_BYTES}")));
        }
        Self::with(folder, memory_max, BUFFER_MIN_BYTES)
    }

    /// Where a handful of entries already goes to files.
    #[cfg(test)]
    pub fn tiny(folder: PathBuf) -> Result<Arc<Self>> {
        Self::with(folder, 1024, 512)
    }

    pub(super) fn with(folder: PathBuf, memory_max: usize, buffer_min: usize) -> Result<Arc<Self>> {
        let scratch = Scratch::open(folder)?;
        let health = Arc::new(Health::default());
        let (flushes, to_flush) = channel();
        let (merges, to_merge) = channel();
        let flusher = {
            let health = health.clone();
            move || flush_all(&to_flush, &merges, &health)
        };
        let merger = {
            let health = health.clone();
            move || merge_all(&to_merge, &health)
        };
        let threads = vec![spawn("state-flush", flusher)?, spawn("state-merge", merger)?];
        Ok(Arc::new(DiskHome {
            scratch,
            memory_max,
            buffer_min,
            blocks: Arc::new(Cache::with_capacity_bytes(memory_max as u64 / 4)),
            descriptors: Arc::new(DescriptorTable::new(OPEN_FILES_MAX)),
            tables: AtomicUsize::new(0),
            names: AtomicUsize::new(0),
            health,
            flushes: Mutex::new(Some(flushes)),
            threads: Mutex::new(threads),
        }))
    }

    /// A folder for one more table.
    pub fn add_table(&self, subtask: usize) -> PathBuf {
        self.tables.fetch_add(1, Ordering::Relaxed);
        let name = self.names.fetch_add(1, Ordering::Relaxed);
        self.scratch.folder().join(format!("subtask-{subtask}-table-{name}"))
    }

    /// A table is gone.
    pub fn remove_table(&self) {
        self.tables.fetch_sub(1, Ordering::Relaxed);
    }

    fn share(&self, of: usize) -> usize {
        of / self.tables.load(Ordering::Relaxed).max(1)
    }

    /// Bytes of decoded entries a table may hold: its share of three eighths of the memory.
    pub fn cache_share(&self) -> usize {
        self.share(self.memory_max / 8 * 3)
    }

    /// Bytes of a table's buffer: three eighths of the memory are for those of all tables.
    pub fn buffer_share(&self) -> usize {
        (self.share(self.memory_max / 8 * 3) / BUFFERS).clamp(self.buffer_min, BUFFER_MAX_BYTES)
    }

    /// The cache for blocks of files: a quarter of the memory.
    pub fn blocks(&self) -> Arc<Cache> {
        self.blocks.clone()
    }

    pub fn descriptors(&self) -> Arc<DescriptorTable> {
        self.descriptors.clone()
    }

    /// Where files that nobody else reads are made.
    pub fn folder(&self) -> &Path {
        self.scratch.folder()
    }

    /// An error if the background work has failed.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.health.failed.load(Ordering::Acquire) { self.failure() } else { Ok(()) }
    }

    #[cold]
    fn failure(&self) -> Result<()> {
        lock(&self.health.failure).clone().map_or(Ok(()), Err)
    }

    /// A store has a full buffer: waits when the threads do not keep up, so that memory stays bounded.
    pub fn wait_for_room(&self, upkeep: &Arc<Upkeep>) -> Result<()> {
        while !upkeep.has_room() {
            self.check()?;
            self.ask(upkeep)?;
            let failure = lock(&self.health.failure);
            drop(self.health.progress.wait_timeout(failure, LOOK_AGAIN));
        }
        Ok(())
    }

    /// Has a store's buffer written out.
    pub(super) fn write_out(&self, upkeep: &Arc<Upkeep>, sealed: Arc<Sealed>) -> Result<()> {
        lock(&upkeep.sealed).push_back(sealed);
        self.ask(upkeep)
    }

    fn ask(&self, upkeep: &Arc<Upkeep>) -> Result<()> {
        if upkeep.flush_asked.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let flushes = lock(&self.flushes);
        let sent = flushes.as_ref().is_some_and(|flushes| flushes.send(upkeep.clone()).is_ok());
        if sent { Ok(()) } else { Err(Error::bug("the thread that writes state out has ended")) }
    }
}

impl Drop for DiskHome {
    fn drop(&mut self) {
        self.health.stopping.store(true, Ordering::Release);
        lock(&self.flushes).take();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // What it had to tell stands in `health`.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_string()).spawn(run);
    thread.map_err(|e| Error::io(format!("start the thread `{name}`"), e))
}

fn flush_all(inbox: &Receiver<Arc<Upkeep>>, merges: &Sender<Arc<Upkeep>>, health: &Health) {
    for upkeep in inbox {
        if health.stopping.load(Ordering::Acquire) {
            continue;
        }
        if let Err(error) = upkeep.flush() {
            health.fail(error);
        }
        health.progress.notify_all();
        if !upkeep.merge_asked.swap(true, Ordering::AcqRel) {
            // It ends only behind this thread.
            let _ = merges.send(upkeep);
        }
    }
}

fn merge_all(inbox: &Receiver<Arc<Upkeep>>, health: &Health) {
    for upkeep in inbox {
        let mut rounds = 0;
        while !health.stopping.load(Ordering::Acquire) && !health.failed.load(Ordering::Acquire) {
            if let Err(error) = upkeep.merge() {
                health.fail(error);
            }
            health.progress.notify_all();
            rounds += 1;
            // The levels below the first want a round of their own.
            if rounds >= 2 && upkeep.tree.l0_run_count() <= usize::from(RUNS_WANTED) || rounds >= RUNS_MAX {
                break;
            }
        }
    }
}
