//! One live table: the newest rows of a result, by key and by the version of their last change.
//!
//! The second index is the change log: it holds each row once, at its newest version, so "what changed since version
//! v" is one range, already coalesced. Deleted rows stay in it as tombstones, a bounded number of them; who asks from
//! before the oldest forgotten tombstone needs a snapshot.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// Bounds of a table. Beyond them the rows updated longest ago are evicted.
#[derive(Debug, Clone, Copy)]
pub struct TableLimits {
    /// The most rows; default 100,000.
    pub rows_max: usize,
    /// The most bytes of keys and values together; default 256 MiB.
    pub bytes_max: usize,
    /// The most deleted rows remembered for resuming; default 10,000.
    pub tombstones_max: usize,
}

impl Default for TableLimits {
    fn default() -> Self {
        TableLimits { rows_max: 100_000, bytes_max: 256 << 20, tombstones_max: 10_000 }
    }
}

/// A row's newest value.
#[derive(Debug, Clone)]
pub struct Row {
    /// JSON text without line breaks.
    pub value: Arc<str>,
    /// The version of its last change.
    pub version: u64,
    /// When it changed last, epoch ms.
    pub updated_ms: i64,
}

/// A key with its value; `None` where the row is gone.
pub type Change = (Arc<str>, Option<Arc<str>>);

/// A live table.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<Arc<str>, Row>,
    by_version: BTreeMap<u64, Arc<str>>,
    tombstones: HashMap<Arc<str>, u64>,
    floor: u64,
    bytes: usize,
    updated_ms: i64,
}

impl Table {
    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When a row changed last, epoch ms.
    pub fn updated_ms(&self) -> i64 {
        self.updated_ms
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.by_version.last_key_value().map_or(self.floor, |(version, _)| *version)
    }

    /// Changes since an earlier version than this are not known any more.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// One row.
    pub fn get(&self, key: &str) -> Option<&Row> {
        self.rows.get(key)
    }

    /// Writes a row (`None`: deletes it). `version` counts on for every row that really changes, here and for rows that
    /// are evicted to make room. A value equal to the one there changes nothing.
    pub fn upsert(&mut self, key: &str, value: Option<&str>, now_ms: i64, version: &mut u64, limits: &TableLimits) {
        match value {
            Some(value) => self.put(key, value, now_ms, version, limits),
            None => self.remove(key, now_ms, version, limits),
        }
    }

    fn put(&mut self, key: &str, value: &str, now_ms: i64, version: &mut u64, limits: &TableLimits) {
        let key: Arc<str> = match self.rows.get_key_value(key) {
            Some((_, row)) if &*row.value == value => return,
            Some((key, row)) => {
                self.by_version.remove(&row.version);
                self.bytes -= row.value.len();
                key.clone()
            }
            None => {
                if let Some(gone) = self.tombstones.remove(key) {
                    self.by_version.remove(&gone);
                }
                self.bytes += key.len();
                key.into()
            }
        };
        *version += 1;
        self.bytes += value.len();
        self.updated_ms = now_ms;
        self.by_version.insert(*version, key.clone());
        self.rows.insert(key, Row { value: value.into(), version: *version, updated_ms: now_ms });
        while self.rows.len() > limits.rows_max || (self.bytes > limits.bytes_max && self.rows.len() > 1) {
            let oldest = self.by_version.values().find(|key| self.rows.contains_key(*key)).cloned();
            let Some(oldest) = oldest else { break };
            self.remove(&oldest, now_ms, version, limits);
        }
    }

    fn remove(&mut self, key: &str, now_ms: i64, version: &mut u64, limits: &TableLimits) {
        let Some((key, row)) = self.rows.remove_entry(key) else {
            return;
        };
        self.by_version.remove(&row.version);
        self.bytes -= key.len() + row.value.len();
        *version += 1;
        self.updated_ms = now_ms;
        self.by_version.insert(*version, key.clone());
        self.tombstones.insert(key, *version);
        if self.tombstones.len() > limits.tombstones_max
            && let Some(oldest) = self.tombstones.values().min().copied()
            && let Some(key) = self.by_version.remove(&oldest)
        {
            self.tombstones.remove(&key);
            self.floor = self.floor.max(oldest);
        }
    }

    /// What changed after `version`, in order of change; only keys with this prefix.
    pub fn changes_since<'a>(&'a self, version: u64, prefix: &'a str) -> impl Iterator<Item = Change> + 'a {
        let changed = self.by_version.range((Bound::Excluded(version), Bound::Unbounded));
        changed
            .filter(move |(_, key)| key.starts_with(prefix))
            .map(|(_, key)| (key.clone(), self.rows.get(key).map(|row| row.value.clone())))
    }

    /// Rows by key: those with the prefix, from `from` (inclusive) to `to` (exclusive).
    pub fn range<'a>(
        &'a self,
        prefix: &'a str,
        from: &'a str,
        to: Option<&'a str>,
    ) -> impl DoubleEndedIterator<Item = (&'a Arc<str>, &'a Row)> + 'a {
        let start = prefix.max(from);
        // Behind every key with the prefix there is its last one's successor; none for the empty prefix.
        let end = match (prefix_end(prefix), to) {
            (Some(end), Some(to)) => Some(if end.as_str() < to { end } else { to.to_owned() }),
            (Some(end), None) => Some(end),
            (None, to) => to.map(str::to_owned),
        };
        let empty = end.as_deref().is_some_and(|end| end <= start);
        let start = Bound::Included(start);
        let end = match &end {
            _ if empty => Bound::Excluded("\0"),
            Some(end) => Bound::Excluded(end.as_str()),
            None => Bound::Unbounded,
        };
        let start = if empty { Bound::Included("") } else { start };
        self.rows.range::<str, _>((start, end)).filter(move |_| !empty)
    }
}

/// The least text that is greater than every text with this prefix, if there is one.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            _ => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TableLimits = TableLimits { rows_max: 3, bytes_max: 1000, tombstones_max: 2 };

    fn filled(keys: &[&str]) -> (Table, u64) {
        let (mut table, mut version) = (Table::default(), 0);
        for key in keys {
            table.upsert(key, Some("1"), 5, &mut version, &LIMITS);
        }
        (table, version)
    }

    fn changes(table: &Table, since: u64) -> Vec<String> {
        table
            .changes_since(since, "")
            .map(|(key, value)| format!("{key}={}", value.as_deref().unwrap_or("gone")))
            .collect()
    }

    #[test]
    fn changes_are_coalesced_to_the_newest_value() {
        let (mut table, mut version) = filled(&["a", "b"]);
        table.upsert("a", Some("2"), 6, &mut version, &LIMITS);
        table.upsert("a", Some("3"), 7, &mut version, &LIMITS);
        table.upsert("b", Some("1"), 8, &mut version, &LIMITS);
        assert_eq!(version, 4, "an equal value is no change");
        assert_eq!(changes(&table, 0), ["b=1", "a=3"]);
        assert_eq!(changes(&table, 3), ["a=3"]);
        table.upsert("b", None, 9, &mut version, &LIMITS);
        table.upsert("b", None, 9, &mut version, &LIMITS);
        assert_eq!(changes(&table, 4), ["b=gone"]);
        table.upsert("b", Some("9"), 9, &mut version, &LIMITS);
        assert_eq!(changes(&table, 4), ["b=9"]);
        assert_eq!((table.len(), table.bytes(), table.version()), (2, 4, 6));
    }

    #[test]
    fn the_rows_updated_longest_ago_make_room_and_old_tombstones_are_forgotten() {
        let (mut table, mut version) = filled(&["a", "b", "c"]);
        table.upsert("a", Some("2"), 6, &mut version, &LIMITS);
        table.upsert("d", Some("1"), 6, &mut version, &LIMITS);
        assert_eq!(changes(&table, 0), ["c=1", "a=2", "d=1", "b=gone"]);
        assert_eq!(table.floor(), 0);
        for key in ["e", "f"] {
            table.upsert(key, Some("1"), 6, &mut version, &LIMITS);
        }
        assert_eq!((table.len(), table.floor()), (3, 6));
        let mut large = Table::default();
        large.upsert("x", Some(&"1".repeat(900)), 6, &mut version, &LIMITS);
        large.upsert("y", Some(&"1".repeat(900)), 6, &mut version, &LIMITS);
        assert_eq!((large.len(), large.bytes()), (1, 901));
    }

    #[test]
    fn ranges_are_by_key() {
        let limits = TableLimits::default();
        let (mut table, mut version) = (Table::default(), 0);
        for key in ["2026-11-19/x", "2026-11-20/a", "2026-11-20/b", "2026-11-21/a", "省/\u{10FFFF}"] {
            table.upsert(key, Some("1"), 5, &mut version, &limits);
        }
        let keys = |prefix, from, to| table.range(prefix, from, to).map(|(key, _)| key.to_string()).collect::<Vec<_>>();
        assert_eq!(keys("2026-11-20/", "", None), ["2026-11-20/a", "2026-11-20/b"]);
        assert_eq!(keys("", "2026-11-20/b", Some("2026-11-21/b")), ["2026-11-20/b", "2026-11-21/a"]);
        assert_eq!(keys("2026-11-20/", "2026-11-20/b", None), ["2026-11-20/b"]);
        assert_eq!(keys("省", "", None).len(), 1);
        assert_eq!(keys("省/\u{10FFFF}", "", None).len(), 1);
        assert!(keys("2026-11-20/", "2026-11-21", None).is_empty());
        assert!(keys("", "b", Some("a")).is_empty());
        assert_eq!(keys("", "", None).len(), 5);
    }
}
