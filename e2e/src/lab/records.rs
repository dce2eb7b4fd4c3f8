//! Who proved what, by the workers' own logs: `RUST_LOG=arborist_worker=debug` has a line for each proof made.

use anyhow::{Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

/// How often each task was proven. A proof that was found in the store was not.
pub fn proven(log: &str) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for line in log.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let fields = &line["fields"];
        if let (Some(task), Some(false)) = (fields["task"].as_str(), fields["found"].as_bool()) {
            *counts.entry(task.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Checks that so many tasks were proven, and none of them more often than once.
///
/// # Errors
/// They were not: names some.
pub fn each_once(log: &str, tasks: u64) -> Result<()> {
    let counts = proven(log);
    let again: Vec<_> = counts.iter().filter(|(_, n)| **n > 1).take(5).collect();
    ensure!(again.is_empty(), "proven more than once: {again:?}");
    ensure!(counts.len() as u64 == tasks, "{} tasks were proven by these workers, not {tasks}", counts.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"
{"level":"DEBUG","fields":{"message":"done","task":"aa","circuit":"vm","millis":3,"found":false}}
{"level":"INFO","fields":{"message":"logged in","dispatcher":"x"}}
not JSON at all
{"level":"DEBUG","fields":{"message":"done","task":"bb","circuit":"kernel/0","millis":3,"found":false}}
{"level":"DEBUG","fields":{"message":"done","task":"bb","circuit":"kernel/0","millis":0,"found":true}}
"#;

    #[test]
    fn only_what_was_made_counts() {
        assert!(each_once(LOG, 2).is_ok());
        assert!(each_once(LOG, 3).is_err());
        let twice = format!("{LOG}{}", LOG.lines().nth(1).unwrap());
        assert!(each_once(&twice, 2).unwrap_err().to_string().contains("aa"));
    }
}
