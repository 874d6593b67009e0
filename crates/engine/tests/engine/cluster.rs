//! A job of several processes: what it gives, how it fails, who may take part. The processes are threads of the test here,
//! with sockets between them; killed processes of their own stand in `tests/faults`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidemill_core::report::{MetricValue, Report};
use tidemill_core::{Error, Result};
use tidemill_engine::runtime::{Cluster, JobEnd, JobResult, Secret};
use tidemill_engine::stream::{
    Accumulator, Counter, JobHandle, LongCounter, ProcessContext, ProcessFunction, RuntimeContext, Tally,
    WatermarkStrategy,
};
use tidemill_engine::window::{Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

use crate::comes_about;
use crate::recovery::{self, Ledger};
use crate::windows::Chance;

/// Addresses that were free a moment ago.
fn addresses(processes: usize) -> Vec<String> {
    let listeners: Vec<TcpListener> = (0..processes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

fn secret() -> Secret {
    Secret::new("a secret of the tests").unwrap()
}

fn cluster(process: usize, addresses: &[String]) -> Cluster {
    Cluster { start_timeout_ms: 20_000, ..Cluster::new(process, addresses.to_vec(), secret()) }
}

pub type Outcomes = Vec<Result<JobResult>>;

/// Runs a job of as many processes as there are clusters: `build` describes it in each, `started` gets each one's handle.
pub fn run<K: Send>(
    settings: &JobSettings,
    clusters: Vec<Cluster>,
    build: impl Fn(usize, &Environment) -> K + Sync,
    started: impl Fn(usize, JobHandle) + Sync,
) -> (Outcomes, Vec<K>) {
    std::thread::scope(|scope| {
        let threads: Vec<_> = clusters
            .into_iter()
            .map(|cluster| {
                let (settings, build, started) = (settings.clone(), &build, &started);
                scope.spawn(move || {
                    let process = cluster.process;
                    let settings = JobSettings { job_id: "5".repeat(32), cluster: Some(cluster), ..settings };
                    let env = Environment::with_settings(settings);
                    let kept = build(process, &env);
                    (env.execute_with("cluster", |handle| started(process, handle)), kept)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).unzip()
    })
}

pub fn all(processes: usize) -> Vec<Cluster> {
    let addresses = addresses(processes);
    (0..processes).map(|process| cluster(process, &addresses)).collect()
}

#[test]
fn every_graph_gives_with_several_processes_what_it_gives_with_one() {
    let words = || (0..5000).map(|n| format!("w{}", n * n % 137)).collect::<Vec<String>>();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut expected: Vec<(String, u64)> = Vec::new();
    for word in words() {
        let count = counts.entry(word.clone()).or_default();
        *count += 1;
        expected.push((word, *count));
    }
    expected.sort();
    let mut windows: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for n in 1..=20_000i64 {
        *windows.entry((n % 31, n / 100 * 100 + 100)).or_default() += n;
    }
    let windows: Vec<(i64, i64, i64)> = windows.into_iter().map(|((key, end), sum)| (key, end, sum)).collect();
    for (processes, parallelism, tls) in
        [(1, 2, false), (2, 2, false), (2, 4, false), (2, 3, true), (3, 3, false), (3, 6, true)]
    {
        let settings = JobSettings { parallelism: Some(parallelism), ..JobSettings::default() };
        let build = |_: usize, env: &Environment| {
            let counts = env
                .from_collection(words())
                .rebalance()
                .map(|word: String| (word, 1u64))
                .slot_sharing_group("words")
                .key_by(|(word, _)| word.clone())
                .sum(|(_, count)| count)
                .collect();
            let windows = env
                .from_sequence(1, 20_000)
                .assign_timestamps_and_watermarks(
                    WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(20_000))
                        .with_timestamps(|n: &i64, _| *n),
                )
                .key_by(|n| n % 31)
                .window(Tumbling::event_time(Duration::from_millis(100)))
                .reduce_with(|a, b| *a += b, |key: &i64, window: Window, sum: i64| Some((*key, window.end_ms, sum)))
                .collect();
            let everywhere = env.from_collection(vec![7i64, 8]).broadcast().map(|n| n).collect();
            (counts, windows, everywhere)
        };
        let clusters = all(processes).into_iter().map(|cluster| Cluster { tls, ..cluster }).collect();
        let (outcomes, kept) = run(&settings, clusters, build, |_, _| {});
        for outcome in outcomes {
            assert_eq!(outcome.unwrap().end, JobEnd::Finished, "{processes} processes, parallelism {parallelism}");
        }
        let mut got: (Vec<_>, Vec<_>, Vec<_>) = Default::default();
        for (counts, windows, everywhere) in kept {
            got.0.extend(counts.take());
            got.1.extend(windows.take());
            got.2.extend(everywhere.take());
        }
        got.0.sort();
        got.1.sort_unstable();
        got.2.sort_unstable();
        assert_eq!(got.0, expected, "{processes} processes, parallelism {parallelism}");
        assert_eq!(got.1, windows, "{processes} processes, parallelism {parallelism}");
        assert_eq!(got.2, [vec![7i64; parallelism], vec![8; parallelism]].concat());
    }
}

#[test]
fn crashes_with_changing_numbers_of_processes_lose_and_double_nothing() {
    let expected = recovery::undisturbed();
    for seed in 1..=8u64 {
        let mut chance = Chance(seed * 104_729);
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::default();
        let mut attempts = Vec::new();
        loop {
            let processes = 1 + chance.below(3) as usize;
            let parallelism = processes + chance.below(3) as usize;
            let (victim, crash_after) = (chance.below(processes as u64) as usize, chance.below(120_000));
            let give_up = attempts.len() >= 5;
            let settings = recovery::settings(folder.path(), parallelism);
            let started = |process: usize, job: JobHandle| {
                if process == victim && !give_up {
                    std::thread::spawn(move || {
                        std::thread::park_timeout(Duration::from_micros(crash_after));
                        job.fail("crash");
                    });
                }
            };
            let build = |_: usize, env: &Environment| recovery::build(env, &ledger);
            let (outcomes, _) = run(&settings, all(processes), build, started);
            attempts.push((processes, parallelism, victim));
            if outcomes.iter().all(Result::is_ok) {
                break;
            }
            for error in outcomes.into_iter().filter_map(Result::err) {
                assert!(error.to_string().contains("crash"), "seed {seed}, {attempts:?}: {error}");
            }
        }
        assert!(ledger.rows() == expected, "seed {seed}, attempts (processes, parallelism, victim) {attempts:?}");
    }
}

/// A source of every number that never ends, in each process; and a count of those.
fn endless(env: &Environment) {
    env.from_sequence(1, 1 << 40).key_by(|n| n % 97).sum(|n| n).map(|_| ()).sink_to(Nowhere);
}

#[derive(Clone)]
struct Nowhere;
impl tidemill_core::sink::Sink<()> for Nowhere {
    fn name(&self) -> String {
        "nowhere".into()
    }
    fn writer(&self, _: tidemill_core::sink::WriterContext) -> Result<Box<dyn tidemill_core::sink::SinkWriter<()>>> {
        Ok(Box::new(Nowhere))
    }
}
impl tidemill_core::sink::SinkWriter<()> for Nowhere {
    fn write(&mut self, _: Vec<(i64, ())>) -> Result<()> {
        Ok(())
    }
    fn pre_commit(&mut self, _: u64) -> Result<tidemill_core::sink::PreCommit> {
        Ok(Box::new(|| Ok(Vec::new())))
    }
}

fn settings(folder: &Path) -> JobSettings {
    JobSettings {
        checkpoint_dir: Some(folder.to_path_buf()),
        checkpoint_interval_ms: Some(20),
        parallelism: Some(4),
        ..JobSettings::default()
    }
}

#[test]
fn a_savepoint_stops_all_processes_and_the_report_shows_all_subtasks() {
    let (folder, savepoints) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let report: Mutex<Option<Report>> = Mutex::default();
    let started = |process: usize, job: JobHandle| {
        if process == 0 {
            let savepoints = savepoints.path().to_path_buf();
            std::thread::spawn(move || {
                let busy = |job: &JobHandle| {
                    job.report().vertices.iter().all(|v| v.subtasks.iter().all(|s| s.records_in > 1000))
                };
                assert!(comes_about(|| busy(&job) && job.report().checkpoints.completed > 2));
                job.savepoint(Some(savepoints), true, false).unwrap();
            });
        }
    };
    let (outcomes, _) = run(&settings(folder.path()), all(2), |_, env| endless(env), started);
    for outcome in outcomes {
        let outcome = outcome.unwrap();
        assert_eq!(outcome.end, JobEnd::Suspended);
        report.lock().unwrap().get_or_insert(outcome.report);
    }
    let report = report.lock().unwrap().take().unwrap();
    let read: u64 = report.vertices[0].subtasks.iter().map(|subtask| subtask.records_out).sum();
    let summed: u64 = report.vertices[1].subtasks.iter().map(|subtask| subtask.records_in).sum();
    assert_eq!(read, summed, "the last counters of all processes are in the report");
    assert_eq!(report.vertices[0].subtasks.len(), 4);
}

/// Counts what it sees, by a metric and by accumulators.
#[derive(Clone, Default)]
struct Counts {
    seen: Option<Counter>,
    sum: Accumulator<LongCounter>,
    digits: Accumulator<Tally>,
}

impl ProcessFunction<i64, i64> for Counts {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.seen = Some(context.metrics.counter("seen")?);
        (self.sum, self.digits) = (context.accumulator("sum")?, context.accumulator("digits")?);
        Ok(())
    }

    fn process(&mut self, value: i64, context: &mut ProcessContext<'_, i64>) -> Result<()> {
        self.seen.as_ref().unwrap().inc();
        self.sum.add(value);
        self.digits.add(value % 10);
        context.emit(value)
    }
}

#[test]
fn metrics_and_accumulators_of_all_processes_are_in_the_report() {
    let settings = JobSettings { parallelism: Some(4), ..JobSettings::default() };
    let build = |_: usize, env: &Environment| {
        env.from_sequence(1, 10_000).rebalance().process(Counts::default()).uid("counts").collect();
    };
    let (outcomes, _) = run(&settings, all(2), build, |_, _| {});
    let report = outcomes.into_iter().map(|outcome| outcome.unwrap().report).next().unwrap();
    let operators = report.vertices.iter().flat_map(|vertex| &vertex.operators);
    let metrics = operators.clone().find(|operator| operator.uid == "counts").unwrap().metrics.clone();
    let count = |value: &MetricValue| match value {
        MetricValue::Counter { count } => *count,
        other => panic!("{other:?}"),
    };
    let seen: Vec<(usize, u64)> = metrics.iter().map(|metric| (metric.subtask, count(&metric.value))).collect();
    assert_eq!(seen.iter().map(|(subtask, _)| *subtask).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(seen.iter().all(|(_, count)| *count > 0), "{seen:?}");
    assert_eq!(seen.iter().map(|(_, count)| *count).sum::<u64>(), 10_000);
    assert_eq!(report.accumulators["sum"], 50_005_000);
    let digits: BTreeMap<i64, u64> = serde_json::from_value(report.accumulators["digits"].clone()).unwrap();
    assert_eq!(digits, (0..10).map(|digit| (digit, 1000)).collect());
}

#[test]
fn what_fails_in_one_process_is_said_by_all() {
    let folder = tempfile::tempdir().unwrap();
    let build = |process: usize, env: &Environment| {
        env.from_sequence(1, 1 << 40)
            .key_by(|n| n % 97)
            .sum(|n| n)
            .map(move |n| assert!(process != 1 || n < 1 << 40, "too large for process 1"))
            .sink_to(Nowhere);
    };
    let (outcomes, _) = run(&settings(folder.path()), all(3), build, |_, _| {});
    for outcome in outcomes {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("too large for process 1"), "{error}");
    }
}

#[test]
fn a_peer_with_a_wrong_secret_is_refused_and_the_job_goes_on_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = addresses(2);
    let settings = JobSettings { parallelism: Some(2), ..settings(folder.path()) };
    let finite = |env: &Environment| env.from_sequence(1, 1000).key_by(|n| n % 7).sum(|n| n).collect();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| run(&settings, vec![cluster(0, &addresses)], |_, env| finite(env), |_, _| {}));
        let wrong = Cluster {
            secret: Secret::new("another secret, as long").unwrap(),
            start_timeout_ms: 500,
            ..cluster(1, &addresses)
        };
        let (outcomes, _) = run(&settings, vec![wrong], |_, env| finite(env), |_, _| {});
        let error = outcomes.into_iter().next().unwrap().unwrap_err().to_string();
        assert!(error.contains("process 0") && error.contains("another join secret"), "{error}");
        let mut stranger = TcpStream::connect(&addresses[0]).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(stranger.read(&mut [0; 64]), Ok(0) | Err(_)), "nothing is said to a stranger");
        // A program with another plan is told so at once.
        let other = run(&settings, vec![cluster(1, &addresses)], |_, env| endless(env), |_, _| {});
        let error = other.0.into_iter().next().unwrap().unwrap_err().to_string();
        assert!(error.contains("another plan"), "{error}");
        assert!(!first.is_finished(), "it goes on waiting");
        let (second, rest) = run(&settings, vec![cluster(1, &addresses)], |_, env| finite(env), |_, _| {});
        let (first, kept) = first.join().unwrap();
        assert!(first.into_iter().chain(second).all(|outcome| outcome.is_ok()));
        assert_eq!(kept.into_iter().chain(rest).map(|rows| rows.take().len()).sum::<usize>(), 1000);
    });
}

#[test]
fn several_processes_want_an_id_that_is_given() {
    let cluster = Some(cluster(0, &addresses(2)));
    let env = Environment::with_settings(JobSettings { parallelism: Some(2), cluster, ..JobSettings::default() });
    endless(&env);
    let error = env.execute("nameless").unwrap_err().to_string();
    assert!(error.contains("a job of several processes was given no id"), "{error}");
}

#[test]
fn a_process_that_does_not_come_is_named() {
    let addresses = addresses(2);
    let settings = JobSettings { parallelism: Some(2), ..JobSettings::default() };
    let alone = Cluster { start_timeout_ms: 300, ..cluster(0, &addresses) };
    let (outcomes, _) = run(&settings, vec![alone], |_, env| endless(env), |_, _| {});
    let error = outcomes.into_iter().next().unwrap().unwrap_err().to_string();
    assert!(error.contains(&format!("process 1 ({}) did not join within 300 ms", addresses[1])), "{error}");
}

#[test]
fn processes_with_checkpoint_folders_of_their_own_are_refused() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let build = |process: usize, env: &Environment| {
        env.settings().checkpoint_dir = Some(folders[process].path().to_path_buf());
        endless(env);
    };
    let (outcomes, _) = run(&settings(folders[0].path()), all(2), build, |_, _| {});
    let errors: Vec<Error> = outcomes.into_iter().map(Result::unwrap_err).collect();
    assert!(errors[1].to_string().contains("must be one and the same folder in all processes"), "{}", errors[1]);
    assert!(errors[0].to_string().contains("process 1"), "{}", errors[0]);
}

/// A way between two processes that can be cut: it takes everything and hands nothing on, as a network does.
struct Way {
    address: String,
    cut: Arc<AtomicBool>,
    passed: Arc<AtomicU64>,
    /// What has passed, in both directions, as far as it was read by this way.
    seen: Arc<Mutex<Vec<u8>>>,
}

const SEEN_BYTES_MAX: usize = 8 << 20;

fn way(to: String) -> Way {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let way = Way {
        address: listener.local_addr().unwrap().to_string(),
        cut: Arc::default(),
        passed: Arc::default(),
        seen: Arc::default(),
    };
    let (cut, passed, seen) = (way.cut.clone(), way.passed.clone(), way.seen.clone());
    std::thread::spawn(move || {
        for one in listener.incoming().flatten() {
            let Ok(other) = TcpStream::connect(&to) else { continue };
            for (mut from, mut to) in [(one.try_clone().unwrap(), other.try_clone().unwrap()), (other, one)] {
                let (cut, passed, seen) = (cut.clone(), passed.clone(), seen.clone());
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(read) = from.read(&mut buffer) {
                        if cut.load(Ordering::SeqCst) {
                            // Neither end hears anything, not even that the other has closed.
                            std::thread::park_timeout(Duration::from_secs(60));
                            return;
                        }
                        if read == 0 || to.write_all(&buffer[..read]).is_err() {
                            let _ = to.shutdown(std::net::Shutdown::Write);
                            return;
                        }
                        passed.fetch_add(read as u64, Ordering::SeqCst);
                        let mut seen = seen.lock().unwrap();
                        if seen.len() < SEEN_BYTES_MAX {
                            seen.extend_from_slice(&buffer[..read]);
                        }
                    }
                });
            }
        }
    });
    way
}

#[test]
fn what_passes_between_processes_is_hidden_by_tls() {
    let word = "a word that everybody on the way can read";
    for tls in [false, true] {
        let own = addresses(2);
        let way = way(own[0].clone());
        let through = vec![way.address.clone(), own[1].clone()];
        let hidden = |cluster: Cluster| Cluster { tls, ..cluster };
        let clusters = vec![hidden(cluster(0, &own)), hidden(cluster(1, &through))];
        let build = |_: usize, env: &Environment| {
            env.from_sequence(1, 2_000)
                .map(move |n| (n % 7, format!("{word} {n}")))
                .key_by(|(key, _)| *key)
                .reduce(|held, next| *held = next)
                .collect()
        };
        let settings = JobSettings { parallelism: Some(2), ..JobSettings::default() };
        let (outcomes, kept) = run(&settings, clusters, build, |_, _| {});
        for outcome in outcomes {
            outcome.unwrap();
        }
        assert_eq!(kept.into_iter().map(|rows| rows.take().len()).sum::<usize>(), 2_000);
        let seen = way.seen.lock().unwrap().clone();
        let read = seen.windows(word.len()).any(|window| window == word.as_bytes());
        assert_eq!(read, !tls, "{} bytes seen", seen.len());
    }
}

#[test]
fn a_process_without_tls_is_refused_by_those_with() {
    for first_has in [false, true] {
        let addresses = addresses(2);
        let settings = JobSettings { parallelism: Some(2), ..JobSettings::default() };
        let short = |cluster: Cluster, tls| Cluster { tls, start_timeout_ms: 500, ..cluster };
        let clusters = vec![short(cluster(0, &addresses), first_has), short(cluster(1, &addresses), !first_has)];
        let (outcomes, _) = run(&settings, clusters, |_, env| endless(env), |_, _| {});
        let error = outcomes.into_iter().next().unwrap().unwrap_err().to_string();
        assert!(error.contains("TLS"), "{error}");
    }
}

#[test]
fn a_way_that_is_cut_fails_the_job_in_bounded_time() {
    let folder = tempfile::tempdir().unwrap();
    let own = addresses(2);
    let way = way(own[0].clone());
    let through = vec![way.address.clone(), own[1].clone()];
    let fast = |cluster: Cluster| Cluster { peer_timeout_ms: 1_000, ..cluster };
    let clusters = vec![fast(cluster(0, &own)), fast(cluster(1, &through))];
    let (tell, told) = std::sync::mpsc::channel();
    let tell = Mutex::new(tell);
    let started = |process: usize, job: JobHandle| {
        if process == 0 {
            let (cut, passed, tell) = (way.cut.clone(), way.passed.clone(), tell.lock().unwrap().clone());
            std::thread::spawn(move || {
                let busy = || passed.load(Ordering::SeqCst) > 1 << 20 && job.report().checkpoints.completed > 1;
                let busy = comes_about(busy);
                cut.store(true, Ordering::SeqCst);
                tell.send((busy, Instant::now())).unwrap();
            });
        }
    };
    let (outcomes, _) = run(&settings(folder.path()), clusters, |_, env| endless(env), started);
    let (busy, cut_at) = told.recv().unwrap();
    assert!(busy, "the job was at work when the way was cut");
    assert!(cut_at.elapsed() < Duration::from_secs(10), "noticed within {:?}", cut_at.elapsed());
    for (process, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(&format!("process {} ", 1 - process)) && error.contains("is lost"), "{error}");
    }
}
