//! `order-generator`: sends the shop's order events, paced as a shop would, into a topic or to standard output.

mod options;
mod output;
mod pace;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Parser;
use order_generator::{Note, OrderGenerator};
use tidemill_core::{Clock, Error, Result, SystemClock};

use crate::options::Options;
use crate::output::{Batch, Output, Sent};
use crate::pace::Pace;

/// The exit code after Ctrl-C that was not obeyed at once.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(summary) => {
            tidemill_core::say(format_args!("{summary}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            tidemill_core::say(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<String> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(Arc::clone(&stop))?;
    let live_start_ms = options.live_start_ms(SystemClock.now_ms())?;
    let mut output = Output::open(options)?;
    let mut generator = OrderGenerator::new(options.generator_config(live_start_ms));
    let mut pace = options.paced().then(|| Pace::new(live_start_ms, options.speed));
    let mut batch = Batch::default();
    let began = Instant::now();
    let (mut sent, mut bad, mut duplicates, mut late) = (0u64, 0u64, 0u64, 0u64);
    while options.count.is_none_or(|count| sent < count) && !stop.load(Ordering::Relaxed) {
        let info = batch.push(|bytes| generator.write_next(bytes));
        if let Some(pace) = &mut pace
            && !pace.is_due(info.arrival_ms)
        {
            if output.send_all_but_last(&mut batch)? == Sent::ReaderGone {
                break;
            }
            if !pace.wait_for(info.arrival_ms, &stop) {
                batch.clear();
                break;
            }
        }
        sent += 1;
        match info.note {
            Note::Bad(_) => bad += 1,
            Note::Duplicate => duplicates += 1,
            Note::Late => late += 1,
            Note::Fresh | Note::StatusChange => {}
        }
        if batch.is_full() && output.send(&mut batch)? == Sent::ReaderGone {
            break;
        }
    }
    output.send(&mut batch)?;
    let elapsed_ms = began.elapsed().as_millis().max(1);
    let per_s = u128::from(sent) * 1000 / elapsed_ms;
    Ok(format!("{sent} events ({duplicates} duplicates, {late} late, {bad} bad) in {elapsed_ms} ms, {per_s} a second"))
}

/// The first Ctrl-C (or SIGTERM) lets the batch at hand be finished; the second ends the process where it stands.
fn stop_on_signal(stop: Arc<AtomicBool>) -> Result<()> {
    let failed = |e| Error::io("listen for Ctrl-C", e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let (mut interrupt, mut terminate) = {
        use tokio::signal::unix::{SignalKind, signal};
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED);
                }
            }
        });
    });
    Ok(())
}
