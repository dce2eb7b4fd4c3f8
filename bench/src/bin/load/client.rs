//! One worker's connection.

use anyhow::{Context, Result};
use arborist_core::wire::{Completed, FromWorker, Heartbeat, Held, Hello, PROTOCOL, ToWorker, put_frame};
use arborist_operator::tls::{SERVER_NAME, client_config};
use bytes::BytesMut;
use mio::net::TcpStream;
use prost::Message;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// Trusts the dispatcher's authority alone.
pub fn tls(ca: &Path) -> Result<Arc<ClientConfig>> {
    let mut config = client_config(&std::fs::read_to_string(ca).context("CA")?)?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// A result, with the code that came with its lease.
pub type Reported = (Completed, Vec<u8>);

pub struct Client {
    pub socket: TcpStream,
    tls: ClientConnection,
    inbox: Vec<u8>,
    pub welcomed: bool,
    pub seq: u64,
    /// Results that were sent and not acknowledged, by the frame they went with.
    pub unacknowledged: VecDeque<(u64, Reported)>,
}

impl Client {
    pub fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        let tls = ClientConnection::new(config, ServerName::try_from(SERVER_NAME)?)?;
        Ok(Self { socket, tls, inbox: vec![], welcomed: false, seq: 0, unacknowledged: VecDeque::new() })
    }

    pub fn hello(&mut self, name: String, token: &str, leases: u32) -> Result<()> {
        let held = self.unacknowledged.iter().map(|(_, (done, mac))| Held {
            task: done.task.clone(),
            fence: done.fence,
            running_millis: 1,
            mac: mac.clone(),
        });
        let hello = Hello {
            protocol: PROTOCOL,
            token: token.to_owned(),
            node: name.clone(),
            worker: name,
            version: env!("CARGO_PKG_VERSION").into(),
            cores: 1,
            memory_mib: 1024,
            prefetch: leases - 1,
            backend: "fake".into(),
            circuits: "bench-v1".into(),
            held: held.collect(),
            ..Hello::default()
        };
        self.queue(&FromWorker { hello: Some(hello), ..Default::default() })
    }

    pub fn report(&mut self, reported: Vec<Reported>, keep: bool) -> Result<()> {
        self.seq += 1;
        if keep {
            let seq = self.seq;
            self.unacknowledged.extend(reported.iter().map(|r| (seq, r.clone())));
        }
        let completed = reported.into_iter().map(|(completed, _)| completed).collect();
        self.queue(&FromWorker { seq: self.seq, completed, ..Default::default() })?;
        self.flush()
    }

    pub fn heartbeat(&mut self, fences: Vec<u64>) -> Result<()> {
        self.queue(&FromWorker { heartbeat: Some(Heartbeat { fences }), ..Default::default() })?;
        self.flush()
    }

    fn queue(&mut self, message: &FromWorker) -> Result<()> {
        let mut frame = BytesMut::with_capacity(4 + message.encoded_len());
        put_frame(message, &mut frame);
        self.tls.writer().write_all(&frame)?;
        Ok(())
    }

    pub fn flush(&mut self) -> Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock || e.kind() == ErrorKind::NotConnected => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Reads what there is; hands over whole messages.
    pub fn read(
        &mut self,
        scratch: &mut [u8],
        mut take: impl FnMut(&mut Self, ToWorker) -> Result<()>,
    ) -> Result<()> {
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => anyhow::bail!("closed"),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            }
            let state = self.tls.process_new_packets()?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let length = self.tls.reader().read(scratch)?;
                self.inbox.extend_from_slice(&scratch[..length]);
                left -= length;
            }
            self.flush()?;
            let inbox = std::mem::take(&mut self.inbox);
            let mut rest = inbox.as_slice();
            while let Some((head, body)) = rest.split_first_chunk::<4>()
                && let Some(frame) = body.get(..u32::from_be_bytes(*head) as usize)
            {
                rest = &body[frame.len()..];
                take(self, ToWorker::decode(frame)?)?;
            }
            self.inbox = rest.to_vec();
        }
    }
}
