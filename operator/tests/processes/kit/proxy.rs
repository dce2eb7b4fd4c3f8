//! A TCP proxy that can play dead.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Passes bytes on between its clients and one server.
pub struct Proxy {
    /// Where clients connect.
    pub address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    /// Connections with lower numbers are dead: both their ends stay open and drained, and nothing is passed on.
    dead_below: AtomicUsize,
    /// Nothing is closed because a thread ends.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A proxy on 127.0.0.1 before this server.
    pub fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared::default());
        let (accepting, server) = (shared.clone(), server.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let number = accepting.connections.fetch_add(1, Ordering::SeqCst);
                let copy = |stream: &TcpStream| stream.try_clone().expect("a handle");
                accepting.open.lock().unwrap().extend([copy(&client), copy(&upstream)]);
                for (from, to) in [(copy(&client), copy(&upstream)), (upstream, client)] {
                    let shared = accepting.clone();
                    std::thread::spawn(move || pass(from, to, number, &shared));
                }
            }
        });
        Self { address, shared }
    }

    /// The connections there are now are dead; new ones are served.
    pub fn play_dead(&self) {
        self.shared.dead_below.store(self.connections(), Ordering::SeqCst);
    }

    /// How many there were.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, number: usize, shared: &Shared) {
    let mut part = [0; 16 << 10];
    let dead = || number < shared.dead_below.load(Ordering::SeqCst);
    loop {
        match from.read(&mut part) {
            Ok(length @ 1..) if dead() => _ = length,
            Ok(length @ 1..) if to.write_all(&part[..length]).is_ok() => {}
            _ => break,
        }
    }
    if !dead() {
        // the other side may have ended first
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
