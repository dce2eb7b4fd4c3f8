//! Whether this process was started to outlive its terminal.

/// SIGHUP's number on every Unix.
const SIGHUP: u32 = 1;

/// Whether SIGHUP is ignored, as `nohup` starts programs: then it must stay so.
pub fn hang_up_is_ignored() -> bool {
    is_ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default(), SIGHUP)
}

/// Whether a signal is among those that /proc/PID/status says are ignored.
fn is_ignored(status: &str, signal: u32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(status, 1) && is_ignored(status, 13));
        assert!(!is_ignored(status, 2) && !is_ignored("", 1));
    }
}
