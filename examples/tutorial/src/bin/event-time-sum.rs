//! Sums in windows of 3 s of event time; lines may be late by 1 s.
//!
//! Lines are `key,time in ms,number`. See the library for a worked example with the answers 1 and 6.

use std::process::ExitCode;

use tidemill::connectors::format::Csv;
use tidemill::prelude::*;
use tutorial::event_time_sum;
use tutorial::input::Input;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("event-time-sum", |env| {
        let readings = input.read(env, Csv::new())?;
        event_time_sum::build(env, readings).print();
        Ok(())
    })
}
