//! What a job starts from: the newest complete checkpoint or a savepoint. Each subtask reads what it needs of it, while it
//! takes it in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::sink::Token;
use tidemill_core::{Error, Result};

use super::folder::{StateFiles, read_manifest};
use super::manifest::{Manifest, OperatorState, SectionPlace};
use super::read_ahead::Readers;
use super::storage::Storages;
use crate::key::owner;
use crate::state::{Restored, RestoredSection, SectionBytes, SectionKind};

/// A checkpoint to restore from, or none.
#[derive(Default)]
pub(crate) struct RestorePoint {
    folder: PathBuf,
    manifest: Option<Manifest>,
    /// Until all workers have what they need.
    readers: Mutex<Option<Readers>>,
}

/// The first and the last of the subtasks that read a section now: those whose keys it can hold.
fn read_by(operator: &OperatorState, place: &SectionPlace, parallelism: usize) -> (usize, usize) {
    if place.kind != SectionKind::Keyed {
        return (0, parallelism - 1);
    }
    let (first, last) = operator.key_groups_of(place);
    (owner(first, parallelism), owner(last, parallelism))
}

impl RestorePoint {
    /// The checkpoint or savepoint in a folder.
    pub fn open(storages: &Storages, folder: &Path) -> Result<Self> {
        let storage = storages.at(folder)?;
        let manifest = read_manifest(&*storage, folder)?;
        let readers = Readers::start(Arc::new(StateFiles::new(storage, folder)))?;
        Ok(RestorePoint { folder: folder.to_path_buf(), manifest: Some(manifest), readers: Mutex::new(Some(readers)) })
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
        let mut restored = Restored { uid: uid.to_string(), subtask, parallelism, ..Restored::default() };
        let operator = self.manifest.as_ref().and_then(|manifest| manifest.operators.get(uid));
        let Some(operator) = operator else { return Ok(restored) };
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let readers = readers.ok_or_else(|| Error::bug("state is restored behind the start"))?;
        let reads = |place: &&SectionPlace| {
            let (first, last) = read_by(operator, place, parallelism);
            (first..=last).contains(&subtask)
        };
        let places: Vec<SectionPlace> = operator.sections.iter().filter(reads).cloned().collect();
        let ahead = readers.ahead_of(places.clone());
        let section = |(at, place): (usize, SectionPlace)| RestoredSection {
            subtask: place.subtask,
            name: place.name,
            kind: place.kind,
            entries: place.entries,
            bytes: SectionBytes::Stored { sections: ahead.clone(), at },
            removal: place.removal,
            groups: place.groups,
        };
        restored.shapes = operator.shapes.clone();
        restored.sections = places.into_iter().enumerate().map(section).collect();
        Ok(restored)
    }

    /// A sink's tokens that may not be published yet.
    pub fn tokens(&self, uid: &str) -> Result<Vec<Token>> {
        let Some(operator) = self.manifest.as_ref().and_then(|manifest| manifest.operators.get(uid)) else {
            return Ok(Vec::new());
        };
        operator.tokens.iter().map(|entry| entry.bytes()).collect()
    }

    /// All workers are built: nobody asks for more, and the threads that read end with what they were asked for.
    pub fn built(&self) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
