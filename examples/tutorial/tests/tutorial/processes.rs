//! The programs as a user starts them: over a file, and over a socket as with `nc`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// When something that should come is given up.
const DEADLINE: Duration = Duration::from_secs(60);

fn over_file(program: &str, text: &str, options: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("input.txt");
    fs::write(&file, text).unwrap();
    Command::new(program).arg("--file").arg(&file).args(options).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_file_is_answered_line_by_line() {
    let output =
        over_file(env!("CARGO_BIN_EXE_rolling-word-count"), "hello world\nhello tidemill\n", &["--parallelism", "1"]);
    assert_eq!(text(&output.stdout), "(hello,1)\n(world,1)\n(hello,2)\n(tidemill,1)\n", "{}", text(&output.stderr));
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn with_several_workers_a_line_begins_with_its_worker() {
    let output = over_file(env!("CARGO_BIN_EXE_difference"), "s1,18\ns1,20\ns1,25\ns1,28\n", &["--parallelism", "2"]);
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    let rows: Vec<&str> =
        lines.iter().map(|line| line.trim_start_matches(['1', '2']).trim_start_matches("> ")).collect();
    assert_eq!(rows, ["(s1,18)", "(s1,2)", "(s1,5)", "(s1,3)"]);
    assert!(lines.iter().all(|line| line.starts_with("1> ") || line.starts_with("2> ")), "{lines:?}");
}

#[test]
fn side_outputs_are_named_and_bad_lines_are_told_and_left_out() {
    let lines = "ann,12\nbob,forty\ncid,70\n\ndan,18\n";
    let output = over_file(env!("CARGO_BIN_EXE_age-split"), lines, &["--parallelism", "1"]);
    let mut rows: Vec<&str> = text(&output.stdout).lines().collect();
    rows.sort_unstable();
    assert_eq!(rows, ["adults> (dan,18)", "minors> (ann,12)", "seniors> (cid,70)"]);
    let told = text(&output.stderr);
    assert!(
        told.starts_with("left out: bob,forty (") && told.contains("line 2") && told.lines().count() == 1,
        "{told}"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_missing_file_ends_the_program_with_a_reason() {
    let program = env!("CARGO_BIN_EXE_count-window");
    let output = Command::new(program).args(["--file", "no/such/file"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
    let told = text(&output.stderr);
    assert!(told.starts_with("error: ") && told.contains("no/such/file"), "{told}");
    let output = Command::new(program).args(["--file", "x", "--port", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_socket_is_answered_while_it_is_open() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_event-time-sum"))
        .args(["--port", &server.local_addr().unwrap().port().to_string(), "--parallelism", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut connection, _) = server.accept().unwrap();
    let (answers, answered) = std::sync::mpsc::channel();
    let output = BufReader::new(program.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().try_for_each(|line| answers.send(line.unwrap())));
    let answer = || answered.recv_timeout(DEADLINE).map(|line| line.split_once("> ").unwrap().1.to_string());
    // The watermark passes the end of the first window with the third line, not before.
    connection.write_all(b"hello,1645844000,1\nhello,1645845000,2\nhello,1645846000,1\n").unwrap();
    assert_eq!(answer().as_deref(), Ok("(hello,1645844000,1)"));
    connection.write_all(b"hello,1645847000,3\nhello,1645849000,1\n").unwrap();
    assert_eq!(answer().as_deref(), Ok("(hello,1645845000,6)"));
    // The end of the input closes the last window, and the program.
    drop(connection);
    assert_eq!(answer().as_deref(), Ok("(hello,1645849000,1)"));
    assert_eq!(answer(), Err(RecvTimeoutError::Disconnected));
    let mut told = String::new();
    program.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!((program.wait().unwrap().code(), told.as_str()), (Some(0), ""));
}
