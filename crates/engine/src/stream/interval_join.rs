//! Interval join: pairs of records of one key whose event times are near each other. Flink's rows: inner, event time,
//! both bounds inclusive unless said otherwise, a result has the larger of both times.
//!
//! Each side keeps its records for each key in order of time. A record is compared with those of the other side that lie
//! within its interval and with no others, and it is kept exactly as long as a partner that is not late may come.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tidemill_core::{Data, Error, NO_TIMESTAMP, Result, WATERMARK_MAX, WATERMARK_MIN};

use super::connected_keyed::KeyedConnectedStreams;
use super::data_stream::{DataStream, fresh};
use super::either::Either;
use super::keyed::KeyedStream;
use super::process::RuntimeContext;
use super::rich::KeyedScope;
use super::selector::KeySelector;
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{CopyRun, Operator, Out, OutputTag, SnapshotParts};
use crate::state::{KeyedStore, Restored, SectionKind, Timers, ValueState, Writer};

/// Two keyed streams whose records are to be paired by time; see [`KeyedStream::interval_join`].
pub struct IntervalJoin<A, B, K, F, G> {
    connected: KeyedConnectedStreams<A, B, K, F, G>,
}

/// An interval join whose interval is known; say what becomes of a pair.
pub struct IntervalJoined<A, B, K, F, G> {
    connected: KeyedConnectedStreams<A, B, K, F, G>,
    how: How<A, B>,
}

struct How<A, B> {
    /// As the left side sees it.
    interval: Interval,
    late_left: Option<OutputTag<A>>,
    late_right: Option<OutputTag<B>>,
}

impl<A, B> Clone for How<A, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A, B> Copy for How<A, B> {}

/// What becomes of a pair of records.
pub trait ProcessJoinFunction<A, B, O>: Clone + Send + 'static {
    /// Before the first record of the subtask.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each pair within the interval.
    fn process(&mut self, left: &A, right: &B, context: &mut ProcessJoinContext<'_, O>) -> Result<()>;

    /// After the last record of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a join function sees beside the pair, and where it puts results.
pub struct ProcessJoinContext<'a, O> {
    left_timestamp_ms: i64,
    right_timestamp_ms: i64,
    out: &'a mut Out<O>,
}

impl<O: 'static> ProcessJoinContext<'_, O> {
    /// The event time of the left record.
    pub fn left_timestamp_ms(&self) -> i64 {
        self.left_timestamp_ms
    }

    /// The event time of the right record.
    pub fn right_timestamp_ms(&self) -> i64 {
        self.right_timestamp_ms
    }

    /// The event time of results: the larger of both.
    pub fn timestamp_ms(&self) -> i64 {
        self.left_timestamp_ms.max(self.right_timestamp_ms)
    }

    /// Emits a result.
    pub fn emit(&mut self, value: O) -> Result<()> {
        self.out.emit(self.timestamp_ms(), value)
    }

    /// Emits to a side output.
    pub fn side_output<S: Data>(&mut self, tag: OutputTag<S>, value: S) -> Result<()> {
        self.out.side(&tag, self.timestamp_ms(), value)
    }
}

impl<A: Data, K: Key, F: KeySelector<A, K>> KeyedStream<A, K, F> {
    /// Pairs each record of this stream, the left one, with those of `other`, the right one, that have its key and are
    /// near it in event time. Late records, those earlier than the watermark, are dropped and counted, or go aside.
    ///
    /// ```
    /// use tidemill_engine::Environment;
    /// use tidemill_engine::stream::{DataStream, WatermarkStrategy};
    ///
    /// type Event = (String, i64); // user, event time in ms
    /// let env = Environment::new();
    /// env.set_parallelism(1);
    /// let timed = |events: &[(&str, i64)]| -> DataStream<Event> {
    ///     let events = events.iter().map(|(user, time)| (user.to_string(), *time)).collect();
    ///     env.from_collection(events).assign_timestamps_and_watermarks(
    ///         WatermarkStrategy::monotonous().with_timestamps(|event: &Event, _| event.1),
    ///     )
    /// };
    /// let shown = timed(&[("ann", 1_000), ("bob", 2_000)]).key_by(|event| event.0.clone());
    /// let clicked = timed(&[("ann", 1_500), ("bob", 9_000)]).key_by(|event| event.0.clone());
    /// // Clicks at most five seconds after what was shown.
    /// let seen = shown
    ///     .interval_join(&clicked)
    ///     .between(0, 5_000)
    ///     .apply(|shown, clicked| Some((shown.0.clone(), clicked.1 - shown.1)))
    ///     .collect();
    /// env.execute("clicks").unwrap();
    /// assert_eq!(seen.take(), [("ann".to_string(), 500)]);
    /// ```
    pub fn interval_join<B: Data, G: KeySelector<B, K>>(
        &self,
        other: &KeyedStream<B, K, G>,
    ) -> IntervalJoin<A, B, K, F, G> {
        IntervalJoin { connected: self.connect(other) }
    }
}

impl<A, B, K, F, G> IntervalJoin<A, B, K, F, G> {
    /// Pairs have `left + lower_ms <= right <= left + upper_ms`. Either bound may be negative.
    pub fn between(self, lower_ms: i64, upper_ms: i64) -> IntervalJoined<A, B, K, F, G> {
        let interval = Interval { from_ms: lower_ms, to_ms: upper_ms };
        IntervalJoined { connected: self.connected, how: How { interval, late_left: None, late_right: None } }
    }
}

impl<A, B, K, F, G> IntervalJoined<A, B, K, F, G>
where
    A: Data,
    B: Data,
    K: Key,
    F: KeySelector<A, K>,
    G: KeySelector<B, K>,
{
    /// Leaves the lower bound itself out.
    pub fn lower_bound_exclusive(mut self) -> Self {
        self.how.interval.from_ms = self.how.interval.from_ms.saturating_add(1);
        self
    }

    /// Leaves the upper bound itself out.
    pub fn upper_bound_exclusive(mut self) -> Self {
        self.how.interval.to_ms = self.how.interval.to_ms.saturating_sub(1);
        self
    }

    /// Sends late records of the left stream to this side output of the result, instead of dropping and counting them.
    pub fn side_output_left_late_data(mut self, tag: OutputTag<A>) -> Self {
        self.how.late_left = Some(tag);
        self
    }

    /// Sends late records of the right stream to this side output of the result, instead of dropping and counting them.
    pub fn side_output_right_late_data(mut self, tag: OutputTag<B>) -> Self {
        self.how.late_right = Some(tag);
        self
    }

    /// Any number of results for each pair.
    pub fn apply<O: Data, I: IntoIterator<Item = O>>(
        self,
        function: impl FnMut(&A, &B) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        self.process(Apply(function))
    }

    /// A function with life cycle, the times of both records, and side outputs.
    pub fn process<O: Data>(self, function: impl ProcessJoinFunction<A, B, O>) -> DataStream<O> {
        let (keyed, how) = (self.connected.keyed(), self.how);
        let functions = Mutex::new((keyed.selector, function));
        keyed.stream.add_operator("Interval Join", move |builder, node| {
            how.interval.check()?;
            let (selector, function) = fresh(&functions);
            let context = builder.runtime_context(node);
            Ok(IntervalJoinOperator {
                how,
                selector,
                function,
                store: KeyedStore::of(&context),
                left: ValueState::new("join-left"),
                right: ValueState::new("join-right"),
                expiry: Timers::of("join-expiry", &context),
                watermark_ms: WATERMARK_MIN,
                late_dropped: 0,
                context,
                opened: false,
            })
        })
    }
}

#[derive(Clone)]
struct Apply<F>(F);

impl<A, B, O: 'static, I, F> ProcessJoinFunction<A, B, O> for Apply<F>
where
    I: IntoIterator<Item = O>,
    F: FnMut(&A, &B) -> I + Clone + Send + 'static,
{
    fn process(&mut self, left: &A, right: &B, context: &mut ProcessJoinContext<'_, O>) -> Result<()> {
        (self.0)(left, right).into_iter().try_for_each(|result| context.emit(result))
    }
}

/// Where a record's partners lie, as distances from its own time; both ends belong to it.
#[derive(Debug, Clone, Copy)]
struct Interval {
    from_ms: i64,
    to_ms: i64,
}

impl Interval {
    fn check(&self) -> Result<()> {
        if self.from_ms <= self.to_ms {
            return Ok(());
        }
        Err(Error::input(format!(
            "no pair lies between the bounds of the interval join: from {} to {} ms",
            self.from_ms, self.to_ms
        ))
        .hint("the lower bound must not be above the upper one, and bounds left out must leave something between them"))
    }

    /// The same interval as the other side sees it.
    fn reversed(self) -> Self {
        Interval { from_ms: self.to_ms.saturating_neg(), to_ms: self.from_ms.saturating_neg() }
    }

    /// The last time at which a partner of a record may lie.
    fn last_ms(self, timestamp_ms: i64) -> i64 {
        timestamp_ms.saturating_add(self.to_ms)
    }
}

/// One side's records of one key by time, and in order of arrival where times are equal.
#[derive(Clone, Serialize, Deserialize)]
struct ByTime<T>(BTreeMap<(i64, u64), T>);

impl<T> ByTime<T> {
    /// Keeps a record; true when it is the earliest.
    fn insert(&mut self, timestamp_ms: i64, value: T) -> bool {
        let earliest = self.first_ms().is_none_or(|first_ms| timestamp_ms < first_ms);
        let same_time = self.0.range((timestamp_ms, 0)..=(timestamp_ms, u64::MAX));
        let order = same_time.last().map_or(0, |((_, order), _)| order + 1);
        self.0.insert((timestamp_ms, order), value);
        earliest
    }

    fn first_ms(&self) -> Option<i64> {
        self.0.first_key_value().map(|((timestamp_ms, _), _)| *timestamp_ms)
    }

    /// The records around a time.
    fn within(&self, interval: Interval, timestamp_ms: i64) -> impl Iterator<Item = (i64, &T)> {
        let from = (timestamp_ms.saturating_add(interval.from_ms), 0);
        let records = self.0.range(from..=(interval.last_ms(timestamp_ms), u64::MAX));
        records.map(|((timestamp_ms, _), value)| (*timestamp_ms, value))
    }
}

/// Compares a record with the other side, and keeps it while a partner that is not late may come. The time behind which
/// none can, when a timer is needed for it.
fn meet<K: Key, T: Data, U: Data>(
    scope: &mut KeyedScope<'_, K>,
    (own, others): (&ValueState<ByTime<T>>, &ValueState<ByTime<U>>),
    (interval, watermark_ms): (Interval, i64),
    (timestamp_ms, value): (i64, T),
    mut pair: impl FnMut(&T, i64, &U) -> Result<()>,
) -> Result<Option<i64>> {
    if let Some(others) = others.get(scope)? {
        others.within(interval, timestamp_ms).try_for_each(|(other_ms, other)| pair(&value, other_ms, other))?;
    }
    let last_ms = interval.last_ms(timestamp_ms);
    if last_ms < watermark_ms {
        return Ok(None);
    }
    let earliest = own.get_or(scope, || ByTime(BTreeMap::new()))?.insert(timestamp_ms, value);
    Ok(earliest.then(|| last_ms.saturating_add(1)))
}

/// Forgets the records of one side whose partners would all be late; the time for which a timer is needed next.
fn forget<K: Key, T: Data>(
    scope: &mut KeyedScope<'_, K>,
    side: &ValueState<ByTime<T>>,
    interval: Interval,
    watermark_ms: i64,
) -> Result<Option<i64>> {
    let Some(records) = side.get_mut(scope)? else { return Ok(None) };
    while let Some(first_ms) = records.first_ms() {
        let last_ms = interval.last_ms(first_ms);
        if last_ms >= watermark_ms && watermark_ms < WATERMARK_MAX {
            return Ok(Some(last_ms.saturating_add(1)));
        }
        records.0.pop_first();
    }
    side.clear(scope)?;
    Ok(None)
}

struct IntervalJoinOperator<A, B, K, S, P> {
    how: How<A, B>,
    selector: S,
    function: P,
    store: KeyedStore<K>,
    left: ValueState<ByTime<A>>,
    right: ValueState<ByTime<B>>,
    /// For each key and side one that is due when its earliest record can be forgotten.
    expiry: Timers<K>,
    watermark_ms: i64,
    late_dropped: u64,
    context: RuntimeContext,
    opened: bool,
}

impl<A: Data, B: Data, K: Key, S, P> IntervalJoinOperator<A, B, K, S, P> {
    /// Sends a late record aside, or counts it.
    fn too_late<T: Data, O: 'static>(
        dropped: &mut u64,
        tag: Option<OutputTag<T>>,
        (timestamp_ms, value): (i64, T),
        out: &mut Out<O>,
    ) -> Result<()> {
        match tag {
            Some(tag) if out.has_side(tag.name) => out.side(&tag, timestamp_ms, value),
            _ => {
                *dropped += 1;
                Ok(())
            }
        }
    }

    fn late<O: 'static>(&mut self, timestamp_ms: i64, value: Either<A, B>, out: &mut Out<O>) -> Result<()> {
        let dropped = &mut self.late_dropped;
        match value {
            Either::Left(value) => Self::too_late(dropped, self.how.late_left, (timestamp_ms, value), out),
            Either::Right(value) => Self::too_late(dropped, self.how.late_right, (timestamp_ms, value), out),
        }
    }
}

const PROGRESS: &str = "join-progress";

impl<A, B, O, K, S, P> Operator<Either<A, B>, O> for IntervalJoinOperator<A, B, K, S, P>
where
    A: Data,
    B: Data,
    O: Data,
    K: Key,
    S: KeySelector<Either<A, B>, K>,
    P: ProcessJoinFunction<A, B, O>,
{
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        let mut reached_ms = None::<i64>;
        for section in state.take(PROGRESS) {
            if let Some(watermark_ms) = section.reader()?.entry::<i64>()? {
                reached_ms = Some(reached_ms.map_or(watermark_ms, |slowest| slowest.min(watermark_ms)));
            }
        }
        // What was late stays late, so event time goes on from the slowest.
        self.watermark_ms = reached_ms.unwrap_or(WATERMARK_MIN);
        self.expiry.restore(&mut state)?;
        self.store.restore(&mut state);
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<Either<A, B>>, out: &mut Out<O>) -> Result<()> {
        if !std::mem::replace(&mut self.opened, true) {
            self.function.open(&self.context)?;
        }
        for (timestamp_ms, value) in batch {
            if timestamp_ms == NO_TIMESTAMP {
                return Err(Error::input("a record without event time came to an interval join")
                    .hint("assign timestamps and watermarks on both streams before the join"));
            }
            if timestamp_ms < self.watermark_ms {
                self.late(timestamp_ms, value, out)?;
                continue;
            }
            let key = self.selector.key(&value);
            let mut scope = KeyedScope { key: &key, store: &mut self.store };
            let (function, watermark_ms) = (&mut self.function, self.watermark_ms);
            let mut pair = |left: &A, right: &B, left_timestamp_ms, right_timestamp_ms| {
                let mut context = ProcessJoinContext { left_timestamp_ms, right_timestamp_ms, out: &mut *out };
                function.process(left, right, &mut context)
            };
            let due = match value {
                Either::Left(left) => meet(
                    &mut scope,
                    (&self.left, &self.right),
                    (self.how.interval, watermark_ms),
                    (timestamp_ms, left),
                    |left, other_ms, right| pair(left, right, timestamp_ms, other_ms),
                )?,
                Either::Right(right) => meet(
                    &mut scope,
                    (&self.right, &self.left),
                    (self.how.interval.reversed(), watermark_ms),
                    (timestamp_ms, right),
                    |right, other_ms, left| pair(left, right, other_ms, timestamp_ms),
                )?,
            };
            if let Some(due_ms) = due {
                self.expiry.register(due_ms, &key);
            }
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        self.watermark_ms = self.watermark_ms.max(watermark_ms);
        while let Some((_, key)) = self.expiry.pop_due(self.watermark_ms)? {
            let mut scope = KeyedScope { key: &key, store: &mut self.store };
            let left = forget(&mut scope, &self.left, self.how.interval, self.watermark_ms)?;
            let right = forget(&mut scope, &self.right, self.how.interval.reversed(), self.watermark_ms)?;
            left.into_iter().chain(right).for_each(|due_ms| self.expiry.register(due_ms, &key));
        }
        out.watermark(watermark_ms)
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        let mut progress = Writer::new(PROGRESS, SectionKind::Operator);
        progress.entry(&self.watermark_ms)?;
        parts.sections.push(progress.finish());
        self.expiry.begin_snapshot(parts)?;
        self.store.begin_snapshot(parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        Ok(self.expiry.copy_some(run)? && self.store.copy_some(run)?)
    }

    fn close(&mut self) -> Result<()> {
        if self.opened { self.function.close() } else { Ok(()) }
    }

    fn late_dropped(&self) -> u64 {
        self.late_dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Random, StateHome, scratch};
    use crate::testing::{Harness, Snapshot};

    /// Key and name. Pairs come out as "left right time".
    type Named = (u8, char);
    type Input = Either<Named, Named>;
    type Joining = Harness<Input, String>;

    const LEFT: OutputTag<Named> = OutputTag::new("late left");
    const RIGHT: OutputTag<Named> = OutputTag::new("late right");

    fn restored(interval: (i64, i64), late: bool, snapshot: &Snapshot) -> Result<Joining> {
        restored_in(&StateHome::default(), interval, late, snapshot)
    }

    fn restored_in(home: &StateHome, (from_ms, to_ms): (i64, i64), late: bool, snapshot: &Snapshot) -> Result<Joining> {
        let pipeline = |left: DataStream<Named>, right: DataStream<Named>| {
            let (left, right) = (left.key_by(|named| named.0), right.key_by(|named| named.0));
            let join = left.interval_join(&right).between(from_ms, to_ms);
            let join = match late {
                true => join.side_output_left_late_data(LEFT).side_output_right_late_data(RIGHT),
                false => join,
            };
            join.apply(|left: &Named, right: &Named| Some(format!("{} {}", left.1, right.1)))
        };
        Harness::two(pipeline).side_output(LEFT).side_output(RIGHT).restore(snapshot).state(home).build()
    }

    fn join(interval: (i64, i64)) -> Joining {
        restored(interval, false, &Snapshot::default()).unwrap()
    }

    fn left(time: i64, name: char) -> (i64, Input) {
        (time, Either::Left((0, name)))
    }

    fn right(time: i64, name: char) -> (i64, Input) {
        (time, Either::Right((0, name)))
    }

    /// What comes of records, as text.
    fn pairs(join: &mut Joining, records: &[(i64, Input)]) -> String {
        join.push_batch(records.to_vec()).unwrap();
        join.take().into_iter().map(|(time, pair)| format!("{pair} {time}")).collect::<Vec<_>>().join(", ")
    }

    /// Bytes of state at a watermark; watermarks of these tests below 64 take one byte.
    fn bytes(join: &mut Joining, watermark_ms: i64) -> usize {
        join.watermark(watermark_ms).unwrap();
        join.snapshot().unwrap().bytes()
    }

    /// Bytes of state of a join that keeps nothing.
    fn nothing(watermark_ms: i64) -> usize {
        bytes(&mut join((0, 0)), watermark_ms)
    }

    #[test]
    fn both_bounds_belong_to_the_interval_and_the_result_has_the_larger_time() {
        let rights = [right(7, 'a'), right(8, 'b'), right(10, 'c'), right(15, 'd'), right(16, 'e')];
        let mut forth = join((-2, 5));
        assert_eq!(pairs(&mut forth, &rights), "");
        assert_eq!(pairs(&mut forth, &[left(10, 'x')]), "x b 10, x c 10, x d 15");
        // The other way round; a record's pairs come in order of time, then of arrival.
        let mut back = join((-2, 5));
        assert_eq!(pairs(&mut back, &[left(10, 'x'), left(9, 'w'), left(10, 'y')]), "");
        let expected = "w a 9, w b 9, x b 10, y b 10, w c 10, x c 10, y c 10, x d 15, y d 15";
        assert_eq!(pairs(&mut back, &rights), expected);
    }

    #[test]
    fn other_keys_never_meet() {
        let other = (1, Either::Right((1, 'a')));
        assert_eq!(pairs(&mut join((-100, 100)), &[left(1, 'x'), other, right(2, 'b')]), "x b 2");
    }

    #[test]
    fn a_record_is_kept_exactly_as_long_as_a_partner_may_come() {
        let mut join = join((0, 5));
        assert_eq!(pairs(&mut join, &[left(10, 'x'), left(12, 'y'), right(20, 'a')]), "");
        // A left record of 10 waits for right ones of 10 to 15, a right one of 20 for left ones of 15 to 20.
        let all = bytes(&mut join, 15);
        assert_eq!(pairs(&mut join, &[right(15, 'b')]), "x b 15, y b 15");
        let with_b = bytes(&mut join, 15);
        assert!(with_b > all, "b itself is kept");
        let without_x = bytes(&mut join, 16);
        assert!(without_x < all, "x and b are gone");
        assert_eq!(pairs(&mut join, &[right(16, 'c')]), "y c 16");
        let until_17 = bytes(&mut join, 16);
        let at_17 = bytes(&mut join, 17);
        assert!(at_17 < until_17, "c is gone");
        assert!(bytes(&mut join, 18) < at_17, "y is gone");
        assert!(bytes(&mut join, 20) > nothing(20));
        assert_eq!(pairs(&mut join, &[left(20, 'z')]), "z a 20");
        assert!(bytes(&mut join, 25) > nothing(25));
        assert_eq!(bytes(&mut join, 26), nothing(26), "no records and no timers are left");
    }

    #[test]
    fn without_an_upper_bound_records_are_kept_until_the_end() {
        let mut join = join((0, i64::MAX));
        assert_eq!(pairs(&mut join, &[left(10, 'x')]), "");
        join.watermark(1_000_000).unwrap();
        assert_eq!(pairs(&mut join, &[right(1_000_000, 'a')]), "x a 1000000");
        assert_eq!(bytes(&mut join, WATERMARK_MAX), nothing(WATERMARK_MAX));
    }

    #[test]
    fn what_can_have_no_partner_any_more_is_not_kept() {
        let mut join = join((-10, -5));
        join.watermark(6).unwrap();
        // Its partners lie at 0 to 5, and are late.
        assert_eq!(pairs(&mut join, &[left(10, 'x')]), "");
        assert_eq!(bytes(&mut join, 6), nothing(6));
        assert_eq!(pairs(&mut join, &[left(11, 'y'), right(6, 'a')]), "y a 11");
    }

    #[test]
    fn late_records_go_aside_each_to_its_side_or_are_counted() {
        let late = [left(9, 'x'), right(8, 'a'), left(10, 'y'), right(10, 'b')];
        let mut aside = restored((-5, 5), true, &Snapshot::default()).unwrap();
        aside.watermark(10).unwrap();
        assert_eq!(pairs(&mut aside, &late), "y b 10", "the watermark's own time is not late");
        assert_eq!((aside.take_side(LEFT), aside.take_side(RIGHT)), (vec![(9, (0, 'x'))], vec![(8, (0, 'a'))]));
        assert_eq!(aside.late_dropped().unwrap(), 0);
        let mut counted = join((-5, 5));
        counted.watermark(10).unwrap();
        assert_eq!(pairs(&mut counted, &late), "y b 10");
        assert_eq!(counted.late_dropped().unwrap(), 2);
    }

    #[test]
    fn what_was_late_is_late_after_a_restore_too() {
        let mut before = join((0, 5));
        assert_eq!(pairs(&mut before, &[left(10, 'x')]), "");
        before.watermark(12).unwrap();
        let mut after = restored((0, 5), false, &before.snapshot().unwrap()).unwrap();
        after.watermark(3).unwrap();
        assert_eq!(pairs(&mut after, &[right(11, 'a'), right(12, 'b')]), "x b 12");
        assert_eq!(after.late_dropped().unwrap(), 1);
        assert_eq!(bytes(&mut after, 18), nothing(18), "timers came back too");
    }

    #[test]
    fn random_streams_in_memory_and_on_disk_by_turns_give_all_pairs_compared() {
        let folder = scratch();
        let homes = [StateHome::default(), StateHome::tiny(folder.path().join("scratch")).unwrap()];
        let mut all = 0;
        for seed in 1..=30u64 {
            let mut random = Random(seed);
            let mut below = |bound: u64| random.below(bound) as i64;
            let from_ms = below(40) - 30;
            let interval = (from_ms, from_ms + below(40));
            let mut join = restored_in(&homes[1], interval, false, &Snapshot::default()).unwrap();
            let (mut newest_ms, mut watermark_ms, mut late) = (0, -100, 0);
            let (mut lefts, mut rights) = (Vec::new(), Vec::new());
            for step in 0..300 {
                newest_ms += below(4);
                let (time_ms, key) = (newest_ms - below(30), below(3) as u8);
                let named = (key, char::from_u32(0x4e00 + step).unwrap());
                match below(12) {
                    0 => {
                        let saved = join.snapshot().unwrap();
                        join = restored_in(&homes[below(2) as usize], interval, false, &saved).unwrap();
                        (watermark_ms, late) = (join_watermark(&mut join, watermark_ms), 0);
                    }
                    1..=3 => watermark_ms = join_watermark(&mut join, watermark_ms.max(newest_ms - below(30))),
                    _ if time_ms < watermark_ms => {
                        assert_eq!(pairs(&mut join, &[(time_ms, Either::Left(named))]), "");
                        late += 1;
                        assert_eq!(join.late_dropped().unwrap(), late);
                    }
                    side => {
                        let (own, others, record) = match side % 2 {
                            0 => (&mut lefts, &rights, Either::Left(named)),
                            _ => (&mut rights, &lefts, Either::Right(named)),
                        };
                        let near = |other: &&(i64, Named)| {
                            let distance = if side % 2 == 0 { other.0 - time_ms } else { time_ms - other.0 };
                            other.1.0 == key && (interval.0..=interval.1).contains(&distance)
                        };
                        let pair = |other: &(i64, Named)| {
                            let (left, right) = if side % 2 == 0 { (named, other.1) } else { (other.1, named) };
                            format!("{} {} {}", left.1, right.1, time_ms.max(other.0))
                        };
                        let mut expected: Vec<String> = others.iter().filter(near).map(pair).collect();
                        let told = pairs(&mut join, &[(time_ms, record)]);
                        let mut told: Vec<&str> = told.split(", ").filter(|pair| !pair.is_empty()).collect();
                        expected.sort();
                        told.sort();
                        assert_eq!(told, expected, "seed {seed}, step {step}");
                        own.push((time_ms, named));
                        all += expected.len();
                    }
                }
            }
        }
        assert!(all > 1_000, "{all} pairs");
    }

    fn join_watermark(join: &mut Joining, watermark_ms: i64) -> i64 {
        join.watermark(watermark_ms).unwrap();
        watermark_ms
    }

    #[test]
    fn without_time_or_with_bounds_that_leave_nothing_it_says_what_to_do() {
        let error = join((0, 5)).push(NO_TIMESTAMP, Either::Left((0, 'x'))).unwrap_err().to_string();
        assert!(error.contains("without event time"), "{error}");
        let error = restored((6, 5), false, &Snapshot::default()).err().unwrap().to_string();
        assert!(error.contains("from 6 to 5 ms"), "{error}");
    }
}
