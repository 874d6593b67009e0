//! What a user makes of a window's result, with a context: time, state, side outputs.

use std::marker::PhantomData;

use tidemill_core::{Data, Error, Result};

use super::{Window, WindowKey};
use crate::key::Key;
use crate::operator::{Out, OutputTag};
use crate::state::{KeyedStore, StateAccess};
use crate::stream::RuntimeContext;

/// A function on the windows of a keyed stream (Flink's `ProcessWindowFunction`). `R` is what it is given: all records of
/// the window as a `Vec<T>`, or the result of a running aggregation, which keeps nothing else.
///
/// State handles such as `ValueState` are its fields. `context.window_state()` is of the current key and window and should be
/// cleared in `clear`; `context.global_state()` is of the key in all its windows.
///
/// ```
/// use std::time::Duration;
/// use tidemill_core::Result;
/// use tidemill_engine::Environment;
/// use tidemill_engine::state::ValueState;
/// use tidemill_engine::stream::WatermarkStrategy;
/// use tidemill_engine::window::{Count, ProcessWindowFunction, Tumbling, WindowContext};
///
/// /// Numbers the windows of each key and tells how many records each had.
/// #[derive(Clone)]
/// struct Numbered(ValueState<u64>);
///
/// impl ProcessWindowFunction<char, u64, String> for Numbered {
///     fn process(&mut self, count: u64, context: &mut WindowContext<'_, char, String>) -> Result<()> {
///         let number = self.0.get(context.global_state())?.copied().unwrap_or(0) + 1;
///         self.0.set(context.global_state(), number)?;
///         let line = format!("{}{number} until {}: {count}", context.key(), context.window().end_ms);
///         context.emit(line)
///     }
/// }
///
/// let env = Environment::new();
/// env.set_parallelism(1);
/// let lines = env
///     .from_collection(vec![('a', 1), ('a', 2), ('a', 15)])
///     .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamps(|r: &(char, i64), _| r.1))
///     .key_by(|record| record.0)
///     .window(Tumbling::event_time(Duration::from_millis(10)))
///     .aggregate_process(Count, Numbered(ValueState::new("windows")))
///     .collect();
/// env.execute("numbered windows").unwrap();
/// assert_eq!(lines.take(), ["a1 until 10: 2", "a2 until 20: 1"]);
/// ```
pub trait ProcessWindowFunction<K: Key, R, O>: Clone + Send + 'static {
    /// Before the first window of the subtask. No key is current here.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// A window of a key fires.
    fn process(&mut self, result: R, context: &mut WindowContext<'_, K, O>) -> Result<()>;

    /// A window of a key is over, behind its allowed lateness: the place to clear its state.
    fn clear(&mut self, context: &mut WindowContext<'_, K, O>) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// After the last window of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a window function sees beside the result: key, window, time, state; and where it puts results.
pub struct WindowContext<'a, K, O> {
    pub(super) state: WindowState<'a, K>,
    pub(super) window: Window,
    /// The event time of what is emitted.
    pub(super) timestamp_ms: i64,
    pub(super) merges: bool,
    pub(super) watermark_ms: i64,
    pub(super) processing_time_ms: i64,
    pub(super) out: &'a mut Out<O>,
}

impl<'a, K: Key, O: 'static> WindowContext<'a, K, O> {
    /// The current key.
    pub fn key(&self) -> &K {
        &self.state.at.key
    }

    /// The window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// How far event time has come.
    pub fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// The job's clock.
    pub fn processing_time_ms(&self) -> i64 {
        self.processing_time_ms
    }

    /// State of the current key and window. It is an error with windows that merge, whose state would be torn apart.
    pub fn window_state(&mut self) -> Result<&mut WindowState<'a, K>> {
        if self.merges {
            return Err(Error::input("state of a window was asked for, but session windows merge and cannot have any")
                .hint("use the global state of the key"));
        }
        self.state.at.window = Some(self.window);
        Ok(&mut self.state)
    }

    /// State of the current key in all its windows.
    pub fn global_state(&mut self) -> &mut WindowState<'a, K> {
        self.state.at.window = None;
        &mut self.state
    }

    /// Emits a result. Its event time is the window's last millisecond, so that windows of the same size on the results
    /// hold them together again.
    pub fn emit(&mut self, value: O) -> Result<()> {
        self.out.emit(self.timestamp_ms, value)
    }

    /// Emits to a side output, with the same event time.
    pub fn side_output<S: Data>(&mut self, tag: OutputTag<S>, value: S) -> Result<()> {
        self.out.side(&tag, self.timestamp_ms, value)
    }
}

/// State of a key, in one window or in all of them; state handles take it as their context.
pub struct WindowState<'a, K> {
    pub(super) at: &'a mut WindowKey<K>,
    pub(super) store: &'a mut KeyedStore<WindowKey<K>>,
}

impl<K: Key> StateAccess for WindowState<'_, K> {
    type Key = WindowKey<K>;

    fn keyed_state(&mut self) -> (&WindowKey<K>, &mut KeyedStore<WindowKey<K>>) {
        (self.at, self.store)
    }
}

/// A closure as a window function.
pub(super) struct Apply<F, I> {
    pub function: F,
    pub results: PhantomData<fn() -> I>,
}

impl<F: Clone, I> Clone for Apply<F, I> {
    fn clone(&self) -> Self {
        Apply { function: self.function.clone(), results: PhantomData }
    }
}

impl<K, R, O, F, I> ProcessWindowFunction<K, R, O> for Apply<F, I>
where
    K: Key,
    O: 'static,
    F: FnMut(&K, Window, R) -> I + Clone + Send + 'static,
    I: IntoIterator<Item = O> + 'static,
{
    fn process(&mut self, result: R, context: &mut WindowContext<'_, K, O>) -> Result<()> {
        let results = (self.function)(&context.state.at.key, context.window, result);
        results.into_iter().try_for_each(|result| context.emit(result))
    }
}
