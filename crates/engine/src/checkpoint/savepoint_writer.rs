//! Savepoints written outside of any job: put together from operators of others, and from entries a program has (what Flink's
//! State Processor API writes). State with timers and windows is made by the operators themselves: `Environment::bootstrap`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_core::{Clock, Data, Error, Result, SystemClock};

use super::folder::{self, StateFile};
use super::manifest::{Manifest, OperatorState, SectionPlace, VERSION};
use super::savepoint::SavepointReader;
use super::storage::{Storage, Storages, location};
use crate::key::{KEY_GROUPS, Key, key_group};
use crate::state::{Section, SectionKind, Writer};

/// Entries of a keyed state are divided by so many ranges of key groups, so that each subtask reads little that is not its own.
const PARTS: u64 = 32;

/// A piece of a keyed state is written when it has so many bytes: with all parts, what a writer holds in memory at most.
const SECTION_BYTES: usize = 1024 * 1024;

/// Writes a savepoint, piece by piece. It exists when it is finished; a writer that is dropped before leaves nothing.
///
/// ```
/// # use tidemill_engine::{Environment, JobSettings};
/// use tidemill_engine::checkpoint::{SavepointReader, SavepointWriter};
/// use tidemill_engine::state::ValueState;
/// # use tidemill_core::Result;
/// # let folder = tempfile::tempdir()?;
/// # let (old, new) = (folder.path().join("old"), folder.path().join("new"));
/// # let mut writer = SavepointWriter::create(&old)?;
/// # writer.keyed_state("visits", "count", [(7u64, 3u64), (8, 1)])?;
/// # writer.keyed_state("orders", "last", [(1u32, "x".to_string())])?;
/// # writer.finish()?;
/// // The keys of `visits` were numbers, and are to be texts. All other operators stay as they are.
/// let old = SavepointReader::open(&old)?;
/// let mut writer = SavepointWriter::create(&new)?;
/// for uid in old.operators().filter(|uid| *uid != "visits") {
///     writer.copy(&old, uid, uid)?;
/// }
/// let visits = old.keyed_state::<u64, u64>("visits", "count")?;
/// writer.keyed_state("visits", "count", visits.into_iter().map(|(user, count)| (format!("user-{user}"), count)))?;
/// writer.finish()?;
///
/// assert_eq!(SavepointReader::open(&new)?.operators().collect::<Vec<_>>(), ["orders", "visits"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SavepointWriter {
    storage: Arc<dyn Storage>,
    folder: PathBuf,
    manifest: Manifest,
    /// So many files are written.
    files: usize,
    /// Keyed states that were written and not copied: operator and name.
    written: BTreeSet<(String, String)>,
    finished: bool,
}

impl SavepointWriter {
    /// Begins a savepoint in a folder that is not there yet or is empty: a path, `file:///path` or `s3://bucket/prefix`, whose
    /// options are taken from the environment.
    pub fn create(place: impl AsRef<Path>) -> Result<Self> {
        Self::create_with(place, BTreeMap::new())
    }

    /// The same with options of the object store, as in [`crate::JobSettings::storage_options`].
    pub fn create_with(place: impl AsRef<Path>, options: BTreeMap<String, String>) -> Result<Self> {
        let folder = location(place.as_ref())?;
        let storage = Storages::new(options).at(&folder)?;
        if !storage.list(&folder)?.is_empty() {
            return Err(Error::input(format!("`{}` is not empty", folder.display()))
                .hint("name a new folder: a savepoint has one of its own"));
        }
        storage.make_folder(&folder)?;
        let manifest = Manifest {
            version: VERSION,
            job_id: "0".repeat(32),
            job_name: "savepoint writer".to_string(),
            epoch: 1,
            kind: "savepoint".to_string(),
            created_ms: SystemClock.now_ms(),
            key_groups: KEY_GROUPS,
            operators: BTreeMap::new(),
        };
        Ok(SavepointWriter { storage, folder, manifest, files: 0, written: BTreeSet::new(), finished: false })
    }

    /// Takes over all state of an operator of another savepoint or checkpoint, with what its sink has not published yet; it
    /// may have a new uid here.
    pub fn copy(&mut self, from: &SavepointReader, uid: &str, new_uid: &str) -> Result<()> {
        let state = from.operator(uid)?;
        if self.manifest.operators.contains_key(new_uid) {
            return Err(Error::input(format!("operator `{new_uid}` has state in this savepoint already"))
                .hint("copy an operator before other state is written for it, and only once"));
        }
        let mut places = Vec::with_capacity(state.sections.len());
        if !state.sections.is_empty() {
            let mut file = self.new_file()?;
            for place in &state.sections {
                let bytes = from.files.section(place)?;
                let section = Section {
                    removal: place.removal,
                    groups: place.groups,
                    ..Section::new(place.name.clone(), place.kind, place.entries, bytes)
                };
                places.push(file.append(&section, place.subtask)?);
            }
            file.finish()?;
        }
        // A job goes on behind the epoch it begins with, and sinks number what they publish by epochs.
        self.manifest.epoch = self.manifest.epoch.max(from.manifest().epoch);
        self.manifest.operators.insert(new_uid.to_string(), OperatorState { sections: places, ..state.clone() });
        Ok(())
    }

    /// Writes a keyed state, with entries as [`SavepointReader::keyed_state`] tells them. It may be written in several calls; of a
    /// key that comes twice the last counts.
    pub fn keyed_state<K: Key, V: Data>(
        &mut self,
        uid: &str,
        name: &str,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        if !self.written.contains(&(uid.to_string(), name.to_string())) {
            self.vacant(uid, SectionKind::Keyed, name)?;
            self.written.insert((uid.to_string(), name.to_string()));
        }
        let mut file = self.begin::<(K, V)>(uid, SectionKind::Keyed, name)?;
        let mut places = Vec::new();
        let mut parts: Vec<Writer> = (0..PARTS).map(|_| Writer::new(name, SectionKind::Keyed)).collect();
        let mut write = |part: usize, writer: &mut Writer| {
            let full = std::mem::replace(writer, Writer::new(name, SectionKind::Keyed));
            let first = part as u64 * (KEY_GROUPS / PARTS);
            let groups = Some((first, first + KEY_GROUPS / PARTS - 1));
            places.push(file.append(&Section { groups, ..full.finish() }, 0)?);
            Ok::<(), Error>(())
        };
        for entry in entries {
            let part = (key_group(&entry.0) / (KEY_GROUPS / PARTS)) as usize;
            parts[part].entry(&entry)?;
            if parts[part].bytes() >= SECTION_BYTES {
                write(part, &mut parts[part])?;
            }
        }
        for (part, writer) in parts.iter_mut().enumerate().filter(|(_, writer)| !writer.is_empty()) {
            write(part, writer)?;
        }
        file.finish()?;
        self.operator(uid).sections.extend(places);
        Ok(())
    }

    /// Writes a state that is its operator's as a whole: elements of a list, or pairs of key and value of a broadcast state.
    pub fn operator_state<E: Serialize + DeserializeOwned + 'static>(
        &mut self,
        uid: &str,
        name: &str,
        entries: impl IntoIterator<Item = E>,
    ) -> Result<()> {
        self.vacant(uid, SectionKind::Operator, name)?;
        let mut file = self.begin::<E>(uid, SectionKind::Operator, name)?;
        let mut writer = Writer::new(name, SectionKind::Operator);
        entries.into_iter().try_for_each(|entry| writer.entry(&entry))?;
        let place = file.append(&writer.finish(), 0)?;
        file.finish()?;
        self.operator(uid).sections.push(place);
        Ok(())
    }

    /// Makes the savepoint exist.
    pub fn finish(mut self) -> Result<()> {
        folder::publish(&*self.storage, &self.folder, &self.manifest)?;
        self.finished = true;
        Ok(())
    }

    /// An error if the operator has this state already.
    fn vacant(&mut self, uid: &str, kind: SectionKind, name: &str) -> Result<()> {
        let is_it = |place: &SectionPlace| place.kind == kind && place.name == name;
        match self.operator(uid).sections.iter().any(is_it) {
            true => Err(Error::input(format!("operator `{uid}` has a state `{name}` in this savepoint already"))
                .hint("copied state and lists are whole: write another state, or do not copy the operator")),
            false => Ok(()),
        }
    }

    /// A file for more entries of a state, whose type is noted.
    fn begin<E: DeserializeOwned + 'static>(&mut self, uid: &str, kind: SectionKind, name: &str) -> Result<StateFile> {
        let shapes = &mut self.operator(uid).shapes;
        if let Some((before, now)) = shapes.differs::<E>(kind, name) {
            return Err(Error::input(format!("state `{name}` of `{uid}` is {before}, and not {now}")));
        }
        shapes.note::<E>(kind, name);
        self.new_file()
    }

    fn operator(&mut self, uid: &str) -> &mut OperatorState {
        let new = || OperatorState { parallelism: 1, ..OperatorState::default() };
        self.manifest.operators.entry(uid.to_string()).or_insert_with(new)
    }

    fn new_file(&mut self) -> Result<StateFile> {
        self.files += 1;
        let name = format!("state-{}", self.files);
        StateFile::create(&*self.storage, &self.folder, &name, &name)
    }
}

impl Drop for SavepointWriter {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.storage.remove_folder(&self.folder)
        {
            tracing::warn!(%error, "what was written of a savepoint stays");
        }
    }
}
