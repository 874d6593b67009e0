//! Tells by how much each number of a key differs from the one before; the first as it is.

use tidemill::prelude::*;

use crate::Reading;

/// For each number its difference to the key's last.
pub fn build(_env: &Environment, readings: DataStream<Reading>) -> DataStream<Reading> {
    readings.key_by(|(key, _)| key.clone()).process(Difference { last: ValueState::new("last") })
}

#[derive(Clone)]
struct Difference {
    /// The current key's last number.
    last: ValueState<i64>,
}

impl KeyedProcessFunction<String, Reading, Reading> for Difference {
    fn process(&mut self, (key, number): Reading, context: &mut KeyedContext<'_, String, Reading>) -> Result<()> {
        let last = self.last.replace(context, number)?.unwrap_or(0);
        context.emit((key, number.saturating_sub(last)))
    }
}
