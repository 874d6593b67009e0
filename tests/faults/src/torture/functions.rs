//! What the steps do with events: pure functions, which the reference calls too, and the stateful functions of the job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill::prelude::*;

use super::graph::Event;
use super::reference::next;

/// The map's work, and that of the asynchronous call.
pub fn mapped(event: Event, number: i64) -> Event {
    Event { value: event.value.wrapping_mul(3).wrapping_add(number), ..event }
}

/// The second map of a co-map.
pub fn second_mapped(event: Event) -> Event {
    Event { value: event.value.wrapping_mul(7).wrapping_sub(event.key), ..event }
}

/// Another key, made of key and value.
pub fn rekeyed(event: Event, keys: i64) -> Event {
    Event { key: event.key.wrapping_mul(31).wrapping_add(event.value).rem_euclid(keys), ..event }
}

/// The flat map's copies.
pub fn copies(event: Event) -> impl Iterator<Item = Event> {
    (0..event.value.rem_euclid(3)).map(move |number| Event { value: event.value.wrapping_add(number), ..event })
}

/// What becomes of an event that left by the side.
pub fn side(event: Event) -> Event {
    Event { value: event.value.wrapping_mul(5), ..event }
}

/// The gap of a session that depends on the value; odd as `gap` is.
pub fn dynamic_gap(gap: i64, event: &Event) -> i64 {
    gap + 2 * event.value.rem_euclid(gap)
}

/// Count and sum in one.
pub fn windowed(key: i64, count: usize, sum: i64) -> Event {
    Event { key, value: sum.wrapping_mul(1_000).wrapping_add(count as i64) }
}

/// An event as a row of columns. Some have a text, of different lengths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Of the event.
    pub key: i64,
    /// The second key.
    pub text: Option<String>,
    /// Of the event.
    pub value: i64,
}

/// The row of an event.
pub fn row(event: Event) -> Row {
    let text = match event.value.rem_euclid(4) {
        0 => None,
        rest => Some("text ".repeat(rest as usize - 1)),
    };
    Row { key: event.key, text, value: event.value }
}

/// Whether the row of an event is taken back again.
pub fn is_taken_back(event: Event) -> bool {
    event.value % 3 == 0
}

/// What windows over columns say of a key and text; without least and most where rows are taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Of the rows.
    pub key: i64,
    /// Of the rows.
    pub text: Option<String>,
    /// How many rows there are.
    pub count: i64,
    /// Of their values.
    pub sum: i64,
    /// Of their values.
    pub least: Option<i64>,
    /// Of their values.
    pub most: Option<i64>,
}

/// The result of a window over columns.
pub fn totalled(totals: Totals) -> Event {
    let text = totals.text.map_or(-1, |text| text.len() as i64);
    let numbers = [text, totals.count, totals.sum, totals.least.unwrap_or(0), totals.most.unwrap_or(0)];
    let value = numbers.iter().fold(0i64, |value, number| value.wrapping_mul(1_009).wrapping_add(*number));
    Event { key: totals.key, value }
}

/// Every value counts with its place in their order, so that none may be missing, twice or another's.
pub fn listed(key: i64, mut events: Vec<Event>) -> Event {
    events.sort();
    let value = events.iter().fold(0i64, |list, event| list.wrapping_mul(31).wrapping_add(event.value));
    Event { key, value }
}

/// A pair of the interval join.
pub fn pair(left: &Event, right: &Event) -> Event {
    Event { key: left.key, value: left.value.wrapping_mul(31).wrapping_add(right.value) }
}

/// A pair of the window join.
pub fn joined(left: &Event, right: &Event) -> Event {
    Event { key: left.key, value: left.value.wrapping_sub(right.value.wrapping_mul(17)) }
}

/// What a co-group makes of the two sides.
pub fn grouped(key: i64, left: Vec<Event>, right: Vec<Event>) -> Event {
    let (left, right) = (listed(key, left), listed(key, right));
    Event { key, value: left.value.wrapping_mul(1_000_003).wrapping_add(right.value) }
}

/// An event, and what it knows of the broadcast stream.
pub fn broadcast_event(event: Event, known: i64) -> Event {
    Event { value: event.value.wrapping_mul(13).wrapping_add(known), ..event }
}

/// Count and sum.
#[derive(Clone)]
pub struct CountSum;

impl Aggregate<Event> for CountSum {
    type Accumulator = (i64, i64);
    type Output = (i64, i64);

    fn create(&self) -> (i64, i64) {
        (0, 0)
    }
    fn add(&mut self, held: &mut (i64, i64), event: Event) {
        *held = (held.0 + 1, held.1.wrapping_add(event.value));
    }
    fn merge(&mut self, held: &mut (i64, i64), other: (i64, i64)) {
        *held = (held.0 + other.0, held.1.wrapping_add(other.1));
    }
    fn result(&mut self, held: (i64, i64)) -> (i64, i64) {
        held
    }
}

/// Odd values leave by the side.
#[derive(Clone)]
pub struct Sides;

/// Where they leave.
pub const ODD: OutputTag<Event> = OutputTag::new("odd");

impl ProcessFunction<Event, Event> for Sides {
    fn process(&mut self, event: Event, context: &mut ProcessContext<'_, Event>) -> Result<()> {
        if event.value % 2 == 0 { context.emit(event) } else { context.side_output(ODD, event) }
    }
}

/// Sums by key and end of interval, given on when the watermark has passed the end.
#[derive(Clone)]
pub struct PreAggregate {
    /// The length of the intervals.
    pub size_ms: i64,
    /// By end of interval and key.
    pub sums: BTreeMap<(i64, i64), i64>,
}

impl ProcessFunction<Event, Event> for PreAggregate {
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        for (of, sum) in saved.list::<((i64, i64), i64)>("sums")? {
            let held = self.sums.entry(of).or_default();
            *held = held.wrapping_add(sum);
        }
        Ok(())
    }

    fn process(&mut self, event: Event, context: &mut ProcessContext<'_, Event>) -> Result<()> {
        let held = self.sums.entry((next(context.timestamp_ms(), self.size_ms), event.key)).or_default();
        *held = held.wrapping_add(event.value);
        Ok(())
    }

    fn on_watermark(&mut self, watermark_ms: i64, context: &mut ProcessContext<'_, Event>) -> Result<()> {
        while let Some(first) = self.sums.first_entry().filter(|first| first.key().0 <= watermark_ms) {
            let ((end_ms, key), value) = first.remove_entry();
            context.emit_at(end_ms, Event { key, value })?;
        }
        Ok(())
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        let sums: Vec<((i64, i64), i64)> = self.sums.iter().map(|(of, sum)| (*of, *sum)).collect();
        state.list("sums", &sums)
    }
}

/// The first of each value.
#[derive(Clone)]
pub struct Distinct(pub MapState<i64, ()>);

impl KeyedProcessFunction<i64, Event, Event> for Distinct {
    fn process(&mut self, event: Event, context: &mut KeyedContext<'_, i64, Event>) -> Result<()> {
        if self.0.get(context, &event.value)?.is_some() {
            return Ok(());
        }
        self.0.put(context, event.value, ())?;
        context.emit(event)
    }
}

/// Sums of intervals, emitted by timers; of a second stream what is taken away.
#[derive(Clone)]
pub struct Timed {
    size_ms: i64,
    /// By end of interval.
    sums: MapState<i64, i64>,
    newest: ValueState<i64>,
}

impl Timed {
    /// Of intervals of this length.
    pub fn new(size_ms: i64) -> Self {
        Timed { size_ms, sums: MapState::new("sums"), newest: ValueState::new("newest") }
    }

    fn add(&mut self, value: i64, context: &mut KeyedContext<'_, i64, Event>) -> Result<()> {
        let due = next(context.timestamp_ms(), self.size_ms);
        let held = self.sums.get(context, &due)?.copied().unwrap_or(0);
        self.sums.put(context, due, held.wrapping_add(value))?;
        // A timer that is taken back and set again fires once.
        if self.newest.get(context)?.is_some_and(|newest| *newest == due) {
            context.delete_event_timer(due);
        }
        self.newest.set(context, due)?;
        context.register_event_timer(due);
        Ok(())
    }

    fn fire(&mut self, context: &mut KeyedContext<'_, i64, Event>) -> Result<()> {
        let (key, due) = (*context.key(), context.timestamp_ms());
        match self.sums.remove(context, &due)? {
            Some(value) => context.emit(Event { key, value }),
            None => Err(Error::bug(format!("the timer {due} of key {key} has nothing to emit"))),
        }
    }
}

impl KeyedProcessFunction<i64, Event, Event> for Timed {
    fn process(&mut self, event: Event, context: &mut KeyedContext<'_, i64, Event>) -> Result<()> {
        self.add(event.value, context)
    }
    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, i64, Event>) -> Result<()> {
        self.fire(context)
    }
}

impl KeyedCoProcessFunction<i64, Event, Event, Event> for Timed {
    fn process_first(&mut self, event: Event, context: &mut KeyedContext<'_, i64, Event>) -> Result<()> {
        self.add(event.value, context)
    }
    fn process_second(&mut self, event: Event, context: &mut KeyedContext<'_, i64, Event>) -> Result<()> {
        self.add(event.value.wrapping_neg(), context)
    }
    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, i64, Event>) -> Result<()> {
        self.fire(context)
    }
}

/// Events wait in keyed state until their timer, and see then what was broadcast before it.
#[derive(Clone)]
pub struct Waiting {
    /// Between timers.
    pub size_ms: i64,
    /// With the time of their timer.
    pub waiting: ListState<(i64, Event)>,
}

/// Sums of broadcast values by time.
pub const KNOWN: BroadcastState<i64, i64> = BroadcastState::new("known");

impl KeyedBroadcastProcessFunction<i64, Event, Event, Event> for Waiting {
    fn process(&mut self, event: Event, context: &mut KeyedReadOnlyContext<'_, i64, Event>) -> Result<()> {
        let due = next(context.timestamp_ms(), self.size_ms);
        self.waiting.add(context, (due, event))?;
        context.register_event_timer(due);
        Ok(())
    }

    fn process_broadcast(&mut self, event: Event, context: &mut KeyedBroadcastContext<'_, i64, Event>) -> Result<()> {
        let time = context.timestamp_ms();
        let known = context.broadcast_state(&KNOWN)?;
        let held = known.get(&time).copied().unwrap_or(0);
        known.put(time, held.wrapping_add(event.value));
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedReadOnlyContext<'_, i64, Event>) -> Result<()> {
        let now = context.timestamp_ms();
        let known = context.broadcast_state(&KNOWN)?.iter().filter(|(time, _)| **time < now);
        let known = known.fold(0i64, |sum, (_, value)| sum.wrapping_add(*value));
        let (due, rest): (Vec<_>, Vec<_>) = self.waiting.take(context)?.into_iter().partition(|(due, _)| *due == now);
        self.waiting.update(context, rest)?;
        due.into_iter().try_for_each(|(_, event)| context.emit(broadcast_event(event, known)))
    }
}
