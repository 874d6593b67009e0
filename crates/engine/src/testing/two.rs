//! The harness of an operator with two inputs: their records are pushed as `Either::Left` and `Either::Right`, in the order
//! the test wants, where a job has none; the watermark is that of both.
//!
//! ```
//! use tidemill_engine::stream::{DataStream, Either};
//! use tidemill_engine::testing::Harness;
//!
//! type Event = (u32, char);
//! let mut pairs = Harness::two(|left: DataStream<Event>, right: DataStream<Event>| {
//!     let (left, right) = (left.key_by(|event| event.0), right.key_by(|event| event.0));
//!     left.interval_join(&right).between(-10, 10).apply(|left, right| Some((left.1, right.1)))
//! })
//! .build()?;
//! pairs.push(100, Either::Left((1, 'a')))?;
//! pairs.push(110, Either::Right((1, 'b')))?;
//! pairs.push(111, Either::Right((1, 'c')))?;
//! assert_eq!(pairs.take(), [(110, ('a', 'b'))]);
//! # Ok::<(), tidemill_core::Error>(())
//! ```

use tidemill_core::{Data, Error, Result};

use super::{Harness, HarnessBuilder};
use crate::graph::Graph;
use crate::operator::OutputTag;
use crate::stream::{DataStream, Either};

/// The inputs before they come together in [`both`]: side outputs the harness does not have.
const LEFT: &str = "harness-left";
const RIGHT: &str = "harness-right";

impl<A: Data, B: Data, O: Data> Harness<Either<A, B>, O> {
    /// A pipeline that begins with an operator of two streams: `connect`, a join, a co-group, broadcast state.
    pub fn two(
        pipeline: impl FnOnce(DataStream<A>, DataStream<B>) -> DataStream<O>,
    ) -> HarnessBuilder<Either<A, B>, O> {
        Self::builder(|both| pipeline(both.side_output(OutputTag::new(LEFT)), both.side_output(OutputTag::new(RIGHT))))
    }
}

/// Whether these are the two inputs of a harness: the node they are of.
pub(crate) fn both(left: (usize, Option<&str>), right: (usize, Option<&str>)) -> Option<usize> {
    (left.0 == right.0 && left.1 == Some(LEFT) && right.1 == Some(RIGHT)).then_some(left.0)
}

/// An error if an operator reads one of two inputs alone.
pub(super) fn check_both(graph: &Graph) -> Result<()> {
    let alone = |tag: Option<&str>| tag == Some(LEFT) || tag == Some(RIGHT);
    match graph.nodes.iter().find(|node| node.inputs.iter().any(|input| alone(input.tag))) {
        None => Ok(()),
        Some(node) => Err(Error::input(format!("`{}` reads one of the two inputs of the harness alone", node.name))
            .hint("a pipeline of two inputs begins with the operator that reads both")),
    }
}
