//! Flow control and idle splits: a slow sink holds the source, a silent split does not hold event time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use tidemill_core::Result;
use tidemill_core::sink::{PreCommit, Sink, SinkWriter, WriterContext};
use tidemill_core::source::{Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_engine::Environment;
use tidemill_engine::stream::WatermarkStrategy;
use tidemill_engine::window::{Tumbling, Window};

use crate::comes_about;

/// Takes nothing until it is opened.
#[derive(Clone, Default)]
struct Gate {
    open: Arc<AtomicBool>,
    wakers: Arc<Mutex<Vec<Waker>>>,
    written: Arc<AtomicU64>,
}

impl Gate {
    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
        self.wakers.lock().unwrap().iter().for_each(Waker::wake_by_ref);
    }
}

impl Sink<i64> for Gate {
    fn name(&self) -> String {
        "gate".into()
    }
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<i64>>> {
        self.wakers.lock().unwrap().push(context.waker);
        Ok(Box::new(self.clone()))
    }
}

impl SinkWriter<i64> for Gate {
    fn ready(&mut self) -> bool {
        self.open.load(Ordering::SeqCst)
    }
    fn write(&mut self, batch: Vec<(i64, i64)>) -> Result<()> {
        self.written.fetch_add(batch.len() as u64, Ordering::SeqCst);
        Ok(())
    }
    fn pre_commit(&mut self, _: u64) -> Result<PreCommit> {
        Ok(Box::new(|| Ok(Vec::new())))
    }
}

#[test]
fn a_slow_sink_holds_the_source_and_checkpoints_complete_behind_it() {
    const LAST: i64 = 3_000_000;
    for parallelism in 1..=3 {
        let (gate, read_ahead) = (Gate::default(), Arc::new(AtomicU64::new(0)));
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let numbers = env.from_sequence(1, LAST);
        // Two exchanges, and an operator in between that makes three of one.
        numbers
            .key_by(|n| n % 1000)
            .flat_map_with_state(|n, _: &mut Option<u8>| [n, n, n])
            .rebalance()
            .sink_to(gate.clone());
        let (watched, seen) = (gate.clone(), read_ahead.clone());
        env.execute_with("slow sink", move |job| {
            std::thread::spawn(move || {
                let read = || job.report().vertices[0].subtasks.iter().map(|subtask| subtask.records_in).sum::<u64>();
                // It stands still when nothing more is read over many looks.
                let (mut last, mut same) = (0, 0);
                let stood = comes_about(|| {
                    let now = read();
                    same = if now > 0 && now == last { same + 1 } else { 0 };
                    last = now;
                    std::thread::park_timeout(Duration::from_millis(2));
                    same > 100
                });
                let nothing_written = watched.written.load(Ordering::SeqCst) == 0;
                seen.store(if stood && nothing_written { last } else { u64::MAX }, Ordering::SeqCst);
                watched.open();
            });
        })
        .unwrap();
        assert_eq!(gate.written.load(Ordering::SeqCst), 3 * LAST as u64, "nothing is lost");
        // At most the credit of both exchanges for each pair of subtasks, and a few batches at hand.
        let bound = 2 * (32 * 1024 + 16 * 1024) * (parallelism * parallelism) as u64;
        let read = read_ahead.load(Ordering::SeqCst);
        assert!(read > 0 && read <= bound, "parallelism {parallelism}: read {read} of {LAST} ahead, bound {bound}");
    }
}

/// Split 0 has records and stays open; split 1 stays silent until the results of split 0 have been seen.
struct Lopsided {
    released: Arc<AtomicBool>,
}

struct LopsidedReader {
    released: Arc<AtomicBool>,
    splits: Vec<(Split, i64)>,
}

impl Source<i64> for Lopsided {
    fn name(&self) -> String {
        "lopsided".into()
    }
    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }
    fn splits(&self) -> Result<Vec<Split>> {
        Ok((0..2).map(|slot| Split { id: format!("{slot}"), slot, position: 0.into() }).collect())
    }
    fn reader(&self, _: ReaderContext) -> Result<Box<dyn SourceReader<i64>>> {
        Ok(Box::new(LopsidedReader { released: self.released.clone(), splits: Vec::new() }))
    }
}

impl SourceReader<i64> for LopsidedReader {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.splits.extend(splits.into_iter().map(|split| (split, 0)));
        Ok(())
    }
    fn poll(&mut self, output: &mut SourceOutput<i64>) -> Result<Poll> {
        if self.released.load(Ordering::SeqCst) {
            return Ok(Poll::End);
        }
        for (index, (split, next)) in self.splits.iter_mut().enumerate() {
            if split.slot == 0 && *next < 1000 {
                output.push(index, *next, *next);
                *next += 1;
            }
        }
        Ok(Poll::More)
    }
    fn snapshot(&mut self) -> Result<Vec<Split>> {
        Ok(self.splits.iter().map(|(split, next)| Split { position: (*next).into(), ..split.clone() }).collect())
    }
}

#[test]
fn a_silent_split_does_not_hold_event_time_whatever_worker_it_is_on() {
    // On one worker both splits are of one subtask; on two the silent one has a subtask of its own; on three one has none.
    for parallelism in 1..=3 {
        let released = Arc::new(AtomicBool::new(false));
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let strategy = WatermarkStrategy::monotonous()
            .with_interval(Duration::from_millis(1))
            .with_idleness(Duration::from_millis(50));
        let windows = env
            .from_source(Lopsided { released: released.clone() }, strategy, "lopsided")
            .key_by(|_| 0u8)
            .window(Tumbling::event_time(Duration::from_millis(100)))
            .reduce_with(|a, b| *a += b, |_: &u8, window: Window, sum| Some((window.end_ms, sum)))
            .collect();
        let (watched, seen) = (windows.clone(), Arc::new(AtomicBool::new(false)));
        let in_time = seen.clone();
        env.execute_with("idle", move |_| {
            std::thread::spawn(move || {
                in_time.store(comes_about(|| watched.len() >= 9), Ordering::SeqCst);
                released.store(true, Ordering::SeqCst);
            });
        })
        .unwrap();
        assert!(seen.load(Ordering::SeqCst), "parallelism {parallelism}: nine windows although one split is silent");
        let expected: Vec<(i64, i64)> = (1..=10).map(|n| (n * 100, ((n - 1) * 100..n * 100).sum())).collect();
        assert_eq!(windows.take(), expected, "parallelism {parallelism}");
    }
}
