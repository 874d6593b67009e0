//! The harness shows what a job shows: a subtask stepped by hand, saved between any two steps and restored by any number of
//! subtasks, gives what an undisturbed one gives. And the job's own sleepers go by a manual clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_core::source::{Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{Data, ManualClock, NO_TIMESTAMP, Result};
use tidemill_engine::operator::OutputTag;
use tidemill_engine::state::{ExpiringValueState, ListState, MapState, Ttl, ValueState};
use tidemill_engine::stream::{
    DataStream, KeyedContext, KeyedProcessFunction, OperatorStateReader, OperatorStateWriter, TimeDomain,
    WatermarkStrategy,
};
use tidemill_engine::testing::{Harness, Snapshot};
use tidemill_engine::window::{Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

use crate::comes_about;
use crate::windows::Chance;

const SEEN: OutputTag<u32> = OutputTag::new("seen");

/// Emits a key's sum when it was silent for 100 ms of processing time, and at each hundredth of event time.
#[derive(Clone)]
struct Sums {
    sum: ValueState<i64>,
    due: ValueState<i64>,
}

impl Sums {
    fn new() -> Self {
        Sums { sum: ValueState::new("sum"), due: ValueState::new("due") }
    }
}

impl KeyedProcessFunction<u32, (u32, i64), (u32, i64)> for Sums {
    fn process(&mut self, (key, n): (u32, i64), context: &mut KeyedContext<'_, u32, (u32, i64)>) -> Result<()> {
        *self.sum.get_or(context, || 0)? += n;
        let due = context.processing_time_ms() + 100;
        if let Some(before) = self.due.replace(context, due)? {
            context.delete_processing_timer(before);
        }
        context.register_processing_timer(due);
        context.register_event_timer(context.timestamp_ms() / 100 * 100 + 99);
        context.side_output(SEEN, key)
    }

    fn on_timer(&mut self, domain: TimeDomain, context: &mut KeyedContext<'_, u32, (u32, i64)>) -> Result<()> {
        let key = *context.key();
        let sum = match domain {
            TimeDomain::Event => self.sum.get(context)?.copied().unwrap_or(0),
            TimeDomain::Processing => {
                self.due.clear(context)?;
                -self.sum.take(context)?.unwrap_or(0)
            }
        };
        context.emit((key, sum))
    }
}

fn pipeline(input: DataStream<(u32, i64)>) -> DataStream<(u32, i64)> {
    let doubled = input.map(|(key, n)| (key, n * 2)).key_by(|(key, _)| *key);
    doubled.process(Sums::new()).uid("sums")
}

type Numbers = Harness<(u32, i64), (u32, i64)>;

fn subtasks(parallelism: usize, now_ms: i64, snapshot: &Snapshot) -> Vec<Numbers> {
    let of = |subtask| {
        let builder = Harness::builder(pipeline).subtask(subtask, parallelism).clock(now_ms).side_output(SEEN);
        builder.restore(snapshot).build().unwrap()
    };
    (0..parallelism).map(of).collect()
}

/// What all subtasks have given, in an order of its own.
fn taken(subtasks: &mut [Numbers]) -> Vec<(i64, (u32, i64))> {
    let mut all: Vec<_> = subtasks.iter_mut().flat_map(|harness| harness.take()).collect();
    all.sort_unstable();
    all
}

#[test]
fn saved_between_any_two_steps_and_restored_by_any_number_of_subtasks() {
    for seed in 1..=40u64 {
        let mut chance = Chance(seed * 7919);
        let mut whole = subtasks(1, 0, &Snapshot::default());
        let mut divided = subtasks(1, 0, &Snapshot::default());
        let (mut now_ms, mut event_ms) = (0, 0);
        for step in 0..300 {
            match chance.below(10) {
                0 => {
                    event_ms += chance.below(150) as i64;
                    whole.iter_mut().chain(&mut divided).for_each(|harness| harness.watermark(event_ms).unwrap());
                }
                1 | 2 => {
                    now_ms += chance.below(60) as i64;
                    let all = whole.iter_mut().chain(&mut divided);
                    all.for_each(|harness| harness.set_processing_time(now_ms).unwrap());
                }
                3 => {
                    let saved = Snapshot::merged(divided.iter_mut().map(|harness| harness.snapshot().unwrap()));
                    divided = subtasks(1 + chance.below(5) as usize, now_ms, &saved);
                    for restored in &mut divided {
                        restored.watermark(event_ms).unwrap();
                        // Every subtask begins with a record, and so with its state in use.
                        let key = (0..1000).find(|key| restored.owns(key)).unwrap();
                        restored.push(event_ms + 200, (key, 0)).unwrap();
                        whole[0].push(event_ms + 200, (key, 0)).unwrap();
                        assert_eq!(restored.take_side(SEEN), [(event_ms + 200, key)]);
                    }
                }
                _ => {
                    let record = (chance.below(20) as u32, chance.below(100) as i64);
                    // Never at the watermark itself: a timer set there fires with the next one, or with a restore.
                    let timestamp_ms = event_ms + 1 + chance.below(300) as i64;
                    whole[0].push(timestamp_ms, record).unwrap();
                    let owner = divided.iter_mut().find(|harness| harness.owns(&record.0)).unwrap();
                    owner.push(timestamp_ms, record).unwrap();
                    assert_eq!(owner.take_side(SEEN), [(timestamp_ms, record.0)]);
                }
            }
            assert_eq!(taken(&mut divided), taken(&mut whole), "seed {seed} step {step}");
        }
    }
}

/// Keeps the sum of a key, what it has seen and how often, in the types of the first version.
#[derive(Clone)]
struct First(ValueState<i64>, ListState<i64>, MapState<i64, u8>);

/// The same as its second version has it.
#[derive(Clone)]
struct Second(ValueState<(String, i64)>, ListState<String>, MapState<String, u64>);

impl KeyedProcessFunction<u32, (u32, i64), String> for First {
    fn process(&mut self, (_, n): (u32, i64), context: &mut KeyedContext<'_, u32, String>) -> Result<()> {
        *self.0.get_or(context, || 0)? += n;
        self.1.add(context, n)?;
        let times = self.2.get(context, &n)?.copied().unwrap_or(0);
        self.2.put(context, n, times + 1).map(drop)
    }
}

impl KeyedProcessFunction<u32, (u32, i64), String> for Second {
    fn process(&mut self, (key, n): (u32, i64), context: &mut KeyedContext<'_, u32, String>) -> Result<()> {
        let sum = self.0.get_or(context, || ("new".to_string(), 0))?;
        sum.1 += n;
        let sum = format!("{} {}", sum.0, sum.1);
        self.1.add(context, format!("+{n}"))?;
        let times = self.2.get(context, &n.to_string())?.copied().unwrap_or(0);
        self.2.put(context, n.to_string(), times + 1)?;
        let seen = self.1.get(context)?.join("");
        context.emit(format!("{key}: {sum} {seen} {times}"))
    }
}

fn second() -> Second {
    Second(
        ValueState::new("sum-2").migrated_from("sum", |sum: i64| ("old".to_string(), sum)),
        ListState::new("seen-2").migrated_from("seen", |n: i64| format!("+{n}")),
        MapState::new("times-2").migrated_from("times", |n: i64, times: u8| (n.to_string(), u64::from(times))),
    )
}

#[test]
fn state_of_another_type_comes_from_the_old_one_key_by_key() {
    fn of<F: KeyedProcessFunction<u32, (u32, i64), String> + Clone>(
        function: F,
        at: (usize, usize),
        saved: &Snapshot,
    ) -> Harness<(u32, i64), String> {
        let pipeline = |input: DataStream<(u32, i64)>| input.key_by(|pair| pair.0).process(function).uid("sums");
        Harness::builder(pipeline).subtask(at.0, at.1).restore(saved).build().unwrap()
    }
    let first = First(ValueState::new("sum"), ListState::new("seen"), MapState::new("times"));
    let mut old = of(first, (0, 1), &Snapshot::default());
    for key in 0..20 {
        old.push(0, (key, 5)).unwrap();
        old.push(0, (key, 7)).unwrap();
    }
    let mut saved = old.snapshot().unwrap();
    // With each restore other keys are used, and at first by some subtasks only.
    let mut seen = vec!["+5+7".to_string(); 20];
    let mut sums = [12; 20];
    for (parallelism, used) in [(3, 0..4u32), (2, 2..9), (1, 0..20), (4, 0..20)] {
        let mut subtasks: Vec<_> = (0..parallelism).map(|at| of(second(), (at, parallelism), &saved)).collect();
        for key in used {
            let owner = subtasks.iter_mut().find(|harness| harness.owns(&key)).unwrap();
            owner.push(0, (key, 5)).unwrap();
            let at = key as usize;
            let times = seen[at].matches("+5").count();
            sums[at] += 5;
            seen[at].push_str("+5");
            let told = owner.take().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
            assert_eq!(told, [format!("{key}: old {} {} {times}", sums[at], seen[at])], "{parallelism} subtasks");
        }
        saved = Snapshot::merged(subtasks.iter_mut().map(|harness| harness.snapshot().unwrap()));
    }

    let mut refused = |function: Second| {
        let mut harness = of(function, (0, 1), &old.snapshot().unwrap());
        harness.push(0, (1, 1)).unwrap_err().to_string()
    };
    let wrong = ValueState::new("sum-2").migrated_from("sum", |sum: (i64, i64, i64, String)| (sum.3, sum.0));
    let Second(_, list, map) = second();
    let error = refused(Second(wrong, list, map));
    assert!(
        error.contains(
            "`sum`, from which `sum-2` is to come, was saved as i64, and is told to be (i64, i64, i64, string)"
        ),
        "{error}"
    );

    #[derive(Clone)]
    struct Expiring(ExpiringValueState<i64>);
    impl KeyedProcessFunction<u32, (u32, i64), String> for Expiring {
        fn process(&mut self, (_, n): (u32, i64), context: &mut KeyedContext<'_, u32, String>) -> Result<()> {
            self.0.set(context, n)
        }
    }
    let expiring =
        ValueState::new("sum-2").migrated_from("sum", |sum: i64| sum).with_ttl(Ttl::new(Duration::from_secs(1)));
    let mut harness = of(Expiring(expiring), (0, 1), &old.snapshot().unwrap());
    let error = harness.push(0, (1, 1)).unwrap_err().to_string();
    assert!(error.contains("`sum-2` expires, and `sum` says nothing of when"), "{error}");
}

/// What a job kept, and what its next version makes of it: the same bytes in another order of meaning.
#[derive(Clone, Serialize, Deserialize)]
struct Visits {
    seen: u64,
    bought: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Purchases {
    bought: u64,
    seen: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct RenamedVisits {
    #[serde(rename = "seen")]
    looked_at: u64,
    bought: u64,
}

/// Keeps a value for each key, and may keep a list as the operator.
#[derive(Clone)]
struct Remembers<V>(ValueState<V>, fn(u64) -> V, Option<Vec<V>>);

impl<V: Data + Sync> KeyedProcessFunction<u32, (u32, u64), u64> for Remembers<V> {
    fn process(&mut self, (_, n): (u32, u64), context: &mut KeyedContext<'_, u32, u64>) -> Result<()> {
        self.0.set(context, self.1(n))
    }

    fn initialize_state(&mut self, state: &mut OperatorStateReader<'_>) -> Result<()> {
        if let Some(list) = &mut self.2 {
            *list = state.list("list")?;
        }
        Ok(())
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        self.2.iter().try_for_each(|list| state.list("list", list))
    }
}

#[test]
fn a_type_that_was_changed_under_its_old_name_is_refused_with_what_it_was() {
    /// What it saves after a record.
    fn saved<V: Data + Sync>(value: fn(u64) -> V, keeps_list: bool, before: &Snapshot) -> Result<Snapshot> {
        let function = Remembers(ValueState::new("value"), value, keeps_list.then(|| vec![value(1)]));
        let pipeline = |input: DataStream<(u32, u64)>| input.key_by(|pair| pair.0).process(function).uid("keeps");
        let mut harness = Harness::builder(pipeline).restore(before).build()?;
        harness.push(0, (1, 5))?;
        harness.snapshot()
    }
    for (keeps_list, was, is) in [
        (true, "`list` was saved as (seen: u64, bought: u64)", "now (bought: u64, seen: u64)"),
        (false, "`value` was saved as (u32, (seen: u64, bought: u64))", "now (u32, (bought: u64, seen: u64))"),
    ] {
        let before = saved(|n| Visits { seen: n, bought: 0 }, keeps_list, &Snapshot::default()).unwrap();
        let told = saved(|n| Purchases { seen: n, bought: 0 }, keeps_list, &before).unwrap_err().to_string();
        assert!(told.contains(was) && told.contains(is) && told.contains("migrated_from"), "{told}");
        saved(|n| RenamedVisits { looked_at: n, bought: 0 }, keeps_list, &before).unwrap();
    }
}

#[test]
fn what_the_harness_cannot_hold_is_named() {
    let refused = |built: Result<Harness<i64, i64>>| built.err().unwrap().to_string();
    let union = refused(Harness::new(|input: DataStream<i64>| input.union(&[&input]).map(|n| n)));
    assert!(union.contains("`Map`, which has 2 inputs"), "{union}");
    let subtask = refused(Harness::builder(|input: DataStream<i64>| input).subtask(2, 2).build());
    assert!(subtask.contains("subtask 2 of 2 does not exist"), "{subtask}");
    let mut keyed = Harness::new(pipeline).unwrap();
    keyed.push(1, (1, 1)).unwrap();
    let saved = keyed.snapshot().unwrap();
    let error = refused(Harness::builder(|input: DataStream<i64>| input.map(|n| n)).restore(&saved).build());
    assert!(error.contains("no operator for the state of `sums`"), "{error}");
}

#[test]
fn watermarks_late_records_and_the_end_are_as_in_a_job() {
    let mut windows = Harness::new(|input: DataStream<i64>| {
        let windows = input.key_by(|n| n % 2).window(Tumbling::event_time(Duration::from_millis(10)));
        windows.reduce_with(|a, b| *a += b, |_: &i64, window: Window, sum| Some((window.start_ms, sum)))
    })
    .unwrap();
    for n in 0..10 {
        windows.push(n, n).unwrap();
    }
    windows.watermark(9).unwrap();
    windows.watermark(5).unwrap();
    assert_eq!(windows.output_watermark_ms(), 9);
    let mut sums = windows.take();
    sums.sort_unstable();
    assert_eq!(sums, [(9, (0, 20)), (9, (0, 25))]);
    windows.push(3, 3).unwrap();
    windows.push(13, 4).unwrap();
    assert_eq!((windows.late_dropped().unwrap(), windows.take()), (1, vec![]));
    windows.end().unwrap();
    assert_eq!(windows.take(), [(19, (10, 4))]);
}

/// Has a few records, then stays silent until it is released.
pub struct Held {
    pub released: Arc<AtomicBool>,
}

struct HeldReader {
    released: Arc<AtomicBool>,
    splits: Vec<(Split, i64)>,
    context: ReaderContext,
}

impl Source<i64> for Held {
    fn name(&self) -> String {
        "held".into()
    }
    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }
    fn splits(&self) -> Result<Vec<Split>> {
        Ok(vec![Split { id: "only".into(), slot: 0, position: 0.into() }])
    }
    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<i64>>> {
        Ok(Box::new(HeldReader { released: self.released.clone(), splits: Vec::new(), context }))
    }
}

impl SourceReader<i64> for HeldReader {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.splits.extend(splits.into_iter().map(|split| (split, 0)));
        Ok(())
    }
    fn poll(&mut self, output: &mut SourceOutput<i64>) -> Result<Poll> {
        if self.released.load(Ordering::SeqCst) {
            return Ok(Poll::End);
        }
        for (index, (_, next)) in self.splits.iter_mut().enumerate() {
            while *next < 100 {
                output.push(index, NO_TIMESTAMP, *next);
                *next += 1;
            }
        }
        // Looks again each second of the job's clock.
        Ok(Poll::Pending { wake_at_ms: Some(self.context.clock.now_ms() + 1_000) })
    }
    fn snapshot(&mut self) -> Result<Vec<Split>> {
        Ok(self.splits.iter().map(|(split, next)| Split { position: (*next).into(), ..split.clone() }).collect())
    }
}

#[test]
fn windows_by_the_clock_fire_when_a_manual_clock_gets_there_and_no_sooner() {
    for parallelism in 1..=3 {
        let (clock, released) = (Arc::new(ManualClock::new(2_000)), Arc::new(AtomicBool::new(false)));
        let settings = JobSettings { clock: clock.clone(), parallelism: Some(parallelism), ..JobSettings::default() };
        let env = Environment::with_settings(settings);
        let source = Held { released: released.clone() };
        let windows = env
            .from_source(source, WatermarkStrategy::none(), "held")
            .key_by(|n| n % 5)
            .window(Tumbling::processing_time(Duration::from_secs(10)))
            .reduce_with(|a, b| *a += b, |key: &i64, window: Window, sum| Some((*key, (window.end_ms, sum))))
            .collect();
        let (watched, moved) = (windows.clone(), clock.clone());
        let mut early = None;
        let seen = Arc::new(AtomicBool::new(false));
        let fired = seen.clone();
        env.execute_with("by the clock", |job| {
            let read = move || job.report().vertices[1].subtasks.iter().map(|s| s.records_in).sum::<u64>() == 100;
            early = Some(std::thread::spawn(move || {
                // Everything has been read, and the clock stands: nothing fires.
                let read = comes_about(read);
                moved.set(9_999);
                let early = watched.len();
                moved.set(10_000);
                fired.store(read && comes_about(|| watched.len() == 5), Ordering::SeqCst);
                released.store(true, Ordering::SeqCst);
                moved.advance(1_000);
                early
            }));
        })
        .unwrap();
        assert_eq!(early.unwrap().join().unwrap(), 0);
        assert!(seen.load(Ordering::SeqCst), "parallelism {parallelism}: the windows fire at their end");
        let expected: BTreeMap<i64, (i64, i64)> =
            (0..5).map(|key| (key, (10_000, (0..100).filter(|n| n % 5 == key).sum()))).collect();
        assert_eq!(windows.take().into_iter().collect::<BTreeMap<_, _>>(), expected);
    }
}
