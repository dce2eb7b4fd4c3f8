//! Peers that acknowledge and do nothing, names with dead addresses, floods of idle connections: what is alive goes on.

use crate::kit::{
    ApiServer, Lab, Leader, OperatorOptions, Process, Proxy, arborist, assert_books_balance, sum, wait_for,
};
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

fn lab(args: &[&str]) -> Lab {
    Lab::start(OperatorOptions { args: args.iter().map(|a| (*a).to_owned()).collect(), ..Default::default() })
}

#[test]
fn a_worker_leaves_a_connection_that_plays_dead_and_keeps_what_it_runs() {
    let lab = lab(&["--lease=10s"]);
    let proxy = Proxy::start(&lab.address);
    // the proof takes longer than the silence is borne
    let _worker = lab.worker_at(&proxy.address, "a", &["--fake-millis=base=12000,root=10"]);
    let job = lab.submit(1, &[0], 1);
    let running = || {
        let counts = lab.get(&format!("/jobs/{job}"))?["counts"].clone();
        counts.as_array()?.iter().any(|kind| kind["running"] == 1).then_some(())
    };
    wait_for("the proof is being made", || lab.logs(), running);
    proxy.play_dead();
    wait_for("the worker is connected anew", || lab.logs(), || (proxy.connections() > 1).then_some(()));
    let report = lab.wait_complete(job);
    assert_eq!(sum(&report, "retries"), 0, "{report}");
    assert_eq!(lab.metric("arborist_leases_lost_total"), Some(0.0), "{}", lab.logs());
    assert_books_balance(&lab, &report, 2);
}

#[test]
fn the_operator_leaves_a_worker_that_plays_dead() {
    let lab = lab(&["--lease=5s"]);
    let proxy = Proxy::start(&lab.address);
    let worker = lab.worker_at(&proxy.address, "a", &["--fake-millis=600000"]);
    let connected =
        |count: f64| move |lab: &Lab| lab.metric("arborist_workers_connected").filter(|n| *n == count);
    wait_for("it is connected", || lab.logs(), || connected(1.0)(&lab));
    let job = lab.submit(1, &[0], 2);
    proxy.play_dead();
    // its end reaches nobody
    worker.kill();
    wait_for("it is disconnected", || lab.logs(), || connected(0.0)(&lab));
    assert_eq!(lab.metric("arborist_connections_ended_total{cause=\"silent\"}"), Some(1.0), "{}", lab.logs());
    let _other = lab.worker("b", &[]);
    lab.wait_complete(job);
}

#[test]
fn of_two_workers_of_one_name_the_second_waits_for_the_end_of_the_first() {
    let lab = lab(&[]);
    let first = lab.worker("twin", &["--fake-millis=20"]);
    let in_use = "in use by another live worker";
    wait_for(
        "the first is connected",
        || lab.logs(),
        || lab.metric("arborist_workers_connected").filter(|n| *n == 1.0),
    );
    let second = lab.worker_with_log("twin", "second", &["--fake-millis=20"]);
    wait_for("it is told so", || lab.logs(), || second.log().contains(in_use).then_some(()));
    let job = lab.submit(6, &[1], 3);
    let report = lab.wait_complete(job);
    assert_eq!(sum(&report, "retries"), 0, "{report}");
    assert!(!first.log().contains("not connected"), "the first is left alone\n{}", first.log());
    first.kill();
    wait_for("the second is in", || lab.logs(), || second.log().contains("logged in").then_some(()));
}

#[test]
fn a_list_of_pods_that_stalls_is_asked_for_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let operator = Leader::start(folder.path(), ApiServer::start(1));
    let (api, process) = (&operator.api, &operator.process);
    wait_for("the list is asked for again", || process.log(), || (api.lists() > 1).then_some(()));
    assert!(process.log().contains("the watch of worker pods was interrupted"), "{}", process.log());
    assert_eq!(operator.look("/healthz").status, 200, "{}", process.log());
    operator.wait_leads();
}

/// Connects again and again and says nothing, until dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Keeps so many connections open; those that are closed are replaced, up to 20,000 in all.
    fn start(address: &str, count: usize) -> Self {
        arborist_system::descriptors::raise_limit();
        let stop = Arc::new(AtomicBool::new(false));
        let open = |address: &SocketAddr| {
            let stream = TcpStream::connect_timeout(address, Duration::from_secs(1)).ok()?;
            stream.set_nonblocking(true).ok()?;
            Some(stream)
        };
        let address: SocketAddr = address.parse().unwrap();
        let mut idle: Vec<_> = (0..count).filter_map(|_| open(&address)).collect();
        let ends = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut made = idle.len();
            while !ends.load(Ordering::SeqCst) && made < 20_000 {
                let open_still = |stream: &mut TcpStream| matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
                idle.retain_mut(open_still);
                while idle.len() < count && made < 20_000 {
                    idle.extend(open(&address));
                    made += 1;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn idle_connections_do_not_lock_a_worker_out() {
    let lab = lab(&[]);
    let _flood = Flood::start(&lab.address, 600);
    let _worker = lab.worker("a", &[]);
    wait_for(
        "the worker is in",
        || lab.logs(),
        || lab.metric("arborist_workers_connected").filter(|n| *n == 1.0),
    );
    let crowded = lab.metric("arborist_connections_ended_total{cause=\"crowded\"}");
    assert!(crowded > Some(0.0), "idle ones gave way\n{}", lab.logs());
    let job = lab.submit(3, &[1], 4);
    lab.wait_complete(job);
}

#[test]
fn when_descriptors_run_out_health_answers_and_nothing_spins() {
    let options = OperatorOptions { descriptors: Some("160"), ..Default::default() };
    let lab = Lab::start(options);
    let _flood = Flood::start(&lab.address, 300);
    for _ in 0..20 {
        assert!(lab.text("/healthz").is_some() && lab.text("/readyz").is_some(), "{}", lab.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
    let _worker = lab.worker("a", &[]);
    let job = lab.submit(3, &[1], 5);
    lab.wait_complete(job);
    let log = lab.operator.as_ref().unwrap().log();
    let complaints =
        log.lines().filter(|line| line.contains("connections can") || line.contains("be taken")).count();
    assert!(complaints <= 10, "{complaints} complaints\n{log}");
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let lab =
        Lab::start(OperatorOptions { descriptors: Some("500 && ulimit -S -n 200"), ..Default::default() });
    let limits = |process: &Process| {
        let text = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
        line.split_whitespace().skip(3).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let operator = lab.operator.as_ref().unwrap();
    assert_eq!(limits(operator), ["500", "500"]);
}

#[test]
fn everything_runs_over_ipv6() {
    if let Err(error) = std::net::TcpListener::bind("[::1]:0") {
        println!("skipped, there is no IPv6 here: {error}");
        return;
    }
    let args = ["--host=::1", "--store-listen=[::1]:0"].map(str::to_owned).to_vec();
    let lab = Lab::start(OperatorOptions { args, ip: Some("[::1]"), ..Default::default() });
    assert!(lab.address.starts_with("[::1]:"), "{}", lab.address);
    let worker = lab.worker("six", &[]);
    let job = lab.submit(4, &[1], 6);
    let report = lab.wait_complete(job);
    assert_books_balance(&lab, &report, 4 * (2 + 2) - 1);
    assert!(!worker.log().contains("127.0.0.1"), "{}", worker.log());
    let mut healthcheck = arborist();
    healthcheck.args(["healthcheck", &format!("http://{}/readyz", lab.http())]);
    assert!(healthcheck.output().unwrap().status.success(), "{}", lab.logs());
}

#[test]
fn every_address_of_a_name_is_tried() {
    let lab = lab(&[]);
    let port = lab.address.rsplit_once(':').unwrap().1.to_owned();
    // on most machines it means ::1 too, where nobody listens
    let _worker = lab.worker_at(&format!("localhost:{port}"), "a", &[]);
    let job = lab.submit(2, &[1], 7);
    lab.wait_complete(job);
}
