//! The stores that keyed state on disk could stand on: fjall, redb, and lsm-tree, which is fjall without its journal. Each
//! gets 64 MB: entries put in in no order, then read and written back at random, then read whole.
//!
//! What counts is the memory they really take, the processor time, and the longest a writer waits: state is read and
//! written on the worker. The decision stands in docs/adr/0008.
//!
//! `state_store <fjall|redb|lsm-tree> [entries in thousands]`, one store a process, since it is the process's memory that is
//! measured.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use lsm_tree::{AbstractTree, Guard as _};
use redb::{ReadableDatabase, ReadableTable};
use tidemill_benches::{Failure, cpu_seconds, load, number, resident_mb};

const MEGABYTE: u64 = 1 << 20;
const BLOCKS: u64 = 32 * MEGABYTE;
const BUFFER: u64 = 8 * MEGABYTE;
const VALUE: [u8; 64] = [7; 64];

type Key = [u8; 9];

/// A key group and a key, as the engine stores them.
fn key(index: u64) -> Key {
    let mixed = (index ^ (index >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut key = [0; 9];
    key[0] = (mixed & 127) as u8;
    key[1..].copy_from_slice(&mixed.to_be_bytes());
    key
}

trait Store {
    fn put(&mut self, key: Key, value: [u8; 64]) -> Result<(), Failure>;
    fn get(&mut self, key: Key) -> Result<Option<u8>, Failure>;
    /// Bytes of all entries.
    fn scan(&mut self) -> Result<usize, Failure>;
}

struct Fjall(fjall::Database, fjall::Keyspace);

impl Fjall {
    fn open(folder: &Path) -> Result<Self, Failure> {
        let database = fjall::Database::builder(folder).cache_size(BLOCKS).manual_journal_persist(true).open()?;
        let keyspace =
            database.keyspace("entries", || fjall::KeyspaceCreateOptions::default().max_memtable_size(BUFFER))?;
        Ok(Fjall(database, keyspace))
    }
}

impl Store for Fjall {
    fn put(&mut self, key: Key, value: [u8; 64]) -> Result<(), Failure> {
        Ok(self.1.insert(key, value)?)
    }
    fn get(&mut self, key: Key) -> Result<Option<u8>, Failure> {
        Ok(self.1.get(key)?.map(|value| value[0]))
    }
    fn scan(&mut self) -> Result<usize, Failure> {
        use fjall::Readable;
        let entry = |entry: fjall::Guard| entry.into_inner().map(|(key, value)| key.len() + value.len());
        Ok(self.0.snapshot().iter(&self.1).map(entry).sum::<Result<_, _>>()?)
    }
}

struct Lsm {
    tree: lsm_tree::AnyTree,
    seqno: lsm_tree::SequenceNumberCounter,
    visible: lsm_tree::SequenceNumberCounter,
    flush: SyncSender<()>,
}

impl Lsm {
    fn open(folder: &Path) -> Result<Self, Failure> {
        let (seqno, visible) = (lsm_tree::SequenceNumberCounter::default(), lsm_tree::SequenceNumberCounter::default());
        let tree = lsm_tree::Config::new(folder, seqno.clone(), visible.clone())
            .use_cache(Arc::new(lsm_tree::Cache::with_capacity_bytes(BLOCKS)))
            .filter_block_pinning_policy(lsm_tree::config::PinningPolicy::disabled())
            .index_block_pinning_policy(lsm_tree::config::PinningPolicy::disabled())
            .open()?;
        let (flush, to_flush) = sync_channel(1);
        let (merge, to_merge) = sync_channel(1);
        let (flushed, merged) = ((tree.clone(), seqno.clone()), (tree.clone(), seqno.clone()));
        std::thread::spawn(move || {
            for () in to_flush {
                let lock = flushed.0.get_flush_lock();
                flushed.0.flush(&lock, flushed.1.get()).expect("a buffer is written out");
                let _ = merge.try_send(());
            }
        });
        std::thread::spawn(move || {
            for () in to_merge {
                for _ in 0..4 {
                    let strategy = lsm_tree::compaction::Leveled::default().with_table_target_size(16 * MEGABYTE);
                    merged.0.compact(Arc::new(strategy), merged.1.get()).expect("files are merged");
                }
            }
        });
        Ok(Lsm { tree, seqno, visible, flush })
    }
}

impl Store for Lsm {
    fn put(&mut self, key: Key, value: [u8; 64]) -> Result<(), Failure> {
        let seqno = self.seqno.next();
        let (_, buffered) = self.tree.insert(key, value, seqno);
        self.visible.fetch_max(seqno + 1);
        if buffered > BUFFER {
            while self.tree.sealed_memtable_count() >= 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.tree.rotate_memtable();
            let _ = self.flush.try_send(());
        }
        Ok(())
    }
    fn get(&mut self, key: Key) -> Result<Option<u8>, Failure> {
        Ok(self.tree.get(key, lsm_tree::SeqNo::MAX)?.map(|value| value[0]))
    }
    fn scan(&mut self) -> Result<usize, Failure> {
        let entry = |entry: lsm_tree::IterGuardImpl| entry.into_inner().map(|(key, value)| key.len() + value.len());
        Ok(self.tree.iter(self.visible.get(), None).map(entry).sum::<Result<_, _>>()?)
    }
}

const ENTRIES: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("entries");

/// Reads see what was put in since the last commit through a map.
struct Redb {
    database: redb::Database,
    pending: hashbrown::HashMap<Key, [u8; 64]>,
}

impl Redb {
    fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("entries.redb");
        let database = redb::Database::builder().set_cache_size((BLOCKS + 2 * BUFFER) as usize).create(path)?;
        let mut redb = Redb { database, pending: hashbrown::HashMap::new() };
        redb.commit()?;
        Ok(redb)
    }

    fn commit(&mut self) -> Result<(), Failure> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(redb::Durability::None)?;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            for (key, value) in self.pending.drain() {
                table.insert(&key[..], &value[..])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Store for Redb {
    fn put(&mut self, key: Key, value: [u8; 64]) -> Result<(), Failure> {
        self.pending.insert(key, value);
        if self.pending.len() >= 1000 { self.commit() } else { Ok(()) }
    }
    fn get(&mut self, key: Key) -> Result<Option<u8>, Failure> {
        if let Some(value) = self.pending.get(&key) {
            return Ok(Some(value[0]));
        }
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        Ok(table.get(&key[..])?.map(|value| value.value()[0]))
    }
    fn scan(&mut self) -> Result<usize, Failure> {
        self.commit()?;
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        let mut bytes = 0;
        for entry in table.iter()? {
            let (key, value) = entry?;
            bytes += key.value().len() + value.value().len();
        }
        Ok(bytes)
    }
}

/// Runs a phase and says what it took.
fn phase(name: &str, count: u64, mut each: impl FnMut(u64) -> Result<(), Failure>) -> Result<(), Failure> {
    let (started, cpu, mut longest) = (Instant::now(), cpu_seconds("self"), Duration::ZERO);
    for at in 0..count {
        let begun = Instant::now();
        each(at)?;
        longest = longest.max(begun.elapsed());
    }
    println!(
        "  {name:<22} {:>7.0} k/s   {:>6.1} CPU us each   longest {:>6.0} ms   {:>5.0} MB resident",
        count as f64 / started.elapsed().as_secs_f64() / 1e3,
        (cpu_seconds("self") - cpu) * 1e6 / count as f64,
        longest.as_secs_f64() * 1e3,
        resident_mb("self")
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "lsm-tree".to_string());
    let entries = number(2, 3_000) * 1000;
    let folder = tempfile::tempdir()?;
    let mut store: Box<dyn Store> = match name.as_str() {
        "fjall" => Box::new(Fjall::open(folder.path())?),
        "redb" => Box::new(Redb::open(folder.path())?),
        "lsm-tree" => Box::new(Lsm::open(folder.path())?),
        _ => return Err(format!("`{name}` is none of fjall, redb, lsm-tree").into()),
    };
    println!("{name}: {} k entries of 73 bytes, 64 MB of memory, load {}", entries / 1000, load());
    phase("put in", entries, |at| store.put(key(at), VALUE))?;
    phase("read and written back", entries / 2, |at| {
        let key = key((at ^ (at << 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15) % entries);
        let held = store.get(key)?.ok_or("an entry is missing")?;
        store.put(key, [held.wrapping_add(1); 64])
    })?;
    phase("asked for in vain", entries / 2, |at| match store.get(key(entries + at))? {
        None => Ok(()),
        Some(_) => Err("an entry is there that was never put in".into()),
    })?;
    let (started, bytes) = (Instant::now(), store.scan()?);
    println!("  {:<22} {:>7.0} MB/s", "read whole", bytes as f64 / 1e6 / started.elapsed().as_secs_f64());
    // The threads of a store that are at work end with the process.
    Ok(())
}
