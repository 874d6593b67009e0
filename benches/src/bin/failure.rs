//! How long a job with a gigabyte of keyed state in memory is away: from its failure to the first new result, when its
//! process is started again as soon as it is gone. Once it is killed, once its function returns an error.
//!
//! Figure wanted: below 3 s.
//!
//! `failure [MB of state] [rounds]`

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidemill_benches::{Failure, load, median, number};
use tidemill_connectors::generator::GeneratorSource;
use tidemill_core::sink::{PreCommit, Sink, SinkWriter, WriterContext};
use tidemill_core::{Error, Result};
use tidemill_engine::state::ValueState;
use tidemill_engine::stream::{KeyedContext, KeyedProcessFunction, WatermarkStrategy};
use tidemill_engine::{Environment, JobSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of a value.
const VALUE_BYTES: usize = 1000;

/// What the job's process says, a line each.
const RESULT: &str = "result";
const READY: &str = "ready";

#[derive(Clone)]
struct Update {
    held: ValueState<(u64, Vec<u8>)>,
    records: Arc<AtomicU64>,
    fails: Arc<AtomicBool>,
}

impl KeyedProcessFunction<u64, u64, u64> for Update {
    fn process(&mut self, _: u64, context: &mut KeyedContext<'_, u64, u64>) -> Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::external("told to fail"));
        }
        let key = *context.key();
        let held = self.held.get_or(context, || (0, vec![key as u8; VALUE_BYTES]))?;
        held.0 += 1;
        let count = held.0;
        self.records.fetch_add(1, Ordering::Relaxed);
        context.emit(count)
    }
}

/// Says when the first result comes.
struct Told(bool);

impl Sink<u64> for Told {
    fn name(&self) -> String {
        "told".to_string()
    }

    fn writer(&self, _: WriterContext) -> Result<Box<dyn SinkWriter<u64>>> {
        Ok(Box::new(Told(false)))
    }
}

impl SinkWriter<u64> for Told {
    fn write(&mut self, _: Vec<(i64, u64)>) -> Result<()> {
        if !std::mem::replace(&mut self.0, true) {
            println!("{RESULT}");
        }
        Ok(())
    }

    fn pre_commit(&mut self, _: u64) -> Result<PreCommit> {
        Ok(Box::new(|| Ok(Vec::new())))
    }
}

/// The process of the job: takes a checkpoint when all keys are there, fails when it is told a line.
fn run_job(folder: &Path, keys: u64) -> Result<(), Failure> {
    let (records, fails) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let env = Environment::with_settings(JobSettings {
        parallelism: Some(1),
        checkpoint_dir: Some(folder.to_path_buf()),
        checkpoint_interval_ms: None,
        ..JobSettings::default()
    });
    // First each key once, then keys at random.
    let key = move |index: u64| match index < keys {
        true => index,
        false => (index ^ (index >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) % keys,
    };
    let source = GeneratorSource::new("keys", key).split_count(1);
    let update = Update { held: ValueState::new("held"), records: records.clone(), fails: fails.clone() };
    let keyed = env.from_source(source, WatermarkStrategy::none(), "keys").key_by(|key: &u64| *key);
    keyed.process(update).sink_to(Told(false));
    let fresh = std::fs::read_dir(folder)?.next().is_none();
    let job = env.execute_async("failure")?;
    if fresh {
        while records.load(Ordering::Relaxed) < keys {
            std::thread::sleep(Duration::from_millis(20));
        }
        job.handle().checkpoint()?;
    }
    println!("{READY}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    fails.store(true, Ordering::Relaxed);
    job.wait().map(drop).map_err(Into::into)
}

struct Job {
    process: Child,
    says: BufReader<ChildStdout>,
}

impl Job {
    fn start(folder: &Path, keys: u64) -> Result<Job, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("job").arg(folder).arg(keys.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.stderr(Stdio::null()).spawn()?;
        let says = process.stdout.take().ok_or("the job has no output")?;
        Ok(Job { process, says: BufReader::new(says) })
    }

    fn wait_for(&mut self, word: &str) -> Result<(), Failure> {
        let mut line = String::new();
        while line.trim() != word {
            line.clear();
            if self.says.read_line(&mut line)? == 0 {
                return Err(format!("the job has ended and not said `{word}`").into());
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, job, folder, keys] = &arguments[..]
        && job == "job"
    {
        return run_job(Path::new(folder), keys.parse()?);
    }
    let (megabytes, rounds) = (number(1, 1000), number(2, 3));
    let keys = megabytes * 1_000_000 / VALUE_BYTES as u64;
    let folder = tempfile::tempdir()?;
    let mut job = Job::start(folder.path(), keys)?;
    job.wait_for(READY)?;
    println!("{megabytes} MB of keyed state in memory, 1 worker, {rounds} rounds, load {}", load());
    for (way, killed) in [("killed", true), ("an error", false)] {
        let (mut gone, mut back) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let failed = Instant::now();
            if killed {
                job.process.kill()?;
            } else {
                writeln!(job.process.stdin.take().ok_or("the job has no input")?, "fail")?;
            }
            job.process.wait()?;
            gone.push(failed.elapsed().as_secs_f64());
            job = Job::start(folder.path(), keys)?;
            job.wait_for(RESULT)?;
            back.push(failed.elapsed().as_secs_f64());
            // Some more records than the checkpoint holds.
            std::thread::sleep(Duration::from_secs(1));
        }
        let (gone, most, back) = (median(&mut gone), back.iter().copied().fold(0.0, f64::max), median(&mut back));
        println!(
            "  {way:<9} process gone after {gone:>5.2} s   first new result after {back:>5.2} s, at most {most:.2} s"
        );
    }
    job.process.kill()?;
    job.process.wait()?;
    Ok(())
}
