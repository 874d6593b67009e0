//! The command line of `user-behavior`, and what follows from it.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use tidemill::prelude::*;
use user_behavior::input::{ACTIONS, ACTIONS_DELAY, Input, REQUESTS, REQUESTS_DELAY};

/// What the logs of a shop and a web site tell.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Options {
    /// The job.
    #[arg(value_enum)]
    pub job: Job,
    /// The folder of `user_behavior.csv` and `web_access.log`, each as it is or packed (`.gz`). Default: `./data`; where
    /// the file is not there, the small sample that is built in.
    #[arg(long, env = "TIDEMILL_SAMPLE_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// How many workers; default: what the process is started with, or the number of cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=128))]
    pub parallelism: Option<u8>,
    /// Where results go.
    #[arg(long, value_enum, default_value_t = Output::Print)]
    pub output: Output,
    /// The folder for `--output file`; default: `./output/<job>`.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// How many seconds to wait for lines that come late; default: enough for the file.
    #[arg(long, value_name = "SECONDS")]
    delay: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Job {
    /// The 5 items viewed most in an hour, every 5 minutes.
    HotItems,
    /// Page views and visitors of each hour.
    PageViews,
    /// The 3 pages asked for most in 10 minutes, every 5 seconds.
    HotPages,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines of text on standard output.
    Print,
    /// Lines of JSON in the files of a folder.
    File,
}

impl Job {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Job::HotItems => "hot-items",
            Job::PageViews => "page-views",
            Job::HotPages => "hot-pages",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Job::HotItems | Job::PageViews => ACTIONS,
            Job::HotPages => REQUESTS,
        }
    }
}

impl Options {
    /// Where the job's lines come from.
    pub fn input(&self) -> Result<Input> {
        let file = self.job.file();
        if let Some(folder) = &self.data {
            return Input::in_folder(folder, file).ok_or_else(|| {
                Error::input(format!("there is no `{file}` or `{file}.gz` in `{}`", folder.display()))
                    .hint("name its folder with --data, or leave it out for the sample that is built in")
            });
        }
        Ok(Input::in_folder(Path::new("data"), file).unwrap_or_else(|| {
            eprintln!("there is no `{file}` in `data`: this is the sample that is built in");
            Input::Sample
        }))
    }

    /// How long to wait for lines that come late.
    pub fn delay(&self) -> Duration {
        match (self.delay, self.job) {
            (Some(seconds), _) => Duration::from_secs(u64::from(seconds)),
            (None, Job::HotItems | Job::PageViews) => ACTIONS_DELAY,
            (None, Job::HotPages) => REQUESTS_DELAY,
        }
    }

    /// The folder for results.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone().unwrap_or_else(|| Path::new("output").join(self.job.name()))
    }
}
