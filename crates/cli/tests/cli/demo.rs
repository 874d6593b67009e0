//! `tidemill demo`, with shell programs in place of generator and job.

use crate::support::{Background, eventually, folder, run, script};

#[test]
fn the_demo_starts_all_and_ends_all() {
    let dir = folder();
    let pid_file = |name: &str| dir.path().join(name);
    let body =
        |name: &str| format!("echo \"$$ $*\" > {}.new; mv {0}.new {0}; exec sleep 1000", pid_file(name).display());
    let screen = script(dir.path(), "order-screen", &body("screen.pid"));
    let generator = script(dir.path(), "order-generator", &body("generator.pid"));
    let data = dir.path().join("data");
    let (screen, generator, data) = (screen.to_str().unwrap(), generator.to_str().unwrap(), data.to_str().unwrap());
    let mut demo = Background::start(&[
        "demo",
        "--data",
        data,
        "--listen",
        "127.0.0.1:0",
        "--order-screen",
        screen,
        "--order-generator",
        generator,
        "--rate",
        "7",
    ]);
    let line = demo.line();
    assert!(line.starts_with("screen: http://127.0.0.1:") && line.ends_with("/screen/orders"), "{line}");
    let started = |name: &str| eventually("the programs run", || std::fs::read_to_string(pid_file(name)).ok());
    let (screen, generator) = (started("screen.pid"), started("generator.pid"));
    assert!(screen.trim_end().ends_with("--topic orders"), "{screen}");
    assert!(generator.trim_end().ends_with("--topic orders --rate 7 --backfill 48 --bad 0.0005"), "{generator}");
    assert_eq!(demo.end(), 0);
    for started in [screen, generator] {
        let pid = started.split_whitespace().next().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(stat.is_err() || stat.unwrap().contains(") Z "), "nothing is left running");
    }
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
