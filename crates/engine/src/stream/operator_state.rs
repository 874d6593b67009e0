//! State that belongs to an operator and not to a key (Flink's `CheckpointedFunction`): a function writes lists at each
//! checkpoint, and after a restore each subtask reads its share of them, or all.

use tidemill_core::{Data, Result};

use crate::operator::SnapshotParts;
use crate::state::{Restored, RestoredSection, SectionKind, Writer};

/// What the subtasks had written at the checkpoint the job was restored from.
pub struct OperatorStateReader<'a> {
    saved: &'a mut Restored,
}

impl<'a> OperatorStateReader<'a> {
    pub(crate) fn new(saved: &'a mut Restored) -> Self {
        OperatorStateReader { saved }
    }

    /// Whether the job was restored at all; a state that is new then is empty all the same.
    pub fn is_restored(&self) -> bool {
        !self.saved.is_empty()
    }

    /// This subtask's share of a list: what it had written itself or, with another parallelism, an even part of all (in the
    /// order of the subtasks that wrote it).
    pub fn list<V: Data>(&mut self, name: &str) -> Result<Vec<V>> {
        self.saved.shapes.check::<V>(SectionKind::Operator, name)?;
        let sections = self.sections(name);
        let (subtask, parallelism) = (self.saved.subtask, self.saved.parallelism);
        if sections.len() == parallelism {
            let own: Vec<_> = sections.into_iter().filter(|section| section.subtask == subtask).collect();
            return entries(&own);
        }
        let all = entries(&sections)?;
        let (from, to) = (all.len() * subtask / parallelism, all.len() * (subtask + 1) / parallelism);
        Ok(all.into_iter().skip(from).take(to - from).collect())
    }

    /// All of a list: what all subtasks had written, in their order, on each subtask (Flink's union list state).
    pub fn union<V: Data>(&mut self, name: &str) -> Result<Vec<V>> {
        self.saved.shapes.check::<V>(SectionKind::Operator, name)?;
        entries(&self.sections(name))
    }

    fn sections(&mut self, name: &str) -> Vec<RestoredSection> {
        let own = |section: &RestoredSection| section.name == name && section.kind == SectionKind::Operator;
        let (mut sections, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.saved.sections).into_iter().partition(own);
        self.saved.sections = rest;
        sections.sort_by_key(|section| section.subtask);
        sections
    }
}

fn entries<V: Data>(sections: &[RestoredSection]) -> Result<Vec<V>> {
    let mut entries = Vec::new();
    for section in sections {
        let mut reader = section.reader()?;
        while let Some(entry) = reader.entry()? {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Where a subtask writes its lists at a checkpoint.
pub struct OperatorStateWriter<'a> {
    parts: &'a mut SnapshotParts,
}

impl<'a> OperatorStateWriter<'a> {
    pub(crate) fn new(parts: &'a mut SnapshotParts) -> Self {
        OperatorStateWriter { parts }
    }

    /// Writes this subtask's part of a list. Whoever reads it decides whether it is divided or given to all. A list must be
    /// written at each checkpoint, also when it is empty: what is not written is gone.
    pub fn list<'v, V: Data>(&mut self, name: &str, values: impl IntoIterator<Item = &'v V>) -> Result<()> {
        let mut writer = Writer::new(name, SectionKind::Operator);
        values.into_iter().try_for_each(|value| writer.entry(value))?;
        self.parts.sections.push(writer.finish());
        self.parts.shapes.note::<V>(SectionKind::Operator, name);
        Ok(())
    }
}
