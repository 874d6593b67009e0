//! A small HTTP server for tests, which answers as it is told and shows what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use tidemill_connectors::conformance::DEADLINE;

/// A request as the server saw it: the first line, the headers, the body.
pub struct Request {
    pub line: String,
    pub headers: Vec<String>,
    pub body: String,
}

/// Answers each request with the next answer it is given; none at all to a request it gets the status 0 for.
pub struct Server {
    pub port: u16,
    requests: Receiver<Request>,
    answers: Sender<Answer>,
}

/// A status and a body.
type Answer = (u16, String);

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ((seen, requests), (answers, to_give)) = (channel(), channel());
        let to_give = Arc::new(Mutex::new(to_give));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, to_give) = (seen.clone(), Arc::clone(&to_give));
                std::thread::spawn(move || serve(stream, &seen, &to_give));
            }
        });
        Server { port, requests, answers }
    }

    /// What it will answer: these, with a body that matters to nobody.
    pub fn answering(answers: &[u16]) -> Server {
        let server = Server::start();
        answers.iter().for_each(|status| server.answer(*status, "it says so"));
        server
    }

    /// What it will answer next.
    pub fn answer(&self, status: u16, body: impl Into<String>) {
        self.answers.send((status, body.into())).unwrap();
    }

    /// The next request that comes.
    pub fn next(&self) -> Request {
        self.requests.recv_timeout(DEADLINE).expect("a request comes")
    }

    /// The bodies of the next requests.
    pub fn bodies(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next().body).collect()
    }
}

fn serve(stream: TcpStream, seen: &Sender<Request>, to_give: &Mutex<Receiver<Answer>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            match header.trim() {
                "" => break,
                header => headers.push(header.to_ascii_lowercase()),
            }
        }
        let length = headers.iter().find_map(|header| header.strip_prefix("content-length: "))?;
        let mut body = vec![0; length.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).ok()?;
        seen.send(Request { line: line.trim().to_string(), headers, body }).ok()?;
        let (status, answer) = to_give.lock().ok()?.recv().ok()?;
        if status > 0 {
            write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).ok()?;
            continue;
        }
        // The connection stays open, without an answer.
        reader.read_line(&mut String::new()).ok()?;
    }
}
