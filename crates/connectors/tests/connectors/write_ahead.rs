//! Rows kept in the checkpoint: written when it is complete, after any crash, and hardly ever twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tidemill_connectors::conformance::{Alarm, Target, check_two_phase_sink, scope, writer_context};
use tidemill_connectors::write_ahead::{BatchId, CommitLog, FileCommitLog, WriteAheadSink, WriteRows};
use tidemill_core::sink::{Sink, SinkScope};
use tidemill_core::{Error, Kind, Result};

/// A table by key: writing a row again changes nothing. Counts writes, and fails when told to.
#[derive(Clone, Default)]
struct Table {
    rows: Arc<Mutex<BTreeMap<u64, String>>>,
    batches: Arc<Mutex<Vec<BatchId>>>,
    fails: Arc<Mutex<bool>>,
}

impl WriteRows<(u64, String)> for Table {
    fn write(&mut self, batch: BatchId, rows: &[(u64, String)]) -> Result<()> {
        self.rows.lock().unwrap().extend(rows.iter().cloned());
        if std::mem::take(&mut *self.fails.lock().unwrap()) {
            return Err(Error::external("the table is away"));
        }
        self.batches.lock().unwrap().push(batch);
        Ok(())
    }
}

fn sink(table: &Table, folder: &std::path::Path) -> WriteAheadSink<(u64, String)> {
    let (table, folder) = (table.clone(), folder.to_path_buf());
    let log = move |scope: &SinkScope| FileCommitLog::open(&folder, scope);
    WriteAheadSink::new("table", move |_: &SinkScope| Ok(table.clone()), log)
}

#[test]
fn it_is_exactly_once_whatever_happens() {
    check_two_phase_sink(
        || {
            let folder = tempfile::tempdir().unwrap();
            let table = Table::default();
            let sink = sink(&table, folder.path());
            let published = move || {
                let _folder = &folder;
                table.rows.lock().unwrap().clone().into_iter().collect()
            };
            Target { sink: Box::new(sink), published: Box::new(published) }
        },
        |n| (n, format!("row {n}\nwith two lines")),
    );
}

#[test]
fn written_batches_are_remembered_over_restarts_and_a_failed_one_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::default();
    let sink = sink(&table, folder.path());
    let token = |subtask, epoch, attempt, row: u64| {
        let context = writer_context(subtask, 2, epoch, attempt, Alarm::new().1);
        let mut writer = sink.writer(context).unwrap();
        writer.write(vec![(0, (row, "x".to_string()))]).unwrap();
        writer.pre_commit(epoch).unwrap()().unwrap().remove(0)
    };
    let tokens = [token(0, 5, 1, 1), token(1, 5, 1, 2), token(0, 6, 1, 3)];
    *table.fails.lock().unwrap() = true;
    assert!(sink.committer(&scope()).unwrap().unwrap().commit(&tokens).is_err());
    sink.committer(&scope()).unwrap().unwrap().commit(&tokens).unwrap();
    assert_eq!(table.batches.lock().unwrap().len(), 3);
    sink.recover(&scope(), &tokens).unwrap();
    assert_eq!(table.batches.lock().unwrap().len(), 3, "nothing is written again");
    // Started again from an older checkpoint: epochs repeat, but not those of one attempt.
    sink.recover(&scope(), &[token(0, 5, 2, 4)]).unwrap();
    assert_eq!(table.batches.lock().unwrap().len(), 4);
    let other = SinkScope { uid: "other".into(), ..scope() };
    assert!(
        !FileCommitLog::open(folder.path(), &other)
            .unwrap()
            .is_written(BatchId { subtask: 0, attempt: 1, epoch: 1 })
            .unwrap()
    );
}

#[test]
fn damaged_tokens_and_logs_and_too_many_rows_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let sink = sink(&Table::default(), folder.path()).epoch_bytes_max(100);
    let mut committer = sink.committer(&scope()).unwrap().unwrap();
    for wrong in [vec![], vec![9; 40], [&[1][..], &[7; 40][..]].concat()] {
        assert_eq!(committer.commit(&[wrong]).unwrap_err().kind(), Kind::Corrupt);
    }
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, Alarm::new().1)).unwrap();
    let error = writer.write(vec![(0, (1, "x".repeat(200)))]).unwrap_err();
    assert_eq!(error.kind(), Kind::Full);
    let uid = scope().uid;
    std::fs::write(folder.path().join(format!("{}-{uid}.written", scope().job_id)), "nonsense").unwrap();
    assert_eq!(FileCommitLog::open(folder.path(), &scope()).unwrap_err().kind(), Kind::Corrupt);
}

/// A token of version 1 as it stands in checkpoints.
#[test]
fn tokens_of_the_first_version_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::default();
    let sink = sink(&table, folder.path());
    // Version, subtask 2, attempt 3, epoch 4; then `[7,"seven"]` and a line end, stored without packing.
    let row = b"[7,\"seven\"]\n";
    let mut token = vec![1, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
    token.extend([1, row.len() as u8, 0, !(row.len() as u8), 0xff]);
    token.extend(row);
    sink.recover(&scope(), &[token]).unwrap();
    assert_eq!(*table.rows.lock().unwrap(), [(7, "seven".to_string())].into());
    assert_eq!(*table.batches.lock().unwrap(), [BatchId { subtask: 2, attempt: 3, epoch: 4 }]);
}
