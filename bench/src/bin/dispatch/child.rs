//! A child process that talks in lines of JSON, and what it uses of the machine.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Clock ticks a second in /proc.
const TICKS: f64 = 100.0;
const PAGE_KIB: f64 = 4.0;

pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Program {
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start")?;
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self { child, stdin, lines })
    }

    pub fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin.as_mut().context("stdin")?, "{line}")?;
        Ok(())
    }

    /// The next line that has this key.
    pub fn hear(&mut self, key: &str) -> Result<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line)? == 0 {
                bail!("it ended before it said `{key}`");
            }
            let value: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            if value.get(key).is_some() {
                return Ok(value);
            }
        }
    }

    pub fn ask(&mut self, line: &str, key: &str) -> Result<Value> {
        self.tell(line)?;
        self.hear(key)
    }

    /// CPU seconds of all its threads: user and system.
    pub fn cpu(&self) -> Result<(f64, f64)> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field =
            |at: usize| -> Result<f64> { Ok(fields.get(at).context("stat")?.parse::<f64>()? / TICKS) };
        Ok((field(11)?, field(12)?))
    }

    /// Memory in KiB.
    pub fn rss_kib(&self) -> Result<f64> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        Ok(statm.split_whitespace().nth(1).context("statm")?.parse::<f64>()? * PAGE_KIB)
    }

    /// Closes its stdin and waits for its last words.
    pub fn last_words(&mut self, key: &str) -> Result<Value> {
        self.stdin = None;
        self.hear(key)
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Closes its stdin and waits.
    pub fn end(mut self) -> Result<()> {
        self.stdin = None;
        self.child.wait()?;
        Ok(())
    }
}
