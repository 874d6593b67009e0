//! A small Kafka client that blocks: connections, metadata, offsets, records and transactions, as source and sink need them.
//!
//! It is ours because no client at hand can commit a transaction that another process began (docs/adr/0005). Messages come from
//! `kafka-protocol`; every request is spoken in one version, which brokers from 3.0 on understand.

mod cluster;
mod connection;
mod failure;
mod login;
mod offsets;
mod protocol;
mod scram;
mod tls;
mod transactions;

pub use cluster::{CONSUMER, Cluster, topic_name};
pub use failure::{error_of, is_code, patiently};
pub use offsets::{OffsetSpec, commit_offsets, committed_offsets, list_offsets};
pub use transactions::{Committed, Producer, Transactions, gone, is_gone};
