//! The bytes of segments and snapshots, and their names.
//!
//! Layout, integers little-endian: magic (8), epoch (8), nonce (16), number (8), body length (8), seal (32),
//! body. A segment's body is records, each with its length (4) before it. The seal is BLAKE3, keyed with
//! the journal's key, of all these and the body.
//!
//! A name is `segment-` or `snapshot-`, the number, and a tag that only the key's holder can work out. So
//! nobody else can take the name of what comes next, and whatever else lies in the folder is told apart
//! without being read.

use super::JournalKey;
use arborist_artifacts::{ArtifactStore, Created, StoreError};
use bytes::Bytes;

pub(super) const HEADER_BYTES: usize = SEAL_AT + 32;
const SEAL_AT: usize = 48;
const LENGTH_BYTES: usize = 4;
const NUMBER_DIGITS: usize = 16;
const TAG_BYTES: usize = 16;
const NAME_MAGIC: &[u8; 8] = b"ARBJNAM1";
const KEY_MAGIC: &[u8; 8] = b"ARBJKEY1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Segment,
    Snapshot,
}

impl Kind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Kind::Segment => b"ARBJSEG2",
            Kind::Snapshot => b"ARBJSNP2",
        }
    }

    fn stem(self) -> &'static str {
        match self {
            Kind::Segment => "segment-",
            Kind::Snapshot => "snapshot-",
        }
    }
}

/// Who wrote it: two openers may pick one epoch, so a nonce tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) epoch: u64,
    pub(super) nonce: [u8; 16],
}

/// A segment or snapshot taken apart; its seal holds.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) identity: Identity,
    pub(super) body: Bytes,
}

/// Names, seals and reads what lies in one journal's folder.
#[derive(Debug, Clone)]
pub(super) struct Codec {
    prefix: String,
    key: JournalKey,
}

impl Codec {
    pub(super) fn new(prefix: &str, key: &JournalKey) -> Self {
        Self { prefix: prefix.to_owned(), key: key.clone() }
    }

    /// The object with this number.
    pub(super) fn path(&self, kind: Kind, number: u64) -> String {
        format!("{}-{}", self.before(kind, number), hex::encode(self.tag(kind, number)))
    }

    /// Sorts just before the object with this number, and after all with lower ones.
    pub(super) fn before(&self, kind: Kind, number: u64) -> String {
        format!("{}/{}{number:016x}", self.prefix, kind.stem())
    }

    /// The number in the name of an object of this kind; `None` for other names, also for those that
    /// somebody without the key has made up.
    pub(super) fn number(&self, kind: Kind, path: &str) -> Option<u64> {
        let name = path.strip_prefix(&self.prefix)?.strip_prefix('/')?.strip_prefix(kind.stem())?;
        let number = u64::from_str_radix(name.get(..NUMBER_DIGITS)?, 16).ok()?;
        (self.path(kind, number) == path).then_some(number)
    }

    /// The object that says whose journal this is.
    pub(super) fn key_path(&self) -> String {
        format!("{}/key", self.prefix)
    }

    /// What it says.
    pub(super) fn key_id(&self) -> Bytes {
        let id = blake3::keyed_hash(self.key.bytes(), KEY_MAGIC);
        Bytes::from(format!("{}\n", id.to_hex()))
    }

    fn tag(&self, kind: Kind, number: u64) -> [u8; TAG_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(self.key.bytes());
        hasher.update(NAME_MAGIC).update(kind.magic()).update(&number.to_le_bytes());
        let mut tag = [0; TAG_BYTES];
        hasher.finalize_xof().fill(&mut tag);
        tag
    }

    fn seal(&self, head: &[u8], body: &[u8]) -> blake3::Hash {
        blake3::Hasher::new_keyed(self.key.bytes()).update(head).update(body).finalize()
    }

    pub(super) fn encode(&self, kind: Kind, identity: Identity, number: u64, body: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        out.extend_from_slice(kind.magic());
        out.extend_from_slice(&identity.epoch.to_le_bytes());
        out.extend_from_slice(&identity.nonce);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        let seal = self.seal(&out, body);
        out.extend_from_slice(seal.as_bytes());
        out.extend_from_slice(body);
        out.into()
    }

    pub(super) fn decode(&self, kind: Kind, number: u64, bytes: &Bytes) -> Result<Block, &'static str> {
        if bytes.len() < HEADER_BYTES {
            return Err("it is cut off in its header");
        }
        let (head, rest) = bytes.split_at(SEAL_AT);
        if &head[..8] != kind.magic() {
            return Err("it does not begin as one");
        }
        let body = bytes.slice(HEADER_BYTES..);
        if word(head, 40) != body.len() as u64 {
            return Err("it is cut off");
        }
        let mut seal = [0; 32];
        seal.copy_from_slice(&rest[..32]);
        // hashes compare in constant time
        if self.seal(head, &body) != blake3::Hash::from(seal) {
            return Err("its seal is wrong: it is damaged, or not written by an operator with this key");
        }
        if word(head, 32) != number {
            return Err("it was written under another number");
        }
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&head[16..32]);
        Ok(Block { identity: Identity { epoch: word(head, 8), nonce }, body })
    }
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
    /// Another segment has the number; `None` when it is damaged, or not an operator's.
    Taken { by: Option<u64> },
}

/// Writes the segment `number`. A retry must bring the same body: an earlier try may have landed.
pub(super) async fn put_segment(
    store: &ArtifactStore,
    codec: &Codec,
    identity: Identity,
    number: u64,
    body: &[u8],
) -> Result<Put, StoreError> {
    let path = codec.path(Kind::Segment, number);
    let bytes = codec.encode(Kind::Segment, identity, number, body);
    if store.create(&path, bytes.clone()).await? == Created::New {
        return Ok(Put::Done);
    }
    let found = match store.get(&path).await {
        Ok(found) => found,
        Err(StoreError::TooLarge { .. }) => return Ok(Put::Taken { by: None }),
        Err(error) => return Err(error),
    };
    let Some(found) = found else {
        return Err(StoreError::Unavailable {
            action: format!("read {path} in {}", store.name()),
            reason: "the store says that it exists, and that it does not".into(),
        });
    };
    if found == bytes {
        return Ok(Put::Done);
    }
    match codec.decode(Kind::Segment, number, &found) {
        Ok(block) => Ok(Put::Taken { by: Some(block.identity.epoch) }),
        Err(_damaged) => Ok(Put::Taken { by: None }),
    }
}
