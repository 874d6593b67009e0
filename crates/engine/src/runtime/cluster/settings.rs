//! Who the processes of a job are, and how long they wait for each other.

use std::fmt;
use std::path::Path;

use tidemill_core::{Error, Result};

/// A job has at most this many processes.
pub const PROCESSES_MAX: usize = 64;

/// The shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// What the processes of one job know and nobody else. Never sent; see `handshake`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret of at least 16 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(Error::input(format!("the join secret must have at least {SECRET_BYTES_MIN} characters"))
                .hint("make one with `openssl rand -hex 32`"));
        }
        Ok(Secret(bytes))
    }

    /// The secret in a file, without white space around it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::io(format!("read the join secret from `{}`", path.display()), e))?;
        Secret::new(text.trim()).map_err(|e| e.context(format!("`{}`", path.display())))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The processes of a job, as one of them sees it.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// This process, from 0. The first one coordinates.
    pub process: usize,
    /// `host:port` of every process, in order; this one's own among them.
    pub addresses: Vec<String>,
    /// Where this process listens; default: its own address.
    pub listen: Option<String>,
    /// What all of them know.
    pub secret: Secret,
    /// Which start of the job this is, the same in all processes: what is left of an earlier start is refused.
    pub generation: u64,
    /// Workers of each process; default: enough for the parallelism.
    pub workers: Option<usize>,
    /// What whoever has found room for the job has found; default: nobody has.
    pub room: Option<Room>,
    /// How long to wait until all processes are there; default 60 s.
    pub start_timeout_ms: i64,
    /// A process that is silent for so long is lost; default 20 s.
    pub peer_timeout_ms: u64,
    /// Whether connections between the processes are enciphered, by TLS 1.3; the same in all processes.
    pub tls: bool,
}

/// Room that was found for a start of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Slots of all processes together.
    pub slots: usize,
    /// The parallelism the room was found for.
    pub parallelism: usize,
}

impl Cluster {
    /// Process `process` of those at `addresses`, with the default deadlines.
    pub fn new(process: usize, addresses: Vec<String>, secret: Secret) -> Self {
        Cluster {
            process,
            addresses,
            listen: None,
            secret,
            generation: 0,
            workers: None,
            room: None,
            start_timeout_ms: 60_000,
            peer_timeout_ms: 20_000,
            tls: false,
        }
    }

    /// How many processes there are.
    pub fn processes(&self) -> usize {
        self.addresses.len()
    }

    /// A name for a process in messages: `process 1 (host:port)`.
    pub(crate) fn name(&self, process: usize) -> String {
        match self.addresses.get(process) {
            Some(address) => format!("process {process} ({address})"),
            None => format!("process {process}"),
        }
    }

    /// An error if these are no processes of a job.
    pub fn check(&self) -> Result<()> {
        let processes = self.processes();
        if !(1..=PROCESSES_MAX).contains(&processes) {
            return Err(Error::input(format!("a job has 1 to {PROCESSES_MAX} processes, not {processes}")));
        }
        if self.process >= processes {
            let process = self.process;
            return Err(Error::input(format!("process {process} of {processes}: the first process is 0")));
        }
        if let Some(address) = self.addresses.iter().find(|address| !address.contains(':')) {
            return Err(Error::input(format!("`{address}` is no address")).hint("write `host:port`"));
        }
        if self.peer_timeout_ms < 100 || self.start_timeout_ms < 100 {
            return Err(Error::input("deadlines of a job's processes have at least 100 ms"));
        }
        if self.workers.is_some_and(|workers| !(1..=crate::key::KEY_GROUPS as usize).contains(&workers)) {
            return Err(Error::input(format!("a process has 1 to {} workers", crate::key::KEY_GROUPS)));
        }
        Ok(())
    }

    /// From the `TIDEMILL_*` environment of a job process; `None` for a job of one process.
    pub fn from_environment(text: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| match text(name) {
            None => Ok(None),
            Some(value) => value
                .parse::<u64>()
                .ok()
                .filter(|value| i64::try_from(*value).is_ok())
                .map(Some)
                .ok_or_else(|| Error::input(format!("`{name}` is `{value}`, which is not a whole number"))),
        };
        let Some(addresses) = text("TIDEMILL_PROCESSES") else { return Ok(None) };
        let addresses: Vec<String> = addresses.split(',').map(|address| address.trim().to_string()).collect();
        let wanted = |name: &str| Error::input(format!("`TIDEMILL_PROCESSES` is set, but `{name}` is not"));
        let process = number("TIDEMILL_PROCESS")?.ok_or_else(|| wanted("TIDEMILL_PROCESS"))?;
        let file = text("TIDEMILL_SECRET_FILE").ok_or_else(|| wanted("TIDEMILL_SECRET_FILE"))?;
        let mut cluster = Cluster::new(process as usize, addresses, Secret::read(Path::new(&file))?);
        cluster.listen = text("TIDEMILL_PROCESS_LISTEN");
        cluster.generation = number("TIDEMILL_GENERATION")?.unwrap_or(0);
        cluster.workers = number("TIDEMILL_WORKERS")?.map(|workers| workers as usize);
        if let (Some(slots), Some(parallelism)) = (number("TIDEMILL_SLOTS")?, number("TIDEMILL_PARALLELISM")?) {
            cluster.room = Some(Room { slots: slots as usize, parallelism: parallelism as usize });
        }
        if let Some(ms) = number("TIDEMILL_START_TIMEOUT_MS")? {
            cluster.start_timeout_ms = ms as i64;
        }
        if let Some(ms) = number("TIDEMILL_PEER_TIMEOUT_MS")? {
            cluster.peer_timeout_ms = ms;
        }
        cluster.tls = match text("TIDEMILL_PROCESS_TLS").as_deref() {
            None | Some("" | "0") => false,
            Some("1") => true,
            Some(other) => {
                return Err(Error::input(format!("`TIDEMILL_PROCESS_TLS` is `{other}`")).hint("write 1, or nothing"));
            }
        };
        cluster.check()?;
        Ok(Some(cluster))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_with_clear_refusals() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let file = file.display().to_string();
        let read = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Cluster::from_environment(|name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
        };
        assert!(read(&[]).unwrap().is_none());
        let whole = [("TIDEMILL_PROCESSES", "a:1, b:2"), ("TIDEMILL_PROCESS", "1"), ("TIDEMILL_SECRET_FILE", &file)];
        let cluster = read(&whole).unwrap().unwrap();
        assert_eq!((cluster.process, cluster.addresses), (1, vec!["a:1".to_string(), "b:2".to_string()]));
        assert!(!format!("{:?}", cluster.secret).contains("0123"));
        for (change, said) in [
            (("TIDEMILL_PROCESS", "2"), "the first process is 0"),
            (("TIDEMILL_PROCESS", "x"), "not a whole number"),
            (("TIDEMILL_PROCESSES", "a,b"), "no address"),
            (("TIDEMILL_SECRET_FILE", "absent"), "read the join secret"),
        ] {
            let error = read(&[&[change], whole.as_slice()].concat()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        std::fs::write(folder.path().join("secret"), "short").unwrap();
        assert!(read(&whole).unwrap_err().to_string().contains("at least 16"));
    }
}
