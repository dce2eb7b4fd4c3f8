//! What a crash of one thread means for the process.

/// Nobody waits for the threads that carry the workers' connections: when one crashes, the process ends rather than
/// leave its workers unheard. Other crashes are dealt with where they happen.
pub fn end_with_network_threads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |crash| {
        report(crash);
        if std::thread::current().name().is_some_and(|name| name.starts_with("net-")) {
            std::process::exit(1);
        }
    }));
}
