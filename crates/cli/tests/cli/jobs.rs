//! `tidemill serve` and `tidemill jobs`.

use crate::support::{Background, eventually, folder, run, script};

#[test]
fn a_server_is_started_used_and_ended() {
    let dir = folder();
    let data = dir.path().join("data");
    let jobs = dir.path().join("programs");
    std::fs::create_dir(&jobs).unwrap();
    script(&jobs, "hello", "echo \"hello $1 $TIDEMILL_PARALLELISM\"; exit 0");
    script(&jobs, "wrong", "echo 'error: no such option' >&2; exit 2");
    let pipe = "name = \"from here to there\"\n[source]\nconnector = \"topik\"\n[sink]\nconnector = \"print\"\n";
    std::fs::write(jobs.join("wrong.toml"), pipe).unwrap();
    let pipe = pipe.replace("topik", "topic\"\ntopic = \"t");
    std::fs::write(jobs.join("pipe.toml"), pipe).unwrap();
    std::fs::write(jobs.join("greet.toml"), "program = \"hello\"\nargs = [\"toml\"]\nparallelism = 5\n").unwrap();
    let (data, jobs) = (data.to_str().unwrap(), jobs.to_str().unwrap());
    let mut server = Background::start(&["serve", "--data", data, "--jobs", jobs, "--listen", "127.0.0.1:0"]);
    let first = server.line();
    let url = first.split_whitespace().nth(2).unwrap().to_owned();
    assert!(first.starts_with("listening on http://127.0.0.1:"), "{first}");
    let on = |args: &[&str]| run(&[args, &["--server", &url]].concat());

    assert_eq!(on(&["jobs", "list", "--output", "json"]).json(), serde_json::json!([]));
    let id = run(&["jobs", "submit", "--server", &url, "hello", "-p", "3", "--name", "greeting", "--", "world"])
        .ok()
        .trim()
        .to_owned();
    let show = |id: &str| on(&["jobs", "show", id, "--output", "json"]).json();
    eventually("the job ends", || (show(&id)["state"] == "FINISHED").then_some(()));
    assert_eq!(on(&["jobs", "log", &id]).ok(), "hello world 3\n");
    let listed = on(&["jobs", "list"]).ok();
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..3], [id.as_str(), "greeting", "FINISHED"], "{listed}");
    assert_eq!(on(&["jobs", "list", "--running"]).ok().lines().count(), 1);
    assert!(on(&["jobs", "show", &id]).ok().contains("state              FINISHED"));
    assert!(on(&["jobs", "restart", &id]).ok().starts_with(&format!("job {id} is ")));
    eventually("it ends again", || (show(&id)["state"] == "FINISHED").then_some(()));
    assert_eq!(on(&["jobs", "log", &id, "-n", "1", "--output", "json"]).json(), serde_json::json!(["hello world 3"]));

    let file = on(&["jobs", "submit", "greet.toml"]).ok().trim().to_owned();
    eventually("the job file runs", || (show(&file)["state"] == "FINISHED").then_some(()));
    assert_eq!(on(&["jobs", "log", &file]).ok(), "hello toml 5\n");
    let wrong = on(&["jobs", "submit", "wrong"]).ok().trim().to_owned();
    eventually("it fails", || (show(&wrong)["state"] == "FAILED").then_some(()));
    assert!(on(&["jobs", "show", &wrong]).ok().contains(": no such option"));

    let wrong = on(&["jobs", "submit", "wrong.toml"]).ok().trim().to_owned();
    eventually("a wrong job file ends for good", || (show(&wrong)["state"] == "FAILED").then_some(()));
    assert!(on(&["jobs", "show", &wrong]).ok().contains("connector `topik` is not offered"));
    run(&["topic", "create", "t", "--data", data]).ok();
    let pipe = on(&["jobs", "submit", "pipe.toml"]).ok().trim().to_owned();
    eventually("it has the name its file gives it", || (show(&pipe)["name"] == "from here to there").then_some(()));
    assert!(on(&["jobs", "show", &pipe]).ok().contains("  LATE  DEAD  "));
    assert_eq!(on(&["jobs", "cancel", &pipe]).ok(), format!("job {pipe} is CANCELED\n"));

    assert!(on(&["jobs", "cancel", &id]).failed(1).contains("has ended already: FINISHED"));
    assert!(on(&["jobs", "stop", &id]).failed(1).contains("cannot stop job"));
    assert!(on(&["jobs", "savepoint", &id]).failed(1).contains("cannot take a savepoint"));
    assert_eq!(on(&["jobs", "delete", &id]).ok(), format!("job {id} is deleted\n"));
    assert!(on(&["jobs", "show", &id]).failed(3).contains("there is no job"));
    assert!(on(&["jobs", "show", "../x"]).failed(3).contains("there is no job `../x`"));
    assert!(on(&["jobs", "submit", "absent"]).failed(2).contains("there is no program `absent`"));
    assert!(on(&["jobs", "submit", "hello", "--env", "X"]).failed(2).contains("not NAME=VALUE"));

    let address = url.strip_prefix("http://").unwrap();
    let other = dir.path().join("other");
    let taken = run(&["serve", "--listen", address, "--data", other.to_str().unwrap()]).failed(1);
    assert!(taken.contains("is in use already; end what listens there"), "{taken}");
    let same = run(&["serve", "--listen", "127.0.0.1:0", "--data", data]).failed(1);
    assert!(same.contains("another server uses the folder"), "{same}");
    assert_eq!(server.end(), 0);
    let gone = on(&["jobs", "list"]).failed(4);
    assert!(gone.contains("does not answer") && gone.contains("tidemill serve"), "{gone}");
}

#[test]
fn a_server_with_a_token_is_told_it_by_an_option() {
    let dir = folder();
    let (data, token) = (dir.path().to_str().unwrap(), "0123456789abcdef");
    let mut server = Background::start(&["serve", "--data", data, "--listen", "127.0.0.1:0", "--token", token]);
    let url = server.line().split_whitespace().nth(2).unwrap().to_owned();
    let without = run(&["jobs", "cancel", "x", "--server", &url]).failed(1);
    assert!(without.ends_with("here it is given with `--token` or TIDEMILL_ADMIN_TOKEN"), "{without}");
    assert!(
        run(&["jobs", "cancel", "x", "--server", &url, "--token", token]).failed(3).contains("there is no job `x`")
    );
}

#[test]
fn a_server_that_may_not_start_says_so() {
    let dir = folder();
    let data = dir.path().to_str().unwrap();
    let open = run(&["serve", "--listen", "0.0.0.0:0", "--data", data]).failed(2);
    assert!(open.contains("without an administrator token; set TIDEMILL_ADMIN_TOKEN"), "{open}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let folder = run(&["serve", "--listen", "127.0.0.1:0", "--data", file.to_str().unwrap()]).failed(1);
    assert!(folder.contains("cannot create the folder") && folder.contains("--data"), "{folder}");
}
