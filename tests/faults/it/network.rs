//! The network between the hosts of a job, made of network namespaces: slowed, it is only slower; cut, all processes of the
//! job notice and end in bounded time, and the job goes on from its last checkpoint when the way is there again.
//! It takes root and the programs `ip` and `tc`; where they are missing the test says so and ends.

use std::process::Command;
use std::time::{Duration, Instant};

use tidemill_topic::{TopicConfig, Topics};

use crate::sum_kills::{append, lines, published, sums};
use crate::support::{eventually, folder};

const RECORDS: u64 = 30_000;

/// Two namespaces with a cable between them. Gone with it.
struct Hosts {
    names: [String; 2],
}

fn run(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

impl Hosts {
    fn new() -> Option<Hosts> {
        let number = std::process::id();
        let hosts = Hosts { names: [format!("tm{number}a"), format!("tm{number}b")] };
        let [a, b] = &hosts.names;
        let lines = [
            format!("ip netns add {a}"),
            format!("ip netns add {b}"),
            format!("ip link add {a} netns {a} type veth peer name {b} netns {b}"),
            format!("ip -n {a} addr add 10.77.0.1/24 dev {a}"),
            format!("ip -n {b} addr add 10.77.0.2/24 dev {b}"),
            format!("ip -n {a} link set {a} up"),
            format!("ip -n {b} link set {b} up"),
            format!("ip -n {a} link set lo up"),
            format!("ip -n {b} link set lo up"),
        ];
        lines.iter().all(|line| run(line)).then_some(hosts)
    }

    fn command(&self, host: usize, command: Command) -> Command {
        let mut wrapped = Command::new("ip");
        wrapped.args(["netns", "exec", &self.names[host]]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped
    }

    /// Packets vanish, and neither end is told.
    fn cut(&self) -> bool {
        self.names.iter().all(|name| run(&format!("ip -n {name} link set {name} arp off")))
            && self.names.iter().all(|name| run(&format!("tc -n {name} qdisc replace dev {name} root netem loss 100%")))
    }

    fn slow(&self) -> bool {
        let line = |name: &String| format!("tc -n {name} qdisc replace dev {name} root netem delay 20ms 5ms");
        self.names.iter().all(|name| run(&line(name)))
    }

    /// The cable is pulled out.
    fn unplug(&self) -> bool {
        run(&format!("ip -n {0} link set {0} down", self.names[1]))
    }

    fn plug(&self) -> bool {
        let clean = |name: &String| run(&format!("ip -n {name} link set {name} arp on up"));
        for name in &self.names {
            run(&format!("tc -n {name} qdisc del dev {name} root"));
        }
        self.names.iter().all(clean)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            run(&format!("ip netns del {name}"));
        }
    }
}

#[test]
fn a_job_over_two_hosts_survives_a_network_that_is_slowed_and_cut() {
    let Some(hosts) = Hosts::new() else {
        eprintln!("skipped: network namespaces cannot be made here (it takes root and `ip`)");
        return;
    };
    let shaped = hosts.slow();
    if !shaped {
        eprintln!("this kernel has no netem: the cable is pulled instead of slowed and cut");
    }
    let dir = folder();
    let data = dir.path();
    let entries = Topics::open(data.join("topics")).unwrap();
    let entries = entries.create("entries", &TopicConfig { partitions: 3, ..TopicConfig::default() }).unwrap();
    append(&entries, &lines(3, RECORDS)).unwrap();
    let job = sums(data, 1, "cut");
    let addresses = ["10.77.0.1:7701".to_string(), "10.77.0.2:7702".to_string()];
    let start = |generation: u64, more: &[&str]| {
        job.start_all(&addresses, (4, generation), more, |host, command| hosts.command(host, command))
    };
    for generation in 0..2 {
        let mut running = start(generation, &["--slow"]);
        let completed = || job.report().map(|report| report["checkpoints"]["completed"].as_u64().unwrap_or(0));
        eventually("checkpoints complete over the network", || match completed() {
            Ok(count) if count >= 3 => Ok(()),
            other => Err(format!("{other:?}\n{}", job.log())),
        });
        let begun = Instant::now();
        assert!(if shaped && generation == 0 { hosts.cut() } else { hosts.unplug() }, "the way is cut");
        for process in &mut running {
            let code = eventually("a process notices the cut", || process.ended().ok_or(job.log()));
            assert_eq!(code, 1, "{}", job.log());
        }
        // Three seconds of silence are allowed.
        assert!(begun.elapsed() < Duration::from_secs(20), "noticed after {:?}", begun.elapsed());
        assert!(job.log().contains("is lost"), "{}", job.log());
        eprintln!("the cut was noticed by both processes after {:?}", begun.elapsed());
        assert!(hosts.plug());
    }
    for process in &mut start(9, &["--bounded"]) {
        assert_eq!(process.wait(), 0, "{}", job.log());
    }
    let calm = sums(data, 2, "calm");
    assert_eq!(calm.start(2, &["--bounded"]).wait(), 0, "{}", calm.log());
    assert!(published(data, "cut") == published(data, "calm"), "{}", job.log());
}
