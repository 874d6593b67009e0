//! Two streams in one operator: what each function sees, and keyed state and timers that both streams share.

use std::collections::BTreeMap;

use tidemill_core::Result;
use tidemill_engine::Environment;
use tidemill_engine::operator::OutputTag;
use tidemill_engine::state::{MapState, ValueState};
use tidemill_engine::stream::{
    CoFlatMapFunction, CoMapFunction, CoProcessFunction, DataStream, Either, KeyedCoProcessFunction, KeyedContext,
    KeyedScope, OperatorStateReader, OperatorStateWriter, ProcessContext, RichCoFlatMapFunction, RichCoMapFunction,
    RuntimeContext, TimeDomain,
};
use tidemill_engine::testing::{Harness, Snapshot};

use crate::joins::{Event, events, timed};
use crate::windows::Chance;

fn sorted<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort();
    rows
}

/// Says which method saw a value, and whether it was opened before.
#[derive(Clone, Default)]
struct Which {
    opened: bool,
}

impl Which {
    fn text(&self, side: &str, value: impl ToString) -> String {
        assert!(self.opened, "opened before the first record");
        format!("{side}{}", value.to_string())
    }
}

impl CoMapFunction<i64, String, String> for Which {
    fn open(&mut self, _: &RuntimeContext) -> Result<()> {
        self.opened = true;
        Ok(())
    }
    fn map_first(&mut self, value: i64) -> Result<String> {
        Ok(self.text("<", value))
    }
    fn map_second(&mut self, value: String) -> Result<String> {
        Ok(self.text(">", value))
    }
}

impl CoFlatMapFunction<i64, String, String> for Which {
    fn open(&mut self, _: &RuntimeContext) -> Result<()> {
        self.opened = true;
        Ok(())
    }
    fn flat_map_first(&mut self, value: i64, out: &mut Vec<String>) -> Result<()> {
        out.extend((0..value).map(|n| self.text("<", n)));
        Ok(())
    }
    fn flat_map_second(&mut self, value: String, out: &mut Vec<String>) -> Result<()> {
        out.push(self.text(">", value));
        Ok(())
    }
}

const ASIDE: OutputTag<i64> = OutputTag::new("aside");

impl CoProcessFunction<i64, String, String> for Which {
    fn open(&mut self, _: &RuntimeContext) -> Result<()> {
        self.opened = true;
        Ok(())
    }
    fn process_first(&mut self, value: i64, context: &mut ProcessContext<'_, String>) -> Result<()> {
        context.side_output(ASIDE, value)
    }
    fn process_second(&mut self, value: String, context: &mut ProcessContext<'_, String>) -> Result<()> {
        context.emit(self.text(">", value))
    }
}

#[test]
fn each_stream_has_its_own_method() {
    for parallelism in 1..=3 {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let numbers = env.from_collection(vec![1i64, 2]);
        let texts = env.from_collection(vec!["a".to_string()]);
        let both = numbers.connect(&texts);
        let map = both.map(|n| n.to_string(), |text| text).collect();
        let flat_map = both.flat_map(|n| vec![n.to_string(); n as usize], Some).collect();
        let rich_map = both.rich_map(Which::default()).collect();
        let rich_flat_map = both.rich_flat_map(Which::default()).collect();
        let process = both.process(Which::default());
        let (aside, process) = (process.side_output(ASIDE).collect(), process.collect());
        // Each edge has a way of its own: all texts to all subtasks, the numbers as they come.
        let everywhere = numbers.connect(&texts.broadcast()).map(|n| n.to_string(), |text| text).collect();
        env.execute("connected").unwrap();
        assert_eq!(sorted(map.take()), ["1", "2", "a"]);
        assert_eq!(sorted(flat_map.take()), ["1", "2", "2", "a"]);
        assert_eq!(sorted(rich_map.take()), ["<1", "<2", ">a"]);
        assert_eq!(sorted(rich_flat_map.take()), ["<0", "<0", "<1", ">a"]);
        assert_eq!((process.take(), sorted(aside.take())), (vec![">a".to_string()], vec![1, 2]));
        assert_eq!(sorted(everywhere.take()), [vec!["1"; 1], vec!["2"], vec!["a"; parallelism]].concat());
    }
}

#[test]
fn the_wrapping_of_the_two_inputs_makes_no_tasks_of_its_own() {
    let env = Environment::new();
    env.set_parallelism(3);
    // One subtask before the join, and three that keep their records.
    let alone = env.from_collection(vec![1i64]).name("alone");
    let many = env.from_sequence(1, 9).name("many");
    let (even, odd) = (many.filter(|n| n % 2 == 0), many.filter(|n| n % 2 == 1));
    let all =
        alone.key_by(|n| *n).connect(&even.union(&[&odd]).key_by(|n| *n)).map(|n| n, |n| n).name("both").collect();
    let result = env.execute("tasks").unwrap();
    assert_eq!(sorted(all.take()), [1, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let names: Vec<_> = result.report.vertices.iter().map(|v| (v.name.as_str(), v.parallelism)).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[0].0.starts_with("Source: alone -> Left Input") && names[0].1 == 1, "{names:?}");
    assert!(names[1].0.starts_with("Source: many -> Filter -> Filter") && names[1].1 == 3, "{names:?}");
    assert!(names[2].0.starts_with("both") && names[2].1 == 3, "{names:?}");
}

/// Tells on which subtask a value was seen; those of the second stream are negative.
#[derive(Clone, Default)]
struct Where(usize);

impl CoMapFunction<i64, i64, (usize, i64)> for Where {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0 = context.subtask;
        Ok(())
    }
    fn map_first(&mut self, value: i64) -> Result<(usize, i64)> {
        Ok((self.0, value))
    }
    fn map_second(&mut self, value: i64) -> Result<(usize, i64)> {
        Ok((self.0, -value))
    }
}

#[test]
fn behind_partitioned_inputs_an_operator_has_a_parallelism_of_its_own() {
    for (before, behind) in [(1, 3), (3, 1), (2, 4), (4, 3)] {
        let env = Environment::new();
        env.set_parallelism(2);
        let numbers = env.from_sequence(1, 40).set_parallelism(before);
        let chosen = numbers.partition_custom(|n: &i64, of| *n as usize % of, |n| *n);
        let seen = chosen.connect(&numbers.rebalance()).rich_map(Where::default()).set_parallelism(behind).collect();
        env.execute("own parallelism").unwrap();
        let seen = seen.take();
        let (first, second): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(_, n)| *n > 0);
        assert!(first.iter().all(|(subtask, n)| *subtask == *n as usize % behind), "{before} to {behind}: {first:?}");
        assert_eq!(sorted(first.into_iter().map(|(_, n)| n).collect()), (1..=40).collect::<Vec<i64>>());
        let reached: std::collections::BTreeSet<usize> = second.iter().map(|(subtask, _)| *subtask).collect();
        assert_eq!((second.len(), reached.len()), (40, behind), "{before} to {behind}");
    }
}

#[test]
fn a_harness_of_two_inputs_begins_with_the_operator_that_reads_both() {
    let mut both = Harness::two(|numbers: DataStream<i64>, texts: DataStream<String>| {
        numbers.connect(&texts).process(Which::default())
    })
    .side_output(ASIDE)
    .build()
    .unwrap();
    both.push(5, Either::Right("a".to_string())).unwrap();
    both.push(6, Either::Left(7)).unwrap();
    assert_eq!((both.take(), both.take_side(ASIDE)), (vec![(5, ">a".to_string())], vec![(6, 7)]));
    let refused = |built: Result<Harness<Either<i64, i64>, i64>>| built.err().unwrap().to_string();
    let alone = refused(Harness::two(|left: DataStream<i64>, _: DataStream<i64>| left.map(|n| n)).build());
    assert!(alone.contains("`Map` reads one of the two inputs of the harness alone"), "{alone}");
    let before = |left: DataStream<i64>, right: DataStream<i64>| left.map(|n| n).connect(&right).map(|n| n, |n| n);
    let before = refused(Harness::two(before).build());
    assert!(before.contains("begins with the operator that reads both"), "{before}");
}

/// Holds numbers back until both streams' event time goes on, then emits those that were asked for.
#[derive(Clone, Default)]
struct Held {
    numbers: Vec<i64>,
    asked: Vec<i64>,
}

impl CoProcessFunction<i64, i64, i64> for Held {
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        self.numbers = saved.list("numbers")?;
        self.asked = saved.union("asked")?;
        Ok(())
    }
    fn process_first(&mut self, number: i64, _: &mut ProcessContext<'_, i64>) -> Result<()> {
        self.numbers.push(number);
        Ok(())
    }
    fn process_second(&mut self, number: i64, _: &mut ProcessContext<'_, i64>) -> Result<()> {
        self.asked.push(number);
        Ok(())
    }
    fn on_watermark(&mut self, watermark_ms: i64, context: &mut ProcessContext<'_, i64>) -> Result<()> {
        let found = std::mem::take(&mut self.numbers).into_iter().filter(|number| self.asked.contains(number));
        found.into_iter().try_for_each(|number| context.emit_at(watermark_ms, number))
    }
    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        state.list("numbers", &self.numbers)?;
        state.list("asked", &self.asked)
    }
}

#[test]
fn a_co_process_function_saves_state_of_its_operator_and_hears_watermarks() {
    let held = |subtask, parallelism, saved: &Snapshot| {
        let pipeline = |left: DataStream<i64>, right: DataStream<i64>| left.connect(&right).process(Held::default());
        Harness::two(pipeline).subtask(subtask, parallelism).restore(saved).build().unwrap()
    };
    let mut one = held(0, 1, &Snapshot::default());
    (1..=4).for_each(|number| one.push(0, Either::Left(number)).unwrap());
    one.push(0, Either::Right(4)).unwrap();
    one.push(0, Either::Right(1)).unwrap();
    let saved = one.snapshot().unwrap();
    let mut two = [held(0, 2, &saved), held(1, 2, &saved)];
    two.iter_mut().for_each(|harness| harness.watermark(7).unwrap());
    assert_eq!(two.map(|mut harness| harness.take()), [vec![(7, 1)], vec![(7, 4)]]);
}

/// Keeps the value of the second stream and adds it to those of the first.
#[derive(Clone)]
struct Enrich {
    known: ValueState<i64>,
    waiting: MapState<i64, i64>,
}

impl RichCoMapFunction<u32, Event, Event, i64> for Enrich {
    fn map_first(&mut self, event: Event, state: &mut KeyedScope<'_, u32>) -> Result<i64> {
        let held = self.known.get_or(state, || 0)?;
        *held += event.2;
        Ok(*held)
    }
    fn map_second(&mut self, event: Event, state: &mut KeyedScope<'_, u32>) -> Result<i64> {
        let held = self.known.get_or(state, || 0)?;
        *held += event.2;
        Ok(*held)
    }
}

impl RichCoFlatMapFunction<u32, Event, Event, (i64, i64)> for Enrich {
    fn flat_map_first(
        &mut self,
        event: Event,
        state: &mut KeyedScope<'_, u32>,
        out: &mut Vec<(i64, i64)>,
    ) -> Result<()> {
        match self.known.get(state)? {
            Some(known) => out.push((event.2, *known)),
            None => drop(self.waiting.put(state, event.2, 0)?),
        }
        Ok(())
    }
    fn flat_map_second(
        &mut self,
        event: Event,
        state: &mut KeyedScope<'_, u32>,
        out: &mut Vec<(i64, i64)>,
    ) -> Result<()> {
        self.known.set(state, event.2)?;
        out.extend(self.waiting.entries(state)?.into_iter().map(|(value, _)| (*value, event.2)));
        self.waiting.clear(state)
    }
}

#[test]
fn rich_functions_on_keyed_streams_share_state_between_both() {
    for parallelism in 1..=3 {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let events: Vec<Event> = (0..200).map(|n| (0, n as u32 % 20, n)).collect();
        let names: Vec<Event> = (0..20).map(|n| (0, n as u32, 1000 + n)).collect();
        let both = env
            .from_collection(events.clone())
            .rebalance()
            .map(|event| event)
            .connect(&env.from_collection(names))
            .key_by(|event| event.1, |name| name.1);
        let enrich = Enrich { known: ValueState::new("known"), waiting: MapState::new("waiting") };
        let sums = both.rich_map(enrich.clone()).collect();
        let pairs = both.rich_flat_map(enrich).collect();
        env.execute("enrich").unwrap();
        assert_eq!(sorted(pairs.take()), events.iter().map(|event| (event.2, 1000 + event.2 % 20)).collect::<Vec<_>>());
        let largest = sums.take().into_iter().max();
        assert_eq!(largest, Some((0..10).map(|n| 19 + n * 20).sum::<i64>() + 1019), "all of key 19, of both streams");
    }
}

/// At the end of each 100 ms of event time, what each stream had in it: a row for each key that had something.
#[derive(Clone)]
pub struct Tally {
    pub first: MapState<i64, i64>,
    pub second: MapState<i64, i64>,
}

pub type Tallied = (i64, u32, i64, i64);

impl Tally {
    pub fn new() -> Self {
        Tally { first: MapState::new("first"), second: MapState::new("second") }
    }

    fn add(state: &MapState<i64, i64>, event: Event, context: &mut KeyedContext<'_, u32, Tallied>) -> Result<()> {
        let end = event.0 - event.0.rem_euclid(100) + 100;
        let before = state.get(context, &end)?.copied().unwrap_or(0);
        state.put(context, end, before + event.2)?;
        context.register_event_timer(end);
        Ok(())
    }

    pub fn reference(first: &[Event], second: &[Event]) -> Vec<Tallied> {
        let mut rows: BTreeMap<(i64, u32), (i64, i64)> = BTreeMap::new();
        let at = |event: &Event| (event.0 - event.0.rem_euclid(100) + 100, event.1);
        first.iter().for_each(|event| rows.entry(at(event)).or_default().0 += event.2);
        second.iter().for_each(|event| rows.entry(at(event)).or_default().1 += event.2);
        rows.into_iter().map(|((end, key), (first, second))| (end, key, first, second)).collect()
    }
}

impl KeyedCoProcessFunction<u32, Event, Event, Tallied> for Tally {
    fn process_first(&mut self, event: Event, context: &mut KeyedContext<'_, u32, Tallied>) -> Result<()> {
        Self::add(&self.first, event, context)
    }
    fn process_second(&mut self, event: Event, context: &mut KeyedContext<'_, u32, Tallied>) -> Result<()> {
        Self::add(&self.second, event, context)
    }
    fn on_timer(&mut self, domain: TimeDomain, context: &mut KeyedContext<'_, u32, Tallied>) -> Result<()> {
        assert_eq!(domain, TimeDomain::Event);
        let (end, key) = (context.timestamp_ms(), *context.key());
        let first = self.first.remove(context, &end)?.unwrap_or(0);
        let second = self.second.remove(context, &end)?.unwrap_or(0);
        context.emit((end, key, first, second))
    }
}

#[test]
fn a_keyed_co_process_function_equals_the_reference() {
    for seed in 1..=6u64 {
        let mut chance = Chance(seed * 6_700_417);
        let parallelism = 1 + (seed % 3) as usize;
        println!("seed {seed}: parallelism {parallelism}");
        let (first, second) = (events(&mut chance, 1500, 60), events(&mut chance, 900, 40));
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let firsts = timed(&env, first.clone(), 60).key_by(|event| event.1);
        let seconds = timed(&env, second.clone(), 40).rebalance().map(|event| event).key_by(|event| event.1);
        let rows = firsts.connect(&seconds).process(Tally::new()).collect();
        env.execute("tally").unwrap();
        assert!(sorted(rows.take()) == Tally::reference(&first, &second), "seed {seed}");
    }
}
