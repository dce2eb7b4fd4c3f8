//! What is remembered, and for how long.

use super::*;
use crate::api::conditions::reason;
use crate::controllers::provingjob::fixtures;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

#[test]
fn failures_count_until_the_spec_is_edited() {
    let mut known = Known::default();
    let failed = |generation| Found::NotSubmitted {
        reason: reason::SOURCE_UNAVAILABLE,
        message: "m".into(),
        generation,
        again: Again::Always,
    };
    for (generation, attempts, pause) in [(1, 1, 1), (1, 2, 2), (1, 3, 4), (2, 1, 1)] {
        note(&mut known, failed(generation), at(0), 1.0);
        let failure = known.failure.clone().unwrap();
        assert_eq!((failure.attempts, failure.next), (attempts, Some(at(pause))));
    }
    note(&mut known, Found::Submitted(TaskId([1; 32])), at(0), 1.0);
    assert_eq!((known.failure, known.root), (None, Some(TaskId([1; 32]))));
}

#[test]
fn a_wrong_source_is_final_after_three_tries_in_a_row() {
    let mut known = Known::default();
    for (mismatch, pause) in
        [(true, Some(32)), (false, Some(2)), (true, Some(32)), (true, Some(60)), (true, None)]
    {
        let (reason, again) = match mismatch {
            true => (reason::SOURCE_HASH_MISMATCH, Again::Few),
            false => (reason::SOURCE_UNAVAILABLE, Again::Always),
        };
        let found = Found::NotSubmitted { reason, message: "m".into(), generation: 1, again };
        note(&mut known, found, at(0), 1.0);
        assert_eq!(known.failure.as_ref().unwrap().next, pause.map(at), "{known:?}");
    }
}

#[test]
fn what_was_not_sent_waits_longer_each_time_and_counts_as_tried_when_it_lasts() {
    let mut known = Known::default();
    for (n, pause, attempts) in [
        (1, 1, 0),
        (2, 2, 0),
        (3, 4, 0),
        (4, 8, 0),
        (5, 16, 0),
        (6, 32, 0),
        (7, 60, 0),
        (8, 60, 1),
        (9, 60, 2),
    ] {
        let why = format!("read Secret s: 500 {}", "x".repeat(200));
        note(&mut known, Found::NotSent { target: "t".into(), why }, at(0), 1.0);
        let delivery = &known.deliveries["t"];
        assert_eq!((delivery.attempts, delivery.next), (attempts, Some(at(pause))), "{n}");
        assert_eq!(
            delivery.answer.starts_with("read Secret s: 500"),
            attempts > 0,
            "{n}: {}",
            delivery.answer
        );
        assert!(delivery.answer.len() <= MAX_ANSWER);
    }
    let result = Err(ReportError::Unavailable("503".into()));
    note(&mut known, Found::Sent { target: "t".into(), generation: 1, result }, at(0), 1.0);
    assert_eq!((known.deliveries["t"].attempts, known.deliveries["t"].unsent), (3, 0));
    note(&mut known, Found::NotSent { target: "t".into(), why: "why".into() }, at(0), 1.0);
    assert_eq!(
        (known.deliveries["t"].attempts, known.deliveries["t"].answer.as_str()),
        (3, "503"),
        "counted anew"
    );
}

#[test]
fn a_namespace_has_half_of_the_turns_at_fetching() {
    let memory = Memory::default();
    let turns = || memory.fetches_of("a").try_acquire_owned();
    let (first, second) = (turns().unwrap(), turns().unwrap());
    assert!(turns().is_err());
    assert!(memory.fetches_of("b").try_acquire_owned().is_ok());
    drop((first, second));
    assert!(turns().is_ok());
    assert_eq!(lock(&memory.fetches_of).len(), 1, "who holds none is forgotten");
}

#[test]
fn a_watch_that_is_behind_by_any_number_of_writes_is_not_believed() {
    let memory = Memory::default();
    let job = |version: &str| {
        let mut job = fixtures::job(fixtures::spec(serde_json::json!({})));
        job.metadata.resource_version = Some(version.into());
        Arc::new(job)
    };
    let seen = |version: &str| memory.freshest(&job(version)).resource_version().unwrap();
    assert_eq!(seen("1"), "1", "nothing was written");
    for (from, after) in [("1", "2"), ("2", "3"), ("3", "4")] {
        memory.answered(&job(from), (*job(after)).clone(), Some(at(0)));
    }
    for (watched, expected) in [("1", "4"), ("1", "4"), ("3", "4"), ("4", "4"), ("5", "5")] {
        assert_eq!(seen(watched), expected, "{watched}");
    }
    memory.answered(&job("5"), (*job("6")).clone(), None);
    for (watched, expected) in [("3", "3"), ("5", "6"), ("7", "7")] {
        assert_eq!(seen(watched), expected, "after an edit of somebody else: {watched}");
    }
    assert_eq!(memory.last_write(&job("1").uid().unwrap()), Some(at(0)), "a read is no write");
}

#[test]
fn deliveries_go_on_from_what_the_status_says() {
    let memory = Memory::default();
    let receipt = ReportReceipt { target: "a".into(), attempts: 3, delivered_at: None, answer: "503".into() };
    let known = memory.known("u", std::slice::from_ref(&receipt));
    assert_eq!(known.deliveries["a"].receipt("a"), receipt);

    let mut known = known;
    let sent = |result| Found::Sent { target: "a".into(), generation: 1, result };
    note(&mut known, sent(Err(ReportError::Unavailable("503".into()))), at(0), 1.0);
    assert_eq!((known.deliveries["a"].attempts, known.deliveries["a"].next), (4, Some(at(8))));
    note(&mut known, sent(Err(ReportError::Refused("422".into()))), at(0), 1.0);
    assert_eq!(known.deliveries["a"].refused, Some(1));
    note(&mut known, sent(Ok("200".into())), at(5), 1.0);
    let taken = &known.deliveries["a"];
    assert_eq!((taken.attempts, taken.delivered_at, taken.answer.as_str()), (6, Some(at(5)), "200"));
}
