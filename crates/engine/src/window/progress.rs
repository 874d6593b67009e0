//! How far event time had come when windows were saved, and what that means for windows of keys that come back on a subtask
//! that is behind. The same for time windows in memory, on disk and over columns.

use std::collections::BTreeMap;

use hashbrown::HashSet;
use tidemill_core::{Result, WATERMARK_MIN};

use crate::key::Key;
use crate::operator::SnapshotParts;
use crate::state::{Restored, SectionKind, TableHasher, Writer};

pub(crate) const PROGRESS: &str = "window-progress";
const FIRED: &str = "window-fired";

/// How far each subtask had come that has saved state.
pub(crate) struct Progress(BTreeMap<usize, i64>);

impl Progress {
    /// Saves how far this subtask has come.
    pub fn snapshot(reached_ms: i64, parts: &mut SnapshotParts) -> Result<()> {
        let mut progress = Writer::new(PROGRESS, SectionKind::Operator);
        progress.entry(&reached_ms)?;
        parts.sections.push(progress.finish());
        Ok(())
    }

    /// What was saved.
    pub fn restore(state: &mut Restored) -> Result<Self> {
        let mut progress = BTreeMap::new();
        for section in state.take(PROGRESS) {
            if let Some(reached_ms) = section.reader()?.entry::<i64>()? {
                progress.insert(section.subtask, reached_ms);
            }
        }
        Ok(Progress(progress))
    }

    /// Where event time goes on: from the slowest. What faster subtasks had fired already must not fire again.
    pub fn slowest_ms(&self) -> i64 {
        self.0.values().copied().min().unwrap_or(WATERMARK_MIN)
    }

    /// How far one had come.
    pub fn of(&self, subtask: usize) -> i64 {
        self.0.get(&subtask).copied().unwrap_or(WATERMARK_MIN)
    }
}

/// After a restore with another parallelism some keys' windows have fired that others' have not: window end → keys.
pub(crate) struct AlreadyFired<K>(BTreeMap<i64, HashSet<K, TableHasher>>);

impl<K> Default for AlreadyFired<K> {
    fn default() -> Self {
        AlreadyFired(BTreeMap::new())
    }
}

impl<K: Key> AlreadyFired<K> {
    /// The window of a key that ends at `end_ms` has fired.
    pub fn insert(&mut self, end_ms: i64, key: K) {
        self.0.entry(end_ms).or_default().insert(key);
    }

    /// The keys whose windows with this end have fired; nobody asks again.
    pub fn take(&mut self, end_ms: i64) -> HashSet<K, TableHasher> {
        self.0.remove(&end_ms).unwrap_or_default()
    }

    /// Windows that fired before a restore must not fire after the next one either.
    pub fn snapshot(&self, parts: &mut SnapshotParts) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut fired = Writer::new(FIRED, SectionKind::Keyed);
        for (end_ms, keys) in &self.0 {
            keys.iter().try_for_each(|key| fired.entry(&(key, end_ms)))?;
        }
        parts.sections.push(fired.finish());
        Ok(())
    }

    /// Takes back what was saved of this subtask's keys.
    pub fn restore(&mut self, state: &mut Restored) -> Result<()> {
        for section in state.take(FIRED) {
            let mut reader = section.reader()?;
            while let Some((key, end_ms)) = reader.entry::<(K, i64)>()? {
                if state.owns(&key) {
                    self.insert(end_ms, key);
                }
            }
        }
        Ok(())
    }
}
