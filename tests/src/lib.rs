//! The programs of the front pages, so that they compile and run: each code block of README, CONTRIBUTING and the pages
//! named below is a documentation test of this crate. The other tests of the whole stand in `it/`.

/// The programs of `README.md`.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub mod readme {}

/// The programs of `CONTRIBUTING.md`.
#[cfg(doctest)]
#[doc = include_str!("../../CONTRIBUTING.md")]
pub mod contributing {}

/// The programs of `docs/datastream/columnar.md`.
#[cfg(doctest)]
#[doc = include_str!("../../docs/datastream/columnar.md")]
pub mod columnar {}

/// The programs of `docs/datastream/from-flink.md`.
#[cfg(doctest)]
#[doc = include_str!("../../docs/datastream/from-flink.md")]
pub mod from_flink {}

/// The programs of `docs/datastream/joins.md`.
#[cfg(doctest)]
#[doc = include_str!("../../docs/datastream/joins.md")]
pub mod joins {}

/// The programs of `docs/datastream/sources.md`.
#[cfg(doctest)]
#[doc = include_str!("../../docs/datastream/sources.md")]
pub mod sources {}

/// The programs of `docs/connectors`. A house rule says that each connector has a page there and that the page is listed here.
#[cfg(doctest)]
pub mod connectors {
    #[doc = include_str!("../../docs/connectors/README.md")]
    pub mod index {}
    #[doc = include_str!("../../docs/connectors/blackhole.md")]
    pub mod blackhole {}
    #[doc = include_str!("../../docs/connectors/database.md")]
    pub mod database {}
    #[doc = include_str!("../../docs/connectors/elasticsearch.md")]
    pub mod elasticsearch {}
    #[doc = include_str!("../../docs/connectors/file.md")]
    pub mod file {}
    #[doc = include_str!("../../docs/connectors/generator.md")]
    pub mod generator {}
    #[doc = include_str!("../../docs/connectors/http.md")]
    pub mod http {}
    #[doc = include_str!("../../docs/connectors/kafka.md")]
    pub mod kafka {}
    #[doc = include_str!("../../docs/connectors/live.md")]
    pub mod live {}
    #[doc = include_str!("../../docs/connectors/redis.md")]
    pub mod redis {}
    #[doc = include_str!("../../docs/connectors/socket.md")]
    pub mod socket {}
    #[doc = include_str!("../../docs/connectors/topic.md")]
    pub mod topic {}
}
