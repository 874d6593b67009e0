//! Hot items, page views and hot pages over log files: `user-behavior hot-items --data FOLDER`.

mod options;

use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;
use options::{Job, Options, Output};
use tidemill::connectors::file::FileSink;
use tidemill::connectors::format::Json;
use tidemill::core::Data;
use tidemill::prelude::*;
use user_behavior::input::{self, Missed};
use user_behavior::{hot_items, hot_pages, page_views};

fn main() -> ExitCode {
    let options = Options::parse();
    let missed = Missed::default();
    let code = run_job(options.job.name(), |env| build(env, &options, &missed));
    // After a failure the last line of standard error is the error's.
    if code == ExitCode::SUCCESS {
        missed.dead.tell("left out, not understood");
        missed.late.tell("too late for a window of theirs");
    }
    code
}

fn build(env: &Environment, options: &Options, missed: &Missed) -> Result<()> {
    if let Some(parallelism) = options.parallelism {
        env.set_parallelism(usize::from(parallelism));
    }
    let (input, delay) = (options.input()?, options.delay());
    match options.job {
        Job::HotItems => write(&hot_items::build(&input::item_actions(env, &input, delay, missed)?), options),
        Job::PageViews => write(&page_views::build(&input::hour_actions(env, &input, delay, missed)?), options),
        Job::HotPages => write(&hot_pages::build(&input::requests(env, &input, delay, missed)?), options),
    }
    Ok(())
}

fn write<T: Data + Display>(results: &DataStream<T>, options: &Options) {
    match options.output {
        // There are few results: one worker prints them, so that no line needs its worker's number.
        Output::Print => results.map(|result: T| result.to_string()).print().set_parallelism(1),
        Output::File => results.sink_to(FileSink::new(options.folder(), Json::new()).suffix(".json")),
    };
}
