//! Lets through what jumps: numbers more than 10 above the average of all numbers of their key so far, themselves among
//! them. The first number of a key has nothing to be compared with and goes through.
//!
//! The average is a whole number, rounded towards zero: after 18, 20, 25 and 36 it is 24.

use serde::{Deserialize, Serialize};
use tidemill::prelude::*;

use crate::Reading;

/// How far above the average a number must be.
pub const JUMP: i64 = 10;

/// The numbers that jump.
pub fn build(_env: &Environment, readings: DataStream<Reading>) -> DataStream<Reading> {
    readings.key_by(|(key, _)| key.clone()).process(JumpFilter { seen: ValueState::new("seen") })
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Seen {
    sum: i64,
    count: i64,
}

#[derive(Clone)]
struct JumpFilter {
    /// What the current key's average is made of.
    seen: ValueState<Seen>,
}

impl KeyedProcessFunction<String, Reading, Reading> for JumpFilter {
    fn process(&mut self, reading: Reading, context: &mut KeyedContext<'_, String, Reading>) -> Result<()> {
        let seen = self.seen.get_or(context, Seen::default)?;
        seen.sum = seen.sum.saturating_add(reading.1);
        seen.count += 1;
        let average = seen.sum / seen.count;
        if seen.count == 1 || reading.1.saturating_sub(average) > JUMP { context.emit(reading) } else { Ok(()) }
    }
}
