//! Structured logs.

use super::CliError;
use arborist_system::output::Complaints;
use arborist_system::private;
use clap::ValueEnum;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{MakeWriter, fmt};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Options every long-running command has.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Format of the logs; RUST_LOG says which to keep (default: info)
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Logs to standard error.
pub fn to_stderr(args: &LogArgs) {
    install(args.log_format, Complaints::default, std::io::IsTerminal::is_terminal(&std::io::stderr()));
}

/// Logs to the end of a file, so that a terminal is left to progress bars.
///
/// # Errors
/// The file can't be opened.
pub fn to_file(args: &LogArgs, path: &Path) -> Result<(), CliError> {
    let file =
        private::append(path).map_err(|e| CliError::failed(format!("open the log {}", path.display()), e))?;
    install(args.log_format, Mutex::new(file), false);
    Ok(())
}

fn install<W>(format: LogFormat, writer: W, colours: bool)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // it logs each failed request as an error, also those that are tried again; whoever asked says what it means
    filter = match "kube_client::client::builder=off".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    let builder = fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    // a second call (in tests) keeps the first logger
    let _already_installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
