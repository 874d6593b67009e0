//! SQLite, by `rusqlite`: the file is the database, and one writes at a time.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection as Client, Error, ErrorCode, OpenFlags, ToSql, params_from_iter};

use super::connection::{CONNECT_TIMEOUT, Connection, Database, Failure, STATEMENTS_MAX};
use super::statements::Dialect;
use super::value::Value;

pub(super) fn connect(database: &Database) -> Result<Box<dyn Connection>, Failure> {
    let path = database.url.split_once(':').map_or("", |(_, path)| path);
    // `sqlite:///a/b` names the file /a/b, as other programs write it.
    let path = path.strip_prefix("//").unwrap_or(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let client = Client::open_with_flags(path, flags).map_err(|error| failure(&error))?;
    client.busy_timeout(CONNECT_TIMEOUT).map_err(|error| failure(&error))?;
    client.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(Box::new(Sqlite { client }))
}

struct Sqlite {
    client: Client,
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Bool(value) => ValueRef::Integer((*value).into()),
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Float(value) => ValueRef::Real(*value),
            Value::Text(value) => ValueRef::Text(value.as_bytes()),
            Value::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

impl Connection for Sqlite {
    fn run(&mut self, sql: &str) -> Result<(), Failure> {
        self.client.execute_batch(sql).map_err(|error| failure(&error))
    }

    fn execute(&mut self, sql: &str, parameters: &[&Value]) -> Result<(), Failure> {
        let mut statement = self.client.prepare_cached(sql).map_err(|error| failure(&error))?;
        statement.execute(params_from_iter(parameters)).map(drop).map_err(|error| failure(&error))
    }

    fn columns(&mut self, relation: &str) -> Result<Vec<(String, String)>, Failure> {
        let statement =
            self.client.prepare(&format!("SELECT * FROM {relation} LIMIT 0")).map_err(|error| failure(&error))?;
        Ok(statement.column_names().map(|name| (name.to_string(), Dialect::Sqlite.name(name))).collect())
    }

    fn query(&mut self, sql: &str, parameters: &[&Value]) -> Result<Vec<Vec<Value>>, Failure> {
        let mut statement = self.client.prepare_cached(sql).map_err(|error| failure(&error))?;
        let columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(parameters)).map_err(|error| failure(&error))?;
        let mut read = Vec::new();
        while let Some(row) = rows.next().map_err(|error| failure(&error))? {
            let value = |column| match row.get_ref(column).map_err(|error| failure(&error))? {
                ValueRef::Null => Ok(Value::Null),
                ValueRef::Integer(value) => Ok(Value::Int(value)),
                ValueRef::Real(value) => Ok(Value::Float(value)),
                ValueRef::Text(value) => Ok(Value::Text(String::from_utf8_lossy(value).into_owned())),
                ValueRef::Blob(value) => Ok(Value::Bytes(value.to_vec())),
            };
            read.push((0..columns).map(value).collect::<Result<Vec<_>, Failure>>()?);
        }
        Ok(read)
    }
}

fn failure(error: &Error) -> Failure {
    let why = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::SystemIoFailure) => Failure::Passing(why),
        Some(ErrorCode::DiskFull) => Failure::Full(why),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => Failure::Row(why),
        _ => Failure::Final(why),
    }
}
