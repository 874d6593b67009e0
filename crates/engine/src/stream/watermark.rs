//! Event time at its origin: who gives a record its timestamp, and how far event time has come (Flink's `WatermarkStrategy`).
//!
//! A source has one generator for each split and emits the minimum over its active splits, every
//! [`WatermarkStrategy::with_interval`] or sooner behind many records, and only if it grew. A split without records for the
//! idle time-out is left out; a source subtask without an active split follows the slowest active one elsewhere (see
//! `runtime::board`). A split read to its end is left out for good. Sources of one alignment group wait for each other (see
//! `driver::alignment`).

use std::time::Duration;

use tidemill_core::{Clock, NO_TIMESTAMP, WATERMARK_MIN};

use crate::driver::Records;
use crate::runtime::board::Board;

/// Gives a record its event time in epoch ms, from the record and the time it carries already.
pub(crate) trait TimestampAssigner<T>: Send {
    fn boxed_clone(&self) -> Box<dyn TimestampAssigner<T>>;
    /// Assigns a whole run of records: one dispatch a batch, not a record.
    fn assign_all(&mut self, records: &mut [(i64, T)]);
}

impl<T, F: FnMut(&T, i64) -> i64 + Clone + Send + 'static> TimestampAssigner<T> for F {
    fn boxed_clone(&self) -> Box<dyn TimestampAssigner<T>> {
        Box::new(self.clone())
    }

    fn assign_all(&mut self, records: &mut [(i64, T)]) {
        for (timestamp_ms, value) in records {
            *timestamp_ms = self(value, *timestamp_ms);
        }
    }
}

/// A watermark generator of one's own: sees every record of its split in order.
pub trait WatermarkGenerator<T>: Send {
    /// Sees a record; a watermark returned here is emitted at once, behind this record (a punctuated watermark).
    fn on_event(&mut self, value: &T, timestamp_ms: i64) -> Option<i64>;

    /// The watermark now, asked for at each interval; `None` when there is none yet.
    fn on_periodic(&mut self) -> Option<i64>;
}

type GeneratorFactory<T> = std::sync::Arc<dyn Fn() -> Box<dyn WatermarkGenerator<T>> + Send + Sync>;

enum GeneratorKind<T> {
    None,
    Bounded { delay_ms: i64 },
    Custom(GeneratorFactory<T>),
}

/// Timestamps and watermarks for a stream.
///
/// ```
/// use std::time::Duration;
/// use tidemill_engine::stream::WatermarkStrategy;
/// let strategy = WatermarkStrategy::<(i64, String)>::bounded_out_of_orderness(Duration::from_secs(3))
///     .with_timestamps(|event: &(i64, String), _| event.0);
/// ```
pub struct WatermarkStrategy<T> {
    generator: GeneratorKind<T>,
    assigner: Option<std::sync::Mutex<Box<dyn TimestampAssigner<T>>>>,
    idle_timeout_ms: Option<i64>,
    interval_ms: Option<i64>,
    alignment: Option<Alignment>,
}

/// How far the splits of a source may run ahead of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alignment {
    pub group: String,
    pub max_drift_ms: i64,
    pub interval_ms: i64,
    /// Whether a reader that cannot pause single splits is accepted.
    pub unaligned_splits: bool,
}

impl<T: 'static> WatermarkStrategy<T> {
    fn of(generator: GeneratorKind<T>) -> Self {
        WatermarkStrategy { generator, assigner: None, idle_timeout_ms: None, interval_ms: None, alignment: None }
    }

    /// No watermarks: for processing time.
    pub fn none() -> Self {
        Self::of(GeneratorKind::None)
    }

    /// Records come at most `delay` late: the watermark is the largest timestamp − delay − 1 ms.
    pub fn bounded_out_of_orderness(delay: Duration) -> Self {
        Self::of(GeneratorKind::Bounded { delay_ms: delay.as_millis() as i64 })
    }

    /// Timestamps grow within each split: the watermark is the largest timestamp − 1 ms.
    pub fn monotonous() -> Self {
        Self::bounded_out_of_orderness(Duration::ZERO)
    }

    /// A generator of one's own, made once for each split.
    pub fn custom<G: WatermarkGenerator<T> + 'static>(make: impl Fn() -> G + Send + Sync + 'static) -> Self {
        Self::of(GeneratorKind::Custom(std::sync::Arc::new(move || Box::new(make()))))
    }

    /// Takes the event time from the record. The closure also sees the time the source gave it (`NO_TIMESTAMP` if none).
    pub fn with_timestamps(mut self, assign: impl FnMut(&T, i64) -> i64 + Clone + Send + 'static) -> Self {
        self.assigner = Some(std::sync::Mutex::new(Box::new(assign)));
        self
    }

    /// Leaves a split out of the minimum after it was silent this long.
    pub fn with_idleness(mut self, timeout: Duration) -> Self {
        self.idle_timeout_ms = Some(timeout.as_millis() as i64);
        self
    }

    /// How often watermarks are emitted; default 200 ms, zero after every batch. Behind 32,768 records they may come after an
    /// eighth of it; a generator of one's own is always asked at its interval.
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval_ms = Some(interval.as_millis() as i64);
        self
    }

    /// Puts the source into the alignment group `group`: what is more than `max_drift` ahead of the slowest subtask of the
    /// group's sources, in event time, is not read on until that has come closer; how far it has come is looked up every
    /// `update_interval` (Flink's default: 1 s). Subtasks that are idle, at their end or without any watermark yet hold
    /// nobody. Several splits of a subtask are paused one by one. Has no effect in batch mode.
    pub fn with_alignment(mut self, group: &str, max_drift: Duration, update_interval: Duration) -> Self {
        self.alignment = Some(Alignment {
            group: group.to_string(),
            max_drift_ms: i64::try_from(max_drift.as_millis()).unwrap_or(i64::MAX),
            interval_ms: i64::try_from(update_interval.as_millis()).unwrap_or(i64::MAX),
            unaligned_splits: false,
        });
        self
    }

    /// Accepts, behind [`WatermarkStrategy::with_alignment`], a source that cannot pause single splits: then only whole
    /// subtasks wait. Without it such a source fails the job when it has to.
    pub fn allow_unaligned_splits(mut self) -> Self {
        if let Some(alignment) = &mut self.alignment {
            alignment.unaligned_splits = true;
        }
        self
    }

    pub(crate) fn alignment(&self) -> Option<&Alignment> {
        self.alignment.as_ref()
    }

    pub(crate) fn has_idleness(&self) -> bool {
        self.idle_timeout_ms.is_some()
    }
}

/// Watermarks every 200 ms unless the strategy says otherwise (Flink's `pipeline.auto-watermark-interval`).
pub(crate) const INTERVAL_MS: i64 = 200;

/// After so many records a watermark is due before its interval is over, but not before an `EARLY_PART`th of it: a source
/// that is read fast moves event time far in an interval, and what waits for it downstream takes memory.
const EARLY_RECORDS: usize = 32 * 1024;
const EARLY_PART: i64 = 8;

enum Generator<T> {
    None,
    Bounded { delay_ms: i64, largest_ms: i64 },
    Custom(Box<dyn WatermarkGenerator<T>>),
}

impl<T> Generator<T> {
    fn current(&mut self) -> Option<i64> {
        match self {
            Generator::Custom(generator) => generator.on_periodic(),
            Generator::None | Generator::Bounded { .. } => self.peek(),
        }
    }

    /// The watermark as it is known without asking a generator of the user's.
    fn peek(&self) -> Option<i64> {
        match self {
            Generator::None | Generator::Custom(_) | Generator::Bounded { largest_ms: NO_TIMESTAMP, .. } => None,
            Generator::Bounded { delay_ms, largest_ms } => Some(largest_ms.saturating_sub(*delay_ms).saturating_sub(1)),
        }
    }
}

/// Of a time in which nobody looked for records so much counts as silence: what lies between two looks of a source that
/// always finds some is mostly less, and must count, or a silent split beside it would never be left out.
const UNREAD_COUNTED_MS: i64 = 100;

struct SplitWatermark<T> {
    generator: Generator<T>,
    watermark_ms: i64,
    last_record_ms: i64,
    idle: bool,
    /// Read to its end.
    finished: bool,
    /// Held back, being ahead of others: its silence does not mean anything.
    paused: bool,
}

impl<T> SplitWatermark<T> {
    fn is_active(&self) -> bool {
        !self.idle && !self.finished
    }
}

/// Which splits of a subtask are ahead of what alignment allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    None,
    /// Those marked as paused.
    Some,
    /// All that are not at their end.
    All,
}

/// The watermarks of the splits of one subtask, or of one mid-stream assigner (which has a single "split").
pub(crate) struct SplitWatermarks<T> {
    kind: GeneratorKind<T>,
    assigner: Option<Box<dyn TimestampAssigner<T>>>,
    idle_timeout_ms: Option<i64>,
    interval_ms: i64,
    splits: Vec<SplitWatermark<T>>,
    next_ms: i64,
    /// When it may be emitted before that, for the records since the last one.
    early_ms: i64,
    records: usize,
    emitted_ms: i64,
    /// Event time waits for splits that are not here yet.
    held: bool,
    parallelism: usize,
}

impl<T: 'static> SplitWatermarks<T> {
    /// Timestamps are assigned also when event time stands still until the input ends.
    pub fn new(strategy: &WatermarkStrategy<T>, parallelism: usize, time_stands_still: bool) -> Self {
        SplitWatermarks {
            kind: match &strategy.generator {
                _ if time_stands_still => GeneratorKind::None,
                GeneratorKind::None => GeneratorKind::None,
                GeneratorKind::Bounded { delay_ms } => GeneratorKind::Bounded { delay_ms: *delay_ms },
                GeneratorKind::Custom(make) => GeneratorKind::Custom(make.clone()),
            },
            assigner: strategy
                .assigner
                .as_ref()
                .map(|assigner| assigner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).boxed_clone()),
            idle_timeout_ms: strategy.idle_timeout_ms.filter(|_| !time_stands_still),
            interval_ms: strategy.interval_ms.unwrap_or(INTERVAL_MS),
            splits: Vec::new(),
            next_ms: i64::MIN,
            early_ms: i64::MIN,
            records: 0,
            emitted_ms: WATERMARK_MIN,
            held: false,
            parallelism,
        }
    }

    pub fn parallelism(&self) -> usize {
        self.parallelism
    }

    pub fn add_splits(&mut self, count: usize, now_ms: i64) {
        for _ in 0..count {
            self.splits.push(SplitWatermark {
                generator: match &self.kind {
                    GeneratorKind::None => Generator::None,
                    GeneratorKind::Bounded { delay_ms } => {
                        Generator::Bounded { delay_ms: *delay_ms, largest_ms: NO_TIMESTAMP }
                    }
                    GeneratorKind::Custom(make) => Generator::Custom(make()),
                },
                watermark_ms: WATERMARK_MIN,
                last_record_ms: now_ms,
                idle: false,
                finished: false,
                paused: false,
            });
        }
    }

    /// Gives records their timestamps and shows them to their splits' generators. Returns `(end, watermark)` for every
    /// place in the batch behind which a generator wants a watermark at once.
    pub fn observe(
        &mut self,
        records: &mut Records<T>,
        runs: &[(usize, usize)],
        clock: &dyn Clock,
    ) -> Vec<(usize, i64)> {
        self.records += records.len();
        if let Some(assigner) = &mut self.assigner {
            assigner.assign_all(records);
        }
        let mut immediate = Vec::new();
        let mut start = 0;
        for &(index, end) in runs {
            let run = &records[start..end];
            if let Some(split) = self.splits.get_mut(index) {
                if self.idle_timeout_ms.is_some() {
                    split.last_record_ms = clock.steady_ms();
                    split.idle = false;
                }
                match &mut split.generator {
                    Generator::None => {}
                    Generator::Bounded { largest_ms, .. } => {
                        *largest_ms =
                            run.iter().fold(*largest_ms, |largest, (timestamp_ms, _)| largest.max(*timestamp_ms));
                    }
                    Generator::Custom(generator) => {
                        for (at, (timestamp_ms, value)) in run.iter().enumerate() {
                            if let Some(watermark_ms) = generator.on_event(value, *timestamp_ms) {
                                split.watermark_ms = split.watermark_ms.max(watermark_ms);
                                immediate.push((start + at + 1, watermark_ms));
                            }
                        }
                    }
                }
            }
            start = end;
        }
        // With several splits the slowest decides, so a watermark asked for at once may not be one yet.
        if (self.splits.len() > 1 || self.held) && !immediate.is_empty() {
            immediate = vec![(records.len(), self.minimum())];
        }
        immediate.retain(|(_, watermark_ms)| {
            let grows = *watermark_ms > self.emitted_ms;
            self.emitted_ms = self.emitted_ms.max(*watermark_ms);
            grows
        });
        immediate
    }

    /// Nobody looked for records for so long although there may have been some: under backpressure, or on a machine that is
    /// busy. Most of that time is not silence of a split.
    pub fn unread(&mut self, gap_ms: i64, now_ms: i64) {
        let not_silent_ms = gap_ms.saturating_sub(UNREAD_COUNTED_MS);
        if self.idle_timeout_ms.is_some() && not_silent_ms > 0 {
            for split in &mut self.splits {
                split.last_record_ms = split.last_record_ms.saturating_add(not_silent_ms).min(now_ms);
            }
        }
    }

    /// Whether event time waits for splits that are not here yet.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    fn minimum(&self) -> i64 {
        if self.held {
            return WATERMARK_MIN;
        }
        let active = self.splits.iter().filter(|split| split.is_active());
        active.map(|split| split.watermark_ms).min().unwrap_or(WATERMARK_MIN)
    }

    /// A split is read to its end.
    pub fn finish(&mut self, split: usize) {
        if let Some(split) = self.splits.get_mut(split) {
            split.finished = true;
        }
    }

    /// Marks as paused the splits that are ahead of `allowed_ms`; with `whole`, all or none by the subtask's own watermark.
    pub fn pause_ahead(&mut self, allowed_ms: i64, whole: bool) -> Ahead {
        for split in &mut self.splits {
            if let Some(watermark_ms) = split.generator.peek() {
                split.watermark_ms = split.watermark_ms.max(watermark_ms);
            }
        }
        let all = whole && self.minimum() > allowed_ms;
        for split in &mut self.splits {
            split.paused = !split.finished && (all || !whole && split.watermark_ms > allowed_ms);
        }
        let mut unfinished = self.splits.iter().filter(|split| !split.finished).peekable();
        match unfinished.peek().is_some() && unfinished.all(|split| split.paused) {
            true => Ahead::All,
            false if self.splits.iter().any(|split| split.paused) => Ahead::Some,
            false => Ahead::None,
        }
    }

    /// By split, whether it is marked as paused.
    pub fn paused(&self) -> Vec<bool> {
        self.splits.iter().map(|split| split.paused).collect()
    }

    /// The watermark to emit at the interval, or early behind many records, if it is time and it has grown.
    pub fn periodic(&mut self, now_ms: i64, board: &Board, slot: usize) -> Option<i64> {
        // A generator of the user's is asked at its interval only.
        let many = self.records >= EARLY_RECORDS && matches!(self.kind, GeneratorKind::Bounded { .. });
        if now_ms < if many { self.early_ms } else { self.next_ms } {
            return None;
        }
        self.next_ms = now_ms.saturating_add(self.interval_ms);
        self.early_ms = now_ms.saturating_add(self.interval_ms / EARLY_PART);
        self.records = 0;
        for split in &mut self.splits {
            if let Some(watermark_ms) = split.generator.current() {
                split.watermark_ms = split.watermark_ms.max(watermark_ms);
            }
            if split.paused {
                split.last_record_ms = now_ms;
            }
            if let Some(timeout_ms) = self.idle_timeout_ms {
                split.idle = now_ms.saturating_sub(split.last_record_ms) >= timeout_ms;
            }
        }
        let active = self.held || self.splits.iter().any(SplitWatermark::is_active);
        let watermark_ms = if active {
            let own = self.minimum();
            board.active(slot, own.max(self.emitted_ms));
            own
        } else {
            let furthest = self.splits.iter().map(|split| split.watermark_ms).max();
            board.idle(slot, furthest.unwrap_or(WATERMARK_MIN));
            board.followed(slot).unwrap_or(WATERMARK_MIN)
        };
        (watermark_ms > self.emitted_ms).then(|| {
            self.emitted_ms = watermark_ms;
            watermark_ms
        })
    }

    /// When `periodic` wants to be called although nothing arrives: only where silence means something.
    pub fn next_periodic_ms(&self) -> Option<i64> {
        let follows = self.splits.iter().all(|split| split.finished) || self.idle_timeout_ms.is_some();
        let behind = self.splits.iter().any(|split| match &split.generator {
            Generator::None => false,
            Generator::Bounded { delay_ms, largest_ms } => {
                *largest_ms != NO_TIMESTAMP && largest_ms.saturating_sub(*delay_ms).saturating_sub(1) > self.emitted_ms
            }
            Generator::Custom(_) => true,
        });
        (follows || behind).then_some(self.next_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::ManualClock;

    /// Whether a watermark comes at `now_ms` after so many records more.
    fn emits(watermarks: &mut SplitWatermarks<()>, next: &mut i64, records: usize, now_ms: i64) -> bool {
        let mut records: Records<()> = (*next..).take(records).map(|time_ms| (time_ms, ())).collect();
        *next += records.len() as i64;
        let runs = [(0, records.len())];
        watermarks.observe(&mut records, &runs, &ManualClock::new(now_ms));
        let watermark_ms = watermarks.periodic(now_ms, &Board::new(vec![0]), 0);
        assert!(watermark_ms.is_none_or(|at| at == *next - 2), "it is the newest");
        watermark_ms.is_some()
    }

    #[test]
    fn many_records_bring_a_watermark_early_but_not_at_once() {
        let strategy = WatermarkStrategy::monotonous().with_interval(Duration::from_millis(80));
        let mut watermarks = SplitWatermarks::new(&strategy, 1, false);
        watermarks.add_splits(1, 0);
        let mut next = 0;
        let steps = [
            (1, 0, true),
            (EARLY_RECORDS - 1, 79, false),
            // The interval is over, whatever has come.
            (0, 80, true),
            (EARLY_RECORDS, 89, false),
            (1, 90, true),
            (EARLY_RECORDS - 1, 169, false),
            (1, 169, true),
        ];
        for (at, (records, now_ms, expected)) in steps.into_iter().enumerate() {
            assert_eq!(emits(&mut watermarks, &mut next, records, now_ms), expected, "step {at}");
        }
    }

    #[test]
    fn a_generator_of_ones_own_is_asked_at_its_interval_only() {
        struct Asked(i64);
        impl WatermarkGenerator<()> for Asked {
            fn on_event(&mut self, _: &(), timestamp_ms: i64) -> Option<i64> {
                self.0 = timestamp_ms;
                None
            }
            fn on_periodic(&mut self) -> Option<i64> {
                Some(self.0 - 1)
            }
        }
        let strategy = WatermarkStrategy::custom(|| Asked(0)).with_interval(Duration::from_millis(80));
        let mut watermarks = SplitWatermarks::new(&strategy, 1, false);
        watermarks.add_splits(1, 0);
        let mut next = 0;
        assert!(emits(&mut watermarks, &mut next, 2, 0));
        assert!(!emits(&mut watermarks, &mut next, 2 * EARLY_RECORDS, 79));
        assert!(emits(&mut watermarks, &mut next, 1, 80));
    }

    #[test]
    fn a_split_nobody_looked_into_was_not_silent() {
        // Split 0 has records at each look; of split 1 there are none. When is it left out, with one look each `every_ms`?
        let left_out_ms = |every_ms: i64, may_have_more: bool| {
            let strategy = WatermarkStrategy::monotonous().with_idleness(Duration::from_secs(2));
            let mut watermarks = SplitWatermarks::new(&strategy, 1, false);
            watermarks.add_splits(2, 0);
            (1..100).map(|look| look * every_ms).find(|now_ms| {
                if may_have_more {
                    watermarks.unread(every_ms, *now_ms);
                }
                let mut records = vec![(*now_ms, ())];
                watermarks.observe(&mut records, &[(0, 1)], &ManualClock::new(*now_ms));
                watermarks.periodic(*now_ms, &Board::new(vec![0]), 0).is_some()
            })
        };
        assert_eq!(left_out_ms(500, false), Some(2000), "the source had nothing more");
        assert_eq!(left_out_ms(100, true), Some(2100), "busy, but looked into all the time; it is judged every 200 ms");
        assert_eq!(left_out_ms(1500, true), Some(30_000), "held up: of each look 100 ms count");
    }
}
