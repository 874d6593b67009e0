//! What the databases have in common: where one is, a connection to it, and what its failures mean.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_core::{Error, Result};

use super::statements::Dialect;
use super::value::Value;
use super::{mysql, postgres, sqlite};

/// How long connecting may take before it is tried again.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what was sent may stay unacknowledged before the connection is given up.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many prepared statements a connection keeps.
pub(super) const STATEMENTS_MAX: usize = 64;

/// Where a database is: a URL.
///
/// | database | URL |
/// |---|---|
/// | Postgres | `postgres://user:password@host:5432/database`, with `?sslmode=require` for TLS |
/// | MySQL, MariaDB | `mysql://user:password@host:3306/database`, with `?ssl-mode=required` for TLS |
/// | SQLite | `sqlite:folder/file.db` |
///
/// With TLS the server's certificate is always checked: for Postgres by the authorities the machine believes, for MySQL by
/// those of Mozilla, or for both by [`Database::authority`].
#[derive(Clone)]
pub struct Database {
    pub(super) url: String,
    pub(super) authority: Option<PathBuf>,
}

impl Database {
    /// The database at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Database { url: url.into(), authority: None }
    }

    /// The authority whose certificates count, a file in PEM form.
    pub fn authority(mut self, file: impl AsRef<Path>) -> Self {
        self.authority = Some(file.as_ref().to_path_buf());
        self
    }

    /// The URL without what may be secret.
    pub(super) fn title(&self) -> String {
        let (scheme, rest) = self.url.split_once(':').unwrap_or(("database", &self.url));
        let place = rest.split('?').next().unwrap_or_default();
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        format!("{scheme} `{}`", if scheme == "sqlite" { place } else { place.trim_start_matches('/') })
    }

    /// The words of its SQL.
    pub(super) fn dialect(&self) -> Result<Dialect> {
        match self.url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => Ok(Dialect::Postgres),
            Some("mysql" | "mariadb") => Ok(Dialect::MySql),
            Some("sqlite") => Ok(Dialect::Sqlite),
            _ => Err(Error::input("the URL of a database begins with none of postgres:, mysql:, sqlite:").hint(
                "write postgres://user:password@host:5432/database, mysql://user:password@host:3306/database, or sqlite:file.db",
            )),
        }
    }

    /// A connection.
    pub(super) fn connect(&self) -> Result<Box<dyn Connection>, Failure> {
        match self.dialect().map_err(|error| Failure::Final(error.to_string()))? {
            Dialect::Postgres => postgres::connect(self),
            Dialect::MySql => mysql::connect(self),
            Dialect::Sqlite => sqlite::connect(self),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title())
    }
}

impl<U: Into<String>> From<U> for Database {
    fn from(url: U) -> Self {
        Database::new(url)
    }
}

/// Why something did not come to pass, in words.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Failure {
    /// It may next time: no connection, a deadlock, a server that starts.
    Passing(String),
    /// It may when there is room.
    Full(String),
    /// The values of a row do not fit: too long, no number, a key that refers to nothing.
    Row(String),
    /// It will not, whatever the row: a wrong password, a table that is not there.
    Final(String),
}

impl Failure {
    /// As an error of the job. `doing` is such as "cannot write to".
    pub(super) fn told(self, doing: &str, database: &Database) -> Error {
        let at = |why: String| format!("{doing} {}: {why}", database.title());
        match self {
            Failure::Passing(why) => Error::external(at(why)),
            Failure::Full(why) => Error::full(at(why)).hint("make room where the database is"),
            Failure::Row(why) | Failure::Final(why) => Error::input(at(why)),
        }
    }
}

/// What is done with one database.
pub(super) trait Connection: Send {
    /// A statement without parameters.
    fn run(&mut self, sql: &str) -> Result<(), Failure>;

    /// A statement with parameters; it is kept prepared.
    fn execute(&mut self, sql: &str, parameters: &[&Value]) -> Result<(), Failure>;

    /// The columns of a table or query, and how each is selected so that it can be read.
    fn columns(&mut self, relation: &str) -> Result<Vec<(String, String)>, Failure>;

    /// The rows of a query, as many values each as it selects.
    fn query(&mut self, sql: &str, parameters: &[&Value]) -> Result<Vec<Vec<Value>>, Failure>;
}

/// Does `work` in a transaction that begins with `begin`: all of it is there afterwards, or after an error nothing.
pub(super) fn in_transaction(
    connection: &mut dyn Connection,
    begin: &str,
    work: impl FnOnce(&mut dyn Connection) -> Result<(), Failure>,
) -> Result<(), Failure> {
    connection.run(begin)?;
    match work(connection).and_then(|()| connection.run("COMMIT")) {
        Ok(()) => Ok(()),
        Err(failure) => {
            // Without a connection it goes back by itself.
            let _ = connection.run("ROLLBACK");
            Err(failure)
        }
    }
}

/// A connection that is made when it is needed, and anew when it broke.
pub(super) struct Reconnecting {
    pub(super) database: Database,
    held: Option<Box<dyn Connection>>,
}

impl Reconnecting {
    pub(super) fn new(database: Database) -> Self {
        Reconnecting { database, held: None }
    }

    pub(super) fn with<R>(
        &mut self,
        work: impl FnOnce(&mut dyn Connection) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        if self.held.is_none() {
            self.held = Some(self.database.connect()?);
        }
        let Some(connection) = &mut self.held else { return Err(Failure::Passing("there is no connection".into())) };
        let done = work(&mut **connection);
        if matches!(done, Err(Failure::Passing(_))) {
            self.held = None;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_without_secrets() {
        let title = |url: &str| Database::new(url).title();
        assert_eq!(title("postgres://me:p@ss@host:5432/shop?password=x"), "postgres `host:5432/shop`");
        assert_eq!(title("sqlite:/data/shop.db"), "sqlite `/data/shop.db`");
        let error = Database::new("jdbc:mysql://host/shop").connect().err().unwrap();
        let Failure::Final(why) = error else { panic!("{error:?}") };
        assert!(why.contains("none of postgres:, mysql:, sqlite:"), "{why}");
    }
}
