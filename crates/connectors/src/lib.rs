//! Where records come from and where results go: one file or folder per connector and format.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@file`] | lines of files, once or as they grow; part files, exactly once |
//! | [`socket`] | lines from a TCP socket |
//! | [`topic`] | embedded topics, read and written exactly once |
//! | [`kafka`] | Apache Kafka, read and written exactly once |
//! | [`database`] | Postgres, MySQL and MariaDB, SQLite: tables read and written exactly once |
//! | [`redis`] | results as upserts into Redis |
//! | [`elasticsearch`] | results as documents into Elasticsearch or OpenSearch |
//! | [`http`] | results to an HTTP endpoint: webhooks, alerts |
//! | [`live`] | results into the server's live tables |
//! | [`blackhole`] | results into nothing |
//! | [`generator`] | records made up by a function |
//! | [`hybrid`] | sources one after the other |
//! | [`rate_limit`] | any source, not faster than so many records a second |
//! | [`mod@format`] | JSON, CSV, Avro, text, raw bytes |
//! | [`fetcher`] | for authors: how a reader that blocks meets the worker |
//! | [`write_ahead`] | for authors: exactly once into a system without transactions |
//! | [`async_sink`] | for authors: batches to a service, several requests at once, single entries tried again |
//! | [`buffered`] | for authors: how a writer that blocks meets the worker |
//! | [`authority`] | for authors: whom clients of a server believe its certificate |
//! | [`conformance`] | for authors: what every source and sink must pass |
//!
//! A new connector is a new file and a line in [`CONNECTORS`].

pub mod async_sink;
pub mod authority;
pub mod blackhole;
pub mod buffered;
pub mod conformance;
pub mod database;
pub mod elasticsearch;
mod endpoint;
pub mod fetcher;
pub mod file;
pub mod format;
pub mod generator;
pub mod http;
pub mod hybrid;
pub mod kafka;
mod lines;
pub mod live;
pub mod rate_limit;
pub mod redis;
pub mod socket;
pub mod topic;
pub mod write_ahead;

/// What a connector can be used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Only to read from.
    Source,
    /// Only to write to.
    Sink,
    /// Both.
    Both,
}

/// A connector as `WITH ('connector' = '…')` and the documentation name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connector {
    /// Its name.
    pub name: &'static str,
    /// What it can be used as.
    pub role: Role,
    /// What it is, in a few words.
    pub description: &'static str,
}

/// All connectors, by name.
pub const CONNECTORS: &[Connector] = &[
    Connector { name: "blackhole", role: Role::Sink, description: "takes everything and keeps nothing" },
    Connector { name: "database", role: Role::Both, description: "tables of Postgres, MySQL, MariaDB, SQLite" },
    Connector { name: "elasticsearch", role: Role::Sink, description: "documents in Elasticsearch or OpenSearch" },
    Connector { name: "file", role: Role::Both, description: "lines of files; part files written exactly once" },
    Connector { name: "generator", role: Role::Source, description: "records made up by a function of their index" },
    Connector { name: "http", role: Role::Sink, description: "records posted to an HTTP endpoint, such as a webhook" },
    Connector { name: "kafka", role: Role::Both, description: "Apache Kafka, read and written exactly once" },
    Connector { name: "live", role: Role::Sink, description: "newest rows by key, in the server's live tables" },
    Connector { name: "redis", role: Role::Sink, description: "upserts into a Redis server" },
    Connector { name: "socket", role: Role::Source, description: "lines from a TCP socket, without replay" },
    Connector { name: "topic", role: Role::Both, description: "an embedded topic, read and written exactly once" },
];

/// The connector of this name.
pub fn connector(name: &str) -> Option<&'static Connector> {
    CONNECTORS.iter().find(|connector| connector.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connectors_are_listed_once_and_by_name() {
        assert!(CONNECTORS.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(connector("topic").map(|connector| connector.role), Some(Role::Both));
        assert_eq!(connector("nowhere"), None);
    }
}
