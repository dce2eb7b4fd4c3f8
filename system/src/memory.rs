//! How much memory this process may use: the machine's, or the least of its control groups' limits.

use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The least limit of the control groups that this process is in, in bytes; `None` without one.
pub fn limit() -> Option<u64> {
    limit_below(Path::new(MOUNT), &own_groups())
}

/// How many processes of this process's control group were killed for memory; `None` where it can't be read.
pub fn oom_kills() -> Option<u64> {
    oom_kills_below(Path::new(MOUNT), &own_groups())
}

/// Memory of the machine in bytes.
pub fn installed() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn own_groups() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// The files of this name from the process's own groups up to the mounts' roots. A container may see its own group as the
/// root of the mount and yet be told the group's path on the host: folders that are not there are passed over.
fn files(mount: &Path, groups: &str, v2: &str, v1: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (roots, name) = match controllers {
            // the second is where both versions are mounted side by side
            "" => (vec![mount.to_owned(), mount.join("unified")], v2),
            list if list.split(',').any(|controller| controller == "memory") => {
                (vec![mount.join("memory"), mount.join(list)], v1)
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        for root in roots {
            found.extend(path.ancestors().map(|group| root.join(group).join(name)));
        }
    }
    found
}

fn limit_below(mount: &Path, groups: &str) -> Option<u64> {
    let read = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    files(mount, groups, "memory.max", "memory.limit_in_bytes").into_iter().filter_map(read).min()
}

fn oom_kills_below(mount: &Path, groups: &str) -> Option<u64> {
    let read = |file: PathBuf| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        line.trim().parse().ok()
    };
    // the first is the process's own group
    files(mount, groups, "memory.events", "memory.oom_control").into_iter().find_map(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Files<'a> = &'a [(&'a str, &'a str)];

    fn tree(files: Files<'_>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        dir
    }

    const V1_NONE: &str = "9223372036854771712\n";

    #[test]
    fn the_least_limit_at_any_depth_counts_in_every_version() {
        let cases: [(&str, &str, Files<'_>, Option<u64>); 11] = [
            ("v2, the mount's root is the group", "0::/\n", &[("memory.max", "1000\n")], Some(1000)),
            ("v2, no limit", "0::/\n", &[("memory.max", "max\n")], None),
            (
                "v2, a nested group",
                "0::/a/b\n",
                &[("a/b/memory.max", "500"), ("a/memory.max", "max")],
                Some(500),
            ),
            (
                "v2, a parent's limit is less",
                "0::/a/b\n",
                &[("a/b/memory.max", "500"), ("a/memory.max", "300")],
                Some(300),
            ),
            (
                "v2, the path is the host's",
                "0::/kubepods.slice/pod1.slice/cri-1.scope\n",
                &[("memory.max", "700")],
                Some(700),
            ),
            ("v2, another's limit", "0::/a\n", &[("b/memory.max", "1"), ("a/memory.max", "max")], None),
            (
                "v1, nested",
                "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n",
                &[
                    ("memory/memory.limit_in_bytes", V1_NONE),
                    ("memory/docker/1/memory.limit_in_bytes", "900\n"),
                    ("cpu,cpuacct/docker/1/memory.limit_in_bytes", "1\n"),
                ],
                Some(900),
            ),
            (
                "v1, the path is the host's",
                "5:memory:/docker/1\n",
                &[("memory/memory.limit_in_bytes", "800")],
                Some(800),
            ),
            (
                "v1, mounted with others",
                "5:cpu,memory:/a\n",
                &[("cpu,memory/a/memory.limit_in_bytes", "600")],
                Some(600),
            ),
            (
                "both versions side by side",
                "5:memory:/a\n1:name=systemd:/a\n0::/a/b\n",
                &[
                    ("memory/a/memory.limit_in_bytes", "400"),
                    ("unified/a/b/memory.max", "max"),
                    ("a/b/memory.max", "max"),
                ],
                Some(400),
            ),
            ("nothing is known", "", &[("memory.max", "1")], None),
        ];
        for (case, groups, files, wanted) in cases {
            let dir = tree(files);
            assert_eq!(limit_below(dir.path(), groups), wanted, "{case}");
        }
    }

    #[test]
    fn kills_are_those_of_the_own_group() {
        let cases: [(&str, Files<'_>, Option<u64>); 4] = [
            (
                "0::/a\n",
                &[("a/memory.events", "oom 3\noom_kill 2\n"), ("memory.events", "oom_kill 9\n")],
                Some(2),
            ),
            ("0::/host/path\n", &[("memory.events", "low 0\noom_kill 9\noom_group_kill 0\n")], Some(9)),
            ("5:memory:/a\n", &[("memory/a/memory.oom_control", "under_oom 0\noom_kill 4\n")], Some(4)),
            ("0::/\n", &[], None),
        ];
        for (groups, files, wanted) in cases {
            assert_eq!(oom_kills_below(tree(files).path(), groups), wanted, "{groups}");
        }
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(installed().unwrap() > 1 << 20);
    }
}
