//! A stream divided by key: rolling reductions, process functions, windows.

use std::ops::AddAssign;
use std::sync::Mutex;

use tidemill_core::{Data, Result};

use super::data_stream::{DataStream, fresh};
use super::keyed_process::{KeyedContext, KeyedProcessFunction, KeyedProcessOperator};
use super::rolling::{self, Fold, Looking, Taking, extreme_by, extreme_field, sum};
use super::selector::KeySelector;
use super::windowed::WindowedStream;
use crate::key::Key;
use crate::state::ValueState;
use crate::window::WindowKind;
use crate::window::count::CountWindows;

/// A stream divided by key. `K` is the key, `F` the function that takes it from a record.
pub struct KeyedStream<T, K, F> {
    pub(crate) stream: DataStream<T>,
    pub(crate) selector: F,
    key: std::marker::PhantomData<fn() -> K>,
}

impl<T: Data, K: Key, F: KeySelector<T, K>> KeyedStream<T, K, F> {
    pub(crate) fn new(stream: DataStream<T>, selector: F) -> Self {
        KeyedStream { stream, selector, key: std::marker::PhantomData }
    }

    /// A function with keyed state, timers and side outputs.
    pub fn process<O: Data>(&self, function: impl KeyedProcessFunction<K, T, O>) -> DataStream<O> {
        self.named_process("Keyed Process", function)
    }

    fn named_process<O: Data>(&self, name: &str, function: impl KeyedProcessFunction<K, T, O>) -> DataStream<O> {
        let both = Mutex::new((self.selector.clone(), function));
        self.stream.add_operator(name, move |builder, node| {
            let (selector, function) = fresh(&both);
            Ok(KeyedProcessOperator::new(selector, function, builder.runtime_context(node)))
        })
    }

    fn rolling(&self, name: &str, fold: impl Fold<T>) -> DataStream<T> {
        let both = Mutex::new((self.selector.clone(), fold));
        self.stream.add_operator(name, move |builder, node| {
            let (selector, fold) = fresh(&both);
            Ok(rolling::operator(selector, fold, builder.runtime_context(node)))
        })
    }

    /// Folds each record into its key's value so far, in place, and emits the result. The first record is the first value.
    ///
    /// ```
    /// let env = tidemill_engine::Environment::new();
    /// let texts = env.from_collection(vec![("a".to_string(), "x".to_string()), ("a".to_string(), "y".to_string())]);
    /// let joined = texts.key_by(|(key, _)| key.clone()).reduce(|(_, held), (_, next)| held.push_str(&next)).collect();
    /// env.execute("texts so far").unwrap();
    /// assert_eq!(joined.take(), [("a".into(), "x".into()), ("a".into(), "xy".to_string())]);
    /// ```
    pub fn reduce(&self, function: impl FnMut(&mut T, T) + Clone + Send + 'static) -> DataStream<T> {
        self.rolling("Keyed Reduce", Taking::new(function))
    }

    /// The running sum of a field; the other fields are those of the key's first record.
    pub fn sum<N: AddAssign + Copy + 'static>(
        &self,
        field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    ) -> DataStream<T> {
        self.rolling("Keyed Sum", Looking(sum(field)))
    }

    /// The smallest value of a field so far; the other fields are those of the key's first record.
    pub fn min<N: PartialOrd + Copy + 'static>(
        &self,
        field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    ) -> DataStream<T> {
        self.rolling("Keyed Min", Looking(extreme_field(field, |new, held| new < held)))
    }

    /// The largest value of a field so far; the other fields are those of the key's first record.
    pub fn max<N: PartialOrd + Copy + 'static>(
        &self,
        field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    ) -> DataStream<T> {
        self.rolling("Keyed Max", Looking(extreme_field(field, |new, held| new > held)))
    }

    /// The whole record with the smallest value so far; of equals the first.
    pub fn min_by<N: PartialOrd + 'static>(&self, by: impl FnMut(&T) -> N + Clone + Send + 'static) -> DataStream<T> {
        self.rolling("Keyed MinBy", Looking(extreme_by(by, |new, held| new < held)))
    }

    /// The whole record with the largest value so far; of equals the first.
    pub fn max_by<N: PartialOrd + 'static>(&self, by: impl FnMut(&T) -> N + Clone + Send + 'static) -> DataStream<T> {
        self.rolling("Keyed MaxBy", Looking(extreme_by(by, |new, held| new > held)))
    }

    /// A flat map with one value of state for each key, absent at first; leaving it `None` removes it.
    pub fn flat_map_with_state<S: Data, O: Data, I: IntoIterator<Item = O>>(
        &self,
        function: impl FnMut(T, &mut Option<S>) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        self.named_process("Flat Map with state", WithState { state: ValueState::new("state"), function })
    }

    /// Windows: `Tumbling`, `Sliding`, `Session`, `GlobalWindows`.
    pub fn window<W: WindowKind<T>>(&self, windows: W) -> WindowedStream<T, K, F, W> {
        WindowedStream::new(self.stream.clone(), self.selector.clone(), windows)
    }

    /// A window for every `size` records of a key; what is left at the end never fires.
    pub fn count_window(&self, size: u64) -> WindowedStream<T, K, F, CountWindows> {
        self.window(CountWindows::tumbling(size))
    }

    /// For every `slide` records of a key, a window over its last `size` records.
    pub fn sliding_count_window(&self, size: u64, slide: u64) -> WindowedStream<T, K, F, CountWindows> {
        self.window(CountWindows::sliding(size, slide))
    }
}

struct WithState<S, G> {
    state: ValueState<S>,
    function: G,
}

impl<S, G: Clone> Clone for WithState<S, G> {
    fn clone(&self) -> Self {
        WithState { state: self.state.clone(), function: self.function.clone() }
    }
}

impl<K: Key, T: Data, S: Data, O: Data, I, G> KeyedProcessFunction<K, T, O> for WithState<S, G>
where
    I: IntoIterator<Item = O>,
    G: FnMut(T, &mut Option<S>) -> I + Clone + Send + 'static,
{
    fn process(&mut self, value: T, context: &mut KeyedContext<'_, K, O>) -> Result<()> {
        let mut held = self.state.take(context)?;
        let results = (self.function)(value, &mut held);
        if let Some(state) = held {
            self.state.set(context, state)?;
        }
        results.into_iter().try_for_each(|result| context.emit(result))
    }
}
