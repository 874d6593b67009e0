//! Runs a job here, without a server: its process, restarts after failures, and a polite end on Ctrl-C.

use std::time::{Duration, Instant};

use tidemill::engine::stream::NOBODY_READS;
use tidemill_core::{Clock, Error, Result, SystemClock};
use tidemill_server::jobs::control;
use tidemill_server::jobs::ending::{self, Ending, Wish};
use tidemill_server::jobs::model::JobState;
use tidemill_server::jobs::process::{Exit, Launch, Outcome, Running, retryable};
use tidemill_server::jobs::restart::Backoff;
use tidemill_server::random;
use tokio::sync::watch;

/// After a request to cancel the process has this long before it gets SIGTERM.
const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// After SIGTERM it has this long before it gets SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// Runs the job until it ends for good; its last state and why it failed. With `restarts` its restart strategy holds from
/// the beginning, else from its first checkpoint on.
pub async fn run(launch: &Launch, restarts: bool) -> Result<(JobState, Option<String>)> {
    let mut interrupted = interrupts()?;
    let mut backoff = Backoff::new(launch.spec.restart.clone());
    loop {
        let begun = Instant::now();
        let (wish, ending) = attempt(launch, &mut interrupted).await?;
        let why = match (wish, ending) {
            (_, Ending::Ended(state, why)) => return Ok((state, why)),
            (Wish::Cancel, Ending::Failed(_)) => return Ok((JobState::Canceled, None)),
            (_, Ending::Failed(why)) => why,
        };
        if why.contains(NOBODY_READS) || !(restarts || may_have_checkpoint(launch)) {
            return Ok((JobState::Failed, Some(why)));
        }
        let ran_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Some(delay_ms) = backoff.failed(SystemClock.now_ms(), ran_ms, random::unit()) else {
            return Ok((JobState::Failed, Some(why)));
        };
        tidemill_core::say(format_args!("job `{}` failed: {why}; starting again in {delay_ms} ms", launch.spec.name));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(delay_ms)) => {}
            () = wait_true(&mut interrupted) => return Ok((JobState::Canceled, None)),
        }
    }
}

/// Whether there is something to go on from. Of checkpoints that are elsewhere nobody here knows.
fn may_have_checkpoint(launch: &Launch) -> bool {
    let Ok(folders) = std::fs::read_dir(launch.dir.join("checkpoints")) else {
        return launch.spec.checkpoints.dir.is_some();
    };
    launch.spec.checkpoints.dir.is_some() || folders.flatten().any(|folder| folder.path().join("_metadata").exists())
}

async fn attempt(launch: &Launch, interrupted: &mut watch::Receiver<bool>) -> Result<(Wish, Ending)> {
    Outcome::remove(&launch.dir)?;
    let mut running = match Running::start(launch) {
        Ok(running) => running,
        Err(e) if retryable(&e) => return Ok((Wish::Run, Ending::Failed(e.to_string()))),
        Err(e) => return Err(e),
    };
    let (wish, exit) = tokio::select! {
        exit = running.wait() => (Wish::Run, exit),
        () = wait_true(interrupted) => (Wish::Cancel, cancel(launch, &mut running).await),
    };
    running.id().signal_group(rustix::process::Signal::KILL);
    Ok((wish, ending::read(exit, wish, Outcome::read(&launch.dir).as_ref(), None)))
}

async fn cancel(launch: &Launch, running: &mut Running) -> Exit {
    if control::cancel(&launch.dir).await.is_ok()
        && let Some(exit) = running.wait_for(CANCEL_GRACE).await
    {
        return exit;
    }
    running.end(TERM_GRACE).await
}

/// True from the first Ctrl-C or SIGTERM on.
pub fn interrupts() -> Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e| Error::io("watch for signals", e);
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        sender.send_replace(true);
        // Kept open: a receiver that asks later must still see it.
        sender.closed().await;
    });
    Ok(receiver)
}

/// Returns when it is true.
pub async fn wait_true(receiver: &mut watch::Receiver<bool>) {
    // The sender lives as long as a receiver does.
    let _ = receiver.wait_for(|value| *value).await;
}
