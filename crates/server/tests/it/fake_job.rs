//! A job process without an engine: this very test binary, linked into the jobs folder and started with the name of
//! the test below. What it does stands in the variable `FAKE_JOB`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Arguments that make the test binary a fake job.
pub const ARGS: [&str; 3] = ["fake_job::fake_job_process", "--exact", "--nocapture"];

#[test]
fn fake_job_process() {
    let Ok(behaviour) = std::env::var("FAKE_JOB") else { return };
    let dir = PathBuf::from(std::env::var("TIDEMILL_JOB_DIR").unwrap());
    let attempt = std::fs::read_to_string(dir.join("attempts")).map_or(0, |text| text.len()) + 1;
    std::fs::write(dir.join("attempts"), "x".repeat(attempt)).unwrap();
    let mut words = behaviour.split(':');
    match words.next().unwrap() {
        "exit" => {
            eprintln!("error: attempt {attempt} failed");
            std::process::exit(words.next().unwrap().parse().unwrap());
        }
        "crash" if attempt <= words.next().unwrap().parse::<usize>().unwrap() => {
            eprintln!("error: attempt {attempt} failed");
            std::process::exit(1);
        }
        "panic" => panic!("the fake job panics"),
        mode => serve(&dir, mode),
    }
}

fn end(dir: &Path, state: &str, code: i32) -> ! {
    std::fs::write(dir.join("outcome.json"), json!({"state": state, "message": null}).to_string()).unwrap();
    std::process::exit(code);
}

fn serve(dir: &Path, mode: &str) -> ! {
    let refuse = mode == "refuse";
    let _ = std::fs::remove_file(dir.join("control.sock"));
    let listener = UnixListener::bind(dir.join("control.sock")).unwrap();
    let start_ms = now_ms();
    println!("fake job listens");
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        let request: Value = serde_json::from_str(&line).unwrap();
        let answer = match request["op"].as_str().unwrap() {
            "report" => report(start_ms),
            "savepoint" if refuse => json!({"ok": false, "error": "no savepoints today"}),
            "savepoint" if mode == "brittle" => {
                eprintln!("error: the savepoint broke the job");
                std::process::exit(1);
            }
            "cancel" if refuse => json!({"ok": false, "error": "never"}),
            "savepoint" => json!({"ok": true, "path": dir.join("savepoints/7")}),
            "cancel" => json!({"ok": true}),
            other => json!({"ok": false, "error": format!("unknown op {other}")}),
        };
        stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
        match request["op"].as_str().unwrap() {
            "cancel" if !refuse => end(dir, "CANCELED", 130),
            "savepoint" if request["stop"] == true && !refuse => {
                end(dir, if request["drain"] == true { "FINISHED" } else { "SUSPENDED" }, 0)
            }
            _ => {}
        }
    }
}

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

fn part(task: usize, subtask: usize, acknowledged_ms: i64, alignment_ms: u64) -> Value {
    json!({"task": task, "subtask": subtask, "acknowledged_ms": acknowledged_ms, "start_delay_ms": 1,
        "alignment_ms": alignment_ms, "sync_ms": subtask, "async_ms": 2, "bytes": 50, "written_bytes": 20})
}

fn report(start_ms: i64) -> Value {
    let now_ms = now_ms();
    let count = (now_ms - start_ms) * 10;
    let subtask = json!({"records_in": count, "records_out": count, "late_dropped": 1, "dead_letters": 2,
        "watermark_ms": 1000, "busy_ms": 5, "backpressured_ms": 1, "pending_records": 3,
        "fetch_lag_ms": 40, "emit_lag_ms": 50, "watermark_lag_ms": 60, "source_idle_ms": 70});
    let metric = json!({"name": "commitsSucceeded", "subtask": 0, "kind": "counter", "count": 4});
    let vertex = |id: &str| json!({"id": id, "name": id, "operators": [{"uid": id, "name": id, "metrics": [metric]}], "parallelism": 2, "subtasks": [subtask, subtask]});
    let checkpoint = json!({"id": 7, "kind": "checkpoint", "status": "COMPLETED", "trigger_ms": 5000, "duration_ms": 12,
        "bytes": 99, "written_bytes": 40, "path": "c/7", "failure": null, "subtasks": 4, "acknowledged": 4,
        "latest_ack_ms": 5011, "alignment_ms": 6,
        "operators": [{"uid": "sink", "entries": 3, "bytes": 99, "written_bytes": 40}],
        "parts": [part(0, 0, 5005, 0), part(0, 1, 5006, 0), part(1, 1, 5011, 6), part(1, 0, 5009, 2)]});
    json!({
        "job_id": std::env::var("TIDEMILL_JOB_ID").unwrap(), "name": "fake", "state": "RUNNING", "start_ms": start_ms,
        "now_ms": now_ms, "pid": std::process::id(), "parallelism": 2, "vertices": [vertex("source"), vertex("sink")],
        "edges": [{"from": "source", "to": "sink", "ship": "HASH"}],
        "checkpoints": {"completed": 1, "failed": 0, "in_progress": 0, "restored_epoch": null, "latest": checkpoint, "history": [checkpoint]},
    })
}
