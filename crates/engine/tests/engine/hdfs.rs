//! Checkpoints in HDFS, against a real one (`scripts/hdfs.sh test`): a build of its own, with the feature `hdfs`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tidemill_engine::{Environment, JobSettings};

use crate::free_port::free_port;
use crate::recovery::{self, Crashes, Ledger};

/// A name node and a data node on loopback.
struct Hdfs {
    _folder: tempfile::TempDir,
    port: u16,
    /// It ends when the other end of its standard input is gone.
    _script: Child,
}

impl Hdfs {
    /// One for all; it ends with the process.
    fn shared() -> &'static Hdfs {
        static SHARED: OnceLock<Hdfs> = OnceLock::new();
        SHARED.get_or_init(Hdfs::start)
    }

    fn start() -> Hdfs {
        let folder = tempfile::Builder::new().prefix("tidemill-hdfs").tempdir().unwrap();
        let port = free_port().unwrap();
        let script = [env!("CARGO_MANIFEST_DIR"), "../../scripts/hdfs.sh"].iter().collect::<PathBuf>();
        let mut run = Command::new("bash");
        run.arg(script.canonicalize().unwrap()).arg("run").arg(folder.path()).arg(port.to_string());
        let mut script = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "HDFS did not start");
        Hdfs { _folder: folder, port, _script: script }
    }

    fn place(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("hdfs://127.0.0.1:{}/{path}", self.port))
    }
}

fn settings_of(path: &str, parallelism: usize) -> JobSettings {
    JobSettings {
        checkpoint_dir: Some(Hdfs::shared().place(path)),
        checkpoint_interval_ms: Some(20),
        parallelism: Some(parallelism),
        ..JobSettings::default()
    }
}

#[test]
fn crashes_and_savepoints_in_hdfs_lose_and_double_nothing() {
    let hdfs = Hdfs::shared();
    let expected = recovery::undisturbed();
    let settings = |folder: &Path, parallelism| settings_of(folder.file_name().unwrap().to_str().unwrap(), parallelism);
    let _folders =
        Crashes { seeds: 3, crashes_max: 4, parallelism_max: 3, settings }.survive(&expected, recovery::build);

    // A savepoint is restored by another job.
    let ledger = Ledger::default();
    let env = Environment::with_settings(settings_of("first", 2));
    recovery::build(&env, &ledger);
    let job = env.execute_async("first").unwrap();
    let savepoint = job.handle().savepoint(Some(hdfs.place("saved")), true, false).unwrap();
    job.wait().unwrap();
    assert!(savepoint.starts_with(hdfs.place("saved")), "{}", savepoint.display());
    let env = Environment::with_settings(JobSettings { restore_from: Some(savepoint), ..settings_of("second", 3) });
    recovery::build(&env, &ledger);
    env.execute("second").unwrap();
    assert_eq!(ledger.rows(), expected);
}
