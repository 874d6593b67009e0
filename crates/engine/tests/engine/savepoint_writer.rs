//! Savepoints that no job has taken: state bootstrapped by the operators themselves, written from entries, and copied.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tidemill_core::{Error, Result};
use tidemill_engine::checkpoint::{SavepointReader, SavepointWriter, dispose_savepoint};
use tidemill_engine::state::{
    AggregatingState, ExpiringValueState, ListState, MapState, ReducingState, StateBackend, Ttl, ValueState,
};
use tidemill_engine::stream::{
    AsyncOptions, DataStream, KeyedContext, KeyedProcessFunction, ProcessContext, ProcessFunction, SequenceSource,
    TimeDomain, WatermarkStrategy,
};
use tidemill_engine::window::{Count, CountTrigger, PurgingTrigger, Session, Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

use crate::broadcast::{Rule, rules, valued};
use crate::joins::{Event, events};
use crate::lifecycle::SumBefore;
use crate::recovery::Row;
use crate::windows::Chance;

/// The operators that keep anything.
const STATEFUL: [&str; 6] = ["sessions", "threes", "sums", "keeps", "digits", "valuation"];

const DAY: Duration = Duration::from_secs(86_400);

/// Keeps all kinds of state of a key, and tells them when the time of one of its events has come.
#[derive(Clone)]
struct Keeps {
    last: ValueState<(i64, String)>,
    all: ListState<i64>,
    by_digit: MapState<i64, i64>,
    largest: ReducingState<i64, fn(&mut i64, i64)>,
    count: AggregatingState<i64, Count>,
    smallest: ExpiringValueState<i64>,
}

impl Keeps {
    fn new() -> Self {
        Keeps {
            last: ValueState::new("last"),
            all: ListState::new("all"),
            by_digit: MapState::new("by digit"),
            largest: ReducingState::new("largest", |held, next| *held = (*held).max(next)),
            count: AggregatingState::new("count", Count),
            smallest: ValueState::new("smallest").with_ttl(Ttl::new(DAY)),
        }
    }
}

impl KeyedProcessFunction<u32, Event, Row> for Keeps {
    fn process(&mut self, event: Event, context: &mut KeyedContext<'_, u32, Row>) -> Result<()> {
        let value = event.2;
        self.last.set(context, (value, format!("v{value}")))?;
        self.all.add(context, value)?;
        self.by_digit.put(context, value % 10, value)?;
        self.largest.add(context, value)?;
        self.count.add(context, value)?;
        let before = self.smallest.get(context)?.copied();
        self.smallest.set(context, before.map_or(value, |before| before.min(value)))?;
        context.register_event_timer(event.0 - event.0.rem_euclid(1_000));
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, u32, Row>) -> Result<()> {
        let last = self.last.get(context)?.cloned();
        let all = self.all.get(context)?.to_vec();
        let by_digit: BTreeMap<i64, i64> = self.by_digit.entries(context)?.into_iter().map(|(d, v)| (*d, *v)).collect();
        let (largest, count) = (self.largest.get(context)?.copied(), self.count.get(context)?);
        let smallest = self.smallest.get(context)?.copied();
        let kept = format!("{last:?} {all:?} {by_digit:?} {largest:?} {count:?} {smallest:?}");
        context.emit((kept, context.timestamp_ms(), i64::from(*context.key())))
    }
}

/// Is ready only when it has been asked some times.
async fn later(event: Event) -> Result<Vec<Event>> {
    let mut asked = 0;
    std::future::poll_fn(|context| {
        asked += 1;
        context.waker().wake_by_ref();
        if asked > event.2 % 20 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    Ok(vec![event])
}

fn build(env: &Environment, events: Vec<Event>, rules: Vec<Rule>) -> DataStream<Row> {
    build_with(env, events, rules, None)
}

/// Nothing is late and nothing fires before the end of the input, whatever comes when.
fn build_with(env: &Environment, events: Vec<Event>, rules: Vec<Rule>, fails: Option<FailsAt>) -> DataStream<Row> {
    let times = WatermarkStrategy::none().with_timestamps(|event: &Event, _| event.0);
    let mut events =
        env.from_collection(events).uid("events").assign_timestamps_and_watermarks(times).set_parallelism(1);
    if let Some(fails) = fails {
        events = events.process(fails).set_parallelism(1);
    }
    let rules = env
        .from_collection(rules)
        .uid("rules")
        .assign_timestamps_and_watermarks(WatermarkStrategy::none().with_timestamps(|rule: &Rule, _| rule.0));
    let row = |what: &'static str| {
        move |key: &u32, window: Window, sum: Event| Some((format!("{what} {key}"), window.end_ms, sum.2))
    };
    let sessions = events
        .key_by(|event| event.1)
        .window(Session::event_time(Duration::from_millis(60)))
        .reduce_with(|held, next| held.2 += next.2, row("session"))
        .uid("sessions");
    let threes = events
        .key_by(|event| event.1)
        .window(Tumbling::event_time(Duration::from_millis(500)))
        .trigger(PurgingTrigger::of(CountTrigger::of(3)))
        .reduce_with(|held, next| held.2 += next.2, row("threes"))
        .uid("threes");
    let sums = events.key_by(|event| event.1).sum(|event| &mut event.2).uid("sums");
    let keeps = events
        .ordered_wait(AsyncOptions::timeout(DAY), later)
        .set_parallelism(1)
        .uid("later")
        .key_by(|event| event.1)
        .process(Keeps::new())
        .uid("keeps");
    let digits = events.map(|event| event.2).process(SumBefore::default()).set_parallelism(1).uid("digits");
    let valuation = valued(&events, &rules).uid("valuation");
    sums.map(|(time, key, sum)| (format!("sum {key}"), time, sum)).union(&[
        &sessions,
        &threes,
        &keeps,
        &digits.map(|(digit, sum)| ("digit".to_string(), digit, sum)),
        &valuation.map(|(time, key, value)| (format!("value {key}"), time, value)),
    ])
}

fn environment(parallelism: usize, restore_from: Option<PathBuf>, state_backend: StateBackend) -> Environment {
    Environment::with_settings(JobSettings {
        parallelism: Some(parallelism),
        restore_from,
        state_backend,
        ..JobSettings::default()
    })
}

/// A savepoint of some operators of what a job has left.
fn savepoint_of(state: &SavepointReader, uids: &[&str], place: &Path) {
    let mut writer = SavepointWriter::create(place).unwrap();
    uids.iter().for_each(|uid| writer.copy(state, uid, uid).unwrap());
    writer.finish().unwrap();
}

#[test]
fn a_job_that_begins_with_bootstrapped_state_goes_on_as_if_it_had_seen_all_input_itself() {
    for seed in 1..=8u64 {
        let mut chance = Chance(seed * 15_485_863);
        let (one, other) = (1 + chance.below(3) as usize, 1 + chance.below(3) as usize);
        let backends = [StateBackend::Memory, StateBackend::Disk];
        let (first, second) = (backends[chance.below(2) as usize], backends[chance.below(2) as usize]);
        println!("seed {seed}: parallelism {one} {first:?}, then {other} {second:?}");
        let (events, rules) = (events(&mut chance, 1_500, 60), rules(&mut chance, 40, 190));
        let until = chance.below(events.len() as u64) as usize;
        let of_rules = chance.below(rules.len() as u64) as usize;

        let env = environment(2, None, StateBackend::Memory);
        let rows = build(&env, events.clone(), rules.clone()).collect();
        env.execute("undisturbed").unwrap();
        let mut expected = rows.take();
        expected.sort();

        let folder = tempfile::tempdir().unwrap();
        let env = environment(one, None, first);
        let early = build(&env, events[..until].to_vec(), rules[..of_rules].to_vec()).collect();
        let state = env.bootstrap("bootstrap", folder.path().join("scratch")).unwrap();
        let place = folder.path().join("savepoint");
        savepoint_of(&state, &STATEFUL, &place);

        let env = environment(other, Some(place), second);
        let late = build(&env, events[until..].to_vec(), rules[of_rules..].to_vec()).collect();
        env.execute("goes on").unwrap();
        let mut rows = early.take();
        rows.extend(late.take());
        rows.sort();
        let differs = rows.iter().zip(&expected).find(|(row, expected)| row != expected);
        assert_eq!((differs, rows.len()), (None, expected.len()), "seed {seed}");
    }
}

/// Fails when so many records have come, over all attempts.
#[derive(Clone)]
struct FailsAt {
    seen: Arc<AtomicU64>,
    at: u64,
}

impl ProcessFunction<Event, Event> for FailsAt {
    fn process(&mut self, event: Event, context: &mut ProcessContext<'_, Event>) -> Result<()> {
        match self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            true => Err(Error::external("crash")),
            false => context.emit(event),
        }
    }
}

#[test]
fn a_bootstrap_that_is_interrupted_goes_on_and_leaves_the_same_state() {
    for seed in 1..=4u64 {
        let mut chance = Chance(seed * 32_452_843);
        let (events, rules) = (events(&mut chance, 20_000, 60), rules(&mut chance, 40, 2_000));
        let until = 15_000;
        let run = |crashes: &[u64]| {
            let folder = tempfile::tempdir().unwrap();
            let (seen, place) = (Arc::<AtomicU64>::default(), folder.path().join("savepoint"));
            let attempt = |at: u64| {
                let env = environment(2, None, StateBackend::Memory);
                env.settings().checkpoint_interval_ms = Some(1);
                let fails = FailsAt { seen: seen.clone(), at };
                build_with(&env, events[..until].to_vec(), rules.clone(), Some(fails)).collect();
                env.bootstrap("bootstrap", folder.path().join("scratch"))
            };
            for at in crashes {
                let error = attempt(*at).err().unwrap().to_string();
                assert!(error.contains("crash"), "{error}");
            }
            savepoint_of(&attempt(u64::MAX).unwrap(), &STATEFUL, &place);
            let env = environment(1, Some(place), StateBackend::Memory);
            let late = build(&env, events[until..].to_vec(), Vec::new()).collect();
            env.execute("goes on").unwrap();
            let mut rows = late.take();
            rows.sort();
            (rows, seen.load(Ordering::Relaxed))
        };
        let mut at = 0;
        let crashes: Vec<u64> = (0..3)
            .map(|_| {
                at += 1 + chance.below(5_000);
                at
            })
            .collect();
        let ((expected, _), (rows, seen)) = (run(&[]), run(&crashes));
        println!("seed {seed}: crashes at {crashes:?}, {seen} records in all");
        assert!(rows == expected, "seed {seed}: {} rows for {}", rows.len(), expected.len());
        assert!(seen < until as u64 + crashes.iter().sum::<u64>(), "seed {seed}: nothing was restored");
    }
}

/// Sets a timer of the clock that is due at once, and tells when it is called.
#[derive(Clone)]
struct Due(ValueState<i64>);

impl KeyedProcessFunction<i64, i64, i64> for Due {
    fn process(&mut self, value: i64, context: &mut KeyedContext<'_, i64, i64>) -> Result<()> {
        self.0.set(context, value)?;
        context.register_processing_timer(context.processing_time_ms() - 1_000);
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, i64, i64>) -> Result<()> {
        match self.0.take(context)? {
            Some(value) => context.emit(value),
            None => Ok(()),
        }
    }
}

#[test]
fn timers_of_the_clock_that_are_due_wait_for_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let (scratch, place) = (folder.path().join("scratch"), folder.path().join("savepoint"));
    let build = |env: &Environment, last: i64| {
        let numbers = env.from_source(SequenceSource::new(1, last), WatermarkStrategy::none(), "numbers");
        numbers.key_by(|n| *n).process(Due(ValueState::new("due"))).uid("due").collect()
    };
    let env = environment(2, None, StateBackend::Memory);
    let none = build(&env, 1_000);
    let state = env.bootstrap("bootstrap", &scratch).unwrap();
    assert!(none.is_empty());
    // The same call goes on from what it finds.
    let env = environment(2, None, StateBackend::Memory);
    build(&env, 1_000);
    let again = env.bootstrap("bootstrap", &scratch).unwrap();
    assert!(again.manifest().epoch > state.manifest().epoch);
    savepoint_of(&again, &["due"], &place);

    let env = environment(1, Some(place), StateBackend::Memory);
    let numbers = env.from_source(SequenceSource::new(1, 1 << 40), WatermarkStrategy::none(), "numbers");
    let rest = numbers.filter(|n| *n < 0).key_by(|n| *n).process(Due(ValueState::new("due"))).uid("due").collect();
    let job = env.execute_async("due").unwrap();
    assert!(crate::comes_about(|| rest.len() == 1_000));
    job.cancel().unwrap();
}

/// Tells what it has of a name, and counts on.
#[derive(Clone)]
struct Counts {
    count: ValueState<u64>,
    places: MapState<String, u64>,
    recent: ExpiringValueState<u64>,
}

impl KeyedProcessFunction<String, String, (String, u64, Vec<(String, u64)>, Option<u64>)> for Counts {
    fn process(
        &mut self,
        name: String,
        context: &mut KeyedContext<'_, String, (String, u64, Vec<(String, u64)>, Option<u64>)>,
    ) -> Result<()> {
        let count = self.count.get(context)?.copied().unwrap_or(0) + 1;
        self.count.set(context, count)?;
        let mut places: Vec<_> = self.places.entries(context)?.into_iter().map(|(p, n)| (p.clone(), *n)).collect();
        places.sort();
        let recent = self.recent.get(context)?.copied();
        context.emit((name, count, places, recent))
    }
}

#[test]
fn entries_become_state_that_each_subtask_finds() {
    const NAMES: u64 = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("savepoint");
    let name = |n: u64| format!("name-{n:0>60}");
    let mut writer = SavepointWriter::create(&place).unwrap();
    // In several calls, as whoever reads another state part by part does.
    writer.keyed_state("counts", "count", (0..NAMES / 3 + 50).map(|n| (name(n), n + 1))).unwrap();
    writer.keyed_state("counts", "count", (NAMES / 3..NAMES).map(|n| (name(n), n))).unwrap();
    writer.keyed_state("counts", "count", (0..NAMES / 3).map(|n| (name(n), n))).unwrap();
    // Of a key that comes twice the last counts.
    let places = |n: u64, count: u64| (name(n), vec![("here".to_string(), count), ("there".to_string(), count)]);
    writer.keyed_state("counts", "places", [places(5, 1), places(6, 1), places(5, 2)]).unwrap();
    let touched = |n: u64, touched_ms: i64| (name(n), (touched_ms, 7 * n));
    let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    writer.keyed_state("counts", "recent", [touched(5, now_ms), touched(6, 0)]).unwrap();
    writer.operator_state("digits", "sums", (0..10i64).map(|digit| (digit, digit * 1_000))).unwrap();
    writer.operator_state("empty", "nothing", Vec::<u64>::new()).unwrap();
    writer.keyed_state("empty", "nothing", Vec::<(u64, u64)>::new()).unwrap();
    writer.finish().unwrap();

    let reader = SavepointReader::open(&place).unwrap();
    assert_eq!(reader.operators().collect::<Vec<_>>(), ["counts", "digits", "empty"]);
    let mut counts = reader.keyed_state::<String, u64>("counts", "count").unwrap();
    counts.sort_unstable();
    assert!(
        counts.iter().map(|(name, _)| name).eq((0..NAMES).map(name).collect::<std::collections::BTreeSet<_>>().iter())
    );
    assert_eq!(reader.entries("digits", "sums").unwrap().len(), 10);

    for parallelism in [1, 3] {
        let settings = JobSettings { allow_non_restored_state: true, ..JobSettings::default() };
        let env = Environment::with_settings(JobSettings { restore_from: Some(place.clone()), ..settings });
        env.set_parallelism(parallelism);
        let counts = Counts {
            count: ValueState::new("count"),
            places: MapState::new("places"),
            recent: ValueState::new("recent").with_ttl(Ttl::new(DAY)),
        };
        let names = env.from_collection((0..NAMES).step_by(7).chain([5, 6]).map(name).collect());
        let told = names.key_by(String::clone).process(counts).uid("counts").collect();
        let digits = env.from_collection(vec![3i64, 13]).process(SumBefore::default()).uid("digits").collect();
        env.execute("counts").unwrap();
        let told: BTreeMap<_, _> = told.take().into_iter().map(|(name, n, p, r)| (name, (n, p, r))).collect();
        for n in (0..NAMES).step_by(7).filter(|n| ![5, 6].contains(n)) {
            assert_eq!(told[&name(n)], (n + 1, vec![], None));
        }
        assert_eq!(told[&name(5)], (6, places(5, 2).1, Some(35)), "parallelism {parallelism}");
        assert_eq!(told[&name(6)], (7, places(6, 1).1, None), "parallelism {parallelism}");
        let mut sums = digits.take();
        sums.sort();
        let sums: i64 = sums.into_iter().map(|(_, sum)| sum).sum();
        assert_eq!(sums, 45_000 + 16);
    }
}

#[test]
fn operators_are_copied_under_the_same_or_another_uid_and_no_bytes_are_lost() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let build = |env: &Environment, uid: &str| {
        let numbers = env.from_sequence(1, 50_000).uid("numbers");
        let sums = numbers.map(|n| (n % 20_000, n)).key_by(|pair| pair.0).sum(|pair| &mut pair.1).uid(uid);
        let _nobody_reads = sums.map(|sum| sum).uid("after");
    };
    // Two checkpoints, so that the second names files of the first.
    for parallelism in [3, 2] {
        let env = environment(parallelism, None, StateBackend::Memory);
        env.settings().checkpoint_dir = Some(at("checkpoints"));
        build(&env, "sums");
        env.execute("sums").unwrap();
    }
    let old = SavepointReader::open(at("checkpoints").join("chk-2")).unwrap();
    let mut writer = SavepointWriter::create(at("copy")).unwrap();
    writer.copy(&old, "numbers", "numbers").unwrap();
    writer.copy(&old, "sums", "totals").unwrap();
    writer.finish().unwrap();
    std::fs::remove_dir_all(at("checkpoints")).unwrap();

    let copy = SavepointReader::open(at("copy")).unwrap();
    assert_eq!((copy.manifest().kind.as_str(), copy.manifest().epoch), ("savepoint", 2));
    let name = copy.states().into_iter().find(|state| state.operator == "totals").unwrap().name;
    let mut totals = copy.keyed_state::<i64, (i64, i64)>("totals", &name).unwrap();
    let parts = copy.keyed_state_in_parts::<i64, (i64, i64)>("totals", &name, 7).map(Result::unwrap);
    let parts: Vec<Vec<_>> = parts.collect();
    assert!(parts.len() == 7 && parts.iter().all(|part| part.len() > 20_000 / 10));
    let mut together = parts.concat();
    together.sort_unstable();
    totals.sort_unstable();
    assert_eq!(together, totals);
    let expected = |key: i64| (1..=50_000i64).filter(|n| n % 20_000 == key).sum::<i64>();
    assert_eq!(totals.len(), 20_000);
    assert!(totals.iter().step_by(97).all(|(key, sum)| *sum == (*key, expected(*key))));
    // Its source is at its end, so a job that begins with it has nothing to do.
    let env = environment(4, Some(at("copy")), StateBackend::Disk);
    env.settings().checkpoint_dir = Some(at("own"));
    build(&env, "totals");
    env.execute("totals").unwrap();
    let own = SavepointReader::open(at("own").join("chk-3")).unwrap();
    let mut own = own.keyed_state::<i64, (i64, i64)>("totals", &name).unwrap();
    own.sort_unstable();
    assert!(own.iter().map(|(_, sum)| *sum).eq((0..20_000).map(|key| (key, expected(key)))));
    dispose_savepoint(at("copy"), BTreeMap::new()).unwrap();
    assert!(!at("copy").exists());
}

#[test]
fn what_cannot_be_written_is_told_and_a_writer_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("savepoint");
    let mut writer = SavepointWriter::create(&place).unwrap();
    writer.keyed_state("a", "s", [(1u8, 1u8)]).unwrap();
    let told = |result: Result<()>| result.unwrap_err().to_string();
    let other = told(writer.keyed_state("a", "s", [(1u8, "one".to_string())]));
    assert!(other.contains("state `s` of `a` is (u8, u8), and not (u8, string)"), "{other}");
    // A list of the operator may be called as its keyed state.
    writer.operator_state("a", "s", [1u8]).unwrap();
    let twice = told(writer.operator_state("a", "s", [1u8]));
    assert!(twice.contains("operator `a` has a state `s` in this savepoint already"), "{twice}");
    let begun = SavepointWriter::create(&place).err().unwrap().to_string();
    assert!(begun.contains("is not empty") && begun.contains("name a new folder"), "{begun}");
    assert!(SavepointReader::open(&place).is_err(), "it is not finished");
    drop(writer);
    assert!(!place.exists());

    let mut writer = SavepointWriter::create(&place).unwrap();
    writer.keyed_state("a", "s", [(1u8, 1u8)]).unwrap();
    writer.finish().unwrap();
    let reader = SavepointReader::open(&place).unwrap();
    let mut writer = SavepointWriter::create(folder.path().join("other")).unwrap();
    let unknown = told(writer.copy(&reader, "b", "b"));
    assert!(unknown.contains("has no operator `b`") && unknown.contains("`a`"), "{unknown}");
    writer.copy(&reader, "a", "a").unwrap();
    let copied = told(writer.keyed_state("a", "s", [(1u8, 1u8)]));
    assert!(copied.contains("has a state `s`") && copied.contains("do not copy the operator"), "{copied}");
    let twice = told(writer.copy(&reader, "a", "a"));
    assert!(twice.contains("operator `a` has state in this savepoint already"), "{twice}");
}
