//! Asynchronous calls from a stream (Flink's `AsyncDataStream`): look up each record outside without holding up the worker.
//!
//! A call is a future, or anything that blocks, on a few threads of the operator's own (`async_io_pool`). Calls under way are
//! bounded by the capacity; then the operator takes no more, which is felt up to the sources. Results come in the order of
//! their inputs, or as they are finished; a watermark never overtakes a record, nor a record a watermark. What is under way
//! at a checkpoint is saved as its input and called again after a restore, so a call may happen more than once.
//!
//! A future that needs an async runtime brings it: hand it to that runtime and return its handle, for example
//! `let task = tokio_handle.spawn(call(value)); async move { task.await.map_err(…)? }`.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tidemill_core::{Data, Error, Result};

use super::async_io_pool::{AsyncResult, Pool};
use super::async_io_queue::{Calls, Next, State};
use super::data_stream::{DataStream, fresh};
use super::process::RuntimeContext;
use crate::driver::Records;
use crate::operator::{Operator, Out, SnapshotParts};
use crate::state::{Restored, SectionKind, Writer};

/// Calls under way in one subtask unless the options say otherwise, as in Flink.
pub const ASYNC_CAPACITY: usize = 100;

/// An asynchronous function from a record to any number of results. One copy runs on each subtask. A closure that returns
/// a future of `Result<impl IntoIterator<Item = O>>`, such as `Ok(Some(result))`, is one.
pub trait AsyncFunction<I, O>: Clone + Send + 'static {
    /// Before the first call of the subtask.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// Begins a call. What it returns runs on the operator's threads.
    fn invoke(&mut self, value: I) -> AsyncResult<O>;

    /// A call, with its retries, took longer than the time-out. The default is an error, which fails the job; results
    /// returned instead take the place of the call's.
    fn timeout(&mut self, value: I) -> Result<Vec<O>> {
        let _ = value;
        Err(Error::external("an asynchronous call was not answered in time"))
    }

    /// After the last call of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<I, O, F, C, R> AsyncFunction<I, O> for F
where
    F: FnMut(I) -> C + Clone + Send + 'static,
    C: Future<Output = Result<R>> + Send + 'static,
    R: IntoIterator<Item = O>,
{
    fn invoke(&mut self, value: I) -> AsyncResult<O> {
        let call = self(value);
        Box::pin(async move { call.await.map(|results| results.into_iter().collect()) })
    }
}

/// How long to wait before a call is tried again.
#[derive(Debug, Clone, Copy)]
enum Pause {
    Fixed(i64),
    Exponential { first_ms: i64, most_ms: i64, factor: f64 },
}

/// Says yes or no to a `T`.
type Predicate<T> = dyn Fn(&T) -> bool + Send + Sync;

/// Which calls are tried again, how often and after how long. Without a predicate none is.
pub struct AsyncRetry<O> {
    retries_max: u32,
    pause: Pause,
    on_error: Arc<Predicate<Error>>,
    on_result: Arc<Predicate<[O]>>,
}

impl<O> Clone for AsyncRetry<O> {
    fn clone(&self) -> Self {
        let (on_error, on_result) = (self.on_error.clone(), self.on_result.clone());
        AsyncRetry { retries_max: self.retries_max, pause: self.pause, on_error, on_result }
    }
}

impl<O> AsyncRetry<O> {
    fn new(retries_max: u32, pause: Pause) -> Self {
        AsyncRetry { retries_max, pause, on_error: Arc::new(|_| false), on_result: Arc::new(|_| false) }
    }

    /// At most `retries_max` times behind the first, each after `pause`.
    pub fn fixed_delay(retries_max: u32, pause: Duration) -> Self {
        Self::new(retries_max, Pause::Fixed(pause.as_millis() as i64))
    }

    /// At most `retries_max` times behind the first, after `first`, then `factor` times as long, and at most `most`.
    pub fn exponential(retries_max: u32, first: Duration, most: Duration, factor: f64) -> Self {
        let (first_ms, most_ms) = (first.as_millis() as i64, most.as_millis() as i64);
        Self::new(retries_max, Pause::Exponential { first_ms, most_ms, factor })
    }

    /// Tries again after an error for which the predicate says true.
    pub fn if_error(mut self, predicate: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.on_error = Arc::new(predicate);
        self
    }

    /// Tries again after results for which the predicate says true.
    pub fn if_result(mut self, predicate: impl Fn(&[O]) -> bool + Send + Sync + 'static) -> Self {
        self.on_result = Arc::new(predicate);
        self
    }

    /// The pause before the retry behind `retries` others; `None` when the outcome stands.
    fn pause_ms(&self, outcome: &Result<Vec<O>>, retries: u32) -> Option<i64> {
        let again = match outcome {
            Ok(results) => (self.on_result)(results),
            Err(error) => (self.on_error)(error),
        };
        if !again || retries >= self.retries_max {
            return None;
        }
        Some(match self.pause {
            Pause::Fixed(ms) => ms,
            Pause::Exponential { first_ms, most_ms, factor } => {
                (first_ms as f64 * factor.powi(retries as i32)).min(most_ms as f64) as i64
            }
        })
    }
}

/// How asynchronous calls are made.
pub struct AsyncOptions<O> {
    timeout_ms: Option<i64>,
    capacity: usize,
    threads: usize,
    retry: Option<AsyncRetry<O>>,
}

impl<O> Clone for AsyncOptions<O> {
    fn clone(&self) -> Self {
        AsyncOptions { retry: self.retry.clone(), ..*self }
    }
}

impl<O> AsyncOptions<O> {
    /// A call, with its retries, may take this long by the job's clock; zero for any time. At most 100 calls are under way
    /// in each subtask, on one thread.
    pub fn timeout(timeout: Duration) -> Self {
        let timeout_ms = Some(timeout.as_millis() as i64).filter(|ms| *ms > 0);
        AsyncOptions { timeout_ms, capacity: ASYNC_CAPACITY, threads: 1, retry: None }
    }

    /// Calls under way in one subtask; default [`ASYNC_CAPACITY`].
    pub fn capacity(mut self, calls: usize) -> Self {
        self.capacity = calls;
        self
    }

    /// Threads that run the calls of one subtask; default 1. Calls that block need as many as shall run at once.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Which calls are tried again.
    pub fn retry(mut self, retry: AsyncRetry<O>) -> Self {
        self.retry = Some(retry);
        self
    }

    fn check(&self) -> Result<()> {
        match (self.capacity, self.threads) {
            (1.., 1..) => Ok(()),
            _ => Err(Error::input("asynchronous calls need a capacity and a number of threads of at least 1")),
        }
    }
}

impl<T: Data> DataStream<T> {
    /// Calls an asynchronous function for each record; results come in the order of the records.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidemill_engine::Environment;
    /// use tidemill_engine::stream::AsyncOptions;
    /// let env = Environment::new();
    /// env.set_parallelism(1);
    /// let names = env
    ///     .from_collection(vec![1u32, 2, 3])
    ///     .ordered_wait(AsyncOptions::timeout(Duration::from_secs(5)), |id: u32| async move {
    ///         // Ask a service here.
    ///         Ok(Some(format!("user {id}")))
    ///     })
    ///     .collect();
    /// env.execute("look up")?;
    /// assert_eq!(names.take(), ["user 1", "user 2", "user 3"]);
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn ordered_wait<O: Data>(&self, options: AsyncOptions<O>, function: impl AsyncFunction<T, O>) -> DataStream<O> {
        self.wait("Async Wait (ordered)", true, options, function)
    }

    /// Calls an asynchronous function for each record; results come as they are finished, but none overtakes a watermark.
    pub fn unordered_wait<O: Data>(
        &self,
        options: AsyncOptions<O>,
        function: impl AsyncFunction<T, O>,
    ) -> DataStream<O> {
        self.wait("Async Wait (unordered)", false, options, function)
    }

    /// One value for one value, asked for asynchronously, in order.
    pub fn async_map<O: Data, C: Future<Output = Result<O>> + Send + 'static>(
        &self,
        options: AsyncOptions<O>,
        mut function: impl FnMut(T) -> C + Clone + Send + 'static,
    ) -> DataStream<O> {
        self.wait("Async Map", true, options, move |value| {
            let call = function(value);
            async move { call.await.map(Some) }
        })
    }

    fn wait<O: Data>(
        &self,
        name: &str,
        ordered: bool,
        options: AsyncOptions<O>,
        function: impl AsyncFunction<T, O>,
    ) -> DataStream<O> {
        let function = std::sync::Mutex::new(function);
        self.add_operator(name, move |builder, node| -> Result<_> {
            options.check()?;
            Ok(AsyncOperator {
                function: fresh(&function),
                options: options.clone(),
                context: builder.runtime_context(node),
                calls: Calls::new(ordered),
                alarms: BTreeSet::new(),
                waker: builder.waker(),
                pool: None,
            })
        })
    }
}

struct AsyncOperator<I, O, F> {
    function: F,
    options: AsyncOptions<O>,
    context: RuntimeContext,
    calls: Calls<I, O>,
    /// Deadlines and retries by steady time, each with the number of its call.
    alarms: BTreeSet<(i64, u64)>,
    waker: Waker,
    /// Made at the first call.
    pool: Option<Pool<O>>,
}

/// The name of the operator's state: inputs whose results have not been handed on.
const INPUTS: &str = "async-inputs";

impl<I: Data, O: Data, F: AsyncFunction<I, O>> AsyncOperator<I, O, F> {
    /// Takes in what was finished, hands on what may go, begins what there is room for.
    fn advance(&mut self, out: &mut Out<O>) -> Result<()> {
        let now_ms = self.context.clock.steady_ms();
        for (number, outcome) in self.pool.as_ref().map_or(Vec::new(), Pool::finished) {
            self.finished(number, outcome, now_ms)?;
        }
        while let Some(&(at, number)) = self.alarms.first().filter(|(at, _)| *at <= now_ms) {
            self.alarms.remove(&(at, number));
            self.alarm(number, now_ms)?;
        }
        self.calls.look_again();
        while out.ready() {
            match self.calls.next() {
                Some(Next::Results(timestamp_ms, results)) => {
                    results.into_iter().try_for_each(|result| out.emit(timestamp_ms, result))?;
                }
                Some(Next::Watermark(watermark_ms)) => out.watermark(watermark_ms)?,
                None => break,
            }
        }
        while self.calls.begun() < self.options.capacity {
            let Some((number, entry)) = self.calls.begin_next() else { break };
            if let Some(timeout_ms) = self.options.timeout_ms {
                entry.deadline_ms = now_ms.saturating_add(timeout_ms);
                self.alarms.insert((entry.deadline_ms, number));
            }
            self.call(number)?;
        }
        Ok(())
    }

    fn call(&mut self, number: u64) -> Result<()> {
        let pool = match &mut self.pool {
            Some(pool) => pool,
            none => {
                self.function.open(&self.context)?;
                none.insert(Pool::start(self.options.threads, self.waker.clone())?)
            }
        };
        if let Some(entry) = self.calls.get(number) {
            let future = self.function.invoke(entry.input.clone());
            entry.state = State::Running(pool.submit(number, future));
        }
        Ok(())
    }

    fn finished(&mut self, number: u64, outcome: Result<Vec<O>>, now_ms: i64) -> Result<()> {
        // A call given up in the meantime has no entry any more, or one that is done.
        let Some(entry) = self.calls.get(number) else { return Ok(()) };
        if !matches!(entry.state, State::Running(_)) {
            return Ok(());
        }
        let retry = self.options.retry.as_ref();
        if let Some(pause_ms) = retry.and_then(|retry| retry.pause_ms(&outcome, entry.retries)) {
            let at = now_ms.saturating_add(pause_ms);
            entry.retries += 1;
            entry.state = State::RetryAt(at);
            self.alarms.insert((at, number));
            return Ok(());
        }
        entry.state = State::Done(outcome?);
        self.alarms.remove(&(entry.deadline_ms, number));
        Ok(())
    }

    /// A deadline or the time of a retry has come.
    fn alarm(&mut self, number: u64, now_ms: i64) -> Result<()> {
        let Some(entry) = self.calls.get(number) else { return Ok(()) };
        if entry.deadline_ms <= now_ms {
            let timeout_ms = self.options.timeout_ms.unwrap_or_default();
            match &entry.state {
                State::Done(_) => return Ok(()),
                State::Running(call) => call.cancel(),
                State::Waiting | State::RetryAt(_) => {}
            }
            let results = self.function.timeout(entry.input.clone());
            entry.state = State::Done(results.map_err(|e| e.context(format!("after {timeout_ms} ms")))?);
            return Ok(());
        }
        match entry.state {
            State::RetryAt(at) if at <= now_ms => self.call(number),
            _ => Ok(()),
        }
    }
}

impl<I: Data, O: Data, F: AsyncFunction<I, O>> Operator<I, O> for AsyncOperator<I, O, F> {
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        for section in state.take(INPUTS) {
            // As a whole to one subtask, so that the inputs keep their order.
            if section.subtask % state.parallelism != state.subtask {
                continue;
            }
            let mut reader = section.reader()?;
            while let Some((timestamp_ms, input)) = reader.entry::<(i64, I)>()? {
                self.calls.push(timestamp_ms, input);
            }
        }
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<I>, out: &mut Out<O>) -> Result<()> {
        batch.into_iter().for_each(|(timestamp_ms, input)| self.calls.push(timestamp_ms, input));
        self.advance(out)
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        self.calls.push_watermark(watermark_ms);
        self.advance(out)
    }

    fn on_wake(&mut self, out: &mut Out<O>) -> Result<()> {
        if self.calls.is_empty() {
            // What is left here belonged to calls that were given up.
            self.alarms.clear();
            return Ok(());
        }
        self.advance(out)
    }

    fn next_processing_time(&self) -> Option<i64> {
        // Met in `on_wake`, for which the task is woken then.
        let clock = &self.context.clock;
        self.alarms.first().map(|(at, _)| clock.now_ms().saturating_add(at - clock.steady_ms()))
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        let mut writer = Writer::new(INPUTS, SectionKind::Operator);
        self.calls.inputs().try_for_each(|input| writer.entry(&input))?;
        let section = writer.finish();
        if section.entries > 0 {
            parts.sections.push(section);
        }
        Ok(())
    }

    fn ready(&mut self) -> bool {
        self.calls.all_begun() && self.calls.begun() < self.options.capacity
    }

    fn under_way(&self) -> bool {
        !self.calls.is_empty()
    }

    fn close(&mut self) -> Result<()> {
        if self.pool.is_some() { self.function.close() } else { Ok(()) }
    }
}
