//! A connection between two processes as timely sees it. timely trusts what it reads and panics when a connection
//! breaks; so what comes in is checked here, message by message, before timely sees it, and a connection that breaks
//! fails the job and then looks to timely like one that was closed in good order, once no worker reads any more.

use std::io::{Read, Result, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::Error;
use timely::communication::allocator::zero_copy::stream::Stream;

use super::super::control::JobControl;
use super::channel::Channel;

/// timely's header: channel, source, first and last target, length, number; eight bytes each, most significant first.
const HEADER_BYTES: usize = 48;

/// No message between two workers is longer than this.
const MESSAGE_BYTES_MAX: u64 = 1 << 30;

/// So long the control link may take to say why the other side has closed a connection.
const BETTER_REASON: Duration = Duration::from_millis(500);

/// What is read at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// Set when the workers of this process have ended.
#[derive(Default)]
pub(crate) struct Ended {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    pub fn set(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for the end, at most this long; whether it is there.
    pub fn wait(&self, at_most: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(ended, at_most, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What both ends of a connection know.
pub(crate) struct Link {
    pub control: Arc<JobControl>,
    pub ended: Arc<Ended>,
    /// The other process, for messages.
    pub name: String,
    /// The other process's workers, and this one's.
    pub theirs: Range<u64>,
    pub ours: Range<u64>,
}

impl Link {
    /// The job fails for this connection's sake, unless the other side says better on the control link why it ends.
    fn lost(&self, why: &str) {
        if !self.control.failed() && !self.ended.wait(BETTER_REASON) && !self.control.failed() {
            self.control.fail(Error::external(format!("{} is lost: {why}", self.name)));
        }
    }
}

/// A checked connection.
pub(crate) struct Transport {
    socket: Channel,
    link: Arc<Link>,
    buffer: Vec<u8>,
    /// Checked and not yet handed over.
    checked: Range<usize>,
    /// Up to here `buffer` is filled; behind `checked` stands the beginning of a header.
    filled: usize,
    /// Bytes of the message under way that are not checked off yet.
    message_rest: u64,
    /// Zeros and a closing header still to be handed over, after which nothing comes.
    closing: Option<u64>,
}

impl Transport {
    pub fn new(socket: Channel, link: Arc<Link>) -> Self {
        Transport { socket, link, buffer: Vec::new(), checked: 0..0, filled: 0, message_rest: 0, closing: None }
    }

    /// Reads on and checks. An error says what is wrong.
    fn fill(&mut self) -> std::result::Result<(), String> {
        self.buffer.resize(BUFFER_BYTES, 0);
        self.buffer.copy_within(self.checked.end..self.filled, 0);
        self.filled -= self.checked.end;
        self.checked = 0..0;
        let read = loop {
            match self.socket.read(&mut self.buffer[self.filled..]) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.to_string()),
                Ok(0) => return Err("it closed the connection".to_string()),
                Ok(read) => break read,
            }
        };
        self.filled += read;
        self.check()
    }

    /// Moves `checked` on over all whole headers and what follows them.
    fn check(&mut self) -> std::result::Result<(), String> {
        let mut at = self.checked.end;
        loop {
            let step = self.message_rest.min((self.filled - at) as u64);
            (at, self.message_rest) = (at + step as usize, self.message_rest - step);
            self.checked.end = at;
            if self.message_rest > 0 || self.filled - at < HEADER_BYTES {
                return Ok(());
            }
            let word = |index: usize| {
                let mut word = [0u8; 8];
                word.copy_from_slice(&self.buffer[at + 8 * index..at + 8 * (index + 1)]);
                u64::from_be_bytes(word)
            };
            let (source, targets, length) = (word(1), word(2)..word(3), word(4));
            if length == 0 {
                if self.filled - at > HEADER_BYTES {
                    return Err("it sent more behind its end".to_string());
                }
                self.closing = Some(0);
                return Ok(());
            }
            let ours = &self.link.ours;
            let addressed = targets.start < targets.end && targets.start >= ours.start && targets.end <= ours.end;
            if !addressed || !self.link.theirs.contains(&source) || length > MESSAGE_BYTES_MAX {
                return Err("it sent bytes that are no message of this job".to_string());
            }
            at += HEADER_BYTES;
            self.checked.end = at;
            self.message_rest = length;
        }
    }

    /// The rest of a message under way as zeros, and the header that says that nothing follows.
    fn close(&mut self, into: &mut [u8]) -> usize {
        let rest = self.closing.unwrap_or(0);
        let step = (into.len() as u64).min(rest + HEADER_BYTES as u64 - self.filled as u64) as usize;
        into[..step].fill(0);
        // `filled` counts the closing header's bytes from here on.
        let of_message = (step as u64).min(rest);
        self.closing = Some(rest - of_message);
        self.filled += step - of_message as usize;
        step
    }
}

impl Read for Transport {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            if !self.checked.is_empty() {
                let step = into.len().min(self.checked.len());
                into[..step].copy_from_slice(&self.buffer[self.checked.start..self.checked.start + step]);
                self.checked.start += step;
                return Ok(step);
            }
            if self.closing.is_some() {
                return Ok(self.close(into));
            }
            let outcome = self.fill();
            if let Err(why) = &outcome {
                self.link.lost(why);
                // The zeros that end a message cut off must reach no worker.
                while !self.link.ended.wait(Duration::from_secs(1)) {}
                self.closing = Some(self.message_rest);
            }
            if self.closing.is_some() {
                self.filled = 0;
            }
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        // A job that fails drops its capabilities as they stand. If others heard of that progress, they would take an
        // epoch for complete whose records never came.
        if self.link.control.failed() {
            return Ok(bytes.len());
        }
        match self.socket.write(bytes) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                self.link.lost(&e.to_string());
                Ok(bytes.len())
            }
            Ok(0) if !bytes.is_empty() => {
                self.link.lost("it takes nothing more");
                Ok(bytes.len())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Stream for Transport {
    fn try_clone(&self) -> Result<Self> {
        Ok(Transport::new(self.socket.try_clone()?, self.link.clone()))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        self.socket.socket().set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        // A connection that is gone already is shut down well enough.
        let _ = self.socket.shutdown(how);
        Ok(())
    }
}
