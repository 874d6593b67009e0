//! Word count over the last 10 s, answered every 5 s: sliding windows by the clock.
//!
//! Type a word once: it is told twice, by the two windows that cover it.

use std::process::ExitCode;

use tidemill::connectors::format::Text;
use tidemill::prelude::*;
use tutorial::input::Input;
use tutorial::sliding_word_count;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("sliding-word-count", |env| {
        let lines = input.read(env, Text)?;
        sliding_word_count::build(env, lines).print();
        Ok(())
    })
}
