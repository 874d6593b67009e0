//! State that folds and state that expires, whose types have changed: filled from what the version before has left.

use std::time::Duration;

use tidemill_core::Result;
use tidemill_engine::state::{
    AggregatingState, ExpiringListState, ExpiringMapState, ExpiringValueState, ListState, MapState, ReducingState, Ttl,
    ValueState,
};
use tidemill_engine::stream::{DataStream, KeyedContext, KeyedProcessFunction};
use tidemill_engine::testing::{Harness, Snapshot};
use tidemill_engine::window::Aggregate;

type Input = (u32, i64);

/// State lives so long.
const LIVES_MS: i64 = 1_000;

fn ttl() -> Ttl {
    Ttl::new(Duration::from_millis(LIVES_MS as u64))
}

#[derive(Clone)]
struct Sum;

impl Aggregate<i64> for Sum {
    type Accumulator = i64;
    type Output = i64;
    fn create(&self) -> i64 {
        0
    }
    fn add(&mut self, sum: &mut i64, value: i64) {
        *sum += value;
    }
    fn merge(&mut self, sum: &mut i64, other: i64) {
        *sum += other;
    }
    fn result(&mut self, sum: i64) -> i64 {
        sum
    }
}

/// How many there were is known since its second version only.
#[derive(Clone)]
struct SumAndCount;

impl Aggregate<i64> for SumAndCount {
    type Accumulator = (i64, u64);
    type Output = (i64, u64);
    fn create(&self) -> (i64, u64) {
        (0, 0)
    }
    fn add(&mut self, (sum, count): &mut (i64, u64), value: i64) {
        (*sum, *count) = (*sum + value, *count + 1);
    }
    fn merge(&mut self, (sum, count): &mut (i64, u64), other: (i64, u64)) {
        (*sum, *count) = (*sum + other.0, *count + other.1);
    }
    fn result(&mut self, both: (i64, u64)) -> (i64, u64) {
        both
    }
}

#[derive(Clone)]
struct First {
    largest: ReducingState<i64, fn(&mut i64, i64)>,
    sum: AggregatingState<i64, Sum>,
    last: ExpiringValueState<i64>,
    seen: ExpiringListState<i64>,
    times: ExpiringMapState<i64, u8>,
    /// Does not expire yet.
    name: ValueState<i64>,
    all: ListState<i64>,
    ever: MapState<i64, u8>,
}

impl KeyedProcessFunction<u32, Input, String> for First {
    fn process(&mut self, (_, n): Input, context: &mut KeyedContext<'_, u32, String>) -> Result<()> {
        self.largest.add(context, n)?;
        self.sum.add(context, n)?;
        self.last.set(context, n)?;
        self.seen.add(context, n)?;
        self.times.put(context, n, 1)?;
        self.name.set(context, n)?;
        self.all.add(context, n)?;
        self.ever.put(context, n, 1).map(drop)
    }
}

#[derive(Clone)]
struct Second {
    largest: ReducingState<String, fn(&mut String, String)>,
    sum: AggregatingState<i64, SumAndCount>,
    last: ExpiringValueState<String>,
    seen: ExpiringListState<String>,
    times: ExpiringMapState<String, u64>,
    name: ExpiringValueState<i64>,
    all: ExpiringListState<i64>,
    ever: ExpiringMapState<i64, u8>,
}

/// The last three were touched at this time, since nobody knows when.
const SINCE_MS: i64 = 500;

fn second() -> Second {
    let text = |(touched_ms, n): (i64, i64)| (touched_ms, n.to_string());
    Second {
        largest: ReducingState::new(
            "largest-2",
            (|held, next| *held = next.max(held.clone())) as fn(&mut String, String),
        )
        .migrated_from("largest", |n: i64| n.to_string()),
        sum: AggregatingState::new("sum-2", SumAndCount).migrated_from("sum", |sum: i64| (sum, 1)),
        last: ValueState::new("last-2").with_ttl(ttl()).migrated_from("last", text),
        seen: ListState::new("seen-2").with_ttl(ttl()).migrated_from("seen", text),
        times: MapState::new("times-2").with_ttl(ttl()).migrated_from("times", |n: i64, (touched_ms, times)| {
            let times: u8 = times;
            (n.to_string(), (touched_ms, u64::from(times)))
        }),
        name: ValueState::new("name-2").with_ttl(ttl()).migrated_from("name", |n: i64| (SINCE_MS, n)),
        all: ListState::new("all-2").with_ttl(ttl()).migrated_from("all", |n: i64| (SINCE_MS, n)),
        ever: MapState::new("ever-2").with_ttl(ttl()).migrated_from("ever", |n: i64, times: u8| (n, (SINCE_MS, times))),
    }
}

impl KeyedProcessFunction<u32, Input, String> for Second {
    fn process(&mut self, _: Input, context: &mut KeyedContext<'_, u32, String>) -> Result<()> {
        let (largest, sum) = (self.largest.get(context)?.cloned(), self.sum.get(context)?);
        let (last, seen) = (self.last.get(context)?.cloned(), self.seen.get(context)?);
        let mut times: Vec<_> = self.times.entries(context)?.into_iter().map(|(n, t)| (n.clone(), *t)).collect();
        times.sort();
        let (name, all) = (self.name.get(context)?.copied(), self.all.get(context)?);
        let ever = self.ever.entries(context)?.len();
        context.emit(format!("{largest:?} {sum:?} {last:?} {seen:?} {times:?} {name:?} {all:?} {ever}"))
    }
}

#[test]
fn state_that_folds_or_expires_comes_from_an_old_one_with_the_times_it_has() {
    type Of = Harness<Input, String>;
    fn of<F: KeyedProcessFunction<u32, Input, String> + Clone>(function: F, saved: &Snapshot, now_ms: i64) -> Of {
        let pipeline = |input: DataStream<Input>| input.key_by(|pair| pair.0).process(function).uid("sums");
        Harness::builder(pipeline).restore(saved).clock(now_ms).build().unwrap()
    }
    let first = First {
        largest: ReducingState::new("largest", |held, next| *held = (*held).max(next)),
        sum: AggregatingState::new("sum", Sum),
        last: ValueState::new("last").with_ttl(ttl()),
        seen: ListState::new("seen").with_ttl(ttl()),
        times: MapState::new("times").with_ttl(ttl()),
        name: ValueState::new("name"),
        all: ListState::new("all"),
        ever: MapState::new("ever"),
    };
    let mut old = of(first, &Snapshot::default(), 100);
    old.push(0, (7, 5)).unwrap();
    old.set_processing_time(600).unwrap();
    old.push(0, (7, 3)).unwrap();
    let saved = old.snapshot().unwrap();

    let told = |now_ms: i64| {
        let mut new = of(second(), &saved, now_ms);
        new.push(0, (7, 0)).unwrap();
        new.push(0, (8, 0)).unwrap();
        let told: Vec<String> = new.take().into_iter().map(|(_, text)| text).collect();
        assert_eq!(told[1], "None None None [] [] None [] 0");
        told[0].clone()
    };
    let folded = r#"Some("5") Some((8, 1))"#;
    let both = format!(r#"{folded} Some("3") ["5", "3"] [("3", 1), ("5", 1)] Some(3) [5, 3] 2"#);
    assert_eq!(told(1_099), both);
    let one = format!(r#"{folded} Some("3") ["3"] [("3", 1)] Some(3) [5, 3] 2"#);
    assert_eq!(told(1_100), one);
    let touched = format!(r#"{folded} Some("3") ["3"] [("3", 1)] None [] 0"#);
    assert_eq!(told(1_500), touched);
    assert_eq!(told(1_600), format!("{folded} None [] [] None [] 0"));
}
