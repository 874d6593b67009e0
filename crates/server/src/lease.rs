//! Which of several servers over one data folder acts: the one that holds the newest *term*. A term is a file
//! `<data>/lease/<number>`; no two servers make the same one, and its holder writes it anew every second. Who has seen it
//! unchanged for ten seconds may begin the next term. A holder that could not write for five knows that others may soon
//! act: it refuses to change anything until it has begun a new term itself, or seen that somebody else has, and then it ends.
//! Each looks at its own steady clock only; clocks need not agree, they need to run alike.
//!
//! Beside it a lock on `server.lock` tells servers of one host at once that the one before is gone.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result, SharedClock};
use tokio::sync::watch;

use crate::jobs::store::blocking;
use crate::random;

/// How often a holder writes its term.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A holder that could not write its term for so long changes nothing any more.
const HOLD_MS: i64 = 5_000;
/// A term that does not change for so long has no holder any more.
const EXPIRY_MS: i64 = 10_000;
/// How often a server that waits for the lease looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a term's file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Term {
    /// Who holds it: random, of one start of a server.
    holder: String,
    /// The boot of the holder's machine.
    boot: String,
    /// Where the holder listens.
    listen: SocketAddr,
    /// Whether the holder has the lock of its host as well.
    locked: bool,
    /// Grows with each writing.
    beat: u64,
    /// The holder has ended: anybody may go on.
    released: bool,
}

/// The newest term, and the lock if it could be had.
struct Look {
    newest: Option<(u64, Term)>,
    lock: Option<File>,
}

/// What a server that wants the lease has seen of it so far.
struct Watch {
    standby: bool,
    boot: String,
    /// The newest term, and since when it is as it is.
    seen: Option<((u64, Term), i64)>,
    changed: bool,
}

enum Verdict {
    /// The next term may be begun.
    Free,
    /// Another server acts, or may.
    Wait,
    /// Another server acts, and waiting was not asked for.
    Refused(String),
}

impl Watch {
    fn judge(&mut self, look: &Look, now_ms: i64) -> Verdict {
        let locked = look.lock.is_some();
        let Some(newest) = &look.newest else {
            return if locked { Verdict::Free } else { self.wait_or(None) };
        };
        let (_, term) = newest;
        // Who held the lock of this very host and has it no more is gone.
        if locked && (term.released || (term.locked && term.boot == self.boot)) {
            return Verdict::Free;
        }
        match &self.seen {
            Some((seen, since_ms)) if seen == newest => {
                if now_ms - since_ms >= EXPIRY_MS {
                    return Verdict::Free;
                }
            }
            before => {
                self.changed |= before.is_some();
                self.seen = Some((newest.clone(), now_ms));
            }
        }
        match locked && !self.changed {
            // Its holder is on another host: it is known to act only once it has written.
            true => Verdict::Wait,
            false => self.wait_or(Some(term.listen)),
        }
    }

    fn wait_or(&self, listen: Option<SocketAddr>) -> Verdict {
        match self.standby {
            true => Verdict::Wait,
            false => Verdict::Refused(listen.map(|listen| format!(", listening on {listen}")).unwrap_or_default()),
        }
    }
}

/// The lease of the server that acts.
pub struct Lease {
    folder: PathBuf,
    clock: SharedClock,
    number: AtomicU64,
    /// By the steady clock, when the last writing that succeeded was begun.
    renewed_ms: AtomicI64,
    /// What is written, and the lock of this host; held while a disk is waited for.
    held: Mutex<(Term, Option<File>)>,
    lost: watch::Sender<Option<String>>,
}

impl Lease {
    /// The lease on a data folder. Another server that acts is an error (`Kind::External`); with `standby` it is waited for.
    pub async fn take(data: &Path, standby: bool, listen: SocketAddr, clock: SharedClock) -> Result<Arc<Lease>> {
        let (holder, boot) = (random::hex32()?, boot()?);
        let mut watched = Watch { standby, boot: boot.clone(), seen: None, changed: false };
        let mut told = false;
        loop {
            let folder = data.to_path_buf();
            let begun_ms = clock.steady_ms();
            let look = match blocking(move || look(&folder)).await {
                Ok(look) => look,
                // Who waits may wait for the disk, too; and a term may go while it is looked at.
                Err(error) if told => {
                    tracing::warn!(%error, "the lease cannot be looked at");
                    tokio::time::sleep(RENEW_EVERY).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match watched.judge(&look, clock.steady_ms()) {
                Verdict::Refused(whom) => {
                    return Err(Error::external(format!(
                        "another server uses the folder `{}`{whom}",
                        data.display()
                    ))
                    .hint(
                        "choose another folder with `--data <folder>`, or wait until that one is gone (`tidemill serve --standby`)",
                    ));
                }
                Verdict::Wait => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(data = %data.display(), "standing by: another server uses the folder");
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Verdict::Free => {
                    let number = look.newest.map_or(0, |(number, _)| number) + 1;
                    let (holder, boot) = (holder.clone(), boot.clone());
                    let term = Term { holder, boot, listen, locked: look.lock.is_some(), beat: 0, released: false };
                    let lease = Arc::new(Lease {
                        folder: data.join("lease"),
                        clock: clock.clone(),
                        number: AtomicU64::new(number),
                        renewed_ms: AtomicI64::new(begun_ms),
                        held: Mutex::new((term, look.lock)),
                        lost: watch::Sender::new(None),
                    });
                    let begun = lease.clone();
                    if blocking(move || begun.begin(&begun.held())).await? {
                        tracing::info!(term = number, "this server acts for the folder");
                        return Ok(lease);
                    }
                }
            }
        }
    }

    /// The lease of a test, which never expires.
    #[cfg(test)]
    pub(crate) fn of_test(data: &Path) -> Arc<Lease> {
        let term = Term {
            holder: "test".into(),
            boot: "test".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            locked: false,
            beat: 0,
            released: false,
        };
        Arc::new(Lease {
            folder: data.join("lease"),
            clock: Arc::new(tidemill_core::ManualClock::new(0)),
            number: AtomicU64::new(1),
            renewed_ms: AtomicI64::new(0),
            held: Mutex::new((term, None)),
            lost: watch::Sender::new(None),
        })
    }

    fn held(&self) -> MutexGuard<'_, (Term, Option<File>)> {
        // Every change is a plain assignment.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present term.
    pub fn term(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// An error when another server may act now: nothing may be changed then.
    pub fn check(&self) -> Result<()> {
        if let Some(why) = &*self.lost.borrow() {
            return Err(Error::external(why.clone()));
        }
        let silent_ms = self.clock.steady_ms() - self.renewed_ms.load(Ordering::Acquire);
        match silent_ms < HOLD_MS {
            true => Ok(()),
            false => Err(Error::external(format!(
                "the lease on the data folder could not be renewed for {} s: another server may act",
                silent_ms / 1000
            ))),
        }
    }

    /// Somebody has heard of a newer term.
    pub fn heard_of(&self, term: u64) {
        if term > self.term() {
            self.lose(overtaken(term));
        }
    }

    /// Returns when another server acts, with a text that says so.
    pub async fn lost(&self) -> String {
        let mut lost = self.lost.subscribe();
        let why = lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        // The sender is this lease's own: the wait cannot break off.
        why.unwrap_or_default()
    }

    fn lose(&self, why: String) {
        self.lost.send_if_modified(|lost| lost.is_none() && lost.replace(why).is_none());
    }

    /// Renews the lease until the server ends, then gives it up so that the next server need not wait.
    pub async fn run(self: Arc<Lease>, mut stop: watch::Receiver<bool>) {
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            let lease = self.clone();
            if let Err(error) = blocking(move || lease.renew(stopping)).await {
                tracing::warn!(%error, "the lease on the data folder cannot be renewed");
            }
            if stopping || self.lost.borrow().is_some() {
                return;
            }
        }
    }

    /// Makes the file of the present term. False: another server was faster.
    fn begin(&self, (term, _): &(Term, Option<File>)) -> Result<bool> {
        std::fs::create_dir_all(&self.folder)
            .map_err(|e| Error::io(format!("create the folder `{}`", self.folder.display()), e))?;
        let (begun_ms, number) = (self.clock.steady_ms(), self.term());
        let (aside, path) = (self.folder.join(format!(".{}", term.holder)), self.folder.join(number.to_string()));
        write(&aside, term)?;
        let made = std::fs::hard_link(&aside, &path);
        let _ = std::fs::remove_file(&aside);
        match made {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
            made => made.map_err(|e| Error::io(format!("write `{}`", path.display()), e))?,
        }
        self.renewed_ms.store(begun_ms, Ordering::Release);
        for old in numbers(&self.folder)?.into_iter().filter(|old| *old < number) {
            // One that stays says nothing: the newest counts.
            let _ = std::fs::remove_file(self.folder.join(old.to_string()));
        }
        Ok(true)
    }

    /// Writes the present term anew, as given up if that is wished.
    fn renew(&self, release: bool) -> Result<()> {
        let now_ms = self.clock.steady_ms();
        self.heard_of(numbers(&self.folder)?.into_iter().max().unwrap_or(0));
        if self.lost.borrow().is_some() {
            return Ok(());
        }
        let mut held = self.held();
        if held.1.is_none() {
            held.1 = lock(&self.folder)?;
        }
        let (beat, locked) = (held.0.beat + 1, held.1.is_some());
        held.0 = Term { beat, locked, released: release, ..held.0.clone() };
        if now_ms - self.renewed_ms.load(Ordering::Acquire) >= HOLD_MS {
            // Others may be about to begin the next term: only who makes its file goes on.
            let number = self.number.fetch_add(1, Ordering::AcqRel) + 1;
            if !self.begin(&held)? {
                self.lose(overtaken(number));
            }
            return Ok(());
        }
        let path = self.folder.join(self.term().to_string());
        let aside = self.folder.join(format!(".{}", held.0.holder));
        write(&aside, &held.0)?;
        std::fs::rename(&aside, &path).map_err(|e| Error::io(format!("write `{}`", path.display()), e))?;
        self.renewed_ms.store(now_ms, Ordering::Release);
        Ok(())
    }
}

fn overtaken(term: u64) -> String {
    format!("another server has begun term {term} over the data folder")
}

fn write(path: &Path, term: &Term) -> Result<()> {
    let text = serde_json::to_vec(term).map_err(|e| Error::bug(format!("a term is no JSON: {e}")))?;
    File::create(path)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .map_err(|e| Error::io(format!("write `{}`", path.display()), e))
}

/// The numbers of all terms there are files of.
fn numbers(folder: &Path) -> Result<Vec<u64>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| Error::io(format!("list `{}`", folder.display()), e))?,
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn look(data: &Path) -> Result<Look> {
    let folder = data.join("lease");
    let lock = lock(&folder)?;
    let Some(number) = numbers(&folder)?.into_iter().max() else { return Ok(Look { newest: None, lock }) };
    let path = folder.join(number.to_string());
    let text = std::fs::read(&path).map_err(|e| Error::io(format!("read `{}`", path.display()), e))?;
    let term = serde_json::from_slice(&text)
        .map_err(|e| Error::corrupt(format!("`{}` cannot be read: {e}", path.display())))?;
    Ok(Look { newest: Some((number, term)), lock })
}

/// The lock beside the lease's folder, if nobody has it.
fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.with_file_name("server.lock");
    let file = File::options().create(true).append(true).open(&path).map_err(|e| {
        Error::io(format!("write to `{}`", path.display()), e).hint("choose another folder with `--data <folder>`")
    })?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(Error::io(format!("lock `{}`", path.display()), e)),
    }
}

/// What tells this start of this machine from all others.
fn boot() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("read `{path}`"), e))?;
    Ok(text.trim().to_string())
}

#[cfg(test)]
mod tests {
    use tidemill_core::ManualClock;

    use super::*;

    const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    fn term(beat: u64) -> Term {
        Term { holder: "a".into(), boot: "there".into(), listen: LISTEN, locked: true, beat, released: false }
    }

    fn watch(standby: bool) -> Watch {
        Watch { standby, boot: "here".into(), seen: None, changed: false }
    }

    /// What a server makes of what it sees, `F`ree, `W`ait or `R`efused.
    fn judged(watch: &mut Watch, lock: bool, newest: Option<Term>, now_ms: i64) -> char {
        let file = lock.then(|| tempfile::tempfile().unwrap());
        match watch.judge(&Look { newest: newest.map(|term| (3, term)), lock: file }, now_ms) {
            Verdict::Free => 'F',
            Verdict::Wait => 'W',
            Verdict::Refused(_) => 'R',
        }
    }

    #[test]
    fn a_term_is_free_when_it_was_given_up_its_host_s_lock_is_free_or_it_does_not_change() {
        assert_eq!(judged(&mut watch(false), true, None, 0), 'F');
        assert_eq!(judged(&mut watch(false), false, None, 0), 'R');
        let released = Term { released: true, ..term(1) };
        assert_eq!(judged(&mut watch(false), true, Some(released), 0), 'F');
        let here = Term { boot: "here".into(), ..term(1) };
        assert_eq!(judged(&mut watch(false), true, Some(here.clone()), 0), 'F', "its holder had the lock and is gone");
        assert_eq!(judged(&mut watch(false), true, Some(Term { locked: false, ..here }), 0), 'W');

        let mut standby = watch(true);
        assert_eq!(judged(&mut standby, false, Some(term(1)), 0), 'W');
        assert_eq!(judged(&mut standby, false, Some(term(2)), EXPIRY_MS), 'W', "it was renewed");
        assert_eq!(judged(&mut standby, false, Some(term(2)), 2 * EXPIRY_MS - 1), 'W');
        assert_eq!(judged(&mut standby, false, Some(term(2)), 2 * EXPIRY_MS), 'F');

        let mut other = watch(false);
        assert_eq!(judged(&mut other, true, Some(term(1)), 0), 'W', "its holder is elsewhere and may be gone");
        assert_eq!(judged(&mut other, true, Some(term(2)), 1), 'R', "it is not");
    }

    async fn take(data: &Path, clock: &Arc<ManualClock>) -> Result<Arc<Lease>> {
        Lease::take(data, false, LISTEN, clock.clone()).await
    }

    #[tokio::test]
    async fn one_server_has_it_until_it_gives_it_up_or_cannot_renew_it() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(0));
        let first = take(folder.path(), &clock).await.unwrap();
        let refused = take(folder.path(), &clock).await.err().unwrap().to_string();
        assert!(refused.contains("another server uses the folder") && refused.contains("on 127.0.0.1:1"), "{refused}");
        assert_eq!(first.term(), 1);
        first.check().unwrap();

        // Its process was halted for a while, but nobody came: it goes on in a term of its own.
        clock.advance(HOLD_MS);
        assert!(first.check().unwrap_err().to_string().contains("could not be renewed for 5 s"));
        first.renew(false).unwrap();
        first.check().unwrap();
        assert_eq!(first.term(), 2);

        // Given up, it is free at once.
        first.renew(true).unwrap();
        drop(first);
        let second = take(folder.path(), &clock).await.unwrap();
        assert_eq!(second.term(), 3);
        // Gone without a word on this host, too.
        drop(second);
        let third = take(folder.path(), &clock).await.unwrap();
        assert_eq!(third.term(), 4);
    }

    #[tokio::test]
    async fn who_was_halted_while_another_took_over_notices_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(0));
        for halted_ms in [0, HOLD_MS] {
            let first = take(folder.path(), &clock).await.unwrap();
            let number = first.term() + 1;
            write(&folder.path().join("lease").join(number.to_string()), &term(0)).unwrap();
            clock.advance(halted_ms);
            first.renew(false).unwrap();
            assert!(first.lost().await.contains(&format!("another server has begun term {number}")));
            assert!(first.check().is_err());
            std::fs::remove_dir_all(folder.path().join("lease")).unwrap();
        }
        let first = take(folder.path(), &clock).await.unwrap();
        first.heard_of(1);
        first.check().unwrap();
        first.heard_of(7);
        assert!(first.lost().await.contains("term 7"));
    }
}
