//! A rolling reduction of strings: the texts of each key, joined.
//!
//! Type `a,x`, then `a,y`: `(a,x)`, `(a,xy)`.

use std::process::ExitCode;

use tidemill::connectors::format::Csv;
use tidemill::prelude::*;
use tutorial::input::Input;
use tutorial::keyed_concat;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("keyed-concat", |env| {
        let texts = input.read(env, Csv::new())?;
        keyed_concat::build(env, texts).print();
        Ok(())
    })
}
