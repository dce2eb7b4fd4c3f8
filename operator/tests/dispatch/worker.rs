//! A worker that does what the test says.

use crate::lab::{Lab, PATIENCE, TOKEN};
use arborist_core::circuit::{Circuit, Kind};
use arborist_core::fake_proof;
use arborist_core::ids::TaskId;
use arborist_core::proof_object::{Maker, ProofObject};
use arborist_core::wire::{
    Completed, Failed, FromWorker, Hello, Lease, PROTOCOL, Reason, ToWorker, put_frame, take_frame,
};
use arborist_operator::dispatch::Dispatcher;
use arborist_operator::tls::{SERVER_NAME, client_config};
use bytes::BytesMut;
use ed25519_dalek::SigningKey;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Worker {
    stream: StreamOwned<ClientConnection, TcpStream>,
    inbox: BytesMut,
    seq: u64,
    name: String,
    /// What it shows to the store.
    pub token: String,
    /// Leases that came along with other messages.
    early: Vec<Lease>,
}

pub fn hello(name: &str) -> Hello {
    Hello {
        protocol: PROTOCOL,
        token: TOKEN.into(),
        worker: name.into(),
        version: "test".into(),
        cores: 1,
        memory_mib: 1024,
        prefetch: 0,
        backend: "fake".into(),
        circuits: "test-v1".into(),
        ..Default::default()
    }
}

impl Worker {
    /// A TLS connection, nothing said yet.
    pub fn connect(dispatcher: &Dispatcher) -> Self {
        Self::connect_trusting(dispatcher, &dispatcher.ca_pem())
    }

    /// A connection that trusts these authorities only.
    pub fn connect_trusting(dispatcher: &Dispatcher, ca_pem: &str) -> Self {
        let config = client_config(ca_pem).unwrap();
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let socket = TcpStream::connect(dispatcher.address()).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket);
        Self {
            stream,
            inbox: BytesMut::new(),
            seq: 0,
            name: String::new(),
            token: String::new(),
            early: vec![],
        }
    }

    pub fn login(dispatcher: &Dispatcher, hello: Hello) -> Self {
        Self::connect(dispatcher).log_in(hello)
    }

    pub fn log_in(self, hello: Hello) -> Self {
        let mut worker = self;
        worker.name = hello.worker.clone();
        worker.send(FromWorker { hello: Some(hello), ..Default::default() });
        let welcome = worker.next();
        assert!(welcome.welcome.is_some(), "{welcome:?}");
        worker.token = welcome.welcome.unwrap().session_token;
        worker.early = welcome.leases;
        worker
    }

    /// Says hello and gives back why that is refused.
    pub fn refused(mut self, hello: Hello) -> arborist_core::wire::Refused {
        self.send(FromWorker { hello: Some(hello), ..Default::default() });
        self.next().refused.expect("it is refused")
    }

    pub fn send(&mut self, message: FromWorker) {
        let mut frame = BytesMut::new();
        put_frame(&message, &mut frame);
        self.send_bytes(&frame);
    }

    /// What the dispatcher does not take any more is lost.
    pub fn send_bytes(&mut self, mut bytes: &[u8]) {
        let end = Instant::now() + PATIENCE;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(e) if is_timeout(&e) => assert!(Instant::now() < end, "it takes nothing"),
                Err(_) => return,
            }
        }
        while let Err(error) = self.stream.flush() {
            if !is_timeout(&error) {
                return;
            }
            assert!(Instant::now() < end, "it takes nothing");
        }
    }

    /// The next message; `None` when the connection is closed.
    pub fn next_or_end(&mut self) -> Option<ToWorker> {
        self.within(PATIENCE).expect("something comes")
    }

    pub fn next(&mut self) -> ToWorker {
        self.next_or_end().expect("the connection lives")
    }

    /// Outer `None`: nothing came in time. Inner `None`: closed.
    fn within(&mut self, time: Duration) -> Option<Option<ToWorker>> {
        let end = Instant::now() + time;
        let mut part = [0; 16 << 10];
        loop {
            if let Some(message) = take_frame(&mut self.inbox).unwrap() {
                return Some(Some(message));
            }
            match self.stream.read(&mut part) {
                Ok(0) => return Some(None),
                Ok(length) => self.inbox.extend_from_slice(&part[..length]),
                Err(error) if is_timeout(&error) => {
                    if Instant::now() >= end {
                        return None;
                    }
                }
                Err(_) => return Some(None),
            }
        }
    }

    pub fn is_closed(&mut self) -> bool {
        while self.next_or_end().is_some() {}
        true
    }

    /// Waits for so many leases.
    pub fn leases(&mut self, count: usize) -> Vec<Lease> {
        let mut leases = std::mem::take(&mut self.early);
        while leases.len() < count {
            leases.extend(self.next().leases);
        }
        leases
    }

    /// A heartbeat and its answer: every lease given out before it has come by then.
    pub fn leases_by_now(&mut self, held: &[u64]) -> Vec<Lease> {
        let heartbeat = arborist_core::wire::Heartbeat { fences: held.to_vec() };
        self.seq += 1;
        self.send(FromWorker { seq: self.seq, heartbeat: Some(heartbeat), ..Default::default() });
        let mut leases = std::mem::take(&mut self.early);
        loop {
            let message = self.next();
            leases.extend(message.leases);
            if message.ack >= self.seq {
                return leases;
            }
        }
    }

    /// Puts the proof of a lease into the store.
    pub fn prove(&self, lab: &Lab, lease: &Lease) {
        lab.runtime.block_on(lab.store.create_proof(&task(lease), self.sealed(lease).into())).unwrap();
    }

    pub fn sealed(&self, lease: &Lease) -> Vec<u8> {
        let circuit = Circuit::new(Kind::from_index(lease.kind as usize).unwrap(), lease.param as u8);
        let proof = fake_proof::prove(circuit, &lease.public_inputs, &[], &[], 100);
        let maker = Maker {
            worker: self.name.clone(),
            node: self.name.clone(),
            finished_unix_ms: 1,
            millis: 5,
            cpu_millis: 5,
        };
        ProofObject::seal(task(lease), circuit, &proof, &maker, &SigningKey::from_bytes(&[1; 32]))
    }

    /// Reports a lease as done, without waiting for the answer.
    pub fn report(&mut self, lease: &Lease) {
        self.completed(lease, false);
    }

    /// Reports that a lease's proof was in the store already, without waiting for the answer.
    pub fn report_found(&mut self, lease: &Lease) {
        self.completed(lease, true);
    }

    fn completed(&mut self, lease: &Lease, found: bool) {
        self.seq += 1;
        let completed = Completed {
            fence: lease.fence,
            task: lease.task.clone(),
            millis: 5,
            cpu_millis: 5,
            proof_bytes: 100,
            found,
            ..Default::default()
        };
        self.send(FromWorker { seq: self.seq, completed: vec![completed], ..Default::default() });
    }

    /// Gives a lease back unfinished.
    pub fn hand_back(&mut self, lease: &Lease) {
        self.seq += 1;
        let failed = Failed {
            fence: lease.fence,
            task: lease.task.clone(),
            reason: Reason::HandedBack.into(),
            ..Default::default()
        };
        self.send(FromWorker { seq: self.seq, failed: vec![failed], ..Default::default() });
    }

    /// Waits until everything reported is acknowledged.
    pub fn acknowledged(&mut self) {
        loop {
            let message = self.next();
            self.early.extend(message.leases);
            if message.ack >= self.seq {
                return;
            }
        }
    }

    /// Proves what comes until the job is over; returns the tasks in their order.
    pub fn work(&mut self, lab: &Lab, job: arborist_core::engine::JobId) -> Vec<TaskId> {
        let mut tasks = vec![];
        let total = |lab: &Lab| {
            let view = lab.dispatcher.job(job).unwrap();
            view.counts.iter().map(|c| c.total - c.done).sum::<u32>()
        };
        while total(lab) > 0 {
            let mut leases = std::mem::take(&mut self.early);
            if leases.is_empty()
                && let Some(message) = self.within(Duration::from_millis(20))
            {
                leases = message.expect("the connection lives").leases;
            }
            for lease in leases {
                self.prove(lab, &lease);
                self.report(&lease);
                tasks.push(task(&lease));
            }
        }
        tasks
    }
}

pub fn task(lease: &Lease) -> TaskId {
    TaskId::from_slice(&lease.task).unwrap()
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
