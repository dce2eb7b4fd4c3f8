//! `arborist healthcheck`: does a URL answer well? For probes and `helm test`: the image has no other client.

use super::CliError;
use super::prove::parse_duration;
use arborist_system::out;
use clap::Args as ClapArgs;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use url::Url;

/// The most of an answer that is read.
const MAX_ANSWER: u64 = 64 << 10;
/// How long one of a name's addresses may take to answer at all.
const CONNECT: Duration = Duration::from_secs(1);

/// Options of `arborist healthcheck`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What to get, e.g. <http://127.0.0.1:7701/readyz>
    url: Url,
    /// How long all of it may take
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Gets the URL, prints the answer's body, and succeeds when its status is 2xx.
///
/// # Errors
/// The URL is not of http, nobody answers in time, or the status is another one.
pub fn run(args: &Args) -> Result<(), CliError> {
    let usage =
        |problem: &str| CliError::Usage { option: "URL", problem: format!("{}: {problem}", args.url) };
    if args.url.scheme() != "http" {
        return Err(usage("health is served over http://"));
    }
    let host = args.url.host_str().ok_or_else(|| usage("a host is missing"))?;
    let port = args.url.port_or_known_default().unwrap_or(80);
    let answer = get(host, port, args.url.path(), Instant::now() + args.timeout)
        .map_err(|e| CliError::failed(&args.url, e))?;
    let (status, body) = parse(&answer).ok_or_else(|| CliError::failed(&args.url, "no HTTP answer"))?;
    if !(200..300).contains(&status) {
        return Err(CliError::failed(&args.url, format!("status {status}: {}", body.trim())));
    }
    out!("{body}");
    Ok(())
}

/// One GET over HTTP/1.0, so that the answer ends where the connection does.
fn get(host: &str, port: u16, path: &str, until: Instant) -> std::io::Result<String> {
    let left = || {
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left).ok_or(std::io::Error::from(std::io::ErrorKind::TimedOut))
    };
    let bare = host.trim_matches(['[', ']']);
    let mut tried = std::io::Error::other("the name has no address");
    for address in (bare, port).to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, left()?.min(CONNECT)) {
            Ok(stream) => stream,
            Err(error) => {
                tried = error;
                continue;
            }
        };
        stream.set_write_timeout(Some(left()?))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n").as_bytes())?;
        return read(stream, left);
    }
    Err(tried)
}

fn read(stream: TcpStream, left: impl Fn() -> std::io::Result<Duration>) -> std::io::Result<String> {
    let mut answer = vec![];
    let mut part = [0; 4096];
    let mut bounded = stream.take(MAX_ANSWER);
    loop {
        bounded.get_ref().set_read_timeout(Some(left()?))?;
        match bounded.read(&mut part)? {
            0 => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            n => answer.extend_from_slice(&part[..n]),
        }
    }
}

/// Status and body of an answer.
fn parse(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What the check says of a server that answers so.
    fn check(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![];
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            assert!(request.starts_with(b"GET /readyz HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let args = Args { url: url.parse().unwrap(), timeout: Duration::from_secs(60) };
        let result = run(&args).map_err(|e| e.one_line());
        server.join().unwrap();
        result
    }

    #[test]
    fn only_2xx_is_healthy_and_the_reason_is_told() {
        assert_eq!(check("HTTP/1.0 200 OK\r\n\r\nok\n"), Ok(()));
        assert_eq!(check("HTTP/1.1 204 No Content\r\na: b\r\n\r\n"), Ok(()));
        for (answer, error) in [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\ncaches\ncrds\n", "status 503: caches crds"),
            ("HTTP/1.1 302 Found\r\n\r\n", "status 302"),
            ("SSH-2.0-x\r\n\r\n", "no HTTP answer"),
            ("", "no HTTP answer"),
        ] {
            let found = check(answer).unwrap_err();
            assert!(found.contains(error), "{found}");
        }
    }

    #[test]
    fn nobody_there_is_an_error() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (url, error) in [(format!("http://{free}/"), "refused"), ("https://127.0.0.1/".into(), "http://")]
        {
            let args = Args { url: url.parse().unwrap(), timeout: Duration::from_secs(60) };
            let found = run(&args).unwrap_err().one_line();
            assert!(found.to_lowercase().contains(error), "{found}");
        }
    }
}
