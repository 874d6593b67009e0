//! One connection to one broker: requests out, answers in, in order.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use rustls::ClientConfig;
use tidemill_core::{Error, Kind, Result};

use super::login::log_in;
use super::protocol::{Api, SPOKEN};
use super::tls::{self, Transport};
use crate::kafka::security::{KafkaLogin, KafkaSecurity};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for bytes of an answer. Longer than any wait we ask a broker for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// The longest answer taken; a fetch asks for far less.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How a broker knows us in its logs.
const CLIENT_ID: &str = "tidemill";

/// What an answer begins with that is none, but an alert of TLS.
const TLS_ALERT: [u8; 2] = [21, 3];

/// How connections are opened: what [`KafkaSecurity`] says, with its files read.
pub struct Dialer {
    tls: Option<Arc<ClientConfig>>,
    login: Option<KafkaLogin>,
}

impl Dialer {
    pub fn new(security: &KafkaSecurity) -> Result<Dialer> {
        Ok(Dialer { tls: security.tls.as_ref().map(tls::config).transpose()?, login: security.login.clone() })
    }
}

/// A connection. After an error it is of no use any more.
pub struct Connection {
    address: String,
    stream: Transport,
    sent: i32,
    received: i32,
    out: BytesMut,
    /// The newest answer, whose room is used again once nobody holds a part of it.
    answer: Bytes,
}

impl Connection {
    /// Connects to `host:port`, checks that the broker speaks what we do, and logs in if it is to be.
    pub fn open(address: &str, dialer: &Dialer) -> Result<Connection> {
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
                    let mut connection = Connection {
                        address: address.to_string(),
                        stream: Transport::begin(stream, address, dialer.tls.as_ref())?,
                        sent: 0,
                        received: 0,
                        out: BytesMut::with_capacity(1 << 16),
                        answer: Bytes::new(),
                    };
                    connection.check_versions()?;
                    if let Some(login) = &dialer.login {
                        log_in(&mut connection, login)?;
                    }
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Where it leads.
    pub fn address(&self) -> &str {
        &self.address
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
        self.stream
            .write_all(&self.out)
            .and_then(|()| self.stream.flush())
            .map_err(|error| self.lost("write to", error))?;
        self.sent = self.sent.wrapping_add(1);
        Ok(())
    }

    fn read_answer<R: Request>(&mut self, version: i16, name: &str) -> Result<R::Response> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(|error| self.lost("read from", error))?;
        if self.received == 0 && length.starts_with(&TLS_ALERT) {
            return Err(Error::input(format!("the Kafka broker `{}` speaks TLS there", self.address))
                .hint("set `security.protocol` to SSL or SASL_SSL, or name the port of a plaintext listener"));
        }
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            return Err(self.unreadable(name, format!("it has {length} bytes")));
        }
        let mut room = std::mem::take(&mut self.answer).try_into_mut().unwrap_or_default();
        room.resize(length, 0);
        self.stream.read_exact(&mut room).map_err(|error| self.lost("read from", error))?;
        self.answer = room.freeze();
        let mut bytes = self.answer.clone();
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

    /// Whatever the machine calls it, a broken connection is something outside that may come back.
    fn lost(&self, doing: &str, error: std::io::Error) -> Error {
        let lost = tls::failure(&self.address, doing, error);
        // Brokers hang up on whoever does not log in, or does not speak TLS, where they want it.
        match self.received <= 1 && lost.kind() == Kind::External {
            true => lost.hint("if it always does: see that `security.protocol` is what this listener wants"),
            false => lost,
        }
    }
}
