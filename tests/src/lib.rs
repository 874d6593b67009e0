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

/// The programs of `docs/datastream/joins.md`.
#[cfg(doctest)]
#[doc = include_str!("../../docs/datastream/joins.md")]
pub mod joins {}
