//! Shapes, refusals and doors of the API.

use serde_json::json;
use tidemill_server::{Server, ServerConfig};

use crate::support::{TestServer, folder};

#[test]
fn health_metrics_description_and_page() {
    let server = TestServer::start();
    let http = &server.http;
    assert_eq!(http.get("/healthz").json(), json!({"status": "ok"}));
    let id = http.submit("run", json!({}));
    http.await_state(&id, "RUNNING");
    let metrics = http.get("/metrics").text;
    assert!(metrics.contains("tidemill_jobs{state=\"RUNNING\"} 1\n"), "{metrics}");
    assert!(metrics.contains(&format!("tidemill_job_restarts_total{{job=\"{id}\",name=\"fake\"}} 0\n")), "{metrics}");
    let described = http.get("/openapi.json").json();
    assert!(described["openapi"].as_str().unwrap().starts_with("3."));
    for path in ["/api/jobs/{id}/stop", "/api/live-events", "/api/topics/{name}/records", "/jobs/{id}/checkpoints"] {
        assert!(described["paths"][path].is_object(), "{path}");
    }
    for path in ["/", "/screen/orders", "/jobs/some-page/deep"] {
        let page = http.get(path);
        assert_eq!(
            (page.status, page.headers["content-type"].to_str().unwrap()),
            (200, "text/html; charset=utf-8"),
            "{path}"
        );
    }
    let browser = http.send("GET", &format!("/jobs/{id}"), &[("accept", "text/html,*/*")], &[]);
    assert_eq!(browser.headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(http.get("/assets/none.js").status, 404);
}

#[test]
fn unknown_calls_and_bad_bodies_are_refused_in_one_clear_line() {
    let server = TestServer::start();
    let http = &server.http;
    let check = |answer: crate::support::Answer, status: u16, said: &str| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.error().contains(said), "{answer:?}");
    };
    check(http.get("/api/nothing"), 404, "there is no call `/api/nothing`");
    check(http.delete("/api/jobs"), 405, "does not take DELETE");
    check(http.post("/nothing", &json!({})), 404, "there is no call");
    check(http.get("/api/jobs/0123"), 404, "there is no job `0123`");
    check(http.get("/api/jobs/0123/log"), 404, "there is no job");
    check(http.get("/jobs/0123"), 404, "there is no job");
    check(http.get("/api/jobs/0123/events"), 404, "there is no job");
    check(http.post("/api/jobs/0123/cancel", &json!({})), 404, "there is no job");
    check(http.post("/api/jobs", &json!({"program": "none"})), 400, "there is no program `none`");
    check(http.post("/api/jobs", &json!({"program": "../fake"})), 400, "no program name");
    check(http.post("/api/jobs", &json!({"program": "/bin/sh"})), 400, "no program name");
    check(http.post("/api/jobs", &json!({"progam": "x"})), 400, "unknown field `progam`");
    check(http.post("/api/jobs", &json!([])), 400, "not what this call takes");
    check(
        http.post("/api/jobs", &json!({"program": "fake", "restart": {"strategy": "hope"}})),
        400,
        "unknown variant `hope`",
    );
    check(http.post("/api/jobs", &json!({"program": "fake", "env": {"LD_PRELOAD": "x"}})), 400, "cannot be set");
    check(http.send("POST", "/api/jobs", &[("content-type", "application/json")], b"{"), 400, "EOF");
    check(http.send("POST", "/api/jobs", &[("content-type", "text/plain")], b"{}"), 415, "application/json");
    check(http.post("/api/jobs/x/stop", &json!({"dran": true})), 400, "unknown field `dran`");
    check(http.get("/api/jobs/x/log?tail=many"), 400, "the query cannot be read");
    check(http.get("/api/live/none"), 404, "there is no live table `none`");
    check(http.send("PUT", "/api/programs/x", &[], b"#!/bin/sh"), 403, "administrator token");
    check(http.send("POST", "/api/live/a", &[("content-type", "application/json")], b"{}"), 401, "x-tidemill-token");
    check(http.send("POST", "/api/jobs", &[("origin", "http://evil.example")], b"{}"), 403, "another origin");
    check(http.send("GET", "/api/jobs", &[("host", "evil.example")], b""), 403, "is not called `evil.example`");
}

#[test]
fn with_an_administrator_token_changing_wants_it_and_programs_can_be_uploaded() {
    let token = "administrator-token";
    let server = TestServer::with(|config| config.admin_token = Some(token.into()));
    let http = &server.http;
    let bearer = format!("Bearer {token}");
    let admin = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    assert_eq!(http.get("/api/jobs").status, 200);
    let refused = http.post("/api/jobs", &json!({"program": "fake"}));
    assert_eq!((refused.status, refused.headers["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
    assert_eq!(http.send("PUT", "/api/programs/hello", &[("authorization", "Bearer no")], b"x").status, 401);
    assert_eq!(http.send("PUT", "/api/programs/hello", &admin, b"#!/bin/sh\necho hello\n").status, 201);
    assert_eq!(http.send("PUT", "/api/programs/hello", &admin, b"#!/bin/sh\necho hello world\n").status, 204);
    assert_eq!(http.send("PUT", "/api/programs/..%2Fout", &admin, b"x").status, 400);
    let names = http.get("/api/programs").json();
    assert_eq!(names["programs"][1], json!({"name": "hello", "bytes": 27}));
    let submitted = http.send("POST", "/api/jobs", &admin, b"{\"program\":\"hello\"}");
    assert_eq!(submitted.status, 201);
    let id = submitted.json()["id"].as_str().unwrap().to_owned();
    http.await_state(&id, "FINISHED");
    assert_eq!(http.get(&format!("/api/jobs/{id}/log")).text, "hello world\n");
}

#[test]
fn flink_s_read_paths_have_flink_s_shapes() {
    let server = TestServer::start();
    let http = &server.http;
    let id = http.submit("run", json!({"parallelism": 2}));
    http.await_state(&id, "RUNNING");
    let overview = http.get("/overview").json();
    assert_eq!((&overview["jobs-running"], &overview["taskmanagers"]), (&json!(1), &json!(1)));
    assert!(overview["slots-total"].as_u64() > Some(0));
    assert_eq!(http.get("/v1/jobs").json(), json!({"jobs": [{"id": id, "status": "RUNNING"}]}));
    let jobs = http.get("/jobs/overview").json();
    let job = &jobs["jobs"][0];
    assert_eq!(
        (&job["jid"], &job["end-time"], &job["tasks"]["total"], &job["tasks"]["running"]),
        (&json!(id), &json!(-1), &json!(4), &json!(4))
    );
    let job = http.get(&format!("/jobs/{id}")).json();
    assert_eq!(job["vertices"][0]["tasks"]["RUNNING"], 2);
    assert_eq!(
        job["plan"]["nodes"][1]["inputs"][0],
        json!({"num": 0, "id": "source", "ship_strategy": "HASH", "exchange": "pipelined_bounded"})
    );
    assert!(job["timestamps"]["RUNNING"].as_i64() > Some(0));
    let checkpoints = http.get(&format!("/jobs/{id}/checkpoints")).json();
    assert_eq!(
        checkpoints["counts"],
        json!({"restored": 0, "total": 1, "in_progress": 0, "completed": 1, "failed": 0})
    );
    assert_eq!(checkpoints["summary"]["end_to_end_duration"]["p999"], 12.0);
    assert_eq!(checkpoints["summary"]["checkpointed_size"]["max"], 40);
    assert_eq!(checkpoints["latest"]["completed"]["latest_ack_timestamp"], 5011);
    assert_eq!(checkpoints["history"][0]["status"], "COMPLETED");
    assert_eq!(checkpoints["history"][0]["num_acknowledged_subtasks"], 4);
    assert_eq!(http.get(&format!("/jobs/{id}/exceptions")).json()["exceptionHistory"]["entries"], json!([]));
}

#[test]
fn a_checkpoint_is_shown_by_operator_and_subtask() {
    let server = TestServer::start();
    let http = &server.http;
    let spec =
        json!({"checkpoints": {"min_pause_ms": 5, "tolerable_failures": 2, "retention": "delete-on-cancellation"}});
    let id = http.submit("run", spec);
    http.await_state(&id, "RUNNING");
    let config = http.get(&format!("/jobs/{id}/checkpoints/config")).json();
    assert_eq!((&config["min_pause"], &config["tolerable_failed_checkpoints"]), (&json!(5), &json!(2)));
    assert_eq!(config["externalization"]["delete_on_cancellation"], true);

    let details = http.get(&format!("/v1/jobs/{id}/checkpoints/details/7")).json();
    let sink = &details["tasks"]["sink"];
    assert_eq!((&sink["status"], &sink["state_size"]), (&json!("completed"), &json!(100)));
    assert_eq!((&sink["end_to_end_duration"], &sink["num_acknowledged_subtasks"]), (&json!(11), &json!(2)));
    let subtasks = http.get(&format!("/jobs/{id}/checkpoints/details/7/subtasks/sink")).json();
    assert_eq!(subtasks["summary"]["alignment"]["duration"]["max"], 6);
    assert_eq!(
        subtasks["subtasks"][1],
        json!({"index": 1, "status": "completed", "ack_timestamp": 5011, "end_to_end_duration": 11,
            "checkpointed_size": 20, "state_size": 50,
            "checkpoint": {"sync": 1, "async": 2, "unaligned_checkpoint": false, "aborted": false},
            "alignment": {"buffered": 0, "processed": 0, "persisted": 0, "duration": 6}, "start_delay": 1})
    );
    let shown = http.get(&format!("/api/jobs/{id}/checkpoints/7")).json();
    assert_eq!(shown["vertices"][1]["operators"][0]["entries"], 3);
    assert_eq!(shown["vertices"][1]["alignment_ms"], 6);
    for path in ["/api/jobs/{id}/checkpoints/8", "/jobs/{id}/checkpoints/details/8"] {
        let refused = http.get(&path.replace("{id}", &id));
        assert_eq!(refused.status, 404);
        assert!(refused.error().contains("has no checkpoint 8"), "{refused:?}");
    }
    assert_eq!(http.get(&format!("/jobs/{id}/checkpoints/details/7/subtasks/none")).status, 404);

    // The fake process leaves its checkpoints behind; the server sees to it that they go.
    let folder = server.dir.path().join("jobs").join(&id).join("checkpoints");
    std::fs::create_dir_all(folder.join("chk-7")).unwrap();
    assert_eq!(http.post(&format!("/api/jobs/{id}/cancel"), &json!({})).json()["state"], "CANCELED");
    assert!(!folder.exists());
}

#[test]
fn savepoints_are_disposed_of_by_the_program_and_it_is_told_how_that_went() {
    // In place of `tidemill`: removes what is called a savepoint, and refuses anything else.
    let script = "#!/bin/sh\ncase \"$*\" in \"savepoint dispose -- \"*/savepoint-*) rm -r \"$4\" ;; *) echo 'error: this is none' >&2; exit 2 ;; esac\n";
    let tools = folder();
    let runner = tools.path().join("tidemill");
    std::fs::write(&runner, script).unwrap();
    std::fs::set_permissions(&runner, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let server = TestServer::with(|config| config.runner = Some(runner));
    let savepoint = tools.path().join("savepoint-1");
    std::fs::create_dir(&savepoint).unwrap();
    let outcome = |path: &std::path::Path| {
        let begun = server.http.post("/savepoint-disposal", &json!({"savepoint-path": path}));
        assert_eq!(begun.status, 202);
        let id = begun.json()["request-id"].as_str().unwrap().to_owned();
        crate::support::eventually("the disposal has ended", || {
            let state = server.http.get(&format!("/v1/savepoint-disposal/{id}")).json();
            if state["status"]["id"] == "COMPLETED" { Ok(state["operation"].clone()) } else { Err(state) }
        })
    };
    assert_eq!(outcome(&savepoint), json!({}));
    assert!(!savepoint.exists());
    assert_eq!(outcome(tools.path())["failure-cause"]["stack-trace"], "this is none");
    assert!(tools.path().exists());
    assert_eq!(server.http.get("/savepoint-disposal/0123").status, 404);
    assert_eq!(server.http.post("/savepoint-disposal", &json!({})).status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_says_why() {
    let dir = folder();
    let start = |change: &dyn Fn(&mut ServerConfig)| {
        let mut config = ServerConfig::new(dir.path());
        config.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        Server::start(config)
    };
    let why = |started: tidemill_core::Result<Server>| match started {
        Ok(_) => panic!("it started"),
        Err(e) => e.to_string(),
    };
    assert!(
        why(start(&|c| c.listen = "0.0.0.0:0".parse().unwrap()).await)
            .contains("without an administrator token; set TIDEMILL_ADMIN_TOKEN")
    );
    assert!(why(start(&|c| c.admin_token = Some("short".into())).await).contains("at least 16"));
    assert!(
        why(start(&|c| c.data = "/proc/tidemill".into()).await).contains("cannot create the folder `/proc/tidemill`")
    );
    let running = start(&|_| {}).await.unwrap();
    assert!(why(start(&|_| {}).await).contains("another server uses the folder"));
    let other = folder();
    let address = running.address();
    let taken = start(&|c| (c.listen, c.data) = (address, other.path().into()));
    assert!(why(taken.await).contains("is in use already; end what listens there"));
}
