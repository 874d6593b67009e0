//! Redis
