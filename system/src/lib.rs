//! What Arborist's programs need as processes of a machine: output that nobody may read, descriptors, the memory they
//! may use, the first process of a container, files for their owner alone, and the watch over parts that have to go on.
#![warn(missing_docs)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod descriptors;
pub mod hang_up;
pub mod init;
pub mod memory;
pub mod output;
pub mod private;
pub mod watchdog;
