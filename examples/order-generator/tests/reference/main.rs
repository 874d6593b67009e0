//! The reference computation against numbers found by hand and against a second way of computing.

mod event;
mod faults;
mod model;
mod rows;
