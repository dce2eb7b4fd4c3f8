//! One worker that means harm, at the store that the operator serves: the others go on.

use arborist_artifacts::{ArtifactStore, Created, StoreOptions};
use arborist_core::ids::TaskId;
use arborist_core::proof_object::proof_key;
use arborist_operator::store::http::{Access, Key, Limits, Right, router};
use arborist_operator::tls_serve::serve_at_most;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{join_all, select_all};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Nothing takes longer than this unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);
const OBJECT: usize = 1 << 20;

/// Every session may do everything here: what it may use up is the matter.
struct Everybody;

impl Access for Everybody {
    fn may_read(&self, _token: &str, _key: &Key) -> Right {
        Right::Granted
    }

    fn may_write(&self, _token: &str, _key: &Key) -> Right {
        Right::Granted
    }
}

/// Room for two objects in all, one a session.
fn tight() -> Limits {
    Limits {
        max_object_bytes: OBJECT as u64,
        memory_bytes: 2 * OBJECT as u64,
        session_bytes: OBJECT as u64,
        session_requests: 4,
        session_waiting: 4,
        request_time: PATIENCE,
        min_bytes_per_second: 1 << 20,
        slack: PATIENCE,
    }
}

struct Server {
    address: SocketAddr,
    below: ArtifactStore,
    _stop: DropGuard,
}

impl Server {
    async fn start(limits: Limits, connections: usize) -> Self {
        let below = ArtifactStore::open("memory:///", &StoreOptions::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let routes = router(below.clone(), Arc::new(Everybody), limits);
        tokio::spawn(serve_at_most(connections, listener, None, routes, stop.clone()));
        Self { address, below, _stop: stop.drop_guard() }
    }

    fn client(&self, token: &str) -> ArtifactStore {
        let options = StoreOptions { token: Some(token.into()), ..StoreOptions::default() };
        ArtifactStore::open(&format!("http://{}", self.address), &options).unwrap()
    }

    /// A connection on which so much of a request was sent.
    async fn begin(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// The head of a put of which the body is still to come.
    async fn begin_put(&self, token: &str, task: u8, bytes: usize) -> TcpStream {
        let key = proof_key(&TaskId([task; 32]));
        self.begin(&format!(
            "PUT /artifacts/{key} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {bytes}\r\n\r\n"
        ))
        .await
    }

    async fn begin_get(&self, token: &str, task: u8) -> TcpStream {
        let key = proof_key(&TaskId([task; 32]));
        self.begin(&format!(
            "GET /artifacts/{key} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        ))
        .await
    }

    /// Another worker writes and reads an object of the largest size.
    async fn others_go_on(&self) {
        let other = self.client("honest");
        let (task, bytes) = (TaskId([200; 32]), Bytes::from(vec![7; OBJECT]));
        let work = async {
            assert!(matches!(
                other.create_proof(&task, bytes.clone()).await.unwrap(),
                Created::New | Created::Exists
            ));
            assert_eq!(other.get_proof(&task).await.unwrap().unwrap(), bytes);
        };
        timeout(PATIENCE, work).await.expect("the others wait for the hostile one");
    }
}

/// The status of the next answer.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut head = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("an answer").unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

#[tokio::test]
async fn bodies_that_are_announced_and_never_come_take_nothing_from_others() {
    let server = Server::start(tight(), 64).await;
    let hostile: Vec<TcpStream> = join_all((0..8).map(|i| server.begin_put("hostile", i, OBJECT))).await;
    server.others_go_on().await;
    drop(hostile);
}

#[tokio::test]
async fn many_sessions_that_send_little_of_much_leave_room_for_one_that_sends() {
    let server = Server::start(tight(), 64).await;
    let mut hostile = vec![];
    for i in 0..16 {
        let mut stream = server.begin_put(&format!("hostile-{i}"), i, OBJECT).await;
        stream.write_all(&[0; 10_000]).await.unwrap();
        hostile.push(stream);
    }
    server.others_go_on().await;
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_given_up() {
    let limits = Limits { slack: Duration::from_millis(50), ..tight() };
    let server = Server::start(limits, 64).await;
    let mut stream = server.begin_put("hostile", 1, OBJECT).await;
    stream.write_all(b"a").await.unwrap();
    assert_eq!(status(&mut stream).await, 408);
    assert_eq!(server.below.get_proof(&TaskId([1; 32])).await.unwrap(), None);
}

#[tokio::test]
async fn who_asks_for_much_and_reads_nothing_gives_the_memory_back() {
    // more than the sockets take
    let large = 32 * OBJECT;
    let limits = Limits {
        max_object_bytes: large as u64,
        memory_bytes: large as u64,
        session_bytes: large as u64,
        slack: Duration::from_secs(2),
        min_bytes_per_second: 16 << 20,
        ..tight()
    };
    let server = Server::start(limits, 64).await;
    let object = Bytes::from(vec![5; large]);
    server.below.create_proof(&TaskId([1; 32]), object.clone()).await.unwrap();
    // the first has all of the memory, the second what one may have beyond it
    let mut hostile = [server.begin_get("hostile-1", 1).await, server.begin_get("hostile-2", 1).await];
    for stream in &mut hostile {
        assert_eq!(status(stream).await, 200);
    }
    server.others_go_on().await;
    // that of one that was too slow, whose object ends early
    let mut shortest = large;
    for stream in &mut hostile {
        let mut rest = vec![];
        let _cut_off = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it ends");
        shortest = shortest.min(rest.len());
    }
    assert!(shortest < large, "{shortest} bytes came");
}

#[tokio::test]
async fn a_session_has_so_many_requests_and_no_more() {
    let server = Server::start(tight(), 64).await;
    let mut requests = vec![];
    for i in 0..9 {
        requests.push(server.begin_put("hostile", i, 1000).await);
    }
    // one more than are served and may wait; which one that is, is chance
    let (answer, refused, _) = select_all(requests.iter_mut().map(|stream| status(stream).boxed())).await;
    assert_eq!(answer, 503);
    requests.remove(refused);
    server.others_go_on().await;
    for stream in &mut requests {
        stream.write_all(&[1; 1000]).await.unwrap();
    }
    for stream in &mut requests {
        assert_eq!(status(stream).await, 201, "those that waited had their turn");
    }
}

#[tokio::test]
async fn connections_that_do_nothing_make_room() {
    let server = Server::start(tight(), 8).await;
    let mut working = server.begin_put("busy", 1, 1000).await;
    let mut idle = vec![];
    for i in 0..100 {
        // nothing at all, or a head that never ends
        idle.push(server.begin(if i % 2 == 0 { "" } else { "PUT /artifacts/x HTTP/1.1\r\nx-a: a" }).await);
    }
    server.others_go_on().await;
    working.write_all(&[1; 1000]).await.unwrap();
    assert_eq!(status(&mut working).await, 201, "what is at work stays");
    let mut closed = [0; 1];
    let end = timeout(PATIENCE, idle[0].read(&mut closed)).await.expect("the oldest is closed");
    assert!(matches!(end, Ok(0) | Err(_)));
}
