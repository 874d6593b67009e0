//! The programs of the front pages, so that they compile and run: each code block of README and CONTRIBUTING is a
//! documentation test of this crate. The other tests of the whole stand in `it/`.

/// The programs of `README.md`.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub mod readme {}

/// The programs of `CONTRIBUTING.md`.
#[cfg(doctest)]
#[doc = include_str!("../../CONTRIBUTING.md")]
pub mod contributing {}
