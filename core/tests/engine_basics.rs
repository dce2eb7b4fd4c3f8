//! A block from submit to its end.

mod engine_world;

use arborist_core::engine::*;
use engine_world::*;

#[test]
fn a_block_is_proven_from_its_leaves_to_its_root() {
    let mut world = World::rfp();
    assert_eq!(assigned(&world.submit(spec(1, &[2, 0, 1], 5))), []);
    let mut first = world.join(1, LARGE, 0);
    first.extend(world.join(2, SMALL, 1));
    drain(&mut world, first);
    let view = world.engine.job(JobId(1)).unwrap();
    assert_eq!(view.state, JobState::Complete);
    assert!(view.counts.iter().all(|c| c.done == c.total && c.running == 0 && c.ready == 0));
    let report = world.engine.report(JobId(1)).unwrap();
    assert_eq!(report.shares.iter().flat_map(|s| s.proofs).sum::<u32>(), 3 + 3 + 3 + 2);
    assert_eq!(report.critical_path.first().unwrap().circuit, "vm");
    assert_eq!(report.critical_path.last().unwrap().circuit, "root/2");
}

#[test]
fn what_was_done_is_done_after_a_restart() {
    let mut world = World::flat();
    world.submit(spec(1, &[2, 2], 5));
    let leases = assigned(&world.join(1, LARGE, 0));
    assert_eq!(leases.len(), 4);
    world.complete(1, &leases[0].1);
    world.complete(1, &leases[1].1);
    for snapshot in [None, Some(world.engine.snapshot())] {
        let records = if snapshot.is_none() { &world.journal[..] } else { &[] };
        let restored = world.restored(snapshot.as_deref(), records);
        let counts = restored.job(JobId(1)).unwrap().counts;
        assert_eq!((counts[0].done, counts[0].ready, counts[1].ready), (2, 2, 2));
        assert_eq!(restored.open_tasks(JobId(1)).len(), 9);
    }
}
