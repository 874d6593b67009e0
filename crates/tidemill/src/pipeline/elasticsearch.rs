//! The elasticsearch sink of a pipeline, by its options.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tidemill_connectors::async_sink::AsyncSinkOptions;
use tidemill_connectors::elasticsearch::{Action, ElasticsearchSink, RawJson, bulk_options};
use tidemill_core::{Error, Result};

use super::records::Record;
use super::{Options, Taken};

/// A name with `{field}` in it, for values of the record.
#[derive(Debug, Default, PartialEq)]
struct Name {
    /// A text, and the field behind it.
    parts: Vec<(String, String)>,
    end: String,
}

impl Name {
    fn new(text: &str) -> Result<Name> {
        let mut name = Name::default();
        let mut rest = text;
        while let Some((before, field)) = rest.split_once('{') {
            let (field, after) = field.split_once('}').filter(|(field, _)| !field.is_empty()).ok_or_else(|| {
                Error::input(format!("[sink] `elasticsearch`: `index` cannot be `{text}`"))
                    .hint("write the name of a field between braces, as `orders-{day}`")
            })?;
            name.parts.push((before.to_string(), field.to_string()));
            rest = after;
        }
        name.end = rest.to_string();
        Ok(name)
    }

    fn of(&self, record: &Value) -> String {
        let parts = self.parts.iter().map(|(before, field)| format!("{before}{}", text(&record[field])));
        parts.collect::<String>() + &self.end
    }
}

/// A string as it is, anything else as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// Fields that records must have.
pub(super) fn required(options: &Options) -> Vec<String> {
    let index = options.get("index").and_then(|index| Name::new(index).ok()).unwrap_or_default();
    options.get("id").cloned().into_iter().chain(index.parts.into_iter().map(|(_, field)| field)).collect()
}

/// A secret stands in a file or in a variable, not among the options.
fn secret(folder: &Path, options: &mut Taken<'_>, names: [&'static str; 3]) -> Result<Option<String>> {
    let [name, file, variable] = names;
    if options.left.contains_key(name) {
        return Err(Error::input(format!("[sink] `elasticsearch`: `{name}` would put a secret among the options"))
            .hint(format!("say where it stands, by `{file}` or `{variable}`")));
    }
    match (options.optional(file), options.optional(variable)) {
        (Some(file), None) => {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|e| Error::io(format!("read the secret `{}`", path.display()), e))?;
            Ok(Some(text.trim_end_matches(['\r', '\n']).to_string()))
        }
        (None, Some(variable)) => std::env::var(&variable).map(Some).map_err(|_| {
            Error::input(format!("[sink] `elasticsearch`: there is no variable `{variable}` to take a secret from"))
        }),
        (None, None) => Ok(None),
        _ => Err(Error::input(format!("[sink] `elasticsearch`: either `{file}` or `{variable}`"))),
    }
}

/// Where records go, and as which documents.
pub(super) fn sink(folder: &Path, options: &mut Taken<'_>) -> Result<ElasticsearchSink<Record>> {
    let (urls, index) = (options.required("url")?, Name::new(&options.required("index")?)?);
    let (id, pipeline) = (options.optional("id"), options.optional("pipeline"));
    let action = move |record: &Record| {
        let fields: Value = match id.is_some() || !index.parts.is_empty() {
            true => serde_json::from_slice(record).unwrap_or_default(),
            false => Value::Null,
        };
        let action = match &id {
            Some(id) => Action::index(index.of(&fields), text(&fields[id]), &RawJson(record)),
            None => Action::append(index.of(&fields), &RawJson(record)),
        };
        match &pipeline {
            Some(pipeline) => action.pipeline(pipeline),
            None => action,
        }
    };
    let default = bulk_options();
    let bulks = AsyncSinkOptions {
        batch_entries_max: options.parsed("batch_entries_max", default.batch_entries_max)?,
        batch_bytes_max: options.parsed("batch_bytes_max", default.batch_bytes_max)?,
        batch_age_ms: options.parsed("batch_age_ms", default.batch_age_ms)?,
        ..default
    };
    let timeout = Duration::from_millis(options.parsed("timeout_ms", 60_000)?);
    let mut sink = ElasticsearchSink::new(urls, action).options(bulks).timeout(timeout);
    let user = options.optional("user");
    let password = secret(folder, options, ["password", "password_file", "password_env"])?;
    let api_key = secret(folder, options, ["api_key", "api_key_file", "api_key_env"])?;
    sink = match (user, password, api_key) {
        (None, None, None) => sink,
        (Some(user), Some(password), None) => sink.basic_auth(user, password),
        (None, None, Some(key)) => sink.api_key(key),
        _ => {
            return Err(Error::input("[sink] `elasticsearch`: either `user` and a password, or an API key"));
        }
    };
    Ok(match options.optional("authority") {
        Some(file) => sink.authority(folder.join(PathBuf::from(file))),
        None => sink,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use tidemill_engine::stream::Environment;

    use super::super::build;
    use super::*;

    /// The first request to come, to which all its entries have arrived: its headers and its body.
    fn taken(listener: &TcpListener) -> (String, String) {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).expect("a line");
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        reader.read_exact(&mut body).expect("a body");
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"errors\":false}";
        reader.into_inner().write_all(answer.as_bytes()).expect("answered");
        (head, String::from_utf8(body).expect("text"))
    }

    #[test]
    fn records_of_a_file_become_documents_by_their_fields() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = "{\"id\":7,\"day\":\"mon\"}\n{\"id\":8}\n{\"id\":\"x\", \"day\":\"tue\"}\n";
        std::fs::write(folder.path().join("in.jsonl"), lines).expect("written");
        std::fs::write(folder.path().join("password"), "hush\n").expect("written");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = std::thread::spawn(move || taken(&listener));
        let options = |pairs: &[(&str, &str)]| -> Options {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let from = [("connector", "file"), ("path", "in.jsonl"), ("format", "json"), ("dead_letters", "bad")];
        let mut to = vec![("connector", "elasticsearch"), ("url", &url), ("index", "orders-{day}"), ("id", "id")];
        to.extend([("pipeline", "p"), ("user", "u"), ("password_file", "password")]);
        let env = Environment::new();
        env.set_parallelism(1);
        build(&env, folder.path(), folder.path(), &options(&from), &options(&to)).expect("built");
        env.execute("pipeline").expect("runs");
        let (head, body) = server.join().expect("a request came");
        assert!(head.contains("authorization: basic dtpodxno"), "{head}");
        let expected = "{\"index\":{\"_index\":\"orders-mon\",\"_id\":\"7\",\"pipeline\":\"p\"}}\n{\"id\":7,\"day\":\"mon\"}\n\
                        {\"index\":{\"_index\":\"orders-tue\",\"_id\":\"x\",\"pipeline\":\"p\"}}\n{\"id\":\"x\", \"day\":\"tue\"}\n";
        assert_eq!(body, expected, "the one without a day is a dead letter");
    }

    #[test]
    fn names_take_fields_of_the_record() {
        let name = Name::new("orders-{shop}-{day}.x").expect("a name");
        assert_eq!(name.of(&serde_json::json!({ "shop": "a", "day": 7 })), "orders-a-7.x");
        assert_eq!(Name::new("orders").expect("a name").of(&Value::Null), "orders");
        for wrong in ["a{b", "a{}", "{a}{"] {
            Name::new(wrong).expect_err(wrong);
        }
    }
}
