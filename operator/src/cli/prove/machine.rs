//! The machine a block was proven on, for the report.

use arborist_system::memory;
use serde::Serialize;

/// Processor and memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory this process may use in MiB.
    pub memory_mib: u64,
}

impl Machine {
    /// This machine. What can't be found out is empty or 0.
    pub fn this() -> Self {
        let file = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            cpu: field(&file("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: cores(),
            memory_mib: memory::installed().into_iter().chain(memory::limit()).min().unwrap_or(0) >> 20,
        }
    }
}

/// Cores this process may use, at least 1.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: Fast CPU: fast\nMemTotal:  2048 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Fast CPU: fast"));
        assert_eq!(field(text, "MemTotal").as_deref(), Some("2048 kB"));
        assert_eq!(field(text, "absent"), None);
    }
}
