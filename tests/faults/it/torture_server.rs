//! Random dataflow graphs as jobs of a server: server, job or both are killed or halted at random moments, and what is
//! published in the end is what a naive single-threaded reference computes.

use tidemill_faults::torture::graph::Graph;

use crate::support::process::{halt, with_variable};
use crate::support::seeds::{Random, seeds};
use crate::support::server::Server;
use crate::support::{eventually, pause};
use crate::torture::{difference, published};

/// Seeds of a run in CI.
const SEEDS: u64 = 8;
/// Faults of one seed.
const FAULTS: u64 = 6;

#[test]
fn what_random_graphs_publish_is_right_also_when_their_server_is_killed() {
    let (mut servers, mut jobs, mut halts) = (0, 0, 0);
    for seed in seeds("torture_server", SEEDS) {
        // Other graphs than those without a server.
        let (graph, mut random) = (Graph::of(seed + 1_000_000), Random::new(seed));
        let expected = graph.expected();
        let mut server = Server::start();
        let out = server.data().join("out");
        let args = [(seed + 1_000_000).to_string(), out.display().to_string()];
        let args = args.each_ref().map(String::as_str);
        let job = server.submit("torture", &args, 1 + random.below(4), 1 + random.below(40));
        let described = |server: &Server| format!("seed {seed}\n{graph}\n{}", server.logs(&job));
        for _ in 0..FAULTS {
            pause(random.moment());
            let fault = random.below(4);
            if fault == 0 {
                let halted = with_variable("TIDEMILL_JOB_ID", &job);
                halted.iter().for_each(|pid| halt(*pid, true));
                pause(random.moment());
                // It may have been killed meanwhile, but not by us.
                with_variable("TIDEMILL_JOB_ID", &job).iter().for_each(|pid| halt(*pid, false));
                halts += 1;
            }
            if fault == 1 || fault == 2 {
                server.kill_job(&job);
                jobs += 1;
            }
            if fault >= 2 {
                server.kill();
                pause(random.moment() / 4);
                server.launch();
                server.ready();
                servers += 1;
            }
        }
        eventually("the job has finished", || match server.job(&job)["state"].as_str() {
            Some("FINISHED") => Ok(()),
            other => Err(format!("{other:?}: {}", described(&server))),
        });
        let published = published(&out);
        if published != expected {
            let (more, less) = (difference(&published, &expected), difference(&expected, &published));
            panic!("published but wrong: {more:?}\nmissing: {less:?}\n{}", described(&server));
        }
    }
    eprintln!("torture_server: {servers} servers and {jobs} jobs killed, {halts} jobs halted");
}
