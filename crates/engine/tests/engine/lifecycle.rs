//! What a function is told, what it counts, and the state it keeps without a key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemill_core::report::{MetricReport, MetricValue};
use tidemill_core::sink::{PreCommit, Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::source::{Boundedness, ReaderContext, Source, SourceReader, Split};
use tidemill_core::{Result, WATERMARK_MAX};
use tidemill_engine::state::ValueState;
use tidemill_engine::stream::{
    Accumulate, Accumulator, Average, Counter, DataStream, DoubleCounter, Gauge, Histogram, KeyedContext,
    KeyedProcessFunction, LongCounter, Maximum, Meter, Minimum, OperatorStateReader, OperatorStateWriter,
    ProcessContext, ProcessFunction, RuntimeContext, SequenceSource, Tally, TimeDomain, WatermarkStrategy,
};
use tidemill_engine::testing::{Harness, Snapshot};
use tidemill_engine::window::{Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

use crate::recovery::{Ledger, Row, crash_at_random};
use crate::windows::Chance;

type Told = Arc<Mutex<BTreeSet<(usize, usize, usize, u64, String, String, String)>>>;

/// Writes down what its context says.
#[derive(Clone)]
struct Witness(Told);

impl ProcessFunction<i64, i64> for Witness {
    fn open(&mut self, at: &RuntimeContext) -> Result<()> {
        let names = (at.job_id.clone(), at.task_name.clone(), at.uid.clone());
        let told = (at.subtask, at.parallelism, at.max_parallelism, at.attempt, names.0, names.1, names.2);
        self.0.lock().unwrap().insert(told);
        Ok(())
    }

    fn process(&mut self, value: i64, context: &mut ProcessContext<'_, i64>) -> Result<()> {
        context.emit(value)
    }
}

#[test]
fn a_function_knows_its_place_and_its_attempt() {
    let folder = tempfile::tempdir().unwrap();
    for attempt in 1..=2 {
        let told = Told::default();
        let env = Environment::with_settings(JobSettings {
            job_id: "7".repeat(32),
            checkpoint_dir: Some(folder.path().to_path_buf()),
            parallelism: Some(3),
            ..JobSettings::default()
        });
        let witness = env.from_sequence(1, 1000).uid("numbers").rebalance().process(Witness(told.clone()));
        witness.name("Witness").uid("witness").map(|n| n).collect();
        env.execute("place").unwrap();
        let task = "Witness -> Map -> Sink: Collect";
        let of = |subtask| (subtask, 3, 32_768, attempt, "7".repeat(32), task.to_string(), "witness".to_string());
        assert_eq!(*told.lock().unwrap(), (0..3).map(of).collect());
    }
}

#[test]
fn a_job_that_is_given_no_id_has_one_of_its_own_which_it_keeps_with_its_checkpoints() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = |folder: Option<&tempfile::TempDir>| {
        let checkpoint_dir = folder.map(|folder| folder.path().to_path_buf());
        let env = Environment::with_settings(JobSettings { checkpoint_dir, ..JobSettings::default() });
        env.from_sequence(1, 10).uid("numbers").map(|n| n).uid("same").collect();
        env.execute("named").unwrap().report.job_id
    };
    let first = id(Some(&own));
    assert_eq!((first.len(), id(Some(&own))), (32, first.clone()), "what sinks noted is found again");
    // A sink would take what another job has written for its own.
    let ids = BTreeSet::from([first, id(Some(&other)), id(None), id(None)]);
    assert_eq!(ids.len(), 4, "{ids:?}");
}

/// Keeps one metric of each kind.
#[derive(Clone, Default)]
struct Measures {
    metrics: Option<(Counter, Gauge, Meter, Histogram)>,
}

impl ProcessFunction<i64, i64> for Measures {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let all = &context.metrics;
        self.metrics = Some((all.counter("seen")?, all.gauge("last")?, all.meter("rate")?, all.histogram("sizes")?));
        assert!(all.gauge("seen").unwrap_err().to_string().contains("a metric `seen` of another kind"));
        all.counter("seen")?.add(0);
        Ok(())
    }

    fn process(&mut self, value: i64, context: &mut ProcessContext<'_, i64>) -> Result<()> {
        let Some((counter, gauge, meter, histogram)) = &self.metrics else { unreachable!() };
        counter.inc();
        gauge.set(value as f64 / 2.0);
        meter.mark(1);
        histogram.update(value as u64);
        context.emit(value)
    }
}

#[test]
fn metrics_of_all_kinds_are_in_the_report() {
    let env = Environment::new();
    env.set_parallelism(2);
    env.from_sequence(1, 10_000).global().process(Measures::default()).uid("measures").collect();
    let report = env.execute("measures").unwrap().report;
    // It travels as JSON.
    let report: tidemill_core::report::Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    let operators = report.vertices.iter().flat_map(|vertex| &vertex.operators);
    let metrics: &Vec<MetricReport> = &operators.clone().find(|o| o.uid == "measures").unwrap().metrics;
    assert!(operators.filter(|o| o.uid != "measures").all(|o| o.metrics.is_empty()));
    let of = |name: &str, subtask| {
        let found = metrics.iter().find(|metric| metric.name == name && metric.subtask == subtask);
        found.unwrap_or_else(|| panic!("{name} of {subtask} among {metrics:?}")).value.clone()
    };
    assert_eq!(metrics.len(), 8, "four in each subtask");
    assert_eq!(
        (of("seen", 0), of("seen", 1)),
        (MetricValue::Counter { count: 10_000 }, MetricValue::Counter { count: 0 })
    );
    assert!(matches!(of("last", 0), MetricValue::Gauge { value } if (0.5..=5_000.0).contains(&value)));
    assert!(matches!(of("rate", 0), MetricValue::Meter { count: 10_000, rate_per_s } if rate_per_s > 0.0));
    let MetricValue::Histogram { count, min, max, mean, p50, p95, p99 } = of("sizes", 0) else { unreachable!() };
    assert_eq!((count, min, max, mean), (10_000, 1, 10_000, 5_000.5));
    let near = |quantile: u64, exact: u64| quantile >= exact && quantile <= exact + exact / 16;
    assert!(near(p50, 5_000) && near(p95, 9_500) && near(p99, 9_900), "{p50} {p95} {p99}");
}

/// A source whose reader, and a sink whose writer and committer count something of their own.
struct Counted(SequenceSource);

impl Source<i64> for Counted {
    fn name(&self) -> String {
        self.0.name()
    }
    fn boundedness(&self) -> Boundedness {
        self.0.boundedness()
    }
    fn splits(&self) -> Result<Vec<Split>> {
        self.0.splits()
    }
    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<i64>>> {
        context.metrics.gauge("place").set(context.subtask as f64 + 0.5);
        self.0.reader(context)
    }
}

struct CountedSink;

impl Sink<i64> for CountedSink {
    fn name(&self) -> String {
        "counted".into()
    }
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<i64>>> {
        Ok(Box::new(CountedWriter(context.scope.metrics.counter("written"))))
    }
    fn recover(&self, scope: &SinkScope, _: &[Token]) -> Result<()> {
        scope.metrics.counter("recovered").inc();
        Ok(())
    }
}

struct CountedWriter(Counter);

impl SinkWriter<i64> for CountedWriter {
    fn write(&mut self, batch: Vec<(i64, i64)>) -> Result<()> {
        self.0.add(batch.len() as u64);
        Ok(())
    }
    fn pre_commit(&mut self, _: u64) -> Result<PreCommit> {
        Ok(Box::new(|| Ok(Vec::new())))
    }
}

#[test]
fn what_sources_and_sinks_count_of_themselves_is_in_the_report() {
    let env = Environment::new();
    env.set_parallelism(2);
    let times = WatermarkStrategy::monotonous().with_timestamps(|n: &i64, _| *n);
    env.from_source(Counted(SequenceSource::new(1, 1_000)), times, "in")
        .uid("in")
        .rebalance()
        .sink_to(CountedSink)
        .uid("out");
    let report = env.execute("counted").unwrap().report;
    let of = |uid: &str, name: &str| -> Vec<MetricValue> {
        let operators = report.vertices.iter().flat_map(|vertex| &vertex.operators).filter(|o| o.uid == uid);
        operators.flat_map(|o| &o.metrics).filter(|metric| metric.name == name).map(|m| m.value.clone()).collect()
    };
    assert_eq!(of("in", "place"), [MetricValue::Gauge { value: 0.5 }, MetricValue::Gauge { value: 1.5 }]);
    let written: Vec<MetricValue> = of("out", "written");
    let count = |value: &MetricValue| if let MetricValue::Counter { count } = value { *count } else { 0 };
    assert_eq!((written.len(), written.iter().map(count).sum::<u64>()), (2, 1_000));
    assert_eq!(of("out", "recovered"), [MetricValue::Counter { count: 1 }]);
    let source = report.vertices.iter().find(|vertex| vertex.operators[0].uid == "in").unwrap();
    // Times near 1970 are old, and a source at its end has no watermark to be behind.
    let old = |lag: Option<i64>| lag.is_some_and(|ms| ms > 1_000_000_000);
    assert!(source.subtasks.iter().all(|s| old(s.fetch_lag_ms) && old(s.emit_lag_ms)), "{source:?}");
    assert!(source.subtasks.iter().all(|s| s.source_idle_ms.is_some() && s.watermark_lag_ms.is_none()));
    let sink = report.vertices.iter().find(|vertex| vertex.operators[0].uid == "out").unwrap();
    assert!(sink.subtasks.iter().all(|s| s.emit_lag_ms.is_none() && s.source_idle_ms.is_none()));
}

/// Adds up in every way there is.
#[derive(Clone, Default)]
struct Adds {
    sum: Accumulator<LongCounter>,
    half: Accumulator<DoubleCounter>,
    least: Accumulator<Minimum>,
    most: Accumulator<Maximum>,
    mean: Accumulator<Average>,
    digits: Accumulator<Tally>,
}

impl ProcessFunction<i64, i64> for Adds {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        (self.sum, self.half) = (context.accumulator("sum")?, context.accumulator("half")?);
        (self.least, self.most) = (context.accumulator("least")?, context.accumulator("most")?);
        (self.mean, self.digits) = (context.accumulator("mean")?, context.accumulator("digits")?);
        Ok(())
    }

    fn process(&mut self, value: i64, context: &mut ProcessContext<'_, i64>) -> Result<()> {
        self.sum.add(value);
        self.half.add(value as f64 / 2.0);
        self.least.add(value as f64);
        self.most.add(value as f64);
        self.mean.add(value as f64);
        self.digits.add(value % 10);
        context.emit(value)
    }
}

#[test]
fn accumulators_of_all_subtasks_are_in_the_result() {
    for parallelism in 1..=3 {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        // Two operators add to the same names.
        env.from_sequence(1, 100).process(Adds::default()).process(Adds::default()).collect();
        let result = env.execute("adds").unwrap();
        assert_eq!(result.accumulator::<i64>("sum").unwrap(), 10_100);
        assert_eq!(result.accumulator::<f64>("half").unwrap(), 5_050.0);
        assert_eq!(result.accumulator::<f64>("mean").unwrap(), 50.5);
        assert_eq!((result.accumulator("least").unwrap(), result.accumulator("most").unwrap()), (1.0, 100.0));
        let digits: BTreeMap<i64, u64> = (0..10).map(|digit| (digit, 20)).collect();
        assert_eq!(result.accumulator::<BTreeMap<i64, u64>>("digits").unwrap(), digits);
        let error = result.accumulator::<i64>("total").unwrap_err().to_string();
        assert!(error.contains("no accumulator `total`") && error.contains("`sum`"), "{error}");
        assert!(result.accumulator::<String>("sum").unwrap_err().to_string().contains("another type"));
    }
}

/// Asks for an accumulator under one name, of the type given.
#[derive(Clone)]
struct Asks<A>(Accumulator<A>);

impl<A: Accumulate> ProcessFunction<i64, i64> for Asks<A> {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0 = context.accumulator("same")?;
        Ok(())
    }

    fn process(&mut self, value: i64, context: &mut ProcessContext<'_, i64>) -> Result<()> {
        context.emit(value)
    }
}

#[test]
fn an_accumulator_has_one_type() {
    let env = Environment::new();
    let first = env.from_sequence(1, 10).process(Asks::<LongCounter>(Accumulator::default()));
    first.process(Asks::<Average>(Accumulator::default())).collect();
    let error = env.execute("two types").unwrap_err().to_string();
    assert!(error.contains("accumulator `same` is used with two different types"), "{error}");
}

/// Sums numbers by their last digit and hands the sums on at each watermark.
#[derive(Clone, Default)]
pub struct SumBefore(BTreeMap<i64, i64>);

impl ProcessFunction<i64, (i64, i64)> for SumBefore {
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let saved = saved.list::<(i64, i64)>("sums")?;
        saved.into_iter().for_each(|(digit, sum)| *self.0.entry(digit).or_default() += sum);
        Ok(())
    }

    fn process(&mut self, value: i64, _: &mut ProcessContext<'_, (i64, i64)>) -> Result<()> {
        *self.0.entry(value % 10).or_default() += value;
        Ok(())
    }

    fn on_watermark(&mut self, watermark_ms: i64, context: &mut ProcessContext<'_, (i64, i64)>) -> Result<()> {
        std::mem::take(&mut self.0).into_iter().try_for_each(|sum| context.emit_at(watermark_ms, sum))
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        state.list("sums", &self.0.clone().into_iter().collect::<Vec<_>>())
    }
}

#[test]
fn lists_are_divided_and_unions_given_to_all() {
    /// Emits, at the end, its list and what it knows of all.
    #[derive(Clone, Default)]
    struct Lists {
        own: Vec<i64>,
        all: Vec<i64>,
    }
    impl ProcessFunction<i64, (Vec<i64>, Vec<i64>)> for Lists {
        fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
            (self.own, self.all) = (saved.list("own")?, saved.union("all")?);
            Ok(())
        }
        fn process(&mut self, value: i64, _: &mut ProcessContext<'_, (Vec<i64>, Vec<i64>)>) -> Result<()> {
            self.own.push(value);
            Ok(())
        }
        fn on_watermark(&mut self, _: i64, context: &mut ProcessContext<'_, (Vec<i64>, Vec<i64>)>) -> Result<()> {
            context.emit((self.own.clone(), self.all.clone()))
        }
        fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
            state.list("own", &self.own)?;
            state.list("all", &self.own)
        }
    }
    for seed in 1..=30u64 {
        let mut chance = Chance(seed * 7919);
        let (before, after) = (1 + chance.below(4) as usize, 1 + chance.below(4) as usize);
        let of = |subtask, parallelism, from: &Snapshot| {
            let pipeline = |input: DataStream<i64>| input.process(Lists::default());
            Harness::builder(pipeline).subtask(subtask, parallelism).restore(from).build().unwrap()
        };
        let mut lists: Vec<Vec<i64>> = Vec::new();
        let mut saved = Vec::new();
        for subtask in 0..before {
            let list: Vec<i64> = (0..chance.below(10)).map(|n| subtask as i64 * 100 + n as i64).collect();
            let mut harness = of(subtask, before, &Snapshot::default());
            harness.push_batch(list.iter().map(|n| (0, *n)).collect()).unwrap();
            saved.push(harness.snapshot().unwrap());
            lists.push(list);
        }
        let saved = Snapshot::merged(saved);
        let all: Vec<i64> = lists.concat();
        let mut given = Vec::new();
        for subtask in 0..after {
            let mut harness = of(subtask, after, &saved);
            harness.watermark(1).unwrap();
            let (own, union) = harness.take().remove(0).1;
            assert_eq!(union, all, "seed {seed}");
            if before == after {
                assert_eq!(Some(&own), lists.get(subtask), "seed {seed}: the same parallelism changes nothing");
            } else {
                let even = all.len() / after;
                assert!((even..=even + 1).contains(&own.len()), "seed {seed}: {} of {}", own.len(), all.len());
            }
            given.extend(own);
        }
        assert_eq!(given, all, "seed {seed} from {before} to {after}");
    }
}

#[test]
fn what_is_emitted_at_a_watermark_leaves_before_it() {
    let mut sums = Harness::new(|input: DataStream<i64>| {
        let windows = input
            .process(SumBefore::default())
            .key_by(|(digit, _)| *digit)
            .window(Tumbling::event_time(Duration::from_millis(10)));
        windows.reduce_with(|a, b| a.1 += b.1, |_: &i64, window: Window, sum| Some((window.end_ms, sum.1)))
    })
    .unwrap();
    sums.push_batch(vec![(1, 3), (2, 13), (3, 23)]).unwrap();
    sums.watermark(5).unwrap();
    sums.push(6, 33).unwrap();
    sums.watermark(9).unwrap();
    assert_eq!((sums.take(), sums.late_dropped().unwrap()), (vec![(9, (10, 72))], 0));
}

/// Sums by digit; tells the sums when the input has ended.
#[derive(Clone)]
struct Totals(ValueState<i64>);

impl KeyedProcessFunction<i64, (i64, i64), Row> for Totals {
    fn process(&mut self, (_, sum): (i64, i64), context: &mut KeyedContext<'_, i64, Row>) -> Result<()> {
        *self.0.get_or(context, || 0)? += sum;
        context.register_event_timer(WATERMARK_MAX);
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, i64, Row>) -> Result<()> {
        let (digit, sum) = (*context.key(), self.0.take(context)?.unwrap_or(0));
        context.emit((String::new(), digit, sum))
    }
}

#[test]
fn crashes_lose_and_double_nothing_of_what_was_gathered_before_the_shuffle() {
    const LAST: i64 = 60_000;
    let build = |env: &Environment, ledger: &Ledger| {
        let strategy = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(1))
            .with_timestamps(|n: &i64, _| n / 10)
            .with_interval(Duration::from_millis(2));
        let numbers = env.from_sequence(1, LAST).uid("numbers").assign_timestamps_and_watermarks(strategy);
        let sums = numbers.process(SumBefore::default()).uid("before").key_by(|(digit, _)| *digit);
        sums.process(Totals(ValueState::new("total"))).uid("totals").sink_to(ledger.clone()).uid("ledger");
    };
    let total = |digit: i64| (1..=LAST).filter(|n| n % 10 == digit).sum::<i64>();
    let expected: Vec<Row> = (0..10).map(|digit| (String::new(), digit, total(digit))).collect();
    crash_at_random(12, build, &expected);
}

/// Sums by key; beside that the subtask counts its records, whatever their keys.
#[derive(Clone)]
struct Counting {
    sum: ValueState<i64>,
    records: i64,
}

impl KeyedProcessFunction<i64, i64, (i64, i64)> for Counting {
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        // Called like the keyed state, which does not matter.
        self.records = saved.list::<i64>("sum")?.into_iter().sum();
        Ok(())
    }

    fn process(&mut self, value: i64, context: &mut KeyedContext<'_, i64, (i64, i64)>) -> Result<()> {
        self.records += 1;
        *self.sum.get_or(context, || 0)? += value;
        context.register_event_timer(WATERMARK_MAX);
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, i64, (i64, i64)>) -> Result<()> {
        let (digit, sum) = (*context.key(), self.sum.take(context)?.unwrap_or(0));
        context.emit((digit, sum))?;
        context.emit((-1, std::mem::take(&mut self.records)))
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        state.list("sum", &[self.records])
    }
}

#[test]
fn keyed_functions_keep_lists_of_the_operator_too_whatever_crashes() {
    const LAST: i64 = 60_000;
    let build = |env: &Environment, ledger: &Ledger| {
        let numbers = env.from_sequence(1, LAST).uid("numbers").key_by(|n| n % 10);
        let sums = numbers.process(Counting { sum: ValueState::new("sum"), records: 0 }).uid("sums");
        let totals = sums.key_by(|(digit, _)| *digit).process(Totals(ValueState::new("total"))).uid("totals");
        totals.sink_to(ledger.clone()).uid("ledger");
    };
    let total = |digit: i64| (1..=LAST).filter(|n| n % 10 == digit).sum::<i64>();
    let mut expected: Vec<Row> = (0..10).map(|digit| (String::new(), digit, total(digit))).collect();
    expected.insert(0, (String::new(), -1, LAST));
    crash_at_random(12, build, &expected);
}

#[test]
fn state_cannot_be_called_like_what_the_operator_keeps_itself() {
    #[derive(Clone)]
    struct Named(ValueState<i64>, &'static str);
    impl KeyedProcessFunction<i64, i64, i64> for Named {
        fn process(&mut self, value: i64, context: &mut KeyedContext<'_, i64, i64>) -> Result<()> {
            self.0.set(context, value)
        }
        fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
            state.list(self.1, &[1i64])
        }
    }
    let harness = |state, list| {
        let named = Named(ValueState::new(state), list);
        Harness::new(move |input: DataStream<i64>| input.key_by(|n| *n).process(named)).unwrap()
    };
    for reserved in ["event-timers", "processing-timers"] {
        let error = harness(reserved, "list").push(0, 1).unwrap_err().to_string();
        assert!(error.contains(reserved) && error.contains("another name"), "{error}");
        let error = harness("fine", reserved).snapshot().err().unwrap().to_string();
        assert!(error.contains(reserved) && error.contains("another name"), "{error}");
        assert!(harness("fine", "fine").snapshot().is_ok());
    }
}

#[test]
fn streams_of_two_environments_are_refused() {
    for connect in [false, true] {
        let (one, other) = (Environment::new(), Environment::new());
        let (first, second) = (one.from_sequence(1, 3), other.from_sequence(1, 3));
        match connect {
            true => first.connect(&second).map(|n| n, |n| n).collect(),
            false => first.union(&[&second]).collect(),
        };
        for env in [&one, &other] {
            let error = env.execute("two").map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("streams of one environment"), "{error}");
        }
    }
}

#[test]
fn a_sequence_goes_to_the_last_number_there_is() {
    for (first, last) in [(i64::MAX - 300, i64::MAX), (i64::MAX, i64::MAX), (i64::MIN, i64::MIN + 5), (5, 4)] {
        let env = Environment::new();
        env.set_parallelism(2);
        let numbers = env.from_sequence(first, last).collect();
        env.execute("sequence").unwrap();
        let mut numbers = numbers.take();
        numbers.sort();
        assert_eq!(numbers, (first..=last).collect::<Vec<_>>());
    }
    let env = Environment::new();
    let numbers = env.from_sequence(1, i64::MAX).collect();
    let job = env.execute_async("all").unwrap();
    assert!(crate::comes_about(|| numbers.len() > 10_000));
    job.cancel().unwrap();
}
