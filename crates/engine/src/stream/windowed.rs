//! What is made of the windows of a keyed stream.

use std::sync::Mutex;
use std::time::Duration;

use std::ops::AddAssign;

use tidemill_core::{Data, Result};

use super::data_stream::{DataStream, fresh};
use super::rolling::{extreme_by, extreme_field, sum};
use crate::key::Key;
use crate::operator::OutputTag;
use crate::window::{Aggregate, Elements, Reduce, Window, WindowKind, WindowParts};

/// A keyed stream with windows.
pub struct WindowedStream<T, K, F, W> {
    stream: DataStream<T>,
    selector: F,
    windows: W,
    allowed_lateness_ms: i64,
    late_tag: Option<&'static str>,
    key: std::marker::PhantomData<fn() -> K>,
}

impl<T: Data, K: Key, F: FnMut(&T) -> K + Clone + Send + 'static, W: WindowKind<T>> WindowedStream<T, K, F, W> {
    pub(crate) fn new(stream: DataStream<T>, selector: F, windows: W) -> Self {
        WindowedStream {
            stream,
            selector,
            windows,
            allowed_lateness_ms: 0,
            late_tag: None,
            key: std::marker::PhantomData,
        }
    }

    /// Keeps windows this long behind their end: a record that comes in time changes the result and emits it again.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.allowed_lateness_ms = lateness.as_millis() as i64;
        self
    }

    /// Sends records that come too late to this side output of the result, instead of dropping and counting them.
    pub fn side_output_late_data(mut self, tag: OutputTag<T>) -> Self {
        self.late_tag = Some(tag.name);
        self
    }

    /// The result of a running aggregation for each key and window.
    pub fn aggregate<A: Aggregate<T>>(self, aggregate: A) -> DataStream<A::Output> {
        self.aggregate_with(aggregate, |_: &K, _, result| Some(result))
    }

    /// Like `aggregate`, with key and window at hand when the result is there.
    pub fn aggregate_with<A: Aggregate<T>, O: Data, I: IntoIterator<Item = O>>(
        self,
        aggregate: A,
        emit: impl FnMut(&K, Window, A::Output) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        let name = self.windows.name();
        let (allowed_lateness_ms, late_tag) = (self.allowed_lateness_ms, self.late_tag);
        let functions = Mutex::new((self.windows, self.selector, aggregate, emit));
        self.stream.add_operator(name, move |builder, node| -> Result<_> {
            let (windows, selector, aggregate, emit) = fresh(&functions);
            windows.check()?;
            let clock = builder.runtime_context(node).clock;
            Ok(windows.operator::<K, O, _, _, _, I>(WindowParts {
                selector,
                aggregate,
                emit,
                allowed_lateness_ms,
                late_tag,
                clock,
            }))
        })
    }

    /// Folds each record of a key and window into the first one, in place, as `KeyedStream::reduce` does.
    pub fn reduce(self, function: impl FnMut(&mut T, T) + Clone + Send + 'static) -> DataStream<T> {
        self.aggregate(Reduce(function))
    }

    /// Like `reduce`, with key and window at hand when the result is there.
    pub fn reduce_with<O: Data, I: IntoIterator<Item = O>>(
        self,
        function: impl FnMut(&mut T, T) + Clone + Send + 'static,
        emit: impl FnMut(&K, Window, T) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        self.aggregate_with(Reduce(function), emit)
    }

    /// All records of each key and window, in the order they came. They are kept until the window ends: prefer a running
    /// aggregation where one will do.
    pub fn apply<O: Data, I: IntoIterator<Item = O>>(
        self,
        function: impl FnMut(&K, Window, Vec<T>) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        self.aggregate_with(Elements::default(), function)
    }

    /// The sum of a field; the other fields are those of the first record.
    pub fn sum<N: AddAssign + Copy + 'static>(
        self,
        field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    ) -> DataStream<T> {
        self.reduce(sum(field))
    }

    /// The smallest value of a field; the other fields are those of the first record.
    pub fn min<N: PartialOrd + Copy + 'static>(
        self,
        field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    ) -> DataStream<T> {
        self.reduce(extreme_field(field, |new, held| new < held))
    }

    /// The largest value of a field; the other fields are those of the first record.
    pub fn max<N: PartialOrd + Copy + 'static>(
        self,
        field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    ) -> DataStream<T> {
        self.reduce(extreme_field(field, |new, held| new > held))
    }

    /// The whole record with the smallest value; of equals the first.
    pub fn min_by<N: PartialOrd + 'static>(self, by: impl FnMut(&T) -> N + Clone + Send + 'static) -> DataStream<T> {
        self.reduce(extreme_by(by, |new, held| new < held))
    }

    /// The whole record with the largest value; of equals the first.
    pub fn max_by<N: PartialOrd + 'static>(self, by: impl FnMut(&T) -> N + Clone + Send + 'static) -> DataStream<T> {
        self.reduce(extreme_by(by, |new, held| new > held))
    }
}
