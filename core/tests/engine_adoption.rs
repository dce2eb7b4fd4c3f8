//! Leases that workers bring back, and such as they only say they had.

mod engine_world;

use arborist_core::circuit::Kind;
use arborist_core::engine::*;
use arborist_core::profile::{Needs, Profile};
use engine_world::*;
use rstest::rstest;

fn login(session: u64, name: &str, node: &str, capacity: Needs, held: Vec<Held>) -> Event {
    Event::Joined { session: Session(session), worker: worker(name, node, capacity, 1), held }
}

#[rstest]
#[case::its_own("w1", "n1", |_: &mut Held| {}, true)]
#[case::another_name("w2", "n1", |_: &mut Held| {}, false)]
#[case::another_machine("w1", "n2", |_: &mut Held| {}, false)]
#[case::another_fence("w1", "n1", |held: &mut Held| held.fence.0 += 1, false)]
#[case::another_task("w1", "n1", |held: &mut Held| held.task.0[5] ^= 1, false)]
#[case::no_code("w1", "n1", |held: &mut Held| held.mac = Mac::default(), false)]
#[case::a_wrong_code("w1", "n1", |held: &mut Held| held.mac.0[15] ^= 1, false)]
fn a_lease_is_adopted_only_by_whom_it_was_given_to(
    #[case] name: &str,
    #[case] node: &str,
    #[case] forge: fn(&mut Held),
    #[case] adopted: bool,
) {
    for restarted in [false, true] {
        let mut world = World::new(Config { lease_key: [9; 32], ..flat_config() });
        world.submit(spec(1, &[1, 1], 1));
        let lease = assigned(&world.join(1, SMALL, 0))[0].1;
        match restarted {
            true => world.engine = world.restored(None, &world.journal),
            false => {
                world.on(Event::Left(Session(1), Gone::Dead));
            }
        }
        world.now += 2_000;
        let mut named = held(&lease, Some(2_000));
        forge(&mut named);
        let commands = world.on(login(9, name, node, SMALL, vec![named]));
        assert_eq!(revoked(&commands).is_empty(), adopted, "restarted: {restarted}");
        let fences: Vec<Fence> = assigned(&commands).iter().map(|(_, lease)| lease.fence).collect();
        assert!(fences.iter().all(|fence| *fence > lease.fence), "what it gets is new");
        assert_eq!(world.complete(9, &lease).iter().any(|c| matches!(c, Command::Persist(_))), adopted);
    }
}

#[test]
fn an_operator_with_another_key_adopts_nothing() {
    let mut world = World::new(Config { lease_key: [1; 32], ..flat_config() });
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    let config = Config { lease_key: [2; 32], ..world.engine.config().clone() };
    world.engine = Engine::restore(config, None, &world.journal, resolve, world.now).unwrap();
    let commands = world.on(login(2, "w1", "n1", SMALL, vec![held(&lease, Some(1))]));
    assert_eq!(revoked(&commands), [(2, lease.fence)]);
}

#[test]
fn a_login_does_not_take_the_leases_of_others() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 8], 1));
    let honest = assigned(&world.join(1, SMALL, 0))[0].1;
    let old = assigned(&world.join(2, SMALL, 0))[0].1;
    world.complete(2, &old);
    world.now += 10_000;
    let named = Held { task: honest.task, ..held(&old, Some(1 << 40)) };
    let commands = world.on(login(3, "w2", "n2", SMALL, vec![named]));
    assert_eq!(revoked(&commands), [(3, old.fence)]);
}

/// A worker had a task, fell silent, and another began it: the work of neither is thrown away.
#[rstest]
#[case::at_once(1_000, &[(2, true)])]
#[case::after_long(14_000, &[])]
fn a_lease_that_comes_back_goes_on_beside_what_has_run_for_long(
    #[case] ran: Millis,
    #[case] stopped: &[(u64, bool)],
) {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let first = assigned(&world.join(1, SMALL, 0))[0].1;
    world.on(Event::Left(Session(1), Gone::Dead));
    let other = assigned(&world.join(2, SMALL, 0))[0].1;
    world.now += ran;
    let commands = world.on(login(3, "w1", "n1", SMALL, vec![held(&first, Some(1 << 40))]));
    let told: Vec<(u64, bool)> = revoked(&commands).iter().map(|(s, f)| (*s, *f == other.fence)).collect();
    assert_eq!(told, stopped);
    let commands = world.complete(3, &first);
    assert_eq!(world.done(1), 1);
    assert_eq!(revoked(&commands).len() + stopped.len(), 1, "the other is told once");
}

#[test]
fn a_task_that_failed_on_a_machine_is_not_taken_up_there_again_by_naming_it() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    world.join(2, SMALL, 0);
    world.fail(1, &lease, Reason::Error);
    let commands = world.on(login(3, "w1", "n1", SMALL, vec![held(&lease, Some(5))]));
    assert_eq!(revoked(&commands), [(3, lease.fence)]);
    assert_eq!(world.view(1, 0).state, TaskState::Delayed);
}

#[test]
fn a_worker_never_has_more_than_its_capacity() {
    let config = Config { prefetch_below: Millis::MAX, ..Config::new(Profile::rfp()) };
    let mut world = World::new(config);
    let double = Needs { cores: 64, memory_mib: 128 << 10 };
    world.submit(spec(1, &[1, 0], 1));
    let first = assigned(&world.join(1, double, 1));
    assert_eq!(first.iter().map(|(_, lease)| kind(lease)).collect::<Vec<_>>(), [Kind::Vm, Kind::Base]);
    let (vm, base) = (first[0].1, first[1].1);
    world.now += 15_001;
    let again = assigned(&world.on(Event::Heartbeat(Session(1), vec![vm.fence])));
    assert_eq!((again.len(), again[0].1.task), (1, base.task), "it had lost it");
    let queued = assigned(&world.submit(spec(2, &[1], 2)));
    assert_eq!(queued.len(), 1);
    // It had not: World::on checks what it is given now.
    let heartbeat = Event::Heartbeat(Session(1), vec![vm.fence, base.fence, queued[0].1.fence]);
    let commands = world.on(heartbeat);
    assert_eq!(revoked(&commands), [(1, base.fence)]);
    // The same by logging in again and again with all it ever had.
    for session in 2..6 {
        let all = [vm, base, again[0].1, queued[0].1].map(|lease| held(&lease, Some(1)));
        let commands = world.on(login(session, "w1", "n1", double, all.into()));
        assert!(assigned(&commands).len() <= 1, "{commands:?}");
    }
}
