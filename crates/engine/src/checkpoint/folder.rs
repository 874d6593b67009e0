//! A folder of checkpoints on a file system. Everything that touches files of checkpoints stands here, so that an object
//! store can take its place.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tidemill_core::{Error, Result};

use super::manifest::{Manifest, SectionPlace};

const MANIFEST: &str = "_metadata";
const PREFIX: &str = "chk-";

/// State files begin with this; the last byte is the format's version.
pub(crate) const STATE_MAGIC: [u8; 5] = *b"TMST\x01";

/// A folder that holds `chk-<epoch>` folders.
#[derive(Debug, Clone)]
pub struct CheckpointFolder {
    root: PathBuf,
}

impl CheckpointFolder {
    /// The folder at `root`, made if it is not there.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root)
            .map_err(|e| Error::io(format!("make the checkpoint folder `{}`", root.display()), e))?;
        Ok(CheckpointFolder { root })
    }

    /// Where the checkpoint of an epoch stands.
    pub fn path(&self, epoch: u64) -> PathBuf {
        self.root.join(format!("{PREFIX}{epoch}"))
    }

    /// Epochs that have a manifest, ascending.
    pub fn complete(&self) -> Result<Vec<u64>> {
        Ok(self.epochs()?.into_iter().filter(|epoch| self.path(*epoch).join(MANIFEST).is_file()).collect())
    }

    fn epochs(&self) -> Result<Vec<u64>> {
        let entries = fs::read_dir(&self.root).map_err(|e| Error::io(format!("list `{}`", self.root.display()), e))?;
        let mut epochs: Vec<u64> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()).collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Removes what an earlier attempt began and did not complete.
    pub fn remove_incomplete(&self) -> Result<()> {
        let complete = self.complete()?;
        self.epochs()?.into_iter().filter(|epoch| !complete.contains(epoch)).try_for_each(|epoch| self.remove(epoch))
    }

    /// Keeps the newest `retained` complete checkpoints and removes older ones.
    pub fn retain(&self, retained: usize) -> Result<()> {
        let complete = self.complete()?;
        let surplus = complete.len().saturating_sub(retained.max(1));
        complete.into_iter().take(surplus).try_for_each(|epoch| self.remove(epoch))
    }

    /// Makes the complete state files in `folder`, with this manifest, a checkpoint of this folder as well.
    pub(crate) fn adopt(&self, folder: &Path, manifest: &Manifest) -> Result<()> {
        let own = self.path(manifest.epoch);
        let tried = || format!("keep a copy of `{}` in `{}`", folder.display(), own.display());
        fs::create_dir_all(&own).map_err(|e| Error::io(tried(), e))?;
        for entry in fs::read_dir(folder).map_err(|e| Error::io(tried(), e))? {
            let (from, to) =
                entry.map(|entry| (entry.path(), own.join(entry.file_name()))).map_err(|e| Error::io(tried(), e))?;
            // A second name costs nothing; on another file system it takes a copy.
            if fs::hard_link(&from, &to).is_err() {
                let copied = fs::copy(&from, &to).and_then(|_| File::open(&to)).and_then(|copy| copy.sync_all());
                copied.map_err(|e| Error::io(tried(), e))?;
            }
        }
        publish(&own, manifest)
    }

    /// Removes one checkpoint: its manifest first, so that half a removal leaves none.
    pub fn remove(&self, epoch: u64) -> Result<()> {
        let path = self.path(epoch);
        let _ = fs::remove_file(path.join(MANIFEST));
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove `{}`", path.display()), e))
            }
            _ => Ok(()),
        }
    }
}

/// Writes a file whole and waits until it is on disk.
pub(crate) fn write_file(path: &Path, pieces: &[&[u8]]) -> Result<()> {
    let tried = || format!("write `{}`", path.display());
    let mut file = File::create(path).map_err(|e| Error::io(tried(), e))?;
    for piece in pieces {
        file.write_all(piece).map_err(|e| Error::io(tried(), e))?;
    }
    file.sync_all().map_err(|e| Error::io(tried(), e))
}

/// Makes a checkpoint exist: writes its manifest aside, then renames it.
pub(crate) fn publish(folder: &Path, manifest: &Manifest) -> Result<()> {
    let json = serde_json::to_vec_pretty(manifest)
        .map_err(|e| Error::bug(format!("the manifest cannot be written as JSON: {e}")))?;
    let aside = folder.join("_metadata.tmp");
    write_file(&aside, &[&json])?;
    fs::rename(&aside, folder.join(MANIFEST)).map_err(|e| Error::io(format!("publish `{}`", folder.display()), e))?;
    sync_folder(folder)?;
    folder.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| Error::io(format!("sync the folder `{}`", folder.display()), e))
}

/// The manifest of the checkpoint or savepoint in `folder`.
pub fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let bytes = fs::read(&path).map_err(|e| {
        Error::io(format!("read the manifest `{}`", path.display()), e)
            .hint("name the folder of a complete checkpoint or savepoint")
    })?;
    Manifest::parse(&bytes, &path.display().to_string())
}

/// A piece of state, checked against its checksum.
pub(crate) fn read_section(folder: &Path, place: &SectionPlace) -> Result<Vec<u8>> {
    let path = folder.join(&place.file);
    let tried = || format!("read state `{}` from `{}`", place.name, path.display());
    let mut file = File::open(&path).map_err(|e| Error::io(tried(), e))?;
    let mut magic = [0u8; STATE_MAGIC.len()];
    file.read_exact(&mut magic).map_err(|e| Error::io(tried(), e))?;
    if magic != STATE_MAGIC {
        return Err(Error::corrupt(format!("`{}` is not a state file of version 1", path.display())));
    }
    let mut bytes = vec![0u8; place.length as usize];
    file.seek(SeekFrom::Start(place.offset))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|e| Error::io(tried(), e))?;
    if crc32fast::hash(&bytes) != place.crc32 {
        return Err(Error::corrupt(format!(
            "state `{}` in `{}` is damaged: its checksum does not fit",
            place.name,
            path.display()
        ))
        .hint("restore from an older checkpoint"));
    }
    Ok(bytes)
}
