//! What is made of the windows of a keyed stream, or of a whole stream.

use std::marker::PhantomData;
use std::ops::AddAssign;
use std::sync::Mutex;
use std::time::Duration;

use tidemill_core::{Data, Error, Result};

use super::data_stream::{DataStream, fresh};
use super::rolling::{extreme_by, extreme_field, sum};
use super::selector::KeySelector;
use crate::driver::build::TaskBuilder;
use crate::key::Key;
use crate::operator::{Operator, OutputTag};
use crate::window::count::CountWindows;
use crate::window::{
    Aggregate, Elements, Evicted, Evictor, ProcessWindowFunction, Reduce, Trigger, Triggered, Unnumbered, Window,
    WindowKind, WindowParts, general, millis,
};

/// A keyed stream with windows.
pub struct WindowedStream<T, K, F, W> {
    stream: DataStream<T>,
    selector: F,
    windows: W,
    allowed_lateness_ms: i64,
    late_tag: Option<&'static str>,
    parallelism_max: usize,
    key: PhantomData<fn() -> K>,
}

/// A whole stream with windows: one subtask sees all of it, and the key is `()`.
pub type AllWindowedStream<T, W> = WindowedStream<T, (), fn(&T), W>;

impl<T: Data> DataStream<T> {
    /// Windows over the whole stream, whatever the key; they run on one subtask.
    ///
    /// ```
    /// use tidemill_engine::Environment;
    /// use tidemill_engine::stream::WatermarkStrategy;
    /// use tidemill_engine::window::Tumbling;
    /// use std::time::Duration;
    /// let env = Environment::new();
    /// env.set_parallelism(1);
    /// let totals = env
    ///     .from_collection(vec![1, 5, 12])
    ///     .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamps(|n: &i64, _| *n))
    ///     .window_all(Tumbling::event_time(Duration::from_millis(10)))
    ///     .reduce_with(|sum, n| *sum += n, |_, window, sum| Some((window.end_ms, sum)))
    ///     .collect();
    /// env.execute("totals").unwrap();
    /// assert_eq!(totals.take(), [(10, 6), (20, 12)]);
    /// ```
    pub fn window_all<W: WindowKind<T>>(&self, windows: W) -> AllWindowedStream<T, W> {
        WindowedStream { parallelism_max: 1, ..WindowedStream::new(self.global(), (|_| ()) as fn(&T), windows) }
    }

    /// A window for every `size` records of the whole stream; what is left at the end never fires.
    pub fn count_window_all(&self, size: u64) -> AllWindowedStream<T, CountWindows> {
        self.window_all(CountWindows::tumbling(size))
    }

    /// For every `slide` records of the whole stream, a window over its last `size` records.
    pub fn sliding_count_window_all(&self, size: u64, slide: u64) -> AllWindowedStream<T, CountWindows> {
        self.window_all(CountWindows::sliding(size, slide))
    }
}

impl<T: Data, K: Key, F: KeySelector<T, K>, W: WindowKind<T>> WindowedStream<T, K, F, W> {
    pub(crate) fn new(stream: DataStream<T>, selector: F, windows: W) -> Self {
        WindowedStream {
            stream,
            selector,
            windows,
            allowed_lateness_ms: 0,
            late_tag: None,
            parallelism_max: usize::MAX,
            key: PhantomData,
        }
    }

    /// Keeps windows this long behind their end: a record that comes in time changes the result and emits it again.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.allowed_lateness_ms = millis(lateness);
        self
    }

    /// Sends records that come too late to this side output of the result, instead of dropping and counting them.
    pub fn side_output_late_data(mut self, tag: OutputTag<T>) -> Self {
        self.late_tag = Some(tag.name);
        self
    }

    /// Has windows fire when this trigger says so, instead of their own.
    pub fn trigger<G: Trigger<T>>(self, trigger: G) -> WindowedStream<T, K, F, Triggered<W, G>> {
        self.with_kind(|kind| Triggered { kind, trigger })
    }

    /// Has windows fire without the records this evictor removes. They keep all their records then.
    pub fn evictor<E: Evictor<T>>(self, evictor: E) -> WindowedStream<T, K, F, Evicted<W, E>> {
        self.with_kind(|kind| Evicted { kind, evictor })
    }

    fn with_kind<V>(self, change: impl FnOnce(W) -> V) -> WindowedStream<T, K, F, V> {
        WindowedStream {
            stream: self.stream,
            selector: self.selector,
            windows: change(self.windows),
            allowed_lateness_ms: self.allowed_lateness_ms,
            late_tag: self.late_tag,
            parallelism_max: self.parallelism_max,
            key: PhantomData,
        }
    }

    /// Adds the operator that `make` makes of window kind and parts.
    fn add<A: Aggregate<T>, G: Clone + Send + 'static, O: Data>(
        self,
        aggregate: A,
        emit: G,
        make: impl Fn(W, WindowParts<F, A, G>) -> Box<dyn Operator<T, O>> + Send + Sync + 'static,
    ) -> DataStream<O> {
        let name = self.windows.name();
        let (allowed_lateness_ms, late_tag) = (self.allowed_lateness_ms, self.late_tag);
        let functions = Mutex::new((self.windows, self.selector, aggregate, emit));
        let operator = move |builder: &mut TaskBuilder<'_, '_>, node| -> Result<_> {
            let (windows, selector, aggregate, emit) = fresh(&functions);
            windows.check()?;
            if windows.merges() && !windows.trigger().can_merge() {
                return Err(Error::input("windows that merge were given a trigger that cannot merge")
                    .hint("use another trigger; session windows cannot have a delta or timeout trigger"));
            }
            let context = builder.runtime_context(node);
            Ok(make(windows, WindowParts { selector, aggregate, emit, allowed_lateness_ms, late_tag, context }))
        };
        self.stream.add_operator(name, operator).set_parallelism_max(self.parallelism_max)
    }

    /// The result of a running aggregation for each key and window.
    pub fn aggregate<A: Aggregate<T>>(self, aggregate: A) -> DataStream<A::Output> {
        self.aggregate_with(aggregate, |_: &K, _, result| Some(result))
    }

    /// Like `aggregate`, with key and window at hand when the result is there.
    pub fn aggregate_with<A: Aggregate<T>, O: Data, I: IntoIterator<Item = O> + 'static>(
        self,
        aggregate: A,
        emit: impl FnMut(&K, Window, A::Output) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        self.add(aggregate, emit, |windows, parts| windows.operator::<K, O, _, _, _, I>(parts))
    }

    /// Like `aggregate`, with a process function that gets the result: only the running value is kept.
    pub fn aggregate_process<A: Aggregate<T>, O: Data>(
        self,
        aggregate: A,
        function: impl ProcessWindowFunction<K, A::Output, O>,
    ) -> DataStream<O> {
        self.add(aggregate, function, general::operator)
    }

    /// Folds each record of a key and window into the first one, in place, as `KeyedStream::reduce` does.
    pub fn reduce(self, function: impl FnMut(&mut T, T) + Clone + Send + 'static) -> DataStream<T> {
        self.aggregate(Reduce(function))
    }

    /// The same for a function that only looks at the record.
    fn look_and_reduce(self, mut function: impl FnMut(&mut T, &mut T) + Clone + Send + 'static) -> DataStream<T> {
        self.reduce(move |held, mut record| function(held, &mut record))
    }

    /// Like `reduce`, with key and window at hand when the result is there.
    pub fn reduce_with<O: Data, I: IntoIterator<Item = O> + 'static>(
        self,
        function: impl FnMut(&mut T, T) + Clone + Send + 'static,
        emit: impl FnMut(&K, Window, T) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        self.aggregate_with(Reduce(function), emit)
    }

    /// Like `reduce`, with a process function that gets the result.
    pub fn reduce_process<O: Data>(
        self,
        function: impl FnMut(&mut T, T) + Clone + Send + 'static,
        process: impl ProcessWindowFunction<K, T, O>,
    ) -> DataStream<O> {
        self.aggregate_process(Reduce(function), process)
    }

    /// All records of each key and window, in the order they came. They are kept until the window ends: prefer a running
    /// aggregation where one will do.
    pub fn apply<O: Data, I: IntoIterator<Item = O> + 'static>(
        self,
        function: impl FnMut(&K, Window, Vec<T>) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        if self.windows.comes_in_parts() {
            self.aggregate_with(Elements::<u64>::default(), function)
        } else {
            self.aggregate_with(Elements::<Unnumbered>::default(), function)
        }
    }

    /// Like `apply`, with a function that also sees times, state and side outputs.
    pub fn process<O: Data>(self, function: impl ProcessWindowFunction<K, Vec<T>, O>) -> DataStream<O> {
        if self.windows.comes_in_parts() {
            self.aggregate_process(Elements::<u64>::default(), function)
        } else {
            self.aggregate_process(Elements::<Unnumbered>::default(), function)
        }
    }

    /// The sum of a field; the other fields are those of the first record.
    pub fn sum<N: AddAssign + Copy + 'static>(
        self,
        field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    ) -> DataStream<T> {
        self.look_and_reduce(sum(field))
    }

    /// The smallest value of a field; the other fields are those of the first record.
    pub fn min<N: PartialOrd + Copy + 'static>(
        self,
        field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    ) -> DataStream<T> {
        self.look_and_reduce(extreme_field(field, |new, held| new < held))
    }

    /// The largest value of a field; the other fields are those of the first record.
    pub fn max<N: PartialOrd + Copy + 'static>(
        self,
        field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    ) -> DataStream<T> {
        self.look_and_reduce(extreme_field(field, |new, held| new > held))
    }

    /// The whole record with the smallest value; of equals the first.
    pub fn min_by<N: PartialOrd + 'static>(self, by: impl FnMut(&T) -> N + Clone + Send + 'static) -> DataStream<T> {
        self.look_and_reduce(extreme_by(by, |new, held| new < held))
    }

    /// The whole record with the largest value; of equals the first.
    pub fn max_by<N: PartialOrd + 'static>(self, by: impl FnMut(&T) -> N + Clone + Send + 'static) -> DataStream<T> {
        self.look_and_reduce(extreme_by(by, |new, held| new > held))
    }
}
