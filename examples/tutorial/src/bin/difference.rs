//! Keyed state: by how much each number of a key differs from the one before.
//!
//! Type `s1,18`, `s1,20`, `s1,25`, `s1,28`: 18, 2, 5, 3.

use std::process::ExitCode;

use tidemill::connectors::format::Csv;
use tidemill::prelude::*;
use tutorial::difference;
use tutorial::input::Input;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("difference", |env| {
        let readings = input.read(env, Csv::new())?;
        difference::build(env, readings).print();
        Ok(())
    })
}
