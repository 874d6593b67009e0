//! Part files: published whole, once, and nothing left lying about.

use std::fs;
use std::path::Path;

use tidemill_connectors::conformance::{Alarm, Target, check_two_phase_sink, scope, write, writer_context};
use tidemill_connectors::file::{FileSink, FileSource};
use tidemill_connectors::format::{Csv, Json, Text};
use tidemill_core::sink::{Sink, SinkScope};
use tidemill_core::source::Source;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn published(folder: &Path) -> Vec<u64> {
    let visible = names(folder).into_iter().filter(|name| !name.starts_with('.'));
    let texts = visible.map(|name| fs::read_to_string(folder.join(name)).unwrap());
    texts.flat_map(|text| text.lines().map(|line| line.parse().unwrap()).collect::<Vec<_>>()).collect()
}

#[test]
fn it_is_exactly_once_whatever_happens() {
    check_two_phase_sink(
        || {
            let folder = tempfile::tempdir().unwrap();
            let sink = FileSink::new(folder.path().join("out"), Json::<u64>::new()).suffix(".json");
            let published = move || published(&folder.path().join("out"));
            Target { sink: Box::new(sink), published: Box::new(published) }
        },
        |n| n,
    );
}

#[test]
fn large_parts_are_split_and_sources_see_only_what_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path(), Csv::<(u64, String)>::new()).prefix("orders").suffix(".csv");
    let sink = sink.part_bytes_max(1000);
    let (alarm, waker) = Alarm::new();
    let mut writer = sink.writer(writer_context(3, 4, 7, 2, waker)).unwrap();
    for n in 0..30 {
        write(&mut *writer, &alarm, vec![(0, (n, "x".repeat(200)))]);
        // Each by itself, so that batches do not depend on the thread's pace.
        crate::wait_until("the record is written", || {
            let bytes: u64 = names(folder.path())
                .iter()
                .map(|name| fs::metadata(folder.path().join(name)).map_or(0, |m| m.len()))
                .sum();
            bytes >= (n + 1) * 203
        });
    }
    let source = FileSource::new(folder.path(), Text);
    assert!(source.splits().is_err(), "nothing is published yet");
    let tokens = writer.pre_commit(7).unwrap()().unwrap();
    assert!(source.splits().is_err() && names(folder.path()).iter().all(|name| name.ends_with(".pending")));
    sink_committer(&sink).commit(&tokens).unwrap();
    let names = names(folder.path());
    assert_eq!(names.len(), 6, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("orders-3-7-2-") && name.ends_with(".csv")), "{names:?}");
    assert_eq!(source.splits().unwrap().len(), 6);
}

fn sink_committer(sink: &FileSink<Csv<(u64, String)>>) -> Box<dyn tidemill_core::sink::Committer> {
    Sink::<(u64, String)>::committer(sink, &scope()).unwrap().unwrap()
}

#[test]
fn recovery_leaves_other_jobs_alone_and_forgives_files_that_were_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path(), Json::<u64>::new());
    let (alarm, waker) = Alarm::new();
    let mut context = writer_context(0, 1, 1, 1, waker);
    let mut writer = Sink::<u64>::writer(&sink, context.clone()).unwrap();
    write(&mut *writer, &alarm, vec![(0, 1)]);
    let tokens = writer.pre_commit(1).unwrap()().unwrap();
    context.scope = SinkScope { job_id: "another".into(), uid: "sink".into() };
    let mut other = Sink::<u64>::writer(&sink, context.clone()).unwrap();
    write(&mut *other, &alarm, vec![(0, 2)]);
    let others_tokens = other.pre_commit(1).unwrap()().unwrap();
    Sink::<u64>::recover(&sink, &scope(), &tokens).unwrap();
    assert_eq!(published(folder.path()), [1]);
    Sink::<u64>::recover(&sink, &context.scope, &others_tokens).unwrap();
    assert_eq!(published(folder.path()).len(), 2);
    for name in names(folder.path()) {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    Sink::<u64>::recover(&sink, &scope(), &tokens).unwrap();
    assert!(Sink::<u64>::recover(&sink, &scope(), &[vec![9]]).is_err());
    assert!(names(folder.path()).is_empty());
}

#[test]
fn names_that_would_hide_or_leave_the_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (prefix, suffix) in [(".x", ""), ("a/b", ""), ("a", "/b")] {
        let sink = FileSink::new(folder.path(), Text).prefix(prefix).suffix(suffix);
        assert!(Sink::<String>::writer(&sink, writer_context(0, 1, 1, 1, Alarm::new().1)).is_err());
    }
}
