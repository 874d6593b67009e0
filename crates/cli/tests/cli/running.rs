//! `tidemill run`: a job without a server.

use std::path::Path;

use crate::support::{eventually, finish, folder, run, script, terminate, tidemill};

fn in_folder(folder: &Path, args: &[&str]) -> crate::support::Done {
    let data = folder.join("data");
    let data = ["--data", data.to_str().unwrap()];
    // Behind `--` everything is the program's.
    let at = args.iter().position(|arg| *arg == "--").unwrap_or(args.len());
    run(&[&["run"], &args[..at], &data, &args[at..]].concat())
}

#[test]
fn a_program_runs_with_its_arguments_and_leaves_nothing_behind() {
    let dir = folder();
    let program = script(
        dir.path(),
        "hello",
        "echo \"$@ $TIDEMILL_PARALLELISM ${#TIDEMILL_JOB_ID}\"; ls \"$TIDEMILL_JOB_DIR\" >/dev/null",
    );
    let done = in_folder(dir.path(), &[program.to_str().unwrap(), "-p", "2", "--", "--topic", "a b"]);
    assert_eq!(done.ok(), "--topic a b 2 32\n");
    assert_eq!(std::fs::read_dir(dir.path().join("data/run")).unwrap().count(), 0);
}

#[test]
fn a_job_file_names_its_program_and_how_to_restart_it() {
    let dir = folder();
    script(
        dir.path(),
        "flaky",
        "echo x >> attempts; [ $(wc -l < attempts) -ge 3 ] && echo \"$REGION $1\" && exit 0; echo 'error: not yet' >&2; exit 1",
    );
    let file = dir.path().join("job.toml");
    let text = "name = \"flaky job\"\nprogram = \"flaky\"\nargs = [\"one\"]\n[env]\nREGION = \"north\"\n[restart]\nstrategy = \"fixed-delay\"\nattempts = 5\ndelay_ms = 1\n";
    std::fs::write(&file, text).unwrap();
    let done = in_folder(dir.path(), &[file.to_str().unwrap()]);
    assert_eq!(done.err.matches("starting again in 1 ms").count(), 2, "{done:?}");
    assert_eq!(done.ok(), "north one\n");

    std::fs::write(dir.path().join("attempts"), "").unwrap();
    std::fs::write(&file, text.replace("attempts = 5", "attempts = 1")).unwrap();
    let failed = in_folder(dir.path(), &[file.to_str().unwrap()]);
    assert!(failed.err.contains("job `flaky job` is FAILED; go on from here with `--job-dir "), "{failed:?}");
    assert_eq!(failed.code, 1);
}

#[test]
fn a_job_folder_keeps_its_id_and_is_used_by_one_job_at_a_time() {
    let dir = folder();
    let program =
        script(dir.path(), "id", "echo $TIDEMILL_JOB_ID; [ -z \"$1\" ] || { touch \"$1\"; exec sleep 1000; }");
    let program = program.to_str().unwrap();
    let job = dir.path().join("job");
    let here = ["--job-dir", job.to_str().unwrap()];
    let first = in_folder(dir.path(), &[&[program][..], &here].concat()).ok();
    assert_eq!(first, in_folder(dir.path(), &[&[program][..], &here].concat()).ok());

    let started = dir.path().join("started");
    let data = dir.path().join("data");
    let args =
        [&["run", program, "--data", data.to_str().unwrap()][..], &here, &["--", started.to_str().unwrap()]].concat();
    let running = tidemill(&args).spawn().unwrap();
    eventually("the job runs", || started.exists().then_some(()));
    let second = in_folder(dir.path(), &[&[program][..], &here].concat()).failed(1);
    assert!(second.contains("a job runs in"), "{second}");
    terminate(&running);
    let done = finish(running);
    assert_eq!(done.code, 130, "{done:?}");
    assert!(done.err.contains("error: job `id` was cancelled"), "{done:?}");
}

#[test]
fn what_cannot_run_is_told() {
    let dir = folder();
    let refused = |name: &str, text: &str, code: i32, said: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let error = in_folder(dir.path(), &[file.to_str().unwrap()]).failed(code);
        assert!(error.contains(said), "{error}");
    };
    refused("plain", "text", 2, "program `plain` is not executable; chmod +x");
    refused("a.toml", "program = \"none\"", 2, "a.toml`: there is no program `none`");
    refused("b.toml", "program = \"p\"\nparalelism = 2", 2, "b.toml`: line 2: unknown field `paralelism`");
    refused("c.toml", "program = \"../p\"", 2, "no program name");
    refused(
        "d.toml",
        "[source]\nconnector = \"topic\"\n[sink]\nconnector = \"live\"",
        2,
        "job `d`: [source] `topic` has no `topic`",
    );
    assert!(in_folder(dir.path(), &["/no/such/file"]).failed(3).contains("`/no/such/file` cannot be run"));
    let usage = script(dir.path(), "usage", "exit 2");
    assert!(in_folder(dir.path(), &[usage.to_str().unwrap()]).failed(1).contains("refused its arguments"));
}

#[test]
fn a_pipeline_of_a_job_file_runs_here_and_now() {
    let dir = folder();
    std::fs::write(dir.path().join("in.txt"), "one\ntwo\n").unwrap();
    let text = "parallelism = 1\n[source]\nconnector = \"file\"\npath = \"in.txt\"\n[sink]\nconnector = \"print\"\n";
    let file = dir.path().join("copy.toml");
    std::fs::write(&file, text).unwrap();
    assert_eq!(in_folder(dir.path(), &[file.to_str().unwrap()]).ok(), "one\ntwo\n");
}

#[test]
fn a_script_may_stand_between_run_and_the_job() {
    let dir = folder();
    std::fs::write(dir.path().join("in.txt"), "one\n").unwrap();
    let file = dir.path().join("copy.toml");
    let text = "parallelism = 1\n[source]\nconnector = \"file\"\npath = \"in.txt\"\n[sink]\nconnector = \"print\"\n";
    std::fs::write(&file, text).unwrap();
    let program = script(dir.path(), "wrap", "\"$1\" run \"$2\"; echo ended $?");
    let arguments = [program.to_str().unwrap(), "--", env!("CARGO_BIN_EXE_tidemill"), file.to_str().unwrap()];
    assert_eq!(in_folder(dir.path(), &arguments).ok(), "one\nended 0\n");
}

#[test]
fn a_job_that_fails_before_its_first_checkpoint_ends_unless_its_file_says_otherwise() {
    let dir = folder();
    let file = dir.path().join("copy.toml");
    std::fs::write(&file, "[source]\nconnector = \"file\"\npath = \"none\"\n[sink]\nconnector = \"print\"\n").unwrap();
    let failed = in_folder(dir.path(), &[file.to_str().unwrap()]);
    assert!(!failed.err.contains("starting again"), "{failed:?}");
    let last = failed.err.lines().last().unwrap_or_default();
    assert!(
        failed.code == 1 && last.starts_with("error: job `copy` failed: ") && last.contains("no file fits"),
        "{failed:?}"
    );

    // With a checkpoint there is something to go on from.
    script(
        dir.path(),
        "flaky",
        "c=$TIDEMILL_JOB_DIR/checkpoints/chk-1; [ -e $c ] && echo again && exit 0; mkdir -p $c; touch $c/_metadata; exit 1",
    );
    std::fs::write(&file, "program = \"flaky\"\n").unwrap();
    assert_eq!(in_folder(dir.path(), &[file.to_str().unwrap()]).ok(), "again\n");
}

#[test]
fn a_job_ends_when_nobody_reads_what_it_prints() {
    let dir = folder();
    std::fs::write(dir.path().join("in.txt"), "line\n".repeat(100_000)).unwrap();
    let file = dir.path().join("copy.toml");
    let text = "[restart]\nstrategy = \"exponential-delay\"\n[source]\nconnector = \"file\"\npath = \"in.txt\"\n[sink]\nconnector = \"print\"\n";
    std::fs::write(&file, text).unwrap();
    let data = dir.path().join("data");
    let mut running = tidemill(&["run", file.to_str().unwrap(), "--data", data.to_str().unwrap()]).spawn().unwrap();
    drop(running.stdout.take());
    let ended = finish(running);
    assert!(ended.code == 1 && ended.err.ends_with("nobody reads standard output any more\n"), "{ended:?}");
}

#[test]
fn the_job_file_of_the_documentation_runs() {
    let dir = folder();
    let page = include_str!("../../../../docs/reference/job-file.md");
    let text = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let file = dir.path().join("orders.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::write(dir.path().join("orders.jsonl"), "{\"id\":1}\nbroken\n").unwrap();
    in_folder(dir.path(), &[file.to_str().unwrap()]).ok();
    let data = dir.path().join("data");
    let read = |topic| run(&["topic", "consume", topic, "--data", data.to_str().unwrap()]).ok();
    assert_eq!(read("orders"), "{\"id\":1}\n");
    assert!(read("orders.dead").contains("line 2"));
}
