//! From a task's id to every place where it stands, over all jobs whose trees are kept: some 6 bytes a task.

use super::PreparedJob;
use super::table::At;
use crate::ids::TaskId;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries per bucket on average: one that looks for an id scans so many tags.
const LOAD: usize = 32;

/// Room that a full bucket gets at a time, in entries.
const ROOM: usize = 8;

/// Ids that are read together while a job is entered.
const AT_ONCE: usize = 64;

/// Nodes of one job that stand together in the numbers of places.
const CHUNK: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 8;

/// Trees that may wait to be cleared away.
const MOST_LEAVING: usize = 2;

/// A place by its number, and a byte of the id that stands there: most others are told apart by it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u8,
    number: [u8; 4],
}

impl Entry {
    fn number(self) -> u32 {
        u32::from_le_bytes(self.number)
    }
}

/// What a part of the numbers means.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    job: u32,
    first: u32,
    /// Its job was taken out: what still stands here of it counts no more.
    gone: bool,
}

/// A tree that was taken out and whose entries are not all cleared away.
#[derive(Debug)]
struct Leaving {
    tree: Arc<PreparedJob>,
    chunks: Vec<u32>,
}

/// A table of all places, in buckets by the first bytes of their ids, which are hashes and so spread evenly. It
/// grows by one bucket at a time, so no step pays for all that is in it.
#[derive(Debug, Default)]
pub(crate) struct Places {
    buckets: Vec<Vec<Entry>>,
    entries: usize,
    chunks: Vec<Chunk>,
    vacant: Vec<u32>,
    /// Chunks of each job, in their order.
    taken: HashMap<u32, Vec<u32>>,
    leaving: VecDeque<Leaving>,
}

fn head(id: &TaskId) -> u32 {
    u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]])
}

/// Nodes in the order of their ids' first bytes: entered so, each bucket is visited once.
pub(crate) fn in_order(ids: &[TaskId]) -> Vec<u32> {
    let mut order: Vec<u64> =
        ids.iter().enumerate().map(|(node, id)| u64::from(head(id)) << 32 | node as u64).collect();
    order.sort_unstable();
    order.into_iter().map(|entry| entry as u32).collect()
}

impl Places {
    /// The bucket of an id when there are so many: those with a number of a bit more than the others are the
    /// halves of those that were split.
    fn bucket(id: &TaskId, buckets: usize) -> usize {
        let mask = buckets.next_power_of_two() - 1;
        let place = head(id).reverse_bits() as usize & mask;
        if place < buckets { place } else { place & (mask >> 1) }
    }

    fn at(&self, number: u32) -> Option<At> {
        let chunk = self.chunks[(number >> CHUNK_BITS) as usize];
        let node = chunk.first + (number & (CHUNK as u32 - 1));
        (!chunk.gone).then_some(At { job: chunk.job, node })
    }

    /// Places of an id, in no particular order; `stands` says whether it stands at a place that looks like one.
    pub(crate) fn find(&self, id: &TaskId, stands: impl Fn(At) -> bool) -> Vec<At> {
        let bucket = self.buckets.get(Self::bucket(id, self.buckets.len().max(1)));
        let alike = bucket.into_iter().flatten().filter(|entry| entry.tag == id.0[4]);
        alike.filter_map(|entry| self.at(entry.number())).filter(|at| stands(*at)).collect()
    }

    /// Enters a job's tasks, `order` as [`in_order`] gives it. Says which of them stand elsewhere too, in this job or
    /// another, and where; `id_at` knows this job already.
    pub(crate) fn enter<'a>(
        &mut self,
        job: u32,
        order: &[u32],
        id_at: impl Fn(At) -> &'a TaskId,
    ) -> Vec<(u32, At)> {
        let chunks: Vec<u32> =
            (0..order.len()).step_by(CHUNK).map(|first| self.take_chunk(job, first)).collect();
        let mut shared = vec![];
        // Before they are entered: what is to come need not be moved.
        while self.entries + order.len() > LOAD * self.buckets.len() {
            self.split(&id_at);
        }
        for nodes in order.chunks(AT_ONCE) {
            // Read together: they are far apart in memory, and none of these reads waits for another.
            let ids: Vec<TaskId> = nodes.iter().map(|node| *id_at(At { job, node: *node })).collect();
            for (&node, id) in nodes.iter().zip(&ids) {
                shared.extend(self.find(id, |at| id_at(at) == id).into_iter().map(|at| (node, at)));
                let chunk = chunks[node as usize >> CHUNK_BITS];
                self.put(id, chunk << CHUNK_BITS | node & (CHUNK as u32 - 1));
            }
        }
        self.taken.insert(job, chunks);
        shared
    }

    fn put(&mut self, id: &TaskId, number: u32) {
        let place = Self::bucket(id, self.buckets.len());
        let bucket = &mut self.buckets[place];
        if bucket.len() == bucket.capacity() {
            bucket.reserve_exact(ROOM);
        }
        bucket.push(Entry { tag: id.0[4], number: number.to_le_bytes() });
        self.entries += 1;
    }

    fn take_chunk(&mut self, job: u32, first: usize) -> u32 {
        let chunk = Chunk { job, first: first as u32, gone: false };
        if let Some(number) = self.vacant.pop() {
            self.chunks[number as usize] = chunk;
            return number;
        }
        self.chunks.push(chunk);
        self.chunks.len() as u32 - 1
    }

    /// One bucket more: half of another's entries go there, and none of jobs that are gone.
    fn split<'a>(&mut self, id_at: &impl Fn(At) -> &'a TaskId) {
        let new = self.buckets.len();
        if new == 0 {
            return self.buckets.push(vec![]);
        }
        let bit = new.ilog2();
        let old = new - (1 << bit);
        let all = std::mem::take(&mut self.buckets[old]);
        // Where each goes is found before any is moved: the ids are far apart in memory, and nothing here waits for one.
        let goes = |at: At| head(id_at(at)).reverse_bits() >> bit & 1 == 1;
        let goes: Vec<Option<bool>> = all.iter().map(|entry| self.at(entry.number()).map(goes)).collect();
        let part = |side| {
            let count = goes.iter().filter(|goes| **goes == Some(side)).count();
            let mut part = Vec::with_capacity(count);
            part.extend(
                all.iter().zip(&goes).filter(|(_, goes)| **goes == Some(side)).map(|(entry, _)| *entry),
            );
            part
        };
        let (stays, goes) = (part(false), part(true));
        self.entries -= all.len() - stays.len() - goes.len();
        self.buckets[old] = stays;
        self.buckets.push(goes);
    }

    /// Takes a job's tasks out. They are found no more from now on, and cleared away by and by.
    pub(crate) fn leave(&mut self, job: u32, tree: Arc<PreparedJob>) {
        let chunks = self.taken.remove(&job).unwrap_or_default();
        chunks.iter().for_each(|chunk| self.chunks[*chunk as usize].gone = true);
        self.leaving.push_back(Leaving { tree, chunks });
        while self.leaving.len() > MOST_LEAVING {
            self.sweep();
        }
    }

    /// Clears away a little of what left: some 256 entries.
    pub(crate) fn sweep(&mut self) {
        let Some(leaving) = self.leaving.front_mut() else { return };
        let Some(number) = leaving.chunks.pop() else {
            self.leaving.pop_front();
            return;
        };
        let first = self.chunks[number as usize].first as usize;
        let nodes = leaving.tree.ids.iter().skip(first).take(CHUNK);
        let buckets = self.buckets.len();
        for (place, id) in nodes.enumerate() {
            let bucket = &mut self.buckets[Self::bucket(id, buckets)];
            let entry = number << CHUNK_BITS | place as u32;
            if let Some(at) = bucket.iter().position(|e| e.number() == entry) {
                bucket.swap_remove(at);
                self.entries -= 1;
                if bucket.capacity() > 2 * bucket.len() + ROOM {
                    bucket.shrink_to_fit();
                }
            }
        }
        self.vacant.push(number);
        if leaving.chunks.is_empty() {
            self.leaving.pop_front();
        }
    }

    /// Bytes on the heap for each task in it.
    pub(crate) fn bytes_per_task(&self) -> f64 {
        let buckets: usize = self.buckets.iter().map(|b| size_of::<Entry>() * b.capacity()).sum();
        let heads = size_of::<Vec<Entry>>() * self.buckets.capacity();
        let bytes = buckets + heads + (size_of::<Chunk>() + 4) * self.chunks.len();
        bytes as f64 / self.entries.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u32) -> TaskId {
        TaskId(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    /// Jobs as lists of ids.
    struct Books {
        places: Places,
        jobs: Vec<Vec<TaskId>>,
    }

    impl Books {
        fn enter(&mut self, ids: impl Iterator<Item = u32>) -> Vec<(u32, At)> {
            self.jobs.push(ids.map(hash).collect());
            let (job, jobs) = (self.jobs.len() as u32 - 1, &self.jobs);
            let order = in_order(&jobs[job as usize]);
            self.places.enter(job, &order, |at| &jobs[at.job as usize][at.node as usize])
        }

        fn find(&self, n: u32) -> Vec<(u32, u32)> {
            let (id, jobs) = (hash(n), &self.jobs);
            let found = self.places.find(&id, |at| jobs[at.job as usize][at.node as usize] == id);
            let mut all: Vec<_> = found.into_iter().map(|at| (at.job, at.node)).collect();
            all.sort_unstable();
            all
        }
    }

    #[test]
    fn every_id_is_found_wherever_it_stands_and_nowhere_else() {
        for count in [1u32, 2, 3, 300, 5_000] {
            let mut books = Books { places: Places::default(), jobs: vec![] };
            assert_eq!(books.enter(0..count), [], "nothing is shared");
            let shared = books.enter(count / 2..2 * count);
            assert_eq!(shared.len() as u32, count - count / 2);
            assert!(shared.iter().all(|(here, there)| there.job == 0 && there.node == here + count / 2));
            let doubles = books.enter((0..2 * count).map(|n| 10 * count + n % count));
            assert_eq!(doubles.len() as u32, count);
            for n in 0..count {
                let second = (n >= count / 2).then(|| (1, n - count / 2));
                let wanted: Vec<_> = std::iter::once((0, n)).chain(second).collect();
                assert_eq!(books.find(n), wanted, "{n} of {count}");
                assert_eq!(books.find(10 * count + n), [(2, n), (2, n + count)]);
            }
            assert_eq!(books.find(3 * count), []);
        }
    }

    #[test]
    fn what_left_is_found_no_more_and_its_room_is_used_again() {
        let spec = |calls: Vec<u8>| {
            let request = crate::engine::JobSpec {
                id: crate::engine::JobId(1),
                name: String::new(),
                namespace: String::new(),
                source: crate::engine::Source::Synthetic { calls: calls.clone(), seed: 1 },
                chain_id: 1,
                block_number: 1,
                prover_id: [0; 32],
                deadline: None,
                priority: 0,
                suspended: false,
            };
            let leaves = crate::tree::Leaves::Synthetic { seed: 1 };
            let profile = crate::profile::Profile::rfp();
            Arc::new(PreparedJob::new(request, &calls, leaves, &profile).unwrap())
        };
        let tree = spec(vec![2; 400]);
        let mut places = Places::default();
        for round in 0..50 {
            let shared = places.enter(round % 2, &tree.sorted, |at| &tree.ids[at.node as usize]);
            assert_eq!(shared, [], "round {round}");
            let found = |places: &Places| {
                let once = |id: &&TaskId| places.find(id, |at| tree.ids[at.node as usize] == **id).len() == 1;
                tree.ids.iter().filter(once).count()
            };
            assert_eq!(found(&places), tree.ids.len());
            places.leave(round % 2, tree.clone());
            assert_eq!(found(&places), 0);
            for _ in 0..round {
                places.sweep();
            }
        }
        assert!(places.chunks.len() <= 4 * tree.ids.len().div_ceil(CHUNK), "{}", places.chunks.len());
        for _ in 0..100 {
            places.sweep();
        }
        assert_eq!((places.entries, places.leaving.len()), (0, 0));
    }
}
