//! The keys that have something in a state: what a function may walk over when no key is current.

use tidemill_core::{Data, Result};

use super::keyed::{FieldMap, KeyedStore, ListState, MapState, ValueState};
use crate::key::Key;

/// A handle on one state of a keyed operator, whatever it holds for a key.
pub trait KeyedState {
    /// The keys of this subtask that have something in the state, in no particular order.
    fn keys<K: Key>(&self, store: &mut KeyedStore<K>) -> Result<Vec<K>>;
}

impl<V: Data> KeyedState for ValueState<V> {
    fn keys<K: Key>(&self, store: &mut KeyedStore<K>) -> Result<Vec<K>> {
        store.table::<V>(self.name, &self.slot)?.keys()
    }
}

impl<V: Data> KeyedState for ListState<V> {
    fn keys<K: Key>(&self, store: &mut KeyedStore<K>) -> Result<Vec<K>> {
        store.table::<Vec<V>>(self.name, &self.slot)?.keys()
    }
}

impl<F: Key, V: Data> KeyedState for MapState<F, V> {
    fn keys<K: Key>(&self, store: &mut KeyedStore<K>) -> Result<Vec<K>> {
        store.table::<FieldMap<F, V>>(self.name, &self.slot)?.keys()
    }
}
