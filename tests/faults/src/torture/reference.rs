//! What a step must come to: naive, single-threaded, over whole lists.

use std::collections::{BTreeMap, BTreeSet};

use super::functions::{
    Totals, broadcast_event, copies, dynamic_gap, grouped, is_taken_back, joined, listed, mapped, pair, rekeyed, row,
    second_mapped, side, totalled, windowed,
};
use super::graph::{Event, Step};

/// A time and an event.
type Row = (i64, Event);

/// The results of a step, unless there are more than `most` or they hang on how far the watermark was when an event came.
pub fn results(step: Step, rows: &[Row], second: &[Row], most: usize) -> Option<Vec<Row>> {
    let each = |make: &dyn Fn(Event) -> Vec<Event>| {
        rows.iter().flat_map(|(time, event)| make(*event).into_iter().map(|made| (*time, made))).collect::<Vec<Row>>()
    };
    let results = match step {
        Step::Map(number) => each(&|event| vec![mapped(event, number)]),
        Step::Rekey(keys) => each(&|event| vec![rekeyed(event, keys)]),
        Step::FlatMap => each(&|event| copies(event).collect()),
        Step::Filter(number) => each(&|event| if event.value % number != 0 { vec![event] } else { vec![] }),
        Step::Sides => each(&|event| vec![if event.value % 2 == 0 { event } else { side(event) }]),
        Step::Asynchronous { .. } => each(&|event| vec![mapped(event, 1)]),
        Step::Union(_) => rows.iter().chain(second).copied().collect(),
        Step::Connect(_) => {
            let first = rows.iter().map(|(time, event)| (*time, mapped(*event, 2)));
            first.chain(second.iter().map(|(time, event)| (*time, second_mapped(*event)))).collect()
        }
        Step::Tumbling(size) => sums(windows(rows, size, size)),
        Step::Sliding(size, slide) => {
            let made = |((key, end), held): ((i64, i64), Vec<Row>)| (end - 1, windowed(key, held.len(), sum(&held)));
            windows(rows, size, slide).into_iter().map(made).collect()
        }
        Step::Session(gap) => sessions(rows, |_| gap)?,
        Step::DynamicSession(gap) => sessions(rows, |event| dynamic_gap(gap, event))?,
        Step::Listed(size) => lists(rows, size, i64::MAX),
        Step::Evicted(size, keep) => lists(rows, size, keep),
        Step::TumblingAll(size) => {
            let one: Vec<Row> = rows.iter().map(|(time, event)| (*time, Event { key: 0, ..*event })).collect();
            sums(windows(&one, size, size))
        }
        Step::PreAggregated(size) => {
            let due = |(time, event): &Row| (next(*time, size), *event);
            sums(windows(&rows.iter().map(due).collect::<Vec<Row>>(), size, size))
        }
        Step::Columns(size, slide) => totals(rows, size, slide, true),
        Step::ColumnChanges(size) => {
            let left: Vec<Row> = rows.iter().copied().filter(|(_, event)| !is_taken_back(*event)).collect();
            totals(&left, size, size, false)
        }
        Step::CountWindow(number) => {
            let full = |(key, held): (i64, Vec<Row>)| vec![(0, Event { key, value: 1 }); held.len() / number as usize];
            by_key(rows).into_iter().flat_map(full).collect()
        }
        Step::Numbered => {
            let numbered =
                |(key, held): (i64, Vec<Row>)| (1..=held.len() as i64).map(move |value| (0, Event { key, value }));
            by_key(rows).into_iter().flat_map(numbered).collect()
        }
        Step::Distinct => rows
            .iter()
            .map(|(_, event)| *event)
            .collect::<BTreeSet<Event>>()
            .into_iter()
            .map(|event| (0, event))
            .collect(),
        Step::Timers(size) => {
            sums(windows(rows, size, size)).into_iter().map(|(time, event)| (time + 1, event)).collect()
        }
        Step::CoTimers(_, size) => {
            let negative =
                second.iter().map(|(time, event)| (*time, Event { value: event.value.wrapping_neg(), ..*event }));
            let both: Vec<Row> = rows.iter().copied().chain(negative).collect();
            sums(windows(&both, size, size)).into_iter().map(|(time, event)| (time + 1, event)).collect()
        }
        Step::IntervalJoin(_, within) => {
            let others = by_key(second);
            let mut pairs = Vec::new();
            for (time, left) in rows {
                for (other, right) in others.get(&left.key).into_iter().flatten() {
                    if (other - time).abs() <= within {
                        pairs.push(((*time).max(*other), pair(left, right)));
                    }
                }
                if pairs.len() > most {
                    return None;
                }
            }
            pairs
        }
        Step::WindowJoin(_, size) => {
            let others = windows(second, size, size);
            let mut pairs = Vec::new();
            for (of, held) in windows(rows, size, size) {
                let right = others.get(&of).map_or(&[][..], Vec::as_slice);
                if held.len().saturating_mul(right.len()) > most {
                    return None;
                }
                let all = held.iter().flat_map(|(_, a)| right.iter().map(move |(_, b)| (of.1 - 1, joined(a, b))));
                pairs.extend(all);
            }
            pairs
        }
        Step::CoGroup(_, size) => {
            let (first, others) = (windows(rows, size, size), windows(second, size, size));
            let all: BTreeSet<&(i64, i64)> = first.keys().chain(others.keys()).collect();
            let values =
                |held: Option<&Vec<Row>>| held.map_or(Vec::new(), |held| held.iter().map(|row| row.1).collect());
            all.into_iter().map(|of| (of.1 - 1, grouped(of.0, values(first.get(of)), values(others.get(of))))).collect()
        }
        Step::Broadcast(_, size) => {
            let before = |due: i64| {
                let earlier = second.iter().filter(|(time, _)| *time < due);
                earlier.fold(0i64, |sum, (_, event)| sum.wrapping_add(event.value))
            };
            let dues: BTreeSet<i64> = rows.iter().map(|(time, _)| next(*time, size)).collect();
            let known: BTreeMap<i64, i64> = dues.into_iter().map(|due| (due, before(due))).collect();
            let made = |(time, event): &Row| {
                let due = next(*time, size);
                (due, broadcast_event(*event, known[&due]))
            };
            rows.iter().map(made).collect()
        }
    };
    (results.len() <= most).then_some(results)
}

/// The first multiple of `size` behind a time.
pub fn next(time: i64, size: i64) -> i64 {
    time - time.rem_euclid(size) + size
}

fn sum(rows: &[Row]) -> i64 {
    rows.iter().fold(0, |sum, (_, event)| sum.wrapping_add(event.value))
}

fn by_key(rows: &[Row]) -> BTreeMap<i64, Vec<Row>> {
    let mut keys: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    rows.iter().for_each(|row| keys.entry(row.1.key).or_default().push(*row));
    keys
}

/// By key and end of window.
fn windows(rows: &[Row], size: i64, slide: i64) -> BTreeMap<(i64, i64), Vec<Row>> {
    let mut windows: BTreeMap<(i64, i64), Vec<Row>> = BTreeMap::new();
    for row in rows {
        let mut start = row.0 - row.0.rem_euclid(slide);
        while start > row.0 - size {
            windows.entry((row.1.key, start + size)).or_default().push(*row);
            start -= slide;
        }
    }
    windows
}

fn sums(windows: BTreeMap<(i64, i64), Vec<Row>>) -> Vec<Row> {
    windows.into_iter().map(|((key, end), held)| (end - 1, Event { key, value: sum(&held) })).collect()
}

/// By key, text and window.
fn totals(rows: &[Row], size: i64, slide: i64, extremes: bool) -> Vec<Row> {
    let mut results = Vec::new();
    for ((key, end), held) in windows(rows, size, slide) {
        let mut texts: BTreeMap<Option<String>, Vec<i64>> = BTreeMap::new();
        held.iter().for_each(|(_, event)| texts.entry(row(*event).text).or_default().push(event.value));
        for (text, values) in texts {
            let sum = values.iter().fold(0i64, |sum, value| sum.wrapping_add(*value));
            let (least, most) = (values.iter().copied().min(), values.iter().copied().max());
            let (least, most) = (least.filter(|_| extremes), most.filter(|_| extremes));
            let of = Totals { key, text, count: values.len() as i64, sum, least, most };
            results.push((end - 1, totalled(of)));
        }
    }
    results
}

fn lists(rows: &[Row], size: i64, keep: i64) -> Vec<Row> {
    let list = |((key, end), held): ((i64, i64), Vec<Row>)| {
        let newest = held.iter().map(|(time, _)| *time).max().unwrap_or_default();
        let kept = held.into_iter().filter(|(time, _)| *time > newest.saturating_sub(keep));
        (end - 1, listed(key, kept.map(|(_, event)| event).collect()))
    };
    windows(rows, size, size).into_iter().map(list).collect()
}

/// Windows from an event to its gap's end; those that overlap are one. Nothing if two touch: whether they are one then hangs on
/// whether the first has ended when the second's event comes.
fn sessions(rows: &[Row], gap: impl Fn(&Event) -> i64) -> Option<Vec<Row>> {
    let mut results = Vec::new();
    for (key, mut held) in by_key(rows) {
        held.sort_by_key(|(time, _)| *time);
        let mut open: Option<(i64, i64)> = None;
        for (time, event) in held {
            let end = time + gap(&event);
            open = match open {
                Some((open_end, _)) if time == open_end => return None,
                Some((open_end, value)) if time < open_end => {
                    Some((open_end.max(end), value.wrapping_add(event.value)))
                }
                over => {
                    results.extend(over.map(|(end, value)| (end - 1, Event { key, value })));
                    Some((end, event.value))
                }
            };
        }
        results.extend(open.map(|(end, value)| (end - 1, Event { key, value })));
    }
    Some(results)
}
