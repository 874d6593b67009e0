//! Sessions, triggered windows and window functions that are crashed at any point and started again, also with another
//! parallelism, give what an undisturbed run gives.

use std::time::Duration;

use tidemill_core::Result;
use tidemill_engine::state::ValueState;
use tidemill_engine::stream::DataStream;
use tidemill_engine::testing::{Harness, Snapshot};
use tidemill_engine::window::{
    ContinuousEventTimeTrigger, CountEvictor, CountTrigger, EventTimeTrigger, ProcessWindowFunction, PurgingTrigger,
    Session, Tumbling, Window, WindowContext,
};

use crate::joins::Event;
use crate::joins_recovery::{survives_crashes, two};
use crate::recovery::Row;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn sessions_fast_and_with_a_trigger() {
    survives_crashes(5, |env| {
        let (first, second) = two(env, 21, 20_000);
        let row = |what: &'static str| {
            move |key: &u32, window: Window, sum: Event| Some((format!("{what} {key}"), window.end_ms, sum.2))
        };
        let fast = first
            .key_by(|event| event.1)
            .window(Session::event_time(ms(60)))
            .reduce_with(|held, next| held.2 += next.2, row("session"))
            .uid("sessions");
        let dynamic = second
            .key_by(|event| event.1)
            .window(Session::event_time_with_dynamic_gap(|event: &Event| ms(1 + event.2.unsigned_abs() % 120)))
            .trigger(PurgingTrigger::of(CountTrigger::of(3)))
            .reduce_with(|held, next| held.2 += next.2, row("threes"))
            .uid("threes");
        fast.union(&[&dynamic])
    });
}

/// Numbers the windows of a key, and tells at the end of each what it fired last.
#[derive(Clone)]
struct Numbered {
    windows: ValueState<i64>,
    last: ValueState<i64>,
}

impl ProcessWindowFunction<u32, Vec<Event>, Row> for Numbered {
    fn process(&mut self, events: Vec<Event>, context: &mut WindowContext<'_, u32, Row>) -> Result<()> {
        self.last.set(context.window_state()?, events.iter().map(|event| event.2).sum())
    }

    fn clear(&mut self, context: &mut WindowContext<'_, u32, Row>) -> Result<()> {
        let last = self.last.take(context.window_state()?)?.unwrap_or(-1);
        let windows = self.windows.get_or(context.global_state(), || 0)?;
        *windows += 1;
        let windows = *windows;
        let name = format!("window {windows} of {}", context.key());
        context.emit((name, context.window().end_ms, last))
    }
}

#[test]
fn process_functions_and_evictors_with_state_and_timers() {
    survives_crashes(5, |env| {
        let (first, second) = two(env, 22, 20_000);
        let numbered = first
            .key_by(|event| event.1)
            .window(Tumbling::event_time(ms(200)))
            .trigger(ContinuousEventTimeTrigger::of(ms(70)))
            .process(Numbered { windows: ValueState::new("windows"), last: ValueState::new("last") })
            .uid("numbered");
        let last = second
            .key_by(|event| event.1)
            .window(Tumbling::event_time(ms(200)))
            .evictor(CountEvictor::of(3))
            .apply(|key: &u32, window: Window, events: Vec<Event>| {
                let last = events.iter().fold(0, |held, event| held * 1_000 + event.2);
                Some((format!("last three of {key}"), window.end_ms, last))
            })
            .uid("last three");
        let all = second
            .window_all(Tumbling::event_time(ms(100)))
            .reduce_with(
                |held, next| held.2 += next.2,
                |_, window, sum| Some(("all".to_string(), window.end_ms, sum.2)),
            )
            .uid("all");
        numbered.union(&[&last, &all])
    });
}

/// So many keys that their table is copied step by step, from one subtask to two.
#[test]
fn open_windows_of_many_keys_come_back_with_another_parallelism() {
    const KEYS: i64 = 5_000;
    for general in [false, true] {
        let sums = |subtask, parallelism, saved: &Snapshot| {
            let builder = Harness::builder(|input: DataStream<(i64, i64)>| {
                let windows = input.key_by(|pair| pair.0).window(Session::event_time(ms(10)));
                let add = |held: &mut (i64, i64), next: (i64, i64)| held.1 += next.1;
                if general { windows.trigger(EventTimeTrigger).reduce(add) } else { windows.reduce(add) }
            });
            builder.subtask(subtask, parallelism).restore(saved).build().unwrap()
        };
        let mut first = sums(0, 1, &Snapshot::default());
        (0..KEYS).for_each(|key| first.push(key % 7, (key, 1)).unwrap());
        let saved = Snapshot::merged([first.snapshot().unwrap()]);
        let mut got = Vec::new();
        for subtask in 0..2 {
            let mut half = sums(subtask, 2, &saved);
            (0..KEYS).filter(|key| key % 2 == 0 && half.owns(key)).collect::<Vec<_>>().into_iter().for_each(|key| {
                half.push(9, (key, 10)).unwrap();
            });
            half.end().unwrap();
            got.extend(half.take().into_iter().map(|(_, pair)| pair));
        }
        got.sort();
        let expected: Vec<_> = (0..KEYS).map(|key| (key, if key % 2 == 0 { 11 } else { 1 })).collect();
        assert!(got == expected, "general: {general}, {} sums", got.len());
    }
}
