//! What the jobs of the fault tests and the tests that look at their results both need.

pub mod torture;
