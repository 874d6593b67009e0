//! Which requests are spoken, and in which version. One version each keeps every message to one shape; all of them are
//! understood by brokers from 3.0 on, and 4.x still has them.

use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, DescribeConfigsRequest, EndTxnRequest, FetchRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ListOffsetsRequest, ListTransactionsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::Request;

/// A request in the version we speak.
pub trait Api: Request {
    /// The version.
    const VERSION: i16;
    /// What Kafka calls it.
    const NAME: &'static str;
}

macro_rules! spoken {
    ($($request:ty, $version:literal, $name:literal;)*) => {
        $(impl Api for $request {
            const VERSION: i16 = $version;
            const NAME: &'static str = $name;
        })*

        /// All of them: key, version, name.
        pub const SPOKEN: &[(i16, i16, &str)] = &[$((<$request>::KEY, $version, $name)),*];
    };
}

// Produce below 12 and EndTxn below 5 are transactions in their first form, in which the epoch belongs to one
// transaction from its begin to its end: the token of a checkpoint stays right whatever is retried.
spoken! {
    ProduceRequest, 9, "Produce";
    FetchRequest, 12, "Fetch";
    ListOffsetsRequest, 6, "ListOffsets";
    MetadataRequest, 9, "Metadata";
    OffsetCommitRequest, 8, "OffsetCommit";
    OffsetFetchRequest, 7, "OffsetFetch";
    FindCoordinatorRequest, 3, "FindCoordinator";
    InitProducerIdRequest, 4, "InitProducerId";
    AddPartitionsToTxnRequest, 3, "AddPartitionsToTxn";
    EndTxnRequest, 3, "EndTxn";
    ListTransactionsRequest, 0, "ListTransactions";
    DescribeConfigsRequest, 4, "DescribeConfigs";
    SaslHandshakeRequest, 1, "SaslHandshake";
    SaslAuthenticateRequest, 2, "SaslAuthenticate";
}
