//! What is outside of the processes: the disk with the checkpoints, and the place where sinks publish. Whatever is done
//! to it is an *effect*. Effects are counted; each may fail, and at any of them the machine may be lost. After each the
//! invariants are looked at that must hold whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tidemill_core::{Error, Result};

use super::chance::Chance;
use crate::checkpoint::Manifest;
use crate::checkpoint::storage::{Output, Storage};

/// What a sink publishes: which sink, and the row.
pub type Row = (u8, i64, i64);

/// The file that counts the starts.
const MANIFEST: &str = "_metadata";

/// How the machine is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All processes are killed; what was written stays.
    Kill,
    /// Power fails; what was not made durable is gone, or is not.
    Power,
}

#[derive(Debug, Clone, Default)]
struct File {
    bytes: Vec<u8>,
    /// So many of them are durable.
    durable: usize,
    /// Whether its name is.
    named: bool,
}

#[derive(Default)]
struct State {
    chance: Option<Chance>,
    /// Effects so far.
    effects: usize,
    /// The machine is lost at this effect.
    lost_at: Option<usize>,
    lost: bool,
    /// One effect in so many fails; 0 for none.
    faults: usize,
    files: BTreeMap<PathBuf, File>,
    /// The checkpoints and savepoints there are, by folder.
    manifests: BTreeMap<PathBuf, Manifest>,
    /// The savepoint that came last.
    newest_savepoint: Option<PathBuf>,
    /// Savepoints that must stay as they are.
    protected: BTreeSet<PathBuf>,
    /// Tokens that a manifest has named, and the epochs that have had one.
    named: BTreeSet<Vec<u8>>,
    complete: BTreeSet<u64>,
    prepared: BTreeMap<Vec<u8>, Vec<Row>>,
    committed: BTreeMap<Vec<u8>, Vec<Row>>,
    /// The number of the last start of the job in each folder.
    attempts: BTreeMap<PathBuf, u64>,
    /// Who must answer for an epoch, and who has.
    subtasks: BTreeSet<(usize, usize)>,
    answers: BTreeMap<u64, BTreeSet<(usize, usize)>>,
    /// The first thing that must never be.
    broken: Option<String>,
    /// What has happened, for whoever reads a failure.
    trace: Option<Vec<String>>,
}

/// See the head of this module.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<State>>);

/// How an effect goes.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
enum Fate {
    Done,
    /// It is done, and yet an error.
    DoneUnheard,
    /// Some of it is done.
    Partly,
    Undone,
}

impl World {
    /// A world where one effect in so many fails, and that is lost at effect number `lost_at`.
    pub fn new(seed: u64, faults: usize, lost_at: Option<usize>) -> Self {
        let chance = Some(Chance::new(seed ^ 0xfa17));
        World(Arc::new(Mutex::new(State { chance, faults, lost_at, ..State::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The machine is lost: nothing has an effect any more.
    pub fn lost(&self) -> bool {
        self.lock().lost
    }

    /// Effects so far.
    pub fn effects(&self) -> usize {
        self.lock().effects
    }

    /// Nothing fails from now on.
    pub fn calm(&self) {
        self.lock().faults = 0;
    }

    /// The first invariant that was broken.
    pub fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Notes that something is as it must never be.
    pub fn fault(&self, what: String) {
        self.lock().fault(what);
    }

    /// Remembers a step for whoever reads the failure.
    pub fn trace(&self, line: impl FnOnce() -> String) {
        self.lock().trace(line);
    }

    /// Remembers steps and effects from now on.
    pub fn remember(&self) {
        self.lock().trace = Some(Vec::new());
    }

    /// What was remembered.
    pub fn story(&self) -> String {
        self.lock().trace.as_ref().map_or(String::new(), |trace| trace.join("\n"))
    }

    /// A start of the job in `root` begins: these subtasks must answer for each of its epochs.
    pub fn begin(&self, root: &Path, attempt: u64, subtasks: BTreeSet<(usize, usize)>) {
        let mut state = self.lock();
        let before = state.attempts.insert(root.to_path_buf(), attempt).unwrap_or(0);
        if attempt <= before {
            state.fault(format!("start {attempt} behind start {before}"));
        }
        state.answers.clear();
        state.subtasks = subtasks;
    }

    /// The coordinator is told that a subtask has saved its part of an epoch.
    pub fn answered(&self, epoch: u64, subtask: (usize, usize)) {
        self.lock().answers.entry(epoch).or_default().insert(subtask);
    }

    /// A reader is told that an epoch is complete.
    pub fn heard_complete(&self, epoch: u64) {
        let mut state = self.lock();
        if !state.complete.contains(&epoch) {
            state.fault(format!("sources hear that epoch {epoch} is complete, and it has no manifest"));
        }
    }

    /// The savepoint that came last.
    pub fn newest_savepoint(&self) -> Option<PathBuf> {
        self.lock().newest_savepoint.clone()
    }

    /// From now on a savepoint must stay as it is.
    pub fn protect(&self, savepoint: Option<PathBuf>) {
        self.lock().protected.extend(savepoint);
    }

    /// What was published, sorted.
    pub fn published(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.lock().committed.values().flatten().copied().collect();
        rows.sort_unstable();
        rows
    }

    /// Tokens that wait to be published.
    pub fn waiting(&self) -> usize {
        self.lock().prepared.len()
    }

    /// The machine comes back. It is lost again at effect `lost_at`, if it is given.
    pub fn come_back(&self, loss: Loss, lost_at: Option<usize>) {
        let mut state = self.lock();
        (state.lost, state.lost_at) = (false, lost_at);
        if loss == Loss::Kill {
            return;
        }
        let mut chance = state.chance.take().unwrap();
        state.files.retain(|_, file| {
            let rest = file.bytes.len() - file.durable;
            file.bytes.truncate(file.durable + chance.below(rest + 1));
            file.named || chance.once_in(2)
        });
        state.chance = Some(chance);
    }

    /// Makes a sink's output safe, not yet to be seen.
    pub fn prepare(&self, token: Vec<u8>, rows: Vec<Row>) -> Result<()> {
        self.effect(&format!("prepare {}", text(&token)), |state, fate| {
            if fate != Fate::Undone {
                state.prepared.insert(token.clone(), rows.clone());
            }
        })
    }

    /// Publishes a token.
    pub fn commit(&self, token: &[u8]) -> Result<()> {
        let what = format!("commit {}", text(token));
        self.effect(&what, |state, fate| {
            if !state.named.contains(token) {
                state.fault(format!("{what}, which no manifest has named"));
            }
            if state.prepared.contains_key(token) == state.committed.contains_key(token) {
                state.fault(format!("{what}, which is not there, or twice"));
            }
            if fate != Fate::Undone
                && let Some(rows) = state.prepared.remove(token)
            {
                state.committed.insert(token.to_vec(), rows);
            }
        })
    }

    /// Removes what was prepared under a prefix.
    pub fn clean(&self, prefix: &[u8]) -> Result<()> {
        let all: Vec<Vec<u8>> = self.lock().prepared.keys().cloned().collect();
        for token in all.into_iter().filter(|token| token.starts_with(prefix)) {
            self.effect(&format!("clean {}", text(&token)), |state, fate| {
                if fate != Fate::Undone {
                    state.prepared.remove(&token);
                }
            })?;
        }
        Ok(())
    }

    fn effect(&self, what: &str, mut change: impl FnMut(&mut State, Fate)) -> Result<()> {
        let mut state = self.lock();
        let fate = state.fate()?;
        let number = state.effects;
        state.trace(|| format!("  effect {number}: {what}: {fate:?}"));
        change(&mut state, fate);
        if fate == Fate::Done { Ok(()) } else { Err(Error::external(format!("the simulation has `{what}` fail"))) }
    }
}

fn text(token: &[u8]) -> String {
    String::from_utf8_lossy(token).into_owned()
}

impl State {
    fn fault(&mut self, what: String) {
        let at = self.effects;
        self.trace(|| format!("BROKEN at effect {at}: {what}"));
        self.broken.get_or_insert(what);
    }

    fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// How the next effect goes; an error when there are none any more.
    fn fate(&mut self) -> Result<Fate> {
        if self.lost {
            return Err(Error::external("the machine is lost"));
        }
        self.effects += 1;
        let lost = self.lost_at.is_some_and(|at| self.effects >= at);
        let faults = self.faults;
        let chance = self.chance.as_mut().unwrap();
        if !lost && !chance.once_in(faults) {
            return Ok(Fate::Done);
        }
        self.lost = lost;
        Ok([Fate::DoneUnheard, Fate::Partly, Fate::Undone][chance.below(3)])
    }

    /// A checkpoint has just come to be.
    fn published(&mut self, folder: &Path) {
        let bytes = &self.files[&folder.join(MANIFEST)].bytes;
        let manifest = match Manifest::parse(bytes, "manifest") {
            Ok(manifest) => manifest,
            Err(error) => return self.fault(error.to_string()),
        };
        let epoch = manifest.epoch;
        let savepoint = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("savepoint"));
        let beside = self.manifests.iter().filter(|(other, _)| other.parent() == folder.parent());
        let newest = beside.map(|(_, other)| other.epoch).max().unwrap_or(0);
        if epoch <= newest && !savepoint {
            self.fault(format!("epochs go back: a manifest of {epoch} behind one of {newest}"));
        }
        let answers = self.answers.get(&epoch).cloned().unwrap_or_default();
        if answers != self.subtasks {
            self.fault(format!("a manifest of epoch {epoch} with the answers of {answers:?} alone"));
        }
        for operator in manifest.operators.values() {
            for place in &operator.sections {
                let file = self.files.get(&joined(folder, &place.file));
                let (start, end) = (place.offset as usize, (place.offset + place.length) as usize);
                let whole = file.is_some_and(|file| {
                    let durable = file.bytes.get(start..end.min(file.durable)).unwrap_or_default();
                    file.named && durable.len() as u64 == place.length && crc32fast::hash(durable) == place.crc32
                });
                if !whole {
                    self.fault(format!("the manifest of epoch {epoch} names `{}`, which is not safe", place.file));
                }
            }
            self.named.extend(operator.tokens.iter().map(|token| token.bytes().unwrap()));
        }
        self.complete.insert(epoch);
        if savepoint {
            self.newest_savepoint = Some(folder.to_path_buf());
        }
        self.manifests.insert(folder.to_path_buf(), manifest);
    }

    /// A file is removed, or begun anew: no checkpoint may name it.
    fn given_up(&mut self, path: &Path) {
        if path.parent().is_some_and(|folder| self.protected.contains(folder)) {
            self.fault(format!("`{}` goes, of a savepoint nobody has claimed", path.display()));
        }
        if path.ends_with(MANIFEST) {
            self.manifests.remove(path.parent().unwrap());
        }
        let named = |(folder, manifest): (&PathBuf, &Manifest)| {
            let mut places = manifest.operators.values().flat_map(|operator| &operator.sections);
            places.any(|place| joined(folder, &place.file) == path).then_some(manifest.epoch)
        };
        if let Some(epoch) = self.manifests.iter().find_map(named) {
            self.fault(format!("`{}` goes, which epoch {epoch} names", path.display()));
        }
    }
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop(), "a way out of the world"),
            part => plain.push(part),
        }
    }
    plain
}

/// A file as a manifest names it.
fn joined(folder: &Path, file: &str) -> PathBuf {
    plain(&folder.join(file))
}

fn short(path: &Path) -> String {
    path.display().to_string()
}

/// A file that is being written.
struct Writing {
    world: World,
    path: PathBuf,
}

impl Output for Writing {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.world.effect(&format!("write {}", short(&self.path)), |state, fate| {
            let Some(file) = state.files.get_mut(&self.path) else { return };
            let part = match fate {
                Fate::Done | Fate::DoneUnheard => bytes.len(),
                Fate::Partly => bytes.len() / 2,
                Fate::Undone => 0,
            };
            file.bytes.extend_from_slice(&bytes[..part]);
        })
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.world.effect(&format!("finish {}", short(&self.path)), |state, fate| {
            if let (Fate::Done | Fate::DoneUnheard, Some(file)) = (fate, state.files.get_mut(&self.path)) {
                file.durable = file.bytes.len();
            }
        })
    }
}

/// The disk, as a file system: what is written is seen at once, and durable when it is synced, its name with its folder.
impl Storage for World {
    /// All happens in one thread.
    fn reads_at_once(&self) -> usize {
        0
    }

    fn make_folder(&self, folder: &Path) -> Result<()> {
        self.effect(&format!("make {}", short(folder)), |_, _| {})
    }

    fn create(&self, file: &Path) -> Result<Box<dyn Output>> {
        self.effect(&format!("create {}", short(file)), |state, fate| {
            if fate != Fate::Undone {
                state.given_up(file);
                state.files.insert(file.to_path_buf(), File::default());
            }
        })?;
        Ok(Box::new(Writing { world: self.clone(), path: file.to_path_buf() }))
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        let mut output = self.create(file)?;
        output.write(bytes)?;
        output.finish()
    }

    fn publish(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        self.effect(&format!("publish {}", short(file)), |state, fate| {
            let aside = file.with_extension("tmp");
            let (folder, whole) = (file.parent().unwrap(), matches!(fate, Fate::Done | Fate::DoneUnheard));
            if fate == Fate::Partly {
                state.files.insert(aside, File { bytes: bytes[..bytes.len() / 2].to_vec(), ..File::default() });
            } else if whole {
                state.files.remove(&aside);
                state
                    .files
                    .insert(file.to_path_buf(), File { durable: bytes.len(), bytes: bytes.to_vec(), named: true });
                name_all(state, folder);
                state.published(folder);
            }
        })
    }

    fn create_new(&self, file: &Path) -> Result<bool> {
        if self.exists(file)? {
            return Ok(false);
        }
        self.effect(&format!("create {}", short(file)), |state, fate| {
            if fate != Fate::Undone {
                state.files.insert(file.to_path_buf(), File::default());
            }
        })?;
        Ok(true)
    }

    fn read(&self, file: &Path, range: Option<Range<u64>>) -> Result<Vec<u8>> {
        let state = self.lock();
        let gone = || Error::external(format!("`{}` is not there", short(file)));
        let bytes = &state.files.get(&plain(file)).ok_or_else(gone)?.bytes;
        match range {
            None => Ok(bytes.clone()),
            Some(range) => Ok(bytes.get(range.start as usize..range.end as usize).ok_or_else(gone)?.to_vec()),
        }
    }

    fn exists(&self, file: &Path) -> Result<bool> {
        Ok(self.lock().files.contains_key(file))
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        let state = self.lock();
        let below = state.files.keys().filter_map(|path| path.strip_prefix(folder).ok());
        let names: BTreeSet<String> =
            below.filter_map(|path| Some(path.iter().next()?.to_string_lossy().into_owned())).collect();
        Ok(names.into_iter().collect())
    }

    fn remove_file(&self, file: &Path) -> Result<()> {
        if !self.exists(file)? {
            return Ok(());
        }
        self.effect(&format!("remove {}", short(file)), |state, fate| {
            if fate != Fate::Undone {
                state.given_up(file);
                state.files.remove(file);
            }
        })
    }

    fn remove_folder(&self, folder: &Path) -> Result<()> {
        let mut state = self.lock();
        let mut all: Vec<PathBuf> = state.files.keys().filter(|path| path.starts_with(folder)).cloned().collect();
        let chance = state.chance.as_mut().unwrap();
        // In whatever order the disk likes.
        let order: Vec<usize> = (0..all.len()).rev().map(|left| chance.below(left + 1)).collect();
        drop(state);
        order.into_iter().try_for_each(|next| self.remove_file(&all.swap_remove(next)))
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        self.effect(&format!("copy {} to {}", short(from), short(to)), |state, fate| {
            if let (true, Some(file)) = (fate != Fate::Undone, state.files.get(from).cloned()) {
                state.files.insert(to.to_path_buf(), File { named: false, ..file });
            }
        })
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        self.effect(&format!("sync {}", short(folder)), |state, fate| {
            if matches!(fate, Fate::Done | Fate::DoneUnheard) {
                name_all(state, folder);
            }
        })
    }
}

/// The names of what stands in a folder are durable.
fn name_all(state: &mut State, folder: &Path) {
    let files = state.files.iter_mut().filter(|(path, _)| path.parent() == Some(folder));
    files.for_each(|(_, file)| file.named = true);
}
