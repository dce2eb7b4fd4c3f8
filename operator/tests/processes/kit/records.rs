//! What was proven, how often and by whom: from the proof objects and the workers' logs.

use arborist_core::ids::TaskId;
use arborist_core::proof_object::{Maker, ProofObject};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// The records at one moment.
pub struct Records {
    /// Every proof in the store that opens, with its maker and when it was made.
    pub proofs: HashMap<TaskId, Maker>,
    /// How often a worker says it made a proof, by the task's first 8 digits. Proofs found in the store don't count.
    pub made: HashMap<String, u32>,
}

impl Records {
    /// Reads the store's folder and the logs `worker-*.log` of the test's.
    pub fn read(store: &Path, logs: &Path) -> Self {
        Self { proofs: proofs(store), made: made(logs) }
    }

    /// Asserts that no proof of `before` was made again or replaced since.
    pub fn assert_nothing_of_made_again(&self, before: &Self) {
        assert!(!before.proofs.is_empty(), "nothing was finished before: the test shows nothing");
        // a worker that is killed may not get to say so
        assert!(
            self.made.len() * 2 > self.proofs.len(),
            "the logs don't say what was made: the test shows nothing"
        );
        for (task, maker) in &before.proofs {
            assert_eq!(self.proofs.get(task), Some(maker), "the proof of {task} was replaced");
            let times = self.made.get(&task.short()).copied().unwrap_or_default();
            assert!(times <= 1, "{task} was finished, and proven {times} times");
        }
    }
}

fn proofs(store: &Path) -> HashMap<TaskId, Maker> {
    let files = std::fs::read_dir(store.join("proofs")).into_iter().flatten().flatten();
    let open = |file: std::fs::DirEntry| {
        let task: TaskId = file.file_name().to_str()?.parse().ok()?;
        let object = ProofObject::open(&task, &std::fs::read(file.path()).ok()?).ok()?;
        Some((task, object.maker))
    };
    files.filter_map(open).collect()
}

fn made(logs: &Path) -> HashMap<String, u32> {
    let mut out = HashMap::new();
    let files = std::fs::read_dir(logs).into_iter().flatten().flatten();
    for file in files.filter(|f| f.file_name().to_string_lossy().starts_with("worker-")) {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let fields = &line["fields"];
            if fields["message"] == "done" && fields["found"] == false {
                *out.entry(fields["task"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
    }
    out
}
