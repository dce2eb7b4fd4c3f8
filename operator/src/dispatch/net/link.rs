//! One connection's TLS without buffers of its own: bytes are decrypted in the reading thread's
//! buffer and encrypted into the writing thread's, so an idle connection holds neither.

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use std::sync::Arc;

/// What a TLS record adds to its content at most, in bytes.
const RECORD_OVERHEAD: usize = 64;
/// The most content a TLS record has, in bytes.
const RECORD_CONTENT: usize = 16 << 10;
/// Room for a handshake message; most fit.
const HANDSHAKE_ROOM: usize = 2 << 10;

/// Why a connection's TLS is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("TLS: {0}")]
    Encode(EncodeError),
    #[error("TLS: {0}")]
    Encrypt(EncryptError),
    #[error("TLS: early data, which is not taken")]
    EarlyData,
}

/// What came of feeding bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fed {
    /// Bytes at the front that are dealt with; the rest has to come again with more behind it.
    pub used: usize,
    /// The peer said that nothing more comes.
    pub closed: bool,
    /// The handshake is done.
    pub encrypted: bool,
}

/// The server's side of a TLS connection.
pub(crate) struct Link {
    tls: UnbufferedServerConnection,
}

impl Link {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, LinkError> {
        Ok(Self { tls: UnbufferedServerConnection::new(config)? })
    }

    /// Deals with received bytes: content is appended to `plain`, what has to be sent to `out`.
    pub(crate) fn feed(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Fed, LinkError> {
        let mut fed = Fed { used: 0, closed: false, encrypted: false };
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                self.tls.process_tls_records(&mut incoming[fed.used..]);
            let mut settled = false;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    fed.encrypted = true;
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(out, HANDSHAKE_ROOM, |room| match data.encode(room) {
                        Err(EncodeError::InsufficientSize(e)) => Err(Short::By(e.required_size)),
                        other => other.map_err(|e| Short::Never(LinkError::Encode(e))),
                    })?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake => settled = true,
                ConnectionState::WriteTraffic(_) => {
                    fed.encrypted = true;
                    settled = true;
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    fed.closed = true;
                    settled = true;
                }
                _ => return Err(LinkError::EarlyData),
            }
            fed.used += discard;
            if settled {
                return Ok(fed);
            }
        }
    }

    /// Encrypts content into `out`; before the handshake is done it is an error.
    pub(crate) fn encrypt(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), LinkError> {
        loop {
            match self.tls.process_tls_records(&mut []).state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let room = plain.len() + RECORD_OVERHEAD * (1 + plain.len() / RECORD_CONTENT);
                    return append(out, room, |room| match traffic.encrypt(plain, room) {
                        Err(EncryptError::InsufficientSize(e)) => Err(Short::By(e.required_size)),
                        other => other.map_err(|e| Short::Never(LinkError::Encrypt(e))),
                    });
                }
                // an answer to the peer's new keys goes first
                ConnectionState::EncodeTlsData(mut data) => {
                    append(out, HANDSHAKE_ROOM, |room| match data.encode(room) {
                        Err(EncodeError::InsufficientSize(e)) => Err(Short::By(e.required_size)),
                        other => other.map_err(|e| Short::Never(LinkError::Encode(e))),
                    })?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                _ => return Err(LinkError::Tls(rustls::Error::HandshakeNotComplete)),
            }
        }
    }
}

enum Short {
    By(usize),
    Never(LinkError),
}

/// Lets `write` fill the end of `out`, with as much room as it asks for.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Short>,
) -> Result<(), LinkError> {
    let start = out.len();
    out.resize(start + room, 0);
    loop {
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Short::By(needed)) => out.resize(start + needed, 0),
            Err(Short::Never(error)) => {
                out.truncate(start);
                return Err(error);
            }
        }
    }
}
