//! State that expires: handles like those of plain keyed state, whose values are gone a time after they were last written
//! (or read). Time is the job's clock, as in Flink. A list's elements and a map's fields expire one by one.
//!
//! What has expired is never returned unless [`Ttl::return_expired`] asks for it. It is removed when its key is touched, and
//! a few entries of the table are looked at with every access, so that keys nobody touches any more go too.

use tidemill_core::{Data, Result};

use super::disk::Lapses;
use super::keyed::{FieldMap, KeyedStore, ListState, MapState, StateAccess, ValueState};
use crate::key::Key;

/// Entries looked at with every access, besides the one that is wanted.
const SWEPT_PER_ACCESS: usize = 5;

/// How long state lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    lives_ms: i64,
    renewed_by_reading: bool,
    returns_expired: bool,
}

impl Ttl {
    /// State that is gone when it was not written for this long.
    pub fn new(lives: std::time::Duration) -> Self {
        let lives_ms = i64::try_from(lives.as_millis()).unwrap_or(i64::MAX);
        Ttl { lives_ms, renewed_by_reading: false, returns_expired: false }
    }

    /// Reading renews it as well (Flink's `OnReadAndWrite`).
    pub fn renewed_by_reading(self) -> Self {
        Ttl { renewed_by_reading: true, ..self }
    }

    /// What has expired is still returned as long as it happens to be there (Flink's `ReturnExpiredIfNotCleanedUp`).
    pub fn return_expired(self) -> Self {
        Ttl { returns_expired: true, ..self }
    }

    /// When a value touched last at `since_ms` is gone.
    fn lapses_ms(&self, since_ms: i64) -> i64 {
        since_ms.saturating_add(self.lives_ms)
    }

    fn expired(&self, since_ms: i64, now_ms: i64) -> bool {
        self.lapses_ms(since_ms) <= now_ms
    }

    /// Whether a value touched last at `since_ms` may be returned.
    fn returns(&self, since_ms: i64, now_ms: i64) -> bool {
        self.returns_expired || !self.expired(since_ms, now_ms)
    }
}

/// A value with the time it was touched last.
type Timed<V> = (i64, V);

/// One value for each key, which expires.
pub struct ExpiringValueState<V> {
    pub(super) held: ValueState<Timed<V>>,
    ttl: Ttl,
}

/// A list for each key, whose elements expire.
pub struct ExpiringListState<V> {
    pub(super) held: ListState<Timed<V>>,
    ttl: Ttl,
}

/// A map for each key, whose fields expire.
pub struct ExpiringMapState<F, V> {
    pub(super) held: MapState<F, Timed<V>>,
    ttl: Ttl,
}

impl<V> ValueState<V> {
    /// The same state with values that expire. State saved without expiry cannot be read with it, nor the other way round.
    pub fn with_ttl(self, ttl: Ttl) -> ExpiringValueState<V> {
        ExpiringValueState { held: ValueState::of_slot(self.name, self.slot), ttl }
    }
}

impl<V> ListState<V> {
    /// The same state with elements that expire. State saved without expiry cannot be read with it, nor the other way round.
    pub fn with_ttl(self, ttl: Ttl) -> ExpiringListState<V> {
        ExpiringListState { held: ListState::of_slot(self.name, self.slot), ttl }
    }
}

impl<F, V> MapState<F, V> {
    /// The same state with fields that expire. State saved without expiry cannot be read with it, nor the other way round.
    pub fn with_ttl(self, ttl: Ttl) -> ExpiringMapState<F, V> {
        ExpiringMapState { held: MapState::of_slot(self.name, self.slot), ttl }
    }
}

impl<V> Clone for ExpiringValueState<V> {
    fn clone(&self) -> Self {
        ExpiringValueState { held: self.held.clone(), ttl: self.ttl }
    }
}
impl<V> Clone for ExpiringListState<V> {
    fn clone(&self) -> Self {
        ExpiringListState { held: self.held.clone(), ttl: self.ttl }
    }
}
impl<F, V> Clone for ExpiringMapState<F, V> {
    fn clone(&self) -> Self {
        ExpiringMapState { held: self.held.clone(), ttl: self.ttl }
    }
}

fn now_ms<C: StateAccess>(context: &mut C) -> Result<i64> {
    context.keyed_state().1.now_ms()
}

impl<V: Data> ExpiringValueState<V> {
    /// The current key's value.
    pub fn get<'c, C: StateAccess>(&self, context: &'c mut C) -> Result<Option<&'c V>> {
        let (ttl, now_ms) = (self.ttl, now_ms(context)?);
        self.sweep(context.keyed_state().1, now_ms)?;
        match self.held.get(context)? {
            None => return Ok(None),
            Some((since_ms, _)) if ttl.expired(*since_ms, now_ms) => {
                if !ttl.returns_expired {
                    self.held.clear(context)?;
                    return Ok(None);
                }
            }
            Some(_) if ttl.renewed_by_reading => {
                if let Some((since_ms, _)) = self.held.get_mut(context)? {
                    *since_ms = now_ms;
                }
            }
            Some(_) => {}
        }
        Ok(self.held.get(context)?.map(|(_, value)| value))
    }

    /// Sets the current key's value; its time begins anew.
    pub fn set<C: StateAccess>(&self, context: &mut C, value: V) -> Result<()> {
        let now_ms = now_ms(context)?;
        self.sweep(context.keyed_state().1, now_ms)?;
        self.held.set(context, (now_ms, value))
    }

    /// Removes the current key's value.
    pub fn clear<C: StateAccess>(&self, context: &mut C) -> Result<()> {
        let now_ms = now_ms(context)?;
        self.sweep(context.keyed_state().1, now_ms)?;
        self.held.clear(context)
    }

    fn sweep<K: Key>(&self, store: &mut KeyedStore<K>, now_ms: i64) -> Result<()> {
        let ttl = self.ttl;
        let lapses = || Some(Box::new(move |(since_ms, _): &Timed<V>| ttl.lapses_ms(*since_ms)) as Lapses<Timed<V>>);
        let table = store.table_that_lapses(self.held.name, &self.held.slot, lapses)?;
        table.sweep(SWEPT_PER_ACCESS, |(since_ms, _)| ttl.expired(*since_ms, now_ms));
        Ok(())
    }
}

impl<V: Data> ExpiringListState<V> {
    /// The current key's elements, in the order they were added.
    pub fn get<C: StateAccess>(&self, context: &mut C) -> Result<Vec<V>> {
        let (ttl, now_ms) = (self.ttl, now_ms(context)?);
        self.sweep(context.keyed_state().1, now_ms)?;
        let mut held = self.held.take(context)?;
        let returned = held.iter().filter(|(since_ms, _)| ttl.returns(*since_ms, now_ms));
        let returned = returned.map(|(_, value)| value.clone()).collect();
        held.retain(|(since_ms, _)| !ttl.expired(*since_ms, now_ms));
        if ttl.renewed_by_reading {
            held.iter_mut().for_each(|(since_ms, _)| *since_ms = now_ms);
        }
        self.held.update(context, held)?;
        Ok(returned)
    }

    /// Appends to the current key's list.
    pub fn add<C: StateAccess>(&self, context: &mut C, value: V) -> Result<()> {
        let now_ms = now_ms(context)?;
        self.sweep(context.keyed_state().1, now_ms)?;
        self.held.add(context, (now_ms, value))
    }

    /// Replaces the current key's list.
    pub fn update<C: StateAccess>(&self, context: &mut C, values: Vec<V>) -> Result<()> {
        let now_ms = now_ms(context)?;
        self.sweep(context.keyed_state().1, now_ms)?;
        self.held.update(context, values.into_iter().map(|value| (now_ms, value)).collect())
    }

    /// Removes the current key's list.
    pub fn clear<C: StateAccess>(&self, context: &mut C) -> Result<()> {
        let now_ms = now_ms(context)?;
        self.sweep(context.keyed_state().1, now_ms)?;
        self.held.clear(context)
    }

    fn sweep<K: Key>(&self, store: &mut KeyedStore<K>, now_ms: i64) -> Result<()> {
        let ttl = self.ttl;
        let last = move |list: &Vec<Timed<V>>| list.iter().map(|(since_ms, _)| ttl.lapses_ms(*since_ms)).max();
        let lapses = || Some(Box::new(move |list: &Vec<Timed<V>>| last(list).unwrap_or(i64::MIN)) as Lapses<_>);
        let table = store.table_that_lapses::<Vec<Timed<V>>>(self.held.name, &self.held.slot, lapses)?;
        table.sweep(SWEPT_PER_ACCESS, |list| list.iter().all(|(since_ms, _)| ttl.expired(*since_ms, now_ms)));
        Ok(())
    }
}

impl<F: Key, V: Data> ExpiringMapState<F, V> {
    /// The value of a field of the current key's map.
    pub fn get<'c, C: StateAccess>(&self, context: &'c mut C, field: &F) -> Result<Option<&'c V>> {
        let (ttl, now_ms) = (self.ttl, now_ms(context)?);
        self.sweep(context.keyed_state().1, now_ms)?;
        match self.held.get(context, field)?.map(|(since_ms, _)| *since_ms) {
            None => return Ok(None),
            Some(since_ms) if !ttl.returns(since_ms, now_ms) => {
                self.held.remove(context, field)?;
                return Ok(None);
            }
            Some(since_ms) if ttl.renewed_by_reading && !ttl.expired(since_ms, now_ms) => {
                if let Some((_, value)) = self.held.remove(context, field)? {
                    self.held.put(context, field.clone(), (now_ms, value))?;
                }
            }
            Some(_) => {}
        }
        Ok(self.held.get(context, field)?.map(|(_, value)| value))
    }

    /// Sets a field of the current key's map; its time begins anew.
    pub fn put<C: StateAccess>(&self, context: &mut C, field: F, value: V) -> Result<()> {
        let now_ms = now_ms(context)?;
        self.prune(context, now_ms)?;
        self.held.put(context, field, (now_ms, value)).map(drop)
    }

    /// Removes a field of the current key's map.
    pub fn remove<C: StateAccess>(&self, context: &mut C, field: &F) -> Result<()> {
        let now_ms = now_ms(context)?;
        self.sweep(context.keyed_state().1, now_ms)?;
        self.held.remove(context, field).map(drop)
    }

    /// The fields and values of the current key's map, in no particular order.
    pub fn entries<'c, C: StateAccess>(&self, context: &'c mut C) -> Result<Vec<(&'c F, &'c V)>> {
        let (ttl, now_ms) = (self.ttl, now_ms(context)?);
        self.sweep(context.keyed_state().1, now_ms)?;
        let entries = self.held.entries(context)?.into_iter();
        let returned = entries.filter(|(_, (since_ms, _))| ttl.returns(*since_ms, now_ms));
        Ok(returned.map(|(field, (_, value))| (field, value)).collect())
    }

    /// Removes the current key's map.
    pub fn clear<C: StateAccess>(&self, context: &mut C) -> Result<()> {
        let now_ms = now_ms(context)?;
        self.sweep(context.keyed_state().1, now_ms)?;
        self.held.clear(context)
    }

    /// Removes a part of what has expired of other keys' maps.
    fn sweep<K: Key>(&self, store: &mut KeyedStore<K>, now_ms: i64) -> Result<()> {
        let ttl = self.ttl;
        let last =
            move |map: &FieldMap<F, Timed<V>>| map.0.values().map(|(since_ms, _)| ttl.lapses_ms(*since_ms)).max();
        let lapses = || Some(Box::new(move |map: &FieldMap<F, Timed<V>>| last(map).unwrap_or(i64::MIN)) as Lapses<_>);
        let table = store.table_that_lapses::<FieldMap<F, Timed<V>>>(self.held.name, &self.held.slot, lapses)?;
        table.sweep(SWEPT_PER_ACCESS, |map| map.0.values().all(|(since_ms, _)| ttl.expired(*since_ms, now_ms)));
        Ok(())
    }

    /// Removes what has expired of the current key's map, and of some other keys'.
    fn prune<C: StateAccess>(&self, context: &mut C, now_ms: i64) -> Result<()> {
        let ttl = self.ttl;
        let (key, store) = context.keyed_state();
        self.sweep(store, now_ms)?;
        let table = store.table::<FieldMap<F, Timed<V>>>(self.held.name, &self.held.slot)?;
        let expired = |map: &FieldMap<F, Timed<V>>| map.0.values().any(|(since_ms, _)| ttl.expired(*since_ms, now_ms));
        if table.get(key)?.is_some_and(expired)
            && let Some(map) = table.get_mut(key)?
        {
            map.0.retain(|_, (since_ms, _)| !ttl.expired(*since_ms, now_ms));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests/ttl.rs"]
mod tests;
