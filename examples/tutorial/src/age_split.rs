//! Divides people by age: adults go on in the main stream, minors and seniors into side outputs, one pass for all.

use tidemill::prelude::*;

/// Name and age.
pub type Person = (String, u32);

/// People below 18.
pub const MINORS: OutputTag<Person> = OutputTag::new("minors");
/// People from 65 on.
pub const SENIORS: OutputTag<Person> = OutputTag::new("seniors");

/// Adults; minors and seniors stand in the side outputs [`MINORS`] and [`SENIORS`] of the result.
pub fn build(_env: &Environment, people: DataStream<Person>) -> DataStream<Person> {
    people.process(SplitByAge)
}

#[derive(Clone)]
struct SplitByAge;

impl ProcessFunction<Person, Person> for SplitByAge {
    fn process(&mut self, person: Person, context: &mut ProcessContext<'_, Person>) -> Result<()> {
        match person.1 {
            0..18 => context.side_output(MINORS, person),
            18..65 => context.emit(person),
            _ => context.side_output(SENIORS, person),
        }
    }
}
