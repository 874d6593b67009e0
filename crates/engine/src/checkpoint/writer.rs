//! Puts what tasks copy on disk and tells the coordinator. One thread a worker, so that workers never wait for a disk or
//! for a sink's network.
//!
//! State that stands for itself goes into the checkpoint's own folder. Sections of large tables go into files that later
//! checkpoints name again, in the folder `shared`: for each part of a table the writer remembers its *chain*, the base and
//! what was added since. When a section of a chain cannot be saved, all chains of the task are given up and the task is
//! asked to write everything afresh. State that stands for itself is whole in the next checkpoint anyway: losing it breaks
//! nothing, least of all when it was a savepoint's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::sink::Token;
use tidemill_core::{Error, Result, SharedClock};

use super::coordinator::Event;
use super::folder::{SHARED, StateFile};
use super::manifest::SectionPlace;
use super::storage::{Storage, Storages};
use crate::operator::{OperatorSnapshot, SnapshotMode};
use crate::runtime::control::{BarrierTimes, HandIn, TaskSnapshot};
use crate::state::{Buffers, EntryShapes, Section};

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
    pub times: PartTimes,
    /// Why the checkpoint cannot be completed; the state itself is still in memory, and the next checkpoint covers it.
    pub failure: Option<Error>,
}

#[derive(Default)]
pub(crate) struct AcknowledgedOperator {
    pub uid: String,
    pub inline: Vec<Section>,
    pub places: Vec<SectionPlace>,
    pub tokens: Vec<Token>,
    pub shapes: EntryShapes,
    /// Bytes of state written for this epoch, without those that earlier checkpoints had written already.
    pub written_bytes: u64,
}

/// How a subtask's part of an epoch went.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct PartTimes {
    pub barrier: BarrierTimes,
    /// From the end of the barrier until everything was saved.
    pub async_ms: u64,
}

/// One worker's writer.
pub(crate) struct CheckpointWriter {
    pub events: Sender<Event>,
    pub clock: SharedClock,
    pub target: Target,
    /// Bytes of pieces that wait to be taken.
    pub queued: Arc<AtomicUsize>,
    /// Where the buffers of written sections go.
    pub buffers: Buffers,
    pub storages: Arc<Storages>,
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
    folder: Option<(Arc<dyn Storage>, PathBuf)>,
    own_bytes: usize,
    own: Option<StateFile>,
    shared: Option<StateFile>,
    barrier: BarrierTimes,
    failure: Option<Error>,
}

impl Open {
    /// Where an operator stands. One that had nothing to save at once may still have tables to copy.
    fn operator(&mut self, uid: &str) -> usize {
        self.operators.iter().position(|operator| operator.uid == uid).unwrap_or_else(|| {
            self.operators.push(AcknowledgedOperator { uid: uid.to_string(), ..AcknowledgedOperator::default() });
            self.operators.len() - 1
        })
    }
}

impl CheckpointWriter {
    /// Runs until the job's tasks are gone.
    pub fn run(mut self, inbox: Receiver<HandIn>) {
        for part in inbox {
            if self.step(part).is_some_and(|event| self.events.send(event).is_err()) {
                return;
            }
        }
    }

    /// Saves one part of a snapshot; what the coordinator is to hear of it, if anything.
    pub fn step(&mut self, (task, subtask, snapshot): HandIn) -> Option<Event> {
        self.queued.fetch_sub(snapshot.piece_bytes(), Ordering::AcqRel);
        let mut state = self.tasks.remove(&(task, subtask)).unwrap_or_default();
        let event = match snapshot {
            TaskSnapshot::Begin { epoch, mode, operators, save_afresh, times } => {
                // Output that cannot be made safe is lost to this run: only a restart from the last checkpoint brings
                // it back. The subtask never answers for the epoch, so that no manifest can be written without it.
                let begun = self.begin(&mut state, (task, subtask), (epoch, mode, times), operators, save_afresh);
                begun.err().map(|error| {
                    state.open = None;
                    Event::OutputLost(error.context(format!("task {task} subtask {subtask} at epoch {epoch}")))
                })
            }
            TaskSnapshot::Pieces(pieces) => {
                for (uid, sections) in pieces {
                    self.save(&mut state, (task, subtask), &uid, sections);
                }
                None
            }
            TaskSnapshot::Deferred(uid, copy) => {
                let copied = copy(&mut |section| {
                    self.save(&mut state, (task, subtask), &uid, vec![section]);
                    Ok(())
                });
                if let (Err(error), Some(open)) = (copied, &mut state.open) {
                    open.failure.get_or_insert(error.context(format!("operator `{uid}`")));
                    state.broken = true;
                }
                None
            }
            TaskSnapshot::End => self.end(&mut state, (task, subtask)).map(Event::Acknowledged),
        };
        self.tasks.insert((task, subtask), state);
        event
    }

    fn begin(
        &self,
        state: &mut TaskState,
        at: (usize, usize),
        (epoch, mode, barrier): (u64, SnapshotMode, BarrierTimes),
        operators: Vec<OperatorSnapshot>,
        save_afresh: Arc<AtomicBool>,
    ) -> Result<()> {
        let (current, folder) = self.target.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if current < epoch {
            return Err(Error::bug("it ended before this process was told where its state goes"));
        }
        if mode == (SnapshotMode::Checkpoint { fresh: true }) {
            state.chains.clear();
            state.broken = false;
        }
        // The coordinator has opened it too, so that nothing goes wrong here that has not gone wrong there.
        let folder = folder.filter(|_| current == epoch);
        let folder = match folder {
            Some(folder) => Some((self.storages.at(&folder)?, folder)),
            None => None,
        };
        state.open = Some(Open {
            epoch,
            mode,
            save_afresh,
            operators: Vec::with_capacity(operators.len()),
            rosters: BTreeMap::new(),
            folder,
            own_bytes: 0,
            own: None,
            shared: None,
            barrier,
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
                let shapes = parts.shapes;
                open.operators.push(AcknowledgedOperator { uid: uid.clone(), tokens, shapes, ..Default::default() });
            }
            self.save(state, at, &uid, parts.sections);
        }
        Ok(())
    }

    /// Saves sections of one operator.
    fn save(&self, state: &mut TaskState, at: (usize, usize), uid: &str, sections: Vec<Section>) {
        let TaskState { chains, broken, open: Some(open) } = state else { return };
        for section in sections {
            let chained = section.chain.is_some();
            let saved = match chained {
                true if *broken => Ok(()),
                true => self.save_shared(open, chains, at, uid, section),
                false => self.save_own(open, at, uid, section),
            };
            if let Err(error) = saved {
                open.failure.get_or_insert(error);
                *broken |= chained;
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
                let storage = self.storages.at(root)?;
                let named = format!("../{SHARED}/{name}");
                open.shared.insert(StateFile::create(&*storage, &root.join(SHARED), &name, &named)?)
            }
        };
        chain.push(file.append(&section, subtask)?);
        let at = open.operator(uid);
        open.operators[at].written_bytes += section.bytes.len() as u64;
        self.buffers.give_back(section.bytes);
        Ok(())
    }

    fn end(&self, state: &mut TaskState, (task, subtask): (usize, usize)) -> Option<Acknowledgement> {
        let TaskState { chains, broken, open } = state;
        let mut open = open.take()?;
        if let Err(error) = open.own.take().map_or(Ok(()), StateFile::finish) {
            open.failure.get_or_insert(error);
        }
        let shared = open.shared.take().map(|file| self.finish_shared(file));
        if let Some(Err(error)) = shared {
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
            times: PartTimes {
                barrier: open.barrier,
                async_ms: self.since(open.barrier.at_ms + open.barrier.sync_ms as i64),
            },
            failure: open.failure,
        })
    }
}

impl CheckpointWriter {
    fn finish_shared(&self, file: StateFile) -> Result<()> {
        file.finish()?;
        let Some(root) = &self.root else { return Ok(()) };
        self.storages.at(root)?.sync_folder(&root.join(SHARED))
    }

    /// Saves a section that stands for itself: with the acknowledgement while all of them are small, else in a file.
    fn save_own(&self, open: &mut Open, (task, subtask): (usize, usize), uid: &str, section: Section) -> Result<()> {
        let at = open.operator(uid);
        // The epoch was given up meanwhile, or nothing is kept: nobody waits for its state.
        let Some((storage, folder)) = &open.folder else { return Ok(()) };
        open.own_bytes += section.bytes.len();
        if open.own.is_none() && open.own_bytes > INLINE_MAX {
            // What another attempt, believed dead, still writes has another name.
            let name = format!("task-{task}-{subtask}-{}.state", self.attempt);
            let mut file = StateFile::create(&**storage, folder, &name, &name)?;
            for operator in &mut open.operators {
                for section in std::mem::take(&mut operator.inline) {
                    operator.places.push(file.append(&section, subtask)?);
                }
            }
            open.own = Some(file);
        }
        open.operators[at].written_bytes += section.bytes.len() as u64;
        match &mut open.own {
            Some(file) => {
                open.operators[at].places.push(file.append(&section, subtask)?);
                self.buffers.give_back(section.bytes);
            }
            None => open.operators[at].inline.push(section),
        }
        Ok(())
    }

    fn since(&self, at_ms: i64) -> u64 {
        self.clock.now_ms().saturating_sub(at_ms).max(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::checkpoint::CheckpointFolder;
    use crate::operator::SnapshotParts;
    use crate::state::{ChainPart, SectionKind};

    fn chained(begins: bool) -> Section {
        let chain = Some(ChainPart { table: "t".into(), unit: 0, begins });
        Section { chain, ..Section::new("t", SectionKind::Keyed, 1, vec![7; 10]) }
    }

    /// Hands a snapshot of one operator to the writer as task 0 would; its answer, and whether it wants all afresh.
    fn snapshot(
        writer: &CheckpointWriter,
        state: &mut TaskState,
        epoch: u64,
        mode: SnapshotMode,
        sections: Vec<Section>,
    ) -> (Acknowledgement, bool) {
        let parts = SnapshotParts { roster: vec!["t".into()], ..SnapshotParts::default() };
        let operators = vec![OperatorSnapshot { uid: "u".into(), parts }];
        let afresh: Arc<AtomicBool> = Arc::default();
        writer.begin(state, (0, 0), (epoch, mode, BarrierTimes::default()), operators, afresh.clone()).unwrap();
        writer.save(state, (0, 0), "u", sections);
        (writer.end(state, (0, 0)).unwrap(), afresh.load(Ordering::Acquire))
    }

    #[test]
    fn whose_output_is_lost_never_answers_for_the_epoch() {
        let mut writer = CheckpointWriter {
            events: channel().0,
            clock: Arc::new(tidemill_core::ManualClock::new(0)),
            target: Arc::new(Mutex::new((1, None))),
            queued: Arc::default(),
            buffers: Buffers::default(),
            storages: Arc::default(),
            root: None,
            attempt: 1,
            tasks: HashMap::new(),
        };
        let mut snapshot = |fails: bool| {
            let pre_commit: tidemill_core::sink::PreCommit = Box::new(move || match fails {
                true => Err(Error::external("the broker is away")),
                false => Ok(vec![vec![1]]),
            });
            let parts = SnapshotParts { pre_commit: Some(pre_commit), ..SnapshotParts::default() };
            let begin = TaskSnapshot::Begin {
                epoch: 1,
                mode: SnapshotMode::Checkpoint { fresh: false },
                operators: vec![OperatorSnapshot { uid: "u".into(), parts }],
                save_afresh: Arc::default(),
                times: BarrierTimes::default(),
            };
            (writer.step((0, 0, begin)), writer.step((0, 0, TaskSnapshot::End)))
        };
        let (lost, answer) = snapshot(true);
        let Some(Event::OutputLost(why)) = lost else { panic!("the loss is told") };
        assert!(why.to_string().contains("the broker is away") && answer.is_none(), "{why}");
        let (None, Some(Event::Acknowledged(answer))) = snapshot(false) else { panic!("an answer is due") };
        assert_eq!(answer.operators[0].tokens, [[1]]);
    }

    #[test]
    fn a_savepoint_that_fails_breaks_no_chain_and_a_lost_section_of_a_chain_does() {
        let root = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::open(root.path()).unwrap();
        let target = Target::default();
        let writer = CheckpointWriter {
            events: channel().0,
            clock: Arc::new(tidemill_core::ManualClock::new(0)),
            target: target.clone(),
            queued: Arc::default(),
            buffers: Buffers::default(),
            storages: Arc::default(),
            root: Some(root.path().to_path_buf()),
            attempt: 1,
            tasks: HashMap::new(),
        };
        let aim = |epoch: u64| {
            std::fs::create_dir_all(folder.path(epoch)).unwrap();
            *target.lock().unwrap() = (epoch, Some(folder.path(epoch)));
        };
        let mut state = TaskState::default();
        let checkpoint = SnapshotMode::Checkpoint { fresh: false };
        aim(1);
        let (answer, _) = snapshot(&writer, &mut state, 1, checkpoint, vec![chained(true)]);
        assert!(answer.failure.is_none());

        // The savepoint's folder is not there: its section, too large to travel along, cannot be written.
        *target.lock().unwrap() = (2, Some(root.path().join("gone")));
        let large = Section::new("t", SectionKind::Keyed, 1, vec![7; INLINE_MAX + 1]);
        let (answer, afresh) = snapshot(&writer, &mut state, 2, SnapshotMode::Detached, vec![large]);
        assert!(answer.failure.is_some() && !afresh);

        aim(3);
        let (answer, afresh) = snapshot(&writer, &mut state, 3, checkpoint, vec![chained(false)]);
        assert!(answer.failure.is_none() && !afresh);
        assert_eq!(answer.operators[0].places.len(), 2, "the base of epoch 1 and what epoch 3 adds");
        assert_eq!(answer.operators[0].written_bytes, 10);

        std::fs::remove_dir_all(root.path().join(SHARED)).unwrap();
        aim(4);
        let (answer, afresh) = snapshot(&writer, &mut state, 4, checkpoint, vec![chained(false)]);
        assert!(answer.failure.is_some() && afresh);
    }
}
