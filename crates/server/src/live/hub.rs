//! All live tables of the server, behind one lock: writes are short, readers take shared pointers and render outside.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use serde::Serialize;
use tidemill_core::{Error, Result, SharedClock};
use tokio::sync::{Notify, watch};
use utoipa::ToSchema;

use super::feed::{Feed, Subscription};
use super::table::{Change, Table, TableLimits};

/// Bounds of the live tables together.
#[derive(Debug, Clone, Copy)]
pub struct LiveLimits {
    /// Of each table.
    pub table: TableLimits,
    /// The most tables; default 256.
    pub tables_max: usize,
    /// The most bytes of all tables; default 1 GiB. A write that would pass it is refused (`Kind::Full`).
    pub bytes_max: usize,
}

impl Default for LiveLimits {
    fn default() -> Self {
        LiveLimits { table: TableLimits::default(), tables_max: 256, bytes_max: 1 << 30 }
    }
}

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest value, in bytes of JSON.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// The longest table name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A table as the list shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// The version of its last change.
    pub version: u64,
    /// When it changed last, epoch ms.
    pub updated_ms: i64,
}

/// A key with its new value as JSON; `None` deletes.
pub type Upsert<'a> = (&'a str, Option<&'a str>);

/// All live tables.
pub struct Live {
    /// Differs at every start of the server, so that versions of an earlier one are not mistaken for ours.
    pub boot: String,
    pub(super) state: RwLock<State>,
    pub(super) limits: LiveLimits,
    clock: SharedClock,
    /// The version of the last change; those who wait are woken by it.
    pub(super) version: watch::Sender<u64>,
    /// How far the changes are on disk.
    pub(super) persisted: watch::Sender<Persisted>,
    /// Wakes the write-behind task early.
    pub(super) hurry: Notify,
    pub(super) feeds: Mutex<HashMap<Subscription, Weak<Feed>>>,
}

/// How far the changes are on disk.
#[derive(Default)]
pub(super) struct Persisted {
    /// All up to this version.
    pub version: u64,
    /// Why the last flush failed, if it did.
    pub failed: Option<Error>,
}

#[derive(Default)]
pub(super) struct State {
    pub tables: BTreeMap<String, Table>,
    pub version: u64,
    /// Who has seen less than this needs snapshots: a table was dropped then.
    pub floor: u64,
    /// Dropped tables that are still on disk.
    pub dropped: Vec<String>,
}

/// What a subscriber is to be told about one table.
#[derive(Debug)]
pub struct TableChange {
    /// The table.
    pub table: String,
    /// All rows, instead of the changed ones.
    pub snapshot: bool,
    /// Rows.
    pub rows: Vec<Change>,
}

impl Live {
    /// No tables yet.
    pub fn new(boot: String, limits: LiveLimits, clock: SharedClock) -> Arc<Live> {
        Arc::new(Live {
            boot,
            state: RwLock::default(),
            limits,
            clock,
            version: watch::Sender::new(0),
            persisted: watch::Sender::default(),
            hurry: Notify::new(),
            feeds: Mutex::default(),
        })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes rows, all of them or (when one is out of bounds, `Kind::Input`) none; the version they brought it to.
    pub fn write(&self, name: &str, rows: &[Upsert<'_>]) -> Result<u64> {
        check_name(name)?;
        let mut added = 0;
        for (key, value) in rows {
            if key.is_empty() || key.len() > KEY_BYTES_MAX {
                let shown: String = key.chars().take(40).collect();
                return Err(Error::input(format!(
                    "key `{shown}` has {} bytes; a key has 1 to {KEY_BYTES_MAX}",
                    key.len()
                )));
            }
            let bytes = value.map_or(0, str::len);
            if bytes > VALUE_BYTES_MAX {
                return Err(Error::input(format!(
                    "the value of `{key}` has {bytes} bytes; at most {VALUE_BYTES_MAX} are kept"
                )));
            }
            added += bytes + key.len();
        }
        let now_ms = self.clock.now_ms();
        let version = {
            let mut state = self.write_lock();
            let held: usize = state.tables.values().map(Table::bytes).sum();
            if held + added > self.limits.bytes_max {
                return Err(Error::full(format!("the live tables hold {held} of {} bytes", self.limits.bytes_max))
                    .hint("drop a table with `DELETE /api/live/<name>`"));
            }
            if !state.tables.contains_key(name) && state.tables.len() >= self.limits.tables_max {
                return Err(Error::full(format!("there are {} live tables already", self.limits.tables_max))
                    .hint("drop one with `DELETE /api/live/<name>`"));
            }
            let mut version = state.version;
            let table = state.tables.entry(name.to_owned()).or_default();
            for (key, value) in rows {
                table.upsert(key, *value, now_ms, &mut version, &self.limits.table);
            }
            state.version = version;
            version
        };
        self.version.send_if_modified(|seen| version > std::mem::replace(seen, version.max(*seen)));
        Ok(version)
    }

    /// Waits until all changes up to `version` are on disk; an error when they cannot be brought there just now.
    pub async fn flushed(&self, version: u64) -> Result<()> {
        let mut persisted = self.persisted.subscribe();
        self.hurry.notify_one();
        let settled = persisted.wait_for(|so_far| so_far.version >= version || so_far.failed.is_some()).await;
        match settled {
            Ok(so_far) if so_far.version < version => Err(so_far.failed.clone().unwrap_or_else(ended)),
            Ok(_) => Ok(()),
            Err(_) => Err(ended()),
        }
    }

    /// Drops a table; whether there was one.
    pub fn drop_table(&self, name: &str) -> bool {
        let version = {
            let mut state = self.write_lock();
            if state.tables.remove(name).is_none() {
                return false;
            }
            state.version += 1;
            state.floor = state.version;
            state.dropped.push(name.to_owned());
            state.version
        };
        self.version.send_if_modified(|seen| version > std::mem::replace(seen, version.max(*seen)));
        true
    }

    /// All tables by name.
    pub fn list(&self) -> Vec<TableInfo> {
        let state = self.read();
        let info = |(name, table): (&String, &Table)| TableInfo {
            name: name.clone(),
            rows: table.len(),
            version: table.version(),
            updated_ms: table.updated_ms(),
        };
        state.tables.iter().map(info).collect()
    }

    /// Reads a table under the lock; `None` when there is none of this name.
    pub fn with_table<T>(&self, name: &str, read: impl FnOnce(&Table) -> T) -> Option<T> {
        self.read().tables.get(name).map(read)
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.read().version
    }

    /// What a subscriber who has seen everything up to `since` is to be told, and the version it has then seen. `None`
    /// for one who has seen nothing: snapshots.
    pub fn changes(&self, subscription: &Subscription, since: Option<u64>) -> (u64, Vec<TableChange>) {
        let state = self.read();
        let since = since.filter(|since| *since >= state.floor && *since <= state.version);
        let mut told = Vec::new();
        for (name, prefix) in &subscription.tables {
            let table = state.tables.get(name);
            let known = since.filter(|since| table.is_none_or(|table| *since >= table.floor()));
            let rows: Vec<Change> = match (table, known) {
                (None, _) => Vec::new(),
                (Some(table), Some(since)) => table.changes_since(since, prefix).collect(),
                (Some(table), None) => {
                    table.range(prefix, "", None).map(|(key, row)| (key.clone(), Some(row.value.clone()))).collect()
                }
            };
            if known.is_none() || !rows.is_empty() {
                told.push(TableChange { table: name.clone(), snapshot: known.is_none(), rows });
            }
        }
        (state.version, told)
    }
}

fn ended() -> Error {
    Error::external("the server ends")
}

/// Refuses names that would need escaping in addresses and queries (`Kind::Input`).
pub fn check_name(name: &str) -> Result<()> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !plain {
        let shown: String = name.chars().take(40).collect();
        return Err(Error::input(format!("`{}` is no table name", shown.escape_debug()))
            .hint("use 1 to 128 letters, digits, `.`, `_`, `-`"));
    }
    Ok(())
}
