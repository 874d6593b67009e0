//! Tables of databases as the two ends of a pipeline, by their options.

use std::time::Duration;

use tidemill_connectors::database::{Database, DatabaseSink, DatabaseSource, Row, Value};
use tidemill_connectors::format::Csv;
use tidemill_core::format::Decode;
use tidemill_core::{Error, Result};

use super::Taken;
use super::records::{Checked, Record};

/// The URL, which an environment variable may hold, since it can have a password in it.
fn database(options: &mut Taken<'_>) -> Result<Database> {
    let url = match (options.optional("url"), options.optional("url.env")) {
        (Some(url), None) => url,
        (None, Some(name)) => std::env::var(&name)
            .map_err(|_| Error::input(format!("[{}] `database`: the variable `{name}` is not set", options.part)))?,
        _ => return Err(Error::input(format!("[{}] `database` needs either `url` or `url.env`", options.part))),
    };
    let database = Database::new(url);
    Ok(match options.optional("authority") {
        Some(file) => database.authority(file),
        None => database,
    })
}

fn names(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_string()).collect()
}

/// Which rows, and whether more are waited for.
pub(super) fn source(format: &Checked, options: &mut Taken<'_>) -> Result<DatabaseSource<Record>> {
    if !matches!(format, Checked::Json { .. }) {
        return Err(Error::input("[source] `database`: its rows are records of JSON").hint("leave `format` out"));
    }
    let database = database(options)?;
    let mut source = DatabaseSource::json(database, options.required("table")?, options.required("key")?);
    if let Some(filter) = options.optional("filter") {
        source = source.filter(filter);
    }
    if let Some(columns) = options.optional("select") {
        source = source.columns(names(&columns));
    }
    let follow_ms: u64 = options.parsed("follow_ms", 0)?;
    Ok(if follow_ms > 0 { source.follow(Duration::from_millis(follow_ms)) } else { source })
}

/// Where rows go, and how often each may come.
pub(super) fn sink(format: &Checked, options: &mut Taken<'_>) -> Result<DatabaseSink<Record>> {
    let columns = match format {
        Checked::Json { .. } => None,
        Checked::Csv { columns, .. } if !columns.is_empty() => Some(columns.clone()),
        _ => {
            return Err(Error::input("[sink] `database`: the records have no names to find columns by")
                .hint("take the format json or csv for the source, csv with `columns = \"id, name\"`"));
        }
    };
    let row = move |record: &Record| {
        let Some(columns) = &columns else { return Row::from_json(record).map_err(Error::input) };
        let values = Csv::<Vec<String>>::new().decode(record).map_err(Error::input)?;
        Ok(Row(columns.iter().cloned().zip(values.into_iter().map(Value::Text)).collect()))
    };
    let mut sink = DatabaseSink::rows(database(options)?, options.required("table")?, row);
    if let Some(key) = options.optional("key") {
        sink = sink.key(names(&key));
    }
    match options.optional("delivery").as_deref() {
        None | Some("at-least-once") => Ok(sink),
        Some("exactly-once") => Ok(sink.exactly_once()),
        Some(other) => Err(Error::input(format!("[sink] `database`: `delivery` cannot be `{other}`"))
            .hint("take at-least-once or exactly-once")),
    }
}
