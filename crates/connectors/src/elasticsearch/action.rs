//! What is done to a document, and how a bulk says it: a line of what to do and, but for deletions, a line with the document.

use std::cell::Cell;

use serde::Serialize;
use tidemill_core::{Error, Result};

/// So often the server itself tries an update again that met another writer.
const RETRY_ON_CONFLICT: u32 = 3;

/// One change of one document.
#[derive(Debug, Clone)]
pub struct Action {
    operation: Operation,
    index: String,
    id: Option<String>,
    routing: Option<String>,
    pipeline: Option<String>,
    version: Option<u64>,
    upsert: bool,
    /// JSON on one line, or why there is none.
    document: Result<Vec<u8>, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    Index,
    Create,
    Update,
    Delete,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Index => "index",
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }
}

impl Action {
    fn new(operation: Operation, index: String, id: Option<String>, document: Result<Vec<u8>, String>) -> Action {
        Action { operation, index, id, routing: None, pipeline: None, version: None, upsert: true, document }
    }

    /// Writes the whole document of this id, whatever was there. Twice changes nothing.
    pub fn index(index: impl Into<String>, id: impl Into<String>, document: &impl Document) -> Action {
        Action::new(Operation::Index, index.into(), Some(id.into()), document.line())
    }

    /// Adds a document under an id the server makes up. After a restart it may be added twice. The only action for data streams.
    pub fn append(index: impl Into<String>, document: &impl Document) -> Action {
        Action::new(Operation::Create, index.into(), None, document.line())
    }

    /// Writes the document where there is none of this id yet: the first one stays. Twice changes nothing.
    pub fn create(index: impl Into<String>, id: impl Into<String>, document: &impl Document) -> Action {
        Action::new(Operation::Create, index.into(), Some(id.into()), document.line())
    }

    /// Changes the fields that `part` has; where there is no document yet, `part` becomes it. Twice changes nothing.
    pub fn update(index: impl Into<String>, id: impl Into<String>, part: &impl Document) -> Action {
        Action::new(Operation::Update, index.into(), Some(id.into()), part.line())
    }

    /// Removes the document of this id. It is no error that there is none.
    pub fn delete(index: impl Into<String>, id: impl Into<String>) -> Action {
        Action::new(Operation::Delete, index.into(), Some(id.into()), Ok(Vec::new()))
    }

    /// What decides about the shard in place of the id.
    pub fn routing(mut self, routing: impl Into<String>) -> Action {
        self.routing = Some(routing.into());
        self
    }

    /// The ingest pipeline the document goes through. Not for `update` and `delete`.
    pub fn pipeline(mut self, pipeline: impl Into<String>) -> Action {
        self.pipeline = Some(pipeline.into());
        self
    }

    /// The document's version (`external_gte`): the server passes over an `index` or `delete` that is older than what is
    /// there, so that order of arrival does not matter. For instance the event time in ms. Below 2⁶³.
    pub fn version(mut self, version: u64) -> Action {
        self.version = Some(version);
        self
    }

    /// An `update` of a document that is not there is refused, in place of making it.
    pub fn existing_only(mut self) -> Action {
        self.upsert = false;
        self
    }
}

/// An action is a list of one, so that a function may return one, several, or none.
impl IntoIterator for Action {
    type Item = Action;
    type IntoIter = std::iter::Once<Action>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}

/// What a document can be: all that serde can write, and [`RawJson`].
pub trait Document {
    /// As JSON on one line, or why it cannot be.
    fn line(&self) -> Result<Vec<u8>, String>;
}

impl<T: Serialize> Document for T {
    fn line(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|e| e.to_string())
    }
}

/// A document that is JSON already, such as a record of a JSON topic. Whether it is, the server finds out.
#[derive(Debug, Clone, Copy)]
pub struct RawJson<'a>(pub &'a [u8]);

impl Document for RawJson<'_> {
    /// Strings of JSON have no line breaks, so those there are stand between values.
    fn line(&self) -> Result<Vec<u8>, String> {
        Ok(self.0.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect())
    }
}

/// An action as it is sent.
pub(super) struct Entry {
    pub operation: Operation,
    pub index: String,
    pub id: Option<String>,
    pub versioned: bool,
    /// How often the server has failed at it.
    pub faults: Cell<u32>,
    lines: Vec<u8>,
    document_from: usize,
}

#[derive(Serialize)]
struct Head<'a> {
    _index: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    _id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routing: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_on_conflict: Option<u32>,
}

impl Entry {
    /// The lines of an action; an error names what the service could not understand.
    pub fn new(action: Action) -> Result<Entry> {
        let Action { operation, index, id, routing, pipeline, version, upsert, document } = action;
        let name = operation.name();
        let place = place(&index, id.as_deref());
        let not_with = |what: &str| Error::input(format!("{name} of `{place}`: {what}"));
        let updates = operation == Operation::Update;
        if version.is_some() && !matches!(operation, Operation::Index | Operation::Delete) {
            return Err(not_with("only index and delete have a version"));
        }
        if pipeline.is_some() && (updates || operation == Operation::Delete) {
            return Err(not_with("only index, create and append go through a pipeline"));
        }
        let document = document.map_err(|e| not_with(&format!("the document cannot be written as JSON: {e}")))?;
        let head = Head {
            _index: &index,
            _id: id.as_deref(),
            routing: routing.as_deref(),
            pipeline: pipeline.as_deref(),
            version,
            version_type: version.map(|_| "external_gte"),
            retry_on_conflict: updates.then_some(RETRY_ON_CONFLICT),
        };
        let head = serde_json::to_string(&head).map_err(|e| not_with(&e.to_string()))?;
        let mut lines = format!("{{\"{name}\":{head}}}\n").into_bytes();
        let document_from = lines.len();
        match operation {
            Operation::Delete => {}
            Operation::Update => {
                lines.extend_from_slice(b"{\"doc\":");
                lines.extend_from_slice(&document);
                lines.extend_from_slice(format!(",\"doc_as_upsert\":{upsert}}}\n").as_bytes());
            }
            Operation::Index | Operation::Create => {
                lines.extend_from_slice(&document);
                lines.push(b'\n');
            }
        }
        Ok(Entry { operation, index, id, versioned: version.is_some(), faults: Cell::new(0), lines, document_from })
    }

    /// Its part of a bulk.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// The document, or an update's part with what is said about it; nothing for a deletion.
    pub fn document(&self) -> &[u8] {
        self.lines.get(self.document_from..).unwrap_or_default().trim_ascii_end()
    }

    /// Which document it is about, for people.
    pub fn place(&self) -> String {
        place(&self.index, self.id.as_deref())
    }
}

fn place(index: &str, id: Option<&str>) -> String {
    format!("{index}/{}", id.unwrap_or("(a new id)"))
}
