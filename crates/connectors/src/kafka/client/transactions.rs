//! Producer ids and transactions, said to their coordinators.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ListTransactionsRequest, ProducerId,
    TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

use super::cluster::{Cluster, topic_name};
use super::failure::{error_of, is_code};

/// What a broker knows a writer by. With a newer epoch of the same id every older one is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// The id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// What a commit came to.
#[derive(Debug)]
pub enum Committed {
    /// It is committed, now or since earlier.
    Done,
    /// It was aborted, and why that may be.
    Gone(Error),
}

/// States in which a transaction is open: it holds back those who read committed records only.
const OPEN_STATES: [&str; 2] = ["Ongoing", "PrepareEpochFence"];

/// The side of a cluster that is asked about transactions.
pub struct Transactions<'a>(pub &'a mut Cluster);

impl Transactions<'_> {
    /// A producer that only counts its batches, so that one sent twice is stored once.
    pub fn idempotent_producer(&mut self) -> Result<Producer> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        self.0.topics(Some(&[]))?;
        let Some(broker) = self.0.broker_ids().first().copied() else {
            return Err(Error::external("the Kafka cluster has no brokers now"));
        };
        let answer = self.0.call(broker, &request)?;
        error_of(answer.error_code, || "get a producer id".into())?;
        Ok(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch })
    }

    /// Takes over a transactional id: what was open under it is aborted, whoever holds it is fenced.
    pub fn take_over(&mut self, transactional_id: &str, timeout_ms: i32) -> Result<Producer> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id(transactional_id)))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let coordinator = self.0.transaction_coordinator(transactional_id)?;
        let answer = self.0.call(coordinator, &request)?;
        if is_code(answer.error_code, &[ResponseError::InvalidTransactionTimeout]) {
            return Err(Error::input(format!(
                "the transaction timeout of {timeout_ms} ms is longer than Kafka allows (`transaction.max.timeout.ms`)"
            ))
            .hint("shorten it, or raise the broker's maximum"));
        }
        error_of(answer.error_code, || format!("take over the transactional id `{transactional_id}`"))?;
        Ok(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch })
    }

    /// Says that partitions will be written to.
    pub fn add_partitions(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        partitions: &[(String, i32)],
    ) -> Result<()> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| {
                AddPartitionsToTxnTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
            })
            .collect();
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id(transactional_id))
            .with_v3_and_below_producer_id(ProducerId(producer.id))
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(topics);
        let coordinator = self.0.transaction_coordinator(transactional_id)?;
        let answer = self.0.call(coordinator, &request)?;
        for topic in &answer.results_by_topic_v3_and_below {
            for partition in &topic.results_by_partition {
                // Code 55: another partition of the request is the reason, and says so itself.
                if is_code(partition.partition_error_code, &[ResponseError::OperationNotAttempted]) {
                    continue;
                }
                let code = partition.partition_error_code;
                if is_code(code, &GONE) {
                    return Err(gone(code, transactional_id, "write in"));
                }
                error_of(code, || format!("write in the transaction `{transactional_id}`"))?;
            }
        }
        Ok(())
    }

    /// Commits a transaction. The second time changes nothing, also from another process.
    pub fn commit(&mut self, transactional_id: &str, producer: Producer) -> Result<Committed> {
        let request = EndTxnRequest::default()
            .with_transactional_id(id(transactional_id))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_committed(true);
        let coordinator = self.0.transaction_coordinator(transactional_id)?;
        let answer = self.0.call(coordinator, &request)?;
        if is_code(answer.error_code, &GONE) {
            return Ok(Committed::Gone(gone(answer.error_code, transactional_id, "commit")));
        }
        error_of(answer.error_code, || format!("commit the transaction `{transactional_id}`"))?;
        Ok(Committed::Done)
    }

    /// The transactional ids with an open transaction for which `ours` holds, on all brokers.
    pub fn open(&mut self, ours: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        self.0.topics(Some(&[]))?;
        let states = OPEN_STATES.iter().map(|state| StrBytes::from_static_str(state)).collect();
        let request = ListTransactionsRequest::default().with_state_filters(states);
        let mut open = Vec::new();
        for broker in self.0.broker_ids() {
            let answer = self.0.call(broker, &request)?;
            error_of(answer.error_code, || "list open transactions".into())?;
            let ids = answer.transaction_states.iter().map(|state| state.transactional_id.0.as_str());
            open.extend(ids.filter(|id| ours(id)).map(str::to_string));
        }
        Ok(open)
    }
}

/// Codes that mean: the transaction is not open any more, and was not committed by this producer.
const GONE: [ResponseError; 6] = [
    ResponseError::InvalidProducerEpoch,
    ResponseError::ProducerFenced,
    ResponseError::InvalidProducerIdMapping,
    ResponseError::InvalidTxnState,
    ResponseError::UnknownProducerId,
    ResponseError::TransactionAbortable,
];

/// Whether a produce request was refused because the transaction is gone.
pub fn is_gone(code: i16) -> bool {
    is_code(code, &GONE) || is_code(code, &[ResponseError::OutOfOrderSequenceNumber])
}

/// A transaction that is not there any more.
pub fn gone(code: i16, transactional_id: &str, doing: &str) -> Error {
    let error = ResponseError::try_from_code(code).map(|error| error.to_string()).unwrap_or_default();
    Error::input(format!("cannot {doing} the transaction `{transactional_id}`: Kafka says {error} ({code})")).hint(
        "either it lasted longer than its timeout and Kafka aborted it (make the timeout longer than the checkpoint interval \
         and a restart together), or a newer start of this job, or another sink with the same transactional id prefix, took \
         its place",
    )
}

fn id(transactional_id: &str) -> TransactionalId {
    TransactionalId(StrBytes::from_string(transactional_id.to_string()))
}
