//! What the entries of an operator's states are, by the states' names. It stands in the manifest beside the state, so that a
//! changed type is noticed before its bytes are misread, and a state is read without the program that wrote it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

use super::SectionKind;
use super::shape::Shape;
use super::trace::{shape_of, shape_text};

/// The shapes of an operator's states, as text: of keyed state the shape of key and value as a pair, otherwise that of an
/// element. States whose types have no shape that could be found are not among them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EntryShapes {
    keyed: BTreeMap<String, String>,
    operator: BTreeMap<String, String>,
}

impl EntryShapes {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.keyed.is_empty() && self.operator.is_empty()
    }

    /// The shape of a state's entries as text.
    pub fn text(&self, kind: SectionKind, state: &str) -> Option<&str> {
        let shapes = match kind {
            SectionKind::Keyed => &self.keyed,
            SectionKind::Operator => &self.operator,
        };
        shapes.get(state).map(String::as_str)
    }

    /// The shape of a state's entries. One that a later version of this program has written in words of its own is not known.
    pub fn get(&self, kind: SectionKind, state: &str) -> Option<Shape> {
        self.text(kind, state)?.parse().ok()
    }

    fn of(&mut self, kind: SectionKind) -> &mut BTreeMap<String, String> {
        match kind {
            SectionKind::Keyed => &mut self.keyed,
            SectionKind::Operator => &mut self.operator,
        }
    }

    /// Notes the type of a state's entries.
    pub(crate) fn note<E: DeserializeOwned + 'static>(&mut self, kind: SectionKind, state: &str) {
        match shape_text::<E>() {
            Some(shape) => self.of(kind).insert(state.to_string(), shape.to_string()),
            None => self.of(kind).remove(state),
        };
    }

    /// Takes over what another one knows of a keyed state.
    pub(crate) fn note_from(&mut self, other: &EntryShapes, state: &str) {
        if let Some(text) = other.keyed.get(state) {
            self.keyed.insert(state.to_string(), text.clone());
        }
    }

    /// Takes over what another subtask knows. Of two shapes of a state the one stays that reads what the other has written: a
    /// subtask that has not read it yet passes on what was saved, perhaps with fewer variants.
    pub(crate) fn extend(&mut self, other: EntryShapes) {
        for (kind, shapes) in [(SectionKind::Keyed, other.keyed), (SectionKind::Operator, other.operator)] {
            for (state, text) in shapes {
                let both = self.get(kind, &state).zip(text.parse::<Shape>().ok());
                if both.is_none_or(|(held, other)| !held.reads(&other)) {
                    self.of(kind).insert(state, text);
                }
            }
        }
    }

    /// Forgets the states that are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(SectionKind, &str) -> bool) {
        for kind in [SectionKind::Keyed, SectionKind::Operator] {
            self.of(kind).retain(|state, _| wanted(kind, state));
        }
    }

    /// An error if a state's entries were not of this type.
    pub(crate) fn check<E: DeserializeOwned>(&self, kind: SectionKind, state: &str) -> Result<()> {
        let Some((saved, now)) = self.differs::<E>(kind, state) else { return Ok(()) };
        Err(Error::input(format!("state `{state}` was saved as {saved}, and is now {now}")).hint(
            "give the state of the new type another name, and `migrated_from` the old one; a field or variant that only has \
            a new name keeps the saved one with `#[serde(rename = \"…\")]`",
        ))
    }

    /// What a state's entries were, and what they would be by this type, if it misread them.
    pub(crate) fn differs<E: DeserializeOwned>(&self, kind: SectionKind, state: &str) -> Option<(Shape, Shape)> {
        let (saved, now) = (self.get(kind, state)?, shape_of::<E>()?);
        (!now.reads(&saved)).then_some((saved, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_subtasks_the_one_that_knows_more_variants_counts() {
        let told = |text: &str| EntryShapes { keyed: [("s".into(), text.into())].into(), ..EntryShapes::default() };
        let (old, new) = (told("(u8, enum<A: unit>)"), told("(u8, enum<A: unit | B: u8>)"));
        for (mut first, second) in [(old.clone(), new.clone()), (new.clone(), old)] {
            first.extend(second);
            assert_eq!(first, new);
        }
    }
}
