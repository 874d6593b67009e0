//! Postgres, by `postgres`. What is written goes as text, which the server reads for whatever type a column has; what is
//! read comes as it is where a program has the type too, and as text elsewhere.

use std::collections::HashMap;
use std::error::Error as _;

use ::postgres::config::SslMode;
use ::postgres::error::{DbError, SqlState};
use ::postgres::types::{Format, FromSql, IsNull, ToSql, Type, private::BytesMut, to_sql_checked};
use ::postgres::{Client, Config, Error, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connection::{CONNECT_TIMEOUT, Connection, Database, Failure, SILENCE_TIMEOUT, STATEMENTS_MAX};
use super::statements::Dialect;
use super::value::Value;
use crate::authority::client_config;

pub(super) fn connect(database: &Database) -> Result<Box<dyn Connection>, Failure> {
    let mut config: Config = database.url.parse().map_err(|error: Error| Failure::Final(why(&error)))?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENCE_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("tidemill");
    }
    if database.authority.is_some() {
        config.ssl_mode(SslMode::Require);
    }
    // Where TLS is only preferred, a certificate nobody asked to be checked would keep the job from a server next door.
    let connected = if config.get_ssl_mode() == SslMode::Require {
        let tls = client_config(database.authority.as_deref()).map_err(|error| Failure::Final(error.to_string()))?;
        config.connect(MakeRustlsConnect::new(tls))
    } else {
        config.ssl_mode(SslMode::Disable).connect(NoTls)
    };
    let mut client = connected.map_err(|error| failure(&error))?;
    client.batch_execute("SET TIME ZONE 'UTC'; SET DateStyle = 'ISO'").map_err(|error| failure(&error))?;
    Ok(Box::new(Postgres { client, statements: HashMap::new() }))
}

struct Postgres {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Postgres {
    fn statement(&mut self, sql: &str) -> Result<Statement, Failure> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).map_err(|error| failure(&error))?;
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        self.statements.insert(sql.to_string(), statement.clone());
        Ok(statement)
    }
}

impl Connection for Postgres {
    fn run(&mut self, sql: &str) -> Result<(), Failure> {
        self.client.batch_execute(sql).map_err(|error| failure(&error))
    }

    fn execute(&mut self, sql: &str, parameters: &[&Value]) -> Result<(), Failure> {
        let statement = self.statement(sql)?;
        let parameters: Vec<AsText<'_>> = parameters.iter().map(|value| AsText(value)).collect();
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
        self.client.execute(&statement, &parameters).map(drop).map_err(|error| failure(&error))
    }

    fn columns(&mut self, relation: &str) -> Result<Vec<(String, String)>, Failure> {
        let statement =
            self.client.prepare(&format!("SELECT * FROM {relation} LIMIT 0")).map_err(|error| failure(&error))?;
        let column = |column: &::postgres::Column| {
            let name = Dialect::Postgres.name(column.name());
            let selected = if is_read_as_it_is(column.type_()) { name } else { format!("{name}::text") };
            (column.name().to_string(), selected)
        };
        Ok(statement.columns().iter().map(column).collect())
    }

    fn query(&mut self, sql: &str, parameters: &[&Value]) -> Result<Vec<Vec<Value>>, Failure> {
        let statement = self.statement(sql)?;
        let parameters: Vec<AsText<'_>> = parameters.iter().map(|value| AsText(value)).collect();
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
        let rows = self.client.query(&statement, &parameters).map_err(|error| failure(&error))?;
        let value = |row: &::postgres::Row, column| {
            row.try_get::<_, Option<Value>>(column)
                .map(|value| value.unwrap_or(Value::Null))
                .map_err(|error| Failure::Final(why(&error)))
        };
        rows.iter().map(|row| (0..row.len()).map(|column| value(row, column)).collect()).collect()
    }
}

/// Types that [`Value`] has too.
fn is_read_as_it_is(kind: &Type) -> bool {
    [
        Type::BOOL,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::TEXT,
        Type::VARCHAR,
        Type::BPCHAR,
        Type::NAME,
        Type::BYTEA,
    ]
    .contains(kind)
}

impl FromSql<'_> for Value {
    fn from_sql(kind: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match *kind {
            Type::BOOL => Value::Bool(bool::from_sql(kind, raw)?),
            Type::INT2 => Value::Int(i16::from_sql(kind, raw)?.into()),
            Type::INT4 => Value::Int(i32::from_sql(kind, raw)?.into()),
            Type::INT8 => Value::Int(i64::from_sql(kind, raw)?),
            // By its own digits, as in `write`.
            Type::FLOAT4 => Value::Float(f32::from_sql(kind, raw)?.to_string().parse()?),
            Type::FLOAT8 => Value::Float(f64::from_sql(kind, raw)?),
            Type::BYTEA => Value::Bytes(raw.to_vec()),
            _ => Value::Text(std::str::from_utf8(raw)?.to_string()),
        })
    }

    fn accepts(kind: &Type) -> bool {
        is_read_as_it_is(kind)
    }
}

/// A value as the server reads it from text, for a column of any type.
#[derive(Debug)]
struct AsText<'a>(&'a Value);

impl ToSql for AsText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Text(text) => out.extend_from_slice(text.as_bytes()),
            other => out.extend_from_slice(other.to_string().as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// All that is known of an error: the driver's own words leave out the reason.
fn why(error: &Error) -> String {
    let Some(told) = error.as_db_error() else {
        return match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
    };
    let detail = told.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let hint = told.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{}{detail}{hint} [{}]", told.message(), told.code().code())
}

fn failure(error: &Error) -> Failure {
    match error.as_db_error() {
        Some(told) => meaning(told)(why(error)),
        // What TLS and the settings refuse is known before anything was sent.
        None if error.to_string().contains("TLS") || error.to_string().contains("configuration") => {
            Failure::Final(why(error))
        }
        // The parameters do not fit, which is about a row.
        None if error.to_string().contains("serializing parameter") => Failure::Row(why(error)),
        None => Failure::Passing(why(error)),
    }
}

/// What an SQLSTATE means: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn meaning(told: &DbError) -> fn(String) -> Failure {
    let code = told.code();
    if *code == SqlState::DISK_FULL || *code == SqlState::OUT_OF_MEMORY {
        return Failure::Full;
    }
    let class = code.code().get(..2).unwrap_or_default();
    // A server that only answers for now: read-only as a standby is, locked, starting, going down.
    let passing = [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED];
    match class {
        "08" | "40" | "53" | "57" | "58" => Failure::Passing,
        "22" | "23" | "44" => Failure::Row,
        _ if passing.contains(code) => Failure::Passing,
        _ => Failure::Final,
    }
}
