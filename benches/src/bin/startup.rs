//! From `tidemill demo --backfill 1` to the first row of the screen.
//!
//! Figure wanted: below 15 s from the start of the command to the first row in `orders.total`, on an empty data folder: the
//! server starts, an hour of orders is written, the job starts and reads them. Median of the rounds.
//!
//! `startup [rounds]`

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidemill_benches::{Failure, Program, agent, beside, free_port, load, median, number, until};

fn round() -> Result<f64, Failure> {
    let data = tempfile::tempdir()?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let agent = agent();
    let begin = Instant::now();
    let mut demo = Command::new(beside("tidemill")?);
    demo.args(["demo", "--backfill", "1", "--listen", &listen]).arg("--data").arg(data.path());
    let demo = Program::start(&mut demo)?;
    let url = format!("http://{listen}/api/live/orders.total");
    until(Duration::from_secs(60), || {
        let answer = agent.get(&url).call().ok().and_then(|mut answer| answer.body_mut().read_json::<Value>().ok());
        answer.is_some_and(|table| table["rows"].get(0).is_some())
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    drop(demo);
    Ok(seconds)
}

fn main() -> Result<(), Failure> {
    let rounds = number(1, 3);
    let mut seconds = (0..rounds).map(|_| round()).collect::<Result<Vec<f64>, Failure>>()?;
    println!("`tidemill demo --backfill 1` to the first row in orders.total, load {}", load());
    println!("  {:.2} s, median of {rounds}", median(&mut seconds));
    Ok(())
}
