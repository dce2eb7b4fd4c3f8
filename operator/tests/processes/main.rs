//! Tests with real operators and real worker processes, in one program to be linked once.

mod faults_network;
mod faults_processes;
mod faults_store;
mod first_process;
mod kit;
mod machine;
mod prove;
mod unread;
mod reruns;
