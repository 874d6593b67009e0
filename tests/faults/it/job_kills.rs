//! The order job is killed with signal 9, again and again, while orders come in; the server starts it again.

use crate::support::seeds::{Random, seeds};
use crate::support::server::Server;
use crate::support::{orders, pause, process};

const KILLS: usize = 9;

#[test]
fn kill_minus_9_of_the_order_job_changes_nothing() {
    let mut kills = 0;
    for seed in seeds("order job", 4) {
        let mut random = Random::new(seed);
        let events = orders::events(seed, 4_000);
        let server = Server::start();
        let topic = orders::create(&server.topics());
        let mut shares = events.chunks(events.len() / (KILLS + 2));
        orders::append(&topic, shares.next().unwrap());
        let job = server.submit("order-screen", orders::ARGS, 1 + seed % 3, 20 + random.below(30));
        for _ in 0..KILLS {
            let pid = server.job_process(&job);
            let share = shares.next().unwrap();
            let (one, other) = share.split_at(share.len() / 2);
            orders::append(&topic, one);
            pause(random.moment());
            orders::append(&topic, other);
            process::kill(pid);
            kills += 1;
        }
        shares.for_each(|share| orders::append(&topic, share));
        orders::settles(&server, &job, &events);
        let restarts = server.job(&job)["restarts"].as_u64().unwrap();
        assert!(restarts >= KILLS as u64, "{restarts} restarts");
    }
    eprintln!("order job: survived {kills} kills");
}
