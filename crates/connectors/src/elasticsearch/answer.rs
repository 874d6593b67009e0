//! What `_bulk` answers: of the whole, or entry by entry, and what follows from it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::action::{Entry, Operation};
use crate::endpoint::begin;

/// The answer to a bulk that was read: whether anything failed, and of each entry its status.
#[derive(Deserialize)]
pub(super) struct Bulk {
    pub errors: bool,
    /// One operation each, by its name.
    #[serde(default)]
    items: Vec<BTreeMap<String, Item>>,
}

impl Bulk {
    /// What was said of each entry, in their order.
    pub fn items(self) -> Vec<Item> {
        self.items.into_iter().filter_map(|mut item| item.pop_first().map(|(_, item)| item)).collect()
    }
}

/// What was said of one entry.
#[derive(Deserialize)]
pub(super) struct Item {
    status: u16,
    error: Option<Fault>,
}

/// An error as the server tells it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Fault {
    Told {
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(default)]
        reason: Option<String>,
        #[serde(default)]
        caused_by: Option<Box<Fault>>,
    },
    Text(String),
    Other(serde::de::IgnoredAny),
}

impl Fault {
    fn text(&self) -> String {
        match self {
            Fault::Told { kind, reason, caused_by } => {
                let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                let cause = caused_by.as_ref().map(|cause| format!(" ({})", cause.text())).unwrap_or_default();
                format!("{kind}{reason}{cause}")
            }
            Fault::Text(text) => text.clone(),
            Fault::Other(_) => "no reason given".to_string(),
        }
    }

    fn kind(&self) -> &str {
        match self {
            Fault::Told { kind, .. } => kind,
            Fault::Text(_) | Fault::Other(_) => "",
        }
    }
}

/// The reason in an answer about a whole request, if there is one.
pub(super) fn reason(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Whole {
        error: Fault,
    }
    serde_json::from_str::<Whole>(text).ok().map(|whole| begin(&whole.error.text()))
}

/// What becomes of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Arrived,
    /// It may arrive later.
    Again(String),
    /// The server failed at it: it may be in trouble, or it is the document.
    Failed(String),
    /// It never will.
    Refused(String),
    /// None will, until something is set right.
    Denied(String),
}

impl Verdict {
    pub fn of(entry: &Entry, item: &Item) -> Verdict {
        let text = || item.error.as_ref().map(Fault::text).unwrap_or_default();
        let said = || format!("{}: {}", item.status, begin(&text()));
        let kind = item.error.as_ref().map(Fault::kind).unwrap_or_default();
        let node_away = kind.starts_with("node_") || kind.ends_with("transport_exception");
        match (item.status, entry.operation) {
            (200..=299, _) => Verdict::Arrived,
            // It is not there, and shall not be.
            (404, Operation::Delete) => Verdict::Arrived,
            // There is one already, of this or a newer version: the first write of this entry, or what is to win.
            (409, Operation::Create) => Verdict::Arrived,
            (409, _) if entry.versioned => Verdict::Arrived,
            // Others change the same document at the same time.
            (409, Operation::Update) => Verdict::Again(said()),
            (408 | 429 | 501..=599, _) => Verdict::Again(said()),
            (500, _) if node_away => Verdict::Again(said()),
            (500, _) => Verdict::Failed(said()),
            _ if kind.ends_with("rejected_execution_exception") => Verdict::Again(said()),
            (401 | 403, _) => Verdict::Denied(said()),
            _ => Verdict::Refused(said()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::action::Action;
    use super::*;

    fn verdict(action: Action, item: serde_json::Value) -> Verdict {
        let entry = Entry::new(action).expect("an entry");
        Verdict::of(&entry, &serde_json::from_value(item).expect("an item"))
    }

    #[test]
    fn statuses_mean_what_the_operation_makes_of_them() {
        let (index, update) = (|| Action::index("i", "1", &0), || Action::update("i", "1", &0));
        let status = |status: u16| serde_json::json!({ "status": status, "error": { "type": "t", "reason": "r" } });
        let again = |code: u16| Verdict::Again(format!("{code}: t: r"));
        let refused = |code: u16| Verdict::Refused(format!("{code}: t: r"));
        for code in [408, 429, 502, 503, 504] {
            assert_eq!(verdict(index(), status(code)), again(code));
        }
        assert_eq!(verdict(index(), status(500)), Verdict::Failed("500: t: r".to_string()));
        let closed = serde_json::json!({ "status": 500, "error": { "type": "node_closed_exception" } });
        assert_eq!(verdict(index(), closed), Verdict::Again("500: node_closed_exception".to_string()));
        for code in [400, 404, 409, 413] {
            assert_eq!(verdict(index(), status(code)), refused(code));
        }
        assert_eq!(verdict(index(), status(403)), Verdict::Denied("403: t: r".to_string()));
        assert_eq!(verdict(update(), status(404)), refused(404));
        assert_eq!(verdict(update(), status(409)), again(409));
        for arrived in [
            verdict(index(), serde_json::json!({ "status": 201 })),
            verdict(index().version(7), status(409)),
            verdict(Action::delete("i", "1"), status(404)),
            verdict(Action::delete("i", "1").version(7), status(409)),
            verdict(Action::create("i", "1", &0), status(409)),
        ] {
            assert_eq!(arrived, Verdict::Arrived);
        }
    }

    #[test]
    fn a_reason_is_told_with_its_cause() {
        let told = reason(r#"{"error":{"type":"a","reason":"b","caused_by":{"type":"c","reason":null}},"status":400}"#);
        assert_eq!(told.as_deref(), Some("a: b (c)"));
        assert_eq!(reason(r#"{"error":"no handler"}"#).as_deref(), Some("no handler"));
        assert_eq!(reason("<html>"), None);
        let item = serde_json::json!({ "status": 400, "error": "es_rejected" });
        assert_eq!(verdict(Action::index("i", "1", &0), item), Verdict::Refused("400: es_rejected".to_string()));
        let item = serde_json::json!({ "status": 400, "error": { "type": "es_rejected_execution_exception" } });
        let again = Verdict::Again("400: es_rejected_execution_exception".to_string());
        assert_eq!(verdict(Action::index("i", "1", &0), item), again);
    }
}
