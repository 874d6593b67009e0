//! The job of a torture seed: `torture SEED FOLDER`. With `--jumps N` its clock jumps to and fro, by chance of that seed; with
//! `--kafka SERVERS FROM INTO` it reads and writes topics instead of the folder.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tidemill::core::{Clock, SystemClock};
use tidemill::engine::JobSettings;
use tidemill::prelude::*;
use tidemill_faults::torture::Chance;
use tidemill_faults::torture::graph::Graph;
use tidemill_faults::torture::job::{self, Place};
use tidemill_faults::torture::kafka::KafkaPlace;

/// A clock that somebody sets: up to an hour ahead or back.
struct JumpingClock(AtomicI64);

impl Clock for JumpingClock {
    fn now_ms(&self) -> i64 {
        SystemClock.now_ms() + self.0.load(Ordering::Relaxed)
    }

    fn steady_ms(&self) -> i64 {
        SystemClock.steady_ms()
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tidemill::core::say(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
    let missing = || Error::input("a seed and a folder are wanted");
    let seed = number(0).ok_or_else(missing)?;
    let into = words.get(1).map(PathBuf::from).ok_or_else(missing)?;
    let mut settings = JobSettings::from_process()?;
    if let Some(jumps) = number(3).filter(|_| words[2] == "--jumps") {
        let clock = Arc::new(JumpingClock(AtomicI64::new(0)));
        settings.clock = clock.clone();
        let mut chance = Chance::new(jumps);
        std::thread::spawn(move || {
            loop {
                std::thread::park_timeout(Duration::from_millis(chance.below(60)));
                clock.0.store(chance.below(7_200_000) as i64 - 3_600_000, Ordering::Relaxed);
            }
        });
    }
    let parallelism = settings.parallelism.unwrap_or(1);
    let env = Environment::with_settings(settings);
    let word = |at: usize| words.get(at).cloned().ok_or_else(|| Error::input("`--kafka SERVERS FROM INTO` is wanted"));
    let place = match words.iter().position(|word| word == "--kafka") {
        Some(at) => Place::Kafka(KafkaPlace { servers: word(at + 1)?, from: word(at + 2)?, into: word(at + 3)? }),
        None => Place::Folder(&into),
    };
    job::build(&Graph::of(seed), &env, parallelism, &place);
    env.execute("torture").map(drop)
}
