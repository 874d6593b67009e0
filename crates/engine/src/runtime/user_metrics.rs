//! What the functions of a job's user, and its sources and sinks, count and measure. A function asks its runtime context for
//! a metric by name, keeps it and changes it without any lock; reports read it. All are totals of this start: a restart
//! begins anew. Other processes of the job tell the first one theirs once a second.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tidemill_core::metrics::{Counter, Gauge, Metrics};
use tidemill_core::report::{MetricReport, MetricValue};
use tidemill_core::{Error, Result, SharedClock};

use crate::stream::{Accumulate, Accumulator};

/// Metrics and accumulators of one process are at most this many, each counted once a subtask.
const METRICS_MAX: usize = 10_000;

/// All metrics of a process.
#[derive(Default)]
pub(crate) struct UserMetrics {
    metrics: Mutex<BTreeMap<MetricId, Metric>>,
    accumulators: Mutex<BTreeMap<String, Named>>,
    /// What the job's other processes have told, by process.
    others: Mutex<BTreeMap<usize, Told>>,
}

/// The metrics and accumulators of one process on their way to the first one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// By operator, as JSON.
    metrics: Vec<(String, Vec<u8>)>,
    accumulators: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct MetricId {
    uid: String,
    name: String,
    subtask: usize,
}

#[derive(Clone)]
enum Metric {
    Counter(Counter),
    Gauge(Gauge),
    Meter(Meter),
    Histogram(Histogram),
}

/// An accumulator's part in one subtask.
type Part = Box<dyn Any + Send>;

/// An accumulator's parts in all subtasks.
struct Named {
    parts: Vec<Part>,
    told: fn(&[Part]) -> Result<Vec<u8>>,
    merged: fn(&[Part], &[&[u8]]) -> Result<serde_json::Value>,
}

/// Events and how fast they come, over the last minute by the job's clock.
#[derive(Clone)]
pub struct Meter(Arc<MeterState>);

struct MeterState {
    count: AtomicU64,
    /// Events by the part of the minute they fell into; with each the part's number since 1970.
    parts: [(AtomicI64, AtomicU64); METER_PARTS as usize],
    begin_ms: i64,
    clock: SharedClock,
}

/// A meter's minute in parts of five seconds.
const METER_PARTS: i64 = 12;
const METER_PART_MS: i64 = 5_000;

impl Meter {
    fn new(clock: SharedClock) -> Self {
        let begin_ms = clock.now_ms();
        Meter(Arc::new(MeterState { count: AtomicU64::new(0), parts: Default::default(), begin_ms, clock }))
    }

    /// So many events, now. Reads the clock: once a batch is better than once a record.
    pub fn mark(&self, events: u64) {
        self.0.count.fetch_add(events, Ordering::Relaxed);
        let number = self.0.clock.now_ms().div_euclid(METER_PART_MS);
        let (of, count) = &self.0.parts[number.rem_euclid(METER_PARTS) as usize];
        if of.swap(number, Ordering::Relaxed) != number {
            count.store(0, Ordering::Relaxed);
        }
        count.fetch_add(events, Ordering::Relaxed);
    }

    /// So far.
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Events a second, over the last minute or since the meter was made.
    pub fn rate_per_s(&self) -> f64 {
        let now_ms = self.0.clock.now_ms();
        let number = now_ms.div_euclid(METER_PART_MS);
        let recent = self.0.parts.iter().filter(|(of, _)| number - of.load(Ordering::Relaxed) < METER_PARTS);
        let events: u64 = recent.map(|(_, count)| count.load(Ordering::Relaxed)).sum();
        // The newest part has only begun.
        let covered_ms = (METER_PARTS - 1) * METER_PART_MS + now_ms.rem_euclid(METER_PART_MS);
        let ms = covered_ms.min(now_ms - self.0.begin_ms).max(1);
        events as f64 * 1000.0 / ms as f64
    }
}

/// How values are distributed. Each power of two is divided into 16 parts, so a quantile is at most 1/16 too high.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<HistogramState>);

#[derive(Debug)]
struct HistogramState {
    parts: Vec<AtomicU64>,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

/// Values below this have a part of their own; above, each power of two has this many.
const HISTOGRAM_PARTS: u64 = 16;

/// The part a value falls into.
fn part(value: u64) -> usize {
    if value < HISTOGRAM_PARTS {
        return value as usize;
    }
    let power = u64::from(value.ilog2());
    let shift = power - u64::from(HISTOGRAM_PARTS.ilog2());
    ((shift + 1) * HISTOGRAM_PARTS + ((value >> shift) - HISTOGRAM_PARTS)) as usize
}

/// The largest value of a part.
fn largest(part: u64) -> u64 {
    if part < HISTOGRAM_PARTS {
        return part;
    }
    let (shift, within) = (part / HISTOGRAM_PARTS - 1, part % HISTOGRAM_PARTS);
    let first = (HISTOGRAM_PARTS + within) << shift;
    first + ((1u64 << shift) - 1)
}

impl Default for Histogram {
    fn default() -> Self {
        let parts = (0..=part(u64::MAX)).map(|_| AtomicU64::new(0)).collect();
        let (sum, min, max) = (AtomicU64::new(0), AtomicU64::new(u64::MAX), AtomicU64::new(0));
        Histogram(Arc::new(HistogramState { parts, sum, min, max }))
    }
}

impl Histogram {
    /// Takes in a value.
    pub fn update(&self, value: u64) {
        self.0.parts[part(value)].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add(value, Ordering::Relaxed);
        self.0.min.fetch_min(value, Ordering::Relaxed);
        self.0.max.fetch_max(value, Ordering::Relaxed);
    }

    fn value(&self) -> MetricValue {
        let counts: Vec<u64> = self.0.parts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max = self.0.max.load(Ordering::Relaxed);
        let quantile = |share: f64| {
            let rank = (share * count as f64).ceil().max(1.0) as u64;
            let mut seen = 0;
            let found = counts.iter().position(|in_part| {
                seen += in_part;
                seen >= rank
            });
            found.map_or(0, |part| largest(part as u64).min(max))
        };
        MetricValue::Histogram {
            count,
            min: if count == 0 { 0 } else { self.0.min.load(Ordering::Relaxed) },
            max,
            mean: if count == 0 { 0.0 } else { self.0.sum.load(Ordering::Relaxed) as f64 / count as f64 },
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metric {
    fn report(&self, id: &MetricId) -> MetricReport {
        let value = match self {
            Metric::Counter(counter) => MetricValue::Counter { count: counter.count() },
            Metric::Gauge(gauge) => MetricValue::Gauge { value: gauge.value() },
            Metric::Meter(meter) => MetricValue::Meter { count: meter.count(), rate_per_s: meter.rate_per_s() },
            Metric::Histogram(histogram) => histogram.value(),
        };
        MetricReport { name: id.name.clone(), subtask: id.subtask, value }
    }
}

impl UserMetrics {
    /// What one operator's function counts, by name and subtask, in all processes.
    pub fn of(&self, uid: &str) -> Vec<MetricReport> {
        let mut all = self.here(uid);
        for told in lock(&self.others).values() {
            let metrics = told.metrics.iter().filter(|(of, _)| of == uid);
            // What cannot be read was refused when it came.
            all.extend(metrics.filter_map(|(_, text)| serde_json::from_slice(text).ok()));
        }
        all.sort_by(|a: &MetricReport, b| (&a.name, a.subtask).cmp(&(&b.name, b.subtask)));
        all
    }

    fn here(&self, uid: &str) -> Vec<MetricReport> {
        let metrics = lock(&self.metrics);
        let own = metrics.iter().filter(|(id, _)| id.uid == uid);
        own.map(|(id, metric)| metric.report(id)).collect()
    }

    /// Everything of this process, for the first one.
    pub fn tell(&self) -> Result<Told> {
        let bytes = |report: &MetricReport| {
            serde_json::to_vec(report).map_err(|e| Error::bug(format!("a metric cannot be written as JSON: {e}")))
        };
        let metrics = lock(&self.metrics);
        let metrics = metrics.iter().map(|(id, metric)| Ok((id.uid.clone(), bytes(&metric.report(id))?)));
        let metrics = metrics.collect::<Result<_>>()?;
        let accumulators = lock(&self.accumulators);
        let accumulators = accumulators.iter().map(|(name, named)| Ok((name.clone(), (named.told)(&named.parts)?)));
        Ok(Told { metrics, accumulators: accumulators.collect::<Result<_>>()? })
    }

    /// Takes in what a process tells whose subtasks, by operator, are `own`.
    pub fn told(&self, process: usize, own: impl Fn(&str, usize) -> bool, told: Told) -> Result<()> {
        for (uid, text) in &told.metrics {
            let report: MetricReport = serde_json::from_slice(text)
                .map_err(|e| Error::external(format!("its metrics cannot be read: {e}")))?;
            if !own(uid, report.subtask) {
                return Err(Error::external("it speaks for a subtask of another process"));
            }
        }
        if told.metrics.len().max(told.accumulators.len()) > METRICS_MAX {
            return Err(Error::external("it tells more metrics than a process keeps"));
        }
        lock(&self.others).insert(process, told);
        Ok(())
    }

    /// The accumulators of all subtasks in all processes, merged.
    pub fn accumulators(&self) -> BTreeMap<String, serde_json::Value> {
        let others = lock(&self.others);
        let merged = |(name, named): (&String, &Named)| {
            let told: Vec<&[u8]> =
                others.values().filter_map(|told| told.accumulators.get(name)).map(Vec::as_slice).collect();
            // The same program has written it: it can be read, or is shown without a value.
            (name.clone(), (named.merged)(&named.parts, &told).unwrap_or_default())
        };
        lock(&self.accumulators).iter().map(merged).collect()
    }
}

/// Where a function of one subtask finds its metrics. A name asked for again is the same metric.
#[derive(Clone)]
pub struct MetricGroup {
    all: Arc<UserMetrics>,
    uid: String,
    subtask: usize,
    clock: SharedClock,
}

impl MetricGroup {
    pub(crate) fn new(all: Arc<UserMetrics>, uid: String, subtask: usize, clock: SharedClock) -> Self {
        MetricGroup { all, uid, subtask, clock }
    }

    /// A total.
    pub fn counter(&self, name: &str) -> Result<Counter> {
        match self.metric(name, || Metric::Counter(Counter::default()))? {
            Metric::Counter(counter) => Ok(counter),
            _ => Err(self.other_kind(name)),
        }
    }

    /// A value that goes up and down.
    pub fn gauge(&self, name: &str) -> Result<Gauge> {
        match self.metric(name, || Metric::Gauge(Gauge::default()))? {
            Metric::Gauge(gauge) => Ok(gauge),
            _ => Err(self.other_kind(name)),
        }
    }

    /// Events and how fast they come.
    pub fn meter(&self, name: &str) -> Result<Meter> {
        match self.metric(name, || Metric::Meter(Meter::new(self.clock.clone())))? {
            Metric::Meter(meter) => Ok(meter),
            _ => Err(self.other_kind(name)),
        }
    }

    /// How values are distributed.
    pub fn histogram(&self, name: &str) -> Result<Histogram> {
        match self.metric(name, || Metric::Histogram(Histogram::default()))? {
            Metric::Histogram(histogram) => Ok(histogram),
            _ => Err(self.other_kind(name)),
        }
    }

    fn metric(&self, name: &str, make: impl FnOnce() -> Metric) -> Result<Metric> {
        let id = MetricId { uid: self.uid.clone(), name: name.to_string(), subtask: self.subtask };
        let mut metrics = lock(&self.all.metrics);
        if let Some(metric) = metrics.get(&id) {
            return Ok(metric.clone());
        }
        if metrics.len() >= METRICS_MAX {
            return Err(too_many(name));
        }
        Ok(metrics.entry(id).or_insert_with(make).clone())
    }

    fn other_kind(&self, name: &str) -> Error {
        Error::input(format!("operator `{}` has a metric `{name}` of another kind", self.uid))
    }

    /// This subtask's part of an accumulator of the whole job.
    pub(crate) fn accumulator<A: Accumulate>(&self, name: &str) -> Result<Accumulator<A>> {
        let mut accumulators = lock(&self.all.accumulators);
        if accumulators.values().map(|named| named.parts.len()).sum::<usize>() >= METRICS_MAX {
            return Err(too_many(name));
        }
        let named = accumulators.entry(name.to_string()).or_insert_with(|| Named {
            parts: Vec::new(),
            told: Accumulator::<A>::told,
            merged: Accumulator::<A>::merged,
        });
        if named.parts.iter().any(|part| part.downcast_ref::<Accumulator<A>>().is_none()) {
            return Err(Error::input(format!("accumulator `{name}` is used with two different types")));
        }
        let part = Accumulator::<A>::default();
        named.parts.push(Box::new(part.clone()));
        Ok(part)
    }
}

impl Metrics for MetricGroup {
    fn counter(&self, name: &str) -> Counter {
        MetricGroup::counter(self, name).unwrap_or_default()
    }

    fn gauge(&self, name: &str) -> Gauge {
        MetricGroup::gauge(self, name).unwrap_or_default()
    }
}

fn too_many(name: &str) -> Error {
    Error::full(format!("`{name}` is one metric too many: a job process keeps {METRICS_MAX}"))
        .hint("a name with a record's value in it makes a metric for each value; count by key in keyed state instead")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_the_part_that_ends_behind_it() {
        for power in 0..64 {
            for value in [1u64 << power, (1u64 << power) - 1, (1u64 << power) + 1, u64::MAX >> power] {
                let end = largest(part(value) as u64);
                assert!(end >= value && (end - value) as f64 <= value as f64 / 16.0, "{value}: {end}");
            }
        }
    }

    #[test]
    fn a_meter_forgets_what_is_older_than_a_minute() {
        let clock = Arc::new(tidemill_core::ManualClock::new(1_000_000));
        let meter = Meter::new(clock.clone());
        clock.advance(10_000);
        meter.mark(50);
        assert_eq!((meter.count(), meter.rate_per_s()), (50, 5.0));
        clock.advance(60_000);
        meter.mark(110);
        assert_eq!((meter.count(), meter.rate_per_s()), (160, 2.0));
        clock.advance(300_000);
        assert_eq!((meter.count(), meter.rate_per_s()), (160, 0.0));
    }
}
