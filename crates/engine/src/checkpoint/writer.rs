//! Puts a task's copied state on disk and tells the coordinator. One thread a worker, so that workers never wait for a disk
//! or for a sink's network.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::sink::Token;
use tidemill_core::{Error, Result};

use super::coordinator::Event;
use super::folder::{STATE_MAGIC, write_file};
use super::manifest::SectionPlace;
use crate::operator::SnapshotParts;
use crate::runtime::control::TaskSnapshot;
use crate::state::Section;

/// A task's snapshot below this many bytes travels with the acknowledgement and shares one file with others.
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
    /// Why the checkpoint cannot be completed; the state itself is still in memory, and the next checkpoint covers it.
    pub failure: Option<Error>,
}

pub(crate) struct AcknowledgedOperator {
    pub uid: String,
    pub inline: Vec<Section>,
    pub places: Vec<SectionPlace>,
    pub tokens: Vec<Token>,
}

/// Runs until the job's tasks are gone.
pub(crate) fn run(snapshots: Receiver<TaskSnapshot>, events: Sender<Event>, target: Target) {
    for snapshot in snapshots {
        let (epoch, task, subtask) = (snapshot.epoch, snapshot.task, snapshot.subtask);
        // Output that cannot be made safe is lost to this run: only a restart from the last checkpoint brings it back.
        let event = match write(snapshot, &target) {
            Ok(acknowledgement) => Event::Acknowledged(acknowledgement),
            Err(error) => Event::OutputLost(error.context(format!("task {task} subtask {subtask} at epoch {epoch}"))),
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

fn write(snapshot: TaskSnapshot, target: &Target) -> Result<Acknowledgement> {
    let TaskSnapshot { epoch, task, subtask, operators } = snapshot;
    let mut acknowledged = Vec::with_capacity(operators.len());
    let mut sections = Vec::new();
    for operator in operators {
        let SnapshotParts { sections: own, pre_commit } = operator.parts;
        let tokens = match pre_commit {
            Some(pre_commit) => pre_commit().map_err(|e| e.context(format!("operator `{}`", operator.uid)))?,
            None => Vec::new(),
        };
        sections.push(own);
        acknowledged.push(AcknowledgedOperator { uid: operator.uid, inline: Vec::new(), places: Vec::new(), tokens });
    }
    let total: usize = sections.iter().flatten().map(|section| section.bytes.len()).sum();
    let (current, folder) = target.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut failure = None;
    match folder {
        // The epoch was given up meanwhile: nobody waits for its state.
        _ if current != epoch => {}
        Some(folder) if total > INLINE_MAX => {
            let file = format!("task-{task}-{subtask}.state");
            let mut pieces: Vec<&[u8]> = vec![&STATE_MAGIC];
            pieces.extend(sections.iter().flatten().map(|section| section.bytes.as_slice()));
            failure = write_file(&folder.join(&file), &pieces).err();
            let mut offset = STATE_MAGIC.len() as u64;
            for (operator, own) in acknowledged.iter_mut().zip(&sections) {
                operator.places.extend(own.iter().map(|section| place(section, subtask, &file, &mut offset)));
            }
        }
        _ => {
            for (operator, own) in acknowledged.iter_mut().zip(sections) {
                operator.inline = own;
            }
        }
    }
    Ok(Acknowledgement { epoch, task, subtask, operators: acknowledged, failure })
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
    }
}
