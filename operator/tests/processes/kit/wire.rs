//! The dispatcher's protocol, spoken by hand.

use super::Lab;
use arborist_core::wire::{FromWorker, Hello, Refused, ToWorker, put_frame, take_frame};
use arborist_operator::tls::{CA_FILE, SERVER_NAME, client_config};
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// Logs in as a worker that speaks this version of the protocol, and gives back the refusal.
pub fn login_with_protocol(lab: &Lab, protocol: u32) -> Refused {
    let token = std::fs::read_to_string(lab.state().join("worker-token")).expect("a token");
    let hello = Hello {
        protocol,
        token: token.trim().to_owned(),
        worker: "stranger".into(),
        node: "stranger".into(),
        version: "99.0.0".into(),
        cores: 1,
        memory_mib: 1024,
        backend: "fake".into(),
        circuits: "mini-rollup-v1".into(),
        ..Default::default()
    };
    let mut stream = connect(lab);
    let mut out = BytesMut::new();
    put_frame(&FromWorker { hello: Some(hello), ..Default::default() }, &mut out);
    stream.write_all(&out).expect("the hello is sent");
    let (mut buffer, mut part) = (BytesMut::new(), [0; 4096]);
    loop {
        if let Some(frame) = take_frame::<ToWorker>(&mut buffer).expect("a frame") {
            return frame.refused.expect("a refusal");
        }
        let length = stream.read(&mut part).expect("an answer");
        assert!(length > 0, "closed without an answer\n{}", lab.logs());
        buffer.extend_from_slice(&part[..length]);
    }
}

fn connect(lab: &Lab) -> StreamOwned<ClientConnection, TcpStream> {
    let ca = std::fs::read_to_string(lab.state().join(CA_FILE)).expect("the CA's certificate");
    let config = client_config(&ca).expect("it is one");
    let name = ServerName::try_from(SERVER_NAME).expect("a name");
    let tls = ClientConnection::new(Arc::new(config), name).expect("a client");
    let tcp = TcpStream::connect(&lab.address).expect("the dispatcher listens");
    tcp.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    StreamOwned::new(tls, tcp)
}
