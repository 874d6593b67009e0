//! Accesses to keyed state are measured, one in so many, when that is asked for.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use tidemill_core::Result;
use tidemill_core::report::MetricValue;
use tidemill_engine::state::{AggregatingState, ListState, MapState, ReducingState, StateBackend, ValueState};
use tidemill_engine::stream::{KeyedContext, KeyedProcessFunction};
use tidemill_engine::window::Count;
use tidemill_engine::{Environment, JobSettings};

/// For each record: value read and set, list added to, map put into twice, the folds added to and the map cleared.
#[derive(Clone)]
struct Accesses {
    value: ValueState<i64>,
    list: ListState<i64>,
    map: MapState<u8, i64>,
    sum: ReducingState<i64, fn(&mut i64, i64)>,
    count: AggregatingState<i64, Count>,
}

impl KeyedProcessFunction<i64, i64, i64> for Accesses {
    fn process(&mut self, value: i64, context: &mut KeyedContext<'_, i64, i64>) -> Result<()> {
        let before = self.value.get(context)?.copied().unwrap_or_default();
        self.value.set(context, before + value)?;
        self.list.add(context, value)?;
        self.map.put(context, 1, value)?;
        self.map.put(context, 2, value)?;
        self.sum.add(context, value)?;
        self.count.add(context, value)?;
        self.map.clear(context)
    }
}

/// How often each kind of access was measured.
fn measured(backend: StateBackend, interval: Option<u32>) -> BTreeMap<String, u64> {
    let env = Environment::with_settings(JobSettings {
        parallelism: Some(1),
        state_backend: backend,
        state_latency_sample_interval: interval.and_then(NonZeroU32::new),
        ..JobSettings::default()
    });
    let accesses = Accesses {
        value: ValueState::new("value"),
        list: ListState::new("list"),
        map: MapState::new("map"),
        sum: ReducingState::new("sum", |sum, value| *sum += value),
        count: AggregatingState::new("count", Count),
    };
    env.from_sequence(1, 1000).key_by(|n| n % 7).process(accesses).uid("accesses").collect();
    let report = env.execute("latencies").unwrap().report;
    let mut operators = report.vertices.into_iter().flat_map(|vertex| vertex.operators);
    let metrics = operators.find(|operator| operator.uid == "accesses").unwrap().metrics;
    let count = |value: MetricValue| match value {
        MetricValue::Histogram { count, max, .. } => {
            assert!(max > 0, "an access takes some nanoseconds");
            count
        }
        other => panic!("{other:?} is no histogram"),
    };
    metrics.into_iter().map(|metric| (metric.name, count(metric.value))).collect()
}

#[test]
fn one_access_in_so_many_is_measured_for_each_state_and_kind() {
    for backend in [StateBackend::Memory, StateBackend::Disk] {
        let expected = [
            ("value.valueStateGetLatency", 100),
            ("value.valueStateUpdateLatency", 100),
            ("list.listStateAddLatency", 100),
            ("map.mapStatePutLatency", 200),
            ("map.mapStateClearLatency", 100),
            ("sum.reducingStateAddLatency", 100),
            ("count.aggregatingStateAddLatency", 100),
        ];
        let expected = expected.map(|(name, count)| (name.to_string(), count));
        assert_eq!(measured(backend, Some(10)), BTreeMap::from(expected), "{backend:?}");
        assert!(measured(backend, None).is_empty(), "{backend:?}");
    }
}
