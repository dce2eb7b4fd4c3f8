//! The bytes of segments and snapshots.
//!
//! Layout, integers little-endian: magic (8), epoch (8), nonce (16), number (8), body length (8), BLAKE3 of
//! all these and the body (32), body. A segment's body is records, each with its length (4) before it.

use arborist_artifacts::{ArtifactStore, Created, StoreError};
use bytes::Bytes;

pub(super) const HEADER_BYTES: usize = CHECKSUM_AT + 32;
const CHECKSUM_AT: usize = 48;
const LENGTH_BYTES: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Segment,
    Snapshot,
}

impl Kind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Kind::Segment => b"ARBJSEG1",
            Kind::Snapshot => b"ARBJSNP1",
        }
    }

    fn stem(self) -> &'static str {
        match self {
            Kind::Segment => "segment-",
            Kind::Snapshot => "snapshot-",
        }
    }

    /// The key that sorts just before all of this kind.
    pub(super) fn before_all(self, prefix: &str) -> String {
        format!("{prefix}/{}", self.stem())
    }

    pub(super) fn key(self, prefix: &str, number: u64) -> String {
        format!("{prefix}/{}{number:016x}", self.stem())
    }

    /// The number in a key of this kind; `None` for other keys.
    pub(super) fn number(self, prefix: &str, key: &str) -> Option<u64> {
        let digits = key.strip_prefix(prefix)?.strip_prefix('/')?.strip_prefix(self.stem())?;
        (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    }
}

/// Who wrote it: two openers may pick one epoch, so a nonce tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) epoch: u64,
    pub(super) nonce: [u8; 16],
}

/// A segment or snapshot taken apart; its checksum holds.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) identity: Identity,
    pub(super) body: Bytes,
}

pub(super) fn encode(kind: Kind, identity: Identity, number: u64, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(kind.magic());
    out.extend_from_slice(&identity.epoch.to_le_bytes());
    out.extend_from_slice(&identity.nonce);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let checksum = checksum(&out, body);
    out.extend_from_slice(&checksum);
    out.extend_from_slice(body);
    out.into()
}

fn checksum(head: &[u8], body: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(head).update(body).finalize().as_bytes()
}

pub(super) fn decode(kind: Kind, number: u64, bytes: &Bytes) -> Result<Block, &'static str> {
    if bytes.len() < HEADER_BYTES {
        return Err("it is cut off in its header");
    }
    let (head, rest) = bytes.split_at(CHECKSUM_AT);
    if &head[..8] != kind.magic() {
        return Err("it does not begin as one");
    }
    let body = bytes.slice(HEADER_BYTES..);
    if word(head, 40) != body.len() as u64 {
        return Err("it is cut off");
    }
    if checksum(head, &body)[..] != rest[..32] {
        return Err("its checksum is wrong");
    }
    if word(head, 32) != number {
        return Err("it was written under another number");
    }
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&head[16..32]);
    Ok(Block { identity: Identity { epoch: word(head, 8), nonce }, body })
}

fn word(head: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&head[at..at + 8]);
    u64::from_le_bytes(word)
}

/// What one record takes in a segment.
pub(super) fn framed_bytes(record: &[u8]) -> usize {
    LENGTH_BYTES + record.len()
}

/// Adds a record of less than 4 GiB. An empty one only fills space: [`records`] leaves it out.
pub(super) fn push_record(body: &mut Vec<u8>, record: &[u8]) {
    body.extend_from_slice(&(record.len() as u32).to_le_bytes());
    body.extend_from_slice(record);
}

/// The records of a segment's body, sharing its memory.
pub(super) fn records(body: &Bytes) -> Result<Vec<Bytes>, &'static str> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let length = body.get(at..at + LENGTH_BYTES).ok_or("a record's length is cut off")?;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        at += LENGTH_BYTES;
        if body.len() - at < length {
            return Err("a record is cut off");
        }
        if length > 0 {
            records.push(body.slice(at..at + length));
        }
        at += length;
    }
    Ok(records)
}

/// What came of writing a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is in the store, now or since an earlier try whose answer was lost.
    Done,
    /// Somebody else's segment has the number; `None` when it is damaged.
    Taken { by: Option<u64> },
}

/// Writes the segment `number`. A retry must bring the same body: an earlier try may have landed.
pub(super) async fn put_segment(
    store: &ArtifactStore,
    prefix: &str,
    identity: Identity,
    number: u64,
    body: &[u8],
) -> Result<Put, StoreError> {
    let key = Kind::Segment.key(prefix, number);
    let bytes = encode(Kind::Segment, identity, number, body);
    if store.create(&key, bytes.clone()).await? == Created::New {
        return Ok(Put::Done);
    }
    let Some(found) = store.get(&key).await? else {
        return Err(StoreError::Unavailable {
            action: format!("read {key} in {}", store.name()),
            reason: "the store says that it exists, and that it does not".into(),
        });
    };
    if found == bytes {
        return Ok(Put::Done);
    }
    match decode(Kind::Segment, number, &found) {
        Ok(block) => Ok(Put::Taken { by: Some(block.identity.epoch) }),
        Err(_damaged) => Ok(Put::Taken { by: None }),
    }
}
