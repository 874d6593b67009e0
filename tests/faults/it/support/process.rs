//! Processes: started, found, killed; none outlives its test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{eventually, pause, programs};

/// A child that is killed when it is dropped.
pub struct Process(pub Child);

impl Process {
    pub fn start(command: &mut Command) -> Process {
        Process(command.spawn().unwrap())
    }

    /// Signal 9.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// The exit code, when it has ended; 9 for signal 9 comes as -9.
    pub fn ended(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.0.try_wait().unwrap()?;
        status.code().or(status.signal().map(|signal| -signal))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> i32 {
        eventually("the process ends", || self.ended().ok_or("it runs".to_string()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a program left that ran to its end.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn of(command: &mut Command) -> Done {
        let dir = super::folder();
        let file = |name: &str| std::fs::File::create(dir.path().join(name)).unwrap();
        let mut process = Process::start(command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")));
        let text = |name: &str| {
            String::from_utf8_lossy(&std::fs::read(dir.path().join(name)).unwrap_or_default()).into_owned()
        };
        let code = process.wait();
        Done { code, out: text("out"), err: text("err") }
    }

    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// It failed with this code, and its last line, the only one of its kind, is `error: …`: the rest of that line.
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        let errors = self.err.lines().filter(|line| line.starts_with("error: ")).count();
        let last = self.err.lines().last().and_then(|line| line.strip_prefix("error: "));
        assert_eq!(errors, 1, "{self:?}");
        last.unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

/// `tidemill` with nothing of our own environment that it listens to.
pub fn tidemill(args: &[&str]) -> Command {
    let mut command = clean(&programs::program("tidemill"));
    command.args(args);
    command
}

/// A program without our `TIDEMILL_*` variables.
pub fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMILL_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// The processes whose environment has this variable with this value: jobs of a test of ours.
pub fn with_variable(name: &str, value: &str) -> Vec<i32> {
    let wanted = format!("{name}={value}").into_bytes();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    };
    numbers.filter(ours).collect()
}

/// Halts a process, or lets it go on.
pub fn halt(number: i32, halted: bool) {
    let pid = Pid::from_raw(number).unwrap();
    kill_process(pid, if halted { Signal::STOP } else { Signal::CONT }).unwrap();
}

/// Signal 9, and waits until it is gone; one that is gone is no error.
pub fn kill(number: i32) {
    let Some(pid) = Pid::from_raw(number).filter(|pid| !pid.is_init()) else { return };
    let _ = kill_process(pid, Signal::KILL);
    eventually("the killed process is gone", || {
        // A dead process nobody has waited for has no memory any more, and so no environment.
        let gone = std::fs::read(format!("/proc/{number}/environ")).unwrap_or_default().is_empty();
        if gone { Ok(()) } else { Err(format!("process {number}")) }
    });
}

/// Kills all jobs over a data folder, also those that are being started.
pub fn kill_jobs_of(data: &Path) {
    let value = data.display().to_string();
    for _ in 0..50 {
        let jobs = with_variable("TIDEMILL_DATA", &value);
        if jobs.is_empty() {
            return;
        }
        jobs.into_iter().for_each(kill);
        pause(std::time::Duration::from_millis(5));
    }
}
