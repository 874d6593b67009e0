//! What opens a connection between two processes of a job. Both prove that they know the job's secret by a MAC over
//! what the other has made up; the secret itself is never sent. Behind that they compare what they are: the same job,
//! the same start of it, the same plan.
//!
//! ```text
//! connector                                      acceptor
//! "TMLK" version, length, Hello (with nonce a) ─►
//!                                             ◄─ nonce b, MAC(secret, "accept", Hello, b)
//! MAC(secret, "connect", Hello, b)            ─►
//!                                             ◄─ 0; else 1 (never) or 2 (not now), length and the reason
//! ```
//!
//! Over TLS each MAC also covers what both ends of the TLS session have derived from it (`Channel::binding`).
//!
//! Every read has a bound in bytes and a deadline; nothing a stranger sends is believed, or costs more than that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Kind, Result};

use super::channel::Channel;
use super::settings::Secret;

/// The wire's version: handshake, control messages and batches together.
pub(crate) const WIRE_VERSION: u8 = 4;

const MAGIC: [u8; 4] = *b"TMLK";
/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 22;
const NONCE_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
const HELLO_BYTES_MAX: usize = 1024;
const REASON_BYTES_MAX: usize = 1024;

const ACCEPTED: u8 = 0;
const NEVER: u8 = 1;
const NOT_NOW: u8 = 2;

/// How long one side waits for the other's next word.
pub(super) const WORD_DEADLINE: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum LinkKind {
    /// timely's records and progress.
    Data,
    /// Epochs, acknowledgements and so on.
    Control,
}

/// What must be equal in all processes of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub job_id: String,
    pub generation: u64,
    pub processes: u32,
    pub workers: u32,
    /// `Plan::fingerprint`.
    pub plan: String,
}

impl Identity {
    /// Why a process that says `theirs` is none of this job: `Kind::Input` when it never will be.
    fn refusal(&self, theirs: &Identity) -> Option<Error> {
        if self.job_id != theirs.job_id {
            return Some(Error::input(format!("job {} is not job {}", theirs.job_id, self.job_id)));
        }
        if self.generation != theirs.generation {
            let (theirs, ours) = (theirs.generation, self.generation);
            return Some(Error::external(format!("start {theirs} of the job is not start {ours}")));
        }
        if (self.processes, self.workers) != (theirs.processes, theirs.workers) {
            return Some(Error::input(format!(
                "{} processes of {} workers are not {} processes of {}",
                theirs.processes, theirs.workers, self.processes, self.workers
            )));
        }
        (self.plan != theirs.plan).then(|| {
            Error::input("it has built another plan").hint("run the same program with the same arguments everywhere")
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    link: LinkKind,
    from: u32,
    to: u32,
    nonce: [u8; NONCE_BYTES],
    identity: Identity,
}

fn nonce() -> Result<[u8; NONCE_BYTES]> {
    let mut nonce = [0u8; NONCE_BYTES];
    SystemRandom::new().fill(&mut nonce).map_err(|_| Error::external("the operating system gives no random bytes"))?;
    Ok(nonce)
}

fn transcript(side: &str, hello: &[u8], challenge: &[u8], binding: &[u8]) -> Vec<u8> {
    [side.as_bytes(), &[WIRE_VERSION], &(hello.len() as u32).to_le_bytes(), hello, challenge, binding].concat()
}

fn read_exact<const N: usize>(stream: &mut Channel) -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    stream.read_exact(&mut bytes).map_err(broke)?;
    Ok(bytes)
}

fn read_bounded(stream: &mut Channel, max: usize) -> Result<Vec<u8>> {
    let length = usize::from(u16::from_le_bytes(read_exact(stream)?));
    if length > max {
        return Err(Error::external(format!("{length} bytes where at most {max} are sent")));
    }
    let mut bytes = vec![0u8; length];
    stream.read_exact(&mut bytes).map_err(broke)?;
    Ok(bytes)
}

fn broke(error: std::io::Error) -> Error {
    Error::external(format!("the handshake broke off: {error}"))
}

pub(super) fn deadlines(stream: &TcpStream, deadline: Option<Duration>) -> Result<()> {
    stream.set_read_timeout(deadline).and_then(|()| stream.set_write_timeout(deadline)).map_err(broke)
}

/// Opens a connection to process `to`. `Kind::Input` when it will never be accepted, anything else may be tried again.
pub(super) fn connect(
    stream: &mut Channel,
    link: LinkKind,
    (from, to): (usize, usize),
    identity: &Identity,
    secret: &Secret,
) -> Result<()> {
    deadlines(stream.socket(), Some(WORD_DEADLINE))?;
    let hello = Hello { link, from: from as u32, to: to as u32, nonce: nonce()?, identity: identity.clone() };
    let hello = postcard::to_stdvec(&hello).map_err(|e| Error::bug(format!("the greeting cannot be written: {e}")))?;
    let mut first = [&MAGIC[..], &[WIRE_VERSION], &(hello.len() as u16).to_le_bytes()].concat();
    first.extend_from_slice(&hello);
    stream.write_all(&first).map_err(broke)?;
    let challenge: [u8; NONCE_BYTES] = read_exact(stream)?;
    let theirs: [u8; MAC_BYTES] = read_exact(stream)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
    hmac::verify(&key, &transcript("accept", &hello, &challenge, stream.binding()), &theirs)
        .map_err(|_| Error::external("it has another join secret"))?;
    let mac = hmac::sign(&key, &transcript("connect", &hello, &challenge, stream.binding()));
    stream.write_all(mac.as_ref()).map_err(broke)?;
    let [answer] = read_exact(stream)?;
    if answer == ACCEPTED {
        return deadlines(stream.socket(), None);
    }
    let reason = read_bounded(stream, REASON_BYTES_MAX)?;
    let text = format!("it refuses this process: {}", String::from_utf8_lossy(&reason));
    Err(if answer == NEVER { Error::input(text) } else { Error::external(text) })
}

/// Answers a connection; which link of which process it is. An error means that it is to be closed.
pub(super) fn accept(
    stream: &mut Channel,
    me: usize,
    identity: &Identity,
    secret: &Secret,
) -> Result<(LinkKind, usize)> {
    deadlines(stream.socket(), Some(WORD_DEADLINE))?;
    let magic: [u8; 4] = read_exact(stream)?;
    if magic[0] == TLS_HANDSHAKE {
        return Err(Error::external("it speaks TLS, and this process does not")
            .hint("set TIDEMILL_PROCESS_TLS in all processes of the job, or in none"));
    }
    if magic != MAGIC {
        return Err(Error::external("it speaks another protocol"));
    }
    let [version] = read_exact(stream)?;
    if version != WIRE_VERSION {
        return Err(Error::external(format!("it speaks version {version}, this program version {WIRE_VERSION}")));
    }
    let bytes = read_bounded(stream, HELLO_BYTES_MAX)?;
    let hello: Hello = postcard::from_bytes(&bytes).map_err(|e| Error::external(format!("no greeting: {e}")))?;
    let challenge = nonce()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
    let mac = hmac::sign(&key, &transcript("accept", &bytes, &challenge, stream.binding()));
    stream.write_all(&[&challenge[..], mac.as_ref()].concat()).map_err(broke)?;
    let theirs: [u8; MAC_BYTES] = read_exact(stream)?;
    hmac::verify(&key, &transcript("connect", &bytes, &challenge, stream.binding()), &theirs)
        .map_err(|_| Error::external("it has another join secret"))?;
    let from = hello.from as usize;
    let expected = hello.to as usize == me && from > me && from < identity.processes as usize;
    let refusal = identity.refusal(&hello.identity).or_else(|| {
        let misdirected = !expected || (hello.link == LinkKind::Control && me != 0);
        let text = || format!("process {from} has no {:?} link to process {me}", hello.link);
        misdirected.then(|| Error::input(text()))
    });
    if let Some(refusal) = refusal {
        let mut text = refusal.to_string().into_bytes();
        text.truncate(REASON_BYTES_MAX);
        let code = if refusal.kind() == Kind::Input { NEVER } else { NOT_NOW };
        let answer = [&[code], &(text.len() as u16).to_le_bytes()[..], &text].concat();
        stream.write_all(&answer).map_err(broke)?;
        return Err(refusal);
    }
    stream.write_all(&[ACCEPTED]).map_err(broke)?;
    deadlines(stream.socket(), None)?;
    Ok((hello.link, from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn identity() -> Identity {
        Identity { job_id: "a".repeat(32), generation: 3, processes: 2, workers: 2, plan: "p".into() }
    }

    /// Both ends of a handshake.
    fn shake(connector: &Identity, theirs: &str) -> (Result<()>, Result<(LinkKind, usize)>) {
        shake_over(false, connector, theirs)
    }

    fn shake_over(tls: bool, connector: &Identity, theirs: &str) -> (Result<()>, Result<(LinkKind, usize)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let other = listener.accept().unwrap().0;
        let secret = Secret::new("0123456789abcdef").unwrap();
        let acceptor =
            std::thread::spawn(move || accept(&mut Channel::accept(other, tls).unwrap(), 0, &identity(), &secret));
        let mut stream = Channel::connect(stream, tls).unwrap();
        let secret = Secret::new(theirs).unwrap();
        let connected = connect(&mut stream, LinkKind::Data, (1, 0), connector, &secret);
        drop(stream);
        (connected, acceptor.join().unwrap())
    }

    #[test]
    fn processes_of_one_job_open_a_connection_and_others_do_not() {
        let (connected, accepted) = shake(&identity(), "0123456789abcdef");
        connected.unwrap();
        assert_eq!(accepted.unwrap(), (LinkKind::Data, 1));
        let (connected, accepted) = shake_over(true, &identity(), "0123456789abcdef");
        connected.unwrap();
        assert_eq!(accepted.unwrap(), (LinkKind::Data, 1));
        for tls in [false, true] {
            let (connected, accepted) = shake_over(tls, &identity(), "0123456789abcdeX");
            assert!(connected.unwrap_err().to_string().contains("another join secret"));
            assert!(accepted.is_err());
        }
        for (other, said, retried) in [
            (Identity { job_id: "b".repeat(32), ..identity() }, "is not job", false),
            (Identity { generation: 2, ..identity() }, "start 2 of the job is not start 3", true),
            (Identity { workers: 1, ..identity() }, "are not 2 processes of 2", false),
            (Identity { plan: "q".into(), ..identity() }, "another plan", false),
        ] {
            let error = shake(&other, "0123456789abcdef").0.unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(error.kind() != Kind::Input, retried, "{error}");
        }
    }

    /// Two ends that know the secret, and somebody between them with a TLS session to each who hands everything on.
    #[test]
    fn somebody_between_two_tls_sessions_is_found_out() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (middle, end) = (listen(), listen());
        let (to_middle, to_end) = (middle.local_addr().unwrap(), end.local_addr().unwrap());
        let secret = || Secret::new("0123456789abcdef").unwrap();
        std::thread::scope(|scope| {
            let acceptor = scope.spawn(|| {
                let mut channel = Channel::accept(end.accept().unwrap().0, true).unwrap();
                accept(&mut channel, 0, &identity(), &secret())
            });
            scope.spawn(|| {
                let from = Channel::accept(middle.accept().unwrap().0, true).unwrap();
                let to = Channel::connect(TcpStream::connect(to_end).unwrap(), true).unwrap();
                let ways = [(from.try_clone().unwrap(), to.try_clone().unwrap()), (to, from)];
                for (mut from, mut to) in ways {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            });
            let mut channel = Channel::connect(TcpStream::connect(to_middle).unwrap(), true).unwrap();
            let connected = connect(&mut channel, LinkKind::Data, (1, 0), &identity(), &secret());
            channel.shutdown(std::net::Shutdown::Both).unwrap();
            assert!(connected.unwrap_err().to_string().contains("another join secret"));
            assert!(acceptor.join().unwrap().is_err());
        });
    }

    #[test]
    fn what_a_stranger_sends_is_refused_and_never_a_panic() {
        let hello = |bytes: &[u8]| [b"TMLK\x03".as_slice(), &(bytes.len() as u16).to_le_bytes(), bytes].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"TMLK\x04".to_vec(),
            b"TMLK\x03\xff\xff".to_vec(),
            vec![22, 3, 1, 0, 200],
            hello(&[]),
            hello(&[0xff; 1000]),
            [hello(&[0; 300]), vec![7; 32]].concat(),
            Vec::new(),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut other = Channel::plain(listener.accept().unwrap().0);
            stream.write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let secret = Secret::new("0123456789abcdef").unwrap();
            assert!(accept(&mut other, 0, &identity(), &secret).is_err(), "{bytes:?}");
        }
    }
}
