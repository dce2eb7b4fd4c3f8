use super::*;
use std::time::Duration;

fn task(n: u8) -> TaskId {
    TaskId([n; 32])
}

fn done(fence: u64) -> Outcome {
    Outcome::Done(Completed { fence, task: task(fence as u8).0.to_vec(), ..Default::default() })
}

fn fences(frame: &FromWorker) -> Vec<u64> {
    frame.completed.iter().map(|c| c.fence).chain(frame.failed.iter().map(|f| f.fence)).collect()
}

#[test]
fn a_fence_is_taken_once_until_its_result_is_acknowledged() {
    let book = Book::default();
    assert!(book.add(1, task(1), &[]).is_some());
    assert!(book.add(1, task(1), &[]).is_none());
    assert!(book.finish(done(1)));
    assert!(book.add(1, task(1), &[]).is_none());
    let seq = book.next_frame(false).unwrap().seq;
    assert!(book.add(1, task(1), &[]).is_none());
    book.acknowledge(seq);
    assert!(book.add(1, task(1), &[]).is_some());
}

#[test]
fn results_are_kept_until_acknowledged_and_said_again_in_order() {
    let book = Book::default();
    for fence in 1..=3 {
        book.add(fence, task(fence as u8), &[]);
    }
    book.finish(done(1));
    assert_eq!(book.next_frame(false).unwrap().seq, 1);
    book.finish(done(2));
    assert_eq!(book.next_frame(false).unwrap().seq, 2);
    assert!(book.next_frame(false).is_none());
    book.acknowledge(1);
    book.finish(done(3));
    book.connection_lost();
    let held: Vec<u64> = book.held(Instant::now()).iter().map(|h| h.fence).collect();
    assert_eq!(held, [2, 3]);
    let frame = book.next_frame(false).unwrap();
    assert_eq!((frame.seq, fences(&frame)), (3, vec![2, 3]));
    book.acknowledge(3);
    book.connection_lost();
    assert!(book.next_frame(false).is_none());
}

#[test]
fn revoked_leases_are_stopped_but_a_stored_proof_is_reported() {
    let book = Book::default();
    let stop = book.add(1, task(1), &[]).unwrap();
    book.add(2, task(2), &[]);
    book.finish(done(2));
    book.revoke(&[1, 2, 9]);
    assert_eq!(fences(&book.next_frame(false).unwrap()), [2]);
    assert!(stop.flag.is_cancelled() && stop.token.is_cancelled());
    assert!(!book.finish(done(1)));
    assert!(!book.start(1, Instant::now()));
    assert!(book.next_frame(false).is_none());
}

#[test]
fn a_heartbeat_names_queued_running_and_unsaid_leases() {
    let book = Book::default();
    for fence in 1..=3 {
        book.add(fence, task(1), &[]);
    }
    book.start(2, Instant::now());
    book.finish(done(3));
    let frame = book.next_frame(true).unwrap();
    assert_eq!(frame.heartbeat.as_ref().unwrap().fences, [1, 2]);
    assert_eq!(fences(&frame), [3]);
}

#[test]
fn many_results_are_spread_over_frames_and_the_rest_is_in_the_heartbeat() {
    let book = Book::default();
    let count = MAX_RESULTS_PER_FRAME as u64 + 7;
    for fence in 1..=count {
        book.add(fence, task(1), &[]);
        let text = "x".repeat(5_000);
        book.finish(Outcome::failed(fence, task(1), Reason::Error, &text, Some(task(2))));
    }
    let first = book.next_frame(true).unwrap();
    assert_eq!(first.failed.len(), MAX_RESULTS_PER_FRAME);
    assert_eq!(first.heartbeat.as_ref().unwrap().fences.len(), 7);
    assert!(prost_len(&first) < arborist_core::wire::MAX_FRAME);
    assert_eq!(book.next_frame(false).unwrap().failed.len(), 7);
}

fn prost_len(frame: &FromWorker) -> usize {
    let mut out = bytes::BytesMut::new();
    arborist_core::wire::put_frame(frame, &mut out);
    out.len()
}

#[test]
fn draining_hands_back_what_was_not_started_and_what_comes_late() {
    let book = Book::default();
    let now = Instant::now();
    let running = book.add(1, task(1), &[]).unwrap();
    let queued = book.add(2, task(2), &[]).unwrap();
    book.start(1, now);
    book.drain();
    assert!(book.add(3, task(3), &[]).is_none());
    assert!(queued.token.is_cancelled() && !running.token.is_cancelled());
    let frame = book.next_frame(false).unwrap();
    assert!(frame.draining.is_some());
    assert!(fences(&frame).is_empty(), "said first");
    let frame = book.next_frame(false).unwrap();
    assert_eq!(fences(&frame), [2, 3]);
    assert!(frame.failed.iter().all(|f| f.reason() == Reason::HandedBack));
    book.hand_back_rest();
    assert!(running.flag.is_cancelled());
    let frame = book.next_frame(false).unwrap();
    assert_eq!((frame.draining.is_some(), fences(&frame)), (false, vec![1]));
    book.connection_lost();
    assert!(book.next_frame(false).unwrap().draining.is_some(), "said again on a new connection");
}

#[test]
fn running_time_is_told_and_zero_means_not_started() {
    let book = Book::default();
    let now = Instant::now();
    book.add(1, task(1), &[]);
    book.add(2, task(2), &[]);
    book.start(2, now);
    let held = book.held(now + Duration::from_millis(1500));
    let told: Vec<(u64, u32)> = held.iter().map(|h| (h.fence, h.running_millis)).collect();
    assert_eq!(told, [(1, 0), (2, 1500)]);
}

#[test]
fn what_came_with_a_lease_is_shown_until_its_result_is_acknowledged() {
    let book = Book::default();
    let now = Instant::now();
    for fence in 1..=3 {
        book.add(fence, task(1), &[fence as u8; 16]);
    }
    book.finish(done(1));
    book.next_frame(false);
    book.finish(done(2));
    let macs = || book.held(now).into_iter().map(|held| (held.fence, held.mac[0])).collect::<Vec<_>>();
    assert_eq!(macs(), [(3, 3), (1, 1), (2, 2)]);
    book.acknowledge(1);
    assert_eq!(macs(), [(3, 3), (2, 2)]);
    book.revoke(&[3]);
    assert_eq!(macs(), [(2, 2)]);
    assert_eq!(book.state().macs.len(), 1, "nothing else is kept");
}

#[tokio::test]
async fn all_said_waits_for_the_last_acknowledgement() {
    let book = Book::default();
    book.add(1, task(1), &[]);
    let waiting = book.all_said();
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    book.finish(done(1));
    book.no_lease_open().await;
    let seq = book.next_frame(false).unwrap().seq;
    assert!(futures::poll!(&mut waiting).is_pending());
    book.acknowledge(seq);
    waiting.await;
}
