//! `tidemill agents`: the hosts of a server.

use clap::Args;

use super::Run;
use crate::Context;
use crate::client::ServerArgs;
use crate::failure::Failure;
use crate::output::cell;

/// Show the hosts of a server and their slots
#[derive(Debug, Args)]
pub struct Agents {
    #[command(flatten)]
    server: ServerArgs,
}

impl Run for Agents {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let answer = self.server.get("/api/agents")?;
        let agents = answer["agents"].as_array().cloned().unwrap_or_default();
        let heads = ["NAME", "HOST", "SLOTS", "USED", "ALIVE"];
        context.output.list(&agents, &heads, |agent| {
            ["name", "host", "slots", "used", "alive"].iter().map(|field| cell(&agent[*field])).collect()
        })
    }
}
