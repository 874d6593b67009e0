//! `/openapi.json` against the server itself: what it describes is what is answered, field by field, no more and no less.
//! The page's types and other people's clients are made from it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Http, TestServer};

/// The description, to check answers against.
struct Description(Value);

impl Description {
    /// What is described as the answer of a call, for this status and type of content.
    fn answer(&self, path: &str, method: &str, content: &str) -> &Value {
        let answer = &self.0["paths"][path][method]["responses"]["200"]["content"][content]["schema"];
        assert!(answer.is_object(), "{method} {path} describes no {content}");
        answer
    }

    fn follow<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => {
                let found = self.0.pointer(reference.trim_start_matches('#'));
                self.follow(found.unwrap_or_else(|| panic!("{reference} leads nowhere")))
            }
            None => schema,
        }
    }

    /// Where `value` is not as described.
    fn differences(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let schema = self.follow(schema);
        if let Some(ways) = schema["oneOf"].as_array() {
            let all: Vec<_> = ways.iter().map(|way| self.differences(way, value, at)).collect();
            return if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() };
        }
        let parts: Vec<&Value> = match schema["allOf"].as_array() {
            Some(parts) => parts.iter().map(|part| self.follow(part)).collect(),
            None => vec![schema],
        };
        let wanted: Vec<&str> = match &parts[0]["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            // Nothing is said: anything is right.
            _ => return Vec::new(),
        };
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !(wanted.contains(&is) || is == "integer" && wanted.contains(&"number")) {
            return vec![format!("{at}: {value} is no {wanted:?}")];
        }
        if schema["enum"].as_array().is_some_and(|known| !known.contains(value)) {
            return vec![format!("{at}: {value} is none of {}", schema["enum"])];
        }
        match value {
            Value::Array(items) => items
                .iter()
                .enumerate()
                .flat_map(|(i, item)| self.differences(&schema["items"], item, &format!("{at}[{i}]")))
                .collect(),
            Value::Object(fields) => self.fields(&parts, fields, at),
            _ => Vec::new(),
        }
    }

    fn fields(&self, parts: &[&Value], fields: &serde_json::Map<String, Value>, at: &str) -> Vec<String> {
        let required = parts.iter().filter_map(|part| part["required"].as_array()).flatten().filter_map(Value::as_str);
        let missing = required.filter(|name| !fields.contains_key(*name));
        let mut found: Vec<String> = missing.map(|name| format!("{at}: `{name}` is missing")).collect();
        for (name, value) in fields {
            let described = parts.iter().find_map(|part| part["properties"].get(name));
            match described.or_else(|| parts.iter().find_map(|part| part.get("additionalProperties"))) {
                Some(schema) => found.extend(self.differences(schema, value, &format!("{at}.{name}"))),
                None => found.push(format!("{at}: `{name}` is not described")),
            }
        }
        found
    }

    fn check(&self, path: &str, value: &Value) {
        let differences = self.differences(self.answer(path, "get", "application/json"), value, path);
        assert!(differences.is_empty(), "{differences:#?}\nin {value:#}");
    }
}

fn described(http: &Http) -> Description {
    Description(http.get("/openapi.json").json())
}

#[test]
fn answers_and_events_are_as_described() {
    let server = TestServer::start();
    let http = &server.http;
    let description = described(http);
    let id = http.submit("run", json!({}));
    http.await_state(&id, "RUNNING");
    http.live("/api/live/orders", json!([{"key": "a", "value": {"n": 1}}, {"key": "b", "value": [null, "x"]}]));
    assert_eq!(http.post("/api/topics", &json!({"name": "t", "partitions": 1})).status, 201);
    assert_eq!(http.post("/api/topics/t/records", &json!([{"a": 1}, "text", 7])).status, 200);
    for (path, asked) in [
        ("/healthz", "/healthz".to_owned()),
        ("/overview", "/overview".into()),
        ("/api/jobs", "/api/jobs".into()),
        ("/api/jobs/{id}", format!("/api/jobs/{id}")),
        ("/api/programs", "/api/programs".into()),
        ("/api/live", "/api/live".into()),
        ("/api/live/{name}", "/api/live/orders".into()),
        ("/api/live/{name}/{key}", "/api/live/orders/a".into()),
        ("/api/topics", "/api/topics".into()),
        ("/api/topics/{name}/records", "/api/topics/t/records".into()),
    ] {
        description.check(path, &http.get(&asked).json());
    }
    for (path, asked, names) in [
        ("/api/events", "/api/events".to_owned(), &["jobs"][..]),
        ("/api/jobs/{id}/events", format!("/api/jobs/{id}/events"), &["job"]),
        ("/api/live-events", "/api/live-events?tables=orders&fps=0".into(), &["snapshot", "delta"]),
    ] {
        let schema = description.answer(path, "get", "text/event-stream");
        let events = http.events(&asked, &[]);
        for name in names {
            if *name == "delta" {
                http.live("/api/live/orders", json!([{"key": "a", "value": null}]));
            }
            let event = events.named(name);
            let differences = description.differences(schema, &event.data, path);
            assert!(differences.is_empty(), "{name}: {differences:#?}");
        }
    }
}

#[test]
fn a_difference_is_found() {
    let server = TestServer::start();
    let description = described(&server.http);
    let differs = |value: Value| {
        let schema = description.answer("/api/topics", "get", "application/json");
        description.differences(schema, &value, "").join("; ")
    };
    let topic =
        json!({"name": "t", "partitions": 1, "records": 0, "bytes": 0, "retention_ms": null, "retention_bytes": 5});
    let with = |name: &str, value: Value| {
        let mut topic = topic.clone();
        topic[name] = value;
        json!({"topics": [topic]})
    };
    assert_eq!(differs(json!({"topics": [topic]})), "");
    assert!(differs(with("name", json!(7))).contains(".topics[0].name: 7 is no"));
    assert!(differs(with("color", json!("red"))).contains("`color` is not described"));
    assert!(differs(json!({"topics": [{}]})).contains("`retention_ms` is missing"));
    assert!(differs(json!({})).contains("`topics` is missing"));
}

/// Clients are made with a function for each operation and a type for each shape: names are unique and lead somewhere.
#[test]
fn operations_have_names_of_their_own_and_references_lead_somewhere() {
    let server = TestServer::start();
    let description = described(&server.http);
    let paths = description.0["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().values());
    let names: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    let mut waiting = vec![&description.0];
    while let Some(value) = waiting.pop() {
        description.follow(value);
        match value {
            Value::Array(items) => waiting.extend(items),
            Value::Object(fields) => waiting.extend(fields.values()),
            _ => {}
        }
    }
}
