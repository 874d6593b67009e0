//! Triggers and evictors, each shown on a few records. All combinations are compared with a reference in the crate itself.

use std::time::Duration;

use tidemill_core::{NO_TIMESTAMP, Result};
use tidemill_engine::operator::OutputTag;
use tidemill_engine::stream::DataStream;
use tidemill_engine::testing::Harness;
use tidemill_engine::window::{
    ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, CountEvictor, CountTrigger, DeltaEvictor,
    DeltaTrigger, EventTimeTrigger, Evictor, EvictorContext, GlobalWindows, NeverTrigger, ProcessingTimeTrigger,
    ProcessingTimeoutTrigger, PurgingTrigger, Session, Sliding, TimeEvictor, TimeWindows, Trigger, TriggerContext,
    TriggerResult, Tumbling, WindowKind,
};

const LATE: OutputTag<i64> = OutputTag::new("late");

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn ten() -> TimeWindows {
    Tumbling::event_time(ms(10))
}

type Lists = Harness<i64, Vec<i64>>;

/// All numbers of the windows of one key, whenever they fire.
fn lists<W: WindowKind<i64>>(windows: W) -> Lists {
    Harness::builder(|input: DataStream<i64>| {
        let windowed = input.key_by(|_| 0u8).window(windows).side_output_late_data(LATE);
        windowed.apply(|_, _, numbers: Vec<i64>| Some(numbers))
    })
    .side_output(LATE)
    .build()
    .unwrap()
}

fn triggered<W: WindowKind<i64>>(windows: W, trigger: impl Trigger<i64>) -> Lists {
    Harness::new(|input: DataStream<i64>| {
        input.key_by(|_| 0u8).window(windows).trigger(trigger).apply(|_, _, numbers: Vec<i64>| Some(numbers))
    })
    .unwrap()
}

fn lateness(trigger: impl Trigger<i64>, lateness_ms: u64) -> Lists {
    Harness::new(|input: DataStream<i64>| {
        let windowed = input.key_by(|_| 0u8).window(ten()).trigger(trigger).allowed_lateness(ms(lateness_ms));
        windowed.apply(|_, _, numbers: Vec<i64>| Some(numbers))
    })
    .unwrap()
}

/// Gives records whose value is their time, and what they made fire.
fn push(lists: &mut Lists, times: &[i64]) -> Vec<Vec<i64>> {
    times.iter().for_each(|time| lists.push(*time, *time).unwrap());
    taken(lists)
}

fn taken(lists: &mut Lists) -> Vec<Vec<i64>> {
    lists.take().into_iter().map(|(_, list)| list).collect()
}

fn until(lists: &mut Lists, watermark_ms: i64) -> Vec<Vec<i64>> {
    lists.watermark(watermark_ms).unwrap();
    taken(lists)
}

fn at(lists: &mut Lists, now_ms: i64) -> Vec<Vec<i64>> {
    lists.set_processing_time(now_ms).unwrap();
    taken(lists)
}

const NOTHING: [Vec<i64>; 0] = [];

#[test]
fn the_event_time_trigger_fires_at_the_end_and_at_each_late_record() {
    let mut lists = lateness(EventTimeTrigger, 5);
    assert_eq!(push(&mut lists, &[3, 12]), NOTHING);
    assert_eq!(until(&mut lists, 8), NOTHING);
    assert_eq!(until(&mut lists, 9), [[3]]);
    assert_eq!(push(&mut lists, &[4, 5]), [vec![3, 4], vec![3, 4, 5]]);
    assert_eq!(until(&mut lists, 14), NOTHING);
    assert_eq!(push(&mut lists, &[6]), NOTHING);
    assert_eq!(lists.late_dropped().unwrap(), 1);
    assert_eq!(until(&mut lists, 100), [[12]]);
}

#[test]
fn a_purging_trigger_forgets_what_it_fired() {
    let mut lists = lateness(PurgingTrigger::of(EventTimeTrigger), 5);
    push(&mut lists, &[3]);
    assert_eq!(until(&mut lists, 9), [[3]]);
    assert_eq!(push(&mut lists, &[4, 5]), [[4], [5]]);
    assert_eq!(until(&mut lists, 100), NOTHING, "an empty window does not fire");
}

#[test]
fn the_processing_time_trigger_fires_by_the_clock_even_on_event_time_windows() {
    let mut lists = triggered(ten(), ProcessingTimeTrigger);
    assert_eq!(push(&mut lists, &[13]), NOTHING);
    assert_eq!(at(&mut lists, 19), NOTHING);
    assert_eq!(at(&mut lists, 20), [[13]]);
    assert_eq!(until(&mut lists, 100), NOTHING, "its end in event time only lets it go");
}

#[test]
fn the_count_trigger_counts_in_each_window_and_keeps_what_it_fired() {
    let mut lists = triggered(ten(), CountTrigger::of(2));
    assert_eq!(push(&mut lists, &[1, 11, 2, 12, 3]), [vec![1, 2], vec![11, 12]]);
    assert_eq!(push(&mut lists, &[4]), [[1, 2, 3, 4]]);
    assert_eq!(until(&mut lists, 100), NOTHING, "what is left at the end does not fire");
}

#[test]
fn continuous_event_time_fires_at_every_interval_and_at_the_end() {
    let mut lists = lateness(ContinuousEventTimeTrigger::of(ms(4)), 3);
    push(&mut lists, &[1, 5]);
    assert_eq!(until(&mut lists, 3), NOTHING);
    assert_eq!(until(&mut lists, 4), [[1, 5]]);
    push(&mut lists, &[6]);
    assert_eq!(until(&mut lists, 9), [[1, 5, 6], [1, 5, 6]], "at 8, and at the end, 9");
    assert_eq!(push(&mut lists, &[7]), [[1, 5, 6, 7]], "late but allowed");
    assert_eq!(until(&mut lists, 100), NOTHING);
    assert!(lists.push(NO_TIMESTAMP, 1).unwrap_err().to_string().contains("without event time"));
}

#[test]
fn continuous_processing_time_fires_at_every_interval_of_the_clock() {
    let mut lists = triggered(GlobalWindows::new(), ContinuousProcessingTimeTrigger::of(ms(10)));
    assert_eq!(at(&mut lists, 7), NOTHING);
    assert_eq!(push(&mut lists, &[1, 2]), NOTHING);
    assert_eq!(at(&mut lists, 10), NOTHING, "10 has not passed yet");
    assert_eq!(at(&mut lists, 11), [[1, 2]]);
    assert_eq!(push(&mut lists, &[3]), NOTHING);
    assert_eq!(at(&mut lists, 31), [[1, 2, 3], [1, 2, 3]], "at 20 and at 30");
}

#[test]
fn the_delta_trigger_fires_when_a_record_is_far_from_the_one_that_fired_last() {
    let mut lists = triggered(GlobalWindows::new(), DeltaTrigger::of(5.0, |a: &i64, b: &i64| (a - b).abs() as f64));
    assert_eq!(push(&mut lists, &[10, 15]), NOTHING, "not more than 5");
    assert_eq!(push(&mut lists, &[16, 20]), [[10, 15, 16]]);
    assert_eq!(push(&mut lists, &[22]), [[10, 15, 16, 20, 22]]);
}

#[test]
fn a_timeout_fires_what_the_count_would_wait_for() {
    let trigger = ProcessingTimeoutTrigger::of(CountTrigger::of(3), ms(100));
    let mut lists = triggered(GlobalWindows::new(), trigger);
    push(&mut lists, &[1]);
    assert_eq!(at(&mut lists, 50), NOTHING);
    push(&mut lists, &[2]);
    assert_eq!(at(&mut lists, 100), NOTHING);
    assert_eq!(at(&mut lists, 101), [[1, 2]], "100 ms behind the first record");
    assert_eq!(push(&mut lists, &[3, 4]), NOTHING, "the count has begun anew");
    assert_eq!(push(&mut lists, &[5]), [[1, 2, 3, 4, 5]]);
    assert_eq!(at(&mut lists, 1_000), NOTHING, "and the timer went with it");

    let reset = ProcessingTimeoutTrigger::of(CountTrigger::of(3), ms(100)).reset_timer_on_new_record(true);
    let mut lists = triggered(GlobalWindows::new(), PurgingTrigger::of(reset.clear_on_timeout(false)));
    push(&mut lists, &[1]);
    at(&mut lists, 50);
    push(&mut lists, &[2]);
    assert_eq!(at(&mut lists, 101), NOTHING, "the second record has put it off");
    assert_eq!(at(&mut lists, 151), [[1, 2]]);
    assert_eq!(push(&mut lists, &[3]), [[3]], "the count has gone on: it is the third");
}

#[test]
fn global_windows_fire_by_a_trigger_only_and_nothing_is_late() {
    let mut silent = lists(GlobalWindows::new());
    assert_eq!(push(&mut silent, &[1, 2, 3]), NOTHING);
    assert_eq!(until(&mut silent, i64::MAX), NOTHING);
    let mut at_end = lists(GlobalWindows::with_end_of_stream_trigger());
    push(&mut at_end, &[5]);
    assert_eq!(until(&mut at_end, 1_000), NOTHING);
    push(&mut at_end, &[1]);
    assert_eq!(until(&mut at_end, i64::MAX), [[5, 1]]);
    assert_eq!(at_end.take_side(LATE), []);
    let mut counts = triggered(GlobalWindows::new(), CountTrigger::of(2));
    counts.push(7, 7).unwrap();
    counts.push(3, 3).unwrap();
    assert_eq!(counts.take(), [(3, vec![7, 3])], "with the time of the record that made it fire");
}

#[test]
fn never_is_never() {
    let mut lists = triggered(ten(), NeverTrigger);
    push(&mut lists, &[1, 2]);
    assert_eq!(until(&mut lists, i64::MAX), NOTHING);
}

/// Fires at the end, and early when a number comes twice in a row; counts in its state how often it fired early.
#[derive(Clone)]
struct Twice;

impl Trigger<i64> for Twice {
    type State = (Option<i64>, u32);

    fn on_element(
        &mut self,
        value: &i64,
        _: i64,
        context: &mut TriggerContext<'_, Self::State>,
    ) -> Result<TriggerResult> {
        context.register_event_timer(context.window().max_timestamp_ms());
        let (last, early) = context.state.get_or_insert((None, 0));
        let again = last.replace(*value) == Some(*value);
        *early += u32::from(again);
        Ok(if again && *early <= 2 { TriggerResult::Fire } else { TriggerResult::Continue })
    }

    fn on_event_time(&mut self, _: i64, context: &mut TriggerContext<'_, Self::State>) -> Result<TriggerResult> {
        let early = context.state.as_ref().map_or(0, |state| state.1);
        Ok(if early == 0 { TriggerResult::Fire } else { TriggerResult::Purge })
    }
}

#[test]
fn a_trigger_of_ones_own_has_state_for_each_key_and_window() {
    let mut lists = triggered(ten(), Twice);
    assert_eq!(push(&mut lists, &[1, 11, 2, 12]), NOTHING);
    assert_eq!(push(&mut lists, &[2, 2, 2]), [vec![1, 2, 2], vec![1, 2, 2, 2]], "twice early, not a third time");
    assert_eq!(until(&mut lists, 100), [[11, 12]], "and the window that fired early is purged");
}

#[test]
fn late_records_of_triggered_windows_go_aside_only_if_no_window_takes_them() {
    let mut windows = Harness::builder(|input: DataStream<i64>| {
        let windowed = input.key_by(|_| 0u8).window(Sliding::event_time(ms(10), ms(5))).trigger(EventTimeTrigger);
        windowed.side_output_late_data(LATE).apply(|_, window, numbers: Vec<i64>| Some((window.end_ms, numbers)))
    })
    .side_output(LATE)
    .build()
    .unwrap();
    windows.watermark(11).unwrap();
    windows.push(7, 7).unwrap();
    windows.push(3, 3).unwrap();
    assert_eq!(windows.take_side(LATE), [(3, 3)]);
    windows.watermark(100).unwrap();
    assert_eq!(windows.take(), [(14, (15, vec![7]))]);
}

fn evicted(evictor: impl Evictor<i64>) -> Lists {
    Harness::new(|input: DataStream<i64>| {
        let windowed = input.key_by(|_| 0u8).window(GlobalWindows::new()).trigger(CountTrigger::of(3));
        windowed.evictor(evictor).apply(|_, _, numbers: Vec<i64>| Some(numbers))
    })
    .unwrap()
}

#[test]
fn evictors_remove_before_or_after_and_for_good() {
    let six = [3, 9, 1, 4, 2, 8];
    let mut lists = evicted(CountEvictor::of(2));
    assert_eq!(push(&mut lists, &six), [[9, 1], [2, 8]]);
    let mut lists = evicted(CountEvictor::of(2).after_function());
    assert_eq!(push(&mut lists, &six), [vec![3, 9, 1], vec![9, 1, 4, 2, 8]]);
    let mut lists = evicted(TimeEvictor::of(ms(6)));
    assert_eq!(push(&mut lists, &six), [vec![9], vec![9, 4, 8]]);
    let mut lists = evicted(DeltaEvictor::of(3.0, |a: &i64, last: &i64| (a - last).abs() as f64));
    assert_eq!(push(&mut lists, &six), [vec![3, 1], vec![8]]);
}

/// Before: the smallest; after: all but the largest.
#[derive(Clone)]
struct Ends;

impl Evictor<i64> for Ends {
    fn evict_before(&mut self, records: &mut Vec<(i64, i64)>, context: &EvictorContext) -> Result<()> {
        assert_eq!(context.window.start_ms, i64::MAX);
        let least = records.iter().map(|(_, n)| *n).min();
        records.retain(|(_, n)| Some(*n) != least);
        Ok(())
    }

    fn evict_after(&mut self, records: &mut Vec<(i64, i64)>, _: &EvictorContext) -> Result<()> {
        let most = records.iter().map(|(_, n)| *n).max();
        records.retain(|(_, n)| Some(*n) == most);
        Ok(())
    }
}

#[test]
fn an_evictor_of_ones_own_and_an_empty_window_says_nothing() {
    let mut lists = evicted(Ends);
    assert_eq!(push(&mut lists, &[3, 9, 1, 4, 2, 8]), [vec![3, 9], vec![9, 4, 8]]);
    let mut lists = evicted(CountEvictor::of(0));
    assert_eq!(push(&mut lists, &[1, 2, 3, 4]), NOTHING);
    let mut sums = Harness::new(|input: DataStream<i64>| {
        input.key_by(|_| 0u8).count_window(2).evictor(CountEvictor::of(0)).reduce(|a, b| *a += b)
    })
    .unwrap();
    (0..4).for_each(|n| sums.push(n, n).unwrap());
    assert_eq!(sums.take(), []);
}

#[test]
fn evictors_work_on_running_aggregations_and_sessions_too() {
    let mut sums = Harness::new(|input: DataStream<i64>| {
        let sessions = input.key_by(|_| 0u8).window(Session::event_time(ms(10))).evictor(CountEvictor::of(2));
        sessions.reduce(|a, b| *a += b)
    })
    .unwrap();
    for time in [0, 20, 10, 5] {
        sums.push(time, time).unwrap();
    }
    sums.watermark(100).unwrap();
    // One session: the elements of [0, 10), of [20, 30), then 10, which joined them, then 5.
    assert_eq!(sums.take(), [(29, 15)]);
}
