//! A job file from a table into a table, exactly once: all of it is killed again and again, and in the end each row is there
//! once.

use std::path::Path;

use rusqlite::Connection;

use crate::support::process::{Done, Process, tidemill};
use crate::support::seeds::{Random, seeds};
use crate::support::{folder, pause};

const KILLS: usize = 8;
const ROWS: i64 = 100_000;

fn number(database: &Connection, sql: &str) -> i64 {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn rows_of_a_table_go_into_another_exactly_once_over_kills() {
    let mut kills = 0;
    for seed in seeds("database", 3) {
        let mut random = Random::new(seed);
        let place = folder();
        let file = place.path().join("shop.db");
        let database = Connection::open(&file).unwrap();
        database
            .execute_batch(&format!(
                "CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE copies (id INTEGER, name TEXT);
                 WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {ROWS})
                 INSERT INTO orders SELECT id, 'order ' || id FROM n;"
            ))
            .unwrap();
        let job = place.path().join("job.toml");
        let text = format!(
            "name = \"copy\"\n[source]\nconnector = \"database\"\nurl = \"sqlite:{file}\"\ntable = \"orders\"\nkey = \"id\"\n\
             [sink]\nconnector = \"database\"\nurl = \"sqlite:{file}\"\ntable = \"copies\"\ndelivery = \"exactly-once\"\n",
            file = file.display()
        );
        std::fs::write(&job, text).unwrap();
        let run = || {
            let shown = |path: &Path| path.to_str().unwrap().to_owned();
            let (data, folder) = (place.path().join("data"), place.path().join("job"));
            let mut command = tidemill(&["run", &shown(&job), "--data", &shown(&data), "--job-dir", &shown(&folder)]);
            command.args(["--checkpoint-interval-ms", "20", "--parallelism", "2"]);
            command
        };
        for _ in 0..KILLS {
            let mut running = Process::start(&mut run());
            pause(random.moment());
            kills += usize::from(running.ended().is_none());
            // The job's own process ends with it.
            running.kill();
        }
        // What has ended is not written twice.
        for _ in 0..2 {
            Done::of(&mut run()).ok();
        }
        assert_eq!(number(&database, "SELECT COUNT(*) FROM copies"), ROWS, "seed {seed}");
        assert_eq!(number(&database, "SELECT COUNT(DISTINCT id) FROM copies"), ROWS, "seed {seed}");
        let same = "SELECT COUNT(*) FROM copies JOIN orders ON copies.id = orders.id AND copies.name = orders.name";
        assert_eq!(number(&database, same), ROWS, "seed {seed}");
    }
    assert!(kills > 0, "nothing was killed");
}
