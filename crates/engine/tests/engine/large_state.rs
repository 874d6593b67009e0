//! State too large to be copied at once: checkpoints that hold only what has changed, taken while records come in, give
//! after any crash what an undisturbed run gives.

use std::path::Path;
use std::time::{Duration, Instant};

use tidemill_core::Result;
use tidemill_engine::checkpoint::CheckpointFolder;
use tidemill_engine::state::ValueState;
use tidemill_engine::stream::{JobHandle, KeyedContext, KeyedProcessFunction, TimeDomain, WatermarkStrategy};
use tidemill_engine::window::{Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

use crate::recovery::{Crashes, Ledger, Row};
use crate::windows::Chance;

const EVENTS: i64 = 200_000;
const KEYS: u64 = 8_000;
const BUCKET_MS: i64 = 3_000;

/// Time in ms, key, amount.
type Event = (i64, u64, i64);

fn events() -> Vec<Event> {
    let mut chance = Chance(42);
    (0..EVENTS).map(|at| (at / 10, chance.below(KEYS), chance.below(1_000) as i64)).collect()
}

/// Sums a key's amounts of a bucket of time; a timer behind the bucket emits the sum and forgets it.
#[derive(Clone)]
struct Buckets {
    sum: ValueState<i64>,
}

impl KeyedProcessFunction<(u64, i64), Event, Row> for Buckets {
    fn process(&mut self, event: Event, context: &mut KeyedContext<'_, (u64, i64), Row>) -> Result<()> {
        *self.sum.get_or(context, || 0)? += event.2;
        let end_ms = (context.key().1 + 1) * BUCKET_MS;
        context.register_event_timer(end_ms + BUCKET_MS / 2);
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, (u64, i64), Row>) -> Result<()> {
        let sum = self.sum.take(context)?.unwrap_or(-1);
        let (key, bucket) = *context.key();
        context.emit((format!("bucket {key}"), bucket, sum))
    }
}

pub fn build(env: &Environment, ledger: &Ledger) {
    let strategy = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(1))
        .with_timestamps(|event: &Event, _| event.0)
        .with_interval(Duration::ZERO);
    let events = env.from_collection(events()).uid("events").assign_timestamps_and_watermarks(strategy).uid("times");
    let buckets = events
        .key_by(|event| (event.1, event.0 / BUCKET_MS))
        .process(Buckets { sum: ValueState::new("sum") })
        .uid("buckets");
    let windows = events
        .key_by(|event| event.1)
        .window(Tumbling::event_time(Duration::from_millis(5_000)))
        .reduce_with(
            |held, next| held.2 += next.2,
            |key: &u64, window: Window, sum: Event| Some((format!("window {key}"), window.end_ms, sum.2)),
        )
        .uid("windows");
    // Never removed, so that there is something that does not change between two checkpoints.
    let totals = events.key_by(|event| event.1).sum(|event| &mut event.2).uid("totals");
    let last = totals.key_by(|event| event.1).process(Last { last: ValueState::new("last") }).uid("last");
    windows.union(&[&buckets, &last]).sink_to(ledger.clone()).uid("ledger");
}

/// Makes values so large that their table is copied in many steps.
const PADDING: usize = 400;

/// Emits the last total of each key at the end of time.
#[derive(Clone)]
struct Last {
    last: ValueState<(i64, Vec<u8>)>,
}

impl KeyedProcessFunction<u64, Event, Row> for Last {
    fn process(&mut self, event: Event, context: &mut KeyedContext<'_, u64, Row>) -> Result<()> {
        self.last.get_or(context, || (0, vec![7; PADDING]))?.0 = event.2;
        context.register_event_timer(EVENTS);
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, u64, Row>) -> Result<()> {
        let last = self.last.get(context)?.map_or(-1, |last| last.0);
        let key = *context.key();
        context.emit((format!("total {key}"), 0, last))
    }
}

fn settings(folder: &Path, parallelism: usize) -> JobSettings {
    JobSettings {
        checkpoint_dir: Some(folder.to_path_buf()),
        checkpoint_interval_ms: Some(10),
        parallelism: Some(parallelism),
        ..JobSettings::default()
    }
}

fn undisturbed() -> Vec<Row> {
    let ledger = Ledger::default();
    let env = Environment::new();
    env.set_parallelism(2);
    build(&env, &ledger);
    env.execute("undisturbed").unwrap();
    ledger.rows()
}

/// Every file beside the checkpoints is named by one of them; how many of them earlier ones had written.
fn nothing_is_left_over(folder: &Path) -> usize {
    let checkpoints = CheckpointFolder::open(folder).unwrap();
    let mut named = std::collections::BTreeSet::new();
    for epoch in checkpoints.complete().unwrap() {
        let text = std::fs::read_to_string(checkpoints.path(epoch).join("_metadata")).unwrap();
        named.extend(text.split('"').filter_map(|word| word.strip_prefix("../shared/")).map(str::to_string));
    }
    let found = std::fs::read_dir(folder.join("shared")).unwrap();
    let found: std::collections::BTreeSet<String> =
        found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, named);
    let newest = checkpoints.complete().unwrap().last().copied().unwrap_or_default();
    found.iter().filter(|file| !file.starts_with(&format!("{newest}-"))).count()
}

#[test]
fn crashes_with_large_state_lose_and_double_nothing() {
    let expected = undisturbed();
    assert!(expected.len() > 60_000, "{}", expected.len());
    let folders = Crashes { seeds: 4, crashes_max: 5, parallelism_max: 3, settings }.survive(&expected, build);
    let built_on: usize = folders.iter().map(|folder| nothing_is_left_over(folder.path())).sum();
    assert!(built_on > 0, "no checkpoint was built on an earlier one");
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_made_good_by_the_next() {
    let expected = undisturbed();
    // On a busy machine the job may be over before the trouble is; then it is tried again.
    let troubled = (0..20).find_map(|_| {
        let (folder, ledger) = (tempfile::tempdir().unwrap(), Ledger::default());
        let env = Environment::with_settings(settings(folder.path(), 2));
        build(&env, &ledger);
        let shared = folder.path().join("shared");
        let outcome = env.execute_with("trouble", |job| drop(std::thread::spawn(move || trouble(&job, &shared))));
        outcome.is_err_and(|error| error.to_string().contains("crash")).then_some((folder, ledger))
    });
    let (folder, ledger) = troubled.unwrap();
    let env = Environment::with_settings(settings(folder.path(), 3));
    build(&env, &ledger);
    env.execute("again").unwrap();
    assert!(ledger.rows() == expected);
}

/// Takes the folder for shared files away until a checkpoint has failed; crashes the job when two more are complete.
fn trouble(job: &JobHandle, shared: &Path) -> Option<()> {
    let wait_for = |count: &dyn Fn() -> u64, more: u64| {
        let (before, deadline) = (count(), Instant::now() + Duration::from_secs(20));
        while count() < before + more {
            std::thread::yield_now();
            (Instant::now() < deadline).then_some(())?;
        }
        Some(())
    };
    let completed = || job.report().checkpoints.completed;
    let failed = || job.report().checkpoints.failed;
    wait_for(&completed, 2)?;
    let aside = shared.with_extension("aside");
    std::fs::rename(shared, &aside).ok()?;
    let came = wait_for(&failed, 1);
    std::fs::rename(&aside, shared).ok()?;
    came?;
    wait_for(&completed, 2)?;
    job.fail("crash");
    Some(())
}
