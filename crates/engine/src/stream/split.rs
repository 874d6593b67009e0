//! Streams divided by name: Flink's old `split` and `select`, as sugar over side outputs.

use std::sync::Mutex;

use tidemill_core::{Data, Result};

use super::data_stream::{DataStream, fresh};
use crate::driver::Records;
use crate::operator::{Operator, Out, OutputTag};

/// A stream whose records have been given names.
pub struct SplitStream<T> {
    named: DataStream<T>,
}

struct SplitOperator<F>(F);

impl<T: Data, N: IntoIterator<Item = &'static str>, F: FnMut(&T) -> N + 'static> Operator<T, T> for SplitOperator<F> {
    fn on_batch(&mut self, batch: Records<T>, out: &mut Out<T>) -> Result<()> {
        for (timestamp_ms, value) in batch {
            for name in (self.0)(&value) {
                if out.has_side(name) {
                    out.side(&OutputTag::new(name), timestamp_ms, value.clone())?;
                }
            }
        }
        Ok(())
    }
}

impl<T: Data> DataStream<T> {
    /// Gives each record names, under which [`SplitStream::select`] finds it. One with a name nobody selects is dropped.
    ///
    /// ```
    /// use tidemill_engine::Environment;
    /// let env = Environment::new();
    /// let numbers = env.from_sequence(1, 10).split(|n| if n % 2 == 0 { ["even"] } else { ["odd"] });
    /// let (even, odd) = (numbers.select("even").collect(), numbers.select("odd").collect());
    /// env.execute("split")?;
    /// assert_eq!((even.len(), odd.take().iter().sum::<i64>()), (5, 25));
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn split<N: IntoIterator<Item = &'static str> + 'static>(
        &self,
        names: impl FnMut(&T) -> N + Clone + Send + 'static,
    ) -> SplitStream<T> {
        let names = Mutex::new(names);
        SplitStream { named: self.add_operator("Split", move |_, _| Ok(SplitOperator(fresh(&names)))) }
    }
}

impl<T: Data> SplitStream<T> {
    /// The records of a name.
    pub fn select(&self, name: &'static str) -> DataStream<T> {
        self.named.side_output(OutputTag::new(name))
    }
}
