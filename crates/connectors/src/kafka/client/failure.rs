//! Kafka's error codes in our errors, and trying again.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use tidemill_core::{Error, Kind, Result};

/// The first pause between two tries; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(4);

/// The longest pause between two tries.
const PAUSE_MOST: Duration = Duration::from_millis(500);

/// `Ok` for code 0; otherwise an error that says what was being done.
pub fn error_of(code: i16, doing: impl FnOnce() -> String) -> Result<()> {
    let Some(error) = ResponseError::try_from_code(code) else { return Ok(()) };
    let message = format!("cannot {}: Kafka says {error} ({code})", doing());
    Err(if retriable(error) {
        Error::external(message)
    } else {
        let error_of_kind = Error::input(message);
        match hint(error) {
            Some(hint) => error_of_kind.hint(hint),
            None => error_of_kind,
        }
    })
}

/// Whether `code` is `error`.
pub fn is_code(code: i16, errors: &[ResponseError]) -> bool {
    errors.iter().any(|error| error.code() == code)
}

fn retriable(error: ResponseError) -> bool {
    // Not marked so in the protocol, but each passes: an election, a broker that stops, a coordinator that loads.
    error.is_retriable() || matches!(error, ResponseError::UnknownServerError | ResponseError::ConcurrentTransactions)
}

fn hint(error: ResponseError) -> Option<&'static str> {
    Some(match error {
        ResponseError::TopicAuthorizationFailed
        | ResponseError::GroupAuthorizationFailed
        | ResponseError::ClusterAuthorizationFailed
        | ResponseError::TransactionalIdAuthorizationFailed => "give the user of this job the right to it",
        ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge => {
            "make the records smaller, or raise the topic's `max.message.bytes`"
        }
        _ => return None,
    })
}

/// Tries until it succeeds, fails for good, or `limit` has passed.
pub fn patiently<R>(limit: Duration, mut attempt: impl FnMut() -> Result<R>) -> Result<R> {
    let begin = Instant::now();
    let mut pause = PAUSE_FIRST;
    loop {
        match attempt() {
            Err(error) if error.kind() == Kind::External && begin.elapsed() + pause < limit => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MOST);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        let failed = |code| error_of(code, || "write to `t`".into()).expect_err("a code");
        assert!(error_of(0, String::new).is_ok());
        assert_eq!(failed(6).kind(), Kind::External);
        assert_eq!(failed(10).kind(), Kind::Input);
        assert!(failed(10).to_string().contains("cannot write to `t`: Kafka says MessageTooLarge (10); make"));
        assert_eq!(failed(51).kind(), Kind::External, "a transaction that is still ending");
        assert_eq!(failed(9999).kind(), Kind::Input);
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        let mut tries = 0;
        let mut attempt = |until: u32, error: Error| {
            tries = 0;
            patiently(Duration::from_secs(20), || {
                tries += 1;
                if tries == until { Ok(tries) } else { Err(error.clone()) }
            })
        };
        assert_eq!(attempt(3, Error::external("away")).expect("third time"), 3);
        assert!(attempt(3, Error::input("wrong")).is_err());
        assert_eq!(tries, 1);
        assert!(patiently(Duration::ZERO, || Err::<(), _>(Error::external("away"))).is_err());
    }
}
