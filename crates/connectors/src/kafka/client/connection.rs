//! One TCP connection to one broker: requests out, answers in, in order.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tidemill_core::{Error, Result};

use super::protocol::{Api, SPOKEN};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for bytes of an answer. Longer than any wait we ask a broker for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// The longest answer taken; a fetch asks for far less.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How a broker knows us in its logs.
const CLIENT_ID: &str = "tidemill";

/// A connection. After an error it is of no use any more.
pub struct Connection {
    address: String,
    stream: TcpStream,
    sent: i32,
    received: i32,
    out: BytesMut,
}

impl Connection {
    /// Connects to `host:port` and checks that the broker speaks what we do.
    pub fn open(address: &str) -> Result<Connection> {
        let failed = |error| Error::io(format!("connect to the Kafka broker `{address}`"), error);
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for socket_address in address.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&socket_address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    let prepare = || {
                        stream.set_nodelay(true)?;
                        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                        stream.set_write_timeout(Some(ANSWER_TIMEOUT))
                    };
                    prepare().map_err(failed)?;
                    let address = address.to_string();
                    let mut connection =
                        Connection { address, stream, sent: 0, received: 0, out: BytesMut::with_capacity(1 << 16) };
                    connection.check_versions()?;
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    fn check_versions(&mut self) -> Result<()> {
        // Version 0 of this one is understood by every broker there is.
        self.write_request(&ApiVersionsRequest::default(), 0)?;
        let answer: ApiVersionsResponse = self.read_answer::<ApiVersionsRequest>(0, "ApiVersions")?;
        for (key, version, name) in SPOKEN {
            let range = answer.api_keys.iter().find(|api| api.api_key == *key);
            if !range.is_some_and(|range| (range.min_version..=range.max_version).contains(version)) {
                return Err(Error::input(format!(
                    "the Kafka broker `{}` does not speak version {version} of {name}",
                    self.address
                ))
                .hint("Tidemill needs Apache Kafka 3.0 or newer, or a broker that speaks as it does"));
            }
        }
        Ok(())
    }

    /// Sends a request; its answer comes after those of all sent before.
    pub fn send<R: Api>(&mut self, request: &R) -> Result<()> {
        self.write_request(request, R::VERSION)
    }

    /// The answer to the oldest request that has none yet.
    pub fn receive<R: Api>(&mut self) -> Result<R::Response> {
        self.read_answer::<R>(R::VERSION, R::NAME)
    }

    /// Sends a request and waits for its answer.
    pub fn call<R: Api>(&mut self, request: &R) -> Result<R::Response> {
        self.send(request)?;
        self.receive::<R>()
    }

    fn write_request<R: Request>(&mut self, request: &R, version: i16) -> Result<()> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
        self.out.clear();
        self.out.extend_from_slice(&[0; 4]);
        header
            .encode(&mut self.out, R::header_version(version))
            .and_then(|()| request.encode(&mut self.out, version))
            .map_err(|error| Error::bug(format!("a request to Kafka cannot be written: {error}")))?;
        let length = i32::try_from(self.out.len() - 4)
            .map_err(|_| Error::bug(format!("a request to Kafka of {} bytes", self.out.len())))?;
        self.out[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&self.out).map_err(|error| lost(&self.address, error))?;
        self.sent = self.sent.wrapping_add(1);
        Ok(())
    }

    fn read_answer<R: Request>(&mut self, version: i16, name: &str) -> Result<R::Response> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(|error| lost(&self.address, error))?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            return Err(self.unreadable(name, format!("it has {length} bytes")));
        }
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).map_err(|error| lost(&self.address, error))?;
        let mut bytes = Bytes::from(bytes);
        let header = ResponseHeader::decode(&mut bytes, R::Response::header_version(version))
            .map_err(|error| self.unreadable(name, error))?;
        if header.correlation_id != self.received {
            return Err(self.unreadable(name, format!("it answers request {}", header.correlation_id)));
        }
        self.received = self.received.wrapping_add(1);
        let answer = R::Response::decode(&mut bytes, version).map_err(|error| self.unreadable(name, error))?;
        if bytes.has_remaining() {
            return Err(self.unreadable(name, format!("{} bytes stand behind it", bytes.remaining())));
        }
        Ok(answer)
    }

    /// Tried again over a new connection: what was garbled once need not be so the next time.
    fn unreadable(&self, name: &str, why: impl std::fmt::Display) -> Error {
        Error::external(format!("the answer of `{}` to {name} cannot be read: {why}", self.address))
    }
}

/// Whatever the machine calls it, a broken connection is something outside that may come back.
fn lost(address: &str, error: std::io::Error) -> Error {
    Error::external(format!("the connection to the Kafka broker `{address}` broke: {error}"))
}
