//! The source: the rows of a table or query in the order of a key, page by page, so that the key of the last row read is all
//! there is to remember; once to the end, or on and on as rows with greater keys come.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tidemill_core::source::{Boundedness, ReaderContext, Source, SourceReader, Split};
use tidemill_core::{DeadLetter, Error, NO_TIMESTAMP, Result};

use super::connection::{Database, Failure, Reconnecting};
use super::value::{Row, Value};
use crate::fetcher::{Emitter, Fetch, FetchReader, Fetched};

/// What the rows that are read from are called in queries.
const ROWS: &str = "tidemill_rows";

/// How many rows a query asks for unless the source says otherwise.
const PAGE_ROWS: usize = 1000;

/// The wait between two tries while the database is away.
const OUTAGE_PAUSE: Duration = Duration::from_secs(1);

/// So many tries in a row may fail before the job does.
const OUTAGE_TRIES_MAX: u32 = 60;

type Read<T> = Arc<dyn Fn(Row) -> Result<T, String> + Send + Sync>;

/// Reads a table, or what a query gives, in the order of a key: a column whose values are unique and which, for a source that
/// follows, grow with time. Exactly once: the last key is part of the checkpoint, and reading goes on behind it.
///
/// It reads no changes of rows already read, and none whose keys are smaller than what was read. Rows without a key are not read.
pub struct DatabaseSource<T> {
    database: Database,
    rows: Rows,
    page_rows: usize,
    follow: Option<Duration>,
    ranges: Vec<Range>,
    read: Read<T>,
}

/// Which rows.
#[derive(Clone)]
struct Rows {
    /// A table's name, or a query.
    from: Relation,
    key: String,
    filter: Option<String>,
    columns: Option<Vec<String>>,
}

#[derive(Clone)]
enum Relation {
    Table(String),
    Query(String),
}

/// Keys from one to, not including, another. The first and the last of all are open on the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    id: String,
    from: Option<i64>,
    to: Option<i64>,
}

impl<T: DeserializeOwned + 'static> DatabaseSource<T> {
    /// The rows of `table`, which may be named with its schema, in the order of the column `key`. A row becomes a `T` by the
    /// names of its columns.
    pub fn new(database: impl Into<Database>, table: impl Into<String>, key: impl Into<String>) -> Self {
        Self::of(database.into(), Relation::Table(table.into()), key.into(), Row::read)
    }

    /// The rows that a query gives, in the order of the column `key` of its result; it is asked as a part of others, so it ends
    /// without a semicolon.
    pub fn query(database: impl Into<Database>, query: impl Into<String>, key: impl Into<String>) -> Self {
        Self::of(database.into(), Relation::Query(query.into()), key.into(), Row::read)
    }
}

impl DatabaseSource<Row> {
    /// Rows as they are, for programs that learn the columns only when they run.
    pub fn rows(database: impl Into<Database>, table: impl Into<String>, key: impl Into<String>) -> Self {
        Self::of(database.into(), Relation::Table(table.into()), key.into(), Ok)
    }
}

impl DatabaseSource<Vec<u8>> {
    /// Rows as texts of JSON, an object each.
    pub fn json(database: impl Into<Database>, table: impl Into<String>, key: impl Into<String>) -> Self {
        Self::of(database.into(), Relation::Table(table.into()), key.into(), |row| Ok(row.to_json().into_bytes()))
    }
}

impl<T> DatabaseSource<T> {
    fn of(
        database: Database,
        from: Relation,
        key: String,
        read: impl Fn(Row) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        let rows = Rows { from, key, filter: None, columns: None };
        let all = Range { id: "all".to_string(), from: None, to: None };
        DatabaseSource { database, rows, page_rows: PAGE_ROWS, follow: None, ranges: vec![all], read: Arc::new(read) }
    }

    /// Only these columns; default all. The key is read in any case.
    pub fn columns(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.rows.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Only rows for which this condition, in the database's SQL, holds.
    pub fn filter(mut self, condition: impl Into<String>) -> Self {
        self.rows.filter = Some(condition.into());
        self
    }

    /// How many rows are asked for at once; default 1000.
    pub fn page_rows(mut self, rows: usize) -> Self {
        self.page_rows = rows.max(1);
        self
    }

    /// Goes on for ever, looking for rows with greater keys this often. A row is missed when it becomes visible after one with a
    /// greater key was read, as numbers from a sequence may in transactions side by side. Default: ends at the last row.
    pub fn follow(mut self, every: Duration) -> Self {
        self.follow = Some(every);
        self
    }

    /// Reads the table in so many parts at once, for keys that are whole numbers: parts of equal width from `lowest` to `highest`,
    /// the first and the last with whatever lies beyond (Flink's `scan.partition.*`). Not to be changed while there are checkpoints.
    /// Default: one part.
    pub fn parts(mut self, count: u32, lowest: i64, highest: i64) -> Self {
        let (count, lowest, highest) = (i128::from(count.max(1)), i128::from(lowest), i128::from(highest.max(lowest)));
        // Between two neighbours, in the middle of 64 bits by construction.
        let bound = |part: i128| (lowest + (highest - lowest + 1) * part / count) as i64;
        let inner = |part: i128| (0 < part && part < count).then(|| bound(part));
        self.ranges = (0..count)
            .map(|part| Range { id: format!("part-{part}-of-{count}"), from: inner(part), to: inner(part + 1) })
            .collect();
        self
    }

    fn title(&self) -> String {
        match &self.rows.from {
            Relation::Table(table) => format!("table `{table}` of {}", self.database.title()),
            Relation::Query(_) => format!("a query of {}", self.database.title()),
        }
    }
}

impl<T: Send + 'static> Source<T> for DatabaseSource<T> {
    fn name(&self) -> String {
        self.title()
    }

    fn boundedness(&self) -> Boundedness {
        if self.follow.is_some() { Boundedness::Unbounded } else { Boundedness::Bounded }
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let split = |(slot, range): (usize, &Range)| Split {
            id: range.id.clone(),
            slot: slot as u32,
            position: serde_json::Value::Null,
        };
        Ok(self.ranges.iter().enumerate().map(split).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<T>>> {
        self.database.dialect()?;
        let fetch = FetchRows {
            title: self.title(),
            connection: Reconnecting::new(self.database.clone()),
            rows: self.rows.clone(),
            ranges: self.ranges.clone(),
            page_rows: self.page_rows,
            follow: self.follow,
            read: Arc::clone(&self.read),
            parts: Vec::new(),
            paused: Vec::new(),
            selected: None,
            failures: 0,
        };
        Ok(Box::new(FetchReader::new(&self.title(), &context, fetch)))
    }
}

/// A part that is being read.
struct Part {
    index: usize,
    range: Range,
    /// The key of the last row.
    last: Option<Value>,
}

struct FetchRows<T> {
    title: String,
    connection: Reconnecting,
    rows: Rows,
    ranges: Vec<Range>,
    page_rows: usize,
    follow: Option<Duration>,
    read: Read<T>,
    /// Those not read to their ends.
    parts: Vec<Part>,
    paused: Vec<bool>,
    /// Names of columns, and the text of the query up to `WHERE`.
    selected: Option<(Vec<String>, String)>,
    /// Tries in a row that failed.
    failures: u32,
}

impl<T> FetchRows<T> {
    /// A page of a part, one row more than is emitted: two rows of one key would show.
    fn page(&mut self, at: usize) -> Result<Vec<Row>, Failure> {
        let dialect = self.connection.database.dialect().map_err(|error| Failure::Final(error.to_string()))?;
        let from = match &self.rows.from {
            Relation::Table(table) => format!("{} AS {ROWS}", dialect.table(table)),
            Relation::Query(query) => format!("({query}) AS {ROWS}"),
        };
        let Rows { key, filter, columns, .. } = &self.rows;
        let Part { range, last, .. } = &self.parts[at];
        let selected = &mut self.selected;
        self.connection.with(|connection| {
            if selected.is_none() {
                let all = connection.columns(&from)?;
                let missing =
                    columns.iter().flatten().chain([key]).find(|name| !all.iter().any(|(held, _)| held == *name));
                if let Some(name) = missing {
                    return Err(Failure::Final(format!("there is no column `{name}`")));
                }
                let wanted = |name: &String| name == key || columns.as_ref().is_none_or(|only| only.contains(name));
                let (names, expressions): (Vec<_>, Vec<_>) = all.into_iter().filter(|(name, _)| wanted(name)).unzip();
                *selected = Some((names, format!("SELECT {} FROM {from}", expressions.join(", "))));
            }
            let Some((names, select)) = selected else { return Ok(Vec::new()) };
            // The column itself: Postgres takes the bare name for what is selected, which may be its text.
            let name = format!("{ROWS}.{}", dialect.name(key));
            let (from, to) = (range.from.map(Value::Int), range.to.map(Value::Int));
            let mut values: Vec<&Value> = Vec::new();
            let mut conditions: Vec<String> = filter.iter().map(|filter| format!("({filter})")).collect();
            let mut compare = |comparison: &str, value| {
                values.push(value);
                conditions.push(format!("{name} {comparison} {}", dialect.parameter(values.len())));
            };
            match (last, &from) {
                (Some(last), _) => compare(">", last),
                (None, Some(from)) => compare(">=", from),
                (None, None) => {}
            }
            if let Some(to) = &to {
                compare("<", to);
            }
            if values.is_empty() {
                conditions.push(format!("{name} IS NOT NULL"));
            }
            let (conditions, limit) = (conditions.join(" AND "), self.page_rows + 1);
            let sql = format!("{select} WHERE {conditions} ORDER BY {name} LIMIT {limit}");
            let rows = connection.query(&sql, &values)?;
            Ok(rows.into_iter().map(|values| Row(names.iter().cloned().zip(values).collect())).collect())
        })
    }

    fn failed(&self, failure: Failure) -> Error {
        let doing = match &self.rows.from {
            Relation::Table(table) => format!("cannot read table `{table}` of"),
            Relation::Query(_) => "cannot run the query of".to_string(),
        };
        failure.told(&doing, &self.connection.database)
    }
}

impl<T: Send + 'static> Fetch for FetchRows<T> {
    type Value = T;
    type Position = Value;

    fn add_split(&mut self, index: usize, id: &str, position: Option<Value>) -> Result<()> {
        let range = self.ranges.iter().find(|range| range.id == id).cloned().ok_or_else(|| {
            Error::input(format!("{}: the checkpoint knows a part `{id}`, which the source has no more", self.title))
                .hint("give the source the `parts` it had, or begin without the checkpoint")
        })?;
        self.parts.push(Part { index, range, last: position });
        Ok(())
    }

    fn can_pause(&self) -> bool {
        true
    }

    fn pause_splits(&mut self, paused: &[bool]) {
        self.paused = paused.to_vec();
    }

    fn fetch(&mut self, out: &mut Emitter<T, Value>) -> Result<Fetched> {
        let mut more = false;
        let mut ended = Vec::new();
        for at in 0..self.parts.len() {
            let index = self.parts[at].index;
            if self.paused.get(index).copied().unwrap_or(false) {
                continue;
            }
            let mut page = match self.page(at) {
                Ok(page) => page,
                Err(Failure::Passing(_)) if self.failures < OUTAGE_TRIES_MAX => {
                    self.failures += 1;
                    self.parts.retain(|part| !ended.contains(&part.index));
                    return Ok(Fetched::Idle(OUTAGE_PAUSE));
                }
                Err(failure) => return Err(self.failed(failure)),
            };
            self.failures = 0;
            let full = page.len() > self.page_rows;
            let key = |row: &Row| row.get(&self.rows.key).cloned().unwrap_or(Value::Null);
            if let Some(pair) = page.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
                let text = format!("{}: two rows have the key {}", self.title, key(&pair[0]));
                return Err(Error::input(text).hint("read by a column whose values are unique"));
            }
            page.truncate(self.page_rows);
            for row in page {
                let (key, bytes) = (key(&row), row.bytes());
                let value = (self.read)(row.clone()).map_err(|why| {
                    DeadLetter::new(&self.title, format!("{} {key}", self.rows.key), why, row.to_json().as_bytes())
                });
                self.parts[at].last = Some(key.clone());
                if !out.push(index, NO_TIMESTAMP, value, bytes, key) {
                    return Ok(Fetched::Done);
                }
            }
            if !full && self.follow.is_none() {
                ended.push(index);
                if !out.finish(index) {
                    return Ok(Fetched::Done);
                }
            }
            more |= full;
        }
        self.parts.retain(|part| !ended.contains(&part.index));
        Ok(match self.follow {
            _ if more => Fetched::More,
            // Those that are left are paused: new pauses wake it.
            None => Fetched::Done,
            Some(every) => Fetched::Idle(every),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_meet_and_leave_nothing_out() {
        let source =
            |count, lowest, highest| DatabaseSource::rows("sqlite:x.db", "t", "id").parts(count, lowest, highest);
        let bounds = |source: DatabaseSource<Row>| source.ranges.iter().map(|r| (r.from, r.to)).collect::<Vec<_>>();
        assert_eq!(bounds(source(1, 1, 9)), [(None, None)]);
        assert_eq!(bounds(source(3, 1, 9)), [(None, Some(4)), (Some(4), Some(7)), (Some(7), None)]);
        let whole = bounds(source(2, i64::MIN, i64::MAX));
        assert_eq!(whole, [(None, Some(0)), (Some(0), None)]);
    }
}
