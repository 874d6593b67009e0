//! Broadcast streams against naive references on random streams with printed seeds, also through crashes.

use std::time::Duration;

use tidemill_core::Result;
use tidemill_engine::Environment;
use tidemill_engine::state::MapState;
use tidemill_engine::stream::{
    BroadcastContext, BroadcastProcessFunction, BroadcastState, DataStream, KeyedBroadcastContext,
    KeyedBroadcastProcessFunction, KeyedReadOnlyContext, ReadOnlyContext, RuntimeContext, TimeDomain,
    WatermarkStrategy,
};

use crate::joins::{Event, events, timed};
use crate::joins_recovery::survives_crashes;
use crate::windows::Chance;

/// From a time on a factor holds.
pub type Rule = (i64, i64);
type Valued = (i64, u32, i64);

const RULES: BroadcastState<i64, i64> = BroadcastState::new("rules");
const TOTAL: BroadcastState<(), i64> = BroadcastState::new("total");

pub fn rules(chance: &mut Chance, count: usize, step_ms: i64) -> Vec<Rule> {
    (0..count as i64).map(|at| (at * step_ms - 3_000, 1 + chance.below(1_000) as i64)).collect()
}

pub fn broadcast(env: &Environment, rules: Vec<Rule>) -> DataStream<Rule> {
    env.from_collection(rules).assign_timestamps_and_watermarks(
        WatermarkStrategy::monotonous().with_timestamps(|rule: &Rule, _| rule.0).with_interval(Duration::ZERO),
    )
}

/// At each event's time, when all that was to come by then is there: the sum of the key's events of that time by the
/// factor that holds.
#[derive(Clone)]
struct Valuation {
    pending: MapState<i64, i64>,
}

impl KeyedBroadcastProcessFunction<u32, Event, Rule, Valued> for Valuation {
    fn process(&mut self, event: Event, context: &mut KeyedReadOnlyContext<'_, u32, Valued>) -> Result<()> {
        let before = self.pending.get(context, &event.0)?.copied().unwrap_or(0);
        self.pending.put(context, event.0, before + event.2)?;
        context.register_event_timer(event.0);
        Ok(())
    }

    fn process_broadcast(
        &mut self,
        (from, factor): Rule,
        context: &mut KeyedBroadcastContext<'_, u32, Valued>,
    ) -> Result<()> {
        context.broadcast_state(&RULES)?.put(from, factor);
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedReadOnlyContext<'_, u32, Valued>) -> Result<()> {
        let (time, key) = (context.timestamp_ms(), *context.key());
        let sum = self.pending.remove(context, &time)?.unwrap_or(0);
        let rules = context.broadcast_state(&RULES)?;
        let factor = rules.iter().filter(|(from, _)| **from <= time).max().map_or(0, |(_, factor)| *factor);
        context.emit((time, key, sum * factor))
    }
}

pub fn valued(events: &DataStream<Event>, rules: &DataStream<Rule>) -> DataStream<Valued> {
    events
        .key_by(|event| event.1)
        .connect_broadcast(&rules.broadcast_with(&[&RULES]))
        .process(Valuation { pending: MapState::new("pending") })
}

#[test]
fn a_keyed_stream_with_a_broadcast_one_equals_the_reference() {
    for seed in 1..=6u64 {
        let mut chance = Chance(seed * 15_485_863);
        let parallelism = 1 + (seed % 3) as usize;
        println!("seed {seed}: parallelism {parallelism}");
        let (events, rules) = (events(&mut chance, 1_500, 60), rules(&mut chance, 40, 190));
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let timed = timed(&env, events.clone(), 60).rebalance().map(|event| event);
        let values = valued(&timed, &broadcast(&env, rules.clone())).collect();
        env.execute("valuation").unwrap();
        let mut sums = std::collections::BTreeMap::new();
        events.iter().for_each(|event| *sums.entry((event.0, event.1)).or_insert(0) += event.2);
        let factor = |time: i64| rules.iter().rfind(|rule| rule.0 <= time).map_or(0, |rule| rule.1);
        let expected: Vec<Valued> =
            sums.into_iter().map(|((time, key), sum)| (time, key, sum * factor(time))).collect();
        let mut values = values.take();
        values.sort();
        assert!(values == expected, "seed {seed}");
    }
}

#[test]
fn a_keyed_stream_with_a_broadcast_one_survives_crashes() {
    survives_crashes(6, |env| {
        let mut chance = Chance(14);
        let (events, rules) = (events(&mut chance, 20_000, 60), rules(&mut chance, 50, 2_000));
        let events = timed(env, events, 60).uid("times");
        let values = valued(&events, &broadcast(env, rules).uid("rule times")).uid("valuation");
        values.map(|(time, key, value)| (format!("value {key}"), time, value))
    });
}

/// Keeps the sum of all broadcast numbers. Each is told by one subtask, so all copies take their turn.
#[derive(Clone, Default)]
struct Running {
    subtask: usize,
    parallelism: usize,
}

impl BroadcastProcessFunction<Event, i64, (String, i64, i64)> for Running {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        (self.subtask, self.parallelism) = (context.subtask, context.parallelism);
        Ok(())
    }

    fn process(&mut self, event: Event, context: &mut ReadOnlyContext<'_, (String, i64, i64)>) -> Result<()> {
        // The sum only grows, so it has been read rightly if it is one of those there were.
        let total = context.broadcast_state(&TOTAL)?.get(&()).copied().unwrap_or(0);
        let roots = (0..).map(|n| n * (n + 1) / 2).take_while(|sum| *sum <= total);
        assert_eq!(roots.last(), Some(total));
        context.emit(("event".to_string(), event.0, event.2))
    }

    fn process_broadcast(&mut self, number: i64, context: &mut BroadcastContext<'_, (String, i64, i64)>) -> Result<()> {
        let totals = context.broadcast_state(&TOTAL)?;
        let total = totals.get(&()).copied().unwrap_or(0) + number;
        totals.put((), total);
        let own = number as usize % self.parallelism == self.subtask;
        if own { context.emit(("total".to_string(), number, total)) } else { Ok(()) }
    }
}

fn running(env: &Environment) -> DataStream<(String, i64, i64)> {
    let events = timed(env, events(&mut Chance(15), 1_000, 60), 60).uid("times").rebalance();
    let numbers = env.from_collection((1..=20_000).collect());
    events.connect_broadcast(&numbers.broadcast_with(&[&TOTAL])).process(Running::default()).uid("running")
}

#[test]
fn every_subtask_sees_all_that_is_broadcast_and_each_record_of_the_other_stream_once() {
    for parallelism in 1..=3 {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let rows = running(&env).collect();
        env.execute("running").unwrap();
        let mut rows = rows.take();
        rows.sort();
        let mut expected: Vec<_> = (1..=20_000).map(|n| ("total".to_string(), n, n * (n + 1) / 2)).collect();
        let events = events(&mut Chance(15), 1_000, 60);
        expected.extend(events.into_iter().map(|event| ("event".to_string(), event.0, event.2)));
        expected.sort();
        assert!(rows == expected, "parallelism {parallelism}");
    }
}

#[test]
fn broadcast_state_survives_crashes_on_every_subtask() {
    survives_crashes(6, running);
}
