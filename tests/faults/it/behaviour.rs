//! How programs end that cannot go on: the exit code, the one line `error: …`, `outcome.json`; and that a second try works.

use std::os::unix::process::CommandExt;

use crate::free_port::free_port;
use crate::support::job::Job;
use crate::support::process::{Done, clean, tidemill};
use crate::support::server::Server;
use crate::support::{eventually, folder, programs};

#[test]
fn a_server_whose_port_is_taken_says_so_and_a_second_start_works() {
    let dir = folder();
    let data = dir.path().join("d").display().to_string();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = Done::of(&mut tidemill(&["serve", "--data", &data, "--listen", &address])).failed(1);
    let port = address.rsplit(':').next().unwrap();
    assert!(said.contains(port) && said.contains("in use already"), "{said}");
    let server = Server::start();
    let again =
        Done::of(&mut tidemill(&["serve", "--listen", "127.0.0.1:0", "--data", server.data().to_str().unwrap()]));
    let said = again.failed(1);
    assert!(said.contains("another server uses the folder"), "{said}");
    drop(taken);
    let mut second = Server::start_over(dir.path().join("d"), port.parse().unwrap());
    second.ready();
    second.kill();
}

#[test]
fn a_data_folder_that_cannot_be_written_is_named() {
    let dir = folder();
    let listen = format!("127.0.0.1:{}", free_port().unwrap());
    let serve = |data: &std::path::Path| {
        let mut command = tidemill(&["serve", "--listen", &listen, "--data"]);
        command.arg(data);
        command
    };
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let said = Done::of(&mut serve(&file.join("below"))).failed(1);
    assert!(said.contains(file.to_str().unwrap()), "{said}");
    // Root may write everywhere, so this one is somebody else.
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let mut permissions = std::fs::metadata(&closed).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o555);
    std::fs::set_permissions(&closed, permissions).unwrap();
    let mut command = serve(&closed);
    if rustix::process::getuid().is_root() {
        // What nobody may run stands where nobody may look: a copy in an open place.
        let program = dir.path().join("tidemill");
        std::fs::copy(programs::program("tidemill"), &program).unwrap();
        for path in [dir.path(), &program] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        command = clean(&program);
        command.args(["serve", "--listen", &listen, "--data"]).arg(&closed).uid(65_534).gid(65_534);
    }
    let said = Done::of(&mut command).failed(1);
    assert!(said.contains(closed.to_str().unwrap()) && said.contains("Permission denied"), "{said}");
}

#[test]
fn wrong_use_ends_with_2_and_one_line() {
    for args in [&["serve", "--colour"][..], &["topic", "produce"], &["fly"], &["serve", "--listen", "everywhere"]] {
        let said = Done::of(&mut tidemill(args)).failed(2);
        assert!(said.contains("see `--help`"), "{args:?}: {said}");
    }
    let dir = folder();
    let mut job = Job::new(dir.path(), 1, env!("CARGO_BIN_EXE_breaks"));
    job.args = vec!["usage".into()];
    let said = Done::of(&mut job.command(1)).failed(2);
    assert_eq!(said, "`--colour` is no option");
    let said = Done::of(job.command(1).env("TIDEMILL_PARALLELISM", "many")).failed(2);
    assert!(said.contains("TIDEMILL_PARALLELISM"), "{said}");
    let outcome = std::fs::read_to_string(job.dir.join("outcome.json")).unwrap();
    assert!(outcome.contains("FAILED") && outcome.contains("--colour"), "{outcome}");
}

#[test]
fn a_failing_program_ends_with_1_and_leaves_its_reason() {
    let dir = folder();
    let mut job = Job::new(dir.path(), 1, env!("CARGO_BIN_EXE_breaks"));
    job.args = vec!["error".into()];
    assert_eq!(Done::of(&mut job.command(2)).failed(1), "the warehouse does not answer");
    let outcome = std::fs::read_to_string(job.dir.join("outcome.json")).unwrap();
    assert!(outcome.contains("FAILED") && outcome.contains("the warehouse does not answer"), "{outcome}");
    // The next start in the same folder knows nothing of it.
    job.args = vec!["well".into()];
    assert_eq!(Done::of(&mut job.command(2)).code, 0);
    let outcome = std::fs::read_to_string(job.dir.join("outcome.json")).unwrap();
    assert!(outcome.contains("FINISHED"), "{outcome}");
}

#[test]
fn a_panic_in_a_users_function_ends_the_job_and_names_the_operator() {
    for parallelism in 1..=3 {
        for how in ["panic", "panic-rarely"] {
            let dir = folder();
            let mut job = Job::new(dir.path(), parallelism, env!("CARGO_BIN_EXE_breaks"));
            job.args = vec![how.into()];
            let done = Done::of(&mut job.command(parallelism.into()));
            assert!(matches!(done.code, 1 | 101), "{done:?}");
            let last = done.err.lines().rev().find(|line| line.starts_with("error: ")).unwrap_or_default().to_owned();
            assert!(last.contains("Divide") && last.contains("no such order"), "parallelism {parallelism}: {done:?}");
            let outcome = std::fs::read_to_string(job.dir.join("outcome.json")).unwrap();
            assert!(outcome.contains("FAILED") && outcome.contains("Divide"), "{outcome}");
            assert!(job.report().is_err(), "nobody answers any more");
        }
    }
}

#[test]
fn the_server_shows_why_a_job_panicked_and_goes_on() {
    let server = Server::start();
    let spec = serde_json::json!({"program": "breaks", "args": ["panic-rarely"], "parallelism": 3,
        "restart": {"strategy": "fixed-delay", "attempts": 2, "delay_ms": 1}});
    let (status, body) = server.http.post("/api/jobs", &spec);
    assert_eq!(status, 201, "{body}");
    let id = body["id"].as_str().unwrap();
    let job = eventually("the job is given up", || {
        let job = server.job(id);
        if job["state"] == "FAILED" { Ok(job) } else { Err(job.to_string()) }
    });
    let why = job["failure"].as_str().unwrap();
    assert!(why.contains("Divide") && why.contains("no such order"), "{why}");
    assert_eq!(job["restarts"], 2);
    let (status, body) = server.http.post("/api/jobs", &serde_json::json!({"program": "breaks", "args": ["well"]}));
    assert_eq!(status, 201, "{body}");
    let id = body["id"].as_str().unwrap();
    eventually("a good one runs to its end", || {
        let job = server.job(id);
        if job["state"] == "FINISHED" { Ok(()) } else { Err(job.to_string()) }
    });
}

#[test]
fn an_exit_code_is_kept_where_the_error_cannot_be_written() {
    let dir = folder();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let code = |command: &mut std::process::Command| command.stderr(full()).status().unwrap().code();
    assert_eq!(code(&mut tidemill(&["topic", "list", "--data", "/dev/null"])), Some(3));
    let job = Job::new(dir.path(), 1, env!("CARGO_BIN_EXE_sums"));
    assert_eq!(code(&mut job.command(1)), Some(2), "it is told nothing");
}
