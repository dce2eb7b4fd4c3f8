//! From the dispatcher's name to a connection: every address that the name has is tried.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long an address may take to answer at all. That of a leader that is gone with its node never does, and is the
/// Service's until another leads: who waits for it longer finds the new one later.
const REACH_LIMIT: Duration = Duration::from_secs(2);
/// After so long without an answer the next address is tried beside (RFC 8305).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Connects to the first address of `HOST:PORT` that answers. `failures` says how many tries before this one came to
/// nothing: each begins with another address, since one may take connections and serve nobody.
///
/// # Errors
/// The name has no address, or none of them answers.
pub(crate) async fn reach(host_and_port: &str, failures: u32) -> io::Result<TcpStream> {
    let found = tokio::net::lookup_host(host_and_port).await?.collect();
    first_of(in_order(found, failures)).await
}

/// IPv6 and IPv4 in turns, beginning with the kind that the resolver prefers.
fn in_order(mut found: Vec<SocketAddr>, failures: u32) -> Vec<SocketAddr> {
    let mut seen = std::collections::HashSet::new();
    found.retain(|address| seen.insert(*address));
    let Some(first) = found.first() else { return found };
    let (preferred, others): (Vec<_>, Vec<_>) =
        found.iter().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut order = Vec::with_capacity(found.len());
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    while order.len() < found.len() {
        order.extend(preferred.next());
        order.extend(others.next());
    }
    let turn = failures as usize % order.len();
    order.rotate_left(turn);
    order
}

async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut tries = JoinSet::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            tries.spawn(async move {
                let stream = timeout(REACH_LIMIT, TcpStream::connect(address)).await;
                stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            });
        }
        let more = waiting.len() > 0;
        tokio::select! {
            ended = tries.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(failed))) => error = failed,
                Some(Err(broken)) => error = io::Error::other(broken),
                None if more => {}
                None => return Err(error),
            },
            () = sleep(NEXT_ADDRESS), if more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::TcpListener;

    /// A full queue of a listener that accepts nothing is as silent as an address that is gone.
    async fn silent(ip: [u8; 4]) -> (Socket, SocketAddr, Vec<TcpStream>) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut connected = vec![];
        let error = loop {
            match first_of(vec![address]).await {
                Ok(stream) => connected.push(stream),
                Err(error) => break error,
            }
            assert!(connected.len() < 8, "its queue is never full");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        (listener, address, connected)
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_not_waited_for_and_keeps_no_other_from_being_tried() {
        let (_listener, dead, _queue) = silent([127, 0, 0, 1]).await;
        let (_other_listener, other_dead, _other_queue) = silent([127, 0, 0, 2]).await;
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let last = good.local_addr().unwrap();
        for addresses in [vec![dead, other_dead, refused, last], vec![refused, last], vec![last, dead]] {
            let stream = first_of(addresses.clone()).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), last, "{addresses:?}");
        }
        assert_eq!(first_of(vec![]).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn kinds_of_addresses_take_turns_and_each_try_begins_with_another() {
        let of = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let cases: [(&[&str], u32, &[&str]); 5] = [
            (&["[::1]:7", "[::2]:7", "1.1.1.1:7"], 0, &["[::1]:7", "1.1.1.1:7", "[::2]:7"]),
            (&["1.1.1.1:7", "[::1]:7", "[::2]:7"], 1, &["[::1]:7", "[::2]:7", "1.1.1.1:7"]),
            (&["1.1.1.1:7", "1.1.1.1:7", "2.2.2.2:7"], 3, &["2.2.2.2:7", "1.1.1.1:7"]),
            (&["1.1.1.1:7"], u32::MAX, &["1.1.1.1:7"]),
            (&[], 1, &[]),
        ];
        for (found, failures, wanted) in cases {
            assert_eq!(in_order(of(found), failures), of(wanted), "{found:?} after {failures} failures");
        }
    }
}
