//! Rolling word count: each word is answered with how often it was seen so far.
//!
//! Type `hello world hello`: `(hello,1)`, `(world,1)`, `(hello,2)`.

use std::process::ExitCode;

use tidemill::connectors::format::Text;
use tidemill::prelude::*;
use tutorial::input::Input;
use tutorial::rolling_word_count;

fn main() -> ExitCode {
    let input = Input::from_command_line();
    run_job("rolling-word-count", |env| {
        let lines = input.read(env, Text)?;
        rolling_word_count::build(env, lines).print();
        Ok(())
    })
}
