//! Savepoints that are disposed of on request, each by a process `tidemill savepoint dispose`: what is in a savepoint, and
//! how an object store is spoken to, only the engine knows. How it went is remembered for a while, as Flink does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::{Error, Result, SharedClock};

/// Disposals that are remembered or under way.
const KEPT_MAX: usize = 1000;

/// How long a disposal that has ended is remembered.
const KEPT_MS: i64 = 300_000;

/// How a disposal stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposal {
    /// Not ended yet.
    InProgress,
    /// The savepoint is gone.
    Done,
    /// Why it is not.
    Failed(String),
}

/// All disposals.
pub struct Disposals {
    runner: PathBuf,
    clock: SharedClock,
    /// By id: how each stands, and since when.
    kept: Mutex<BTreeMap<String, (Disposal, i64)>>,
}

impl Disposals {
    /// None yet; `runner` is the program `tidemill`.
    pub fn new(runner: PathBuf, clock: SharedClock) -> Arc<Self> {
        Arc::new(Disposals { runner, clock, kept: Mutex::default() })
    }

    /// Begins to dispose of a savepoint; the id by which to ask how it went.
    pub fn begin(self: &Arc<Self>, place: String) -> Result<String> {
        let id = crate::random::hex32()?;
        let now_ms = self.clock.now_ms();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (state, since_ms)| *state == Disposal::InProgress || now_ms - *since_ms < KEPT_MS);
        if kept.len() >= KEPT_MAX {
            return Err(
                Error::full(format!("{KEPT_MAX} savepoints are being disposed of already")).hint("try again later")
            );
        }
        kept.insert(id.clone(), (Disposal::InProgress, now_ms));
        drop(kept);
        let (here, own) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let state = here.dispose(&place).await;
            let mut kept = here.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(own, (state, here.clock.now_ms()));
        });
        Ok(id)
    }

    /// How a disposal stands; `None` when it is not known (any more).
    pub fn state(&self, id: &str) -> Option<Disposal> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(id).map(|(state, _)| state.clone())
    }

    async fn dispose(&self, place: &str) -> Disposal {
        let mut command = tokio::process::Command::new(&self.runner);
        command.args(["savepoint", "dispose", "--", place]).stdin(Stdio::null()).stdout(Stdio::null());
        match command.output().await {
            Ok(output) if output.status.success() => Disposal::Done,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let line = said.lines().last().unwrap_or("it did not say why");
                Disposal::Failed(line.strip_prefix("error: ").unwrap_or(line).to_owned())
            }
            Err(e) => Disposal::Failed(Error::io(format!("start `{}`", self.runner.display()), e).to_string()),
        }
    }
}
