//! Changes on their way into a checkpoint: an append-only file without a name. What leaves the cache between two
//! checkpoints goes here too, so that a checkpoint reads its changes one behind the other and looks nothing up.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tidemill_core::{Error, Result};

/// A chunk of changes is read until it has about so many bytes. Of the changes of one key in a chunk the last counts.
const CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// The length of the value of a removed key.
const REMOVED: u32 = u32::MAX;

/// Makes the names of spools differ for the moment they have one.
static SPOOLS: AtomicU64 = AtomicU64::new(0);

/// Stored keys with their stored values, `None` for removed ones.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Takes changes.
pub(super) struct Spool {
    file: BufWriter<File>,
}

/// Gives them back.
pub(super) struct SpoolReader {
    file: BufReader<File>,
}

fn failed(doing: &str, error: std::io::Error) -> Error {
    Error::io(format!("{doing} a scratch file of state"), error)
        .hint("make room on its disk, or name a folder on a larger one (`state_dir`, `TIDEMILL_STATE_DIR`)")
}

impl Spool {
    /// An empty one in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("changes-{}", SPOOLS.fetch_add(1, Ordering::Relaxed)));
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|e| failed("make", e))?;
        // It goes when it is closed, whatever happens.
        std::fs::remove_file(&path).map_err(|e| failed("hide", e))?;
        Ok(Self::on(file))
    }

    fn on(file: File) -> Self {
        Spool { file: BufWriter::new(file) }
    }

    /// Appends a change: a new value, or none any more. Returns its bytes.
    pub fn append(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<usize> {
        let mut lengths = [0; 8];
        lengths[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
        lengths[4..].copy_from_slice(&value.map_or(REMOVED, |value| value.len() as u32).to_le_bytes());
        let value = value.unwrap_or_default();
        let written = [&lengths, key, value].into_iter().try_for_each(|part| self.file.write_all(part));
        written.map_err(|e| failed("write", e))?;
        Ok(lengths.len() + key.len() + value.len())
    }

    /// No more changes come.
    pub fn finish(self) -> Result<SpoolReader> {
        let mut file = self.file.into_inner().map_err(|e| failed("write", e.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(|e| failed("read", e))?;
        Ok(SpoolReader { file: BufReader::new(file) })
    }
}

impl SpoolReader {
    /// The next chunk; empty behind the last.
    pub fn next_chunk(&mut self) -> Result<Changes> {
        let (mut changes, mut bytes) = (Changes::new(), 0);
        while bytes < CHUNK_BYTES {
            let mut lengths = [0u8; 8];
            let read = self.file.by_ref().take(8).read(&mut lengths[..1]).map_err(|e| failed("read", e))?;
            if read == 0 {
                break;
            }
            self.file.read_exact(&mut lengths[1..]).map_err(|e| failed("read", e))?;
            let [a, b, c, d, e, f, g, h] = lengths;
            let (key, value) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
            let mut take = |length: u32| {
                let mut bytes = vec![0; length as usize];
                self.file.read_exact(&mut bytes).map_err(|e| failed("read", e))?;
                Ok::<_, Error>(bytes)
            };
            let key = take(key)?;
            let value = if value == REMOVED { None } else { Some(take(value)?) };
            bytes += 8 + key.len() + value.as_ref().map_or(0, Vec::len);
            changes.insert(key, value);
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_changes_of_a_key_the_last_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it has no name");
        for (key, value) in
            [("a", Some("1")), ("b", Some("2")), ("a", None), ("b", Some("")), ("c", None), ("c", Some("3"))]
        {
            spool.append(key.as_bytes(), value.map(str::as_bytes)).unwrap();
        }
        let mut reader = spool.finish().unwrap();
        let changes = reader.next_chunk().unwrap();
        let expected = [("a", None), ("b", Some("")), ("c", Some("3"))];
        let expected = expected.map(|(key, value)| (key.as_bytes().to_vec(), value.map(|v| v.as_bytes().to_vec())));
        assert_eq!(changes, Changes::from(expected));
        assert!(reader.next_chunk().unwrap().is_empty());
    }

    #[test]
    fn a_full_disk_is_a_clear_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut spool = Spool::on(full);
        let error = (0..100_000).find_map(|_| spool.append(b"key", Some(b"value")).err()).unwrap();
        assert_eq!(error.kind(), tidemill_core::Kind::Full);
        assert!(error.to_string().contains("state_dir"), "{error}");
    }
}
