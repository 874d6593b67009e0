//! Every `--help`, as people read it.

use std::path::Path;

use crate::support::run;

const COMMANDS: [&str; 31] = [
    "savepoint",
    "savepoint copy",
    "savepoint dispose",
    "state",
    "state list",
    "state show",
    "state export",
    "agent",
    "agents",
    "jobs rescale",
    "",
    "serve",
    "run",
    "jobs",
    "jobs list",
    "jobs show",
    "jobs submit",
    "jobs cancel",
    "jobs stop",
    "jobs savepoint",
    "jobs restart",
    "jobs delete",
    "jobs log",
    "topic",
    "topic create",
    "topic list",
    "topic produce",
    "topic consume",
    "topic delete",
    "demo",
    "openapi",
];

#[test]
fn every_help_is_as_it_was_agreed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots");
    for command in COMMANDS {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("--help");
        let seen = run(&args).ok();
        let file = folder.join(format!("{}.txt", format!("tidemill {command}").trim().replace(' ', "-")));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&file, &seen).unwrap();
        }
        let agreed = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(seen, agreed, "{} differs; look at it and run with UPDATE_SNAPSHOTS=1", file.display());
    }
}

#[test]
fn wrong_usage_is_one_line_and_code_2() {
    assert!(
        run(&["topic", "create"]).failed(2).contains("required arguments were not provided: <TOPIC>; see `--help`")
    );
    assert!(run(&["--output", "xml", "topic", "list"]).failed(2).contains("invalid value 'xml'"));
    assert!(run(&["serv"]).failed(2).contains("similar subcommand exists: 'serve'"));
    assert!(run(&["topic", "consume", "t", "--from", "noon"]).failed(2).contains("say `earliest`"));
    let nothing = run(&["topic"]);
    assert!(nothing.err.contains("Usage: tidemill topic"), "{nothing:?}");
    assert_eq!(nothing.failed(2), "no command was given");
    assert!(
        run(&["serve", "--listen", "8081"]).failed(2).contains("write an IP address and a port, as 127.0.0.1:8081")
    );
    assert!(run(&["demo", "--rate", "0"]).failed(2).contains("0 is not in 1..=10000000"));
    let nowhere = run(&["jobs", "list", "--server", "127.0.0.1:1"]).failed(2);
    assert!(nowhere.contains("`127.0.0.1:1` is no server address; write it with `--server` as `http://host:port`"));
    assert!(run(&["--version"]).ok().starts_with("tidemill "));
}
