//! Timers on disk, in order of time: the nearest ones in memory, the others in a store.
//!
//! ```text
//! time ──►   [ the nearest: in memory ](end)[ the others: in the store                      ]
//!              ▲ fire from here           ▲ the memory is filled from here when it is empty
//! ```
//!
//! Most timers are set, taken back and fired without the store hearing of them. When the memory for the nearest is full, its
//! later half goes to the store. A checkpoint is what has changed since the last one, noted in a spool as it happens, or
//! the store as it is at the moment with those in memory that it does not have.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};

use hashbrown::HashSet;
use tidemill_core::{Error, Result};

use super::copy::{FileCopy, Units, Weights, expect_bases};
use super::home::DiskHome;
use super::key::{AtTime, DiskKey, Layout, put_group, put_time, time_of};
use super::spool::Spool;
use super::store::Store;
use super::{Log, encode};
use crate::key::{GroupRange, Key, key_group};
use crate::operator::{CopyRun, SnapshotMode, SnapshotParts};
use crate::state::chain::due;
use crate::state::{RestoredSection, Section, SectionKind, TableHasher};

/// The memory for the nearest timers and for what is known of the others, each, in bytes, if there is so much.
const NEAREST_BYTES_MAX: usize = 1024 * 1024;

/// What a timer in memory takes beside its bytes.
const OVERHEAD_BYTES: usize = 64;

/// A timer has no value. It never lapses.
const SET: [u8; 8] = i64::MAX.to_le_bytes();

/// A timer as it stands in the store.
type Stored = Box<[u8]>;

/// Timers of keys of `K`, at most one for a key and a time.
pub(crate) struct DiskTimers<K> {
    name: &'static str,
    home: Arc<DiskHome>,
    at: (usize, GroupRange),
    /// Made when it is needed first.
    store: Option<Store>,
    /// All that are before `end`, and whether the store has them too. It may have others there that are gone.
    nearest: BTreeMap<Stored, bool>,
    nearest_bytes: usize,
    /// From here on timers are in the store; `None` when all are in memory.
    end: Option<Stored>,
    /// Some of those in the store: most timers that are set again were set a moment ago.
    known: HashSet<Stored, TableHasher>,
    known_bytes: usize,
    /// What has changed since the last checkpoint; `None` before the first.
    log: Option<Log>,
    copy: Option<FileCopy>,
    key: Vec<u8>,
    marker: PhantomData<fn() -> K>,
}

impl<K: Key> DiskTimers<K> {
    /// No timers; `name` is the name of their state.
    pub fn new(name: &'static str, home: &Arc<DiskHome>, at: (usize, GroupRange)) -> Self {
        DiskTimers {
            name,
            home: home.clone(),
            at,
            store: None,
            nearest: BTreeMap::new(),
            nearest_bytes: 0,
            end: None,
            known: HashSet::default(),
            known_bytes: 0,
            log: None,
            copy: None,
            key: Vec::new(),
            marker: PhantomData,
        }
    }

    /// Sets a timer; a second one of the same key and time changes nothing.
    pub fn register(&mut self, time_ms: i64, key: &K) -> Result<()> {
        self.encode(time_ms, key)?;
        if self.is_near() {
            if self.nearest.contains_key(self.key.as_slice()) {
                return Ok(());
            }
            self.note(true)?;
            self.nearest_bytes += self.key.len() + OVERHEAD_BYTES;
            self.nearest.insert(self.key.as_slice().into(), false);
            return if self.nearest_bytes > self.room() { self.spill() } else { Ok(()) };
        }
        if self.known.contains(self.key.as_slice()) {
            return Ok(());
        }
        if self.known_bytes > self.room() {
            self.forget_known();
        }
        self.known_bytes += self.key.len() + OVERHEAD_BYTES;
        self.known.insert(self.key.as_slice().into());
        self.note(true)?;
        store(&mut self.store, &self.home, self.at)?.put(&self.key, &SET)
    }

    /// Takes a timer back, if it is there.
    pub fn delete(&mut self, time_ms: i64, key: &K) -> Result<()> {
        self.encode(time_ms, key)?;
        if self.is_near() {
            return match self.nearest.remove(self.key.as_slice()) {
                Some(stored) => self.gone(stored),
                None => Ok(()),
            };
        }
        if self.known.remove(self.key.as_slice()) {
            self.known_bytes = self.known_bytes.saturating_sub(self.key.len() + OVERHEAD_BYTES);
        }
        self.note(false)?;
        store(&mut self.store, &self.home, self.at)?.remove(&self.key)
    }

    /// The earliest time anything is due.
    pub fn next(&self) -> Option<i64> {
        self.nearest.first_key_value().map(|(timer, _)| time_of(timer))
    }

    /// Takes one timer that is due at `now_ms`, earliest first.
    pub fn pop_due(&mut self, now_ms: i64) -> Result<Option<(i64, K)>> {
        let Some(first) = self.nearest.first_entry().filter(|first| time_of(first.key()) <= now_ms) else {
            return Ok(None);
        };
        let (timer, stored) = first.remove_entry();
        self.key.clear();
        self.key.extend_from_slice(&timer);
        self.gone(stored)?;
        let AtTime(key, time_ms) = AtTime::read(&timer)
            .map_err(|e| Error::corrupt(format!("timers `{}` cannot be read back from their store: {e}", self.name)))?;
        Ok(Some((time_ms, key)))
    }

    /// The timer as it stands in the store, in `key`.
    fn encode(&mut self, time_ms: i64, key: &K) -> Result<()> {
        self.key.clear();
        put_time(time_ms, &mut self.key);
        put_group(key_group(key), &mut self.key);
        encode(key, self.name, &mut self.key)
    }

    /// Whether the timer in `key` is in memory if it is anywhere.
    fn is_near(&self) -> bool {
        self.end.as_ref().is_none_or(|end| self.key.as_slice() < &end[..])
    }

    /// Memory for the nearest timers, and for those that are known, each.
    fn room(&self) -> usize {
        (self.home.cache_share() / 2).min(NEAREST_BYTES_MAX)
    }

    /// The timer in `key` was set, or is gone.
    fn note(&mut self, set: bool) -> Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| log.note(0, &self.key, set.then_some(&SET)))
    }

    /// The timer in `key` is in memory no more.
    fn gone(&mut self, stored: bool) -> Result<()> {
        self.nearest_bytes = self.nearest_bytes.saturating_sub(self.key.len() + OVERHEAD_BYTES);
        self.note(false)?;
        if stored {
            store(&mut self.store, &self.home, self.at)?.remove(&self.key)?;
        }
        if self.nearest.is_empty() { self.refill() } else { Ok(()) }
    }

    fn forget_known(&mut self) {
        self.known.clear();
        self.known_bytes = 0;
    }

    /// The later half of the nearest timers goes to the store.
    #[cold]
    fn spill(&mut self) -> Result<()> {
        let Some(end) = self.nearest.keys().nth(self.nearest.len().div_ceil(2)).cloned() else { return Ok(()) };
        let store = store(&mut self.store, &self.home, self.at)?;
        for (timer, stored) in self.nearest.split_off(&end) {
            self.nearest_bytes = self.nearest_bytes.saturating_sub(timer.len() + OVERHEAD_BYTES);
            if !stored {
                store.put(&timer, &SET)?;
            }
        }
        self.end = Some(end);
        self.forget_known();
        Ok(())
    }

    /// The nearest ones come from the store.
    #[cold]
    fn refill(&mut self) -> Result<()> {
        let Some(end) = self.end.take() else { return Ok(()) };
        let room = self.room() / 2;
        for stored in store(&mut self.store, &self.home, self.at)?.range(end.into_vec(), None) {
            let timer: Stored = stored?.0[..].into();
            if !self.nearest.is_empty() && self.nearest_bytes + timer.len() + OVERHEAD_BYTES > room {
                self.end = Some(timer);
                break;
            }
            self.nearest_bytes += timer.len() + OVERHEAD_BYTES;
            self.nearest.insert(timer, true);
        }
        self.forget_known();
        Ok(())
    }

    /// Marks the timers of this moment; [`DiskTimers::copy_some`] hands on what is left to be read.
    pub fn begin_snapshot(&mut self, parts: &mut SnapshotParts) -> Result<()> {
        if parts.mode == SnapshotMode::Nothing {
            return Ok(());
        }
        let Some(store) = &mut self.store else { return self.write_nearest(parts) };
        let folder = self.home.folder();
        let units = Units { layout: Layout::Times, own: self.at.1, count: 1, live_from_ms: i64::MIN };
        let (mut before, mut weights, mut based) = (None, None, vec![true]);
        if let SnapshotMode::Checkpoint { fresh } = parts.mode {
            parts.roster.push(self.name.to_string());
            let log = self.log.take().filter(|_| !fresh);
            let kept = log.as_ref().map_or_else(Weights::default, |log| log.weights.clone());
            if let Some(log) = &log {
                based = due(kept.lock().unwrap_or_else(PoisonError::into_inner).iter());
                based[0] |= log.spooled[0].1;
            }
            expect_bases(&kept, &based, store.file_bytes() as usize);
            before = log.map(|log| log.spool.finish()).transpose()?;
            let spooled = vec![(0, false)];
            self.log = Some(Log { units, spool: Spool::new(folder)?, spooled, weights: kept.clone() });
            weights = Some(kept);
        }
        let (mut bases, mut held) = (Vec::new(), None);
        if based[0] {
            store.seal_for_copy()?;
            bases.push(store.range(Vec::new(), None));
            let mut spool = Spool::new(folder)?;
            for (timer, _) in self.nearest.iter().filter(|(_, stored)| !**stored) {
                spool.append(timer, Some(&SET))?;
            }
            held = Some(spool.finish()?);
        }
        let now_ms = i64::MIN;
        self.copy = Some(FileCopy { name: self.name, units, based, bases, before, held, now_ms, weights });
        Ok(())
    }

    /// All timers, when the store has none.
    fn write_nearest(&self, parts: &mut SnapshotParts) -> Result<()> {
        let mut bytes = Vec::new();
        for timer in self.nearest.keys() {
            Layout::Times.put_saved(timer, self.name, &mut bytes)?;
        }
        if !bytes.is_empty() {
            let entries = self.nearest.len() as u64;
            parts.sections.push(Section::new(self.name, SectionKind::Keyed, entries, bytes));
        }
        Ok(())
    }

    /// Hands on what is left of the snapshot to the checkpoint writer's thread.
    pub fn copy_some(&mut self, run: &mut CopyRun) {
        if let Some(copy) = self.copy.take() {
            run.deferred.push(Box::new(|give| copy.run(give)));
        }
    }

    /// Takes in a section of timers, as far as `owns` says.
    pub fn load(&mut self, section: &RestoredSection, owns: impl Fn(&K) -> bool) -> Result<()> {
        let mut reader = section.reader()?;
        while let Some(AtTime(key, time_ms)) = reader.entry::<AtTime<K>>()? {
            match owns(&key) {
                true if section.removal => self.delete(time_ms, &key)?,
                true => self.register(time_ms, &key)?,
                false => {}
            }
        }
        Ok(())
    }
}

fn store<'s>(store: &'s mut Option<Store>, home: &Arc<DiskHome>, at: (usize, GroupRange)) -> Result<&'s mut Store> {
    match store {
        Some(store) => Ok(store),
        None => Ok(store.insert(Store::new(home, at.0, None)?)),
    }
}
