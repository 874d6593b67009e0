//! Broadcast state: maps of which every subtask of an operator has a copy of its own. All subtasks see the same broadcast
//! records and change their copies alike; each saves its copy, and each restores from one.

use std::any::Any;
use std::marker::PhantomData;

use hashbrown::HashMap;
use tidemill_core::{Data, Error, Result};

use crate::key::Key;
use crate::operator::SnapshotParts;
use crate::state::{EntryShapes, Restored, RestoredSection, SectionKind, TableHasher, Writer};

/// Names a broadcast state and its types (Flink's `MapStateDescriptor`). Say it where the stream is broadcast, and ask
/// the context for the map of this name.
pub struct BroadcastState<K, V> {
    name: &'static str,
    marker: PhantomData<fn() -> (K, V)>,
}

impl<K, V> BroadcastState<K, V> {
    /// A state of this name, unique within the operator; the name finds it at a restore.
    pub const fn new(name: &'static str) -> Self {
        BroadcastState { name, marker: PhantomData }
    }
}

impl<K, V> Clone for BroadcastState<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K, V> Copy for BroadcastState<K, V> {}

/// A broadcast state of any types, so that several can be said together.
pub trait BroadcastDescriptor {
    /// The state with its types erased.
    fn declare(&self) -> DeclaredState;
}

/// A broadcast state with its types erased.
#[derive(Clone, Copy)]
pub struct DeclaredState {
    name: &'static str,
    empty: fn() -> Box<dyn AnyMap>,
}

impl<K: Key, V: Data> BroadcastDescriptor for BroadcastState<K, V> {
    fn declare(&self) -> DeclaredState {
        DeclaredState { name: self.name, empty: || Box::new(BroadcastMap::<K, V>(HashMap::default())) }
    }
}

/// One subtask's copy of a broadcast state.
pub struct BroadcastMap<K, V>(HashMap<K, V, TableHasher>);

impl<K: Key, V: Data> BroadcastMap<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    /// Whether a key has a value.
    pub fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// Keys and values, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter()
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the value of a key and returns the one before.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// Removes the value of a key and returns it.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key)
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A map whose types are known only to its descriptor.
trait AnyMap {
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn snapshot(&self, name: &str, parts: &mut SnapshotParts) -> Result<()>;
    fn restore(&mut self, copy: &RestoredSection, shapes: &EntryShapes) -> Result<()>;
}

impl<K: Key, V: Data> AnyMap for BroadcastMap<K, V> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn snapshot(&self, name: &str, parts: &mut SnapshotParts) -> Result<()> {
        let mut writer = Writer::new(name, SectionKind::Operator);
        for entry in &self.0 {
            writer.entry(&entry)?;
        }
        parts.sections.push(writer.finish());
        parts.shapes.note::<(K, V)>(SectionKind::Operator, name);
        Ok(())
    }

    fn restore(&mut self, copy: &RestoredSection, shapes: &EntryShapes) -> Result<()> {
        shapes.check::<(K, V)>(SectionKind::Operator, &copy.name)?;
        let mut reader = copy.reader()?;
        while let Some((key, value)) = reader.entry::<(K, V)>()? {
            self.0.insert(key, value);
        }
        Ok(())
    }
}

/// All broadcast states of one subtask.
pub(super) struct BroadcastStore {
    maps: Vec<(&'static str, Box<dyn AnyMap>)>,
}

impl BroadcastStore {
    /// The declared states, empty.
    pub fn new(declared: &[DeclaredState]) -> Result<Self> {
        let mut maps: Vec<(&'static str, Box<dyn AnyMap>)> = Vec::new();
        for state in declared {
            if maps.iter().any(|(name, _)| *name == state.name) {
                return Err(Error::input(format!("broadcast state `{}` is given twice", state.name))
                    .hint("states of one stream need different names"));
            }
            maps.push((state.name, (state.empty)()));
        }
        Ok(BroadcastStore { maps })
    }

    fn unknown(&self, name: &str) -> Error {
        let known: Vec<&str> = self.maps.iter().map(|(name, _)| *name).collect();
        Error::input(format!("no broadcast state `{name}` was given with the broadcast stream"))
            .hint(format!("name it in `broadcast_with`, with the same types; given were: {}", known.join(", ")))
    }

    /// The map of a state, to be read.
    pub fn map<K: Key, V: Data>(&self, state: &BroadcastState<K, V>) -> Result<&BroadcastMap<K, V>> {
        let found = self.maps.iter().find(|(name, _)| *name == state.name);
        found.and_then(|(_, map)| map.as_any().downcast_ref()).ok_or_else(|| self.unknown(state.name))
    }

    /// The map of a state, to be changed.
    pub fn map_mut<K: Key, V: Data>(&mut self, state: &BroadcastState<K, V>) -> Result<&mut BroadcastMap<K, V>> {
        self.map(state)?;
        let found = self.maps.iter_mut().find(|(name, _)| *name == state.name);
        found.and_then(|(_, map)| map.as_any_mut().downcast_mut()).ok_or_else(|| Error::bug("a map was there before"))
    }

    /// Takes one of the copies that were saved: with more subtasks than before some take the same, with fewer some
    /// copies are left out. They are all alike.
    pub fn restore(&mut self, state: &mut Restored) -> Result<()> {
        for (name, map) in &mut self.maps {
            let is_copy = |s: &RestoredSection| s.kind == SectionKind::Operator && s.name == *name;
            let (mut copies, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut state.sections).into_iter().partition(is_copy);
            state.sections = rest;
            copies.sort_by_key(|copy| copy.subtask);
            if let Some(copy) = state.subtask.checked_rem(copies.len()).and_then(|at| copies.get(at)) {
                map.restore(copy, &state.shapes)?;
            }
        }
        Ok(())
    }

    /// Writes this subtask's copies, empty ones too, so that all states have as many copies as there were subtasks.
    pub fn snapshot(&self, parts: &mut SnapshotParts) -> Result<()> {
        self.maps.iter().try_for_each(|(name, map)| map.snapshot(name, parts))
    }
}
