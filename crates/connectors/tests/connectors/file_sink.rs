//! Part files: published whole, once, and nothing left lying about.

use std::fs;
use std::path::Path;

use tidemill_connectors::conformance::{Alarm, Target, check_two_phase_sink, scope, write, writer_context};
use tidemill_connectors::file::{BucketCommit, BucketTime, ByTime, FileSink, FileSource};
use tidemill_connectors::format::{Csv, Json, Text};
use tidemill_core::Clock;
use tidemill_core::sink::{Sink, SinkScope, SinkWriter};
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
    context.scope = SinkScope::new("another", "sink");
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

fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&entry.path()).into_iter().map(|file| format!("{name}/{file}"))),
            false => files.push(name),
        }
    }
    files.sort();
    files
}

fn is_hidden(file: &str) -> bool {
    file.rsplit('/').next().unwrap().starts_with('.')
}

#[test]
fn buckets_are_exactly_once_too() {
    check_two_phase_sink(
        || {
            let folder = tempfile::tempdir().unwrap();
            let sink = FileSink::new(folder.path().join("out"), Json::<u64>::new());
            let sink = sink.bucket_by(|n: &u64| format!("by/rest={}", n % 3)).suffix(".json");
            let published = move || {
                let out = folder.path().join("out");
                let visible = files_below(&out).into_iter().filter(|file| !is_hidden(file));
                let rows = visible.flat_map(|file| {
                    let rest: u64 = file.strip_prefix("by/rest=").unwrap()[..1].parse().unwrap();
                    let text = fs::read_to_string(out.join(&file)).unwrap();
                    let rows: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
                    assert!(rows.iter().all(|n| n % 3 == rest), "{file}: {rows:?}");
                    rows
                });
                rows.collect()
            };
            Target { sink: Box::new(sink), published: Box::new(published) }
        },
        |n| n,
    );
}

/// Why an epoch cannot be closed; the sink's own thread may have found out before it is asked.
fn refused(writer: &mut dyn SinkWriter<u64>, epoch: u64) -> String {
    writer.pre_commit(epoch).and_then(|close| close()).unwrap_err().to_string()
}

#[test]
fn buckets_by_time_have_a_folder_an_hour_and_wrong_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path(), Json::<u64>::new());
    let sink = sink.bucket_by_time(BucketTime::Event, ByTime::HOURLY, "Asia/Shanghai").unwrap();
    let (alarm, waker) = Alarm::new();
    let mut writer = Sink::<u64>::writer(&sink, writer_context(0, 1, 1, 1, waker)).unwrap();
    let hour = 3_600_000;
    write(&mut *writer, &alarm, vec![(0, 1), (hour, 2), (hour + 1, 3), (0, 4)]);
    let tokens = writer.pre_commit(1).unwrap()().unwrap();
    assert!(files_below(folder.path()).iter().all(|file| is_hidden(file)), "nothing shows before the commit");
    Sink::<u64>::committer(&sink, &scope()).unwrap().unwrap().commit(&tokens).unwrap();
    let read = |bucket: &str| published(&folder.path().join(bucket));
    assert_eq!((read("1970-01-01--08"), read("1970-01-01--09")), (vec![1, 4], vec![2, 3]));

    write(&mut *writer, &alarm, vec![(tidemill_core::NO_TIMESTAMP, 5)]);
    let error = refused(&mut *writer, 2);
    assert!(error.contains("no event time to name a bucket by"), "{error}");
    let outside = FileSink::new(folder.path(), Json::<u64>::new()).bucket_by(|_: &u64| "../outside".to_string());
    let mut writer = Sink::<u64>::writer(&outside, writer_context(0, 1, 1, 1, Alarm::new().1)).unwrap();
    write(&mut *writer, &alarm, vec![(0, 1)]);
    let error = refused(&mut *writer, 1);
    assert!(error.contains("no folder below the sink's"), "{error}");
}

#[test]
fn old_and_silent_files_are_finished_and_few_are_open() {
    let clock = std::sync::Arc::new(tidemill_core::ManualClock::new(0));
    let files_of = |sink: &dyn Sink<u64>, folder: &Path, steps: &[(i64, u64)]| {
        let (alarm, waker) = Alarm::new();
        clock.set(0);
        let context = tidemill_core::sink::WriterContext { clock: clock.clone(), ..writer_context(0, 1, 1, 1, waker) };
        let mut writer = sink.writer(context).unwrap();
        for (count, (at_ms, n)) in (1..).zip(steps) {
            clock.set(*at_ms);
            write(&mut *writer, &alarm, vec![(0, *n)]);
            // The clock is read when the record is written, on the sink's own thread.
            crate::wait_until("the record is written", || bytes_in(folder) >= count * 2);
        }
        let tokens = writer.pre_commit(1).unwrap()().unwrap();
        sink.committer(&scope()).unwrap().unwrap().commit(&tokens).unwrap();
    };
    let run = |steps: &[(i64, u64)], make: &dyn Fn(FileSink<Json<u64>>) -> FileSink<Json<u64>>| {
        let folder = tempfile::tempdir().unwrap();
        files_of(&make(FileSink::new(folder.path(), Json::new())), folder.path(), steps);
        names(folder.path()).len()
    };
    let steps = [(0, 1), (40, 2), (80, 3), (120, 4), (300, 5)];
    assert_eq!(run(&steps, &|sink| sink), 1);
    assert_eq!(run(&steps, &|sink| sink.part_age_max_ms(100)), 3, "at 120 and at 300");
    assert_eq!(run(&steps, &|sink| sink.part_silence_max_ms(100)), 2, "at 300");
}

#[test]
fn files_that_go_on_over_checkpoints_lose_and_double_nothing_wherever_the_job_dies() {
    for seed in 0..60u64 {
        let folder = tempfile::tempdir().unwrap();
        let sink = FileSink::new(folder.path(), Json::<u64>::new());
        let sink = sink.part_bytes_max(60).part_age_max_ms(50).across_checkpoints();
        let clock = std::sync::Arc::new(tidemill_core::ManualClock::new(0));
        let mut word = seed;
        let mut below = |bound: u64| {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (word >> 33) % bound
        };
        // The newest checkpoint: its epoch, the number that comes next, and what is to be published.
        let (mut epoch, mut next, mut tokens) = (0, 0, Vec::new());
        let mut most_names = 0;
        for attempt in 1..=8 {
            Sink::<u64>::recover(&sink, &scope(), &tokens).unwrap();
            let restored: Vec<u64> = sorted(published(folder.path()));
            assert_eq!(restored, (0..next).collect::<Vec<_>>(), "seed {seed}: all that the checkpoint holds");
            let (alarm, waker) = Alarm::new();
            let context = writer_context(0, 1, epoch + 1, attempt, waker);
            let context = tidemill_core::sink::WriterContext { clock: clock.clone(), ..context };
            let mut writer = Sink::<u64>::writer(&sink, context).unwrap();
            let mut committer = Sink::<u64>::committer(&sink, &scope()).unwrap().unwrap();
            let (mut written, dies_at) = (next, below(6));
            for step in 0.. {
                let count = below(5);
                write(&mut *writer, &alarm, (written..written + count).map(|n| (0, n)).collect());
                written += count;
                clock.set(clock.now_ms() + below(30) as i64);
                let dies = (step == dies_at).then(|| below(3));
                if dies == Some(0) {
                    break;
                }
                let prepared = writer.pre_commit(epoch + 1).unwrap()().unwrap();
                if dies == Some(1) {
                    break;
                }
                (epoch, next, tokens) = (epoch + 1, written, prepared);
                if dies == Some(2) {
                    break;
                }
                committer.commit(&tokens).unwrap();
                let seen = sorted(published(folder.path()));
                assert!(
                    seen.windows(2).all(|pair| pair[0] != pair[1]) && seen.len() as u64 <= next,
                    "seed {seed}: {seen:?}"
                );
            }
            most_names = most_names.max(names(folder.path()).len());
        }
        assert!(most_names > 2, "seed {seed}: files are finished");
        Sink::<u64>::recover(&sink, &scope(), &tokens).unwrap();
        let (alarm, waker) = Alarm::new();
        let mut writer = Sink::<u64>::writer(&sink, writer_context(0, 1, epoch + 1, 9, waker)).unwrap();
        write(&mut *writer, &alarm, vec![(0, next)]);
        writer.watermark(i64::MAX).unwrap();
        let last = writer.pre_commit(epoch + 1).unwrap()().unwrap();
        Sink::<u64>::committer(&sink, &scope()).unwrap().unwrap().commit(&last).unwrap();
        assert_eq!(
            sorted(published(folder.path())),
            (0..=next).collect::<Vec<_>>(),
            "seed {seed}: the end finishes all"
        );
    }
}

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn one_file_goes_on_over_checkpoints_until_it_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path(), Json::<u64>::new()).across_checkpoints();
    let mut subtasks = Subtasks::start(&sink, folder.path(), 1, 1);
    for epoch in 1..=3 {
        subtasks.write(0, &[(0, epoch)], 0);
        subtasks.checkpoint(epoch);
        assert!(published(folder.path()).is_empty());
    }
    // Nothing more comes, and still it is seen after a minute.
    subtasks.clock.set(60_000);
    subtasks.checkpoint(4);
    assert_eq!((published(folder.path()), names(folder.path()).len()), (vec![1, 2, 3], 1));
    let marked = sink.clone().bucket_commit(BucketCommit::by_processing_time(0));
    let error = Sink::<u64>::recover(&marked, &scope(), &[]).unwrap_err().to_string();
    assert!(error.contains("files of it go on over checkpoints"), "{error}");
}

#[test]
fn a_file_that_another_job_goes_on_writing_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path(), Json::<u64>::new()).across_checkpoints();
    let (alarm, waker) = Alarm::new();
    let mut writer = Sink::<u64>::writer(&sink, writer_context(0, 1, 1, 1, waker)).unwrap();
    write(&mut *writer, &alarm, vec![(0, 1)]);
    let tokens = writer.pre_commit(1).unwrap()().unwrap();
    Sink::<u64>::recover(&sink, &SinkScope::new("another", "sink"), &tokens).unwrap();
    assert_eq!(published(folder.path()), [1]);
    write(&mut *writer, &alarm, vec![(0, 2)]);
    writer.watermark(i64::MAX).unwrap();
    let tokens = writer.pre_commit(2).unwrap()().unwrap();
    Sink::<u64>::committer(&sink, &scope()).unwrap().unwrap().commit(&tokens).unwrap();
    assert_eq!(published(folder.path()), [1, 2]);
    // What the checkpoint says is there must be.
    for name in names(folder.path()) {
        fs::rename(folder.path().join(&name), folder.path().join(format!(".{name}.inprogress"))).unwrap();
        fs::write(folder.path().join(format!(".{name}.inprogress")), "").unwrap();
    }
    let open = [b"\x02".as_slice(), br#"{"files":[],"open":[{"file":"NAME","bytes":2}]}"#].concat();
    let hidden = names(folder.path()).pop().unwrap();
    let file = hidden.trim_start_matches('.').trim_end_matches(".inprogress");
    let token = String::from_utf8(open).unwrap().replace("NAME", file).into_bytes();
    let error = Sink::<u64>::recover(&sink, &scope(), &[token]).unwrap_err().to_string();
    assert!(error.contains("0 bytes, 2 of which"), "{error}");
}

/// All bytes in the files of a folder.
fn bytes_in(folder: &Path) -> u64 {
    names(folder).iter().map(|name| fs::metadata(folder.join(name)).map_or(0, |m| m.len())).sum()
}

#[test]
fn many_buckets_do_not_keep_many_files_open() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path(), Json::<u64>::new()).bucket_by(|n: &u64| format!("b{}", n % 400));
    let (alarm, waker) = Alarm::new();
    let mut writer = Sink::<u64>::writer(&sink, writer_context(0, 1, 1, 1, waker)).unwrap();
    for round in 0..3u64 {
        write(&mut *writer, &alarm, (0..400).map(|n| (0, round * 400 + n)).collect());
    }
    let tokens = writer.pre_commit(1).unwrap()().unwrap();
    Sink::<u64>::committer(&sink, &scope()).unwrap().unwrap().commit(&tokens).unwrap();
    let mut all: Vec<u64> = files_below(folder.path())
        .iter()
        .flat_map(|file| published(folder.path().join(file).parent().unwrap()))
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all, (0..1200).collect::<Vec<_>>());
}

struct Subtask {
    writer: Box<dyn SinkWriter<u64>>,
    alarm: std::sync::Arc<Alarm>,
    committer: Box<dyn tidemill_core::sink::Committer>,
}

/// A sink's subtasks, and what a reader sees of them.
struct Subtasks<'a> {
    sink: &'a dyn Sink<u64>,
    folder: &'a Path,
    clock: std::sync::Arc<tidemill_core::ManualClock>,
    all: Vec<Subtask>,
}

impl<'a> Subtasks<'a> {
    fn start(sink: &'a dyn Sink<u64>, folder: &'a Path, count: usize, epoch: u64) -> Self {
        let clock = std::sync::Arc::new(tidemill_core::ManualClock::new(0));
        sink.recover(&scope(), &[]).unwrap();
        let start = |subtask| {
            let (alarm, waker) = Alarm::new();
            let context = writer_context(subtask, count, epoch, 1, waker);
            let context = tidemill_core::sink::WriterContext { clock: clock.clone(), ..context };
            let committer = sink.committer(&scope()).unwrap().unwrap();
            Subtask { writer: sink.writer(context).unwrap(), alarm, committer }
        };
        Subtasks { sink, folder, clock: clock.clone(), all: (0..count).map(start).collect() }
    }

    fn write(&mut self, subtask: usize, records: &[(i64, u64)], watermark_ms: i64) {
        let Subtask { writer, alarm, .. } = &mut self.all[subtask];
        write(&mut **writer, alarm, records.to_vec());
        writer.watermark(watermark_ms).unwrap();
    }

    /// A checkpoint; which buckets are marked then.
    fn checkpoint(&mut self, epoch: u64) -> Vec<String> {
        let tokens: Vec<_> =
            self.all.iter_mut().map(|subtask| subtask.writer.pre_commit(epoch).unwrap()().unwrap()).collect();
        for (subtask, tokens) in self.all.iter_mut().zip(tokens) {
            subtask.committer.commit(&tokens).unwrap();
        }
        self.marked()
    }

    fn marked(&self) -> Vec<String> {
        let mark = |file: String| Some(file.strip_suffix("_SUCCESS")?.trim_end_matches('/').to_string());
        files_below(self.folder).into_iter().filter_map(mark).collect()
    }

    /// Takes the marks away, and starts everything anew.
    fn restart(self, epoch: u64, forget: &[&str]) -> Self {
        for bucket in forget {
            fs::remove_file(self.folder.join(bucket).join("_SUCCESS")).unwrap();
        }
        Self::start(self.sink, self.folder, self.all.len(), epoch)
    }
}

#[test]
fn a_bucket_that_event_time_has_passed_everywhere_is_marked() {
    let folder = tempfile::tempdir().unwrap();
    let minute = 60_000;
    let sink = FileSink::new(folder.path(), Json::<u64>::new());
    let sink = sink.bucket_by_time(BucketTime::Event, "HH'/'mm'of'yyyyMMdd", "UTC").unwrap();
    let sink = sink.bucket_commit(BucketCommit::by_event_time(minute));
    let mut subtasks = Subtasks::start(&sink, folder.path(), 2, 1);
    subtasks.write(0, &[(0, 1), (minute, 2)], minute + 1);
    subtasks.write(1, &[(5, 3)], minute);
    assert!(subtasks.checkpoint(1).is_empty(), "one subtask is not beyond the minute");
    subtasks.write(1, &[(minute + 7, 4)], minute + 7);
    assert_eq!(subtasks.checkpoint(2), ["00/00of19700101"]);
    // Nothing new, and still the second minute is known to wait after a restart.
    let mut subtasks = subtasks.restart(3, &[]);
    assert_eq!(subtasks.checkpoint(3), ["00/00of19700101"]);
    subtasks.write(0, &[], 2 * minute + 1);
    subtasks.write(1, &[], 2 * minute + 1);
    assert_eq!(subtasks.checkpoint(4), ["00/00of19700101", "00/01of19700101"]);
    // Late records: readers are told again, once they are published.
    fs::remove_file(folder.path().join("00/00of19700101/_SUCCESS")).unwrap();
    subtasks.write(1, &[(9, 5)], 2 * minute + 1);
    assert_eq!(subtasks.marked(), ["00/01of19700101"]);
    assert_eq!(subtasks.checkpoint(5), ["00/00of19700101", "00/01of19700101"]);
    subtasks.write(0, &[(9 * minute, 6)], i64::MAX);
    subtasks.write(1, &[], i64::MAX);
    assert_eq!(subtasks.checkpoint(6).len(), 3, "the end of the input is the end of all");
}

#[test]
fn a_bucket_is_marked_so_long_after_its_first_file() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path(), Json::<u64>::new()).bucket_by(|n: &u64| format!("b{n}"));
    let at_once = sink.clone().bucket_commit(BucketCommit::by_processing_time(0));
    let sink = sink.bucket_commit(BucketCommit::by_processing_time(100));
    let mut subtasks = Subtasks::start(&sink, folder.path(), 1, 1);
    for (epoch, at_ms, n, marked) in [(1, 10, 1, vec![]), (2, 110, 2, vec![]), (3, 111, 1, vec!["b1"])] {
        subtasks.clock.set(at_ms);
        subtasks.write(0, &[(0, n)], 0);
        assert_eq!(subtasks.checkpoint(epoch), marked, "at {at_ms} ms");
    }
    drop(subtasks);
    let mut subtasks = Subtasks::start(&at_once, folder.path(), 1, 4);
    assert_eq!(subtasks.checkpoint(4), ["b1", "b2"]);
    subtasks.write(0, &[(0, 3)], 0);
    assert_eq!(subtasks.checkpoint(5), ["b1", "b2", "b3"]);
}

#[test]
fn who_is_told_of_a_complete_bucket_hears_of_it_before_its_file_and_again_after_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = told.clone();
    let commit = BucketCommit::by_processing_time(0).tell(move |bucket| {
        let mut told = hears.lock().unwrap();
        assert_eq!(names(bucket).len(), 1, "the records alone");
        told.push(bucket.file_name().unwrap().to_str().unwrap().to_string());
        if told.len() == 1 { Err(tidemill_core::Error::external("the catalogue is away")) } else { Ok(()) }
    });
    let sink = FileSink::new(folder.path(), Json::<u64>::new()).bucket_by(|n: &u64| format!("b{n}"));
    let sink = sink.bucket_commit(commit);
    let mut subtasks = Subtasks::start(&sink, folder.path(), 1, 1);
    subtasks.write(0, &[(0, 1), (0, 2)], 0);
    let Subtask { writer, committer, .. } = &mut subtasks.all[0];
    let tokens = writer.pre_commit(1).unwrap()().unwrap();
    let error = committer.commit(&tokens).unwrap_err().to_string();
    assert!(error.contains("b1` is complete: the catalogue is away"), "{error}");
    committer.commit(&tokens).unwrap();
    assert_eq!(*told.lock().unwrap(), ["b1", "b1", "b2"]);
    assert_eq!(subtasks.marked(), ["b1", "b2"]);
}

#[test]
fn buckets_that_cannot_be_told_complete_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path(), Json::<u64>::new());
    let refused = |commit: BucketCommit| {
        let sink = sink.clone().bucket_commit(commit);
        Sink::<u64>::writer(&sink, writer_context(0, 1, 1, 1, Alarm::new().1)).err().unwrap().to_string()
    };
    assert!(refused(BucketCommit::by_event_time(0)).contains("no time in their names"));
    assert!(refused(BucketCommit::by_processing_time(-1)).contains("before its time"));
    for name in ["", ".done", "a/b"] {
        assert!(refused(BucketCommit::by_processing_time(0).file_name(name)).contains("no name for a file"), "{name}");
    }
}
