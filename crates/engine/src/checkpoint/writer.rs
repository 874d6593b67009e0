//! Puts what tasks copy on disk and tells the coordinator. One thread a worker, so that workers never wait for a disk or
//! for a sink's network.
//!
//! State that stands for itself goes into the checkpoint's own folder. Sections of large tables go into files that later
//! checkpoints name again, in the folder `shared`: for each part of a table the writer remembers its *chain*, the base and
//! what was added since. When a section of a chain cannot be saved, all chains of the task are given up and the task is
//! asked to write everything afresh.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::sink::Token;
use tidemill_core::{Error, Result};

use super::coordinator::Event;
use super::folder::{SHARED, StateFile, sync_folder};
use super::manifest::SectionPlace;
use crate::operator::{OperatorSnapshot, SnapshotMode};
use crate::runtime::control::{HandIn, TaskSnapshot};
use crate::state::Section;

/// A task's own state below this many bytes travels with the acknowledgement and shares one file with others.
const INLINE_MAX: usize = 20 * 1024;

/// Where the files of an epoch go, set by the coordinator before it triggers the epoch; `None` keeps nothing on disk.
pub(crate) type Target = Arc<Mutex<(u64, Option<PathBuf>)>>;

/// One subtask's answer for one epoch.
pub(crate) struct Acknowledgement {
    pub epoch: u64,
    pub task: usize,
    pub subtask: usize,
    /// Sinks' tokens are valid even when the state could not be written.
    pub operators: Vec<AcknowledgedOperator>,
    /// Bytes of state written for this epoch, without those that earlier checkpoints had written already.
    pub written_bytes: u64,
    /// Why the checkpoint cannot be completed; the state itself is still in memory, and the next checkpoint covers it.
    pub failure: Option<Error>,
}

pub(crate) struct AcknowledgedOperator {
    pub uid: String,
    pub inline: Vec<Section>,
    pub places: Vec<SectionPlace>,
    pub tokens: Vec<Token>,
}

/// One worker's writer.
pub(crate) struct CheckpointWriter {
    pub events: Sender<Event>,
    pub target: Target,
    /// Bytes of pieces that wait to be taken.
    pub queued: Arc<AtomicUsize>,
    /// The folder of checkpoints, in which `shared` stands; `None` keeps nothing on disk.
    pub root: Option<PathBuf>,
    /// Counts the starts of the job, so that files of different attempts never meet.
    pub attempt: u64,
    pub tasks: HashMap<(usize, usize), TaskState>,
}

/// A part of a table: operator uid, table, unit.
type ChainKey = (String, String, u16);

/// What the writer knows of one task.
#[derive(Default)]
pub(crate) struct TaskState {
    chains: BTreeMap<ChainKey, Vec<SectionPlace>>,
    /// A section of a chain was lost; only a snapshot that writes all afresh helps.
    broken: bool,
    open: Option<Open>,
}

/// A snapshot between its beginning and its end.
struct Open {
    epoch: u64,
    mode: SnapshotMode,
    save_afresh: Arc<AtomicBool>,
    operators: Vec<AcknowledgedOperator>,
    rosters: BTreeMap<String, BTreeSet<String>>,
    /// Where state that stands for itself goes; `None` when nobody waits for it.
    folder: Option<PathBuf>,
    own_bytes: usize,
    own: Option<StateFile>,
    shared: Option<StateFile>,
    written_bytes: u64,
    failure: Option<Error>,
}

impl CheckpointWriter {
    /// Runs until the job's tasks are gone.
    pub fn run(mut self, inbox: Receiver<HandIn>) {
        for (task, subtask, snapshot) in inbox {
            self.queued.fetch_sub(snapshot.piece_bytes(), Ordering::AcqRel);
            let mut state = self.tasks.remove(&(task, subtask)).unwrap_or_default();
            let event = match snapshot {
                TaskSnapshot::Begin { epoch, mode, operators, save_afresh } => {
                    // Output that cannot be made safe is lost to this run: only a restart from the last checkpoint brings
                    // it back.
                    let begun = self.begin(&mut state, (task, subtask), (epoch, mode), operators, save_afresh);
                    begun.err().map(|error| {
                        Event::OutputLost(error.context(format!("task {task} subtask {subtask} at epoch {epoch}")))
                    })
                }
                TaskSnapshot::Pieces(pieces) => {
                    for (uid, sections) in pieces {
                        self.save(&mut state, (task, subtask), &uid, sections);
                    }
                    None
                }
                TaskSnapshot::End => self.end(&mut state, (task, subtask)).map(Event::Acknowledged),
            };
            self.tasks.insert((task, subtask), state);
            if event.is_some_and(|event| self.events.send(event).is_err()) {
                return;
            }
        }
    }

    fn begin(
        &self,
        state: &mut TaskState,
        at: (usize, usize),
        (epoch, mode): (u64, SnapshotMode),
        operators: Vec<OperatorSnapshot>,
        save_afresh: Arc<AtomicBool>,
    ) -> Result<()> {
        let (current, folder) = self.target.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if mode == (SnapshotMode::Checkpoint { fresh: true }) {
            state.chains.clear();
            state.broken = false;
        }
        state.open = Some(Open {
            epoch,
            mode,
            save_afresh,
            operators: Vec::with_capacity(operators.len()),
            rosters: BTreeMap::new(),
            folder: folder.filter(|_| current == epoch),
            own_bytes: 0,
            own: None,
            shared: None,
            written_bytes: 0,
            failure: None,
        });
        for operator in operators {
            let (uid, parts) = (operator.uid, operator.parts);
            let tokens = match parts.pre_commit {
                Some(pre_commit) => pre_commit().map_err(|e| e.context(format!("operator `{uid}`")))?,
                None => Vec::new(),
            };
            if let Some(open) = &mut state.open {
                open.rosters.insert(uid.clone(), parts.roster.into_iter().collect());
                let acknowledged =
                    AcknowledgedOperator { uid: uid.clone(), inline: Vec::new(), places: Vec::new(), tokens };
                open.operators.push(acknowledged);
            }
            self.save(state, at, &uid, parts.sections);
        }
        Ok(())
    }

    /// Saves sections of one operator.
    fn save(&self, state: &mut TaskState, at: (usize, usize), uid: &str, sections: Vec<Section>) {
        let TaskState { chains, broken, open: Some(open) } = state else { return };
        for section in sections {
            let saved = match &section.chain {
                Some(_) if *broken => Ok(()),
                Some(_) => self.save_shared(open, chains, at, uid, section),
                None => save_own(open, at, uid, section),
            };
            if let Err(error) = saved {
                open.failure.get_or_insert(error);
                *broken = true;
            }
        }
    }

    fn save_shared(
        &self,
        open: &mut Open,
        chains: &mut BTreeMap<ChainKey, Vec<SectionPlace>>,
        (task, subtask): (usize, usize),
        uid: &str,
        section: Section,
    ) -> Result<()> {
        let (Some(root), Some(part)) = (&self.root, &section.chain) else { return Ok(()) };
        let chain = chains.entry((uid.to_string(), part.table.clone(), part.unit)).or_default();
        if part.begins {
            chain.clear();
        }
        if section.entries == 0 {
            return Ok(());
        }
        let file = match &mut open.shared {
            Some(file) => file,
            None => {
                let name = format!("{}-{}-{task}-{subtask}.state", open.epoch, self.attempt);
                open.shared.insert(StateFile::create(&root.join(SHARED), &name, &format!("../{SHARED}/{name}"))?)
            }
        };
        open.written_bytes += section.bytes.len() as u64;
        chain.push(file.append(&section, subtask)?);
        Ok(())
    }

    fn end(&self, state: &mut TaskState, (task, subtask): (usize, usize)) -> Option<Acknowledgement> {
        let TaskState { chains, broken, open } = state;
        let mut open = open.take()?;
        let shared_folder = open.shared.is_some().then(|| self.root.as_ref().map(|root| root.join(SHARED))).flatten();
        let synced = [open.own.take(), open.shared.take()].into_iter().flatten().try_for_each(StateFile::finish);
        let synced = synced.and_then(|()| shared_folder.as_deref().map_or(Ok(()), |folder: &Path| sync_folder(folder)));
        if let Err(error) = synced {
            open.failure.get_or_insert(error);
            *broken = true;
        }
        if let SnapshotMode::Checkpoint { .. } = open.mode {
            if *broken {
                chains.clear();
                open.save_afresh.store(true, Ordering::Release);
                open.failure.get_or_insert_with(|| Error::external("a part of the state before could not be saved"));
            }
            let rosters = &open.rosters;
            chains.retain(|(uid, table, _), _| rosters.get(uid).is_some_and(|roster| roster.contains(table)));
            for operator in &mut open.operators {
                let own = chains.range((operator.uid.clone(), String::new(), 0)..);
                let own = own.take_while(|((uid, ..), _)| *uid == operator.uid);
                operator.places.extend(own.flat_map(|(_, places)| places.iter().cloned()));
            }
        }
        Some(Acknowledgement {
            epoch: open.epoch,
            task,
            subtask,
            operators: open.operators,
            written_bytes: open.written_bytes,
            failure: open.failure,
        })
    }
}

/// Saves a section that stands for itself: with the acknowledgement while all of them are small, else in a file.
fn save_own(open: &mut Open, (task, subtask): (usize, usize), uid: &str, section: Section) -> Result<()> {
    // The epoch was given up meanwhile, or nothing is kept: nobody waits for its state.
    let Some(folder) = &open.folder else { return Ok(()) };
    open.own_bytes += section.bytes.len();
    open.written_bytes += section.bytes.len() as u64;
    let Some(at) = open.operators.iter().position(|operator| operator.uid == uid) else {
        return Err(Error::bug(format!("state of `{uid}` came before its snapshot began")));
    };
    if open.own.is_none() && open.own_bytes > INLINE_MAX {
        let name = format!("task-{task}-{subtask}.state");
        let mut file = StateFile::create(folder, &name, &name)?;
        for operator in &mut open.operators {
            for section in std::mem::take(&mut operator.inline) {
                operator.places.push(file.append(&section, subtask)?);
            }
        }
        open.own = Some(file);
    }
    match &mut open.own {
        Some(file) => open.operators[at].places.push(file.append(&section, subtask)?),
        None => open.operators[at].inline.push(section),
    }
    Ok(())
}
