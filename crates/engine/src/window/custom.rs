//! Window kinds with another trigger or an evictor than their own. Having one is what chooses the general operator: these
//! kinds leave `WindowKind::operator` as it is, while the kinds inside them bring faster ones.

use tidemill_core::{Data, Result};

use super::evictor::{AnyEvictor, Evictor};
use super::{Trigger, Window, WindowKind};

/// A window kind with another trigger.
#[derive(Clone)]
pub struct Triggered<W, G> {
    pub(crate) kind: W,
    pub(crate) trigger: G,
}

/// A window kind with another evictor.
#[derive(Clone)]
pub struct Evicted<W, E> {
    pub(crate) kind: W,
    pub(crate) evictor: E,
}

impl<T: Data, W: WindowKind<T>, G: Trigger<T>> WindowKind<T> for Triggered<W, G> {
    type Trigger = G;

    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn check(&self) -> Result<()> {
        self.kind.check()
    }

    fn is_event_time(&self) -> bool {
        self.kind.is_event_time()
    }

    fn merges(&self) -> bool {
        self.kind.merges()
    }

    fn assign(&mut self, value: &T, time_ms: i64, windows: &mut Vec<Window>) -> Result<()> {
        self.kind.assign(value, time_ms, windows)
    }

    fn trigger(&self) -> G {
        self.trigger.clone()
    }

    fn evictor(&self) -> Option<Box<dyn AnyEvictor<T>>> {
        self.kind.evictor()
    }
}

impl<T: Data, W: WindowKind<T>, E: Evictor<T>> WindowKind<T> for Evicted<W, E> {
    type Trigger = W::Trigger;

    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn check(&self) -> Result<()> {
        self.kind.check()
    }

    fn is_event_time(&self) -> bool {
        self.kind.is_event_time()
    }

    fn merges(&self) -> bool {
        self.kind.merges()
    }

    fn assign(&mut self, value: &T, time_ms: i64, windows: &mut Vec<Window>) -> Result<()> {
        self.kind.assign(value, time_ms, windows)
    }

    fn trigger(&self) -> W::Trigger {
        self.kind.trigger()
    }

    fn evictor(&self) -> Option<Box<dyn AnyEvictor<T>>> {
        Some(Box::new(self.evictor.clone()))
    }
}
