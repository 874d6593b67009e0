//! What the benches share: medians and quantiles, processor time, and the programs they start.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;

#[path = "../../crates/connectors/tests/connectors/free_port.rs"]
mod free_port;

pub use free_port::free_port;

/// What ends a bench: it has no way on.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that a share of all does not exceed.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// A number on the command line.
pub fn number(at: usize, default: u64) -> u64 {
    std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Processor seconds of a process so far; its own with "self". Linux counts them in hundredths.
pub fn cpu_seconds(process: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory of a process, in MB of 10^6 bytes.
pub fn resident_mb(process: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("");
    let kib = line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN);
    kib * 1024.0 / 1e6
}

/// How busy the machine is besides: load over the last minute.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

/// A program that stands beside this bench.
pub fn beside(name: &str) -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        return Err(format!("there is no `{}`: build it with --release", path.display()).into());
    }
    Ok(path)
}

/// A client without limits of time.
pub fn agent() -> Agent {
    Agent::config_builder().proxy(None).http_status_as_error(true).build().new_agent()
}

/// A started program, interrupted and waited for in the end.
pub struct Program(Child);

impl Program {
    /// Starts it in silence.
    pub fn start(command: &mut Command) -> Result<Program, Failure> {
        Ok(Program(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }

    /// Its process id.
    pub fn id(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(id) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            // It has ended by itself when this fails.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::INT);
        }
        let _ = self.0.wait();
    }
}

/// Between two checkpoints, as `tidemill demo` has it.
pub const CHECKPOINT_INTERVAL_MS: u64 = 5_000;

/// A server with the order screen's job on it, in a folder of its own, and no load.
pub struct Screen {
    /// Its base address.
    pub url: String,
    /// The server's process.
    pub server: Program,
    job: String,
    // Dropped last.
    _data: tempfile::TempDir,
}

impl Screen {
    /// Starts `tidemill serve`, makes the topic `orders` and submits `order-screen` with these arguments.
    pub fn start(arguments: &[&str], checkpoint_interval_ms: u64) -> Result<Screen, Failure> {
        let (tidemill, order_screen, data) = (beside("tidemill")?, beside("order-screen")?, tempfile::tempdir()?);
        let programs = data.path().join("jobs-programs");
        std::fs::create_dir_all(&programs)?;
        std::fs::copy(&order_screen, programs.join("order-screen"))?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let mut serve = Command::new(tidemill);
        serve.arg("serve").arg("--data").arg(data.path()).args(["--listen", &listen]);
        let server = Program::start(&mut serve)?;
        let url = format!("http://{listen}");
        let agent = agent();
        until(Duration::from_secs(20), || agent.get(format!("{url}/healthz")).call().is_ok())?;
        agent.post(format!("{url}/api/topics")).send_json(json!({"name": "orders", "partitions": 4}))?;
        let arguments: Vec<&str> = ["--topic", "orders"].iter().chain(arguments).copied().collect();
        let spec = json!({"name": "order screen", "program": "order-screen", "args": arguments,
            "checkpoint_interval_ms": checkpoint_interval_ms});
        let answer: Value = agent.post(format!("{url}/api/jobs")).send_json(spec)?.body_mut().read_json()?;
        let job = answer["id"].as_str().unwrap_or_default().to_owned();
        let screen = Screen { url, server, job, _data: data };
        until(Duration::from_secs(20), || screen.detail().is_ok_and(|detail| !detail["vertices"][0].is_null()))?;
        Ok(screen)
    }

    /// What the server tells about the job.
    pub fn detail(&self) -> Result<Value, Failure> {
        Ok(agent().get(format!("{}/api/jobs/{}", self.url, self.job)).call()?.body_mut().read_json()?)
    }

    /// The job's process: the server's one child.
    pub fn job_process(&self) -> Result<String, Failure> {
        let tasks = format!("/proc/{}/task", self.server.id());
        let children = std::fs::read_dir(Path::new(&tasks))?
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
            .collect::<String>();
        children.split(' ').next().filter(|id| !id.is_empty()).map(str::to_owned).ok_or("the job has no process".into())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The job outlives the server by design; a job that has ended by itself is as good.
        let _ = agent().post(format!("{}/api/jobs/{}/cancel", self.url, self.job)).send_json(json!({}));
    }
}

/// Asks every few ms until it is so.
pub fn until(deadline: Duration, mut so: impl FnMut() -> bool) -> Result<(), Failure> {
    let begin = Instant::now();
    while !so() {
        if begin.elapsed() > deadline {
            return Err(format!("not within {} s", deadline.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
