//! The shortest way from an environment to the connectors every tutorial begins with.

use std::path::Path;

use tidemill_connectors::file::FileSource;
use tidemill_connectors::format::Text;
use tidemill_connectors::socket::SocketSource;
use tidemill_engine::stream::{DataStream, Environment, WatermarkStrategy};

/// Sources by their usual names.
pub trait Connect {
    /// The lines of a file, of a folder's files or of those a pattern names; `.gz` is unpacked. The stream ends with them.
    fn read_text_file(&self, path: impl AsRef<Path>) -> DataStream<String>;

    /// The lines that come over a TCP connection. What is lost in a crash cannot be read again.
    fn socket_text_stream(&self, host: &str, port: u16) -> DataStream<String>;
}

impl Connect for Environment {
    fn read_text_file(&self, path: impl AsRef<Path>) -> DataStream<String> {
        let name = format!("file {}", path.as_ref().display());
        self.from_source(FileSource::new(path, Text), WatermarkStrategy::none(), &name)
    }

    fn socket_text_stream(&self, host: &str, port: u16) -> DataStream<String> {
        let name = format!("socket {host}:{port}");
        self.from_source(SocketSource::new(host, port), WatermarkStrategy::none(), &name).set_parallelism(1)
    }
}
