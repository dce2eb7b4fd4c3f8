//! The engine's time goes on whatever clocks show; deadlines follow the wall clock.

mod engine_world;

use arborist_core::engine::*;
use arborist_core::profile::Needs;
use engine_world::*;

const HOUR: Millis = 3_600_000;
const START: Millis = 1_800_000_000_000;
/// A machine for nothing.
const TOO_SMALL: Needs = Needs { cores: 1, memory_mib: 1 };

fn started() -> World {
    let mut world = World::flat();
    world.now = START;
    world
}

/// Restarts on a machine whose clock shows `now`; from a snapshot, or from the journal alone.
fn restart(world: &mut World, now: Millis, with_snapshot: bool) {
    let config = world.engine.config().clone();
    let snapshot = with_snapshot.then(|| world.engine.snapshot());
    let records = if with_snapshot { &[][..] } else { &world.journal };
    world.engine = Engine::restore(config, snapshot.as_deref(), records, resolve, now).unwrap();
    world.now = now;
}

/// How long it takes until a worker that fell silent loses its lease, in seconds.
fn lost_after(world: &mut World, session: u64) -> Option<Millis> {
    let start = world.now;
    let commands = world.join(session, SMALL, 0);
    assert_eq!(assigned(&commands).len(), 1);
    (0..120).find_map(|_| {
        let commands = world.after(1_000);
        let lost = notices(&commands).iter().any(|n| matches!(n, Notice::LeaseLost { .. }));
        lost.then_some((world.now - start) / 1_000)
    })
}

#[test]
fn leases_end_in_time_whatever_the_clocks_of_the_machines_that_follow_show() {
    let (back, ahead) = (|by| move |now| now - by, |by| move |now| now + by);
    type Step = Box<dyn Fn(Millis) -> Millis>;
    let cases: Vec<(&str, Vec<Step>)> = vec![
        ("the same", vec![Box::new(|now| now)]),
        ("ten minutes earlier", vec![Box::new(back(600_000))]),
        ("a day earlier", vec![Box::new(back(24 * HOUR))]),
        ("hours later", vec![Box::new(ahead(5 * HOUR))]),
        ("earlier, and earlier again", vec![Box::new(back(HOUR)), Box::new(back(HOUR))]),
        ("later, and back", vec![Box::new(ahead(5 * HOUR)), Box::new(back(5 * HOUR))]),
        ("earlier, and right again", vec![Box::new(back(HOUR)), Box::new(ahead(HOUR))]),
        ("in 1970", vec![Box::new(|_| 5)]),
    ];
    for (case, steps) in cases {
        for with_snapshot in [true, false] {
            let mut world = started();
            world.submit(spec(1, &[1; 8], 1));
            world.join(1, SMALL, 0);
            world.after(1_000);
            for (n, step) in steps.iter().enumerate() {
                let now = step(world.now);
                restart(&mut world, now, with_snapshot);
                let lost = lost_after(&mut world, 10 + n as u64);
                assert!(lost.is_some_and(|s| (14..=17).contains(&s)), "{case}: {lost:?}");
            }
        }
    }
}

#[test]
fn leases_end_in_time_when_the_clock_that_is_handed_in_is_set_back() {
    for by in [2_000, 60_000, 24 * HOUR] {
        let mut world = started();
        world.submit(spec(1, &[1; 8], 1));
        world.after(1_000);
        world.now -= by;
        world.on(Event::Tick);
        assert!(lost_after(&mut world, 1).is_some_and(|s| (14..=17).contains(&s)), "{by}");
    }
}

#[test]
fn back_offs_last_as_long_as_they_should() {
    for change in [-(HOUR as i64), 0, HOUR as i64] {
        let mut world = started();
        world.submit(spec(1, &[0, 0], 1));
        let leases = assigned(&world.join(1, SMALL, 0));
        let now = world.now.saturating_add_signed(change);
        restart(&mut world, now, false);
        let lease = leases[0].1;
        let held = vec![held(&lease, Some(500))];
        let worker = worker("w1", "n1", SMALL, 0);
        world.on(Event::Joined { session: Session(2), worker, held });
        world.fail(2, &lease, Reason::Error);
        let Some(Waits::Backoff(until)) = world.view(1, lease.node.0).waits else { panic!("no back-off") };
        assert!(
            (world.now..=world.now + 2_100).contains(&until),
            "{change}: {}",
            until as i64 - world.now as i64
        );
        let next = world.engine.next_deadline().unwrap();
        assert!((world.now..=world.now + 2_100).contains(&next), "{change}");
        world.alive(2_100);
        assert_ne!(world.view(1, lease.node.0).state, TaskState::Delayed, "{change}");
    }
}

#[test]
fn deadlines_follow_the_clock_of_the_machine() {
    for (case, change, left) in [
        ("the same clock", 0, HOUR),
        ("half an hour earlier", -(HOUR as i64) / 2, HOUR + HOUR / 2),
        ("half an hour later", HOUR as i64 / 2, HOUR / 2),
    ] {
        let mut world = started();
        world.submit(JobSpec { deadline: Some(START + HOUR), ..spec(1, &[1; 8], 1) });
        world.on(Event::Tick);
        restart(&mut world, START.saturating_add_signed(change), false);
        world.after(left - 1_000);
        assert_eq!(world.state(1), JobState::Proving, "{case}");
        let next = world.engine.next_deadline().unwrap();
        assert_eq!(next, START + HOUR, "{case}");
        world.after(1_000);
        assert!(matches!(world.state(1), JobState::Failed { .. }), "{case}");
    }
}

#[test]
fn deadlines_follow_a_clock_that_is_set_and_nothing_else_does() {
    for (case, change) in [("back", -(HOUR as i64)), ("ahead", HOUR as i64)] {
        let mut world = started();
        world.submit(JobSpec { deadline: Some(START + 2 * HOUR), ..spec(1, &[1; 8], 1) });
        world.join(1, SMALL, 0);
        world.after(1_000);
        let idle = |world: &World| world.engine.worker_states().iter().filter_map(|w| w.idle_since).next();
        world.submit(JobSpec { suspended: true, ..spec(2, &[0], 2) });
        world.join(2, TOO_SMALL, 0);
        assert_eq!(idle(&world), Some(world.now), "{case}");
        let wall = world.now.saturating_add_signed(change);
        let commands = world.on(Event::Wall(wall));
        assert!(notices(&commands).is_empty(), "{case}: no lease is lost");
        assert_eq!(idle(&world), Some(wall), "{case}: shown by the new clock");
        let commands = world.after(10_000);
        assert!(notices(&commands).is_empty(), "{case}");
        let commands = world.after(6_000);
        assert!(notices(&commands).iter().any(|n| matches!(n, Notice::LeaseLost { .. })), "{case}");
        // two hours less a second, by the new clock
        let left = (START + 2 * HOUR).saturating_add_signed(-change) - world.now;
        world.after(left - 1_000);
        assert_eq!(world.state(1), JobState::Proving, "{case}");
        world.after(1_000);
        assert!(matches!(world.state(1), JobState::Failed { .. }), "{case}");
    }
}

#[test]
fn times_of_the_past_stay_as_they_were_shown() {
    let mut world = started();
    world.submit(spec(1, &[0], 1));
    world.now += 5_000;
    world.on(Event::Cancel(JobId(1)));
    let shown = |world: &World, job| {
        let view = world.engine.job(JobId(job)).unwrap();
        (view.submitted, view.ended)
    };
    let first = (START, Some(START + 5_000));
    assert_eq!(shown(&world, 1), first);
    world.after(1_000);
    world.on(Event::Wall(world.now + HOUR));
    assert_eq!(shown(&world, 1), first, "the clock was set");
    world.after(1_000);
    let now = world.now - 2 * HOUR;
    restart(&mut world, now, true);
    assert_eq!(shown(&world, 1), first, "another machine");
    world.submit(spec(2, &[0], 2));
    assert_eq!(shown(&world, 2), (now, None), "by the clock of the machine it came to");
    world.after(HOUR);
    let ended_for = Some(HOUR + 2_000);
    assert_eq!(
        world.engine.ended_for(JobId(1)),
        ended_for,
        "downtime is not counted, nor what the clock lost"
    );
    let now = world.now + 24 * HOUR;
    restart(&mut world, now, true);
    assert_eq!((shown(&world, 1), shown(&world, 2)), (first, (now - 25 * HOUR, None)));
}

#[test]
fn a_number_is_never_given_out_twice() {
    for with_snapshot in [true, false] {
        let mut world = started();
        assert_eq!(world.engine.next_job(), JobId(1));
        for id in 1..=3 {
            world.submit(spec(id, &[0], u64::from(id)));
        }
        world.on(Event::Cancel(JobId(3)));
        world.on(Event::Forget(JobId(3)));
        assert_eq!(world.engine.next_job(), JobId(4));
        let now = world.now;
        restart(&mut world, now, with_snapshot);
        assert_eq!(world.engine.next_job(), JobId(4), "{with_snapshot}");
        restart(&mut world, now, true);
        assert_eq!(world.engine.next_job(), JobId(4), "{with_snapshot}");
    }
}

#[test]
fn a_job_whose_number_is_taken_is_not_dropped_in_silence() {
    let mut world = started();
    world.submit(spec(1, &[0], 1));
    assert_eq!(world.submit(spec(1, &[0], 1)), [], "the same again");
    let taken = Notice::NumberTaken { job: JobId(1), name: "other".into() };
    let other = JobSpec { name: "other".into(), ..spec(1, &[0, 0], 2) };
    assert_eq!(world.submit(other.clone()), [Command::Notice(taken.clone())]);
    let elsewhere = JobSpec { namespace: "b".into(), name: "other".into(), ..spec(1, &[0], 1) };
    assert_eq!(world.submit(elsewhere), [Command::Notice(taken)], "another namespace's");
    let id = world.engine.next_job();
    world.submit(JobSpec { id, ..other });
    assert_eq!(world.state(id.0), JobState::Proving);
}
