//! Jobs from submission to their end, with a fake process that keeps the contract.

use serde_json::{Value, json};

use crate::support::{TestServer, eventually};

#[test]
fn a_job_runs_and_shows_its_rates_and_is_cancelled() {
    let server = TestServer::start();
    let http = &server.http;
    let id = http.submit("run", json!({}));
    assert_eq!(id.len(), 32);
    http.await_state(&id, "RUNNING");
    let job = eventually("rates", || {
        let job = http.job(&id);
        if job["records_in_per_s"].as_f64() > Some(1.0) { Ok(job) } else { Err(job) }
    });
    assert_eq!(job["vertices"].as_array().unwrap().len(), 2);
    assert_eq!(job["edges"], json!([{"from": "source", "to": "sink", "ship": "HASH"}]));
    assert_eq!(job["vertices"][0]["late_dropped"], 2);
    assert_eq!((&job["lag_records"], &job["watermark_ms"]), (&json!(12), &json!(1000)));
    assert_eq!((&job["last_checkpoint_ms"], &job["checkpoints"]["latest"]["id"]), (&json!(5012), &json!(7)));
    assert_eq!(job["spec"]["program"], "fake");
    let lags = ["fetch_lag_ms", "emit_lag_ms", "watermark_lag_ms", "source_idle_ms"];
    assert_eq!(lags.map(|lag| job["vertices"][0][lag].as_i64()), [Some(40), Some(50), Some(60), Some(70)]);
    let metric = json!({"name": "commitsSucceeded", "subtask": 0, "kind": "counter", "count": 4});
    assert_eq!(job["vertices"][0]["operators"][0]["metrics"], json!([metric]));
    let prometheus = http.get("/metrics").text;
    let samples = ["tidemill_source_emit_lag_ms{", "tidemill_source_idle_ms{", "tidemill_source_pending_records{"];
    assert!(samples.iter().all(|sample| prometheus.contains(sample)), "{prometheus}");

    let cancelled = http.post(&format!("/api/jobs/{id}/cancel"), &json!({}));
    assert_eq!((cancelled.status, cancelled.json()["state"].clone()), (200, json!("CANCELED")));
    let again = http.post(&format!("/api/jobs/{id}/cancel"), &json!({}));
    assert_eq!(again.status, 409);
    assert!(again.error().contains("has ended already"), "{again:?}");
    assert!(http.get(&format!("/api/jobs/{id}/log?tail=50")).text.contains("fake job listens"));
    assert_eq!(http.job(&id)["records_in_per_s"], 0.0);
}

#[test]
fn a_job_that_ignores_the_request_to_cancel_is_ended_by_signal() {
    let server = TestServer::start();
    let id = server.http.submit("refuse", json!({}));
    server.http.await_state(&id, "RUNNING");
    let savepoint = server.http.post(&format!("/api/jobs/{id}/savepoints"), &json!({}));
    assert_eq!(savepoint.status, 503);
    assert!(savepoint.error().contains("no savepoints today"), "{savepoint:?}");
    let stop = server.http.post(&format!("/api/jobs/{id}/stop"), &json!({"drain": false}));
    assert_eq!(stop.status, 503, "the job runs on");
    assert_eq!(server.http.job(&id)["state"], "RUNNING");
    assert_eq!(server.http.post(&format!("/api/jobs/{id}/cancel"), &json!({})).json()["state"], "CANCELED");
}

#[test]
fn savepoint_stop_restart_and_delete() {
    let server = TestServer::start();
    let http = &server.http;
    let id = http.submit("run", json!({}));
    http.await_state(&id, "RUNNING");
    assert!(
        http.post(&format!("/api/jobs/{id}/savepoints"), &json!({})).json()["savepoint"]
            .as_str()
            .unwrap()
            .ends_with("savepoints/7")
    );
    assert_eq!(http.job(&id)["state"], "RUNNING");
    assert_eq!(http.delete(&format!("/api/jobs/{id}")).status, 409);
    assert_eq!(http.post(&format!("/api/jobs/{id}/restart"), &json!({})).status, 409);
    assert!(http.post(&format!("/api/jobs/{id}/stop"), &json!({"drain": false})).json()["savepoint"].is_string());
    assert_eq!(http.job(&id)["state"], "SUSPENDED");

    assert_eq!(http.post(&format!("/api/jobs/{id}/restart"), &json!({})).status, 200);
    http.await_state(&id, "RUNNING");
    assert!(
        http.send("POST", &format!("/api/jobs/{id}/stop"), &[], b"").json()["savepoint"].is_string(),
        "the body may be left out"
    );
    http.post(&format!("/api/jobs/{id}/restart"), &json!({}));
    http.await_state(&id, "RUNNING");
    http.post(&format!("/api/jobs/{id}/stop"), &json!({"drain": true}));
    assert_eq!(http.job(&id)["state"], "FINISHED");

    let folder = server.dir.path().join("jobs").join(&id);
    assert!(folder.is_dir());
    assert_eq!(http.delete(&format!("/api/jobs/{id}")).status, 204);
    assert!(!folder.exists());
    assert_eq!(http.get(&format!("/api/jobs/{id}")).status, 404);
    assert_eq!(http.get("/api/jobs").json(), json!({"jobs": []}));

    let other = http.submit("exit:0", json!({}));
    http.await_state(&other, "FINISHED");
    let folder = server.dir.path().join("jobs").join(&other);
    std::fs::create_dir_all(folder.join("savepoints/7")).unwrap();
    assert_eq!(http.delete(&format!("/api/jobs/{other}")).status, 204);
    assert!(folder.join("savepoints/7").is_dir() && !folder.join("job.log").exists(), "savepoints are never deleted");
}

#[test]
fn a_failing_job_is_restarted_until_it_runs() {
    let server = TestServer::start();
    let id = server.http.submit("crash:3", json!({}));
    let job = server.http.await_state(&id, "RUNNING");
    assert_eq!(job["restarts"], 3);
    let messages: Vec<&Value> = job["exceptions"].as_array().unwrap().iter().map(|e| &e["message"]).collect();
    assert_eq!(messages, ["attempt 3 failed", "attempt 2 failed", "attempt 1 failed"]);
    assert!(job["timestamps"]["RESTARTING"].is_i64());
}

#[test]
fn a_strategy_gives_up_and_the_history_is_bounded() {
    let server = TestServer::start();
    let http = &server.http;
    let id = http.submit("exit:1", json!({"restart": {"strategy": "fixed-delay", "attempts": 20, "delay_ms": 0}}));
    let job = http.await_state(&id, "FAILED");
    assert_eq!((&job["restarts"], &job["failure"]), (&json!(20), &json!("attempt 21 failed")));
    assert_eq!(job["exceptions"].as_array().unwrap().len(), 16);

    let once = http.submit("panic", json!({"restart": {"strategy": "none"}}));
    let job = http.await_state(&once, "FAILED");
    assert!(job["failure"].as_str().unwrap().contains("the fake job panics"), "{job}");
    let usage = http.submit("exit:2", json!({}));
    let job = http.await_state(&usage, "FAILED");
    assert_eq!(
        (&job["restarts"], &job["failure"]),
        (&json!(0), &json!("attempt 1 failed")),
        "wrong usage is not retried"
    );
    assert_eq!(http.await_state(&http.submit("exit:0", json!({})), "FINISHED")["failure"], Value::Null);
    assert_eq!(http.await_state(&http.submit("exit:130", json!({})), "CANCELED")["restarts"], 0);
}

#[test]
fn a_job_waiting_for_its_restart_can_be_cancelled() {
    let server = TestServer::start();
    let slow = json!({"restart": {"strategy": "fixed-delay", "attempts": 5, "delay_ms": 3_600_000}});
    let id = server.http.submit("exit:1", slow);
    server.http.await_state(&id, "RESTARTING");
    assert_eq!(server.http.post(&format!("/api/jobs/{id}/cancel"), &json!({})).json()["state"], "CANCELED");
}

#[test]
fn a_process_gets_the_environment_of_the_contract() {
    let server = TestServer::start();
    let script = "#!/bin/sh\nenv > \"$TIDEMILL_JOB_DIR/env\"; echo \"$@\" >> \"$TIDEMILL_JOB_DIR/env\"\n";
    let program = server.dir.path().join("jobs-programs/show-env");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let spec = json!({"program": "show-env", "args": ["--topic", "a b"], "parallelism": 3, "checkpoint_interval_ms": 77,
        "checkpoints": {"min_pause_ms": 1, "timeout_ms": 2, "tolerable_failures": 3, "retained": 4,
            "retention": "delete-on-cancellation"},
        "savepoint": server.dir.path(), "claim_mode": "CLAIM", "allow_non_restored_state": true, "env": {"REGION": "north"}});
    let answer = server.http.post("/api/jobs", &spec);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let job = server.http.await_state(&id, "FINISHED");
    assert_eq!(job["name"], "show-env");
    let data = server.dir.path().canonicalize().unwrap();
    let seen = std::fs::read_to_string(data.join("jobs").join(&id).join("env")).unwrap();
    for line in [
        format!("TIDEMILL_JOB_ID={id}"),
        format!("TIDEMILL_JOB_DIR={}", data.join("jobs").join(&id).display()),
        format!("TIDEMILL_DATA={}", data.display()),
        format!("TIDEMILL_SERVER={}", server.http.url),
        format!("TIDEMILL_TOKEN={}", server.http.token),
        "TIDEMILL_PARALLELISM=3".into(),
        "TIDEMILL_CHECKPOINT_INTERVAL_MS=77".into(),
        "TIDEMILL_CHECKPOINT_MIN_PAUSE_MS=1".into(),
        "TIDEMILL_CHECKPOINT_TIMEOUT_MS=2".into(),
        "TIDEMILL_TOLERABLE_FAILED_CHECKPOINTS=3".into(),
        "TIDEMILL_CHECKPOINTS_RETAINED=4".into(),
        "TIDEMILL_CLAIM_MODE=CLAIM".into(),
        "TIDEMILL_ALLOW_NON_RESTORED_STATE=true".into(),
        "TIDEMILL_CHECKPOINT_RETENTION=delete-on-cancellation".into(),
        format!("TIDEMILL_SAVEPOINT={}", server.dir.path().display()),
        "REGION=north".into(),
        "--topic a b".into(),
    ] {
        assert!(seen.lines().any(|other| other == line), "{line} is not in:\n{seen}");
    }
}

#[test]
fn events_tell_what_changes() {
    let server = TestServer::start();
    let http = &server.http;
    let all = http.events("/api/events", &[]);
    assert_eq!(all.named("jobs").data["jobs"], json!([]));
    let id = http.submit("run", json!({}));
    let one = http.events(&format!("/api/jobs/{id}/events"), &[]);
    eventually("the list shows the job running", || {
        let data = all.named("jobs").data;
        if data["jobs"][0]["state"] == "RUNNING" && data["overview"]["jobs-running"] == 1 { Ok(()) } else { Err(data) }
    });
    eventually("the detail shows rates", || {
        let data = one.named("job").data;
        if data["vertices"][0]["records_in_per_s"].as_f64() > Some(0.0) { Ok(()) } else { Err(data) }
    });
    drop(server);
    assert!(all.ends() && one.ends(), "streams end with the server");
}

#[test]
fn only_one_of_many_restarts_and_deletes_wins() {
    let server = TestServer::start();
    let http = &server.http;
    for _ in 0..10 {
        let id = http.submit("exit:0", json!({}));
        http.await_state(&id, "FINISHED");
        let call = |method: &'static str, path: String| {
            let http = http.clone();
            std::thread::spawn(move || http.send(method, &path, &[], &[]).status)
        };
        let calls = [
            call("POST", format!("/api/jobs/{id}/restart")),
            call("DELETE", format!("/api/jobs/{id}")),
            call("POST", format!("/api/jobs/{id}/restart")),
            call("DELETE", format!("/api/jobs/{id}")),
        ];
        let seen = calls.map(|call| call.join().unwrap());
        assert!(seen.iter().all(|status| [200, 204, 404, 409].contains(status)), "{seen:?}");
        assert!(seen.iter().filter(|status| **status == 204).count() <= 1, "{seen:?}");
        eventually("it is deleted or ended", || {
            let answer = http.get(&format!("/api/jobs/{id}"));
            if answer.status == 404 || answer.json()["state"] == "FINISHED" { Ok(()) } else { Err(answer.text) }
        });
    }
}

#[test]
fn a_job_that_fails_while_it_is_stopped_goes_on() {
    let server = TestServer::start();
    let id = server.http.submit("brittle", json!({}));
    server.http.await_state(&id, "RUNNING");
    let stop = server.http.post(&format!("/api/jobs/{id}/stop"), &json!({"drain": false}));
    assert_eq!(stop.status, 503, "there is no savepoint: {stop:?}");
    let job = eventually("the job runs again", || {
        let job = server.http.job(&id);
        if job["state"] == "RUNNING" && job["restarts"] == 1 { Ok(job) } else { Err(job) }
    });
    assert_eq!(job["failure"], "the savepoint broke the job");
}
