//! Live tables: the newest rows of results, kept in memory, stored behind, pushed to whoever watches.
//!
//! | module | holds |
//! |---|---|
//! | [`table`] | one table: rows by key and by last change |
//! | [`hub`] | all tables, and reading and writing them |
//! | [`feed`] | pushing changes to many subscribers |
//! | [`persist`] | storing behind, and reading back |

pub mod feed;
pub mod hub;
pub mod persist;
pub mod table;
