//! Checkpoints and savepoints outside of any job: what is in them, reading a state with its types, and disposing of them
//! (what Flink's State Processor API reads; `savepoint_writer` has what it writes).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tidemill_core::{Data, Error, Result};

use super::folder::{self, CheckpointFolder, NamedFiles, StateFiles, read_manifest};
use super::manifest::{Manifest, OperatorState, SectionPlace};
use super::storage::{Storages, location};
use crate::key::{GroupRange, KEY_GROUPS, Key, groups_of, key_group};
use crate::state::shape::{Decoded, Shape};
use crate::state::{RestoredSection, SectionBytes, SectionKind};

/// Reads the states of a complete checkpoint or savepoint.
///
/// ```
/// # use tidemill_engine::{Environment, JobSettings, checkpoint::SavepointReader};
/// # let folder = tempfile::tempdir()?;
/// let env = Environment::with_settings(JobSettings { checkpoint_dir: Some(folder.path().into()), ..JobSettings::default() });
/// let words = env.from_collection(vec!["to", "be", "or", "not", "to", "be"].into_iter().map(String::from).collect());
/// let counts = words.map(|word: String| (word, 1u64)).key_by(|pair| pair.0.clone());
/// counts.sum(|pair| &mut pair.1).uid("counts").collect();
/// env.execute("words")?;
///
/// let reader = SavepointReader::open(folder.path().join("chk-1"))?;
/// let states = reader.states();
/// let counts = states.iter().find(|state| state.operator == "counts").unwrap();
/// // What is kept for each word is the pair that was summed up.
/// let mut kept = reader.keyed_state::<String, (String, u64)>("counts", &counts.name)?;
/// kept.sort();
/// assert_eq!(kept[3], ("to".to_string(), ("to".to_string(), 2)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SavepointReader {
    location: PathBuf,
    manifest: Manifest,
    pub(super) files: StateFiles,
}

/// One named state of one operator.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StateSummary {
    /// The operator's uid.
    pub operator: String,
    /// The state's name.
    pub name: String,
    /// Divided by key, or the operator's as a whole.
    pub kind: SectionKind,
    /// Subtasks that wrote it.
    pub subtasks: usize,
    /// Pieces it consists of.
    pub sections: usize,
    /// Entries in the pieces; an entry of a large table counts again in each piece that changes it.
    pub entries: u64,
    /// Keys that pieces tell to be gone.
    pub removed: u64,
    /// Bytes.
    pub bytes: u64,
    /// What its entries are, as far as the program that wrote it could tell: of keyed state the pair of key and value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Key groups it can hold keys of, for each range the first and the last; empty for a state that has no keys.
    pub key_groups: Vec<GroupRange>,
}

/// A piece of a state as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct RawSection {
    /// The subtask that wrote it.
    pub subtask: usize,
    /// How many entries the bytes hold.
    pub entries: u64,
    /// The entries are keys that pieces before it hold and that are gone.
    pub removal: bool,
    /// The bytes: entries one behind the other, by postcard.
    pub bytes: Vec<u8>,
}

/// An entry whose types were told by their shapes.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ShapedEntry {
    /// The subtask that wrote it.
    pub subtask: usize,
    /// The key, for keyed state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<serde_json::Value>,
    /// The value.
    pub value: serde_json::Value,
}

impl SavepointReader {
    /// The complete checkpoint or savepoint at a location: a path, `file:///path` or `s3://bucket/prefix`, whose options are
    /// taken from the environment.
    pub fn open(place: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(place, BTreeMap::new())
    }

    /// The same with options of the object store, as in [`crate::JobSettings::storage_options`].
    pub fn open_with(place: impl AsRef<Path>, options: BTreeMap<String, String>) -> Result<Self> {
        let location = location(place.as_ref())?;
        let storage = Storages::new(options).at(&location)?;
        let manifest = read_manifest(&*storage, &location)?;
        Ok(SavepointReader { files: StateFiles::new(storage, &location), manifest, location })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The uids of the operators that have state, in order.
    pub fn operators(&self) -> impl Iterator<Item = &str> {
        self.manifest.operators.keys().map(String::as_str)
    }

    /// All states, by operator and name.
    pub fn states(&self) -> Vec<StateSummary> {
        let mut states: BTreeMap<(&str, &str, bool), StateSummary> = BTreeMap::new();
        for (uid, operator) in &self.manifest.operators {
            for place in &operator.sections {
                let keyed = place.kind == SectionKind::Keyed;
                let state = states.entry((uid, &place.name, keyed)).or_insert_with(|| StateSummary {
                    operator: uid.clone(),
                    name: place.name.clone(),
                    kind: place.kind,
                    subtasks: 0,
                    sections: 0,
                    entries: 0,
                    removed: 0,
                    bytes: 0,
                    entry: operator.shapes.text(place.kind, &place.name).map(str::to_string),
                    key_groups: Vec::new(),
                });
                state.sections += 1;
                state.bytes += place.length;
                if place.removal {
                    state.removed += place.entries;
                } else {
                    state.entries += place.entries;
                }
                let groups = operator.key_groups_of(place);
                if keyed && !state.key_groups.contains(&groups) {
                    state.key_groups.push(groups);
                }
            }
            for state in states.values_mut().filter(|state| state.operator == *uid) {
                let wrote = operator.sections.iter().filter(|place| place.name == state.name);
                let subtasks: std::collections::BTreeSet<usize> = wrote.map(|place| place.subtask).collect();
                state.subtasks = subtasks.len();
                state.key_groups.sort_unstable();
            }
        }
        states.into_values().collect()
    }

    /// The entries of a keyed state, in no order: of a `ValueState<V>` `V`, of a `ListState<V>` `Vec<V>`, of a `MapState<F, V>`
    /// `Vec<(F, V)>`; of state that expires each value as `(i64, V)`, with the time it was touched last. An error when the
    /// bytes are not of these types.
    pub fn keyed_state<K: Key, V: Data>(&self, operator: &str, name: &str) -> Result<Vec<(K, V)>> {
        self.keyed_state_of(operator, name, (0, KEY_GROUPS - 1))
    }

    /// The same part by part, for state that does not fit into memory as a whole: so many ranges of key groups, one after the
    /// other. Each reads all pieces that may hold keys of it.
    pub fn keyed_state_in_parts<K: Key, V: Data>(
        &self,
        operator: &str,
        name: &str,
        parts: usize,
    ) -> impl Iterator<Item = Result<Vec<(K, V)>>> {
        let ranges = (0..parts).filter_map(move |part| groups_of(part, parts));
        ranges.map(move |range| self.keyed_state_of(operator, name, range))
    }

    /// The entries whose keys are in a range of key groups.
    fn keyed_state_of<K: Key, V: Data>(
        &self,
        operator: &str,
        name: &str,
        (first, last): GroupRange,
    ) -> Result<Vec<(K, V)>> {
        self.check::<(K, V)>(operator, SectionKind::Keyed, name)?;
        let state = self.operator(operator)?;
        let mut held: HashMap<K, V> = HashMap::new();
        for place in self.places(operator, name, Some(SectionKind::Keyed))? {
            let (from, to) = state.key_groups_of(place);
            if from > last || to < first {
                continue;
            }
            let section = self.section(place)?;
            // What a subtask wrote of its own is all its own, also when it is read as another type, with another hash.
            let counted = place.groups.map_or((first, last), |(from, to)| (from.max(first), to.min(last)));
            let counts = |key: &K| (counted.0..=counted.1).contains(&key_group(key));
            let mut reader = section.reader()?;
            if section.removal {
                while let Some(key) = reader.entry::<K>()? {
                    if counts(&key) {
                        held.remove(&key);
                    }
                }
                continue;
            }
            while let Some((key, value)) = reader.entry::<(K, V)>()? {
                if counts(&key) {
                    held.insert(key, value);
                }
            }
        }
        Ok(held.into_iter().collect())
    }

    /// The entries of a state that is its operator's as a whole: lists, unions, broadcast state.
    pub fn operator_state<E: DeserializeOwned>(&self, operator: &str, name: &str) -> Result<Vec<E>> {
        self.check::<E>(operator, SectionKind::Operator, name)?;
        let mut entries = Vec::new();
        for section in self.sections(operator, name, SectionKind::Operator)? {
            let mut reader = section.reader()?;
            while let Some(entry) = reader.entry()? {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// The pieces of a state as bytes, for whoever does not know its types.
    pub fn raw(&self, operator: &str, name: &str) -> Result<Vec<RawSection>> {
        let section = |place: &SectionPlace| {
            let (subtask, entries, removal) = (place.subtask, place.entries, place.removal);
            Ok(RawSection { subtask, entries, removal, bytes: self.files.section(place)? })
        };
        self.places(operator, name, None)?.into_iter().map(section).collect()
    }

    /// The entries of a state whose types are told by their [`Shape`]s: for keyed state `key` is that of the key, otherwise
    /// there is none.
    pub fn shaped(&self, operator: &str, name: &str, key: Option<&Shape>, value: &Shape) -> Result<Vec<ShapedEntry>> {
        let told = |e: Error| e.context(format!("state `{name}` of `{operator}`"));
        let Some(key_shape) = key else {
            let mut entries = Vec::new();
            for section in self.sections(operator, name, SectionKind::Operator)? {
                let bytes = section.bytes()?;
                let mut rest = &bytes[..];
                for _ in 0..section.entries {
                    let value = value.take(&mut rest).map_err(told)?.into_json();
                    entries.push(ShapedEntry { subtask: section.subtask, key: None, value });
                }
                nothing_left(rest).map_err(told)?;
            }
            return Ok(entries);
        };
        let mut held: BTreeMap<Vec<u8>, ShapedEntry> = BTreeMap::new();
        for section in self.sections(operator, name, SectionKind::Keyed)? {
            let bytes = section.bytes()?;
            let mut rest = &bytes[..];
            for _ in 0..section.entries {
                let before = rest;
                let key = key_shape.take(&mut rest).map_err(told)?;
                let key_bytes = before[..before.len() - rest.len()].to_vec();
                let value = if section.removal { None } else { Some(value.take(&mut rest).map_err(told)?.into_json()) };
                if !in_groups(section.groups, || Decoded::key_group(&key)).map_err(told)? {
                    continue;
                }
                match value {
                    None => drop(held.remove(&key_bytes)),
                    Some(value) => {
                        let (subtask, key) = (section.subtask, Some(key.into_json()));
                        held.insert(key_bytes, ShapedEntry { subtask, key, value });
                    }
                }
            }
            nothing_left(rest).map_err(told)?;
        }
        Ok(held.into_values().collect())
    }

    /// The same as [`SavepointReader::shaped`] for a state that says itself what it is, as those of functions do; an error
    /// if it does not.
    pub fn entries(&self, operator: &str, name: &str) -> Result<Vec<ShapedEntry>> {
        let places = self.places(operator, name, None)?;
        let keyed = places.iter().any(|place| place.kind == SectionKind::Keyed);
        let kind = if keyed { SectionKind::Keyed } else { SectionKind::Operator };
        let known = self.manifest.operators.get(operator).and_then(|state| state.shapes.get(kind, name));
        match (kind, known) {
            (SectionKind::Operator, Some(shape)) => self.shaped(operator, name, None, &shape),
            (SectionKind::Keyed, Some(Shape::Tuple(parts))) if parts.len() == 2 => {
                self.shaped(operator, name, Some(&parts[0].shape), &parts[1].shape)
            }
            _ => Err(Error::input(format!("state `{name}` of `{operator}` does not say what it is"))
                .hint("tell the shapes of its types")),
        }
    }

    /// An error if a state says that it is of another type.
    fn check<E: DeserializeOwned>(&self, operator: &str, kind: SectionKind, name: &str) -> Result<()> {
        let shapes = self.manifest.operators.get(operator).map(|state| &state.shapes);
        match shapes.and_then(|shapes| shapes.differs::<E>(kind, name)) {
            None => Ok(()),
            Some((saved, asked)) => {
                Err(Error::input(format!("state `{name}` of `{operator}` is {saved}, and not {asked}")))
            }
        }
    }

    /// An operator's state; an error that names the operators there are if it is none.
    pub(super) fn operator(&self, uid: &str) -> Result<&OperatorState> {
        self.manifest.operators.get(uid).ok_or_else(|| {
            let uids: Vec<&str> = self.operators().collect();
            Error::input(format!("`{}` has no operator `{uid}`", self.location.display())).hint(there_are(&uids))
        })
    }

    fn places(&self, operator: &str, name: &str, kind: Option<SectionKind>) -> Result<Vec<&SectionPlace>> {
        let state = self.operator(operator)?;
        let mut places: Vec<&SectionPlace> = state.sections.iter().filter(|place| place.name == name).collect();
        if places.is_empty() {
            let mut names: Vec<&str> = state.sections.iter().map(|place| place.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            return Err(Error::input(format!("operator `{operator}` has no state `{name}`")).hint(there_are(&names)));
        }
        // A function's list may be called as its keyed state.
        places.retain(|place| kind.is_none_or(|kind| place.kind == kind));
        if let Some(kind) = kind.filter(|_| places.is_empty()) {
            let (is, asked) = match kind {
                SectionKind::Keyed => ("the operator's as a whole", "keyed"),
                SectionKind::Operator => ("keyed", "the operator's as a whole"),
            };
            return Err(Error::input(format!("state `{name}` of `{operator}` is {is}, not {asked}")));
        }
        Ok(places)
    }

    fn sections(&self, operator: &str, name: &str, kind: SectionKind) -> Result<Vec<RestoredSection>> {
        self.places(operator, name, Some(kind))?.into_iter().map(|place| self.section(place)).collect()
    }

    fn section(&self, place: &SectionPlace) -> Result<RestoredSection> {
        Ok(RestoredSection {
            subtask: place.subtask,
            name: place.name.clone(),
            kind: place.kind,
            entries: place.entries,
            bytes: SectionBytes::Here(Arc::new(self.files.section(place)?)),
            removal: place.removal,
            groups: place.groups,
        })
    }
}

fn there_are(names: &[&str]) -> String {
    format!("there are `{}`", names.join("`, `"))
}

/// Whether a key counts in a section: after a change of parallelism several subtasks pass the same bytes on, each for the
/// key groups it owns.
fn in_groups(groups: Option<GroupRange>, group: impl FnOnce() -> Result<u64>) -> Result<bool> {
    match groups {
        None => Ok(true),
        Some((first, last)) => Ok((first..=last).contains(&group()?)),
    }
}

fn nothing_left(rest: &[u8]) -> Result<()> {
    match rest.len() {
        0 => Ok(()),
        bytes => Err(Error::input(format!("{bytes} bytes are left behind the last entry"))
            .hint("the shapes are not those of the state's types")),
    }
}

/// Removes a savepoint with all its files. What is none, or is a job's own checkpoint, is an error and stays.
pub fn dispose_savepoint(place: impl AsRef<Path>, options: BTreeMap<String, String>) -> Result<()> {
    let location = location(place.as_ref())?;
    let storage = Storages::new(options).at(&location)?;
    let manifest = read_manifest(&*storage, &location)?;
    if manifest.kind != "savepoint" {
        return Err(Error::input(format!(
            "`{}` is a {} of job `{}`, not a savepoint",
            location.display(),
            manifest.kind,
            manifest.job_name
        ))
        .hint("checkpoints are the job's own: it removes old ones, and all of them when the job is deleted"));
    }
    folder::remove(&*storage, &location)
}

/// The file that names what a job has claimed.
const CLAIMED: &str = "claimed";

/// Notes in a job's checkpoint folder that a snapshot it was restored from is its own from now on.
pub(crate) fn claim(own: &CheckpointFolder, snapshot: &Path) -> Result<()> {
    let text = snapshot
        .to_str()
        .ok_or_else(|| Error::input(format!("`{}` cannot be claimed: its name is no text", snapshot.display())))?;
    own.storage().write(&own.root().join(CLAIMED), text.as_bytes())
}

/// What a job has claimed and not yet removed.
pub(crate) fn claimed(own: &CheckpointFolder) -> Result<Option<PathBuf>> {
    let file = own.root().join(CLAIMED);
    if !own.storage().exists(&file)? {
        return Ok(None);
    }
    let text = String::from_utf8(own.storage().read(&file, None)?);
    let text = text.map_err(|_| Error::corrupt(format!("`{}` does not name a snapshot", file.display())))?;
    Ok(Some(PathBuf::from(text)))
}

/// Removes what a job has claimed: it has enough checkpoints of its own.
pub(crate) fn release(storages: &Storages, own: &CheckpointFolder, snapshot: &Path) -> Result<()> {
    let storage = storages.at(snapshot)?;
    // Somebody may have removed it, or half of it.
    if let Ok(manifest) = read_manifest(&*storage, snapshot) {
        match snapshot.parent().filter(|_| manifest.kind != "savepoint") {
            // Files it shares with other checkpoints of its folder stay with those.
            Some(parent) => {
                let others = CheckpointFolder::open_in(storages, parent)?;
                others.remove(manifest.epoch)?;
                others.remove_unnamed(&mut NamedFiles::new())?;
            }
            None => folder::remove(&*storage, snapshot)?,
        }
    }
    own.storage().remove_file(&own.root().join(CLAIMED))
}
