//! A filter with state: numbers more than 10 above the running average of their key.
//!
//! Type `s1,18`, `s1,20`, `s1,25`, `s1,36`: `(s1,18)`, `(s1,36)`.

use std::process::ExitCode;

use tidemill::connectors::format::Csv;
use tidemill::prelude::*;
use tutorial::input::Input;
use tutorial::jump_filter;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("jump-filter", |env| {
        let readings = input.read(env, Csv::new())?;
        jump_filter::build(env, readings).print();
        Ok(())
    })
}
