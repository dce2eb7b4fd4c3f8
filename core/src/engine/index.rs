//! From a task's id to its node: built once per tree, 5 bytes a task.

use crate::ids::TaskId;

/// Nodes sorted into buckets by the first bytes of their ids, which are hashes and so spread evenly.
/// A tree never changes, so this needs neither the spare room nor the tags of a hash table.
#[derive(Debug, Clone)]
pub(crate) struct IdIndex {
    /// Where each bucket starts in `nodes`; one more than buckets.
    starts: Box<[u32]>,
    nodes: Box<[u32]>,
    /// Nodes whose id another node of the tree has too, as far as its first 8 bytes tell.
    doubles: Vec<u32>,
}

/// Ids per bucket.
const LOAD: usize = 4;

fn head(id: &TaskId) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|place| id.0[place]))
}

fn bucket(id: &TaskId, buckets: usize) -> usize {
    let head = u32::from_le_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]);
    ((u64::from(head) * buckets as u64) >> 32) as usize
}

impl IdIndex {
    /// Sorts the ids of a tree by counting.
    pub(crate) fn new(ids: &[TaskId]) -> Self {
        let buckets = ids.len().div_ceil(LOAD).max(1);
        let mut starts = vec![0u32; buckets + 1];
        ids.iter().for_each(|id| starts[bucket(id, buckets) + 1] += 1);
        let mut sum = 0;
        starts.iter_mut().for_each(|start| {
            sum += *start;
            *start = sum;
        });
        let mut next = starts.clone();
        let mut nodes = vec![0u32; ids.len()];
        for (node, id) in ids.iter().enumerate() {
            let place = &mut next[bucket(id, buckets)];
            nodes[*place as usize] = node as u32;
            *place += 1;
        }
        let (mut doubles, mut heads) = (vec![], vec![]);
        for pair in starts.windows(2) {
            heads.clear();
            let bucket = &nodes[pair[0] as usize..pair[1] as usize];
            heads.extend(bucket.iter().map(|n| (head(&ids[*n as usize]), *n)));
            heads.sort_unstable();
            for two in heads.windows(2).filter(|two| two[0].0 == two[1].0) {
                doubles.extend([two[0].1, two[1].1]);
            }
        }
        doubles.sort_unstable();
        doubles.dedup();
        Self { starts: starts.into(), nodes: nodes.into(), doubles }
    }

    /// Nodes whose id another node of the tree has too, ascending; in theory also a node that has only
    /// the first 8 bytes in common, which does no harm.
    pub(crate) fn doubles(&self) -> &[u32] {
        &self.doubles
    }

    /// All nodes with this id, ascending. Two nodes have one id when they state the same.
    pub(crate) fn find<'a>(&'a self, ids: &'a [TaskId], id: &'a TaskId) -> impl Iterator<Item = u32> + 'a {
        let b = bucket(id, self.starts.len() - 1);
        let nodes = &self.nodes[self.starts[b] as usize..self.starts[b + 1] as usize];
        nodes.iter().copied().filter(move |node| ids[*node as usize] == *id)
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        4 * (self.starts.len() + self.nodes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_at_all_its_nodes_and_no_other() {
        let hash = |n: u32| TaskId(*blake3::hash(&n.to_le_bytes()).as_bytes());
        for count in [0u32, 1, 2, 3, 1_000] {
            let ids: Vec<_> = (0..count).map(|n| hash(n % 700)).collect();
            let index = IdIndex::new(&ids);
            for n in 0..count {
                let found: Vec<_> = index.find(&ids, &hash(n % 700)).collect();
                let wanted: Vec<_> = (0..count).filter(|m| m % 700 == n % 700).collect();
                assert_eq!(found, wanted);
            }
            assert_eq!(index.find(&ids, &hash(5_000)).count(), 0);
        }
    }
}
