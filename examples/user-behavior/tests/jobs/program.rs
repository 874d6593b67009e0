//! The program as a person runs it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use user_behavior::input::ACTIONS_SAMPLE;
use user_behavior::page_views::HourViews;
use user_behavior::reference;

/// Runs it in a folder, without the environment's data.
fn program(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_user-behavior"))
        .current_dir(folder)
        .env_remove("TIDEMILL_SAMPLE_DATA")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn without_data_the_sample_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path(), &["page-views", "--parallelism", "2"]);
    // Workers do not wait for each other: only the lines of one worker are in order.
    let mut lines: Vec<&str> = text(&output.stdout).lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["2025-01-01 09:00:00  pv 15  uv 9", "2025-01-01 10:00:00  pv 6  uv 6"]);
    assert_eq!(
        text(&output.stderr),
        "there is no `user_behavior.csv` in `data`: this is the sample that is built in\n"
    );
    assert_eq!(output.status.code(), Some(0));
    let output = program(folder.path(), &["hot-items"]);
    let last = "2025-01-01 10:30:00  105 (1)";
    assert!(text(&output.stdout).lines().any(|line| line == last), "{}", text(&output.stdout));
    let output = program(folder.path(), &["hot-pages"]);
    let ten_past_eight = "2025-01-01 08:10:00  /shoes (4)  / (3)  /hats (3)";
    assert!(text(&output.stdout).lines().any(|line| line == ten_past_eight), "{}", text(&output.stdout));
}

#[test]
fn results_go_to_files_and_what_is_left_out_is_told_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/user_behavior.csv"), format!("{ACTIONS_SAMPLE}what is this\n")).unwrap();
    let output = program(folder.path(), &["page-views", "--output", "file", "--folder", "results"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), ""), "{}", text(&output.stderr));
    let told = text(&output.stderr);
    assert!(told.starts_with("1 line left out") && told.contains("`what is this`"), "{told}");
    let mut rows = BTreeMap::new();
    for file in fs::read_dir(folder.path().join("results")).unwrap() {
        for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            let row: HourViews = serde_json::from_str(line).unwrap();
            rows.insert(row.window_end_ms, row.views);
        }
    }
    assert_eq!(rows, reference::page_views(ACTIONS_SAMPLE.as_bytes()).unwrap());
}

#[test]
fn a_folder_without_the_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path(), &["hot-pages", "--data", "nowhere"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
    let told = text(&output.stderr);
    assert!(told.starts_with("error: there is no `web_access.log`") && told.contains("`nowhere`"), "{told}");
}
