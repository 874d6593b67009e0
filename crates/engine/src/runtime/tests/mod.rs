//! Tests of the runtime that need its inside.

pub(crate) mod simulation;
