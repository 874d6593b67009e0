//! Relational databases (Flink's JDBC connector): Postgres, MySQL and MariaDB, SQLite. One file each for what a database has
//! of its own; rows, statements, the sink and the source are the same for all.

mod connection;
mod mysql;
mod postgres;
mod sink;
mod source;
mod sqlite;
mod statements;
mod value;
mod write;

pub use self::connection::Database;
pub use self::sink::DatabaseSink;
pub use self::source::DatabaseSource;
pub use self::value::{Row, Value};
