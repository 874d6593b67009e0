//! A source over a TCP socket: lines of text, for trying things out (`nc -lk 9999`). What was sent while nobody read is
//! lost, and nothing is read twice: there is no position.

use std::io;
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::format::Decode;
use tidemill_core::source::{Boundedness, ReaderContext, Source, SourceReader, Split};
use tidemill_core::{DeadLetter, Error, NO_TIMESTAMP, Result};

use crate::fetcher::{Emitter, Fetch, FetchReader, Fetched};
use crate::format::Text;
use crate::lines::{Found, Lines};

/// How long one attempt to connect takes at most.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads records from a socket, each ended by a delimiter. Ends when the other side closes and there are no more
/// reconnects; what stood behind the last delimiter is then a record too.
#[derive(Debug, Clone)]
pub struct SocketSource<D = Text> {
    host: String,
    port: u16,
    format: D,
    delimiter: u8,
    reconnects: u32,
    reconnect_delay_ms: u64,
    record_bytes_max: usize,
}

impl SocketSource<Text> {
    /// Lines of text from `host:port`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        SocketSource {
            host: host.into(),
            port,
            format: Text,
            delimiter: b'\n',
            reconnects: 0,
            reconnect_delay_ms: 500,
            record_bytes_max: 1 << 20,
        }
    }
}

impl<D: Decode> SocketSource<D> {
    /// Makes something else of the lines than text.
    pub fn format<E: Decode>(self, format: E) -> SocketSource<E> {
        SocketSource {
            host: self.host,
            port: self.port,
            format,
            delimiter: self.delimiter,
            reconnects: self.reconnects,
            reconnect_delay_ms: self.reconnect_delay_ms,
            record_bytes_max: self.record_bytes_max,
        }
    }

    /// What ends a record; default a line feed (a carriage return in front of it is taken away too).
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// How often to connect again after the connection was refused or closed, and how long to wait before each time, in
    /// ms. Default: 0 times; 500 ms. Anything received starts the count anew.
    pub fn reconnect(mut self, times: u32, delay_ms: u64) -> Self {
        self.reconnects = times;
        self.reconnect_delay_ms = delay_ms;
        self
    }

    /// The longest record, in bytes; longer ones become dead letters. Default 1 MiB.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    fn title(&self) -> String {
        format!("socket `{}:{}`", self.host, self.port)
    }
}

impl<D> Source<D::Value> for SocketSource<D>
where
    D: Decode,
    D::Value: Send + 'static,
{
    fn name(&self) -> String {
        self.title()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let id = format!("{}:{}", self.host, self.port);
        Ok(vec![Split { id, slot: 0, position: serde_json::Value::Null }])
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<D::Value>>> {
        let fetch = SocketFetch {
            decode: self.format.clone(),
            attempts_left: self.reconnects,
            source: self.clone(),
            stream: Arc::default(),
            lines: None,
            split: None,
            records: 0,
        };
        Ok(Box::new(FetchReader::new(&self.title(), &context, fetch)))
    }
}

struct SocketFetch<D> {
    source: SocketSource<D>,
    decode: D,
    attempts_left: u32,
    /// For the interrupter, which closes it: that ends a read that waits.
    stream: Arc<Mutex<Option<TcpStream>>>,
    lines: Option<Lines<TcpStream>>,
    split: Option<usize>,
    records: u64,
}

impl<D> Fetch for SocketFetch<D>
where
    D: Decode,
    D::Value: Send + 'static,
{
    type Value = D::Value;
    type Position = ();

    fn add_split(&mut self, index: usize, _id: &str, _position: Option<()>) -> Result<()> {
        self.split = Some(index);
        Ok(())
    }

    fn fetch(&mut self, out: &mut Emitter<D::Value, ()>) -> Result<Fetched> {
        let Some(split) = self.split else { return Ok(Fetched::Done) };
        let lines = match &mut self.lines {
            Some(lines) => lines,
            none => match connect(&self.source) {
                Ok(stream) => {
                    let kept = stream.try_clone().map_err(|e| Error::io(format!("use {}", self.source.title()), e))?;
                    *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
                    if out.is_stopped() {
                        return Ok(Fetched::More);
                    }
                    let lines = Lines::new(stream, self.source.record_bytes_max, 0, 0);
                    none.insert(lines.delimiter(self.source.delimiter))
                }
                Err(error) => return self.reconnect(&error),
            },
        };
        // The first may have to wait; then those that came with it, so that none waits for the next.
        loop {
            let found = match lines.next() {
                Ok(Found::End) => lines.rest(),
                Ok(found) => found,
                // Cut off: what came before it is complete, what was being sent is not.
                Err(error) => {
                    self.lines = None;
                    return self.reconnect(&error);
                }
            };
            if found == Found::End {
                self.lines = None;
                if self.attempts_left == 0 {
                    self.split = None;
                    let _ = out.finish(split);
                    return Ok(Fetched::Done);
                }
                return self.reconnect(&io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            self.attempts_left = self.source.reconnects;
            self.records += 1;
            let value = match found {
                Found::TooLong { bytes } => Err(format!(
                    "a record of {bytes} bytes; the longest allowed has {} (option record_bytes_max)",
                    self.source.record_bytes_max
                )),
                _ => self.decode.decode(lines.text()),
            };
            let value = value.map_err(|reason| {
                let place = format!("record {} since the start", self.records);
                DeadLetter::new(self.source.title(), place, reason, lines.text())
            });
            if !out.push(split, NO_TIMESTAMP, value, lines.text().len(), ()) || !lines.has_line() {
                return Ok(Fetched::More);
            }
        }
    }

    fn interrupter(&self) -> Box<dyn Fn() + Send + Sync> {
        let stream = Arc::clone(&self.stream);
        Box::new(move || {
            if let Some(stream) = &*stream.lock().unwrap_or_else(PoisonError::into_inner) {
                // Fails when it is closed already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        })
    }
}

impl<D: Decode> SocketFetch<D> {
    fn reconnect(&mut self, error: &io::Error) -> Result<Fetched> {
        if self.attempts_left == 0 {
            return Err(Error::external(format!("cannot read {}: {error}", self.source.title()))
                .hint("start the other side first, or allow reconnects"));
        }
        self.attempts_left -= 1;
        Ok(Fetched::Idle(Duration::from_millis(self.source.reconnect_delay_ms)))
    }
}

fn connect<D>(source: &SocketSource<D>) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (source.host.as_str(), source.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
