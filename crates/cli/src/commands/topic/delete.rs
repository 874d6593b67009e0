//! `tidemill topic delete`.

use clap::Args;
use serde_json::json;

use super::TopicArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;

/// Delete a topic with all its records
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    topic: TopicArgs,
}

impl Run for Delete {
    fn run(self, context: &Context) -> Result<(), Failure> {
        self.topic.existing()?.delete(&self.topic.topic)?;
        context.output.result(&json!({"deleted": self.topic.topic}), format_args!("deleted topic {}", self.topic.topic))
    }
}
