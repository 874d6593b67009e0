//! A folder of checkpoints on a file system. Everything that touches files of checkpoints stands here, so that an object
//! store can take its place.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tidemill_core::{Error, Result};

use super::manifest::{Manifest, SectionPlace};
use crate::state::Section;

const MANIFEST: &str = "_metadata";
const PREFIX: &str = "chk-";

/// The folder beside the checkpoints for files that several of them name.
pub(crate) const SHARED: &str = "shared";

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
        fs::create_dir_all(root.join(SHARED))
            .map_err(|e| Error::io(format!("make the checkpoint folder `{}`", root.display()), e))?;
        Ok(CheckpointFolder { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
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
        self.epochs()?
            .into_iter()
            .filter(|epoch| !complete.contains(epoch))
            .try_for_each(|epoch| self.remove(epoch))?;
        self.remove_unnamed(&mut BTreeMap::new())
    }

    /// Keeps the newest `retained` complete checkpoints and removes older ones, with the shared files that no checkpoint
    /// names any more. `named` remembers which names which between calls.
    pub fn retain(&self, retained: usize, named: &mut NamedFiles) -> Result<()> {
        let complete = self.complete()?;
        let surplus = complete.len().saturating_sub(retained.max(1));
        complete.into_iter().take(surplus).try_for_each(|epoch| self.remove(epoch))?;
        self.remove_unnamed(named)
    }

    /// Removes shared files that no complete checkpoint names. Must not run while a checkpoint is under way.
    fn remove_unnamed(&self, named: &mut NamedFiles) -> Result<()> {
        let complete = self.complete()?;
        named.retain(|epoch, _| complete.contains(epoch));
        for epoch in complete {
            if let Entry::Vacant(unknown) = named.entry(epoch) {
                unknown.insert(shared_files(&read_manifest(&self.path(epoch))?));
            }
        }
        let shared = self.root.join(SHARED);
        let entries = match fs::read_dir(&shared) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|e| Error::io(format!("list `{}`", shared.display()), e))?,
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !named.values().any(|files| files.contains(&name)) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|e| Error::io(format!("remove `{}`", path.display()), e))?;
            }
        }
        Ok(())
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

    /// Removes all checkpoints and what belongs to them.
    pub(crate) fn remove_all(&self) -> Result<()> {
        self.epochs()?.into_iter().try_for_each(|epoch| self.remove(epoch))?;
        self.remove_unnamed(&mut NamedFiles::new())
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

/// Which shared files each checkpoint names.
pub(crate) type NamedFiles = BTreeMap<u64, BTreeSet<String>>;

/// The shared files a manifest names.
pub(crate) fn shared_files(manifest: &Manifest) -> BTreeSet<String> {
    let places = manifest.operators.values().flat_map(|operator| &operator.sections);
    places
        .filter_map(|place| place.file.strip_prefix("../")?.strip_prefix(SHARED)?.strip_prefix('/'))
        .map(str::to_string)
        .collect()
}

/// A state file that is being written, section by section.
pub(crate) struct StateFile {
    file: File,
    path: PathBuf,
    /// As the manifest names it.
    name: String,
    offset: u64,
}

impl StateFile {
    pub fn create(folder: &Path, file: &str, name: &str) -> Result<Self> {
        let path = folder.join(file);
        let file = File::create(&path)
            .and_then(|mut file| file.write_all(&STATE_MAGIC).map(|()| file))
            .map_err(|e| Error::io(format!("write `{}`", path.display()), e))?;
        Ok(StateFile { file, path, name: name.to_string(), offset: STATE_MAGIC.len() as u64 })
    }

    /// Writes a section and says where it stands.
    pub fn append(&mut self, section: &Section, subtask: usize) -> Result<SectionPlace> {
        self.file.write_all(&section.bytes).map_err(|e| Error::io(format!("write `{}`", self.path.display()), e))?;
        Ok(place(section, subtask, &self.name, &mut self.offset))
    }

    /// Waits until all of it is on disk.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(format!("write `{}`", self.path.display()), e))
    }
}

/// The place of a section that is the next in its file.
pub(crate) fn place(section: &Section, subtask: usize, file: &str, offset: &mut u64) -> SectionPlace {
    let start = *offset;
    *offset += section.bytes.len() as u64;
    SectionPlace {
        subtask,
        name: section.name.clone(),
        kind: section.kind,
        entries: section.entries,
        file: file.to_string(),
        offset: start,
        length: section.bytes.len() as u64,
        crc32: crc32fast::hash(&section.bytes),
        removal: section.removal,
        groups: section.groups,
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
    let json =
        serde_json::to_vec(manifest).map_err(|e| Error::bug(format!("the manifest cannot be written as JSON: {e}")))?;
    let aside = folder.join("_metadata.tmp");
    write_file(&aside, &[&json])?;
    fs::rename(&aside, folder.join(MANIFEST)).map_err(|e| Error::io(format!("publish `{}`", folder.display()), e))?;
    sync_folder(folder)?;
    folder.parent().map_or(Ok(()), sync_folder)
}

pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
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
