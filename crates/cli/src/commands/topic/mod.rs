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
    /// The folder's topics; the folder is made when it is not there.
    pub fn topics(&self) -> Result<Topics, Failure> {
        let opened = Topics::open(self.data.join("topics"));
        Ok(opened.map_err(|e| e.hint("choose another folder with `--data`"))?)
    }

    /// The topics of a folder that must be there: whoever only looks makes none.
    pub fn existing_topics(&self) -> Result<Topics, Failure> {
        if self.data.is_dir() {
            return self.topics();
        }
        let text = format!("there is no data folder `{}`", self.data.display());
        Err(Failure::not_found(Error::input(text).hint("name the server's with `--data`")))
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
        let topics = self.data.existing_topics()?;
        if topics.exists(&self.topic)? {
            return Ok(topics);
        }
        let text = format!("there is no topic `{}` in `{}`", self.topic, self.data.data.display());
        Err(Failure::not_found(
            Error::input(text).hint("create it with `tidemill topic create`, or name another folder with `--data`"),
        ))
    }
}
