//! Keyed state: a table for each named state, from key to value, list or map, in memory or on disk (`backend.rs`).
//!
//! A state handle such as [`ValueState`] is only a name until it is first used; then it finds its table in the operator's
//! [`KeyedStore`]. A table that was saved but is not used yet in this run stays as bytes and is saved again unchanged, so
//! that a state touched only once a day is never lost.

use std::any::Any;
use std::marker::PhantomData;

use hashbrown::HashMap;
use tidemill_core::{Data, Error, Result, SharedClock};

use super::backend::{StateHome, StateTable};
use super::disk::Lapses;
use super::latency::{Latencies, Measurement};
use super::migrate::{Before, Slot};
use super::{ChainPart, EntryShapes, Restored, RestoredSection, Section, SectionKind, TableHasher};
use crate::key::{GroupRange, KEY_GROUPS, Key, groups_of, key_group, owner};
use crate::operator::{CopyRun, DeferredCopy, SnapshotMode, SnapshotParts};
use crate::stream::RuntimeContext;

/// All states of one keyed operator.
pub struct KeyedStore<K> {
    tables: Vec<NamedTable<K>>,
    /// Saved tables that nobody has asked for yet.
    waiting: Vec<Waiting>,
    /// What the snapshot under way passes on of them.
    passed_on: Option<DeferredCopy>,
    /// What the entries of the tables, and of those that wait, are.
    shapes: EntryShapes,
    subtask: usize,
    parallelism: usize,
    /// For state that expires.
    clock: Option<SharedClock>,
    /// Names of state that the operator itself keeps beside the store.
    reserved: &'static [&'static str],
    home: StateHome,
    /// Where accesses are measured, if they are.
    latencies: Option<Box<Latencies>>,
}

struct Waiting {
    section: RestoredSection,
    /// Its name among the tables of a checkpoint; sorts as the sections were written.
    table: String,
    /// A checkpoint of this run holds it.
    held: bool,
}

struct NamedTable<K> {
    name: &'static str,
    table: Box<dyn AnyTable<K>>,
}

/// A table whose value type is known only to its handle.
trait AnyTable<K> {
    fn as_any(&mut self) -> &mut dyn Any;
    fn fetch(&self, keys: &[K]);
    fn begin_snapshot(&mut self, name: &str, parts: &mut SnapshotParts) -> Result<()>;
    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool>;
}

impl<K: Key, V: Data> AnyTable<K> for StateTable<K, V> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn fetch(&self, keys: &[K]) {
        StateTable::fetch::<K, _>(self, keys.iter());
    }

    fn begin_snapshot(&mut self, name: &str, parts: &mut SnapshotParts) -> Result<()> {
        StateTable::begin_snapshot(self, name, parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        StateTable::copy_some(self, run)
    }
}

impl<K: Key> Default for KeyedStore<K> {
    fn default() -> Self {
        KeyedStore {
            tables: Vec::new(),
            waiting: Vec::new(),
            passed_on: None,
            shapes: EntryShapes::default(),
            subtask: 0,
            parallelism: 1,
            clock: None,
            reserved: &[],
            home: StateHome::default(),
            latencies: None,
        }
    }
}

impl<K: Key> KeyedStore<K> {
    /// No state yet; what expires does so by this clock.
    pub fn new(clock: SharedClock) -> Self {
        KeyedStore { clock: Some(clock), ..KeyedStore::default() }
    }

    /// The same store, which refuses state of these names: the operator keeps its own under them.
    pub fn reserving(self, reserved: &'static [&'static str]) -> Self {
        KeyedStore { reserved, ..self }
    }

    /// No state yet, to be kept where the job says, and its accesses measured if the job says so.
    pub(crate) fn of(context: &RuntimeContext) -> Self {
        let home = context.state.clone();
        let measured = |interval| Box::new(Latencies::new(context.metrics.clone(), interval));
        let latencies = home.latency_sample_interval.map(measured);
        KeyedStore { home, latencies, ..KeyedStore::new(context.clock.clone()) }
    }

    /// No state yet, none of which expires, to be kept where the job says.
    pub(crate) fn at(context: &RuntimeContext) -> Self {
        KeyedStore { home: context.state.clone(), ..KeyedStore::default() }
    }

    /// A measurement of an access to a state that begins now, if it is to be measured. `access` is called as Flink's metric.
    #[inline]
    pub(super) fn measure(&mut self, state: &'static str, access: &'static str) -> Option<Measurement> {
        self.latencies.as_mut()?.measure(state, access)
    }

    /// Now, for state that expires.
    pub(super) fn now_ms(&self) -> Result<i64> {
        let clock = self.clock.as_ref().ok_or_else(|| {
            Error::input("state that expires is not available here: this operator's state has no clock")
                .hint("use it in process functions and rich functions on keyed streams")
        })?;
        Ok(clock.now_ms())
    }

    /// Takes all keyed sections that are left in `state`.
    pub fn restore(&mut self, state: &mut Restored) {
        (self.subtask, self.parallelism) = (state.subtask, state.parallelism);
        self.shapes = state.shapes.clone();
        let (keyed, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.sections).into_iter().partition(|section| section.kind == SectionKind::Keyed);
        let waiting = |(at, section): (usize, RestoredSection)| {
            let table = format!("{}#{at:06}", section.name);
            Waiting { section, table, held: false }
        };
        self.waiting = keyed.into_iter().enumerate().map(waiting).collect();
        state.sections = rest;
    }

    /// Fetches what is kept of keys from memory, ahead of the accesses that will need it. For a handful of keys at a time.
    #[inline]
    pub(crate) fn fetch(&self, keys: &[K]) {
        self.tables.iter().for_each(|named| named.table.fetch(keys));
    }

    /// Marks every table as it is now; [`KeyedStore::copy_some`] copies the large ones. Passes on those nobody has asked
    /// for.
    pub fn begin_snapshot(&mut self, parts: &mut SnapshotParts) -> Result<()> {
        for named in &mut self.tables {
            named.table.begin_snapshot(named.name, parts)?;
            parts.shapes.note_from(&self.shapes, named.name);
        }
        self.pass_on_waiting(parts);
        Ok(())
    }

    /// Goes on with the copy; true when it is done.
    pub fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        run.deferred.extend(self.passed_on.take());
        for named in &mut self.tables {
            if !named.table.copy_some(run)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Untouched sections are written once, and from then on only named. The checkpoint writer's thread passes them on, as
    /// they may still have to be read.
    fn pass_on_waiting(&mut self, parts: &mut SnapshotParts) {
        let (mode, own) = (parts.mode, groups_of(self.subtask, self.parallelism));
        let mut passed = Vec::new();
        if mode == SnapshotMode::Nothing {
            return;
        }
        for Waiting { section, table, held } in &mut self.waiting {
            // After a change of parallelism several subtasks read it, and each passes on what it owns of it.
            let Some(groups) = own.and_then(|own| common(section.groups, own)) else { continue };
            parts.shapes.note_from(&self.shapes, &section.name);
            let chain = match mode {
                SnapshotMode::Checkpoint { fresh } => {
                    parts.roster.push(table.clone());
                    if *held && !fresh {
                        continue;
                    }
                    *held = true;
                    Some(ChainPart { table: table.clone(), unit: 0, begins: true })
                }
                _ => None,
            };
            passed.push((RestoredSection { groups: Some(groups), ..section.clone() }, chain));
        }
        if !passed.is_empty() {
            self.passed_on = Some(Box::new(move |give| {
                for (section, chain) in passed {
                    let bytes = section.keep_bytes()?.to_vec();
                    let whole = Section::new(section.name, section.kind, section.entries, bytes);
                    give(Section { removal: section.removal, groups: section.groups, chain, ..whole })?;
                }
                Ok(())
            }));
        }
    }

    /// The table of a named state, made or taken from the saved bytes at first use.
    #[inline]
    pub(super) fn table<V: Data>(&mut self, name: &'static str, slot: &Slot) -> Result<&mut StateTable<K, V>> {
        self.table_that_lapses(name, slot, || None)
    }

    /// The same for a state whose values expire.
    #[inline]
    pub(super) fn table_that_lapses<V: Data>(
        &mut self,
        name: &'static str,
        slot: &Slot,
        lapses: impl FnOnce() -> Option<Lapses<V>>,
    ) -> Result<&mut StateTable<K, V>> {
        if self.tables.get(slot.at.get()).is_none_or(|named| named.name != name) {
            slot.at.set(self.find_or_load::<V>(name, slot.before.as_ref(), lapses)?);
        }
        let named = &mut self.tables[slot.at.get()];
        named
            .table
            .as_any()
            .downcast_mut()
            .ok_or_else(|| Error::input(format!("state `{name}` is used with two different types in one operator")))
    }

    /// Takes out the saved sections of a state that nobody has asked for yet.
    fn take_waiting(&mut self, name: &str) -> Vec<RestoredSection> {
        let (saved, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.section.name == name);
        self.waiting = waiting;
        saved.into_iter().map(|waiting| waiting.section).collect()
    }

    #[cold]
    fn find_or_load<V: Data>(
        &mut self,
        name: &'static str,
        before: Option<&Before>,
        lapses: impl FnOnce() -> Option<Lapses<V>>,
    ) -> Result<usize> {
        if let Some(found) = self.tables.iter().position(|named| named.name == name) {
            return Ok(found);
        }
        if self.reserved.contains(&name) {
            return Err(Error::input(format!(
                "state cannot be called `{name}`: the operator keeps its own under that name"
            ))
            .hint("give it another name"));
        }
        let used = |named: &NamedTable<K>| before.is_some_and(|before| before.name == named.name);
        if let Some(old) = self.tables.iter().find(|named| used(named)) {
            return Err(Error::input(format!("state `{name}` is to come from `{}`, which is still in use", old.name))
                .hint("use only the new state in this operator"));
        }
        let (subtask, parallelism) = (self.subtask, self.parallelism);
        let own = groups_of(subtask, parallelism).unwrap_or((0, KEY_GROUPS - 1));
        let mut table: StateTable<K, V> = self.home.table(name, (subtask, own), self.clock.clone(), lapses)?;
        // What there is of the old state is older than all there is of the new one.
        let mut saved = Vec::new();
        if let Some(before) = before {
            let old = self.take_waiting(before.name);
            before.check(&self.shapes, name)?;
            saved = old.iter().map(|section| before.section::<K, V>(section, name)).collect::<Result<_>>()?;
        }
        self.shapes.check::<(K, V)>(SectionKind::Keyed, name)?;
        self.shapes.note::<(K, V)>(SectionKind::Keyed, name);
        saved.extend(self.take_waiting(name));
        for section in saved {
            table.load(&section, |key| {
                let group = key_group(key);
                let counts = section.groups.is_none_or(|(first, last)| (first..=last).contains(&group));
                counts && owner(group, parallelism) == subtask
            })?;
        }
        self.tables.push(NamedTable { name, table: Box::new(table) });
        Ok(self.tables.len() - 1)
    }
}

/// The key groups of `own` that count in a section.
fn common(section: Option<GroupRange>, own: GroupRange) -> Option<GroupRange> {
    let (first, last) = section.map_or(own, |(first, last)| (first.max(own.0), last.min(own.1)));
    (first <= last).then_some((first, last))
}

/// Something that holds keyed state and knows the current key: the contexts of process functions.
pub trait StateAccess {
    /// The type of the key.
    type Key: Key;

    /// The current key and the operator's states.
    fn keyed_state(&mut self) -> (&Self::Key, &mut KeyedStore<Self::Key>);
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident<$($value:ident),+>) => {
        $(#[$doc])*
        pub struct $name<$($value),+> {
            pub(super) name: &'static str,
            pub(super) slot: Slot,
            marker: PhantomData<fn() -> ($($value,)+)>,
        }

        impl<$($value),+> $name<$($value),+> {
            /// A handle on the state of this name; names are unique within the operator and find the state at a restore.
            pub const fn new(name: &'static str) -> Self {
                $name { name, slot: Slot::new(), marker: PhantomData }
            }

            pub(super) fn of_slot(name: &'static str, slot: Slot) -> Self {
                $name { name, slot, marker: PhantomData }
            }
        }

        impl<$($value),+> Clone for $name<$($value),+> {
            fn clone(&self) -> Self {
                Self::of_slot(self.name, self.slot.clone())
            }
        }
    };
}

handle! {
    /// One value for each key; absent until set.
    ValueState<V>
}
handle! {
    /// A list for each key; empty until added to.
    ListState<V>
}
handle! {
    /// A map for each key; empty until put into.
    MapState<F, V>
}

/// An access to a state: the current key, the state's table, and the access's measurement, which ends when it is dropped.
type Access<'c, K, V> = (&'c K, &'c mut StateTable<K, V>, Option<Measurement>);

/// Begins an access to a state, measured as `access`.
#[inline]
pub(super) fn begin<'c, C: StateAccess, V: Data>(
    context: &'c mut C,
    (name, slot): (&'static str, &Slot),
    access: &'static str,
) -> Result<Access<'c, C::Key, V>> {
    let (key, store) = context.keyed_state();
    let measurement = store.measure(name, access);
    Ok((key, store.table::<V>(name, slot)?, measurement))
}

impl<V: Data> ValueState<V> {
    /// Begins an access.
    #[inline]
    pub(super) fn begin<'c, C: StateAccess>(
        &self,
        context: &'c mut C,
        access: &'static str,
    ) -> Result<Access<'c, C::Key, V>> {
        begin(context, (self.name, &self.slot), access)
    }

    /// The values of all keys, for an operator that finds its keys itself.
    pub(crate) fn table<'s, K: Key>(&self, store: &'s mut KeyedStore<K>) -> Result<&'s mut StateTable<K, V>> {
        store.table(self.name, &self.slot)
    }

    /// The current key's value.
    pub fn get<'c, C: StateAccess>(&self, context: &'c mut C) -> Result<Option<&'c V>> {
        let (key, table, _measured) = self.begin(context, "valueStateGetLatency")?;
        table.get(key)
    }

    /// The current key's value to be changed in place, if there is one.
    pub fn get_mut<'c, C: StateAccess>(&self, context: &'c mut C) -> Result<Option<&'c mut V>> {
        let (key, table, _measured) = self.begin(context, "valueStateGetLatency")?;
        table.get_mut(key)
    }

    /// Sets the current key's value.
    pub fn set<C: StateAccess>(&self, context: &mut C, value: V) -> Result<()> {
        let (key, table, _measured) = self.begin(context, "valueStateUpdateLatency")?;
        table.set(key, value)
    }

    /// The current key's value to be changed in place, made by `initial` if absent.
    pub fn get_or<'c, C: StateAccess>(&self, context: &'c mut C, initial: impl FnOnce() -> V) -> Result<&'c mut V> {
        let (key, table, _measured) = self.begin(context, "valueStateGetLatency")?;
        table.get_or_insert_with(key, initial)
    }

    /// Sets a new value and returns the one before.
    pub fn replace<C: StateAccess>(&self, context: &mut C, value: V) -> Result<Option<V>> {
        let (key, table, _measured) = self.begin(context, "valueStateUpdateLatency")?;
        table.insert(key, value)
    }

    /// Removes the current key's value and returns it.
    pub fn take<C: StateAccess>(&self, context: &mut C) -> Result<Option<V>> {
        let (key, table, _measured) = self.begin(context, "valueStateClearLatency")?;
        table.remove(key)
    }

    /// Removes the current key's value.
    pub fn clear<C: StateAccess>(&self, context: &mut C) -> Result<()> {
        self.take(context).map(drop)
    }
}

impl<V: Data> ListState<V> {
    #[inline]
    fn begin<'c, C: StateAccess>(
        &self,
        context: &'c mut C,
        access: &'static str,
    ) -> Result<Access<'c, C::Key, Vec<V>>> {
        begin(context, (self.name, &self.slot), access)
    }

    /// The current key's list.
    pub fn get<'c, C: StateAccess>(&self, context: &'c mut C) -> Result<&'c [V]> {
        let (key, table, _measured) = self.begin(context, "listStateGetLatency")?;
        Ok(table.get(key)?.map_or(&[], |list| list.as_slice()))
    }

    /// Appends to the current key's list.
    pub fn add<C: StateAccess>(&self, context: &mut C, value: V) -> Result<()> {
        let (key, table, _measured) = self.begin(context, "listStateAddLatency")?;
        table.get_or_insert_with(key, Vec::new)?.push(value);
        Ok(())
    }

    /// Replaces the current key's list.
    pub fn update<C: StateAccess>(&self, context: &mut C, values: Vec<V>) -> Result<()> {
        let (key, table, _measured) = self.begin(context, "listStateUpdateLatency")?;
        if values.is_empty() { table.remove(key).map(drop) } else { table.set(key, values) }
    }

    /// Removes the current key's list and returns it.
    pub fn take<C: StateAccess>(&self, context: &mut C) -> Result<Vec<V>> {
        let (key, table, _measured) = self.begin(context, "listStateClearLatency")?;
        Ok(table.remove(key)?.unwrap_or_default())
    }

    /// Removes the current key's list.
    pub fn clear<C: StateAccess>(&self, context: &mut C) -> Result<()> {
        self.take(context).map(drop)
    }
}

impl<F: Key, V: Data> MapState<F, V> {
    #[inline]
    fn begin<'c, C: StateAccess>(
        &self,
        context: &'c mut C,
        access: &'static str,
    ) -> Result<Access<'c, C::Key, FieldMap<F, V>>> {
        begin(context, (self.name, &self.slot), access)
    }

    /// The value of a field of the current key's map.
    pub fn get<'c, C: StateAccess>(&self, context: &'c mut C, field: &F) -> Result<Option<&'c V>> {
        let (key, table, _measured) = self.begin(context, "mapStateGetLatency")?;
        Ok(table.get(key)?.and_then(|map| map.0.get(field)))
    }

    /// Sets a field of the current key's map and returns its value before.
    pub fn put<C: StateAccess>(&self, context: &mut C, field: F, value: V) -> Result<Option<V>> {
        let (key, table, _measured) = self.begin(context, "mapStatePutLatency")?;
        Ok(table.get_or_insert_with(key, FieldMap::default)?.0.insert(field, value))
    }

    /// Removes a field of the current key's map and returns its value.
    pub fn remove<C: StateAccess>(&self, context: &mut C, field: &F) -> Result<Option<V>> {
        let (key, table, _measured) = self.begin(context, "mapStateRemoveLatency")?;
        let Some(map) = table.get_mut(key)? else { return Ok(None) };
        let removed = map.0.remove(field);
        if map.0.is_empty() {
            table.remove(key)?;
        }
        Ok(removed)
    }

    /// The fields and values of the current key's map, in no particular order.
    pub fn entries<'c, C: StateAccess>(&self, context: &'c mut C) -> Result<Vec<(&'c F, &'c V)>> {
        let (key, table, _measured) = self.begin(context, "mapStateEntriesInitLatency")?;
        Ok(table.get(key)?.map_or(Vec::new(), |map| map.0.iter().collect()))
    }

    /// Whether the current key's map is empty.
    pub fn is_empty<C: StateAccess>(&self, context: &mut C) -> Result<bool> {
        let (key, table, _measured) = self.begin(context, "mapStateIsEmptyLatency")?;
        Ok(table.get(key)?.is_none())
    }

    /// Removes the current key's map.
    pub fn clear<C: StateAccess>(&self, context: &mut C) -> Result<()> {
        let (key, table, _measured) = self.begin(context, "mapStateClearLatency")?;
        table.remove(key).map(drop)
    }
}

/// A map as a state value, written as a list of pairs.
#[derive(Clone)]
pub(super) struct FieldMap<F, V>(pub(super) HashMap<F, V, TableHasher>);

impl<F, V> Default for FieldMap<F, V> {
    fn default() -> Self {
        FieldMap(HashMap::default())
    }
}

impl<F: Key, V: Data> serde::Serialize for FieldMap<F, V> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl<'de, F: Key, V: Data> serde::Deserialize<'de> for FieldMap<F, V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(FieldMap(Vec::<(F, V)>::deserialize(deserializer)?.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At<'a>(u32, &'a mut KeyedStore<u32>);
    impl StateAccess for At<'_> {
        type Key = u32;
        fn keyed_state(&mut self) -> (&u32, &mut KeyedStore<u32>) {
            (&self.0, self.1)
        }
    }

    fn saved(stores: &mut [KeyedStore<u32>], subtask: usize, parallelism: usize) -> Restored {
        let mut sections = Vec::new();
        for (from, store) in stores.iter_mut().enumerate() {
            let mut parts = SnapshotParts::default();
            store.begin_snapshot(&mut parts).unwrap();
            let mut run = CopyRun::whole();
            assert!(store.copy_some(&mut run).unwrap());
            let mut all = parts.sections;
            for passed_on in run.deferred {
                let mut give = |section| {
                    all.push(section);
                    Ok(())
                };
                passed_on(&mut give).unwrap();
            }
            sections.extend(all.into_iter().map(|section| section.into_restored(from)));
        }
        Restored { uid: "test".into(), subtask, parallelism, sections, ..Restored::default() }
    }

    #[test]
    fn all_kinds_survive_another_parallelism_even_untouched() {
        let (value, list, map) =
            (ValueState::<i64>::new("value"), ListState::<String>::new("list"), MapState::<u8, i64>::new("map"));
        let mut first = KeyedStore::default();
        for key in 0..500u32 {
            let mut at = At(key, &mut first);
            value.set(&mut at, i64::from(key) * 2).unwrap();
            list.add(&mut at, format!("a{key}")).unwrap();
            list.add(&mut at, format!("b{key}")).unwrap();
            map.put(&mut at, 7, -i64::from(key)).unwrap();
        }
        // To three subtasks; only `value` is touched there; then to two, where all are read.
        let mut three: Vec<KeyedStore<u32>> = (0..3)
            .map(|subtask| {
                let mut store = KeyedStore::default();
                store.restore(&mut saved(std::slice::from_mut(&mut first), subtask, 3));
                store
            })
            .collect();
        for key in 0..500u32 {
            let store = &mut three[owner(key_group(&key), 3)];
            *value.clone().get_or(&mut At(key, store), || 0).unwrap() += 1;
        }
        let mut two: Vec<KeyedStore<u32>> = (0..2)
            .map(|subtask| {
                let mut store = KeyedStore::default();
                store.restore(&mut saved(&mut three, subtask, 2));
                store
            })
            .collect();
        for key in 0..500u32 {
            let mut at = At(key, &mut two[owner(key_group(&key), 2)]);
            assert_eq!(value.clone().get(&mut at).unwrap(), Some(&(i64::from(key) * 2 + 1)));
            assert_eq!(list.clone().get(&mut at).unwrap(), [format!("a{key}"), format!("b{key}")]);
            assert_eq!(map.clone().get(&mut at, &7).unwrap(), Some(&-i64::from(key)));
            let mut other = At(key, &mut two[1 - owner(key_group(&key), 2)]);
            assert_eq!(value.clone().get(&mut other).unwrap(), None);
        }
    }

    /// After a restore by more subtasks some touch the state and some do not; the next checkpoint holds all of it all the
    /// same, and nothing twice.
    #[test]
    fn state_touched_by_some_subtasks_only_is_kept_by_all() {
        let value = ValueState::<i64>::new("value");
        let mut first = KeyedStore::default();
        for key in 0..500u32 {
            value.set(&mut At(key, &mut first), i64::from(key)).unwrap();
        }
        for touching in 0..3 {
            let restored = |stores: &mut [KeyedStore<u32>], of: usize| -> Vec<KeyedStore<u32>> {
                let restore = |subtask| {
                    let mut store = KeyedStore::default();
                    store.restore(&mut saved(stores, subtask, of));
                    store
                };
                (0..of).map(restore).collect()
            };
            let mut three = restored(std::slice::from_mut(&mut first), 3);
            for key in (0..500u32).filter(|key| owner(key_group(key), 3) == touching) {
                // Every other key of the subtask goes.
                let at = &mut At(key, &mut three[touching]);
                if key % 2 == 0 { value.clear(at).unwrap() } else { value.set(at, -1).unwrap() }
            }
            // Twice without a touch, so that what was passed on is passed on again.
            let mut five = restored(&mut three, 5);
            let mut two = restored(&mut five, 2);
            for key in 0..500u32 {
                let (touched, store) = (owner(key_group(&key), 3) == touching, owner(key_group(&key), 2));
                let expected = if !touched { Some(i64::from(key)) } else { (key % 2 == 1).then_some(-1) };
                let found = value.clone().get(&mut At(key, &mut two[store])).unwrap().copied();
                assert_eq!(found, expected, "key {key}, touched by subtask {touching}");
            }
        }
    }

    #[test]
    fn one_name_with_two_types_is_refused() {
        let mut store = KeyedStore::default();
        ValueState::<i64>::new("x").set(&mut At(1, &mut store), 1).unwrap();
        let error = ValueState::<String>::new("x").get(&mut At(1, &mut store)).unwrap_err();
        assert!(error.to_string().contains("two different types"), "{error}");
    }
}
