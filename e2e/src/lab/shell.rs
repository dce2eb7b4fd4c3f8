//! Programs that the tests call as a user would: kubectl, helm, arborist.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a program left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// Both outputs, for people.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// No program that a story calls takes so long; one that hangs would end without a word of what it hung on.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs a program with `input` on its standard input.
///
/// # Errors
/// It could not be started, or was still running after ten minutes.
pub async fn output<S: AsRef<OsStr>>(program: &str, args: &[S], input: &str) -> Result<Output> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // a program that does not read its input closes it: no error of ours
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let done = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .with_context(|| format!("{program} ran for more than {} s", LIMIT.as_secs()))?
        .with_context(|| format!("wait for {program}"))?;
    Ok(Output {
        code: done.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    })
}

/// Runs a program that has to succeed; its standard output.
///
/// # Errors
/// It could not be started, or failed: with what it said.
pub async fn run<S: AsRef<OsStr>>(program: &str, args: &[S], input: &str) -> Result<String> {
    let done = output(program, args, input).await?;
    if done.code != 0 {
        let line: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        bail!("{program} {} ended with {}:\n{}", line.join(" "), done.code, done.all().trim());
    }
    Ok(done.out)
}
