use super::*;
use crate::kubernetes::testing::{FakeApi, Mood};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ours/leases/arborist";
const TIMING: Timing = Timing { lease: Duration::from_secs(10) };

struct Process {
    election: Election,
    gate: Gate,
}

fn process(api: &FakeApi, pod: &str, random: u32) -> Process {
    let gate = Gate::default();
    let metrics = Arc::new(Metrics::new().unwrap());
    let us = Identity::new(pod, random);
    let election = Election::new(api.client(), "ours", us, TIMING, gate.clone(), metrics);
    Process { election, gate }
}

fn holder(api: &FakeApi) -> Option<String> {
    Some(api.get(PATH)?["spec"]["holderIdentity"].as_str()?.to_owned())
}

/// Lets the election go on until it stops.
fn keep(mut election: Election, fenced: &CancellationToken) -> JoinHandle<Stopped> {
    let fenced = fenced.clone();
    tokio::spawn(async move { election.keep(&fenced).await })
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn of(holder: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "arborist"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 10, "leaseTransitions": 4},
    })
}

#[tokio::test(start_paused = true)]
async fn the_first_one_leads_and_the_second_waits_until_it_gives_up() {
    let api = FakeApi::default();
    let (mut first, mut second) = (process(&api, "a", 1), process(&api, "b", 2));
    first.election.acquire(|_| {}).await;
    assert_eq!(holder(&api).as_deref(), Some("a_00000001"));
    assert!(first.gate.is_open());
    let gate = second.gate.clone();
    let waits = tokio::spawn(async move {
        second.election.acquire(|_| {}).await;
        second.election
    });
    // the first one renews, so the second waits for ever
    let fenced = CancellationToken::new();
    assert!(timeout(Duration::from_secs(60), first.election.keep(&fenced)).await.is_err());
    assert!(!waits.is_finished() && !gate.is_open());
    let began = Instant::now();
    first.election.release().await.unwrap();
    assert!(!first.gate.is_open());
    drop(waits.await.unwrap());
    assert!(began.elapsed() <= TIMING.look_every(), "{:?}", began.elapsed());
    assert!(gate.is_open());
    let lease = api.get(PATH).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "b_00000002");
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_followed_after_its_lease_and_no_sooner() {
    let api = FakeApi::default();
    let (mut first, mut second) = (process(&api, "a", 1), process(&api, "b", 2));
    first.election.acquire(|_| {}).await;
    let died = Instant::now();
    drop(first);
    second.election.acquire(|_| {}).await;
    let took = died.elapsed();
    assert!(took > TIMING.lease && took <= TIMING.lease + 2 * TIMING.look_every(), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_follows_an_earlier_one_of_its_pod_at_once() {
    let api = FakeApi::default();
    process(&api, "a", 1).election.acquire(|_| {}).await;
    let mut again = process(&api, "a", 9);
    let began = Instant::now();
    again.election.acquire(|_| {}).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(holder(&api).as_deref(), Some("a_00000009"));
}

#[tokio::test(start_paused = true)]
async fn two_that_try_at_once_do_not_both_lead() {
    let api = FakeApi::default();
    let (mut a, mut b) = (process(&api, "a", 1), process(&api, "b", 2));
    let both = async { tokio::join!(a.election.acquire(|_| {}), b.election.acquire(|_| {})) };
    assert!(timeout(Duration::from_secs(5), both).await.is_err());
    assert_ne!(a.gate.is_open(), b.gate.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_api_server_pauses_and_leads_again() {
    for mood in [Mood::Down, Mood::Silent] {
        let api = FakeApi::default();
        let mut leader = process(&api, "a", 1);
        leader.election.acquire(|_| {}).await;
        let mut standby = process(&api, "b", 2);
        let waits = tokio::spawn(async move { standby.election.acquire(|_| {}).await });
        let keeps = keep(leader.election, &CancellationToken::new());
        seconds(5).await;
        assert!(leader.gate.is_open());
        api.set(mood);
        seconds(20).await;
        assert!(!leader.gate.is_open(), "{mood:?}: it may not write");
        assert!(!keeps.is_finished(), "{mood:?}: it goes on serving");
        api.set(Mood::Well);
        seconds(4).await;
        assert!(leader.gate.is_open(), "{mood:?}: it leads again");
        assert!(!waits.is_finished(), "{mood:?}: the standby lets it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_ends_when_another_took_the_lease_or_the_journal() {
    for how in ["lease", "journal", "lease while away"] {
        let api = FakeApi::default();
        let mut leader = process(&api, "a", 1);
        leader.election.acquire(|_| {}).await;
        let fenced = CancellationToken::new();
        let keeps = keep(leader.election, &fenced);
        seconds(1).await;
        let wanted = match how {
            "journal" => {
                fenced.cancel();
                Stopped::Fenced
            }
            _ => {
                if how == "lease while away" {
                    api.set(Mood::Down);
                    seconds(30).await;
                }
                api.put(PATH, of("b_00000002"));
                api.set(Mood::Well);
                Stopped::Lost("b_00000002".into())
            }
        };
        let stopped = timeout(Duration::from_secs(4), keeps).await.expect(how).unwrap();
        assert_eq!(stopped, wanted, "{how}");
        assert!(!leader.gate.is_open(), "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_or_labelled_stays_with_its_leader() {
    let api = FakeApi::default();
    let mut leader = process(&api, "a", 1);
    leader.election.acquire(|_| {}).await;
    let keeps = keep(leader.election, &CancellationToken::new());
    api.delete(PATH);
    seconds(4).await;
    assert_eq!(holder(&api).as_deref(), Some("a_00000001"), "made anew");
    let mut labelled = api.get(PATH).unwrap();
    labelled["metadata"]["labels"]["team"] = "rollup".into();
    api.put(PATH, labelled);
    seconds(20).await;
    assert!(!keeps.is_finished() && leader.gate.is_open());
    assert_eq!(api.get(PATH).unwrap()["metadata"]["labels"]["team"], "rollup");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_released_that_is_anothers() {
    let api = FakeApi::default();
    let mut leader = process(&api, "a", 1);
    leader.election.acquire(|_| {}).await;
    api.put(PATH, of("b_00000002"));
    leader.election.release().await.unwrap();
    assert_eq!(holder(&api).as_deref(), Some("b_00000002"));
}

#[tokio::test(start_paused = true)]
async fn a_standby_says_why_it_can_not_take_over() {
    let api = FakeApi::default();
    api.set(Mood::Down);
    let (told, hears) = std::sync::mpsc::channel();
    let mut standby = process(&api, "a", 1);
    let waits = tokio::spawn(async move {
        standby.election.acquire(move |trouble| told.send(trouble).unwrap()).await;
    });
    seconds(3).await;
    assert!(hears.try_recv().unwrap().unwrap().contains("can't be read"));
    api.set(Mood::Well);
    waits.await.unwrap();
    assert_eq!(hears.try_iter().last(), Some(None));
}
