//! How often a row is written: at once when it was quiet, else once a tick, so that a busy row costs the server a bounded
//! number of updates and a quiet one no delay. Used by every function that keeps rows.

use tidemill::engine::key::Key;
use tidemill::prelude::*;

/// The end of bounded input has no processing time: what is still to be written is written at the end of event time.
const END_MS: i64 = tidemill::core::WATERMARK_MAX;

/// When the current key was written last, and whether it has changed since.
#[derive(Clone)]
pub struct Pace {
    /// (written at, changed since).
    state: ValueState<(i64, bool)>,
    tick_ms: i64,
}

impl Pace {
    /// At most one update of a key in `tick`.
    pub fn new(tick: Duration) -> Self {
        Pace { state: ValueState::new("pace"), tick_ms: tick.as_millis() as i64 }
    }

    /// The key has changed: whether to write it now. If not, a timer is set.
    pub fn changed<K: Key, O: 'static>(&self, context: &mut KeyedContext<'_, K, O>) -> Result<bool> {
        let now_ms = context.processing_time_ms();
        let (written_ms, pending) = self.state.get(context)?.copied().unwrap_or((i64::MIN, false));
        if pending {
            return Ok(false);
        }
        let next_ms = written_ms.saturating_add(self.tick_ms);
        let now = now_ms >= next_ms;
        if now {
            self.state.set(context, (now_ms, false))?;
        } else {
            self.state.set(context, (written_ms, true))?;
            context.register_processing_timer(next_ms);
            context.register_event_timer(END_MS);
        }
        Ok(now)
    }

    /// A timer of the key is due: whether it must be written now.
    pub fn due<K: Key, O: 'static>(&self, context: &mut KeyedContext<'_, K, O>) -> Result<bool> {
        let now_ms = context.processing_time_ms();
        let pending = self.state.get(context)?.is_some_and(|(_, pending)| *pending);
        if pending {
            self.state.set(context, (now_ms, false))?;
        }
        Ok(pending)
    }

    /// Forgets the key.
    pub fn clear<K: Key, O: 'static>(&self, context: &mut KeyedContext<'_, K, O>) -> Result<()> {
        context.delete_event_timer(END_MS);
        self.state.clear(context)
    }
}
