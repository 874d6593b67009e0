//! MySQL and MariaDB, by `mysql`. Times are those of UTC, and what does not fit a column is refused, not cut.

use std::fmt::Write as _;

use ::mysql::consts::ColumnType;
use ::mysql::prelude::Queryable;
use ::mysql::{Column, Conn, DriverError, Error, Opts, OptsBuilder, Params, Row, SslOpts, Value as Wire};

use super::connection::{CONNECT_TIMEOUT, Connection, Database, Failure, SILENCE_TIMEOUT, STATEMENTS_MAX};
use super::statements::Dialect;
use super::value::Value;

/// The character set of bytes.
const BINARY: u16 = 63;

pub(super) fn connect(database: &Database) -> Result<Box<dyn Connection>, Failure> {
    let (url, tls) = options(&database.url);
    let options = Opts::from_url(&url).map_err(|error| Failure::Final(error.to_string()))?;
    let mut builder = OptsBuilder::from_opts(options)
        .tcp_connect_timeout(Some(CONNECT_TIMEOUT))
        .stmt_cache_size(STATEMENTS_MAX)
        // By the network, where the URL names a host: the socket of this machine may be another server's.
        .prefer_socket(false)
        .init(vec![
            "SET time_zone = '+00:00', sql_mode = CONCAT_WS(',', NULLIF(@@sql_mode, ''), 'STRICT_ALL_TABLES')"
                .to_string(),
        ]);
    if cfg!(target_os = "linux") {
        builder = builder.tcp_user_timeout_ms(Some(SILENCE_TIMEOUT.as_millis() as u32));
    }
    if let Some(authority) = &database.authority {
        builder = builder.ssl_opts(SslOpts::default().with_root_cert_path(Some(authority.clone())));
    } else if tls {
        builder = builder.ssl_opts(SslOpts::default());
    }
    let client = Conn::new(builder).map_err(|error| failure(&error))?;
    Ok(Box::new(MySql { client }))
}

/// The URL as the driver wants it, and whether it asks for TLS (`ssl-mode`, as MySQL's own tools call it).
fn options(url: &str) -> (String, bool) {
    let url = url.replacen("mariadb:", "mysql:", 1);
    let Some((place, query)) = url.split_once('?') else { return (url, false) };
    let (ours, theirs): (Vec<&str>, Vec<&str>) = query.split('&').partition(|part| part.starts_with("ssl-mode="));
    let tls = ours.iter().any(|part| !part.to_ascii_lowercase().ends_with("=disabled"));
    (if theirs.is_empty() { place.to_string() } else { format!("{place}?{}", theirs.join("&")) }, tls)
}

struct MySql {
    client: Conn,
}

fn to_wire(value: &Value) -> Wire {
    match value {
        Value::Null => Wire::NULL,
        Value::Bool(value) => Wire::Int((*value).into()),
        Value::Int(value) => Wire::Int(*value),
        Value::Float(value) => Wire::Double(*value),
        Value::Text(value) => Wire::Bytes(value.clone().into_bytes()),
        Value::Bytes(value) => Wire::Bytes(value.clone()),
    }
}

fn parameters(values: &[&Value]) -> Params {
    if values.is_empty() {
        Params::Empty
    } else {
        Params::Positional(values.iter().map(|value| to_wire(value)).collect())
    }
}

impl Connection for MySql {
    fn run(&mut self, sql: &str) -> Result<(), Failure> {
        self.client.query_drop(sql).map_err(|error| failure(&error))
    }

    fn execute(&mut self, sql: &str, values: &[&Value]) -> Result<(), Failure> {
        self.client.exec_drop(sql, parameters(values)).map_err(|error| failure(&error))
    }

    fn columns(&mut self, relation: &str) -> Result<Vec<(String, String)>, Failure> {
        let statement =
            self.client.prep(format!("SELECT * FROM {relation} LIMIT 0")).map_err(|error| failure(&error))?;
        let columns = statement.columns().iter().map(|column| column.name_str().into_owned()).collect::<Vec<_>>();
        let _ = self.client.close(statement);
        Ok(columns.into_iter().map(|name| (name.clone(), Dialect::MySql.name(&name))).collect())
    }

    fn query(&mut self, sql: &str, values: &[&Value]) -> Result<Vec<Vec<Value>>, Failure> {
        let rows: Vec<Row> = self.client.exec(sql, parameters(values)).map_err(|error| failure(&error))?;
        let read = |row: Row| {
            let columns = row.columns();
            row.unwrap_raw().into_iter().zip(columns.iter()).map(|(value, column)| from_wire(value, column)).collect()
        };
        Ok(rows.into_iter().map(read).collect())
    }
}

fn from_wire(value: Option<Wire>, column: &Column) -> Value {
    let kind = column.column_type();
    match value {
        None | Some(Wire::NULL) => Value::Null,
        Some(Wire::Int(value)) => Value::Int(value),
        Some(Wire::UInt(value)) => i64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Int),
        // By its own digits, as in `write`.
        Some(Wire::Float(value)) => Value::Float(value.to_string().parse().unwrap_or(f64::from(value))),
        Some(Wire::Double(value)) => Value::Float(value),
        Some(Wire::Date(year, month, day, hour, minute, second, micros)) => {
            let mut text = format!("{year:04}-{month:02}-{day:02}");
            if kind != ColumnType::MYSQL_TYPE_DATE {
                let _ = write!(text, " {hour:02}:{minute:02}:{second:02}");
                fraction(&mut text, micros);
            }
            Value::Text(text)
        }
        Some(Wire::Time(negative, days, hours, minutes, seconds, micros)) => {
            let sign = if negative { "-" } else { "" };
            let mut text = format!("{sign}{:02}:{minutes:02}:{seconds:02}", days * 24 + u32::from(hours));
            fraction(&mut text, micros);
            Value::Text(text)
        }
        Some(Wire::Bytes(bytes)) => {
            let is_text = column.character_set() != BINARY
                || matches!(
                    kind,
                    ColumnType::MYSQL_TYPE_DECIMAL | ColumnType::MYSQL_TYPE_NEWDECIMAL | ColumnType::MYSQL_TYPE_JSON
                );
            if is_text { Value::Text(String::from_utf8_lossy(&bytes).into_owned()) } else { Value::Bytes(bytes) }
        }
    }
}

/// The part of a second, where there is one.
fn fraction(text: &mut String, micros: u32) {
    if micros > 0 {
        let _ = write!(text, ".{micros:06}");
    }
}

fn failure(error: &Error) -> Failure {
    let Error::MySqlError(told) = error else {
        let why = match error {
            Error::IoError(error) => error.to_string(),
            Error::DriverError(error) => error.to_string(),
            other => other.to_string(),
        };
        return match error {
            Error::UrlError(_) | Error::TlsError(_) => Failure::Final(why),
            Error::DriverError(DriverError::TlsNotSupported | DriverError::UnknownAuthPlugin(_)) => Failure::Final(why),
            // The driver hides what TLS says behind errors of reading and writing.
            Error::IoError(_) | Error::CodecError(_) if why.contains("invalid peer certificate") => Failure::Final(why),
            Error::DriverError(DriverError::PacketTooLarge | DriverError::MismatchedStmtParams(..)) => {
                Failure::Row(why)
            }
            _ => Failure::Passing(why),
        };
    };
    let why = format!("{} [{}]", told.message, told.code);
    match told.code {
        // Too many connections, going down, locks, deadlocks, read-only for now, killed, starting.
        1040
        | 1053
        | 1077..=1079
        | 1158..=1161
        | 1203
        | 1205
        | 1213
        | 1290
        | 1317
        | 1792
        | 1836
        | 1927
        | 3024
        | 4031 => Failure::Passing(why),
        1021 | 1037 | 1038 | 1041 | 1114 => Failure::Full(why),
        // No default for a column the row leaves out; a value out of range; cut; not of the type.
        1048 | 1062 | 1136 | 1153 | 1264 | 1265 | 1292 | 1364 | 1366 | 1406 | 1411 | 1451 | 1452 | 3819 | 4025 => {
            Failure::Row(why)
        }
        _ if told.state.starts_with("22") || told.state.starts_with("23") => Failure::Row(why),
        _ if told.state.starts_with("08") => Failure::Passing(why),
        _ => Failure::Final(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_asked_for_in_the_words_of_mysql() {
        assert_eq!(options("mariadb://h/d"), ("mysql://h/d".to_string(), false));
        assert_eq!(options("mysql://h/d?ssl-mode=REQUIRED"), ("mysql://h/d".to_string(), true));
        assert_eq!(options("mysql://h/d?ssl-mode=disabled&a=b"), ("mysql://h/d?a=b".to_string(), false));
    }
}
