//! Asynchronous calls: order, fences, capacity, time-outs, retries, and what a crash leaves of them. The service that is
//! called answers when the test says so.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidemill_core::{Error, Result};
use tidemill_engine::Environment;
use tidemill_engine::stream::{AsyncFunction, AsyncOptions, AsyncResult, AsyncRetry, DataStream, WatermarkStrategy};
use tidemill_engine::testing::{Harness, Snapshot};

use crate::recovery::{Ledger, Row, crash_at_random};
use crate::windows::Chance;

const PATIENCE: Duration = Duration::from_secs(60);

/// Calls by their input: how often each was made, and the answer it waits for.
#[derive(Clone, Default)]
struct Service(Arc<(Mutex<BTreeMap<i64, Call>>, Condvar)>);

#[derive(Default)]
struct Call {
    made: usize,
    open: bool,
    answer: Option<Result<Vec<i64>>>,
    waker: Option<Waker>,
}

impl Service {
    fn answer(&self, input: i64, answer: Result<Vec<i64>>) {
        let mut calls = self.0.0.lock().unwrap();
        let call = calls.get_mut(&input).expect("the call was made");
        call.answer = Some(answer);
        call.waker.take().into_iter().for_each(Waker::wake);
    }

    fn open(&self) -> Vec<i64> {
        let calls = self.0.0.lock().unwrap();
        calls.iter().filter(|(_, call)| call.open && call.answer.is_none()).map(|(input, _)| *input).collect()
    }

    fn made(&self, input: i64) -> usize {
        self.0.0.lock().unwrap().get(&input).map_or(0, |call| call.made)
    }
}

/// A call under way.
struct Asked(Service, i64);

impl Future for Asked {
    type Output = Result<Vec<i64>>;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut calls = self.0.0.0.lock().unwrap();
        let call = calls.entry(self.1).or_default();
        match call.answer.take() {
            Some(answer) => {
                call.open = false;
                Poll::Ready(answer)
            }
            None => {
                call.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncFunction<i64, i64> for Service {
    fn invoke(&mut self, value: i64) -> AsyncResult<i64> {
        let mut calls = self.0.0.lock().unwrap();
        let call = calls.entry(value).or_default();
        (call.made, call.open) = (call.made + 1, true);
        Box::pin(Asked(self.clone(), value))
    }

    fn timeout(&mut self, value: i64) -> Result<Vec<i64>> {
        if value < 0 { Ok(vec![value, 0]) } else { Err(Error::external(format!("no answer about {value}"))) }
    }
}

type Calls = Harness<i64, i64>;

fn calls(service: &Service, ordered: bool, options: AsyncOptions<i64>) -> Calls {
    calls_of(service, ordered, options, (0, 1), &Snapshot::default())
}

fn calls_of(
    service: &Service,
    ordered: bool,
    options: AsyncOptions<i64>,
    (subtask, parallelism): (usize, usize),
    snapshot: &Snapshot,
) -> Calls {
    let service = service.clone();
    let pipeline = move |input: DataStream<i64>| match ordered {
        true => input.ordered_wait(options, service).uid("calls"),
        false => input.unordered_wait(options, service).uid("calls"),
    };
    Harness::builder(pipeline).subtask(subtask, parallelism).restore(snapshot).build().unwrap()
}

/// Runs the harness until it has given `count` more records.
fn given(calls: &mut Calls, count: usize) -> Vec<(i64, i64)> {
    let mut given = calls.take();
    while given.len() < count {
        assert!(calls.wait_until_woken(PATIENCE), "{} of {count} came", given.len());
        calls.run().unwrap();
        given.extend(calls.take());
    }
    given
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Record { answered: bool, given: bool },
    Watermark(i64),
}

/// What may leave now, in order of the inputs, and the watermark behind it: the contract, read off the steps one by one.
fn due(steps: &mut [Step], ordered: bool) -> (Vec<usize>, i64) {
    let (mut due, mut watermark_ms, mut open) = (Vec::new(), i64::MIN, false);
    for (at, step) in steps.iter_mut().enumerate() {
        match step {
            Step::Watermark(_) if open => break,
            Step::Watermark(ms) => watermark_ms = *ms,
            Step::Record { given: true, .. } => {}
            Step::Record { answered: true, given } => {
                *given = true;
                due.push(at);
            }
            Step::Record { answered: false, .. } if ordered => break,
            Step::Record { answered: false, .. } => open = true,
        }
    }
    (due, watermark_ms)
}

#[test]
fn results_keep_the_order_or_at_least_the_fences() {
    for seed in 1..=60u64 {
        let mut chance = Chance(seed * 7919);
        let (ordered, capacity) = (seed % 2 == 0, 1 + chance.below(12) as usize);
        let service = Service::default();
        let mut calls = calls(&service, ordered, AsyncOptions::timeout(Duration::ZERO).capacity(capacity));
        let mut steps = Vec::new();
        let mut watermark_ms = 0;
        for round in 0..120 {
            match chance.below(4) {
                0 => {
                    watermark_ms += 1 + chance.below(5) as i64;
                    steps.push(Step::Watermark(watermark_ms));
                    calls.watermark(watermark_ms).unwrap();
                }
                1 | 2 if round < 100 => {
                    let batch = (0..chance.below(4)).map(|n| (steps.len() + n as usize) as i64);
                    let batch: Vec<(i64, i64)> = batch.map(|at| (at * 10, at)).collect();
                    steps.extend(batch.iter().map(|_| Step::Record { answered: false, given: false }));
                    calls.push_batch(batch).unwrap();
                }
                _ => {
                    let open = service.open();
                    assert!(open.len() <= capacity, "seed {seed}");
                    if open.is_empty() {
                        continue;
                    }
                    let input = open[chance.below(open.len() as u64) as usize];
                    service.answer(input, Ok(vec![input, -input]));
                    let Step::Record { answered, .. } = &mut steps[input as usize] else { unreachable!() };
                    *answered = true;
                }
            }
            let (due, reached_ms) = due(&mut steps, ordered);
            let mut expected: Vec<(i64, i64)> =
                due.into_iter().flat_map(|at| [(at as i64 * 10, at as i64), (at as i64 * 10, -(at as i64))]).collect();
            let mut given = given(&mut calls, expected.len());
            if !ordered {
                expected.sort_unstable();
                given.sort_unstable();
            }
            assert_eq!(given, expected, "seed {seed} ordered {ordered}");
            assert_eq!(calls.output_watermark_ms(), reached_ms, "seed {seed} ordered {ordered}");
            let waiting = steps.iter().any(|step| matches!(step, Step::Record { given: false, .. }));
            assert_eq!(calls.under_way().unwrap(), waiting, "seed {seed}");
        }
    }
}

#[test]
fn at_capacity_no_more_is_taken() {
    let service = Service::default();
    let mut calls = calls(&service, true, AsyncOptions::timeout(Duration::ZERO).capacity(3));
    calls.push_batch((0..5).map(|n| (n, n)).collect()).unwrap();
    assert_eq!((service.open(), calls.ready()), (vec![0, 1, 2], false));
    service.answer(0, Ok(vec![7]));
    assert_eq!(given(&mut calls, 1), [(0, 7)]);
    assert_eq!((service.open(), calls.ready()), (vec![1, 2, 3], false));
    // An answer out of turn makes no room: its result is still held.
    service.answer(2, Ok(vec![9]));
    assert!(calls.wait_until_woken(PATIENCE));
    calls.run().unwrap();
    assert_eq!((service.open(), calls.ready()), (vec![1, 3], false));
    service.answer(1, Ok(vec![]));
    assert_eq!(given(&mut calls, 1), [(2, 9)]);
    assert_eq!((service.open(), calls.ready()), (vec![3, 4], true));
}

#[test]
fn a_call_too_late_is_an_error_or_what_the_function_makes_of_it() {
    let options = || AsyncOptions::timeout(Duration::from_millis(500));
    let service = Service::default();
    let mut calls = calls(&service, true, options());
    calls.push(1, -5).unwrap();
    calls.set_processing_time(300).unwrap();
    calls.push(2, 6).unwrap();
    calls.set_processing_time(499).unwrap();
    assert_eq!(calls.take(), []);
    calls.set_processing_time(500).unwrap();
    assert_eq!(calls.take(), [(1, -5), (1, 0)]);
    // An answer behind the time-out changes nothing.
    service.answer(-5, Ok(vec![99]));
    let error = calls.set_processing_time(800).unwrap_err().to_string();
    assert_eq!(error, "after 500 ms: no answer about 6");
    assert_eq!(calls.take(), []);
}

#[test]
fn calls_are_tried_again_after_a_fixed_or_a_growing_pause() {
    let busy = |error: &Error| error.to_string().contains("busy");
    let (fixed, growing) = (
        AsyncRetry::fixed_delay(2, Duration::from_millis(100)).if_error(busy).if_result(|results| results.is_empty()),
        AsyncRetry::exponential(9, Duration::from_millis(10), Duration::from_millis(50), 2.0).if_error(busy),
    );
    let retried = |retry: AsyncRetry<i64>, timeout_ms: u64, pauses_ms: &[i64], last: Result<Vec<i64>>| {
        let service = Service::default();
        let options = AsyncOptions::timeout(Duration::from_millis(timeout_ms)).retry(retry);
        let mut calls = calls(&service, false, options);
        calls.push(1, 3).unwrap();
        for (retries, pause_ms) in pauses_ms.iter().enumerate() {
            let empty = retries % 2 == 1 && *pause_ms == 100;
            service.answer(3, if empty { Ok(vec![]) } else { Err(Error::external("busy")) });
            assert!(calls.wait_until_woken(PATIENCE));
            calls.run().unwrap();
            calls.advance_processing_time(pause_ms - 1).unwrap();
            assert_eq!(service.made(3), retries + 1, "not before its time");
            calls.advance_processing_time(1).unwrap();
            assert_eq!(service.made(3), retries + 2);
        }
        service.answer(3, last);
        assert!(calls.wait_until_woken(PATIENCE));
        calls.run().map(|()| calls.take())
    };
    let busy = || Err(Error::external("busy"));
    assert_eq!(retried(fixed.clone(), 0, &[100, 100], Ok(vec![4])).unwrap(), [(1, 4)]);
    assert_eq!(retried(fixed.clone(), 0, &[100, 100], Ok(vec![])).unwrap(), [], "the last results stand");
    assert!(retried(fixed.clone(), 0, &[100, 100], busy()).unwrap_err().to_string().contains("busy"));
    assert!(retried(fixed, 0, &[100], Err(Error::input("wrong"))).unwrap_err().to_string().contains("wrong"));
    assert_eq!(retried(growing, 0, &[10, 20, 40, 50, 50], Ok(vec![4])).unwrap(), [(1, 4)]);
}

#[test]
fn the_time_out_counts_from_the_first_try() {
    let service = Service::default();
    let retry = AsyncRetry::fixed_delay(100, Duration::from_millis(40)).if_error(|_| true);
    let mut calls = calls(&service, true, AsyncOptions::timeout(Duration::from_millis(100)).retry(retry));
    calls.push(1, -1).unwrap();
    for now_ms in [40, 80] {
        service.answer(-1, Err(Error::external("busy")));
        assert!(calls.wait_until_woken(PATIENCE));
        calls.run().unwrap();
        calls.set_processing_time(now_ms).unwrap();
    }
    assert_eq!(service.made(-1), 3);
    calls.set_processing_time(100).unwrap();
    assert_eq!(calls.take(), [(1, -1), (1, 0)]);
}

#[test]
fn what_is_under_way_is_saved_and_called_again_by_any_number_of_subtasks() {
    for seed in 1..=20u64 {
        let mut chance = Chance(seed * 7919);
        let ordered = seed % 2 == 0;
        let (mut given_by_all, mut pushed) = (Vec::new(), 0);
        let mut snapshot = Snapshot::default();
        for _ in 0..6 {
            // What was called before the crash is never answered.
            let service = Service::default();
            let parallelism = 1 + chance.below(3) as usize;
            let options = || AsyncOptions::timeout(Duration::ZERO).capacity(5);
            let of = |subtask| calls_of(&service, ordered, options(), (subtask, parallelism), &snapshot);
            let mut subtasks: Vec<Calls> = (0..parallelism).map(of).collect();
            for calls in &mut subtasks {
                calls.run().unwrap();
                let batch = (0..chance.below(9)).map(|n| pushed + n as i64).map(|n| (n, n)).collect::<Vec<_>>();
                pushed += batch.len() as i64;
                calls.push_batch(batch).unwrap();
            }
            for input in service.open() {
                if chance.below(2) == 0 {
                    service.answer(input, Ok(vec![input]));
                }
            }
            for calls in &mut subtasks {
                calls.wait_until_woken(Duration::from_millis(2));
                calls.run().unwrap();
                given_by_all.extend(calls.take());
            }
            snapshot = Snapshot::merged(subtasks.iter_mut().map(|calls| calls.snapshot().unwrap()));
            // After the checkpoint more may come, which the crash takes back.
            for calls in &mut subtasks {
                calls.push(-1, -1).unwrap();
            }
        }
        let service = Service::default();
        let options = AsyncOptions::timeout(Duration::ZERO);
        let mut last = calls_of(&service, ordered, options.capacity(1000), (0, 1), &snapshot);
        last.run().unwrap();
        let open = service.open();
        open.iter().for_each(|input| service.answer(*input, Ok(vec![*input])));
        given_by_all.extend(given(&mut last, open.len()));
        given_by_all.sort_unstable();
        assert_eq!(given_by_all, (0..pushed).map(|n| (n, n)).collect::<Vec<_>>(), "seed {seed}");
        last.end().unwrap();
        assert_eq!(last.take(), []);
    }
}

/// Gives way a few times before it is ready, so that calls overtake each other.
struct Later(u64);
impl Future for Later {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.0 {
            0 => Poll::Ready(()),
            _ => {
                self.0 -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

#[test]
fn crashes_lose_and_double_no_result() {
    const LAST: i64 = 20_000;
    let build = |env: &Environment, ledger: &Ledger| {
        let numbers = env.from_sequence(1, LAST).uid("numbers").assign_timestamps_and_watermarks(
            WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(LAST as u64))
                .with_timestamps(|n: &i64, _| *n),
        );
        let options = || AsyncOptions::timeout(Duration::from_secs(60)).threads(2).capacity(30);
        let unordered = numbers.unordered_wait(options(), |n: i64| async move {
            Later(n as u64 * 7 % 5).await;
            Ok((n % 3 > 0).then(|| ("unordered".to_string(), n, n)))
        });
        let keyed = numbers.key_by(|n| n % 50).flat_map_with_state(|n, _: &mut Option<u8>| Some(n)).uid("keyed");
        let ordered = keyed.async_map(options(), |n: i64| async move {
            Later(n as u64 * 7 % 3).await;
            Ok(("ordered".to_string(), n, n))
        });
        unordered.uid("unordered").union(&[&ordered.uid("ordered")]).sink_to(ledger.clone()).uid("ledger");
    };
    let unordered = (1..=LAST).filter(|n| n % 3 > 0).map(|n| ("unordered".to_string(), n, n));
    let mut expected: Vec<Row> = unordered.chain((1..=LAST).map(|n| ("ordered".to_string(), n, n))).collect();
    expected.sort();
    crash_at_random(12, build, &expected);
}

#[test]
fn a_blocking_call_does_not_hold_the_worker() {
    let env = Environment::new();
    env.set_parallelism(1);
    // The first call waits until all others have been answered; one worker makes and answers them all.
    let answered = Arc::new((Mutex::new(0), Condvar::new()));
    let shared = answered.clone();
    let options = AsyncOptions::timeout(Duration::ZERO).threads(2).capacity(1000);
    let results = env.from_sequence(1, 1000).unordered_wait(options, move |n: i64| {
        let shared = shared.clone();
        async move {
            let (count, changed) = &*shared;
            let mut count = count.lock().unwrap();
            if n == 1 {
                let (count, waited) = changed.wait_timeout_while(count, PATIENCE, |count| *count < 999).unwrap();
                assert!(!waited.timed_out(), "{count} answered");
            } else {
                *count += 1;
                changed.notify_all();
            }
            Ok(Some(n))
        }
    });
    let results = results.collect();
    env.execute("blocking").unwrap();
    let mut results = results.take();
    results.sort_unstable();
    assert_eq!(results, (1..=1000).collect::<Vec<i64>>());
}

#[test]
fn a_failing_or_panicking_call_fails_the_job() {
    let run = |function: fn(i64) -> Result<Option<i64>>| {
        let env = Environment::new();
        let options = AsyncOptions::timeout(Duration::ZERO);
        env.from_sequence(1, 5000).ordered_wait(options, move |n: i64| async move { function(n) }).collect();
        env.execute("fails").unwrap_err().to_string()
    };
    let error = run(|n| if n == 700 { Err(Error::external("the service is gone")) } else { Ok(Some(n)) });
    assert!(error.contains("the service is gone") && error.contains("Async Wait"), "{error}");
    let error = run(|n| if n == 700 { panic!("no sevens") } else { Ok(None) });
    assert!(error.contains("an asynchronous call panicked: no sevens"), "{error}");
    let env = Environment::new();
    let options = AsyncOptions::timeout(Duration::ZERO).capacity(0);
    env.from_sequence(1, 5).async_map(options, |n: i64| async move { Ok(n) }).collect();
    assert!(env.execute("no room").unwrap_err().to_string().contains("capacity"));
}

#[test]
fn many_calls_at_once_in_a_job() {
    static MOST: AtomicUsize = AtomicUsize::new(0);
    static NOW: AtomicUsize = AtomicUsize::new(0);
    for parallelism in 1..=3 {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let options = AsyncOptions::timeout(Duration::from_secs(60));
        let results = env.from_sequence(1, 30_000).ordered_wait(options, |n: i64| {
            MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            async move {
                Later(n as u64 % 4).await;
                NOW.fetch_sub(1, Ordering::SeqCst);
                Ok(vec![n; (n % 3) as usize])
            }
        });
        let results = results.collect();
        env.execute("many").unwrap();
        let mut results = results.take();
        results.sort_unstable();
        let expected: Vec<i64> = (1..=30_000).flat_map(|n| vec![n; (n % 3) as usize]).collect();
        assert_eq!(results, expected, "parallelism {parallelism}");
        assert!(MOST.swap(0, Ordering::SeqCst) <= 100 * parallelism, "at most the capacity in each subtask");
    }
}
