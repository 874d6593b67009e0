//! `tidemill topic`: the topics of a data folder, with or without a server running over it.

mod consume;
mod create;
mod delete;
mod list;
mod produce;

use clap::Args;
use tidemill_core::Error;
use tidemill_topic::{Topic, Topics};

use super::{DataArgs, Entry};
use crate::failure::Failure;

/// The commands.
pub const ALL: &[Entry] = &[
    Entry::of::<create::Create>("create"),
    Entry::of::<list::List>("list"),
    Entry::of::<produce::Produce>("produce"),
    Entry::of::<consume::Consume>("consume"),
    Entry::of::<delete::Delete>("delete"),
];

/// One topic of a data folder.
#[derive(Debug, Args)]
pub struct TopicArgs {
    /// The topic
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    #[command(flatten)]
    pub data: DataArgs,
}

impl DataArgs {
    /// The folder's topics.
    pub fn topics(&self) -> Result<Topics, Failure> {
        Ok(Topics::open(self.data.join("topics"))?)
    }
}

impl TopicArgs {
    /// The topic, which must be there.
    pub fn open(&self) -> Result<Topic, Failure> {
        let topics = self.existing()?;
        Ok(topics.open_topic(&self.topic)?)
    }

    /// The folder's topics, one of which must be this.
    pub fn existing(&self) -> Result<Topics, Failure> {
        let topics = self.data.topics()?;
        if topics.exists(&self.topic)? {
            return Ok(topics);
        }
        let text = format!("there is no topic `{}` in `{}`", self.topic, self.data.data.display());
        Err(Failure::not_found(
            Error::input(text).hint("create it with `tidemill topic create`, or name another folder with `--data`"),
        ))
    }
}
