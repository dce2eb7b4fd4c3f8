//! Processes that die, hang, lie or come twice: the block completes, each task counts once, and no finished proof is
//! made again. Real operators and workers, fake proofs.

use crate::kit;
use crate::kit::{Lab, OperatorOptions, assert_books_balance, sum, wait_for};
use nix::sys::signal::Signal;
use serde_json::json;

/// Leases end soon, so that the tests do.
fn lab() -> Lab {
    Lab::start(OperatorOptions { args: vec!["--lease=2s".into()], ..Default::default() })
}

/// Proofs of a block: two a call, one a transaction, and one less than transactions to join them.
fn tasks(transactions: u32, calls: &[u8]) -> u64 {
    let calls: u64 = calls.iter().cycle().take(transactions as usize).map(|n| u64::from(*n)).sum();
    2 * calls + u64::from(transactions) + u64::from(transactions - 1).max(1)
}

const SLOW: [&str; 1] = ["--fake-millis=60"];

#[test]
fn the_operator_is_killed_and_started_again() {
    let mut lab = lab();
    let _workers = ["a", "b"].map(|name| lab.worker(name, &SLOW));
    let job = lab.submit(8, &[2, 1, 0, 3], 1);
    for least in [8, 20] {
        lab.wait_done(job, least);
        lab.kill_operator();
        let before = lab.records();
        lab.start_operator();
        let done = wait_for("the job is known again", || lab.logs(), || lab.done(job));
        assert!(done >= least, "{least} tasks were done, {done} are after the restart\n{}", lab.logs());
        lab.wait_done(job, done + 1);
        lab.records().assert_nothing_of_made_again(&before);
    }
    let before = lab.records();
    let report = lab.wait_complete(job);
    lab.records().assert_nothing_of_made_again(&before);
    assert_books_balance(&lab, &report, tasks(8, &[2, 1, 0, 3]));
}

#[test]
fn a_finished_job_is_still_in_the_books_after_a_kill() {
    let mut lab = lab();
    let _worker = lab.worker("a", &[]);
    let job = lab.submit(3, &[1], 2);
    let report = lab.wait_complete(job);
    lab.kill_operator();
    lab.start_operator();
    // what the journal's tail did not say any more was found in the store, and counts as reused then
    for column in ["count", "bytes"] {
        assert_eq!(sum(&lab.wait_complete(job), column), sum(&report, column), "{column}");
    }
    assert_eq!(lab.submit(3, &[1], 2), job, "the same block for the same prover is the same job");
    let other = lab.submit_for("another prover", 3, &[1], 2);
    let report = lab.wait_complete(other);
    assert_eq!(sum(&report, "reused"), tasks(3, &[1]) - 1, "only the root names the prover: {report}");
    lab.records().made.iter().for_each(|(task, times)| assert_eq!(*times, 1, "{task}"));
}

#[test]
fn a_worker_is_killed() {
    let lab = lab();
    let victim = lab.worker("victim", &SLOW);
    let _other = lab.worker("other", &SLOW);
    let job = lab.submit(8, &[2], 3);
    lab.wait_done(job, 6);
    victim.kill();
    let before = lab.records();
    let report = lab.wait_complete(job);
    lab.records().assert_nothing_of_made_again(&before);
    assert_books_balance(&lab, &report, tasks(8, &[2]));
}

#[test]
fn a_worker_is_stopped_past_its_lease_and_goes_on() {
    let lab = lab();
    let sleeper = lab.worker("sleeper", &SLOW);
    let _other = lab.worker("other", &SLOW);
    let job = lab.submit(16, &[2], 4);
    lab.wait_done(job, 6);
    sleeper.signal(Signal::SIGSTOP);
    wait_for(
        "its leases are lost",
        || lab.logs(),
        || lab.metric("arborist_leases_lost_total").filter(|lost| *lost >= 1.0),
    );
    let before = lab.records();
    sleeper.signal(Signal::SIGCONT);
    let report = lab.wait_complete(job);
    lab.records().assert_nothing_of_made_again(&before);
    assert_books_balance(&lab, &report, tasks(16, &[2]));
    assert!(!sleeper.has_ended(), "it goes on to live\n{}", sleeper.log());
}

#[test]
fn every_worker_is_gone_and_others_come() {
    let lab = lab();
    let workers = ["a", "b"].map(|name| lab.worker(name, &SLOW));
    let job = lab.submit(8, &[2], 5);
    lab.wait_done(job, 10);
    workers.into_iter().for_each(kit::Process::kill);
    wait_for(
        "nobody is connected",
        || lab.logs(),
        || lab.metric("arborist_workers_connected").filter(|n| *n == 0.0),
    );
    let before = lab.records();
    let _workers = ["c", "d"].map(|name| lab.worker(name, &SLOW));
    let report = lab.wait_complete(job);
    lab.records().assert_nothing_of_made_again(&before);
    assert_books_balance(&lab, &report, tasks(8, &[2]));
}

#[test]
fn a_worker_with_a_wrong_token_is_refused_for_good() {
    let lab = lab();
    let token = lab.folder().join("wrong-token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let stranger = lab.worker("stranger", &["--token-file", token.to_str().unwrap()]);
    assert_eq!(stranger.wait_end("the stranger gives up").code(), Some(3));
    assert!(stranger.log().contains("the token is wrong"), "{}", stranger.log());
    let refused = lab.metric("arborist_logins_refused_total{cause=\"token\"}");
    assert_eq!(refused, Some(1.0));
    let _worker = lab.worker("a", &[]);
    let job = lab.submit(2, &[1], 6);
    let report = lab.wait_complete(job);
    assert_books_balance(&lab, &report, tasks(2, &[1]));
}

#[test]
fn a_worker_of_another_protocol_is_told_so() {
    let lab = lab();
    let refused = kit::wire::login_with_protocol(&lab, 99);
    assert!(refused.permanent);
    for part in ["speaks protocol 99", "speaks protocol 1", "run both from one release"] {
        assert!(refused.text.contains(part), "{}", refused.text);
    }
    let _worker = lab.worker("a", &[]);
    let job = lab.submit(2, &[1], 7);
    let report = lab.wait_complete(job);
    assert_books_balance(&lab, &report, tasks(2, &[1]));
}

#[test]
fn of_two_operators_on_one_journal_the_older_is_fenced_and_says_so() {
    let mut lab = lab();
    let workers = ["a", "b"].map(|name| lab.worker(name, &SLOW));
    let job = lab.submit(8, &[2], 8);
    lab.wait_done(job, 8);
    let older = lab.operator.take().unwrap();
    let (newer, address, http) = lab.spawn_operator(2, "127.0.0.1:0", "127.0.0.1:0");
    let status = older.wait_end("the older operator stops");
    assert_eq!(status.code(), Some(1), "{}", older.log());
    assert!(older.log().contains("another operator has taken over the journal"), "{}", older.log());
    workers.into_iter().for_each(kit::Process::kill);
    let before = lab.records();
    lab.take_over(newer, address, http);
    let _workers = ["c", "d"].map(|name| lab.worker(name, &SLOW));
    let report = lab.wait_complete(job);
    lab.records().assert_nothing_of_made_again(&before);
    assert_books_balance(&lab, &report, tasks(8, &[2]));
}

/// With this seed exactly one task of the block is poisoned, a `vm`: the dice of the fake backend are loaded.
const POISON_SEED: u64 = 3;

#[test]
fn a_poison_task_is_quarantined_with_its_reason_and_the_rest_goes_on() {
    let args = vec!["--lease=2s".into(), "--max-attempts=2".into()];
    let lab = Lab::start(OperatorOptions { args, ..Default::default() });
    let poisoned = ["a", "b"].map(|name| lab.worker(name, &["--fake-faults=poison=20"]));
    let job = lab.submit(8, &[1], POISON_SEED);
    // all but the path from a vm to the root: vm, kernel, base, two merges, root
    lab.wait_done(job, tasks(8, &[1]) - 6);
    let status = wait_for(
        "the task is quarantined",
        || lab.logs(),
        || {
            let status = lab.get(&format!("/jobs/{job}"))?;
            (!status["quarantined"].as_array()?.is_empty()).then_some(status)
        },
    );
    assert_eq!(status["state"], "proving", "the job itself does not fail: {status}");
    assert_eq!(status["counts"][0]["failed"], 1, "{status}");
    let given_up = &status["quarantined"][0];
    assert_eq!((&given_up["circuit"], &given_up["attempts"]), (&json!("vm"), &json!(2)), "{status}");
    assert!(given_up["why"].as_str().unwrap().contains("wants this attempt to fail"), "{status}");
    let so_far = lab.get(&format!("/jobs/{job}/report")).unwrap();
    assert_eq!(sum(&so_far, "retries"), 2, "{so_far}");
    let before = lab.records();
    poisoned.into_iter().for_each(kit::Process::kill);
    let _healed = ["c", "d"].map(|name| lab.worker(name, &[]));
    lab.post(&format!("/jobs/{job}/revive"), &json!({}));
    let report = lab.wait_complete(job);
    lab.records().assert_nothing_of_made_again(&before);
    assert_books_balance(&lab, &report, tasks(8, &[1]));
}
