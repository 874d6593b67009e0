//! Flink's rich functions on keyed streams: map, flat map and filter with a life cycle and keyed state. They are process
//! functions that need no timers and no side outputs, with a signature that says so.

use tidemill_core::{Data, Result};

use super::data_stream::DataStream;
use super::keyed::KeyedStream;
use super::keyed_process::{KeyedContext, KeyedProcessFunction};
use super::operator_state::{OperatorStateReader, OperatorStateWriter};
use super::process::RuntimeContext;
use super::selector::KeySelector;
use crate::key::Key;
use crate::state::{KeyedStore, StateAccess};

/// The current key and its state.
pub struct KeyedScope<'a, K> {
    pub(super) key: &'a K,
    pub(super) store: &'a mut KeyedStore<K>,
}

impl<K: Key> KeyedScope<'_, K> {
    /// The current key.
    pub fn key(&self) -> &K {
        self.key
    }
}

impl<K: Key> StateAccess for KeyedScope<'_, K> {
    type Key = K;

    fn keyed_state(&mut self) -> (&K, &mut KeyedStore<K>) {
        (self.key, self.store)
    }
}

/// One value for one value, with keyed state (Flink's `RichMapFunction` on a keyed stream).
pub trait RichMapFunction<K: Key, I, O>: Clone + Send + 'static {
    /// Takes back what was saved of the operator, not of a key; called once, before everything else, also when nothing was.
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// Before the first record of the subtask.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record.
    fn map(&mut self, value: I, state: &mut KeyedScope<'_, K>) -> Result<O>;

    /// Saves what belongs to the operator and not to a key; called at each checkpoint, between two records. Keyed state is
    /// saved by itself.
    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// After the last record of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Any number of values for one value, with keyed state (Flink's `RichFlatMapFunction` on a keyed stream).
pub trait RichFlatMapFunction<K: Key, I, O>: Clone + Send + 'static {
    /// Takes back what was saved of the operator, not of a key; called once, before everything else, also when nothing was.
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// Before the first record of the subtask.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record; results are pushed onto `out`.
    fn flat_map(&mut self, value: I, state: &mut KeyedScope<'_, K>, out: &mut Vec<O>) -> Result<()>;

    /// Saves what belongs to the operator and not to a key; called at each checkpoint, between two records. Keyed state is
    /// saved by itself.
    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// After the last record of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Keeps or drops each value, with keyed state (Flink's `RichFilterFunction` on a keyed stream).
pub trait RichFilterFunction<K: Key, T>: Clone + Send + 'static {
    /// Takes back what was saved of the operator, not of a key; called once, before everything else, also when nothing was.
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// Before the first record of the subtask.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// Whether to keep the record.
    fn filter(&mut self, value: &T, state: &mut KeyedScope<'_, K>) -> Result<bool>;

    /// Saves what belongs to the operator and not to a key; called at each checkpoint, between two records. Keyed state is
    /// saved by itself.
    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// After the last record of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

#[derive(Clone)]
struct Map<F>(F);
#[derive(Clone)]
struct FlatMap<F>(F);
#[derive(Clone)]
struct Filter<F>(F);

pub(super) fn scope<'a, K: Key, O: 'static>(context: &'a mut KeyedContext<'_, K, O>) -> KeyedScope<'a, K> {
    let (key, store) = context.keyed_state();
    KeyedScope { key, store }
}

impl<K: Key, I: Data, O: Data, F: RichMapFunction<K, I, O>> KeyedProcessFunction<K, I, O> for Map<F> {
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        self.0.initialize_state(saved)
    }

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0.open(context)
    }

    fn process(&mut self, value: I, context: &mut KeyedContext<'_, K, O>) -> Result<()> {
        let result = self.0.map(value, &mut scope(context))?;
        context.emit(result)
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        self.0.snapshot_state(state)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

impl<K: Key, I: Data, O: Data, F: RichFlatMapFunction<K, I, O>> KeyedProcessFunction<K, I, O> for FlatMap<F> {
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        self.0.initialize_state(saved)
    }

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0.open(context)
    }

    fn process(&mut self, value: I, context: &mut KeyedContext<'_, K, O>) -> Result<()> {
        let mut results = Vec::new();
        self.0.flat_map(value, &mut scope(context), &mut results)?;
        results.into_iter().try_for_each(|result| context.emit(result))
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        self.0.snapshot_state(state)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

impl<K: Key, T: Data, F: RichFilterFunction<K, T>> KeyedProcessFunction<K, T, T> for Filter<F> {
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        self.0.initialize_state(saved)
    }

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0.open(context)
    }

    fn process(&mut self, value: T, context: &mut KeyedContext<'_, K, T>) -> Result<()> {
        if self.0.filter(&value, &mut scope(context))? { context.emit(value) } else { Ok(()) }
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        self.0.snapshot_state(state)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

impl<T: Data, K: Key, F: KeySelector<T, K>> KeyedStream<T, K, F> {
    /// A map with life cycle and keyed state.
    pub fn rich_map<O: Data>(&self, function: impl RichMapFunction<K, T, O>) -> DataStream<O> {
        self.process(Map(function)).name("Rich Map")
    }

    /// A flat map with life cycle and keyed state.
    pub fn rich_flat_map<O: Data>(&self, function: impl RichFlatMapFunction<K, T, O>) -> DataStream<O> {
        self.process(FlatMap(function)).name("Rich Flat Map")
    }

    /// A filter with life cycle and keyed state.
    pub fn rich_filter(&self, function: impl RichFilterFunction<K, T>) -> DataStream<T> {
        self.process(Filter(function)).name("Rich Filter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{ListState, MapState, ValueState};
    use crate::stream::Environment;

    /// The difference to the key's number before.
    #[derive(Clone)]
    struct Difference {
        before: ValueState<i64>,
        opened: bool,
    }

    impl RichMapFunction<String, (String, i64), i64> for Difference {
        fn open(&mut self, _: &RuntimeContext) -> Result<()> {
            self.opened = true;
            Ok(())
        }
        fn map(&mut self, (_, n): (String, i64), state: &mut KeyedScope<'_, String>) -> Result<i64> {
            assert!(self.opened, "opened before the first record");
            Ok(n - self.before.replace(state, n)?.unwrap_or(0))
        }
    }

    /// Emits each three values of a key together.
    #[derive(Clone)]
    struct Threes(ListState<i64>);

    impl RichFlatMapFunction<String, (String, i64), Vec<i64>> for Threes {
        fn flat_map(
            &mut self,
            (_, n): (String, i64),
            state: &mut KeyedScope<'_, String>,
            out: &mut Vec<Vec<i64>>,
        ) -> Result<()> {
            self.0.add(state, n)?;
            if self.0.get(state)?.len() == 3 {
                out.push(self.0.take(state)?);
            }
            Ok(())
        }
    }

    /// Keeps what the key has not had before.
    #[derive(Clone)]
    struct Distinct(MapState<i64, ()>);

    impl RichFilterFunction<String, (String, i64)> for Distinct {
        fn filter(&mut self, (_, n): &(String, i64), state: &mut KeyedScope<'_, String>) -> Result<bool> {
            Ok(self.0.put(state, *n, ())?.is_none())
        }
    }

    #[test]
    fn rich_functions_keep_state_for_each_key() {
        let env = Environment::new();
        env.set_parallelism(1);
        let numbers = [18, 20, 25, 28, 20].map(|n| ("a".to_string(), n));
        let keyed = env.from_collection([&numbers[..], &[("b".to_string(), 7)]].concat()).key_by(|pair| pair.0.clone());
        let differences = keyed.rich_map(Difference { before: ValueState::new("before"), opened: false }).collect();
        let threes = keyed.rich_flat_map(Threes(ListState::new("three"))).collect();
        let distinct = keyed.rich_filter(Distinct(MapState::new("seen"))).map(|pair| pair.1).collect();
        env.execute("rich").unwrap();
        assert_eq!(differences.take(), [18, 2, 5, 3, -8, 7]);
        assert_eq!(threes.take(), [vec![18, 20, 25]]);
        assert_eq!(distinct.take(), [18, 20, 25, 28, 7]);
    }
}
