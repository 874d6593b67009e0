//! Tests of the whole, in one binary. A new test is a new module in this list.

mod house;
