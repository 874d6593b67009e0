//! Sends bulks, one at a time, and says which entries shall go again.

use std::collections::HashSet;

use tidemill_core::{DeadLetter, Error, Kind, Result};

use super::action::Entry;
use super::answer::{self, Verdict};
use crate::async_sink::Submit;
use crate::endpoint::{Answer, Client, Refused};

/// So much of an answer is read: a few hundred bytes an entry.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// So often an action is tried that the server fails at, before it counts as refused.
const FAULTS_MAX: u32 = 9;

/// A node of the cluster, or whatever stands in front of it.
#[derive(Clone)]
pub(super) struct Host {
    /// Where bulks go.
    pub url: String,
    /// What people are told of it.
    pub title: String,
}

/// Sends bulks to one host after the other: to the next when one is away or says that it cannot.
pub(super) struct Bulks {
    pub client: Client,
    pub hosts: Vec<Host>,
    /// The host in use.
    pub at: usize,
    pub refused: Option<Refused>,
    /// Bulks of more than one entry have at most so many bytes: half of what was too large once.
    pub bytes_max: usize,
    pub body: Vec<u8>,
}

/// What became of a bulk.
enum Sent {
    /// It was answered entry by entry.
    Told(Vec<answer::Item>),
    /// All of it arrived.
    Arrived,
    TooLarge(String),
    /// Something in it could not be read.
    Unread(String),
}

impl Bulks {
    fn send(&mut self, entries: &[Entry]) -> Result<Sent> {
        self.body.clear();
        entries.iter().for_each(|entry| self.body.extend_from_slice(entry.lines()));
        let host = &self.hosts[self.at];
        let sent = match self.client.post(&host.title, &host.url, &self.body, ANSWER_BYTES_MAX) {
            Ok(answer) => understood(&host.title, answer, entries.len()),
            Err(error) => Err(error),
        };
        if sent.as_ref().is_err_and(|error| error.kind() == Kind::External) {
            self.at = (self.at + 1) % self.hosts.len();
        }
        sent
    }

    /// How many of the entries go into one bulk, `most` of them at most.
    fn fitting(&self, entries: &[Entry], most: usize) -> usize {
        let mut bytes = 0usize;
        let fits = |entry: &&Entry| {
            bytes = bytes.saturating_add(entry.lines().len());
            bytes <= self.bytes_max
        };
        entries.iter().take(most).take_while(fits).count().max(1)
    }

    /// The entries that shall go again: those that can arrive later, and behind each of them all that is about the same
    /// document, arrived or not, so that the last of them has the last word.
    fn settle(&self, entries: &[Entry], items: &[answer::Item]) -> Result<Vec<usize>> {
        let mut again = Vec::new();
        let mut why = None;
        let mut waiting = HashSet::new();
        for (at, (entry, item)) in entries.iter().zip(items).enumerate() {
            let document = entry.id.as_deref().map(|id| (entry.index.as_str(), id));
            if document.is_some_and(|document| waiting.contains(&document)) {
                again.push(at);
                continue;
            }
            match Verdict::of(entry, item) {
                Verdict::Arrived => {}
                Verdict::Failed(said) if entry.faults.replace(entry.faults.get() + 1) + 1 >= FAULTS_MAX => {
                    self.refuse(entry, &said)?;
                }
                Verdict::Again(said) | Verdict::Failed(said) => {
                    again.push(at);
                    waiting.extend(document);
                    why.get_or_insert_with(|| format!("`{}` has to wait: {said}", entry.place()));
                }
                Verdict::Refused(said) => self.refuse(entry, &said)?,
                Verdict::Denied(said) => {
                    let text = format!("{} does not take `{}`: {said}", self.title(), entry.place());
                    return Err(
                        Error::input(text).hint("give the sink's user the right to write, and lift the index's block")
                    );
                }
            }
        }
        match why {
            // An error keeps the reason, if it is to be told one day.
            Some(why) if again.len() == entries.len() => Err(Error::external(format!("{}: {why}", self.title()))),
            _ => Ok(again),
        }
    }

    fn title(&self) -> &str {
        &self.hosts[self.at].title
    }

    fn refuse(&self, entry: &Entry, said: &str) -> Result<()> {
        let reason = format!("{} refused `{}`: {said}", self.title(), entry.place());
        match &self.refused {
            Some(take) => take(DeadLetter::new(self.title(), entry.place(), reason, entry.document())),
            None => Err(Error::input(reason).hint("let `on_refused` take such documents, or correct the mapping")),
        }
    }
}

/// What an answer means for a bulk of so many entries.
fn understood(title: &str, answer: Answer, entries: usize) -> Result<Sent> {
    let status = answer.status;
    let reason = answer.text.as_deref().ok().and_then(answer::reason).unwrap_or_else(|| answer.reason());
    let said = format!("the {title} answered {status}: {reason}");
    let url = "correct the URL: it is where the server answers itself, with the prefix before `_bulk` if there is one";
    match status {
        200..=299 => {
            let text = match answer.text {
                Ok(text) => text,
                Err(ureq::Error::BodyExceedsLimit(_)) => {
                    return Err(Error::input(format!("the {title} answered more than {ANSWER_BYTES_MAX} bytes"))
                        .hint("take fewer entries in a batch"));
                }
                Err(error) => return Err(Error::external(format!("cannot read the answer of the {title}: {error}"))),
            };
            let bulk: answer::Bulk = serde_json::from_str(&text).map_err(|error| {
                Error::input(format!("the {title} answered what no bulk is answered with: {error}")).hint(url)
            })?;
            if !bulk.errors {
                return Ok(Sent::Arrived);
            }
            let items = bulk.items();
            match items.len() == entries {
                true => Ok(Sent::Told(items)),
                false => Err(Error::input(format!("the {title} answered for {} of {entries} entries", items.len()))),
            }
        }
        408 | 425 | 429 | 500..=599 => Err(Error::external(said)),
        401 | 403 => Err(Error::input(said).hint("give the sink a user, or an API key, that may write")),
        413 => Ok(Sent::TooLarge(format!("{status}: {reason}"))),
        400 if reason.starts_with("no handler found") => Err(Error::input(said).hint(url)),
        400 => Ok(Sent::Unread(format!("{status}: {reason}"))),
        _ => Err(Error::input(said).hint(url)),
    }
}

impl Submit for Bulks {
    type Entry = Entry;

    fn bytes(&self, entry: &Entry) -> usize {
        entry.lines().len()
    }

    fn submit(&mut self, entries: &[Entry]) -> Result<Vec<usize>> {
        let (mut done, mut most) = (0, usize::MAX);
        while let Some(rest) = entries.get(done..).filter(|rest| !rest.is_empty()) {
            let bulk = &rest[..self.fitting(rest, most)];
            let again = self.send(bulk).and_then(|sent| match sent {
                Sent::Arrived => Ok(Some(Vec::new())),
                Sent::Told(items) => self.settle(bulk, &items).map(Some),
                Sent::TooLarge(_) if bulk.len() > 1 => {
                    self.bytes_max = self.body.len() / 2;
                    Ok(None)
                }
                // Which of them it is about is found by halves.
                Sent::Unread(_) if bulk.len() > 1 => {
                    most = bulk.len() / 2;
                    Ok(None)
                }
                Sent::TooLarge(said) | Sent::Unread(said) => {
                    most = usize::MAX;
                    bulk.iter().try_for_each(|entry| self.refuse(entry, &said)).map(|()| Some(Vec::new()))
                }
            });
            match again {
                Ok(None) => {}
                Ok(Some(again)) if again.is_empty() => done += bulk.len(),
                // Later ones wait, so that they overtake nothing.
                Ok(Some(again)) => {
                    let behind = done + bulk.len()..entries.len();
                    return Ok(again.into_iter().map(|at| done + at).chain(behind).collect());
                }
                // Those before have arrived. An error would send them again.
                Err(error) if done > 0 && matches!(error.kind(), Kind::External | Kind::Full) => {
                    return Ok((done..entries.len()).collect());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }
}
