//! `tidemill demo`, with shell programs in place of generator and job.

use std::path::Path;

use crate::support::{Background, eventually, folder, run, script};

/// A demo whose programs run, the address of its page, and what generator and job have written: their pids and arguments.
fn started(dir: &Path) -> (Background, String, [String; 2]) {
    let pid_file = |name: &str| dir.join(name);
    let body =
        |name: &str| format!("echo \"$$ $*\" > {}.new; mv {0}.new {0}; exec sleep 1000", pid_file(name).display());
    let screen = script(dir, "order-screen", &body("screen.pid"));
    let generator = script(dir, "order-generator", &body("generator.pid"));
    let data = dir.join("data");
    let (screen, generator, data) = (screen.to_str().unwrap(), generator.to_str().unwrap(), data.to_str().unwrap());
    let programs = ["--order-screen", screen, "--order-generator", generator, "--rate", "7"];
    let mut demo = Background::start(&[&["demo", "--data", data, "--listen", "127.0.0.1:0"][..], &programs].concat());
    let line = demo.line();
    assert!(line.starts_with("screen: http://127.0.0.1:") && line.ends_with("/screen/orders"), "{line}");
    assert_eq!(demo.line(), "end with Ctrl-C");
    let started = |name: &str| eventually("the programs run", || std::fs::read_to_string(pid_file(name)).ok());
    (demo, line, [started("generator.pid"), started("screen.pid")])
}

fn runs(started: &str) -> bool {
    let pid = started.split_whitespace().next().unwrap();
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn the_demo_starts_all_and_ends_all() {
    let dir = folder();
    let (demo, _, [generator, screen]) = started(dir.path());
    assert!(screen.trim_end().ends_with("--topic orders"), "{screen}");
    assert!(generator.trim_end().ends_with("--topic orders --rate 7 --backfill 48 --bad 0.0005"), "{generator}");
    assert!(runs(&generator) && runs(&screen));
    assert_eq!(demo.end(), 0);
    assert!(!runs(&generator) && !runs(&screen), "nothing is left running");
}

#[test]
fn a_job_of_a_demo_may_be_ended_and_started_again() {
    let dir = folder();
    let (mut demo, line, [generator, screen]) = started(dir.path());
    let url = line.trim_start_matches("screen: ").trim_end_matches("/screen/orders");
    let jobs = |args: &[&str]| run(&[&["jobs"], args, &["--server", url]].concat()).ok();
    let id = jobs(&["list"]).lines().nth(1).and_then(|row| row.split_whitespace().next()).unwrap().to_owned();
    jobs(&["cancel", &id]);
    assert_eq!(demo.line(), "the order job is CANCELED; end with Ctrl-C");
    assert!(runs(&generator) && !runs(&screen));
    assert!(jobs(&["show", &id]).contains("CANCELED"));
    jobs(&["restart", &id]);
    let line = demo.line();
    assert!(line.starts_with("the order job is ") && !line.contains("CANCELED"), "{line}");
    assert_eq!(demo.end(), 0);
}

#[test]
fn a_demo_without_its_programs_says_what_to_do() {
    let dir = folder();
    let data = dir.path().to_str().unwrap();
    let missing = run(&["demo", "--data", data, "--order-screen", "/no/such/program"]).failed(3);
    assert!(
        missing.contains("there is no program `/no/such/program`") && missing.contains("--order-screen <file>"),
        "{missing}"
    );
    let generator = script(dir.path(), "gone", "exit 3");
    let screen = script(dir.path(), "order-screen", "exec sleep 1000");
    let (one, two) = (screen.to_str().unwrap(), generator.to_str().unwrap());
    let unwritable = run(&["demo", "--data", one, "--order-screen", one, "--order-generator", two]).failed(1);
    assert!(unwritable.ends_with("choose another folder with `--data <folder>`"), "{unwritable}");
    let args = [
        "demo",
        "--data",
        data,
        "--listen",
        "127.0.0.1:0",
        "--order-screen",
        screen.to_str().unwrap(),
        "--order-generator",
        generator.to_str().unwrap(),
    ];
    let ended = run(&args).failed(1);
    assert!(ended.contains("the order generator ended: exit status: 3"), "{ended}");
}
