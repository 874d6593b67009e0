//! The agents a server knows, and what they are to run. An agent that is silent is lost, and the jobs with it go on with
//! what is left. Nothing here is kept on disk: where a job's processes are stands in the job's record, and agents come
//! back by themselves within a second of a server's start.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result, SharedClock};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::message::{ANSWER, Answer, Assignment, BEAT, Beat, JoinSecret, PROCESSES_MAX, ProcessState, Start};
use super::place::{Room, Wanted, place};
use crate::jobs::spec::JobSpec;
use crate::lease::Lease;

/// An agent that is silent for so long is lost.
pub const AGENT_TIMEOUT_MS: i64 = 10_000;
/// The most agents a server knows.
const AGENTS_MAX: usize = 1000;
/// The longest name of an agent or of its host, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// The most slots an agent may have.
const SLOTS_MAX: usize = 1024;

/// An agent as the API shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AgentView {
    /// Its name.
    pub name: String,
    /// The address its processes are reached at.
    pub host: String,
    /// Workers it has room for.
    pub slots: usize,
    /// Of those, how many jobs hold.
    pub used: usize,
    /// Whether it is heard of.
    pub alive: bool,
    /// When it was heard of last, epoch ms.
    pub heard_ms: i64,
}

/// Where the processes of one start of a job are; kept in the job's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Addresses and parallelism, the same for all processes.
    pub start: Start,
    /// Workers of each process.
    pub workers: usize,
    /// The agents that run processes 1, 2 and so on.
    pub agents: Vec<String>,
}

struct Agent {
    host: String,
    slots: usize,
    ports: Vec<u16>,
    number: u64,
    heard_ms: i64,
    processes: Vec<ProcessState>,
}

struct Placed {
    placement: Placement,
    spec: JobSpec,
}

#[derive(Default)]
struct Inner {
    agents: BTreeMap<String, Agent>,
    placed: BTreeMap<String, Placed>,
}

/// All agents.
pub struct Agents {
    secret: JoinSecret,
    boot: String,
    /// The address processes of the server's own host are reached at.
    host: String,
    /// Workers the server's own host has room for.
    slots: usize,
    /// Whether processes of a job speak to each other by TLS.
    tls: bool,
    /// Whose present term agents are told.
    lease: Arc<Lease>,
    clock: SharedClock,
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

impl Agents {
    /// No agents yet. `host` and `slots` are those of the server's own machine; with `tls` the processes of a job
    /// speak to each other by TLS.
    pub fn new(
        secret: JoinSecret,
        host: String,
        slots: usize,
        tls: bool,
        lease: Arc<Lease>,
        clock: SharedClock,
    ) -> Result<Self> {
        let (boot, inner, changes) = (crate::random::hex32()?, Mutex::default(), watch::Sender::new(0));
        Ok(Agents { secret, boot, host, slots, tls, lease, clock, inner, changes })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a plain assignment: a panic between them cannot leave nonsense.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for changes: agents that come, ends of processes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The secret of one start of a job.
    pub fn job_secret(&self, job: &str, generation: u64) -> String {
        self.secret.of_job(job, generation)
    }

    /// Takes in a beat; the answer with its MAC. `Kind::Input` when it is not from an agent of ours.
    pub fn beat(&self, body: &[u8], mac: &str) -> Result<(String, String)> {
        if !self.secret.verify(BEAT, body, mac) {
            return Err(Error::input("the message does not prove the join secret")
                .hint("start server and agent with the same `--join-secret-file`"));
        }
        let beat: Beat =
            serde_json::from_slice(body).map_err(|e| Error::input(format!("the beat cannot be read: {e}")))?;
        let plain = |text: &str| {
            !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
        };
        if !plain(&beat.name) || !plain(&beat.host) || beat.slots > SLOTS_MAX || beat.processes.len() > PROCESSES_MAX {
            return Err(Error::input("an agent has a name, a host, at most 1024 slots and 256 processes"));
        }
        self.lease.heard_of(beat.term);
        self.lease.check()?;
        let number = beat.number;
        let assignments = self.take(beat)?;
        let answer = Answer { boot: self.boot.clone(), term: self.lease.term(), number, assignments };
        let text = serde_json::to_string(&answer).map_err(|e| Error::bug(format!("an answer is no JSON: {e}")))?;
        let mac = self.secret.sign(ANSWER, text.as_bytes());
        Ok((text, mac))
    }

    fn take(&self, beat: Beat) -> Result<Option<Vec<Assignment>>> {
        let now_ms = self.clock.now_ms();
        let mut inner = self.lock();
        let known = inner.agents.get(&beat.name);
        // An agent that has just come, or whose server has just started, learns the boot first.
        if beat.boot != self.boot || known.is_some_and(|agent| agent.number >= beat.number) {
            return Ok(None);
        }
        if known.is_none() && inner.agents.len() >= AGENTS_MAX {
            return Err(Error::full(format!("there are {AGENTS_MAX} agents already")));
        }
        let changed = known.is_none_or(|agent| {
            agent.processes != beat.processes || agent.slots != beat.slots || now_ms - agent.heard_ms > AGENT_TIMEOUT_MS
        });
        if known.is_none() {
            tracing::info!(agent = beat.name, host = beat.host, slots = beat.slots, "agent joined");
        }
        let agent = Agent {
            host: beat.host,
            slots: beat.slots,
            ports: beat.ports,
            number: beat.number,
            heard_ms: now_ms,
            processes: beat.processes,
        };
        let name = beat.name;
        inner.agents.insert(name.clone(), agent);
        let assigned = |(job, placed): (&String, &Placed)| {
            let at = placed.placement.agents.iter().position(|agent| *agent == name)?;
            let (spec, start) = (placed.spec.clone(), placed.placement.start.clone());
            Some(Assignment { job: job.clone(), spec, start, process: at + 1 })
        };
        let assignments = inner.placed.iter().filter_map(assigned).collect();
        drop(inner);
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(Some(assignments))
    }

    /// All agents by name; the server's own host first.
    pub fn list(&self) -> Vec<AgentView> {
        let (now_ms, inner) = (self.clock.now_ms(), self.lock());
        let own = AgentView {
            name: "server".to_string(),
            host: self.host.clone(),
            slots: self.slots,
            used: inner.used(None),
            alive: true,
            heard_ms: now_ms,
        };
        let view = |(name, agent): (&String, &Agent)| AgentView {
            name: name.clone(),
            host: agent.host.clone(),
            slots: agent.slots,
            used: inner.used(Some(name)),
            alive: now_ms - agent.heard_ms <= AGENT_TIMEOUT_MS,
            heard_ms: agent.heard_ms,
        };
        std::iter::once(own).chain(inner.agents.iter().map(view)).collect()
    }

    /// The greatest parallelism a job could have now, in the slots it holds and those that are free.
    pub fn room_for(&self, job: &str, wanted: &Wanted) -> usize {
        let inner = self.lock();
        let rooms = inner.rooms(self.slots, self.clock.now_ms(), Some(job));
        place(&rooms, wanted).map_or(0, |places| places.parallelism)
    }

    /// Finds hosts for a start of a job and has agents run its processes; `None` when there is no room now.
    pub fn place(&self, job: &str, generation: u64, spec: &JobSpec, wanted: &Wanted) -> Result<Option<Placement>> {
        let mut inner = self.lock();
        let rooms = inner.rooms(self.slots, self.clock.now_ms(), None);
        let Some(places) = place(&rooms, wanted) else { return Ok(None) };
        let mut placement = Placement {
            start: Start {
                generation,
                parallelism: places.parallelism,
                slots: places.workers * places.hosts.len(),
                addresses: vec![],
                tls: self.tls,
            },
            workers: places.workers,
            agents: Vec::new(),
        };
        placement.start.addresses.push(format!("{}:{}", self.host, free_port()?));
        for host in places.hosts.into_iter().skip(1) {
            let name = rooms[host].name.clone();
            let Some(agent) = inner.agents.get_mut(&name) else { continue };
            // Its next beat brings others.
            let Some(port) = agent.ports.pop() else { return Ok(None) };
            placement.start.addresses.push(format!("{}:{port}", agent.host));
            placement.agents.push(name);
        }
        inner.placed.insert(job.to_string(), Placed { placement: placement.clone(), spec: spec.clone() });
        Ok(Some(placement))
    }

    /// A job of an earlier server runs at these places.
    pub fn adopt(&self, job: &str, spec: &JobSpec, placement: Placement) {
        // Agents have as long as from now on to be heard of.
        let now_ms = self.clock.now_ms();
        let mut inner = self.lock();
        for (agent, address) in placement.agents.iter().zip(placement.start.addresses.iter().skip(1)) {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_string();
            inner.agents.entry(agent.clone()).or_insert(Agent {
                host,
                slots: 0,
                ports: Vec::new(),
                number: 0,
                heard_ms: now_ms,
                processes: Vec::new(),
            });
        }
        inner.placed.insert(job.to_string(), Placed { placement, spec: spec.clone() });
    }

    /// The job's processes are to end.
    pub fn release(&self, job: &str) {
        if self.lock().placed.remove(job).is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Why the present start of a job cannot go on: a process of it has ended, or its agent is lost.
    pub fn trouble(&self, job: &str) -> Option<String> {
        let (now_ms, inner) = (self.clock.now_ms(), self.lock());
        let placement = &inner.placed.get(job)?.placement;
        placement.agents.iter().enumerate().find_map(|(at, name)| {
            let process = at + 1;
            let Some(agent) = inner.agents.get(name) else { return Some(format!("agent `{name}` is not known")) };
            if now_ms - agent.heard_ms > AGENT_TIMEOUT_MS {
                let silent_s = (now_ms - agent.heard_ms) / 1000;
                return Some(format!("agent `{name}` with process {process} has been silent for {silent_s} s"));
            }
            let ours = |state: &&ProcessState| {
                state.job == job && state.generation == placement.start.generation && state.process == process
            };
            let ended = agent.processes.iter().find(ours)?.ended.as_ref()?;
            Some(format!("process {process} on agent `{name}` ended: {ended}"))
        })
    }
}

impl Inner {
    /// Workers that jobs hold on an agent, or on the server's own host.
    fn used(&self, agent: Option<&str>) -> usize {
        let holds = |placed: &&Placed| agent.is_none_or(|name| placed.placement.agents.iter().any(|a| a == name));
        self.placed.values().filter(holds).map(|placed| placed.placement.workers).sum()
    }

    /// All hosts with their room, the server's own first; what `except` holds counts as free.
    fn rooms(&self, own: usize, now_ms: i64, except: Option<&str>) -> Vec<Room> {
        let given_back = |agent: Option<&str>| {
            let placed = except.and_then(|job| self.placed.get(job)).map(|placed| &placed.placement);
            placed
                .filter(|placement| agent.is_none_or(|name| placement.agents.iter().any(|a| a == name)))
                .map_or(0, |placement| placement.workers)
        };
        let free = |slots: usize, agent: Option<&str>| (slots + given_back(agent)).saturating_sub(self.used(agent));
        let alive = self.agents.iter().filter(|(_, agent)| now_ms - agent.heard_ms <= AGENT_TIMEOUT_MS);
        std::iter::once(Room { name: String::new(), free: free(own, None) })
            .chain(alive.map(|(name, agent)| Room { name: name.clone(), free: free(agent.slots, Some(name)) }))
            .collect()
    }
}

/// A port of this host nobody listens on at this moment.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("0.0.0.0:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|e| Error::io("find a free port", e))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tidemill_core::ManualClock;
    use tidemill_core::slots::SlotDemand;

    const JOB: &str = "00000000000000000000000000000001";

    fn wanted(least: usize, most: usize) -> Wanted {
        Wanted { least, most, demand: SlotDemand::default() }
    }

    struct Bench {
        clock: Arc<ManualClock>,
        secret: JoinSecret,
        agents: Agents,
    }

    fn bench() -> Bench {
        let (clock, secret) = (Arc::new(ManualClock::new(1_000)), JoinSecret::new("0123456789abcdef").unwrap());
        let lease = Lease::of_test(std::path::Path::new("never written"));
        let agents = Agents::new(secret.clone(), "127.0.0.1".into(), 2, true, lease, clock.clone()).unwrap();
        Bench { clock, secret, agents }
    }

    impl Bench {
        fn beat(&self, name: &str, number: u64, processes: Vec<ProcessState>) -> Beat {
            let boot = self.agents.boot.clone();
            Beat { name: name.into(), boot, term: 1, number, slots: 2, host: "h".into(), ports: vec![7], processes }
        }

        fn send(&self, beat: &Beat) -> Result<Option<Vec<Assignment>>> {
            let body = serde_json::to_vec(beat).unwrap();
            let (answer, mac) = self.agents.beat(&body, &self.secret.sign(BEAT, &body))?;
            assert!(self.secret.verify(ANSWER, answer.as_bytes(), &mac));
            let answer: Answer = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer.number, beat.number);
            Ok(answer.assignments)
        }

        fn place(&self, generation: u64, least: usize, most: usize) -> Option<Placement> {
            self.agents.place(JOB, generation, &JobSpec::default(), &wanted(least, most)).unwrap()
        }
    }

    #[test]
    fn a_beat_counts_once_and_only_with_the_secret_and_this_boot() {
        let bench = bench();
        let beat = bench.beat("one", 5, Vec::new());
        let body = serde_json::to_vec(&beat).unwrap();
        let other = JoinSecret::new("another secret, as long").unwrap();
        for mac in [String::new(), other.sign(BEAT, &body), bench.secret.sign(ANSWER, &body)] {
            assert!(bench.agents.beat(&body, &mac).is_err(), "{mac}");
        }
        assert!(bench.send(&Beat { boot: String::new(), ..beat.clone() }).unwrap().is_none(), "learns the boot");
        assert_eq!(bench.agents.list().len(), 1);
        assert!(bench.send(&beat).unwrap().is_some());
        assert!(bench.send(&beat).unwrap().is_none(), "the same again");
        assert!(bench.send(&bench.beat("one", 4, Vec::new())).unwrap().is_none(), "an older one");
        assert!(bench.send(&Beat { name: "a b".into(), ..bench.beat("x", 6, Vec::new()) }).is_err());
        let names: Vec<String> = bench.agents.list().into_iter().map(|agent| agent.name).collect();
        assert_eq!(names, ["server", "one"]);
    }

    #[test]
    fn a_server_that_hears_of_a_newer_term_answers_no_more() {
        let bench = bench();
        bench.send(&bench.beat("one", 1, Vec::new())).unwrap();
        let newer = bench.send(&Beat { term: 2, ..bench.beat("one", 2, Vec::new()) }).unwrap_err();
        assert!(newer.to_string().contains("another server has begun term 2"), "{newer}");
        assert!(bench.send(&bench.beat("one", 3, Vec::new())).is_err());
    }

    #[test]
    fn a_job_is_placed_and_its_troubles_are_seen() {
        let bench = bench();
        assert!(bench.place(1, 4, 4).is_none(), "nobody is there");
        bench.send(&bench.beat("one", 1, Vec::new())).unwrap();
        let placement = bench.place(1, 4, 4).unwrap();
        assert_eq!((placement.workers, placement.agents.clone()), (2, vec!["one".to_string()]));
        assert_eq!(placement.start.addresses[1], "h:7");
        let told = bench.send(&bench.beat("one", 2, Vec::new())).unwrap().unwrap();
        assert_eq!((told[0].process, told[0].start.generation, told[0].start.tls), (1, 1, true));
        let used: Vec<usize> = bench.agents.list().iter().map(|agent| agent.used).collect();
        assert_eq!(used, [2, 2]);
        assert_eq!(bench.agents.room_for("other", &wanted(1, 9)), 0);
        assert_eq!(bench.agents.room_for(JOB, &wanted(1, 9)), 4);

        let state = |generation, ended: Option<&str>| {
            vec![ProcessState { job: JOB.into(), generation, process: 1, ended: ended.map(str::to_string) }]
        };
        bench.send(&bench.beat("one", 3, state(1, None))).unwrap();
        assert_eq!(bench.agents.trouble(JOB), None);
        bench.send(&bench.beat("one", 4, state(0, Some("long ago")))).unwrap();
        assert_eq!(bench.agents.trouble(JOB), None, "another start of the job");
        bench.send(&bench.beat("one", 5, state(1, Some("no such program")))).unwrap();
        assert!(bench.agents.trouble(JOB).unwrap().contains("no such program"));

        bench.send(&bench.beat("one", 6, state(1, None))).unwrap();
        bench.clock.advance(AGENT_TIMEOUT_MS + 1);
        assert!(bench.agents.trouble(JOB).unwrap().contains("has been silent"));
        bench.agents.release(JOB);
        assert!(bench.place(2, 4, 4).is_none(), "not enough without the lost one");
        let left = bench.place(2, 1, 4).unwrap();
        assert_eq!((left.start.parallelism, left.agents.len()), (2, 0));
    }

    #[test]
    fn a_server_that_starts_again_goes_on_with_what_runs() {
        let (before, after) = (bench(), bench());
        before.send(&before.beat("one", 1, Vec::new())).unwrap();
        let placement = before.place(3, 4, 4).unwrap();
        after.agents.adopt(JOB, &JobSpec::default(), placement);
        assert_eq!(after.agents.trouble(JOB), None, "the agent has time to come back");
        let told = after.send(&after.beat("one", 2, Vec::new())).unwrap().unwrap();
        assert_eq!(told.len(), 1, "what runs is to run on");
        after.clock.advance(AGENT_TIMEOUT_MS + 1);
        assert!(after.agents.trouble(JOB).is_some());
    }
}
