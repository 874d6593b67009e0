//! Values that functions add up over a whole job, read off its result (Flink's accumulators). They belong to one run of the
//! process: after a restart they begin anew, so they tell what was done, and are no state.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

use super::process::RuntimeContext;

/// How values are added up, in one subtask and over all. Parts travel between the processes of a job, so they are serializable.
pub trait Accumulate: Clone + Default + Send + Serialize + DeserializeOwned + 'static {
    /// What is added.
    type Input;
    /// What the job's result shows.
    type Output: Serialize;

    /// Takes in a value.
    fn add(&mut self, value: Self::Input);

    /// Takes in what another subtask has added up.
    fn merge(&mut self, other: Self);

    /// The value now.
    fn result(&self) -> Self::Output;
}

/// One subtask's part of an accumulator; copies of it are the same.
pub struct Accumulator<A>(Arc<Mutex<A>>);

impl<A> Clone for Accumulator<A> {
    fn clone(&self) -> Self {
        Accumulator(self.0.clone())
    }
}

impl<A: Default> Default for Accumulator<A> {
    fn default() -> Self {
        Accumulator(Arc::new(Mutex::new(A::default())))
    }
}

impl<A: Accumulate> Accumulator<A> {
    /// Takes in a value. In a hot path, add up a batch first.
    pub fn add(&self, value: A::Input) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(value);
    }

    /// What this subtask has added up.
    pub fn local(&self) -> A::Output {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).result()
    }

    fn sum(parts: &[Box<dyn Any + Send>]) -> A {
        let mut all = A::default();
        for part in parts.iter().filter_map(|part| part.downcast_ref::<Self>()) {
            all.merge(part.0.lock().unwrap_or_else(PoisonError::into_inner).clone());
        }
        all
    }

    /// What the parts of this process come to, for the first process of the job.
    pub(crate) fn told(parts: &[Box<dyn Any + Send>]) -> Result<Vec<u8>> {
        let written = postcard::to_stdvec(&Self::sum(parts));
        written.map_err(|e| Error::input(format!("an accumulator cannot be written: {e}")))
    }

    /// The result over the parts of this process and what other processes have told.
    pub(crate) fn merged(parts: &[Box<dyn Any + Send>], told: &[&[u8]]) -> Result<serde_json::Value> {
        let mut all = Self::sum(parts);
        for told in told {
            let other = postcard::from_bytes(told);
            all.merge(other.map_err(|e| Error::external(format!("an accumulator cannot be read: {e}")))?);
        }
        Ok(serde_json::to_value(all.result()).unwrap_or_default())
    }
}

impl RuntimeContext {
    /// This subtask's part of an accumulator; its value over all subtasks stands in the job's result under this name. Ask
    /// for it in `open`, once.
    ///
    /// ```
    /// use tidemill_core::Result;
    /// use tidemill_engine::Environment;
    /// use tidemill_engine::stream::{Accumulator, LongCounter, ProcessContext, ProcessFunction, RuntimeContext};
    /// #[derive(Clone, Default)]
    /// struct Lines(Accumulator<LongCounter>);
    /// impl ProcessFunction<String, String> for Lines {
    ///     fn open(&mut self, context: &RuntimeContext) -> Result<()> {
    ///         self.0 = context.accumulator("lines")?;
    ///         Ok(())
    ///     }
    ///     fn process(&mut self, line: String, context: &mut ProcessContext<'_, String>) -> Result<()> {
    ///         self.0.add(1);
    ///         context.emit(line)
    ///     }
    /// }
    /// let env = Environment::new();
    /// env.from_collection(vec!["to be".to_string(), "or not".to_string()]).process(Lines::default()).collect();
    /// assert_eq!(env.execute("lines")?.accumulator::<i64>("lines")?, 2);
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn accumulator<A: Accumulate>(&self, name: &str) -> Result<Accumulator<A>> {
        self.metrics.accumulator(name)
    }
}

macro_rules! accumulates {
    ($(#[$doc:meta])* $name:ident($held:ty): $input:ty => $output:ty, $add:expr, $merge:expr, $result:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        pub struct $name($held);

        impl Accumulate for $name {
            type Input = $input;
            type Output = $output;
            fn add(&mut self, value: $input) {
                let add: fn(&mut $held, $input) = $add;
                add(&mut self.0, value);
            }
            fn merge(&mut self, other: Self) {
                let merge: fn(&mut $held, $held) = $merge;
                merge(&mut self.0, other.0);
            }
            fn result(&self) -> $output {
                let result: fn(&$held) -> $output = $result;
                result(&self.0)
            }
        }
    };
}

fn better(held: &mut Option<f64>, value: f64, is_better: fn(f64, f64) -> bool) {
    if held.is_none_or(|held| is_better(value, held)) {
        *held = Some(value);
    }
}

accumulates!(
    /// A sum of whole numbers.
    LongCounter(i64): i64 => i64, |sum, n| *sum += n, |sum, n| *sum += n, |sum| *sum);
accumulates!(
    /// A sum of numbers.
    DoubleCounter(f64): f64 => f64, |sum, n| *sum += n, |sum, n| *sum += n, |sum| *sum);
accumulates!(
    /// The smallest number; `null` when there is none.
    Minimum(Option<f64>): f64 => Option<f64>,
    |held, n| better(held, n, |new, old| new < old),
    |held, other| other.into_iter().for_each(|n| better(held, n, |new, old| new < old)),
    |held| *held);
accumulates!(
    /// The largest number; `null` when there is none.
    Maximum(Option<f64>): f64 => Option<f64>,
    |held, n| better(held, n, |new, old| new > old),
    |held, other| other.into_iter().for_each(|n| better(held, n, |new, old| new > old)),
    |held| *held);
accumulates!(
    /// The mean of numbers; 0 when there is none.
    Average((f64, u64)): f64 => f64,
    |(sum, count), n| { *sum += n; *count += 1; },
    |(sum, count), (more, of)| { *sum += more; *count += of; },
    |(sum, count)| if *count == 0 { 0.0 } else { sum / *count as f64 });
accumulates!(
    /// How often each whole number came (Flink's `Histogram`). For few different numbers: each is kept.
    Tally(BTreeMap<i64, u64>): i64 => BTreeMap<i64, u64>,
    |counts, n| *counts.entry(n).or_default() += 1,
    |counts, other| other.into_iter().for_each(|(n, count)| *counts.entry(n).or_default() += count),
    Clone::clone);
