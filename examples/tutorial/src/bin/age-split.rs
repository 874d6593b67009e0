//! Side outputs: people divided by age into minors, adults and seniors.
//!
//! Type `ann,12`: `minors> (ann,12)`.

use std::process::ExitCode;

use tidemill::connectors::format::Csv;
use tidemill::prelude::*;
use tutorial::age_split::{self, MINORS, SENIORS};
use tutorial::input::Input;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("age-split", |env| {
        let people = input.read(env, Csv::new())?;
        let adults = age_split::build(env, people);
        adults.side_output(MINORS).print_as("minors");
        adults.side_output(SENIORS).print_as("seniors");
        adults.print_as("adults");
        Ok(())
    })
}
