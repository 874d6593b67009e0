//! `tidemill openapi`: the description of the HTTP interface, for those who make clients from it. No server is asked.

use clap::Args;
use tidemill_core::Error;

use super::Run;
use crate::Context;
use crate::failure::Failure;
use crate::output::line;

/// Print the description of the HTTP interface (OpenAPI, JSON)
#[derive(Debug, Args)]
pub struct OpenApi {}

impl Run for OpenApi {
    fn run(self, _: &Context) -> Result<(), Failure> {
        let described = tidemill_server::api::document().to_pretty_json();
        let text = described.map_err(|e| Error::bug(format!("the description is no JSON: {e}")))?;
        line(text)
    }
}
