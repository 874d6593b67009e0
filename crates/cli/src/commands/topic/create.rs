//! `tidemill topic create`.

use clap::Args;
use serde_json::json;
use tidemill_topic::TopicConfig;

use super::TopicArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;

/// Create a topic
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    topic: TopicArgs,
    /// How many partitions, fixed for the topic's life
    #[arg(short, long, default_value_t = 4)]
    partitions: u32,
    /// Delete records after so many milliseconds [default: never]
    #[arg(long, value_name = "MS")]
    retention_ms: Option<i64>,
    /// Delete the oldest records beyond so many bytes [default: no limit]
    #[arg(long, value_name = "BYTES")]
    retention_bytes: Option<u64>,
}

impl Run for Create {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let Create { topic, partitions, retention_ms, retention_bytes } = self;
        let config = TopicConfig { partitions, retention_ms, retention_bytes };
        topic.data.topics()?.create(&topic.topic, &config)?;
        let result = json!({"name": topic.topic, "partitions": partitions});
        context.output.result(&result, format_args!("created topic {} with {partitions} partitions", topic.topic))
    }
}
