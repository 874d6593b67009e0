//! The sink: rows by batches in transactions, as upserts where there is a key; or exactly once, with a table beside the rows
//! that remembers in the same transaction what was written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::sink::{Committer, PreCommit, Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::{DeadLetter, Error, Result, RowKind};

use super::connection::{Connection, Database, Failure, Reconnecting, in_transaction};
use super::statements::Dialect;
use super::value::{Row, Value};
use super::write::row_of;
use crate::buffered::{BufferOptions, Buffered, BufferedWriter, Deliver};
use crate::write_ahead::{BatchId, CommitLog, WriteAheadSink, WriteRows};

/// Where the sink remembers what it has written exactly once.
const COMMITS: &str = "tidemill_commits";

/// One change to a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Change {
    row: Row,
    deletes: bool,
}

type Changes<T> = Arc<dyn Fn(&T) -> Result<Option<Change>> + Send + Sync>;
type Refused = Arc<dyn Fn(DeadLetter) -> Result<()> + Send + Sync>;

/// Writes records into a table: each field of a record into the column of its name. What a column cannot hold as it is, a
/// list or a struct, is written as the text of its JSON. Columns a record has no field for get their defaults.
///
/// While the database is away it is tried again and again, under backpressure, and nothing is lost.
pub struct DatabaseSink<T> {
    target: Target,
    changes: Changes<T>,
    options: BufferOptions,
    exactly_once: bool,
    epoch_bytes_max: usize,
}

/// Where rows go.
#[derive(Clone)]
struct Target {
    database: Database,
    table: String,
    key: Vec<String>,
    needs_key: bool,
    refused: Option<Refused>,
}

impl<T: Serialize + 'static> DatabaseSink<T> {
    /// Each record is a new row of `table`, which may be named with its schema; see [`DatabaseSink::key`] for upserts.
    pub fn new(database: impl Into<Database>, table: impl Into<String>) -> Self {
        Self::of(database.into(), table.into(), false, |record| Ok(Some(Change { row: row(record)?, deletes: false })))
    }
}

impl<T: Serialize + 'static> DatabaseSink<(RowKind, T)> {
    /// The table is kept as the changes say, which needs a [`DatabaseSink::key`]: rows inserted and updated are upserts, rows
    /// deleted are deleted. What an update replaces needs no doing.
    pub fn changelog(database: impl Into<Database>, table: impl Into<String>) -> Self {
        Self::of(database.into(), table.into(), true, |(kind, record): &(RowKind, T)| {
            Ok(match kind {
                RowKind::UpdateBefore => None,
                kind => Some(Change { row: row(record)?, deletes: *kind == RowKind::Delete }),
            })
        })
    }
}

fn row<T: Serialize>(record: &T) -> Result<Row> {
    row_of(record).map_err(|why| {
        Error::input(format!("a record does not become a row of a table: {why}"))
            .hint("map records to a struct with a field for each column")
    })
}

impl<T: 'static> DatabaseSink<T> {
    /// Each record is the row that `row` makes of it, for records whose fields are known only when the program runs; an error of
    /// `row` fails the job.
    pub fn rows(
        database: impl Into<Database>,
        table: impl Into<String>,
        row: impl Fn(&T) -> Result<Row> + Send + Sync + 'static,
    ) -> Self {
        Self::of(database.into(), table.into(), false, move |record| {
            Ok(Some(Change { row: row(record)?, deletes: false }))
        })
    }

    fn of(
        database: Database,
        table: String,
        needs_key: bool,
        changes: impl Fn(&T) -> Result<Option<Change>> + Send + Sync + 'static,
    ) -> Self {
        DatabaseSink {
            target: Target { database, table, key: Vec::new(), needs_key, refused: None },
            changes: Arc::new(changes),
            options: BufferOptions::default(),
            exactly_once: false,
            epoch_bytes_max: WriteAheadSink::<Change>::EPOCH_BYTES_MAX,
        }
    }

    /// The columns that name a row: a record whose key is there already updates that row, so that writing it again changes
    /// nothing. The table needs a primary key or a unique index of these columns. Records of one key must come from one subtask
    /// (`key_by`).
    pub fn key(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.target.key = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Each row once, also without a key: rows stay in the checkpoint until it is complete and are written then, a
    /// transaction for each subtask, in which the table `tidemill_commits` notes that they were. That table is made when
    /// it is absent. Results appear once a checkpoint. Default: at least once, at once.
    pub fn exactly_once(mut self) -> Self {
        self.exactly_once = true;
        self
    }

    /// With [`DatabaseSink::exactly_once`]: the most bytes of rows, as JSON, that one subtask keeps between two checkpoints; more
    /// fails the job. Default 32 MiB.
    pub fn epoch_bytes_max(mut self, bytes: usize) -> Self {
        self.epoch_bytes_max = bytes;
        self
    }

    /// The bounds of queue, batches (a transaction each) and new tries.
    pub fn options(mut self, options: BufferOptions) -> Self {
        self.options = options;
        self
    }

    /// What becomes of a row whose values the table refuses: too long, no number, a key that refers to nothing. `take` gets it
    /// as JSON with the reason, on a writing thread, and the sink goes on. It may get one again after a restart. Without this the
    /// first one fails the job.
    pub fn on_refused(mut self, take: impl Fn(DeadLetter) -> Result<()> + Send + Sync + 'static) -> Self {
        self.target.refused = Some(Arc::new(take));
        self
    }

    fn write_ahead(&self) -> WriteAheadSink<Change> {
        let (rows, log) = (self.target.clone(), self.target.clone());
        WriteAheadSink::new(
            self.target.title(),
            move |scope: &SinkScope| Commits::new(rows.clone(), scope),
            move |scope: &SinkScope| Commits::new(log.clone(), scope),
        )
        .epoch_bytes_max(self.epoch_bytes_max)
    }
}

impl Target {
    fn title(&self) -> String {
        format!("table `{}` of {}", self.table, self.database.title())
    }

    fn check(&self) -> Result<Dialect> {
        if self.needs_key && self.key.is_empty() {
            return Err(Error::input(format!("{}: changes need a key to find their rows by", self.title()))
                .hint("name the columns of the table's primary key with `key`"));
        }
        self.database.dialect()
    }
}

impl<T: 'static> Sink<T> for DatabaseSink<T> {
    fn name(&self) -> String {
        self.target.title()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        let dialect = self.target.check()?;
        let changes = Arc::clone(&self.changes);
        if self.exactly_once {
            return Ok(Box::new(Converted { changes, writer: self.write_ahead().writer(context)? }));
        }
        let connection = Reconnecting::new(self.target.database.clone());
        let deliver = DeliverRows { target: self.target.clone(), dialect, connection };
        let name = format!("{} [{}]", self.target.title(), context.subtask);
        let buffer = Buffered::start(&name, context.waker, self.options, deliver)?;
        Ok(Box::new(BufferedWriter::new(buffer, move |_, record: T, items| {
            items.extend(changes(&record)?);
            Ok(())
        })))
    }

    fn committer(&self, scope: &SinkScope) -> Result<Option<Box<dyn Committer>>> {
        if self.exactly_once { self.write_ahead().committer(scope) } else { Ok(None) }
    }

    fn recover(&self, scope: &SinkScope, tokens: &[Token]) -> Result<()> {
        // Tokens of a job that wrote exactly once until now are written too.
        if tokens.is_empty() { Ok(()) } else { self.write_ahead().recover(scope, tokens) }
    }
}

/// A writer of changes that takes records.
struct Converted<T> {
    changes: Changes<T>,
    writer: Box<dyn SinkWriter<Change>>,
}

impl<T> SinkWriter<T> for Converted<T> {
    fn ready(&mut self) -> bool {
        self.writer.ready()
    }

    fn weigh(&mut self, bytes: usize) {
        self.writer.weigh(bytes);
    }

    fn write(&mut self, batch: Vec<(i64, T)>) -> Result<()> {
        let change = |(time_ms, record): (i64, T)| (self.changes)(&record).map(|change| change.map(|c| (time_ms, c)));
        let changes = batch.into_iter().filter_map(|record| change(record).transpose()).collect::<Result<Vec<_>>>()?;
        self.writer.write(changes)
    }

    fn watermark(&mut self, watermark_ms: i64) -> Result<()> {
        self.writer.watermark(watermark_ms)
    }

    fn pre_commit(&mut self, epoch: u64) -> Result<PreCommit> {
        self.writer.pre_commit(epoch)
    }
}

/// Writes whatever waits, at least once.
struct DeliverRows {
    target: Target,
    dialect: Dialect,
    connection: Reconnecting,
}

impl Deliver for DeliverRows {
    type Item = Change;

    fn deliver(&mut self, items: &[Change]) -> Result<()> {
        let (target, dialect) = (&self.target, self.dialect);
        self.connection
            .with(|connection| apply(connection, dialect, target, items, |_| Ok(())))
            .map_err(|failure| failure.told(&format!("cannot write to table `{}` of", target.table), &target.database))
    }
}

/// Makes all changes in one transaction, and `mark` in the same. Rows that are refused are left out where somebody takes them.
fn apply(
    connection: &mut dyn Connection,
    dialect: Dialect,
    target: &Target,
    changes: &[Change],
    mark: impl Fn(&mut dyn Connection) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let together = in_transaction(connection, dialect.begin(), |connection| {
        write(connection, dialect, target, changes)?;
        mark(connection)
    });
    match (together, &target.refused) {
        // Which of them it is about, only they alone can tell.
        (Err(Failure::Row(_)), Some(take)) => in_transaction(connection, dialect.begin(), |connection| {
            for change in changes {
                connection.run("SAVEPOINT tidemill_row")?;
                match write(connection, dialect, target, std::slice::from_ref(change)) {
                    Ok(()) => connection.run("RELEASE SAVEPOINT tidemill_row")?,
                    Err(Failure::Row(why)) => {
                        connection.run("ROLLBACK TO SAVEPOINT tidemill_row")?;
                        let letter = DeadLetter::new(target.title(), "", why, change.row.to_json().as_bytes());
                        take(letter).map_err(|error| Failure::Final(error.to_string()))?;
                    }
                    Err(failure) => return Err(failure),
                }
            }
            mark(connection)
        }),
        (done, _) => done,
    }
}

fn write(
    connection: &mut dyn Connection,
    dialect: Dialect,
    target: &Target,
    changes: &[Change],
) -> Result<(), Failure> {
    let Target { table, key, .. } = target;
    let (deletes, rows): (Vec<&Change>, Vec<&Change>) = newest(changes, key)?.into_iter().partition(|c| c.deletes);
    let mut deletes = deletes.as_slice();
    while !deletes.is_empty() {
        let (now, rest) = deletes.split_at(dialect.rows_at_once(deletes.len(), key.len()));
        let values: Vec<&Value> =
            now.iter().flat_map(|change| key.iter().filter_map(|column| change.row.get(column))).collect();
        connection.execute(&dialect.delete(table, key, now.len()), &values)?;
        deletes = rest;
    }
    let mut alike: BTreeMap<Vec<&str>, Vec<&Row>> = BTreeMap::new();
    for change in rows {
        alike.entry(change.row.columns().collect()).or_default().push(&change.row);
    }
    for (columns, rows) in alike {
        if columns.is_empty() {
            return Err(Failure::Row("a row has no columns".to_string()));
        }
        let mut rows = rows.as_slice();
        while !rows.is_empty() {
            let (now, rest) = rows.split_at(dialect.rows_at_once(rows.len(), columns.len()));
            let values: Vec<&Value> = now.iter().flat_map(|row| row.0.iter().map(|(_, value)| value)).collect();
            connection.execute(&dialect.insert(table, &columns, key, now.len()), &values)?;
            rows = rest;
        }
    }
    Ok(())
}

/// The last change of each key, since a statement can change a row only once. Without a key all of them.
fn newest<'a>(changes: &'a [Change], key: &[String]) -> Result<Vec<&'a Change>, Failure> {
    if key.is_empty() {
        return Ok(changes.iter().collect());
    }
    let mut places: HashMap<Vec<String>, usize> = HashMap::with_capacity(changes.len());
    let mut newest: Vec<&Change> = Vec::with_capacity(changes.len());
    for change in changes {
        let value = |column: &String| {
            change.row.get(column).and_then(Value::text).ok_or_else(|| {
                Failure::Row(format!("the row {} has no value in its key `{column}`", change.row.to_json()))
            })
        };
        let of_row = key.iter().map(value).collect::<Result<Vec<_>, Failure>>()?;
        match places.get(&of_row) {
            Some(place) => newest[*place] = change,
            None => {
                places.insert(of_row, newest.len());
                newest.push(change);
            }
        }
    }
    Ok(newest)
}

/// Writes batches of a job's sink and notes in the same transaction that it did.
struct Commits {
    target: Target,
    dialect: Dialect,
    connection: Reconnecting,
    /// Job and sink.
    owner: [Value; 2],
    /// The table that notes is there.
    ready: bool,
}

impl Commits {
    fn new(target: Target, scope: &SinkScope) -> Result<Self> {
        let owner = [Value::Text(scope.job_id.clone()), Value::Text(scope.uid.clone())];
        let connection = Reconnecting::new(target.database.clone());
        Ok(Commits { dialect: target.check()?, target, connection, owner, ready: false })
    }

    fn prepare(&mut self) -> Result<()> {
        if self.ready {
            return Ok(());
        }
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {COMMITS} (job VARCHAR(64) NOT NULL, sink VARCHAR(255) NOT NULL, subtask BIGINT NOT NULL, \
             attempt BIGINT NOT NULL, epoch BIGINT NOT NULL, PRIMARY KEY (job, sink, subtask))"
        );
        // Somebody without the right to make tables may still use one that is there.
        let there = format!("SELECT 1 FROM {COMMITS} WHERE 1 = 0");
        self.connection
            .with(|connection| match connection.query(&there, &[]) {
                Ok(_) => Ok(()),
                // Another job may make it at the same time.
                Err(_) => {
                    connection.run(&sql).or_else(|failure| connection.query(&there, &[]).map(drop).map_err(|_| failure))
                }
            })
            .map_err(|failure| {
                failure
                    .told(&format!("cannot make the table `{COMMITS}` in"), &self.target.database)
                    .hint(format!("let an administrator make it: {sql}"))
            })?;
        self.ready = true;
        Ok(())
    }
}

impl WriteRows<Change> for Commits {
    fn write(&mut self, batch: BatchId, rows: &[Change]) -> Result<()> {
        self.prepare()?;
        let columns = ["job", "sink", "subtask", "attempt", "epoch"];
        let key = ["job", "sink", "subtask"].map(String::from);
        let sql = self.dialect.insert(COMMITS, &columns, &key, 1);
        let numbers = [u64::from(batch.subtask), batch.attempt, batch.epoch].map(|number| Value::Int(number as i64));
        let [job, sink] = &self.owner;
        let [subtask, attempt, epoch] = &numbers;
        let (target, dialect) = (&self.target, self.dialect);
        self.connection
            .with(|connection| {
                apply(connection, dialect, target, rows, |connection| {
                    connection.execute(&sql, &[job, sink, subtask, attempt, epoch])
                })
            })
            .map_err(|failure| failure.told(&format!("cannot write to table `{}` of", target.table), &target.database))
    }
}

impl CommitLog for Commits {
    fn is_written(&mut self, batch: BatchId) -> Result<bool> {
        self.prepare()?;
        let place = |number| self.dialect.parameter(number);
        let sql = format!(
            "SELECT attempt, epoch FROM {COMMITS} WHERE job = {} AND sink = {} AND subtask = {}",
            place(1),
            place(2),
            place(3)
        );
        let [job, sink] = &self.owner;
        let subtask = Value::Int(i64::from(batch.subtask));
        let rows = self
            .connection
            .with(|connection| connection.query(&sql, &[job, sink, &subtask]))
            .map_err(|failure| failure.told(&format!("cannot read the table `{COMMITS}` of"), &self.target.database))?;
        Ok(rows.iter().any(|row| match row.as_slice() {
            [Value::Int(attempt), Value::Int(epoch)] => {
                (batch.attempt as i64, batch.epoch as i64) <= (*attempt, *epoch)
            }
            _ => false,
        }))
    }

    /// Stands there already: the rows' transaction noted it.
    fn written(&mut self, _: BatchId) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(id: i64, amount: i64, deletes: bool) -> Change {
        let row = Row(vec![("id".into(), Value::Int(id)), ("amount".into(), Value::Int(amount))]);
        Change { row, deletes }
    }

    #[test]
    fn of_each_key_the_last_change_counts() {
        let changes = [change(1, 1, false), change(2, 1, false), change(1, 2, true), change(2, 2, false)];
        let key = ["id".to_string()];
        assert_eq!(newest(&changes, &key), Ok(vec![&changes[2], &changes[3]]));
        assert_eq!(newest(&changes, &[]).map(|all| all.len()), Ok(4));
        let Err(Failure::Row(why)) = newest(&changes, &["name".to_string()]) else { panic!("a row without its key") };
        assert!(why.contains("no value in its key `name`"), "{why}");
    }

    #[test]
    fn changes_without_a_key_are_refused() {
        let sink = DatabaseSink::<(RowKind, BTreeMap<String, i64>)>::changelog("sqlite:x.db", "t");
        assert!(sink.target.check().unwrap_err().to_string().contains("need a key"));
        assert!(sink.key(["id"]).target.check().is_ok());
    }
}
