//! Session windows through the API: what merges, what fires again, what is late, and that nothing is lost in a crash.

use std::time::Duration;

use tidemill_core::Data;
use tidemill_engine::operator::OutputTag;
use tidemill_engine::stream::DataStream;
use tidemill_engine::testing::Harness;
use tidemill_engine::window::{
    CountTrigger, DeltaTrigger, EventTimeTrigger, ProcessWindowFunction, Session, Window, WindowContext, WindowKind,
};

/// Key and value.
type Pair = (char, i64);
/// Key, window, sum and number of records.
type Visit = (char, i64, i64, i64);

const LATE: OutputTag<Pair> = OutputTag::new("late");

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The sums of a key's sessions.
fn sums<W: WindowKind<Pair>>(windows: W, lateness_ms: u64) -> Harness<Pair, Visit> {
    Harness::builder(|input: DataStream<Pair>| {
        input
            .key_by(|pair| pair.0)
            .window(windows)
            .allowed_lateness(ms(lateness_ms))
            .side_output_late_data(LATE)
            .reduce_with(
                |held, next| held.1 += next.1,
                |key: &char, window: Window, (_, sum)| Some((*key, window.start_ms, window.end_ms, sum)),
            )
    })
    .side_output(LATE)
    .build()
    .unwrap()
}

fn values<O: Data>(records: Vec<(i64, O)>) -> Vec<O> {
    records.into_iter().map(|(_, value)| value).collect()
}

#[test]
fn records_exactly_a_gap_apart_are_of_one_session_and_one_more_ms_is_not() {
    let mut sums = sums(Session::event_time(ms(10)), 0);
    for (time, value) in [(0, 1), (10, 2), (21, 4)] {
        sums.push(time, ('a', value)).unwrap();
    }
    sums.watermark(18).unwrap();
    assert_eq!(sums.take(), []);
    sums.watermark(19).unwrap();
    assert_eq!(sums.take(), [(19, ('a', 0, 20, 3))], "the result has the session's last millisecond");
    sums.watermark(i64::MAX).unwrap();
    assert_eq!(values(sums.take()), [('a', 21, 31, 4)]);
}

#[test]
fn a_record_between_two_sessions_makes_them_one() {
    let mut sums = sums(Session::event_time(ms(10)), 0);
    for (time, value) in [(0, 1), (25, 2), (12, 4)] {
        sums.push(time, ('a', value)).unwrap();
    }
    sums.push(18, ('b', 100)).unwrap();
    sums.watermark(15).unwrap();
    assert_eq!(sums.take(), [(9, ('a', 0, 10, 1))], "12 does not touch [0, 10), but [12, 22) touches nothing yet");
    sums.push(18, ('a', 8)).unwrap();
    sums.watermark(100).unwrap();
    let mut rest = values(sums.take());
    rest.sort();
    assert_eq!(rest, [('a', 12, 35, 14), ('b', 18, 28, 100)]);
}

#[test]
fn a_gap_can_be_of_the_record() {
    let mut sums = sums(Session::event_time_with_dynamic_gap(|pair: &Pair| ms(pair.1 as u64)), 0);
    for (time, gap) in [(0, 5), (4, 50), (50, 2), (70, 3)] {
        sums.push(time, ('a', gap)).unwrap();
    }
    sums.watermark(i64::MAX).unwrap();
    assert_eq!(values(sums.take()), [('a', 0, 54, 57), ('a', 70, 73, 3)]);
    let error = sums.push(100, ('a', 0)).unwrap_err().to_string();
    assert!(error.contains("gap of less than 1 ms"), "{error}");
}

#[test]
fn a_late_record_that_joins_two_fired_sessions_fires_the_whole_again() {
    let mut sums = sums(Session::event_time(ms(10)), 100);
    sums.push(0, ('a', 1)).unwrap();
    sums.push(20, ('a', 2)).unwrap();
    sums.watermark(50).unwrap();
    assert_eq!(values(sums.take()), [('a', 0, 10, 1), ('a', 20, 30, 2)]);
    sums.push(10, ('a', 4)).unwrap();
    assert_eq!(values(sums.take()), [('a', 0, 30, 7)], "at once, since it is over already");
    sums.push(30, ('a', 8)).unwrap();
    assert_eq!(values(sums.take()), [('a', 0, 40, 15)]);
    sums.push(39, ('a', 16)).unwrap();
    assert_eq!(values(sums.take()), [('a', 0, 49, 31)]);
    sums.push(45, ('a', 32)).unwrap();
    assert_eq!(sums.take(), [], "it reaches beyond the watermark now, and waits");
    sums.watermark(54).unwrap();
    assert_eq!(values(sums.take()), [('a', 0, 55, 63)]);
    assert_eq!(sums.take_side(LATE), []);
}

#[test]
fn a_session_is_kept_for_its_lateness_and_then_records_go_aside() {
    let mut sums = sums(Session::event_time(ms(10)), 5);
    sums.push(0, ('a', 1)).unwrap();
    sums.watermark(13).unwrap();
    sums.push(1, ('a', 2)).unwrap();
    assert_eq!(values(sums.take()), [('a', 0, 10, 1), ('a', 0, 11, 3)]);
    // [0, 11) is kept until 15; a record whose own window is over and touches nothing is late.
    sums.watermark(15).unwrap();
    sums.push(1, ('a', 4)).unwrap();
    assert_eq!(sums.take(), []);
    assert_eq!(sums.take_side(LATE), [(1, ('a', 4))]);
    sums.push(2, ('a', 8)).unwrap();
    assert_eq!(values(sums.take()), [('a', 2, 12, 8)], "its own session is allowed until 16; the others are gone");
}

#[test]
fn sessions_by_the_clock_end_when_it_has_moved_on() {
    let mut sums = sums(Session::processing_time(ms(10)), 0);
    sums.set_processing_time(100).unwrap();
    sums.push(-5, ('a', 1)).unwrap();
    sums.set_processing_time(109).unwrap();
    sums.push(7, ('a', 2)).unwrap();
    sums.set_processing_time(118).unwrap();
    assert_eq!(sums.take(), []);
    sums.set_processing_time(119).unwrap();
    assert_eq!(sums.take(), [(118, ('a', 100, 119, 3))]);
    assert_eq!(sums.take_side(LATE), []);
}

#[test]
fn counts_of_sessions_that_become_one_are_added() {
    let mut sums = Harness::new(|input: DataStream<Pair>| {
        let sessions = input.key_by(|pair| pair.0).window(Session::event_time(ms(10)));
        sessions.trigger(CountTrigger::of(3)).apply(|_, window, pairs: Vec<Pair>| {
            Some((window.start_ms, window.end_ms, pairs.iter().map(|pair| pair.1).collect::<Vec<_>>()))
        })
    })
    .unwrap();
    for (time, value) in [(0, 1), (30, 2), (15, 3)] {
        sums.push(time, ('a', value)).unwrap();
    }
    assert_eq!(sums.take(), [], "three sessions of one record each");
    sums.push(24, ('a', 4)).unwrap();
    assert_eq!(sums.take(), [(39, (15, 40, vec![2, 3, 4]))], "one and one, and the record that joins them");
}

#[derive(Clone)]
struct Asks;

impl ProcessWindowFunction<char, Vec<Pair>, i64> for Asks {
    fn process(&mut self, _: Vec<Pair>, context: &mut WindowContext<'_, char, i64>) -> tidemill_core::Result<()> {
        context.window_state().map(drop)
    }
}

#[test]
fn what_cannot_merge_is_refused_with_words() {
    let delta = Harness::<Pair, Pair>::new(|input| {
        let sessions = input.key_by(|pair| pair.0).window(Session::event_time(ms(10)));
        sessions.trigger(DeltaTrigger::of(1.0, |a: &Pair, b: &Pair| (a.1 - b.1) as f64)).sum(|pair| &mut pair.1)
    });
    let error = delta.err().unwrap().to_string();
    assert!(error.contains("trigger that cannot merge") && error.contains("session"), "{error}");
    let none = Harness::<Pair, Pair>::new(|input| {
        input.key_by(|pair| pair.0).window(Session::event_time(ms(0))).sum(|pair| &mut pair.1)
    });
    assert!(none.err().unwrap().to_string().contains("at least 1 ms"));
    let mut asks = Harness::new(|input: DataStream<Pair>| {
        input.key_by(|pair| pair.0).window(Session::event_time(ms(10))).process(Asks)
    })
    .unwrap();
    asks.push(0, ('a', 1)).unwrap();
    let error = asks.watermark(100).unwrap_err().to_string();
    assert!(error.contains("session windows merge"), "{error}");
}

/// Asked of Flink 2.3.0 in SQL: `SESSION(TABLE bid PARTITION BY usr, DESCRIPTOR(ts), INTERVAL '10' SECOND)` with the watermark
/// `ts - INTERVAL '5' SECOND`. Times in ms, users, and the places of the records in the input, from 1.
#[test]
fn sessions_are_those_flink_has_computed() {
    let bids = [
        (-2_000, "u1"),
        (0, "u2"),
        (3_250, "u1"),
        (1_000, "u3"),
        (4_000, "u2"),
        (9_999, "nobody"),
        (10_000, "u1"),
        (8_000, "u1"),
        (12_000, "u4"),
        (5_000, "u1"),
        (14_500, "u2"),
        (14_500, "u2"),
        (17_000, "u5"),
        (7_000, "late1"),
        (19_999, "u4"),
        (20_000, "nobody"),
        (26_000, "u1"),
        (3_000, "late2"),
        (21_000, "u2"),
        (33_000, "u3"),
        (19_000, "late3"),
        (29_000, "u1"),
        (31_000, "u9"),
        (45_000, "u1"),
        (30_000, "late4"),
        (41_000, "u4"),
        (40_000, "u2"),
        (65_000, "u1"),
        (59_999, "late5"),
        (60_000, "u3"),
        (60_000, "u4"),
        (150_000, "u1"),
        (62_000, "late6"),
        (145_001, "u1"),
        (149_000, "nobody"),
    ];
    let flink: &[(i64, i64, &str, &[usize])] = &[
        (1_000, 11_000, "u3", &[4]),
        (0, 14_000, "u2", &[2, 5]),
        (7_000, 17_000, "late1", &[14]),
        (9_999, 19_999, "nobody", &[6]),
        (-2_000, 20_000, "u1", &[1, 3, 7, 8, 10]),
        (17_000, 27_000, "u5", &[13]),
        (19_000, 29_000, "late3", &[21]),
        (12_000, 29_999, "u4", &[9, 15]),
        (20_000, 30_000, "nobody", &[16]),
        (14_500, 31_000, "u2", &[11, 12, 19]),
        (26_000, 39_000, "u1", &[17, 22]),
        (31_000, 41_000, "u9", &[23]),
        (33_000, 43_000, "u3", &[20]),
        (40_000, 50_000, "u2", &[27]),
        (41_000, 51_000, "u4", &[26]),
        (45_000, 55_000, "u1", &[24]),
        (59_999, 69_999, "late5", &[29]),
        (60_000, 70_000, "u4", &[31]),
        (60_000, 70_000, "u3", &[30]),
        (65_000, 75_000, "u1", &[28]),
        (149_000, 159_000, "nobody", &[35]),
        (145_001, 160_000, "u1", &[32, 34]),
    ];
    for general in [false, true] {
        let mut sessions = Harness::new(|input: DataStream<(usize, String)>| {
            let windows = input.key_by(|bid| bid.1.clone()).window(Session::event_time(ms(10_000)));
            let emit = |user: &String, window: Window, bids: Vec<(usize, String)>| {
                let places = bids.iter().map(|bid| bid.0).collect::<Vec<_>>();
                Some((window.start_ms, window.end_ms, user.clone(), places))
            };
            if general { windows.trigger(EventTimeTrigger).apply(emit) } else { windows.apply(emit) }
        })
        .unwrap();
        let mut newest_ms = i64::MIN;
        for (place, (time_ms, user)) in bids.iter().enumerate() {
            sessions.push(*time_ms, (place + 1, user.to_string())).unwrap();
            newest_ms = newest_ms.max(*time_ms);
            sessions.watermark(newest_ms - 5_000).unwrap();
        }
        sessions.end().unwrap();
        let mut got = values(sessions.take());
        let mut expected: Vec<_> = flink.iter().map(|row| (row.0, row.1, row.2.to_string(), row.3.to_vec())).collect();
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "general: {general}");
        assert!(sessions.late_dropped().unwrap() > 0);
    }
}
