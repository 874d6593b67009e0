//! What the processes of a job say to each other on a control link: a length of four bytes, then the message by
//! postcard. The version was settled by the handshake. Nothing read here can panic: a message that is too long or cannot
//! be read is an error, and the link's other end is lost.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tidemill_core::report::SubtaskReport;
use tidemill_core::{Error, Kind, Result};

use super::channel::Channel;
use crate::checkpoint::writer::{AcknowledgedOperator, Acknowledgement, PartTimes};
use crate::runtime::board::{Mark, StageEnd};
use crate::runtime::user_metrics::Told;
use crate::state::{EntryShapes, Section};

/// The longest message, in bytes: an acknowledgement carries small state of one task, the rest stands in files.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// From the first process to another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToMember {
    /// Nothing to say; the sender lives.
    Alive,
    /// The first message: what to start from.
    Start(Start),
    /// Sources close every epoch up to this one; its files go to `folder`.
    Trigger { epoch: u64, savepoint: bool, last: bool, drain: bool, folder: Option<Place> },
    /// This epoch is committed.
    Committed(u64),
    /// The job ends with a savepoint.
    Suspended,
    /// Watermarks of the sources of other processes.
    Marks(Vec<(u32, Mark)>),
    /// Sources of other processes have read a stage to its end.
    Stages(Vec<(u32, StageEnd)>),
    /// The job has failed.
    Failed(Failure),
    /// Somebody cancels the job.
    Cancel,
    /// The job has ended; the link closes.
    Done,
}

/// From another process to the first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToLeader {
    /// Nothing to say; the sender lives.
    Alive,
    Acknowledged(WireAcknowledgement),
    OutputLost(Failure),
    /// Watermarks of the sender's sources.
    Marks(Vec<(u32, Mark)>),
    /// The sender's sources have read a stage to its end.
    Stages(Vec<(u32, StageEnd)>),
    /// The counters of the sender's subtasks: (task, subtask, report as JSON).
    Reports(Vec<(u32, u32, Vec<u8>)>),
    /// What the functions of the job's user count in the sender.
    UserMetrics(Told),
    /// The job has failed in the sender.
    Failed(Failure),
    /// The sender's workers have ended; nothing more comes.
    Ended,
}

/// What all processes of one start have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Counts the starts of the job, for names of files.
    pub attempt: u64,
    /// The checkpoint to restore, with its epoch.
    pub restore: Option<(Place, u64)>,
    /// A word that the first process has left in the checkpoint folder, to be found there by the others.
    pub word: Option<String>,
}

/// A folder that all processes see: below the checkpoint folder, which each may call by another name, or elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    Checkpoints(PathBuf),
    Elsewhere(PathBuf),
}

impl Place {
    pub fn of(folder: &Path, checkpoints: Option<&Path>) -> Self {
        match checkpoints.and_then(|root| folder.strip_prefix(root).ok()) {
            Some(below) => Place::Checkpoints(below.to_path_buf()),
            None => Place::Elsewhere(folder.to_path_buf()),
        }
    }

    /// The folder as this process calls it.
    pub fn here(&self, checkpoints: Option<&Path>) -> Result<PathBuf> {
        match self {
            Place::Elsewhere(folder) => Ok(folder.clone()),
            // No way leads out of the folder.
            Place::Checkpoints(below) if below.components().all(|c| matches!(c, std::path::Component::Normal(_))) => {
                let root = checkpoints.ok_or_else(|| {
                    Error::input("the first process keeps checkpoints in a folder, this one has none")
                        .hint("set the same checkpoint folder in all processes")
                })?;
                Ok(root.join(below))
            }
            Place::Checkpoints(below) => Err(Error::external(format!("`{}` is no checkpoint", below.display()))),
        }
    }
}

/// An error on its way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    kind: u8,
    message: String,
}

/// No message of an error is longer on the wire.
const FAILURE_BYTES_MAX: usize = 64 * 1024;

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let kind = match error.kind() {
            Kind::Input => 0,
            Kind::External => 1,
            Kind::Full => 2,
            Kind::Corrupt => 3,
            Kind::Bug => 4,
        };
        let mut message = error.to_string();
        message.truncate((0..=FAILURE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0));
        Failure { kind, message }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { kind, message } = failure;
        match kind {
            0 => Error::input(message),
            1 => Error::external(message),
            2 => Error::full(message),
            3 => Error::corrupt(message),
            // Its text says already that it is a bug.
            _ => Error::external(message),
        }
    }
}

/// A subtask's answer for an epoch. Places of files travel as JSON, as the manifest has them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireAcknowledgement {
    epoch: u64,
    pub task: u32,
    pub subtask: u32,
    operators: Vec<WireOperator>,
    times: PartTimes,
    failure: Option<Failure>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct WireOperator {
    uid: String,
    inline: Vec<Section>,
    places: Vec<u8>,
    shapes: EntryShapes,
    tokens: Vec<Vec<u8>>,
    written_bytes: u64,
}

impl WireAcknowledgement {
    /// `keeps` tells whether the epoch's state is kept on disk; otherwise there is no need to send it.
    pub fn new(acknowledgement: Acknowledgement, keeps: bool) -> Result<Self> {
        let Acknowledgement { epoch, task, subtask, operators, times, failure } = acknowledgement;
        let operators = operators.into_iter().map(|operator| WireOperator::new(operator, keeps));
        Ok(WireAcknowledgement {
            epoch,
            task: task as u32,
            subtask: subtask as u32,
            operators: operators.collect::<Result<_>>()?,
            times,
            failure: failure.as_ref().map(Failure::from),
        })
    }

    pub fn into_acknowledgement(self) -> Result<Acknowledgement> {
        Ok(Acknowledgement {
            epoch: self.epoch,
            task: self.task as usize,
            subtask: self.subtask as usize,
            operators: self.operators.into_iter().map(WireOperator::into_operator).collect::<Result<_>>()?,
            times: self.times,
            failure: self.failure.map(Error::from),
        })
    }
}

impl WireOperator {
    fn new(operator: AcknowledgedOperator, keeps: bool) -> Result<Self> {
        Ok(WireOperator {
            uid: operator.uid,
            inline: operator.inline.into_iter().filter(|_| keeps).collect(),
            places: serde_json::to_vec(&operator.places)
                .map_err(|e| Error::bug(format!("places of state cannot be written as JSON: {e}")))?,
            shapes: operator.shapes,
            tokens: operator.tokens,
            written_bytes: operator.written_bytes,
        })
    }

    fn into_operator(self) -> Result<AcknowledgedOperator> {
        Ok(AcknowledgedOperator {
            uid: self.uid,
            inline: self.inline,
            places: serde_json::from_slice(&self.places)
                .map_err(|e| Error::external(format!("places of state cannot be read: {e}")))?,
            shapes: self.shapes,
            tokens: self.tokens,
            written_bytes: self.written_bytes,
        })
    }
}

/// A subtask's counters for the wire.
pub(super) fn report_bytes(report: &SubtaskReport) -> Vec<u8> {
    // Plain numbers: there is nothing that could not be written.
    serde_json::to_vec(report).unwrap_or_default()
}

/// Sends a message.
pub(super) fn send<M: Serialize>(stream: &mut Channel, message: &M) -> Result<()> {
    let body = postcard::to_stdvec(message).map_err(|e| Error::bug(format!("a message cannot be written: {e}")))?;
    if body.len() > MESSAGE_BYTES_MAX {
        let text = format!("a message of {} bytes; at most {MESSAGE_BYTES_MAX} are sent", body.len());
        return Err(Error::full(text).hint("set a checkpoint folder that all processes share"));
    }
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).map_err(|e| Error::external(e.to_string()))
}

/// Receives a message; an error also when none comes within the socket's read time-out.
pub(super) fn receive<M: DeserializeOwned>(stream: &mut Channel) -> Result<M> {
    let said = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Error::external("it is silent"),
        std::io::ErrorKind::UnexpectedEof => Error::external("it closed the connection"),
        _ => Error::external(e.to_string()),
    };
    let mut length = [0u8; 4];
    stream.read_exact(&mut length).map_err(said)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(Error::external(format!("it announces {length} bytes, which is no message")));
    }
    // Memory follows what really comes, not what was announced.
    let mut body = Vec::new();
    let read = stream.take(length as u64).read_to_end(&mut body).map_err(said)?;
    if read < length {
        return Err(Error::external("it closed the connection"));
    }
    postcard::from_bytes(&body).map_err(|e| Error::external(format!("its message cannot be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::SectionKind;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (Channel, Channel) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Channel::plain(one), Channel::plain(listener.accept().unwrap().0))
    }

    #[test]
    fn an_acknowledgement_survives_the_wire() {
        let section = Section::new("s", SectionKind::Keyed, 2, vec![1, 2, 3]);
        let operator = AcknowledgedOperator {
            uid: "u".into(),
            inline: vec![section],
            tokens: vec![vec![9]],
            ..Default::default()
        };
        let failure = Some(Error::full("the disk is full"));
        let sent = Acknowledgement {
            epoch: 7,
            task: 1,
            subtask: 3,
            operators: vec![operator],
            times: PartTimes::default(),
            failure,
        };
        let (mut one, mut two) = pair();
        send(&mut one, &ToLeader::Acknowledged(WireAcknowledgement::new(sent, true).unwrap())).unwrap();
        let ToLeader::Acknowledged(got) = receive(&mut two).unwrap() else { panic!("another message") };
        let got = got.into_acknowledgement().unwrap();
        assert_eq!((got.epoch, got.task, got.subtask), (7, 1, 3));
        assert_eq!(got.operators[0].inline[0].bytes, [1, 2, 3]);
        assert_eq!(got.operators[0].tokens, [[9]]);
        assert_eq!(got.failure.map(|error| error.kind()), Some(Kind::Full));
    }

    #[test]
    fn bad_bytes_are_an_error() {
        for bytes in [vec![255; 4], vec![4, 0, 0, 0, 99, 1, 2, 3], vec![4, 0, 0, 0, 1], vec![1, 0]] {
            let (mut one, mut two) = pair();
            one.write_all(&bytes).unwrap();
            drop(one);
            assert!(receive::<ToMember>(&mut two).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_checkpoint_is_found_below_each_process_s_own_folder_and_nowhere_else() {
        let place = Place::of(Path::new("/a/checkpoints/chk-3"), Some(Path::new("/a/checkpoints")));
        assert_eq!(place.here(Some(Path::new("/b"))).unwrap(), Path::new("/b/chk-3"));
        assert!(place.here(None).unwrap_err().to_string().contains("this one has none"));
        assert!(Place::Checkpoints("../x".into()).here(Some(Path::new("/b"))).is_err());
        let place = Place::of(Path::new("/s/savepoint-1"), Some(Path::new("/a/checkpoints")));
        assert_eq!(place.here(None).unwrap(), Path::new("/s/savepoint-1"));
    }
}
