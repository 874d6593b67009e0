//! What a job starts from: the newest complete checkpoint or a savepoint, read once a process and shared by its workers.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::sink::Token;
use tidemill_core::{Error, Result};

use super::folder::{StateFiles, read_manifest};
use super::manifest::{Manifest, SectionPlace};
use super::storage::Storages;
use crate::key::{groups_of, owner};
use crate::state::{Restored, RestoredSection, SectionKind};

type SectionCache = HashMap<(String, usize), Arc<[u8]>>;

/// A checkpoint to restore from, or none.
#[derive(Default)]
pub(crate) struct RestorePoint {
    folder: PathBuf,
    manifest: Option<Manifest>,
    files: Option<StateFiles>,
    cache: Mutex<SectionCache>,
}

/// The first and the last of the subtasks that read a section now: those whose keys it can hold. Keys of the subtask that
/// wrote it lie in its range of key groups.
fn readers(place: &SectionPlace, written_by: usize, parallelism: usize) -> (usize, usize) {
    let own = || (written_by > 0).then(|| groups_of(place.subtask, written_by)).flatten();
    match place.groups.or_else(own) {
        Some((first, last)) if place.kind == SectionKind::Keyed => {
            (owner(first, parallelism), owner(last, parallelism))
        }
        _ => (0, parallelism - 1),
    }
}

impl RestorePoint {
    /// The checkpoint or savepoint in a folder.
    pub fn open(storages: &Storages, folder: &Path) -> Result<Self> {
        let storage = storages.at(folder)?;
        let manifest = read_manifest(&*storage, folder)?;
        let files = Some(StateFiles::new(storage, folder));
        Ok(RestorePoint { folder: folder.to_path_buf(), manifest: Some(manifest), files, cache: Mutex::default() })
    }

    /// The epoch it closed; 0 for a fresh start.
    pub fn epoch(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.epoch)
    }

    /// Where it stands.
    pub fn folder(&self) -> Option<&Path> {
        self.manifest.as_ref().map(|_| self.folder.as_path())
    }

    pub fn is_some(&self) -> bool {
        self.manifest.is_some()
    }

    /// An error if it holds state of operators that are not among `uids`.
    pub fn check_all_claimed(&self, uids: &BTreeSet<String>, allow_non_restored: bool) -> Result<()> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let lost: Vec<&str> =
            manifest.operators.keys().filter(|uid| !uids.contains(*uid)).map(String::as_str).collect();
        if lost.is_empty() || allow_non_restored {
            return Ok(());
        }
        Err(Error::input(format!(
            "the job has no operator for the state of `{}` in `{}`",
            lost.join("`, `"),
            self.folder.display()
        ))
        .hint("give operators the uids they had, or allow state to be left behind"))
    }

    /// One operator's state, for one subtask to take its share of.
    pub fn load(&self, uid: &str, subtask: usize, parallelism: usize) -> Result<Restored> {
        let mut restored = Restored { uid: uid.to_string(), subtask, parallelism, sections: Vec::new() };
        let operator = self.manifest.as_ref().and_then(|manifest| manifest.operators.get(uid));
        let (Some(operator), Some(files)) = (operator, &self.files) else {
            return Ok(restored);
        };
        for (index, place) in operator.sections.iter().enumerate() {
            let (first, last) = readers(place, operator.parallelism, parallelism);
            if !(first..=last).contains(&subtask) {
                continue;
            }
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = match cache.get(&(uid.to_string(), index)) {
                Some(bytes) => bytes.clone(),
                None => {
                    let bytes: Arc<[u8]> = files.section(place)?.into();
                    cache.insert((uid.to_string(), index), bytes.clone());
                    bytes
                }
            };
            restored.sections.push(RestoredSection {
                subtask: place.subtask,
                name: place.name.clone(),
                kind: place.kind,
                entries: place.entries,
                bytes,
                removal: place.removal,
                groups: place.groups,
            });
        }
        Ok(restored)
    }

    /// A sink's tokens that may not be published yet.
    pub fn tokens(&self, uid: &str) -> Result<Vec<Token>> {
        let Some(operator) = self.manifest.as_ref().and_then(|manifest| manifest.operators.get(uid)) else {
            return Ok(Vec::new());
        };
        operator.tokens.iter().map(|entry| entry.bytes()).collect()
    }

    /// Lets go of what was read; called when all workers are built.
    pub fn forget_bytes(&self) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
