//! Embedded topics as source and sink.

mod sink;
mod source;

pub use sink::TopicSink;
pub use source::{TopicSource, TopicStart};
