//! What the end of a process means for its job: the exit codes of the contract in `docs/reference/job-process.md`.

use super::model::JobState;
use super::process::{Exit, Outcome};

/// What somebody asked the job to do, which decides how an end is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing: run on.
    Run,
    /// End without a savepoint.
    Cancel,
    /// A savepoint to stop with is being taken; with drain the job is finished by it.
    Stop {
        /// Windows are fired and the job counts as finished.
        drain: bool,
    },
    /// The savepoint to stop with is complete.
    Stopped {
        /// As above.
        drain: bool,
    },
}

impl Wish {
    /// The state of a job that has ended as wished.
    pub fn ended_state(self) -> JobState {
        match self {
            Wish::Run | Wish::Stop { drain: true } | Wish::Stopped { drain: true } => JobState::Finished,
            Wish::Stop { drain: false } | Wish::Stopped { drain: false } => JobState::Suspended,
            Wish::Cancel => JobState::Canceled,
        }
    }
}

/// What an end means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The job has ended in this state, for this reason.
    Ended(JobState, Option<String>),
    /// It failed; the restart strategy decides.
    Failed(String),
}

/// Reads an end. `said` is the last error the process printed.
pub fn read(exit: Exit, wish: Wish, outcome: Option<&Outcome>, said: Option<String>) -> Ending {
    if wish == Wish::Cancel {
        return Ending::Ended(JobState::Canceled, None);
    }
    let state = outcome.map(|outcome| outcome.state.as_str());
    let message = outcome.and_then(|outcome| outcome.message.clone()).filter(|text| !text.is_empty()).or(said);
    let because = |what: String| match &message {
        Some(message) => message.clone(),
        None => what,
    };
    match (exit, state) {
        (Exit::Code(0) | Exit::Unknown, Some("SUSPENDED")) => Ending::Ended(JobState::Suspended, None),
        (Exit::Code(0) | Exit::Unknown, Some("FINISHED")) => Ending::Ended(JobState::Finished, None),
        (Exit::Code(130) | Exit::Unknown, Some("CANCELED")) | (Exit::Code(130), _) => {
            Ending::Ended(JobState::Canceled, None)
        }
        (Exit::Code(0), _) => Ending::Ended(wish.ended_state(), None),
        (Exit::Code(2), _) => {
            Ending::Ended(JobState::Failed, Some(because("the program refused its arguments (exit code 2)".into())))
        }
        (Exit::Code(101), _) => Ending::Failed(because("the process panicked (exit code 101)".into())),
        (Exit::Code(code), _) => Ending::Failed(because(format!("the process ended with code {code}"))),
        (Exit::Signal(signal), _) => {
            Ending::Failed(format!("the process was ended by signal {signal}{}", signal_name(signal)))
        }
        (Exit::Unknown, _) => Ending::Failed(because(
            "the process is gone; it was started by an earlier server, so its exit code is unknown".into(),
        )),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        6 => " (SIGABRT)",
        9 => " (SIGKILL: killed from outside, or out of memory)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(state: &str) -> Option<Outcome> {
        Some(Outcome { state: state.into(), message: Some(format!("why {state}")) })
    }

    #[test]
    fn every_exit_code_has_its_meaning() {
        let ended = |state| Ending::Ended(state, None);
        let stop = Wish::Stop { drain: false };
        let check = |exit, wish, written: Option<Outcome>, expected: Ending| {
            assert_eq!(read(exit, wish, written.as_ref(), None), expected, "{exit:?} {wish:?} {written:?}");
        };
        check(Exit::Code(0), Wish::Run, None, ended(JobState::Finished));
        check(Exit::Code(0), Wish::Run, outcome("SUSPENDED"), ended(JobState::Suspended));
        check(Exit::Code(0), stop, None, ended(JobState::Suspended));
        check(Exit::Code(0), Wish::Stop { drain: true }, None, ended(JobState::Finished));
        check(Exit::Code(130), Wish::Run, None, ended(JobState::Canceled));
        check(Exit::Signal(9), Wish::Cancel, None, ended(JobState::Canceled));
        check(Exit::Unknown, Wish::Run, outcome("FINISHED"), ended(JobState::Finished));
        check(Exit::Code(1), Wish::Run, outcome("FAILED"), Ending::Failed("why FAILED".into()));
        check(Exit::Code(101), Wish::Run, None, Ending::Failed("the process panicked (exit code 101)".into()));
        check(Exit::Code(2), Wish::Run, outcome("FAILED"), Ending::Ended(JobState::Failed, Some("why FAILED".into())));
        let said = read(Exit::Code(1), Wish::Run, None, Some("no topic".into()));
        assert_eq!(said, Ending::Failed("no topic".into()));
        assert!(matches!(read(Exit::Signal(9), stop, None, None), Ending::Failed(text) if text.contains("SIGKILL")));
    }
}
