//! The saved state of a pipeline in the harness, in memory.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::{Error, Result};

use crate::operator::OperatorSnapshot;
use crate::state::{EntryShapes, Restored, RestoredSection, Section};

/// What one or several subtasks have saved.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By operator id.
    sections: Vec<(String, RestoredSection)>,
    shapes: BTreeMap<String, EntryShapes>,
}

impl Snapshot {
    /// What the subtasks of a pipeline have saved together: what harnesses of another parallelism start from.
    pub fn merged(subtasks: impl IntoIterator<Item = Snapshot>) -> Self {
        let mut merged = Snapshot::default();
        for Snapshot { sections, shapes } in subtasks {
            merged.sections.extend(sections);
            shapes.into_iter().for_each(|(uid, shapes)| merged.shapes.entry(uid).or_default().extend(shapes));
        }
        merged
    }

    /// Bytes of state.
    pub fn bytes(&self) -> usize {
        self.sections.iter().map(|(_, section)| section.bytes().map_or(0, |bytes| bytes.len())).sum()
    }

    /// What the operators have written at once, and what was copied behind it.
    pub(super) fn of(
        subtask: usize,
        operators: Vec<OperatorSnapshot>,
        copied: Vec<(String, Vec<Section>)>,
    ) -> Result<Self> {
        let (mut all, mut shapes) = (Vec::new(), BTreeMap::new());
        for operator in operators {
            if let Some(pre_commit) = operator.parts.pre_commit {
                pre_commit()?;
            }
            shapes.insert(operator.uid.clone(), operator.parts.shapes);
            all.push((operator.uid, operator.parts.sections));
        }
        all.extend(copied);
        let sections = all.into_iter().flat_map(|(uid, sections)| {
            sections.into_iter().map(move |section| (uid.clone(), section.into_restored(subtask)))
        });
        Ok(Snapshot { sections: sections.collect(), shapes })
    }

    pub(super) fn load(&self, uid: &str, subtask: usize, parallelism: usize) -> Restored {
        let own = self.sections.iter().filter(|(of, _)| of == uid).map(|(_, section)| section.clone());
        let shapes = self.shapes.get(uid).cloned().unwrap_or_default();
        Restored { uid: uid.to_string(), subtask, parallelism, sections: own.collect(), shapes }
    }

    pub(super) fn check_all_claimed(&self, uids: &BTreeSet<String>) -> Result<()> {
        match self.sections.iter().find(|(uid, _)| !uids.contains(uid)) {
            None => Ok(()),
            Some((uid, _)) => Err(Error::input(format!("the pipeline has no operator for the state of `{uid}`"))
                .hint("give operators the uids they had")),
        }
    }
}
