//! `tidemill topic list`.

use clap::Args;
use serde_json::{Value, json};

use crate::Context;
use crate::commands::{DataArgs, Run};
use crate::failure::Failure;
use crate::output::cell;

/// List the topics of a data folder
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    data: DataArgs,
}

impl Run for List {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let topics = self.data.existing_topics()?.list()?;
        let topics: Vec<Value> = topics
            .iter()
            .map(|topic| {
                json!({"name": topic.name, "partitions": topic.partitions, "records": topic.records, "bytes": topic.bytes,
                    "retention_ms": topic.retention_ms, "retention_bytes": topic.retention_bytes})
            })
            .collect();
        let columns = ["name", "partitions", "records", "bytes", "retention_ms", "retention_bytes"];
        let heads = ["NAME", "PARTITIONS", "RECORDS", "BYTES", "RETENTION MS", "RETENTION BYTES"];
        context.output.list(&topics, &heads, |topic| columns.iter().map(|name| cell(&topic[*name])).collect())
    }
}
