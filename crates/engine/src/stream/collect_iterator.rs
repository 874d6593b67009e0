//! A job's results as an iterator: rows wait in a bounded buffer until they are asked for, and hold the job back meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tidemill_core::{Data, Error, Result};

use super::data_stream::DataStream;
use super::environment::JobClient;
use crate::driver::Records;
use crate::operator::{Operator, Out};

/// Rows that wait to be asked for; one more batch from each subtask may come on top.
pub const COLLECT_ROWS_MAX: usize = 16 * 1024;

/// The rows of one stream, in the order in which its subtasks give them. A job that fails gives its error as the last item.
/// Dropping it cancels the job.
pub struct CollectIterator<T> {
    buffer: Arc<Buffer<T>>,
    job: Option<JobClient>,
}

struct Buffer<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    rows: VecDeque<T>,
    /// Subtasks that wait for room.
    waiting: Vec<Waker>,
    ended: bool,
    failure: Option<Error>,
}

impl<T> Buffer<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct BufferOperator<T> {
    buffer: Arc<Buffer<T>>,
    waker: Waker,
}

impl<T: Data> Operator<T, ()> for BufferOperator<T> {
    fn on_batch(&mut self, batch: Records<T>, _out: &mut Out<()>) -> Result<()> {
        self.buffer.lock().rows.extend(batch.into_iter().map(|(_, value)| value));
        self.buffer.changed.notify_one();
        Ok(())
    }

    fn ready(&mut self) -> bool {
        let mut state = self.buffer.lock();
        if state.rows.len() < COLLECT_ROWS_MAX {
            return true;
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(&self.waker)) {
            state.waiting.push(self.waker.clone());
        }
        false
    }
}

impl<T: Data> DataStream<T> {
    /// Runs what was built so far and returns this stream's rows one by one, as they are made: not when a checkpoint has
    /// covered them. At most about [`COLLECT_ROWS_MAX`] wait; a slow reader holds the job back.
    ///
    /// ```
    /// use tidemill_engine::Environment;
    /// let env = Environment::new();
    /// let squares = env.from_sequence(1, 1_000_000_000).map(|n| n * n).execute_and_collect("squares")?;
    /// let first: Vec<i64> = squares.take(3).collect::<Result<_, _>>()?;
    /// assert_eq!(first.len(), 3); // and the job is cancelled
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn execute_and_collect(&self, name: &str) -> Result<CollectIterator<T>> {
        let state = State { rows: VecDeque::new(), waiting: Vec::new(), ended: false, failure: None };
        let buffer = Arc::new(Buffer { state: Mutex::new(state), changed: Condvar::new() });
        let (shared, ending) = (buffer.clone(), buffer.clone());
        let _: DataStream<()> = self.add_operator("Sink: Collect", move |builder, _| {
            Ok(BufferOperator { buffer: shared.clone(), waker: builder.waker() })
        });
        let job = self.env.start(name, move |result| {
            let mut state = ending.lock();
            (state.ended, state.failure) = (true, result.as_ref().err().cloned());
            drop(state);
            ending.changed.notify_all();
        })?;
        Ok(CollectIterator { buffer, job: Some(job) })
    }
}

impl<T> CollectIterator<T> {
    /// The job behind it.
    pub fn job(&self) -> Option<&JobClient> {
        self.job.as_ref()
    }
}

impl<T> Iterator for CollectIterator<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let mut state = self.buffer.lock();
        loop {
            if let Some(row) = state.rows.pop_front() {
                // Half empty, so that the job is woken once for many rows.
                let woken = if state.rows.len() <= COLLECT_ROWS_MAX / 2 {
                    std::mem::take(&mut state.waiting)
                } else {
                    Vec::new()
                };
                drop(state);
                woken.into_iter().for_each(Waker::wake);
                return Some(Ok(row));
            }
            if state.ended {
                return state.failure.take().map(Err);
            }
            state = self.buffer.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Drop for CollectIterator<T> {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            // One that has ended already is only waited for; what it ended with has been told.
            let _ = job.cancel();
        }
    }
}
