//! Sockets: lines as they come, reconnects, a prompt end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use tidemill_connectors::conformance::Driven;
use tidemill_connectors::format::Csv;
use tidemill_connectors::socket::SocketSource;
use tidemill_core::Kind;
use tidemill_core::source::{Poll, Source};

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn start<T: 'static>(source: &dyn Source<T>) -> Driven<T> {
    Driven::start(source, 0, 1, &source.splits().unwrap())
}

fn read<T: Clone>(driven: &Driven<T>) -> Vec<T> {
    driven.records.values().flatten().cloned().collect()
}

#[test]
fn a_line_is_there_as_soon_as_it_was_sent() {
    let (listener, port) = listen();
    let mut driven = start(&SocketSource::new("127.0.0.1", port));
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"one\r\ntw").unwrap();
    assert!(!driven.run_until(10, |driven| driven.count == 1));
    peer.write_all(b"o\nthree\nend").unwrap();
    assert!(!driven.run_until(10, |driven| driven.count == 3));
    assert!(driven.snapshot()[0].position.is_null());
    drop(peer);
    assert!(driven.run_until(10, |_| false), "it ends with the connection");
    assert_eq!(read(&driven), ["one", "two", "three", "end"]);
}

#[test]
fn it_connects_again_as_often_as_allowed() {
    let (listener, port) = listen();
    let source = SocketSource::new("127.0.0.1", port).reconnect(1, 1).delimiter(b';').record_bytes_max(5);
    let source = source.format(Csv::<(String, u32)>::new());
    let mut driven = start(&source);
    for i in 0..3 {
        let (mut peer, _) = listener.accept().unwrap();
        write!(peer, "a,{i};bad;much too long,1;").unwrap();
        assert!(!driven.run_until(10, |driven| driven.count == 3 * (i + 1)));
        peer.shutdown(Shutdown::Both).unwrap();
    }
    drop(listener);
    let error = loop {
        match driven.poll(10) {
            Ok(_) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::External);
    assert!(error.to_string().contains(&format!("socket `127.0.0.1:{port}`")), "{error}");
    assert_eq!(read(&driven), [("a".to_string(), 0), ("a".to_string(), 1), ("a".to_string(), 2)]);
    assert_eq!(driven.rejected.len(), 6);
}

#[test]
fn a_reader_that_is_dropped_closes_its_connection() {
    let (listener, port) = listen();
    let mut driven = start(&SocketSource::new("localhost", port));
    let (mut peer, _): (TcpStream, _) = listener.accept().unwrap();
    assert_eq!(driven.poll(10).unwrap(), Poll::Pending { wake_at_ms: None });
    drop(driven);
    peer.set_read_timeout(Some(tidemill_connectors::conformance::DEADLINE)).unwrap();
    assert_eq!(peer.read(&mut [0; 10]).unwrap(), 0, "closed");
}
