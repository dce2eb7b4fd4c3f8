//! Second copies of what takes too long.

mod engine_world;

use arborist_core::engine::*;
use engine_world::*;

/// Ten calls proven in a second each; the last one hangs at w1, w2 on another machine is idle.
fn one_slow() -> (World, Assignment) {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 11], 1));
    world.on(Event::Order { job: JobId(1), policy: 1 });
    let mut lease = assigned(&world.join(1, SMALL, 0))[0].1;
    for _ in 0..10 {
        world.now += 1_000;
        lease = assigned(&world.complete(1, &lease))[0].1;
    }
    assert_eq!(lease.circuit.to_string(), "vm");
    (world, lease)
}

fn only_the_slow_one(world: &mut World) {
    // All other work waits for other machines: kernels are leased and never end.
    while world.engine.job(JobId(1)).unwrap().counts.iter().any(|c| c.ready > 0) {
        let n = 100 + world.engine.workers().len() as u64;
        world.join(n, SMALL, 0);
    }
}

#[test]
fn a_slow_task_gets_one_copy_elsewhere_and_the_first_result_wins() {
    for winner in [0, 1] {
        let (mut world, slow) = one_slow();
        only_the_slow_one(&mut world);
        let twin = worker("same-machine", "n1", SMALL, 0);
        world.on(Event::Joined { session: Session(50), worker: twin, held: vec![] });
        world.join(51, SMALL, 0);
        assert!(world.engine.next_deadline().unwrap() <= world.now + 1_500);
        assert_eq!(assigned(&world.after(1_499)), []);
        let commands = world.after(1);
        let copy = assigned(&commands);
        assert_eq!((copy.len(), copy[0].0, copy[0].1.task), (1, 51, slow.task), "on another machine");
        assert!(copy[0].1.fence > slow.fence);
        let notice = Notice::Backup { task: slow.task, slow: "w1".into(), copy: "w51".into() };
        assert!(notices(&commands).contains(&notice));
        assert_eq!(world.view(1, slow.node.0).workers, ["w1", "w51"]);
        assert_eq!(assigned(&world.after(5_000)), [], "one copy only");
        let both = [(1, slow), copy[0]];
        let commands = world.complete(both[winner].0, &both[winner].1);
        let (session, lease) = both[1 - winner];
        assert!(revoked(&commands).contains(&(session, lease.fence)));
        assert_eq!(world.done(1), 11);
        assert_eq!(notices(&commands), []);
    }
}

#[test]
fn one_copy_may_fail_while_the_other_goes_on() {
    let (mut world, slow) = one_slow();
    only_the_slow_one(&mut world);
    world.join(51, SMALL, 0);
    let copy = assigned(&world.after(2_000))[0].1;
    world.fail(51, &copy, Reason::Error);
    let view = world.view(1, slow.node.0);
    assert_eq!((view.state, view.attempts, view.workers), (TaskState::Leased, 1, vec!["w1".to_owned()]));
    world.complete(1, &slow);
    assert_eq!(world.done(1), 11);
}

#[test]
fn no_copy_while_other_work_is_ready_or_nothing_is_known_or_it_is_off() {
    let (mut world, _) = one_slow();
    assert_eq!(assigned(&world.after(5_000)), [], "nobody is idle");

    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    world.join(1, SMALL, 0);
    world.join(2, SMALL, 0);
    assert_eq!(assigned(&world.after(14_000)), [], "no samples");

    let mut world = World::new(Config { backup_percent: 0, ..flat_config() });
    world.submit(spec(1, &[1; 8], 1));
    let mut leases = assigned(&world.join(1, LARGE, 0));
    for _ in 0..6 {
        world.now += 1_000;
        let (session, lease) = leases.remove(0);
        leases.extend(assigned(&world.complete(session, &lease)));
    }
    world.after(10_000);
    assert!((2..9).all(|n| {
        !world.join(n, LARGE, 0).iter().any(|c| matches!(c, Command::Notice(Notice::Backup { .. })))
    }));
}

/// A job of 24 transactions, a second a proof and one of them slow, of which only the root is left; it
/// runs at w1.
fn only_the_root_is_left() -> (World, Assignment) {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 24], 1));
    let mut lease = assigned(&world.join(1, SMALL, 0))[0].1;
    while lease.circuit.to_string() != "root" && !lease.circuit.to_string().starts_with("root/") {
        world.after(if world.done(1) == 20 { 10_000 } else { 1_000 });
        lease = assigned(&world.complete(1, &lease))[0].1;
    }
    (world, lease)
}

#[test]
fn nothing_of_a_suspended_job_is_copied() {
    let (mut world, root) = only_the_root_is_left();
    world.on(Event::Suspend(JobId(1), true));
    assert_eq!(assigned(&world.join(2, SMALL, 0)), []);
    assert_eq!(world.alive(3_000), []);
    world.on(Event::Heartbeat(Session(1), vec![root.fence]));
    let copy = assigned(&world.on(Event::Suspend(JobId(1), false)));
    assert_eq!((copy[0].0, copy[0].1.task), (2, root.task), "the root is judged by merges");
    // Both are slow; a third machine comes while the job is suspended, then it goes on.
    world.after(3_000);
    world.on(Event::Suspend(JobId(1), true));
    assert_eq!(assigned(&world.join(3, SMALL, 0)), []);
    let commands = world.on(Event::Suspend(JobId(1), false));
    assert_eq!(revoked(&commands), [(2, copy[0].1.fence)]);
    assert_eq!(assigned(&commands)[0].0, 3);
}

#[test]
fn slow_leases_of_suspended_jobs_stand_in_nobodys_way() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 60], 1));
    world.on(Event::Order { job: JobId(1), policy: 1 });
    let huge = arborist_core::profile::Needs { cores: 8 * 40, memory_mib: SMALL.memory_mib * 40 };
    let leases = assigned(&world.join(1, huge, 0));
    assert_eq!(leases.len(), 40);
    world.after(1_000);
    leases[..6].iter().for_each(|(session, lease)| _ = world.complete(*session, lease));
    world.on(Event::Suspend(JobId(1), true));
    world.submit(spec(2, &[1], 2));
    let own = assigned(&world.on(Event::Draining(Session(1))));
    let other = own.into_iter().chain(assigned(&world.join(2, SMALL, 0))).last().unwrap();
    assert_eq!((other.0, other.1.job), (2, JobId(2)));
    world.after(5_000);
    let copy = assigned(&world.join(3, SMALL, 0));
    assert_eq!((copy[0].0, copy[0].1.task), (3, other.1.task));
}
