//! All records of a window at once: readings sorted by their event time.
//!
//! Lines are `key,time in ms,number`; windows of 5 s, out of order by up to 2 s.

use std::process::ExitCode;

use tidemill::connectors::format::Csv;
use tidemill::prelude::*;
use tutorial::input::Input;
use tutorial::sorted_window;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("sorted-window", |env| {
        let readings = input.read(env, Csv::new())?;
        sorted_window::build(env, readings).print();
        Ok(())
    })
}
