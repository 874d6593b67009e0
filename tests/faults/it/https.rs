//! A server that speaks HTTPS: its agents, its jobs' live tables and the command line reach it by a certificate of an
//! authority of its own, and nobody else does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::free_port::free_port;
use crate::support::http::Http;
use crate::support::process::{Done, Process, kill_jobs_of, tidemill};
use crate::support::{eventually, folder};

/// A certificate for loopback that is its own authority, and its key: their files.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()]).unwrap();
    let file = |kind: &str, text: String| {
        let path = folder.join(format!("{name}.{kind}"));
        std::fs::write(&path, text).unwrap();
        path
    };
    (file("crt", made.cert.pem()), file("key", made.signing_key.serialize_pem()))
}

/// What is killed with the test: processes, then the jobs they would start again.
struct Started {
    processes: Vec<Process>,
    data: PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.processes.clear();
        kill_jobs_of(&self.data);
    }
}

#[test]
fn agents_jobs_and_clients_reach_a_server_by_its_certificate() {
    let dir = folder();
    let path = |name: &str| dir.path().join(name);
    let (certificate, key) = self::certificate(dir.path(), "server");
    let (stranger, _) = self::certificate(dir.path(), "stranger");
    std::fs::write(path("secret"), "a join secret of the tests").unwrap();
    std::fs::create_dir(path("programs")).unwrap();
    std::fs::write(path("lines.json"), "{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\",\"n\":2}\n").unwrap();
    let job = format!(
        "name = \"rows\"\n[source]\nconnector = \"file\"\npath = {:?}\nformat = \"json\"\n\
         [sink]\nconnector = \"live\"\ntable = \"rows\"\nkey = \"k\"\n",
        path("lines.json")
    );
    std::fs::write(path("programs").join("rows.toml"), job).unwrap();

    let (port, data) = (free_port().unwrap(), path("data"));
    let url = format!("https://127.0.0.1:{port}");
    let mut serve = tidemill(&["serve", "--slots", "1", "--listen", &format!("127.0.0.1:{port}"), "--tls-cert"]);
    serve.arg(&certificate).arg("--tls-key").arg(&key).arg("--server-ca").arg(&certificate).arg("--data").arg(&data);
    serve.arg("--join-secret-file").arg(path("secret")).arg("--jobs").arg(path("programs"));
    let log = |name: &str| std::fs::File::create(path(name)).unwrap();
    let mut started = Started { processes: vec![Process::start(serve.stderr(log("server.log")))], data: data.clone() };
    let said = || std::fs::read_to_string(path("server.log")).unwrap_or_default();
    let http = Http::trusting(url.clone(), Some(&certificate));
    eventually("the server answers", || match http.try_get("/healthz") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}\n{}", said())),
    });

    // Who begins no handshake holds up nobody; who speaks plainly, or trusts somebody else, gets nothing.
    let silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(Http::new(url.replace("https", "http")).try_get("/healthz").is_err());
    assert!(Http::trusting(url.clone(), Some(&stranger)).try_get("/healthz").is_err());
    assert!(Http::new(url.clone()).try_get("/healthz").is_err(), "the system knows no such authority");
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    http.get("/healthz");
    drop(silent);

    let mut agent = tidemill(&["agent", "--join", &url, "--slots", "1", "--name", "beta", "--secret-file"]);
    agent.arg(path("secret")).arg("--server-ca").arg(&certificate).arg("--data").arg(&data);
    started.processes.push(Process::start(agent.stderr(log("agent.log"))));
    let client = |words: &[&str]| {
        let mut command = tidemill(words);
        Done::of(command.args(["--server", &url, "--server-ca"]).arg(&certificate)).ok()
    };
    eventually("the agent has joined", || {
        let agents = client(&["agents"]);
        if agents.contains("beta") { Ok(()) } else { Err(format!("{agents}\n{}", said())) }
    });
    client(&["jobs", "submit", "rows.toml", "--parallelism", "1"]);
    eventually("the rows are in the live table", || match http.try_get("/api/live/rows")? {
        (200, body) if body["rows"].as_array().is_some_and(|rows| rows.len() == 2) => Ok(()),
        other => Err(format!("{other:?}\n{}", client(&["jobs", "list"]))),
    });
    let rows = http.get("/api/live/rows");
    assert_eq!(rows["rows"][1]["value"], json!({"k": "b", "n": 2}), "{rows}");
}

#[test]
fn a_certificate_that_is_of_no_use_is_named() {
    let dir = folder();
    let (certificate, key) = self::certificate(dir.path(), "one");
    let (_, other_key) = self::certificate(dir.path(), "two");
    let serve = |certificate: &Path, key: &Path| {
        let mut command = tidemill(&["serve", "--listen", "127.0.0.1:0", "--data"]);
        command.arg(dir.path().join("data")).arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
        Done::of(&mut command).failed(2)
    };
    let missing = dir.path().join("missing");
    assert!(serve(&missing, &key).contains("missing"));
    assert!(serve(&key, &key).contains("there is none in it"));
    assert!(serve(&certificate, &certificate).contains("private key"));
    assert!(serve(&certificate, &other_key).contains("of no use with its key"));
}
