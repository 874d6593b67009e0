//! One window for all of time.

use tidemill_core::{Data, Result};

use super::{DefaultTrigger, Window, WindowKind};

/// Puts all records of a key into one window that never ends, so nothing is ever late. It fires only by a trigger, and its
/// results carry the time of what made it fire: the record's, or the timer's.
///
/// ```
/// use tidemill_engine::Environment;
/// use tidemill_engine::window::{CountTrigger, GlobalWindows};
/// let env = Environment::new();
/// env.set_parallelism(1);
/// let sums = env.from_collection(vec![1, 2, 3, 4, 5]).window_all(GlobalWindows::new());
/// let sums = sums.trigger(CountTrigger::of(2)).reduce(|sum, n| *sum += n).collect();
/// env.execute("sums so far").unwrap();
/// assert_eq!(sums.take(), [3, 10]);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct GlobalWindows {
    at_end: bool,
}

impl GlobalWindows {
    /// Never fires without a trigger.
    pub fn new() -> Self {
        GlobalWindows { at_end: false }
    }

    /// Fires once, when event time has come to its end: at the end of bounded input.
    pub fn with_end_of_stream_trigger() -> Self {
        GlobalWindows { at_end: true }
    }
}

impl<T: Data> WindowKind<T> for GlobalWindows {
    type Trigger = DefaultTrigger;

    fn name(&self) -> &'static str {
        "Global Window"
    }

    fn is_event_time(&self) -> bool {
        false
    }

    fn assign(&mut self, _: &T, _: i64, windows: &mut Vec<Window>) -> Result<()> {
        windows.push(Window::GLOBAL);
        Ok(())
    }

    fn trigger(&self) -> DefaultTrigger {
        if self.at_end { DefaultTrigger::EventTime } else { DefaultTrigger::Never }
    }
}
