//! Hosts for tests: network namespaces with a cable between them, which can be slowed, cut and pulled out. It takes root and
//! the programs `ip` and `tc`. What is sent stays in the namespaces.

use std::process::Command;

/// The addresses of the hosts.
pub const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// Two namespaces with a cable between them. Gone with it.
pub struct Hosts {
    names: [String; 2],
}

fn run(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

impl Hosts {
    /// `tag` keeps tests apart. `None`, with a word about it, where namespaces cannot be made.
    pub fn new(tag: char) -> Option<Hosts> {
        let number = std::process::id();
        let hosts = Hosts { names: [format!("tm{number}{tag}a"), format!("tm{number}{tag}b")] };
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
        let made = lines.iter().all(|line| run(line));
        if !made {
            eprintln!("skipped: network namespaces cannot be made here (it takes root, `ip` and `tc`)");
        }
        made.then_some(hosts)
    }

    /// The command on a host.
    pub fn command(&self, host: usize, command: Command) -> Command {
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

    fn queue(&self, discipline: &str) {
        for name in &self.names {
            assert!(run(&format!("tc -n {name} qdisc replace dev {name} root {discipline}")), "{discipline}");
        }
    }

    /// Two megabits a second, with packets that wait up to a fifth of one.
    pub fn slow(&self) {
        self.queue("tbf rate 2mbit burst 32kb latency 200ms");
    }

    /// Packets vanish, and neither end is told: there is room for none.
    pub fn cut(&self) {
        self.queue("tbf rate 1kbit burst 10b limit 10b");
    }

    /// The cable is pulled out.
    pub fn unplug(&self) {
        assert!(run(&format!("ip -n {0} link set {0} down", self.names[1])));
    }

    /// All is well again.
    pub fn plug(&self) {
        for name in &self.names {
            // There is nothing to take away where the cable was only pulled out.
            run(&format!("tc -n {name} qdisc del dev {name} root"));
            assert!(run(&format!("ip -n {name} link set {name} up")));
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            run(&format!("ip netns del {name}"));
        }
    }
}
