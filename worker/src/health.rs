//! `--health-address`: says over HTTP whether the parts of the worker go on. On threads of its own, so that it answers
//! whatever the others do.

use arborist_system::watchdog::Watchdog;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How long one who asks may take to say what it wants, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers at once; who comes on top is turned away.
const AT_ONCE: usize = 16;
/// How long accepting rests when it fails, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// The most of a request that is read.
const MAX_REQUEST: usize = 4096;

/// Serves `/healthz` until the process ends. Where it is served.
///
/// # Errors
/// The address can't be listened on.
pub fn serve(address: SocketAddr, watchdog: Watchdog) -> io::Result<SocketAddr> {
    let listener = listen(address)?;
    let address = listener.local_addr()?;
    let under_way = Arc::new(AtomicUsize::new(0));
    thread::Builder::new().name("health".into()).spawn(move || {
        loop {
            match listener.accept() {
                Ok((stream, _)) if under_way.load(Ordering::Acquire) < AT_ONCE => {
                    answer_beside(stream, &watchdog, &under_way);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => thread::sleep(ACCEPT_PAUSE),
            }
        }
    })?;
    Ok(address)
}

/// `[::]` is any address of either kind; where there is no IPv6 it is any of the other.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address) {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        bound => bound,
    }
}

fn answer_beside(stream: TcpStream, watchdog: &Watchdog, under_way: &Arc<AtomicUsize>) {
    under_way.fetch_add(1, Ordering::AcqRel);
    let (watchdog, count) = (watchdog.clone(), under_way.clone());
    let answering = thread::Builder::new().name("health-answer".into()).spawn(move || {
        if let Err(error) = answer(stream, &watchdog) {
            tracing::debug!(%error, "a question for the worker's health broke off");
        }
        count.fetch_sub(1, Ordering::AcqRel);
    });
    if answering.is_err() {
        under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(mut stream: TcpStream, watchdog: &Watchdog) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = vec![];
    let mut part = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        match stream.read(&mut part)? {
            0 => break,
            length => request.extend_from_slice(&part[..length]),
        }
    }
    let (status, body) = verdict(&request, &watchdog.stuck());
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())
}

fn verdict(request: &[u8], stuck: &[String]) -> (&'static str, String) {
    match request {
        [b'G', b'E', b'T', b' ', path @ ..] if path.starts_with(b"/healthz ") => match stuck {
            [] => ("200 OK", "ok\n".into()),
            stuck => ("503 Service Unavailable", stuck.join("\n") + "\n"),
        },
        _ => ("404 Not Found", "only GET /healthz is answered\n".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn what_is_stuck_is_named() {
        let watchdog = Watchdog::default();
        let address = serve("127.0.0.1:0".parse().unwrap(), watchdog.clone()).unwrap();
        assert!(ask(address, "/healthz").ends_with("\r\n\r\nok\n"));
        assert!(ask(address, "/").starts_with("HTTP/1.1 404 "));
        let _stuck = watchdog.watch("the connection", Duration::ZERO);
        while watchdog.stuck().is_empty() {
            thread::yield_now();
        }
        let answer = ask(address, "/healthz");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("the connection: stuck"), "{answer}");
    }

    #[test]
    fn who_connects_and_says_nothing_keeps_no_other_from_asking() {
        let address = serve("127.0.0.1:0".parse().unwrap(), Watchdog::default()).unwrap();
        let _idle: Vec<_> = (0..AT_ONCE - 1).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert!(ask(address, "/healthz").contains(" 200 "));
    }
}
