//! Jobs over HTTP: what a client may do, and that every refusal is JSON that names what is wrong. A real operator.

use crate::kit::http::{Answer, raw};
use crate::kit::{Lab, OperatorOptions, arborist};
use crate::prove::run;
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/json\r\n";

/// A request, and the status and field that have to come of it.
struct Case<'a> {
    request: (&'a str, &'a str, &'a str, &'a [u8]),
    status: u16,
    field: &'a str,
}

fn case<'a>(method: &'a str, path: &'a str, body: &'a str, status: u16, field: &'a str) -> Case<'a> {
    Case { request: (method, path, JSON, body.as_bytes()), status, field }
}

fn assert_refused(answer: &Answer, status: u16, field: &str, what: &str) {
    let body = answer.json();
    assert_eq!(answer.status, status, "{what}: {body}");
    let text = body["error"].as_str().unwrap_or_else(|| panic!("{what}: no error in {body}"));
    assert_eq!(body["field"], field, "{what}: {body}");
    assert!(text.starts_with(&format!("{field}: ")), "{what}: {body}");
    assert!(text.chars().count() <= 300 && !text.chars().any(char::is_control), "{what}: {body}");
    assert!(answer.head.to_ascii_lowercase().contains("content-type: application/json"), "{what}");
}

#[test]
fn hostile_requests_are_refused_in_json_that_names_the_field() {
    let lab = Lab::start(OperatorOptions::default());
    let good =
        |more: &str| format!(r#"{{"synthetic": {{"transactions": 2, "calls": [0]}}, "prover": "me"{more}}}"#);
    let synthetic = |text: &str| format!(r#"{{"synthetic": {text}, "prover": "me"}}"#);
    let long = "x".repeat(129);
    let bodies = [
        (String::new(), "body"),
        ("{".into(), "body"),
        ("[]".into(), "body"),
        ("null".into(), "body"),
        ("\"text\"".into(), "body"),
        (r#"[{"transactions": 2, "calls": [0]}, 1, 1, "me"]"#.into(), "body"),
        (good("") + "x", "body"),
        ("[".repeat(10_000), "body"),
        ("{}".into(), "synthetic"),
        (synthetic("[2, [0], 0]"), "synthetic"),
        (synthetic("{}"), "synthetic.transactions"),
        (synthetic(r#"{"transactions": 0, "calls": [0]}"#), "synthetic.transactions"),
        (synthetic(r#"{"transactions": 65537, "calls": [0]}"#), "synthetic.transactions"),
        (synthetic(r#"{"transactions": 4294967295, "calls": [0]}"#), "synthetic.transactions"),
        (synthetic(r#"{"transactions": -1, "calls": [0]}"#), "synthetic.transactions"),
        (synthetic(r#"{"transactions": 1e3, "calls": [0]}"#), "synthetic.transactions"),
        (synthetic(r#"{"transactions": "2", "calls": [0]}"#), "synthetic.transactions"),
        (synthetic(r#"{"transactions": 2, "calls": []}"#), "synthetic.calls"),
        (synthetic(r#"{"transactions": 2, "calls": 0}"#), "synthetic.calls"),
        (synthetic(r#"{"transactions": 2, "calls": [0, 8]}"#), "synthetic.calls[1]"),
        (synthetic(r#"{"transactions": 2, "calls": [256]}"#), "synthetic.calls[0]"),
        (synthetic(r#"{"transactions": 2, "calls": [0], "seeds": 1}"#), "synthetic.seeds"),
        (synthetic(r#"{"transactions": 2, "transactions": 3, "calls": [0]}"#), "synthetic.transactions"),
        (good(r#", "priority": 2147483648"#), "priority"),
        (good(r#", "deadline": 600"#), "deadline"),
        (good(r#", "deadline": "soon""#), "deadline"),
        (good(r#", "deadline": "-5s""#), "deadline"),
        (good(r#", "deadline": "99999999h""#), "deadline"),
        (good(r#", "chain_id": -1"#), "chain_id"),
        (good(r#", "\u001b[2J": 1"#), "\u{fffd}[2J"),
        (good("").replace("\"me\"", "\"\""), "prover"),
        (good("").replace("\"me\"", "7"), "prover"),
        (good("").replace("\"me\"", "\"a\\nb\""), "prover"),
        (good("").replace("\"me\"", "\"Bj\u{f6}rn\""), "prover"),
        (good("").replace("\"me\"", "\"0x12\""), "prover"),
        (good("").replace("me", &long), "prover"),
    ];
    let mut cases: Vec<Case> =
        bodies.iter().map(|(body, field)| case("POST", "/jobs", body, 400, field)).collect();
    let large = "x".repeat(300_000);
    let types =
        |kind, status| Case { request: ("POST", "/jobs", kind, b"{}"), status, field: "content-type" };
    cases.extend([
        case("POST", "/jobs", &large, 413, "body"),
        case("POST", "/jobs?prover=me", "{}", 400, "prover"),
        types("Content-Type: text/plain\r\n", 415),
        types("Content-Type: application/x-www-form-urlencoded\r\n", 415),
        Case {
            request: ("POST", "/blocks?prover=me", "Content-Type: image/png\r\n", b"{}"),
            status: 415,
            field: "content-type",
        },
        case("POST", "/blocks", "{}", 400, "prover"),
        case("POST", "/blocks?prover=me&prover=you", "{}", 400, "prover"),
        case("POST", "/blocks?prover=%1b%5b2J", "{}", 400, "prover"),
        case("POST", "/blocks?prover=me&priority=high", "{}", 400, "priority"),
        case("POST", "/blocks?prover=me&deadline=0s", "{}", 400, "deadline"),
        case("POST", "/blocks?prover=me&dead_line=10m", "{}", 400, "dead_line"),
        case("GET", "/", "", 404, "path"),
        case("GET", "/job", "", 404, "path"),
        case("GET", "/jobs/1/roots", "", 404, "path"),
        case("GET", "/jobs/../../etc/passwd", "", 404, "path"),
        case("POST", "/jobs/1/explode", "", 404, "path"),
        case("GET", "/jobs/7", "", 404, "id"),
        case("GET", "/jobs/-1", "", 404, "id"),
        case("GET", "/jobs/4294967296", "", 404, "id"),
        case("GET", "/jobs/x/report", "", 404, "id"),
        case("GET", "/jobs/7/report", "", 404, "id"),
        case("GET", "/jobs/7/root-proof", "", 404, "id"),
        case("GET", "/jobs/7/public-inputs", "", 404, "id"),
        case("POST", "/jobs/7/cancel", "", 404, "id"),
        case("POST", "/jobs/7/revive", "", 404, "id"),
        case("PATCH", "/jobs/7", r#"{"priority": 1}"#, 404, "id"),
        case("PATCH", "/jobs/7", "{}", 400, "body"),
        case("PATCH", "/jobs/7", "[null, 1]", 400, "body"),
        case("PATCH", "/jobs/7", r#"{"state": "complete"}"#, 400, "state"),
        case("PATCH", "/jobs/7", r#"{"deadline": 5}"#, 400, "deadline"),
        case("PATCH", "/jobs/7", r#"{"priority": 1.5}"#, 400, "priority"),
        case("DELETE", "/jobs/7", "", 405, "method"),
        case("PUT", "/jobs", "{}", 405, "method"),
        case("GET", "/blocks", "", 405, "method"),
        case("GET", "/jobs/7/cancel", "", 405, "method"),
        case("POST", "/jobs/7/report", "", 405, "method"),
        case("POST", "/metrics", "", 405, "method"),
        case("GET", "/jobs?limit=0", "", 400, "limit"),
        case("GET", "/jobs?limit=1001", "", 400, "limit"),
        case("GET", "/jobs?limit=x", "", 400, "limit"),
        case("GET", "/jobs?after=-1", "", 400, "after"),
        case("GET", "/jobs?page=2", "", 400, "page"),
        case("GET", "/workers?limit=99999", "", 400, "limit"),
    ]);
    for Case { request: (method, path, headers, body), status, field } in &cases {
        let answer = lab.ask(method, path, headers, body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]);
        assert_refused(&answer, *status, field, &format!("{method} {path} {headers:?} {shown}"));
    }
    assert_eq!(lab.get("/jobs").unwrap(), json!({"jobs": [], "next": null}), "nothing was taken in");
}

#[test]
fn without_the_token_nothing_is_told_and_a_length_that_lies_is_not_believed() {
    let lab = Lab::start(OperatorOptions::default());
    for header in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic YTpi\r\n"] {
        for line in ["GET /jobs", "GET /jobs/1/root-proof", "PATCH /jobs/1", "POST /jobs", "GET /workers"] {
            let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
            let answer = raw(lab.http(), request.as_bytes());
            assert_refused(&answer, 401, "authorization", line);
        }
    }
    let huge = "Content-Length: 99999999999999\r\n";
    let request = format!("POST /jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{huge}\r\n");
    assert_eq!(raw(lab.http(), request.as_bytes()).status, 401, "refused before a byte of it is read");
}

#[test]
fn a_finished_job_gives_its_root_proof_and_public_inputs_and_stays_as_it_is() {
    let lab = Lab::start(OperatorOptions::default());
    let worker = lab.worker("a", &[]);
    let job = lab.submit(3, &[1], 1);
    lab.wait_complete(job);
    let finished = lab.get(&format!("/jobs/{job}")).unwrap();
    let proof = lab.ask("GET", &format!("/jobs/{job}/root-proof"), "", b"");
    assert_eq!(proof.status, 200, "{}", proof.json());
    let public = lab.get(&format!("/jobs/{job}/public-inputs")).unwrap();
    assert_eq!((&public["version"], &public["backend"]), (&json!(1), &json!("fake")), "{public}");
    let stored = lab.store().join("proofs").join(public["task"].as_str().unwrap());
    assert_eq!(proof.body, std::fs::read(&stored).unwrap());
    // the two files are what `verify` reads; what it then says is that fake proofs prove nothing
    std::fs::write(lab.folder().join("root.proof"), &proof.body).unwrap();
    std::fs::write(lab.folder().join("public.json"), public.to_string()).unwrap();
    let mut verify = arborist();
    verify.arg("verify").arg(lab.folder());
    let (code, _, stderr) = run(verify);
    assert!(code == 1 && stderr.contains("invalid: backend: `fake`"), "{code} {stderr}");

    let change = json!({"priority": 9, "deadline": "1h"}).to_string();
    for (method, path, body) in [
        ("POST", "cancel", ""),
        ("POST", "suspend", ""),
        ("POST", "resume", ""),
        ("PATCH", "", change.as_str()),
    ] {
        let path = format!("/jobs/{job}/{path}");
        let answer = lab.ask(method, path.trim_end_matches('/'), JSON, body.as_bytes());
        assert_refused(&answer, 409, "state", &path);
        assert_eq!(lab.get(&format!("/jobs/{job}")).unwrap(), finished, "{path}");
    }
    let mut bytes = proof.body.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&stored, bytes).unwrap();
    let damaged = lab.ask("GET", &format!("/jobs/{job}/root-proof"), "", b"");
    assert_eq!(damaged.status, 503, "a damaged proof is not handed out: {}", damaged.json());
    drop(worker);
}

#[test]
fn deadline_and_priority_of_an_open_job_are_moved_and_its_states_go_one_way() {
    let lab = Lab::start(OperatorOptions::default());
    let job = lab.submit(2, &[0], 1);
    let path = format!("/jobs/{job}");
    let patch = |body: Value| lab.ask("PATCH", &path, JSON, body.to_string().as_bytes());
    let status = || lab.get(&path).unwrap();
    assert_eq!(status()["deadline"], Value::Null);
    let moved = patch(json!({"deadline": "10m", "priority": -3}));
    assert_eq!(moved.status, 200, "{}", moved.json());
    let now = status();
    assert_eq!((moved.json(), &now["priority"]), (now.clone(), &json!(-3)));
    let left = now["deadline"].as_u64().unwrap() - now["submitted"].as_u64().unwrap();
    assert!((590_000..=720_000).contains(&left), "{now}");
    assert_eq!(patch(json!({"priority": 4})).status, 200);
    assert_eq!(status()["deadline"], now["deadline"], "what is not named stays");
    assert_eq!(patch(json!({"deadline": null})).status, 200);
    assert_eq!((&status()["deadline"], &status()["priority"]), (&Value::Null, &json!(4)));
    for gone in ["root-proof", "public-inputs"] {
        let answer = lab.ask("GET", &format!("{path}/{gone}"), "", b"");
        assert_refused(&answer, 409, "state", gone);
    }
    lab.post(&format!("{path}/cancel"), &json!({}));
    assert_eq!(status()["state"], "cancelled");
    lab.post(&format!("{path}/cancel"), &json!({}));
    assert_refused(&patch(json!({"priority": 5})), 409, "state", "a cancelled job");
    assert_eq!((&status()["state"], &status()["priority"]), (&json!("cancelled"), &json!(4)));
    lab.post(&format!("{path}/revive"), &json!({}));
    assert_eq!(status()["state"], "proving");
}

#[test]
fn a_job_is_revived_only_within_the_quota_of_its_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let tenants = folder.path().join("tenants.yaml");
    std::fs::write(&tenants, "namespaces: {team-a: {openJobs: 1}, team-b: {openBytes: 1Ki}}").unwrap();
    let args = vec![format!("--tenants={}", tenants.display())];
    let lab = Lab::start(OperatorOptions { args, ..OperatorOptions::default() });
    let submit = |namespace: &str, seed: u64| {
        let synthetic = json!({"transactions": 1, "calls": [0], "seed": seed});
        let body = json!({"synthetic": synthetic, "prover": "me", "namespace": namespace}).to_string();
        lab.ask("POST", "/jobs", JSON, body.as_bytes())
    };
    let first = submit("team-a", 1).json()["id"].as_u64().unwrap();
    assert_refused(&submit("team-a", 2), 429, "namespace", "a second job");
    lab.post(&format!("/jobs/{first}/cancel"), &json!({}));
    let second = submit("team-a", 2).json()["id"].as_u64().unwrap();
    let revive = || lab.ask("POST", &format!("/jobs/{first}/revive"), "", b"");
    assert_refused(&revive(), 429, "namespace", "a job taken up again");
    assert_eq!(lab.get(&format!("/jobs/{first}")).unwrap()["state"], "cancelled");
    lab.post(&format!("/jobs/{second}/cancel"), &json!({}));
    assert_eq!(revive().status, 200);
    assert_eq!(submit("team-b", 1).status, 200, "a made-up block has no inputs");

    let file = lab.folder().join("block.json");
    let (code, _, stderr) = run(new_block(&file));
    assert_eq!(code, 0, "{stderr}");
    let answer = lab.ask("POST", "/blocks?prover=me&namespace=team-b", JSON, &std::fs::read(&file).unwrap());
    assert_refused(&answer, 429, "namespace", "a block file of more than the bytes that are allowed");
    assert!(answer.json()["error"].as_str().unwrap().contains("bytes of inputs of open jobs"));
}

fn new_block(file: &std::path::Path) -> std::process::Command {
    let mut command = arborist();
    command.args(["block", "new", "--transactions=2", "--calls=2", "--objects=random:2000"]);
    command.arg("--out").arg(file);
    command
}

#[test]
fn jobs_and_workers_are_listed_a_page_at_a_time() {
    let lab = Lab::start(OperatorOptions::default());
    let jobs: Vec<u64> = (1..=5).map(|seed| lab.submit(1, &[0], seed)).collect();
    let (mut found, mut path) = (vec![], "/jobs?limit=2".to_owned());
    loop {
        let page = lab.get(&path).unwrap();
        let ids = page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_u64().unwrap());
        let ids: Vec<u64> = ids.collect();
        assert!(ids.len() <= 2, "{page}");
        found.extend(ids);
        let Some(next) = page["next"].as_u64() else { break };
        path = format!("/jobs?limit=2&after={next}");
    }
    assert_eq!(found, jobs);
    let _workers = ["a", "b", "c"].map(|name| lab.worker(name, &["--prefetch=0", "--fake-millis=600000"]));
    let connected = || lab.metric("arborist_workers_connected").filter(|n| *n == 3.0);
    crate::kit::wait_for("all are logged in", || lab.logs(), connected);
    let names = |page: &Value| -> Vec<String> {
        let workers = page["workers"].as_array().unwrap().iter();
        workers.map(|worker| worker["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = lab.get("/workers?limit=2").unwrap();
    assert_eq!((names(&first), &first["next"]), (vec!["a".into(), "b".into()], &json!("b")));
    let second = lab.get("/workers?limit=2&after=b").unwrap();
    assert_eq!((names(&second), &second["next"]), (vec!["c".into()], &Value::Null));
}
