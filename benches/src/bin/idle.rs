//! What a server with an order job costs while no order comes.
//!
//! Figures wanted: below 1 % of a core, and below 150 MB resident, server and job together. The server (`tidemill serve`)
//! and the job (`order-screen`) run as users run them, with a checkpoint every 5 s; after 5 s of quiet their processor time
//! is taken over 20 s.
//!
//! `idle [seconds]`

use std::time::Duration;

use tidemill_benches::{CHECKPOINT_INTERVAL_MS, Failure, Screen, cpu_seconds, load, number, resident_mb};

fn main() -> Result<(), Failure> {
    let seconds = number(1, 20);
    let screen = Screen::start(&[], CHECKPOINT_INTERVAL_MS)?;
    let processes = [("server", screen.server.id()), ("order job", screen.job_process()?)];
    std::thread::sleep(Duration::from_secs(5));
    let before = processes.each_ref().map(|(_, id)| cpu_seconds(id));
    std::thread::sleep(Duration::from_secs(seconds));
    println!("idle server and order job over {seconds} s, load {}", load());
    let (mut cpu, mut memory) = (0.0, 0.0);
    for ((name, id), before) in processes.iter().zip(before) {
        let (percent, mb) = ((cpu_seconds(id) - before) / seconds as f64 * 100.0, resident_mb(id));
        println!("  {name:<9} {percent:5.2} % of a core   {mb:6.1} MB resident");
        cpu += percent;
        memory += mb;
    }
    println!("  together  {cpu:5.2} % of a core   {memory:6.1} MB resident");
    Ok(())
}
