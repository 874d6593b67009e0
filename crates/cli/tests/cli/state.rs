//! `tidemill state` and `tidemill savepoint` on what a job has left behind.

use tidemill::engine::{Environment, JobSettings};

use crate::support::{run, tidemill};

#[test]
fn a_job_s_state_is_listed_shown_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (input, job_file) = (folder.path().join("in.txt"), folder.path().join("copy.toml"));
    std::fs::write(&input, "one\ntwo\n").unwrap();
    let text = format!(
        "[source]\nconnector = \"file\"\npath = \"{}\"\n[sink]\nconnector = \"file\"\nfolder = \"{}\"\n",
        input.display(),
        folder.path().join("out").display()
    );
    std::fs::write(&job_file, text).unwrap();
    let job = folder.path().join("job");
    let data = folder.path().join("data");
    let args = ["run", job_file.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let ran = tidemill(&args).env("TIDEMILL_JOB_DIR", &job).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let checkpoint = job.join("checkpoints/chk-1");
    let place = checkpoint.to_str().unwrap();

    let listed = run(&["--output", "json", "state", "list", place]).json();
    let source = listed.as_array().unwrap().iter().find(|one| one["states"][0] == "splits").unwrap();
    let uid = source["operator"].as_str().unwrap();
    let shown = run(&["state", "show", place, "--operator", uid]).ok();
    assert!(shown.starts_with("checkpoint 1 of job `copy`") && shown.contains("operator"), "{shown}");
    let exported = run(&["--output", "json", "state", "export", place, "--operator", uid, "--state", "splits"]).json();
    assert!(exported[0]["json"].is_array(), "{exported}");
    let refused = run(&["state", "export", place, "--operator", uid, "--state", "none"]).failed(2);
    assert!(refused.contains("there are `splits`"), "{refused}");
    let refused = run(&["state", "export", place, "--operator", uid, "--state", "splits", "--value", "u65"]).failed(2);
    assert!(refused.contains("u65"), "{refused}");

    for nothing in ["", job.to_str().unwrap()] {
        let absent = run(&["state", "list", nothing]).failed(3);
        assert!(absent.starts_with(&format!("there is no checkpoint or savepoint in `{nothing}`")), "{absent}");
        assert_eq!(run(&["savepoint", "dispose", nothing]).failed(3), absent);
    }
    let refused = run(&["savepoint", "dispose", place]).failed(2);
    assert!(refused.contains("is a checkpoint of job `copy`"), "{refused}");

    // A savepoint of it, with the source's state alone and under another name.
    let saved = folder.path().join("saved");
    let saved = saved.to_str().unwrap();
    let copy = ["savepoint", "copy", place, saved];
    let refused = run(&[&copy[..], &["--without", "nobody"]].concat()).failed(2);
    assert!(refused.contains("there is no operator `nobody`") && refused.contains(uid), "{refused}");
    let rename = format!("{uid}=lines");
    let others = listed.as_array().unwrap().iter().map(|one| one["operator"].as_str().unwrap());
    let others: Vec<&str> = others.filter(|one| *one != uid).flat_map(|one| ["--without", one]).collect();
    let copied = run(&[&["--output", "json"], &copy[..], &["--rename", &rename], &others[..]].concat()).json();
    assert_eq!(copied["operators"], serde_json::json!(["lines"]));
    let again = run(&["--output", "json", "state", "export", saved, "--operator", "lines", "--state", "splits"]).json();
    assert_eq!(again, exported);
    let refused = run(&copy).failed(2);
    assert!(refused.contains("is not empty"), "{refused}");
    run(&["savepoint", "dispose", saved]).ok();
    assert!(checkpoint.join("_metadata").is_file());
}

#[test]
fn what_a_state_is_it_says_itself() {
    let folder = tempfile::tempdir().unwrap();
    let settings = JobSettings { checkpoint_dir: Some(folder.path().to_path_buf()), ..JobSettings::default() };
    let env = Environment::with_settings(settings);
    let words = env.from_collection(["to", "be", "or", "not", "to", "be"].map(String::from).to_vec());
    let counts = words.map(|word: String| (word, 1u64)).key_by(|pair| pair.0.clone());
    counts.sum(|pair| &mut pair.1).uid("counts").collect();
    env.execute("words").unwrap();
    let chk = folder.path().join("chk-1");
    let place = chk.to_str().unwrap();

    let shown = run(&["--output", "json", "state", "show", place, "--operator", "counts"]).json();
    assert_eq!(shown[0]["entry"], "(string, (string, u64))");
    let name = shown[0]["name"].as_str().unwrap();
    let export = ["--output", "json", "state", "export", place, "--operator", "counts", "--state", name];
    let mut exported = run(&export).json();
    exported.as_array_mut().unwrap().sort_by_key(|entry| entry["key"].to_string());
    let value = |word: &str, count: u64| serde_json::json!([word, count]);
    let values: Vec<_> = exported.as_array().unwrap().iter().map(|entry| entry["value"].clone()).collect();
    assert_eq!(values, [value("be", 2), value("not", 1), value("or", 1), value("to", 2)]);
    let raw = run(&[&export[..], &["--raw"]].concat()).json();
    assert!(raw[0]["hex"].is_string(), "{raw}");
}
