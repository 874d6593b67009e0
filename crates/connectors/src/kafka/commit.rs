//! The second phase: transactions are committed by their tokens, and what an earlier start left open is aborted.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_core::metrics::{Counter, SharedMetrics};
use tidemill_core::sink::{Committer, Token};
use tidemill_core::{Error, Result};

use super::client::{Cluster, Committed, Producer, Transactions, patiently};
use super::security::Access;

/// How long one commit is tried before its error is told; whoever asked then tries again, or fails the job.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);

/// The version a token begins with.
const TOKEN_VERSION: u8 = 1;

/// A transaction whose records are all in Kafka and only wait for its commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreCommitted {
    pub transactional_id: String,
    pub producer: Producer,
}

impl PreCommitted {
    pub fn token(&self) -> Result<Token> {
        let mut token = vec![TOKEN_VERSION];
        serde_json::to_writer(&mut token, self)
            .map_err(|error| Error::bug(format!("a transaction does not become a token: {error}")))?;
        Ok(token)
    }

    pub fn of(token: &[u8]) -> Result<PreCommitted> {
        match token.split_first() {
            Some((&TOKEN_VERSION, rest)) => serde_json::from_slice(rest)
                .map_err(|error| Error::corrupt(format!("a token of a Kafka sink cannot be read: {error}"))),
            first => Err(Error::corrupt(format!(
                "a token of a Kafka sink begins with {:?}, and only version {TOKEN_VERSION} is known",
                first.map(|(version, _)| version)
            ))),
        }
    }
}

/// The name of a subtask's transaction number `number`. Each transaction has its own for ever: what became of it can be
/// asked at any time, and no start of the job is in the way of another.
pub fn transactional_id(prefix: &str, attempt: u64, subtask: usize, number: u64) -> String {
    format!("{prefix}-{attempt}-{subtask}-{number}")
}

/// Whether a transactional id is one of [`transactional_id`] with this prefix, and not with a longer one.
fn has_prefix(transactional_id: &str, prefix: &str) -> bool {
    let Some(rest) = transactional_id.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')) else {
        return false;
    };
    let numbers: Vec<&str> = rest.split('-').collect();
    numbers.len() == 3 && numbers.iter().all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Commits tokens; see [`tidemill_core::sink`].
pub struct KafkaCommitter {
    cluster: Cluster,
    skip_lost: bool,
    committed: Counter,
    aborted: Counter,
}

impl KafkaCommitter {
    /// `skip_lost`: a transaction that is gone is no error.
    pub(super) fn new(access: &Access, skip_lost: bool, metrics: &SharedMetrics) -> Result<KafkaCommitter> {
        Ok(KafkaCommitter {
            cluster: Cluster::new(access)?,
            skip_lost,
            committed: metrics.counter("transactionsCommitted"),
            aborted: metrics.counter("transactionsAborted"),
        })
    }

    /// Aborts every open transaction with this prefix: nobody holds a token for them. Whoever still writes in one is fenced.
    pub fn abort_left_over(&mut self, prefix: &str) -> Result<()> {
        let cluster = &mut self.cluster;
        let open = patiently(COMMIT_PATIENCE, || Transactions(cluster).open(|id| has_prefix(id, prefix)))?;
        for transactional_id in open {
            // Comes back only when the transaction has ended; its timeout does not matter any more.
            patiently(COMMIT_PATIENCE, || Transactions(cluster).take_over(&transactional_id, 60_000))?;
            self.aborted.inc();
        }
        Ok(())
    }

    /// Refuses a transaction timeout that brokers would refuse later.
    pub fn check_timeout(&mut self, timeout_ms: i32) -> Result<()> {
        const MAXIMUM: &str = "transaction.max.timeout.ms";
        let cluster = &mut self.cluster;
        let most = patiently(COMMIT_PATIENCE, || cluster.broker_setting(MAXIMUM))?;
        // Who may not see the setting hears of it from the broker when the first transaction begins.
        match most.and_then(|most| most.parse::<i32>().ok()) {
            Some(most) if timeout_ms > most => Err(Error::input(format!(
                "the transaction timeout of {timeout_ms} ms is longer than the brokers allow (`{MAXIMUM}` is {most})"
            ))
            .hint("shorten it, or raise the brokers' maximum")),
            _ => Ok(()),
        }
    }
}

impl Committer for KafkaCommitter {
    fn commit(&mut self, tokens: &[Token]) -> Result<()> {
        for token in tokens {
            let PreCommitted { transactional_id, producer } = PreCommitted::of(token)?;
            let cluster = &mut self.cluster;
            let mut commit =
                || patiently(COMMIT_PATIENCE, || Transactions(cluster).commit(&transactional_id, producer));
            // The first answer says that it is decided. The second comes when that is written behind the records, so that
            // readers see them: until then Kafka says that the transaction is still ending.
            match commit().and_then(|_| commit())? {
                Committed::Gone(error) if !self.skip_lost => return Err(error),
                Committed::Gone(_) => {}
                Committed::Done => self.committed.inc(),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_others_are_refused() {
        let committed =
            PreCommitted { transactional_id: transactional_id("a-b", 1, 2, 3), producer: Producer { id: 4, epoch: 5 } };
        let token = committed.token().expect("becomes one");
        assert_eq!(PreCommitted::of(&token).expect("reads"), committed);
        // A token of version 1 as it stands in checkpoints.
        assert_eq!(token, b"\x01{\"transactional_id\":\"a-b-1-2-3\",\"producer\":{\"id\":4,\"epoch\":5}}");
        for wrong in [&b""[..], b"\x02{}", b"\x01{}"] {
            assert_eq!(PreCommitted::of(wrong).expect_err("refused").kind(), tidemill_core::Kind::Corrupt);
        }
    }

    #[test]
    fn a_prefix_is_not_that_of_another_sink() {
        let id = transactional_id("orders", 3, 0, 17);
        assert!(has_prefix(&id, "orders"));
        assert!(!has_prefix(&id, "order") && !has_prefix(&id, "orders-3"));
        assert!(!has_prefix("orders-eu-3-0-17", "orders") && !has_prefix("orders-3-0-", "orders"));
    }
}
