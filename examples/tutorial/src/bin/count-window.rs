//! A window for every four records of a key.
//!
//! Type `hello` four times: `(hello,4)`.

use std::process::ExitCode;

use tidemill::connectors::format::Text;
use tidemill::prelude::*;
use tutorial::count_window;
use tutorial::input::Input;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("count-window", |env| {
        let lines = input.read(env, Text)?;
        count_window::build(env, lines).print();
        Ok(())
    })
}
