//! Tells the average of every two numbers of a key. The state is there only while half a pair is: leaving it `None`
//! removes it, so that keys that stay away cost nothing.

use tidemill::prelude::*;

use crate::Reading;

/// For each second number of a key the average of it and the one before, rounded towards zero.
pub fn build(_env: &Environment, readings: DataStream<Reading>) -> DataStream<Reading> {
    readings.key_by(|(key, _)| key.clone()).flat_map_with_state(|(key, number): Reading, first: &mut Option<i64>| {
        match first.take() {
            None => {
                *first = Some(number);
                None
            }
            Some(first) => Some((key, first.saturating_add(number) / 2)),
        }
    })
}
