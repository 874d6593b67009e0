//! A flat map with state: the average of every two numbers of a key.
//!
//! Type `a,3`, `a,5`: `(a,4)`.

use std::process::ExitCode;

use tidemill::connectors::format::Csv;
use tidemill::prelude::*;
use tutorial::input::Input;
use tutorial::pair_average;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("pair-average", |env| {
        let readings = input.read(env, Csv::new())?;
        pair_average::build(env, readings).print();
        Ok(())
    })
}
