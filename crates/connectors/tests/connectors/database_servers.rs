//! Databases of the tests' own: SQLite in a file; Postgres and MariaDB as processes on free loopback ports, in folders that go
//! with them, made anew for each test and stopped by their process ids.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use mysql::prelude::Queryable;
use postgres::SimpleQueryMessage;
use tempfile::TempDir;

use crate::free_port::free_port;

/// For the users `tidemill` of the servers.
pub const PASSWORD: &str = "p@ss/word";
/// The same, as it stands in a URL.
const PASSWORD_IN_URL: &str = "p%40ss%2Fword";

/// Debian's, which is on the path of root alone.
const MARIADB: &str = "/usr/sbin/mariadbd";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
    MariaDb,
}

pub struct Server {
    pub kind: Kind,
    folder: TempDir,
    port: u16,
    child: Mutex<Option<Child>>,
}

/// Does `test` with each database there is.
pub fn each(test: impl Fn(&Arc<Server>)) {
    for kind in [Kind::Sqlite, Kind::Postgres, Kind::MariaDb] {
        if let Some(server) = Server::start(kind) {
            eprintln!("with {kind:?}");
            test(&Arc::new(server));
        }
    }
}

/// Where Debian keeps the programs of Postgres, which are not on the path.
fn postgres_program(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|program| program.exists());
    found.sort();
    found.pop()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Server {
    /// `None`, with a line on standard error, where its programs are not installed.
    pub fn start(kind: Kind) -> Option<Server> {
        let missing = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => postgres_program("postgres").is_none().then_some("postgresql"),
            Kind::MariaDb => (!Path::new(MARIADB).exists()).then_some("mariadb-server"),
        };
        if let Some(package) = missing {
            eprintln!("SKIPPED: {package} is not installed, so nothing is tested with it");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let server = Server { kind, folder, port, child: Mutex::new(None) };
        server.prepare();
        server.restart();
        match kind {
            Kind::Sqlite => {}
            Kind::Postgres => {
                server.run(&format!("CREATE ROLE tidemill LOGIN PASSWORD '{PASSWORD}'"));
                server.run("GRANT ALL ON SCHEMA public TO tidemill; GRANT tidemill TO admin");
            }
            Kind::MariaDb => {
                server.run("CREATE DATABASE shop CHARACTER SET utf8mb4");
                server.run(&format!("CREATE USER tidemill IDENTIFIED BY '{PASSWORD}'"));
                server.run("GRANT ALL ON shop.* TO tidemill");
            }
        }
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn prepare(&self) {
        match self.kind {
            Kind::Sqlite => drop(rusqlite::Connection::open(self.data()).unwrap()),
            Kind::Postgres => {
                if is_root() {
                    run(Command::new("chown").arg("postgres").arg(self.folder.path()));
                }
                let mut initdb = self.postgres("initdb");
                initdb.args([
                    "--no-sync",
                    "--auth=scram-sha-256",
                    "--auth-local=trust",
                    "--username=admin",
                    "-E",
                    "UTF8",
                ]);
                run(initdb.arg("-D").arg(self.data()));
            }
            Kind::MariaDb => {
                let mut install = self.mariadb("mariadb-install-db");
                install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
                run(install.arg(format!("--datadir={}", self.data().display())).args(["--user", &user()]));
            }
        }
    }

    /// A program of MariaDB, with a folder of its own for what it puts aside: when one starts it deletes what it takes for left
    /// over there, also what belongs to another one that runs.
    fn mariadb(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("TMPDIR", self.folder.path());
        command
    }

    /// A program of Postgres, which refuses to be run by root.
    fn postgres(&self, name: &str) -> Command {
        let program = postgres_program(name).unwrap();
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command.current_dir(self.folder.path());
        command
    }

    /// Starts it, also after `kill`, and waits until it answers.
    pub fn restart(&self) {
        let spawn = || {
            let mut command = match self.kind {
                Kind::Sqlite => return None,
                Kind::Postgres => {
                    let mut command = self.postgres("postgres");
                    command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
                    command.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
                    if self.certificate().exists() {
                        command.args(["-c", "ssl=on", "-c", "ssl_cert_file=../server.pem"]);
                        command.args(["-c", "ssl_key_file=../server.key"]);
                    }
                    command
                }
                Kind::MariaDb => {
                    let mut command = self.mariadb(MARIADB);
                    command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
                    command.arg(format!("--datadir={}", self.data().display()));
                    command.arg(format!("--socket={}", self.folder.path().join("socket").display()));
                    command.arg(format!("--port={}", self.port)).args(["--user", &user()]);
                    if self.certificate().exists() {
                        command.arg(format!("--ssl-cert={}", self.certificate().display()));
                        command.arg(format!("--ssl-key={}", self.folder.path().join("server.key").display()));
                    }
                    command
                }
            };
            let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
            Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
        };
        crate::wait_until("the database answers", || {
            let mut child = self.child.lock().unwrap();
            // It ends at once while parts of a killed one are still there.
            if child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                *child = spawn();
            }
            self.kind == Kind::Sqlite || self.answers()
        });
    }

    fn answers(&self) -> bool {
        match self.kind {
            Kind::Sqlite => true,
            Kind::Postgres => self.admin_of_postgres().is_ok(),
            Kind::MariaDb => self.admin_of_mariadb().is_ok(),
        }
    }

    fn admin_of_postgres(&self) -> Result<postgres::Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host_path(self.folder.path()).port(self.port).user("admin").dbname("postgres");
        config.connect(postgres::NoTls)
    }

    fn admin_of_mariadb(&self) -> mysql::Result<mysql::Conn> {
        let socket = self.folder.path().join("socket").display().to_string();
        mysql::Conn::new(mysql::OptsBuilder::new().user(Some("root")).socket(Some(socket)))
    }

    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        match self.kind {
            Kind::Sqlite => format!("sqlite:{}", self.data().display()),
            Kind::Postgres => format!("postgres://tidemill:{PASSWORD_IN_URL}@127.0.0.1:{}/postgres", self.port),
            Kind::MariaDb => format!("mysql://tidemill:{PASSWORD_IN_URL}@127.0.0.1:{}/shop", self.port),
        }
    }

    /// Statements, as an administrator.
    pub fn run(&self, sql: &str) {
        match self.kind {
            Kind::Sqlite => rusqlite::Connection::open(self.data()).unwrap().execute_batch(sql).unwrap(),
            Kind::Postgres => {
                let mut client = self.admin_of_postgres().unwrap();
                let role = if sql.contains("ROLE") || sql.contains("GRANT") { "" } else { "SET ROLE tidemill; " };
                client.batch_execute(&format!("{role}{sql}")).unwrap();
            }
            Kind::MariaDb => {
                let mut client = self.admin_of_mariadb().unwrap();
                if !sql.contains("DATABASE") {
                    client.query_drop("USE shop").unwrap();
                }
                for statement in sql.split(';').filter(|statement| !statement.trim().is_empty()) {
                    client.query_drop(statement).unwrap();
                }
            }
        }
    }

    /// What a query gives, as text.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        match self.kind {
            Kind::Sqlite => {
                let client = rusqlite::Connection::open(self.data()).unwrap();
                let mut statement = client.prepare(sql).unwrap();
                let columns = statement.column_count();
                let text = |row: &rusqlite::Row<'_>, column| match row.get_ref(column).unwrap() {
                    rusqlite::types::ValueRef::Null => "NULL".to_string(),
                    rusqlite::types::ValueRef::Integer(value) => value.to_string(),
                    rusqlite::types::ValueRef::Real(value) => value.to_string(),
                    rusqlite::types::ValueRef::Text(value) => String::from_utf8_lossy(value).into_owned(),
                    rusqlite::types::ValueRef::Blob(value) => format!("{value:?}"),
                };
                let rows = statement.query_map([], |row| Ok((0..columns).map(|column| text(row, column)).collect()));
                rows.unwrap().map(Result::unwrap).collect()
            }
            Kind::Postgres => {
                let messages = self.admin_of_postgres().unwrap().simple_query(sql).unwrap();
                let rows = messages.iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                rows.map(|row| (0..row.len()).map(|column| row.get(column).unwrap_or("NULL").to_string()).collect())
                    .collect()
            }
            Kind::MariaDb => {
                let mut client = self.admin_of_mariadb().unwrap();
                client.query_drop("USE shop").unwrap();
                let rows: Vec<mysql::Row> = client.query(sql).unwrap();
                let text = |row: &mysql::Row, column| match row.as_ref(column).unwrap() {
                    mysql::Value::NULL => "NULL".to_string(),
                    mysql::Value::Bytes(text) => String::from_utf8_lossy(text).into_owned(),
                    other => other.as_sql(true),
                };
                rows.iter().map(|row| (0..row.len()).map(|column| text(row, column)).collect()).collect()
            }
        }
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    /// Begins to speak TLS with a certificate made out to `host`, and returns the file to believe it by.
    pub fn speak_tls(&self, host: &str) -> PathBuf {
        let made = rcgen::generate_simple_self_signed(vec![host.to_string()]).unwrap();
        let key = self.folder.path().join("server.key");
        fs::write(self.certificate(), made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        run(Command::new("chmod").arg("600").arg(&key));
        if is_root() && self.kind == Kind::Postgres {
            run(Command::new("chown").arg("postgres").arg(&key).arg(self.certificate()));
        }
        self.kill();
        self.restart();
        self.certificate()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Who runs the tests: MariaDB wants to be told when that is root.
fn user() -> String {
    if is_root() { "root".to_string() } else { std::env::var("USER").unwrap_or_default() }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
