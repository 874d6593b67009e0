//! A folder of checkpoints, wherever it is kept: which there are, which may go, and how their files look.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::{Error, Kind, Result};

use super::manifest::{DAMAGED, Manifest, SectionPlace};
use super::storage::{self, Output, Storage, Storages};
use crate::state::Section;

const MANIFEST: &str = "_metadata";
const PREFIX: &str = "chk-";

/// The file that holds the id of a job that was given none.
const JOB: &str = "job";

/// The folder beside the checkpoints for files that several of them name.
pub(crate) const SHARED: &str = "shared";

/// State files begin with this; the last byte is the format's version.
pub(crate) const STATE_MAGIC: [u8; 5] = *b"TMST\x01";

/// A copy between storages takes so many bytes at a time.
const COPY_BYTES: u64 = 8 * 1024 * 1024;

/// A folder that holds `chk-<epoch>` folders.
#[derive(Clone)]
pub struct CheckpointFolder {
    storage: Arc<dyn Storage>,
    root: PathBuf,
}

impl CheckpointFolder {
    /// The folder at `root`, made if it is not there. `root` is a path or a URL; an object store's options are taken from
    /// the environment.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::open_in(&Storages::default(), &storage::location(&root.into())?)
    }

    pub(crate) fn open_in(storages: &Storages, root: &Path) -> Result<Self> {
        let storage = storages.at(root)?;
        storage.make_folder(&root.join(SHARED))?;
        Ok(CheckpointFolder { storage, root: root.to_path_buf() })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The id of the job whose folder it is: `made_up` from the first time on.
    pub(crate) fn job_id(&self, made_up: &str) -> Result<String> {
        let file = self.root.join(JOB);
        if !self.storage.exists(&file)? {
            self.storage.publish(&file, made_up.as_bytes())?;
        }
        let id = String::from_utf8_lossy(&self.storage.read(&file, None)?).into_owned();
        if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let text = format!("`{}` holds `{id}`, which is no id of a job: 32 hex digits", file.display());
            return Err(Error::corrupt(text));
        }
        Ok(id)
    }

    /// Where the checkpoint of an epoch stands.
    pub fn path(&self, epoch: u64) -> PathBuf {
        self.root.join(format!("{PREFIX}{epoch}"))
    }

    /// Epochs that have a manifest, ascending.
    pub fn complete(&self) -> Result<Vec<u64>> {
        let mut complete = Vec::new();
        for epoch in self.epochs()? {
            if self.storage.exists(&self.path(epoch).join(MANIFEST))? {
                complete.push(epoch);
            }
        }
        Ok(complete)
    }

    fn epochs(&self) -> Result<Vec<u64>> {
        let names = self.storage.list(&self.root)?;
        let mut epochs: Vec<u64> = names.iter().filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect();
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
    pub(crate) fn remove_unnamed(&self, named: &mut NamedFiles) -> Result<()> {
        let complete = self.complete()?;
        named.retain(|epoch, _| complete.contains(epoch));
        for epoch in complete {
            if let Entry::Vacant(unknown) = named.entry(epoch) {
                match read_manifest(&*self.storage, &self.path(epoch)) {
                    Ok(manifest) => unknown.insert(shared_files(&manifest)),
                    // It may name any of them. Whoever needs this checkpoint is told of the damage.
                    Err(error) if error.kind() == Kind::Corrupt => {
                        tracing::warn!(%error, "shared files stay as long as this checkpoint does");
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                };
            }
        }
        let shared = self.root.join(SHARED);
        for name in self.storage.list(&shared)? {
            if !named.values().any(|files| files.contains(&name)) {
                self.storage.remove_file(&shared.join(name))?;
            }
        }
        Ok(())
    }

    /// Makes the complete state files in `folder`, with this manifest, a checkpoint of this folder as well.
    pub(crate) fn adopt(&self, from: &dyn Storage, folder: &Path, manifest: &Manifest) -> Result<()> {
        let own = self.path(manifest.epoch);
        self.storage.make_folder(&own)?;
        let mut files: BTreeMap<&str, u64> = BTreeMap::new();
        for place in manifest.operators.values().flat_map(|operator| &operator.sections) {
            let length = files.entry(&place.file).or_default();
            *length = (*length).max(place.offset + place.length);
        }
        for (file, length) in files {
            let (source, target) = (folder.join(file), own.join(file));
            if storage::same(folder, &own) {
                self.storage.copy(&source, &target)
            } else {
                self.copy_here(from, &source, &target, length)
            }
            .map_err(|e| e.context(format!("keep a copy of `{}`", folder.display())))?;
        }
        publish(&*self.storage, &own, manifest)
    }

    fn copy_here(&self, from: &dyn Storage, source: &Path, target: &Path, length: u64) -> Result<()> {
        let mut output = self.storage.create(target)?;
        for start in (0..length).step_by(COPY_BYTES as usize) {
            output.write(&from.read(source, Some(start..length.min(start + COPY_BYTES)))?)?;
        }
        output.finish()
    }

    /// Removes all checkpoints and what belongs to them.
    pub(crate) fn remove_all(&self) -> Result<()> {
        self.epochs()?.into_iter().try_for_each(|epoch| self.remove(epoch))?;
        self.remove_unnamed(&mut NamedFiles::new())
    }

    /// Removes one checkpoint: its manifest first, so that half a removal leaves none.
    pub fn remove(&self, epoch: u64) -> Result<()> {
        remove(&*self.storage, &self.path(epoch))
    }
}

/// Removes the checkpoint or savepoint in `folder`: its manifest first, so that half a removal leaves none.
pub(crate) fn remove(storage: &dyn Storage, folder: &Path) -> Result<()> {
    storage.remove_file(&folder.join(MANIFEST))?;
    storage.remove_folder(folder)
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
    output: Box<dyn Output>,
    /// As the manifest names it.
    name: String,
    offset: u64,
}

impl StateFile {
    pub fn create(storage: &dyn Storage, folder: &Path, file: &str, name: &str) -> Result<Self> {
        let mut output = storage.create(&folder.join(file))?;
        output.write(&STATE_MAGIC)?;
        Ok(StateFile { output, name: name.to_string(), offset: STATE_MAGIC.len() as u64 })
    }

    /// Writes a section and says where it stands.
    pub fn append(&mut self, section: &Section, subtask: usize) -> Result<SectionPlace> {
        self.output.write(&section.bytes)?;
        Ok(place(section, subtask, &self.name, &mut self.offset))
    }

    /// Waits until all of it is durable.
    pub fn finish(self) -> Result<()> {
        self.output.finish()
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

/// Makes a checkpoint exist, by its manifest.
pub(crate) fn publish(storage: &dyn Storage, folder: &Path, manifest: &Manifest) -> Result<()> {
    storage.publish(&folder.join(MANIFEST), &manifest.bytes()?)
}

/// The manifest of the checkpoint or savepoint in `folder`.
pub(crate) fn read_manifest(storage: &dyn Storage, folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let bytes = storage
        .read(&path, None)
        .map_err(|e| e.context("read the manifest").hint("name the folder of a complete checkpoint or savepoint"))?;
    Manifest::parse(&bytes, &path.display().to_string())
}

/// Reads the state of one checkpoint or savepoint.
pub(crate) struct StateFiles {
    storage: Arc<dyn Storage>,
    folder: PathBuf,
    /// Files whose beginning was found right.
    known: Mutex<BTreeSet<String>>,
}

impl StateFiles {
    pub fn new(storage: Arc<dyn Storage>, folder: &Path) -> Self {
        StateFiles { storage, folder: folder.to_path_buf(), known: Mutex::default() }
    }

    /// How many sections are worth reading at once.
    pub fn reads_at_once(&self) -> usize {
        self.storage.reads_at_once()
    }

    /// A piece of state, checked against its checksum.
    pub fn section(&self, place: &SectionPlace) -> Result<Vec<u8>> {
        let path = self.folder.join(&place.file);
        let tried = |e: Error| e.context(format!("state `{}`", place.name));
        let damaged = |what: &str| {
            let message = format!("state `{}` in `{}` is damaged: {what}", place.name, path.display());
            Error::corrupt(message).hint(DAMAGED)
        };
        let read = |range| match self.storage.read(&path, Some(range)) {
            Err(error) if error.kind() == Kind::Corrupt => Err(damaged("the file is too short")),
            read => read.map_err(tried),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&place.file) {
            if read(0..STATE_MAGIC.len() as u64)? != STATE_MAGIC {
                return Err(damaged("this is not a state file of version 1"));
            }
            known.insert(place.file.clone());
        }
        drop(known);
        let bytes = read(place.offset..place.offset + place.length)?;
        if crc32fast::hash(&bytes) != place.crc32 {
            return Err(damaged("its checksum does not fit"));
        }
        Ok(bytes)
    }
}
