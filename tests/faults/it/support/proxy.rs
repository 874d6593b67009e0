//! A way between two processes that can be slowed, blocked and cut: a listener of ours in front of a port.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::pause;

/// How often a way that is blocked looks whether it is open again.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Way {
    /// Each piece waits so long before it is passed on, in µs.
    delay_us: AtomicU64,
    /// Nothing is passed on, and neither end is told.
    blocked: AtomicBool,
    /// The proxy is gone.
    closed: AtomicBool,
    /// Both ends of each connection; those that are gone are left out when the next one comes.
    open: Mutex<Vec<Weak<TcpStream>>>,
}

/// Passes on what comes to `port`. Gone with it are all its connections.
pub struct Proxy {
    pub port: u16,
    way: Arc<Way>,
}

impl Proxy {
    /// In front of a port of this machine.
    pub fn before(target: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Arc::new(Way::default());
        let shared = way.clone();
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                if shared.closed.load(Ordering::Relaxed) {
                    return;
                }
                // Nobody listens yet: whoever came is sent away, as without us.
                let Ok(to) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let (from, to) = (Arc::new(from), Arc::new(to));
                let mut open = shared.open.lock().unwrap();
                open.retain(|end| end.strong_count() > 0);
                open.extend([&from, &to].map(Arc::downgrade));
                for (from, to) in [(from.clone(), to.clone()), (to, from)] {
                    let way = shared.clone();
                    std::thread::spawn(move || pass(&from, &to, &way));
                }
            }
        });
        Proxy { port, way }
    }

    /// From now on each piece waits so long.
    pub fn slow(&self, delay: Duration) {
        self.way.delay_us.store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    /// Nothing is passed on any more, or again.
    pub fn block(&self, blocked: bool) {
        self.way.blocked.store(blocked, Ordering::Relaxed);
    }

    /// All connections break off.
    pub fn cut(&self) {
        for end in self.way.open.lock().unwrap().drain(..) {
            let _ = end.upgrade().map(|end| end.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.way.closed.store(true, Ordering::Relaxed);
        self.cut();
        // The listener wakes up and ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// One direction of a connection, to its end.
fn pass(mut from: &TcpStream, mut to: &TcpStream, way: &Way) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(bytes) = from.read(&mut piece) {
        pause(Duration::from_micros(way.delay_us.load(Ordering::Relaxed)));
        while way.blocked.load(Ordering::Relaxed) && !way.closed.load(Ordering::Relaxed) {
            pause(LOOK_EVERY);
        }
        if bytes == 0 || to.write_all(&piece[..bytes]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
