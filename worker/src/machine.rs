//! What this machine is called and has, where the user does not say.

use arborist_system::memory;
use std::fs;

/// The host's name; `worker` where the kernel does not tell.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "worker".to_owned(),
        name => name.to_owned(),
    }
}

/// Cores this process may use.
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Memory this process may use in MiB: the machine's, or its control groups' least limit if that is less.
pub fn memory_mib() -> u32 {
    let bytes = memory::installed().into_iter().chain(memory::limit()).min().unwrap_or(1 << 30);
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

/// How many processes of this control group were killed for memory; `None` where it can't be read.
pub fn oom_kills() -> Option<u64> {
    memory::oom_kills()
}

/// The figure of a line such as `VmHWM:   1234 kB` in a file of /proc, in KiB.
pub fn kib_of(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_proc_are_read() {
        let text = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 12 kB\n";
        assert_eq!(
            (kib_of(text, "VmHWM:"), kib_of(text, "VmRSS:"), kib_of(text, "VmX:")),
            (Some(2048), Some(12), None)
        );
        assert!(memory_mib() > 0 && cores() > 0);
    }
}
