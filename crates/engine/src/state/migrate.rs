//! State whose type has changed: kept under a new name, and filled from what a state of another name and type has left.
//!
//! A state's name stands for its type: a new type wants a new name, and says how it comes about from the old one. The saved entries are written anew, one by one, when the new state is first used.

use std::any::TypeId;
use std::cell::Cell;
use std::sync::Arc;

use tidemill_core::{Data, Error, Result};

use super::decode::decode;
use super::encode::encode;
use super::keyed::{FieldMap, ListState, MapState, ValueState};
use super::reducing::{AggregatingState, ReducingState};
use super::shape::Shape;
use super::trace::shape_of;
use super::ttl::{ExpiringListState, ExpiringMapState, ExpiringValueState};
use super::{EntryShapes, RestoredSection, SectionBytes, SectionKind};
use crate::key::Key;
use crate::window::Aggregate;

/// Reads an old value from the beginning of some bytes, appends the new one to others, and tells how many it has read.
type Rewrite = dyn Fn(&[u8], &mut Vec<u8>) -> Result<usize, String> + Send + Sync;

/// The state another one comes from.
#[derive(Clone)]
pub(super) struct Before {
    pub name: &'static str,
    /// The shape of what it held.
    shape: fn() -> Option<Shape>,
    becomes: TypeId,
    rewrite: Arc<Rewrite>,
}

/// What a handle knows of its table: where it is among those of its store, and what fills it at a restore.
pub(super) struct Slot {
    pub at: Cell<usize>,
    pub before: Option<Before>,
}

impl Slot {
    pub const fn new() -> Self {
        Slot { at: Cell::new(usize::MAX), before: None }
    }
}

impl Clone for Slot {
    /// The copy looks for its table by itself.
    fn clone(&self) -> Self {
        Slot { before: self.before.clone(), ..Slot::new() }
    }
}

impl Before {
    /// Values of `Old` become values of `New`.
    fn new<Old: Data, New: Data>(name: &'static str, map: impl Fn(Old) -> New + Send + Sync + 'static) -> Self {
        let rewrite = move |from: &[u8], to: &mut Vec<u8>| {
            let (old, rest) = decode::<Old>(from)
                .map_err(|e| format!("does not hold values of type {}: {e}", std::any::type_name::<Old>()))?;
            encode(&map(old), to).map_err(|e| format!("becomes a value that cannot be written as bytes: {e}"))?;
            Ok(from.len() - rest.len())
        };
        Before { name, shape: shape_of::<Old>, becomes: TypeId::of::<New>(), rewrite: Arc::new(rewrite) }
    }

    /// An error if the old state was saved with other values than those of `Old`.
    pub fn check(&self, shapes: &EntryShapes, name: &str) -> Result<()> {
        let Some(Shape::Tuple(saved)) = shapes.get(SectionKind::Keyed, self.name) else { return Ok(()) };
        match (saved.get(1), (self.shape)()) {
            (Some(saved), Some(told)) if !told.reads(&saved.shape) => {
                Err(self.told(name, &format!("was saved as {}, and is told to be {told}", saved.shape)))
            }
            _ => Ok(()),
        }
    }

    fn told(&self, name: &str, what: &str) -> Error {
        Error::input(format!("state `{}`, from which `{name}` is to come, {what}", self.name))
            .hint("tell `migrated_from` the type the old state had")
    }

    /// A section of the old state as one of the new state `name`, whose table has values of `V`.
    pub fn section<K: Key, V: Data>(&self, old: &RestoredSection, name: &str) -> Result<RestoredSection> {
        if self.becomes != TypeId::of::<V>() {
            return Err(Error::input(format!("state `{name}` expires, and `{}` says nothing of when", self.name))
                .hint("tell `migrated_from` behind `with_ttl`, with the time each value was touched last"));
        }
        let told = |what: String| self.told(name, &what);
        let old_bytes = old.bytes()?;
        let mut bytes = Vec::with_capacity(old_bytes.len());
        if old.removal {
            bytes.extend_from_slice(&old_bytes);
        } else {
            let mut rest = &old_bytes[..];
            for _ in 0..old.entries {
                let (_, value) = decode::<K>(rest)
                    .map_err(|e| told(format!("does not have keys of type {}: {e}", std::any::type_name::<K>())))?;
                bytes.extend_from_slice(&rest[..rest.len() - value.len()]);
                rest = &value[(self.rewrite)(value, &mut bytes).map_err(told)?..];
            }
            if !rest.is_empty() {
                return Err(told(format!("has {} bytes behind its last value", rest.len())));
            }
        }
        Ok(RestoredSection { name: name.to_string(), bytes: SectionBytes::Here(Arc::new(bytes)), ..old.clone() })
    }
}

impl<V: Data> ValueState<V> {
    /// Fills this state from one that was called `name` and had values of another type. The operator must not use that name any
    /// more.
    ///
    /// ```
    /// # use tidemill_engine::state::ValueState;
    /// // The version before had `ValueState::<u64>::new("visits")`.
    /// let visits = ValueState::<(u64, Option<String>)>::new("visits-2").migrated_from("visits", |count: u64| (count, None));
    /// # drop(visits);
    /// ```
    ///
    /// Keep this as long as there may be checkpoints with the old state: subtasks that have not used the new one yet pass the
    /// old one on as it is (`tidemill state list` shows what a checkpoint holds).
    pub fn migrated_from<Old: Data>(
        mut self,
        name: &'static str,
        map: impl Fn(Old) -> V + Send + Sync + 'static,
    ) -> Self {
        self.slot.before = Some(Before::new(name, map));
        self
    }
}

impl<V: Data> ListState<V> {
    /// Fills this state from one that was called `name` and had elements of another type, as [`ValueState::migrated_from`].
    pub fn migrated_from<Old: Data>(
        mut self,
        name: &'static str,
        map: impl Fn(Old) -> V + Send + Sync + 'static,
    ) -> Self {
        let all = move |old: Vec<Old>| old.into_iter().map(&map).collect::<Vec<V>>();
        self.slot.before = Some(Before::new(name, all));
        self
    }
}

impl<F: Key, V: Data> MapState<F, V> {
    /// Fills this state from one that was called `name` and had fields and values of other types, as
    /// [`ValueState::migrated_from`].
    pub fn migrated_from<OldField: Key, Old: Data>(
        mut self,
        name: &'static str,
        map: impl Fn(OldField, Old) -> (F, V) + Send + Sync + 'static,
    ) -> Self {
        let all = move |old: FieldMap<OldField, Old>| FieldMap(old.0.into_iter().map(|(f, v)| map(f, v)).collect());
        self.slot.before = Some(Before::new(name, all));
        self
    }
}

impl<V: Data, F: FnMut(&mut V, V)> ReducingState<V, F> {
    /// Fills this state from one that was called `name` and had values of another type, as [`ValueState::migrated_from`].
    pub fn migrated_from<Old: Data>(
        mut self,
        name: &'static str,
        map: impl Fn(Old) -> V + Send + Sync + 'static,
    ) -> Self {
        self.held = self.held.migrated_from(name, map);
        self
    }
}

impl<T, A: Aggregate<T>> AggregatingState<T, A> {
    /// Fills this state from one that was called `name` and had accumulators of another type, as
    /// [`ValueState::migrated_from`].
    pub fn migrated_from<Old: Data>(
        mut self,
        name: &'static str,
        map: impl Fn(Old) -> A::Accumulator + Send + Sync + 'static,
    ) -> Self {
        self.held = self.held.migrated_from(name, map);
        self
    }
}

impl<V: Data> ExpiringValueState<V> {
    /// Fills this state from one that was called `name` and had values of another type, as [`ValueState::migrated_from`]. A
    /// value is told with the time it was touched last, ms since 1970; one of state that expired too comes with it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidemill_engine::state::{Ttl, ValueState};
    /// // The version before had `ValueState::<u32>::new("visits").with_ttl(…)`.
    /// let visits = ValueState::<u64>::new("visits-2")
    ///     .with_ttl(Ttl::new(Duration::from_secs(3600)))
    ///     .migrated_from("visits", |(touched_ms, count): (i64, u32)| (touched_ms, u64::from(count)));
    /// # drop(visits);
    /// ```
    pub fn migrated_from<Old: Data>(
        mut self,
        name: &'static str,
        map: impl Fn(Old) -> (i64, V) + Send + Sync + 'static,
    ) -> Self {
        self.held = self.held.migrated_from(name, map);
        self
    }
}

impl<V: Data> ExpiringListState<V> {
    /// Fills this state from one that was called `name` and had elements of another type, as
    /// [`ExpiringValueState::migrated_from`].
    pub fn migrated_from<Old: Data>(
        mut self,
        name: &'static str,
        map: impl Fn(Old) -> (i64, V) + Send + Sync + 'static,
    ) -> Self {
        self.held = self.held.migrated_from(name, map);
        self
    }
}

impl<F: Key, V: Data> ExpiringMapState<F, V> {
    /// Fills this state from one that was called `name` and had fields and values of other types, as
    /// [`ExpiringValueState::migrated_from`].
    pub fn migrated_from<OldField: Key, Old: Data>(
        mut self,
        name: &'static str,
        map: impl Fn(OldField, Old) -> (F, (i64, V)) + Send + Sync + 'static,
    ) -> Self {
        self.held = self.held.migrated_from(name, map);
        self
    }
}
