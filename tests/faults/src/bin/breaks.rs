//! A job that breaks as its first argument says: `panic` in a user's function, `panic-rarely` on one worker only, `error`
//! while it is built, `usage`; else it does not break.

use std::process::ExitCode;

use tidemill::prelude::*;

fn main() -> ExitCode {
    run_job("breaks", build)
}

fn build(env: &Environment) -> Result<()> {
    let how = std::env::args().nth(1).unwrap_or_default();
    match how.as_str() {
        "error" => return Err(Error::external("the warehouse does not answer")),
        "usage" => return Err(Error::input("`--colour` is no option")),
        _ => {}
    }
    let worst = match how.as_str() {
        "panic" => 0,
        "panic-rarely" => 77_777,
        _ => -1,
    };
    env.from_sequence(0, 100_000)
        .key_by(|n| n % 100)
        .reduce(|held, n| *held = n)
        .map(move |n| {
            assert!(n != worst, "no such order: {n}");
            n
        })
        .name("Divide")
        .uid("divide")
        .filter(|_| false)
        .print();
    Ok(())
}
