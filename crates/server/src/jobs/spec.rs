//! What a user asks for when submitting a job, with every bound on it checked in one place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_core::slots::SlotDemand;
use tidemill_core::{Error, Result};
use utoipa::ToSchema;

use super::checkpoints::{CheckpointSpec, ClaimMode, is_url};
use super::restart::RestartStrategy;
use crate::agents::place::Wanted;

/// A job as it is submitted. Unknown fields are refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// The name shown to people; default: the one that program or job file give themselves, before that is known the file's.
    #[serde(default)]
    pub name: String,
    /// A file name in the server's jobs folder: an executable, or a `.toml` job file.
    pub program: String,
    /// Arguments of the program.
    #[serde(default)]
    pub args: Vec<String>,
    /// Parallelism of operators that say nothing; default: the number of cores.
    #[serde(default)]
    pub parallelism: Option<usize>,
    /// Adaptive: where there is no room for `parallelism`, the job runs with less, but not with less than this.
    /// Wants `parallelism`.
    #[serde(default)]
    pub parallelism_min: Option<usize>,
    /// Reactive: the greatest parallelism all hosts have room for, whatever `parallelism` says.
    #[serde(default)]
    pub reactive: bool,
    /// Milliseconds between checkpoints; default: the job's own, else 10000.
    #[serde(default)]
    pub checkpoint_interval_ms: Option<u64>,
    /// How the job checkpoints, beside the interval.
    #[serde(default)]
    pub checkpoints: CheckpointSpec,
    /// Where keyed state stands while the job runs: `memory` or `disk`; default: the job's own, else `memory`.
    #[serde(default)]
    pub state_backend: Option<String>,
    /// Memory for state on disk in each of the job's processes, in bytes; default: the job's own, else 512 MiB.
    #[serde(default)]
    pub state_memory_max_bytes: Option<u64>,
    /// One access in so many to the keyed state of functions is measured; default: the job's own, else none.
    #[serde(default)]
    pub state_latency_sample_interval: Option<u32>,
    /// A savepoint to start from when the job has no checkpoint of its own: its folder or URL.
    #[serde(default)]
    pub savepoint: Option<String>,
    /// Whose that savepoint is then; default: its owner's.
    #[serde(default)]
    pub claim_mode: Option<ClaimMode>,
    /// State of the savepoint that no operator of the job takes is left behind; default: an error that names it.
    #[serde(default)]
    pub allow_non_restored_state: bool,
    /// Further environment of the process.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What happens after a failure.
    #[serde(default)]
    pub restart: RestartStrategy,
}

impl JobSpec {
    /// The longest name, in characters.
    pub const NAME_CHARS_MAX: usize = 128;
    /// The most arguments.
    pub const ARGS_MAX: usize = 256;
    /// The longest argument or environment value, in bytes.
    pub const ARG_BYTES_MAX: usize = 32 * 1024;
    /// The most environment variables.
    pub const ENV_MAX: usize = 64;
    /// The most workers: the number of key groups.
    pub const PARALLELISM_MAX: usize = 32_768;
    /// The least memory for state on disk, in bytes.
    pub const STATE_MEMORY_MIN_BYTES: u64 = 1024 * 1024;

    /// What it wants on hosts with room: `cores` where it says nothing, and for each parallelism the slots it takes.
    pub fn wanted(&self, cores: usize, demand: SlotDemand) -> Wanted {
        let most = self.parallelism.unwrap_or(cores).max(1);
        match self.reactive {
            true => Wanted { least: 1, most: Self::PARALLELISM_MAX, demand },
            false => Wanted { least: self.parallelism_min.unwrap_or(most), most, demand },
        }
    }

    /// What of it a job's process is told by its environment (docs/reference/job-process.md).
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut all = self.checkpoints.environment();
        all.extend(self.parallelism.map(|workers| ("TIDEMILL_PARALLELISM", workers.to_string())));
        all.extend(
            self.checkpoint_interval_ms.map(|interval| ("TIDEMILL_CHECKPOINT_INTERVAL_MS", interval.to_string())),
        );
        all.extend(self.state_backend.clone().map(|backend| ("TIDEMILL_STATE_BACKEND", backend)));
        all.extend(self.state_memory_max_bytes.map(|bytes| ("TIDEMILL_STATE_MEMORY_MAX_BYTES", bytes.to_string())));
        let interval = self.state_latency_sample_interval;
        all.extend(interval.map(|interval| ("TIDEMILL_STATE_LATENCY_SAMPLE_INTERVAL", interval.to_string())));
        all.extend(self.savepoint.clone().map(|savepoint| ("TIDEMILL_SAVEPOINT", savepoint)));
        let claims = self.claim_mode.filter(|mode| *mode == ClaimMode::Claim);
        all.extend(claims.map(|_| ("TIDEMILL_CLAIM_MODE", "CLAIM".to_owned())));
        all.extend(self.allow_non_restored_state.then(|| ("TIDEMILL_ALLOW_NON_RESTORED_STATE", "true".to_owned())));
        all
    }

    /// Fills in the name and refuses what is out of bounds (`Kind::Input`). The program itself is looked for later.
    pub fn checked(mut self) -> Result<JobSpec> {
        if self.name.is_empty() {
            self.name = self.program.clone();
        }
        if self.name.chars().count() > Self::NAME_CHARS_MAX || self.name.chars().any(char::is_control) {
            return Err(Error::input("`name` must be at most 128 characters, none of them a control character"));
        }
        if self.args.len() > Self::ARGS_MAX {
            return Err(Error::input(format!("{} `args` are more than {}", self.args.len(), Self::ARGS_MAX)));
        }
        if self.env.len() > Self::ENV_MAX {
            return Err(Error::input(format!("{} variables in `env` are more than {}", self.env.len(), Self::ENV_MAX)));
        }
        let values = self.args.iter().chain(self.env.values()).chain(self.savepoint.iter());
        if values.clone().any(|value| value.len() > Self::ARG_BYTES_MAX || value.contains('\0')) {
            return Err(Error::input(
                "an argument or environment value is longer than 32768 bytes or holds a zero byte",
            ));
        }
        for name in self.env.keys() {
            check_env_name(name)?;
        }
        if self.parallelism.is_some_and(|workers| !(1..=Self::PARALLELISM_MAX).contains(&workers)) {
            return Err(Error::input(format!("`parallelism` must be from 1 to {}", Self::PARALLELISM_MAX)));
        }
        match (self.parallelism_min, self.parallelism) {
            (None, _) => {}
            (Some(_), None) => return Err(Error::input("`parallelism_min` wants `parallelism`, the most workers")),
            (Some(least), Some(most)) if least < 1 || least > most => {
                return Err(Error::input("`parallelism_min` must be from 1 to `parallelism`"));
            }
            (Some(_), Some(_)) if self.reactive => {
                return Err(Error::input("a job is either `reactive` or has `parallelism_min`"));
            }
            _ => {}
        }
        if self.checkpoint_interval_ms.is_some_and(|interval| !(1..=86_400_000).contains(&interval)) {
            return Err(Error::input("`checkpoint_interval_ms` must be from 1 to 86400000 (a day)"));
        }
        self.checkpoints.check()?;
        if self.state_backend.as_deref().is_some_and(|backend| !["memory", "disk"].contains(&backend)) {
            return Err(Error::input("`state_backend` must be `memory` or `disk`"));
        }
        if self.state_memory_max_bytes.is_some_and(|bytes| bytes < Self::STATE_MEMORY_MIN_BYTES) {
            return Err(Error::input(format!(
                "`state_memory_max_bytes` must be at least {}",
                Self::STATE_MEMORY_MIN_BYTES
            )));
        }
        if let Some(folder) = &self.savepoint
            && !is_url(folder)
            && !std::path::Path::new(folder).is_dir()
        {
            return Err(Error::input(format!("savepoint `{folder}` is not a folder"))
                .hint("give the path a stop or savepoint call answered"));
        }
        self.restart.check()?;
        Ok(self)
    }
}

/// Variables that could make a program run something else than itself, or that the server sets, are refused.
fn check_env_name(name: &str) -> Result<()> {
    const REFUSED: [&str; 8] =
        ["PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "GCONV_PATH", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS"];
    // How long processes of a job wait for each other; the server leaves these alone.
    const LEFT_TO_JOBS: [&str; 2] = ["TIDEMILL_PEER_TIMEOUT_MS", "TIDEMILL_START_TIMEOUT_MS"];
    const REFUSED_PREFIXES: [&str; 5] = ["TIDEMILL_", "LD_", "DYLD_", "PYTHON", "PERL5"];
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty() && name.len() <= 128;
    if !plain {
        return Err(Error::input(format!("`{}` in `env` is no variable name", name.escape_debug()))
            .hint("use letters, digits and `_`"));
    }
    if LEFT_TO_JOBS.contains(&name) {
        return Ok(());
    }
    let upper = name.to_ascii_uppercase();
    if REFUSED.contains(&upper.as_str()) || REFUSED_PREFIXES.iter().any(|prefix| upper.starts_with(prefix)) {
        return Err(Error::input(format!("variable `{name}` cannot be set in `env`"))
            .hint("it is set by the server, or could change which code runs"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let spec: JobSpec = serde_json::from_str(text).unwrap();
        spec.checked().unwrap_err().to_string()
    }

    #[test]
    fn a_spec_needs_a_program_only() {
        let spec: JobSpec = serde_json::from_str(r#"{"program":"orders"}"#).unwrap();
        let spec = spec.checked().unwrap();
        assert_eq!((spec.name.as_str(), spec.parallelism), ("orders", None));
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        assert!(refused(r#"{"program":"p","parallelism":0}"#).contains("parallelism"));
        assert!(refused(r#"{"program":"p","parallelism_min":2}"#).contains("wants `parallelism`"));
        assert!(refused(r#"{"program":"p","parallelism_min":3,"parallelism":2}"#).contains("from 1 to `parallelism`"));
        assert!(refused(r#"{"program":"p","env":{"LD_PRELOAD":"x"}}"#).contains("`LD_PRELOAD` cannot be set"));
        assert!(refused(r#"{"program":"p","env":{"TIDEMILL_DATA":"x"}}"#).contains("cannot be set"));
        let patient = r#"{"program":"p","env":{"TIDEMILL_PEER_TIMEOUT_MS":"3000"}}"#;
        assert!(serde_json::from_str::<JobSpec>(patient).unwrap().checked().is_ok());
        assert!(refused(r#"{"program":"p","env":{"a=b":"x"}}"#).contains("no variable name"));
        assert!(refused(r#"{"program":"p","savepoint":"/no/such/folder"}"#).contains("not a folder"));
        assert!(refused(r#"{"program":"p","restart":{"strategy":"exponential-delay","jitter":3}}"#).contains("jitter"));
        assert!(refused(r#"{"program":"p","checkpoint_interval_ms":0}"#).contains("checkpoint_interval_ms"));
        assert!(refused(r#"{"program":"p","checkpoints":{"retained":0}}"#).contains("`retained` of `checkpoints`"));
        assert!(refused(r#"{"program":"p","checkpoints":{"timeout_ms":0}}"#).contains("`timeout_ms`"));
        assert!(
            refused(r#"{"program":"p","checkpoints":{"dir":"here"}}"#).contains("`dir` of `checkpoints` is `here`")
        );
        let elsewhere = r#"{"program":"p","savepoint":"s3://b/s","checkpoints":{"dir":"s3://b/c"}}"#;
        assert!(serde_json::from_str::<JobSpec>(elsewhere).unwrap().checked().is_ok());
        assert!(refused(r#"{"program":"p","state_backend":"rocksdb"}"#).contains("`memory` or `disk`"));
        assert!(refused(r#"{"program":"p","state_memory_max_bytes":1000}"#).contains("at least 1048576"));
    }
}
