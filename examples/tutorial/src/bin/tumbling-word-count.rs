//! Word count in windows of 5 s by the clock: answers when a window is over.
//!
//! Type words and wait; the next window begins at nought.

use std::process::ExitCode;

use tidemill::connectors::format::Text;
use tidemill::prelude::*;
use tutorial::input::Input;
use tutorial::tumbling_word_count;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("tumbling-word-count", |env| {
        let lines = input.read(env, Text)?;
        tumbling_word_count::build(env, lines).print();
        Ok(())
    })
}
