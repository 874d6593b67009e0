//! The end of a pipeline in the harness: keeps what arrives until the test takes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_core::{Data, Result, WATERMARK_MIN};

use crate::driver::Records;
use crate::operator::{Operator, Out};

/// What has arrived. Shared by the operator and the harness.
pub(super) struct Captured<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    records: Records<T>,
    watermark_ms: i64,
}

impl<T> Clone for Captured<T> {
    fn clone(&self) -> Self {
        Captured(self.0.clone())
    }
}

impl<T> Default for Captured<T> {
    fn default() -> Self {
        Captured(Arc::new(Mutex::new(State { records: Vec::new(), watermark_ms: WATERMARK_MIN })))
    }
}

impl<T> Captured<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(&self) -> Records<T> {
        std::mem::take(&mut self.lock().records)
    }

    pub fn watermark_ms(&self) -> i64 {
        self.lock().watermark_ms
    }
}

pub(super) struct Capture<T>(pub Captured<T>);

impl<T: Data> Operator<T, ()> for Capture<T> {
    fn on_batch(&mut self, batch: Records<T>, _out: &mut Out<()>) -> Result<()> {
        self.0.lock().records.extend(batch);
        Ok(())
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<()>) -> Result<()> {
        self.0.lock().watermark_ms = watermark_ms;
        out.watermark(watermark_ms)
    }
}
