//! Tests with real operators and real worker processes, in one program to be linked once.

mod blocks;
mod exit_codes;
mod faults_network;
mod faults_processes;
mod faults_store;
mod first_process;
mod jobs_http;
mod kit;
mod leaving;
mod machine;
mod private;
mod prove;
mod reruns;
mod stalled_disk;
mod store_trouble;
mod stuck;
mod unread;
