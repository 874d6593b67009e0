//! Where a program's records come from: lines of a socket, or of a file. Lines that are not understood are told on
//! standard error and left out.

use std::path::PathBuf;

use clap::Parser;
use tidemill::connectors::file::FileSource;
use tidemill::connectors::socket::SocketSource;
use tidemill::core::format::Decode;
use tidemill::core::source::Source;
use tidemill::prelude::*;

/// Reads lines from a socket (start `nc -lk 9999` first) or a file, and prints the results.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Input {
    /// The host to connect to.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port to connect to.
    #[arg(long, default_value_t = 9999)]
    port: u16,
    /// Read this file instead of a socket; `.gz` is unpacked.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port"])]
    file: Option<PathBuf>,
    /// How many workers; default: what the process is started with, or the number of cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=128))]
    parallelism: Option<u8>,
}

impl Input {
    /// The input the command line names. Ends the process when the command line is wrong or asks for help.
    pub fn from_command_line() -> Self {
        Self::parse()
    }

    /// The records, one a line, and the job's parallelism.
    pub fn read<D>(&self, env: &Environment, format: D) -> Result<DataStream<D::Value>>
    where
        D: Decode,
        D::Value: tidemill::core::Data,
    {
        if let Some(parallelism) = self.parallelism {
            env.set_parallelism(usize::from(parallelism));
        }
        let records = match &self.file {
            Some(path) => {
                let source = FileSource::new(path, format).skip_blank_lines(true);
                // A wrong path ends the program here, before there is a job.
                source.splits()?;
                env.from_source(source, WatermarkStrategy::none(), &format!("file {}", path.display()))
            }
            None => {
                let source = SocketSource::new(self.host.as_str(), self.port).format(format);
                env.from_source(source, WatermarkStrategy::none(), &format!("socket {}:{}", self.host, self.port))
            }
        }
        // One file or socket is read by one subtask; more would only hold surplus ones.
        .set_parallelism(1);
        records.dead_letters().map(|letter: DeadLetter| {
            eprintln!("left out: {} ({}): {}", letter.payload, letter.position, letter.reason);
        });
        Ok(records)
    }
}
