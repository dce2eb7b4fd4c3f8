//! Blocks on their way into the books: how their files are fetched, how many bytes of block files may be held at once, and where the private proofs
//! come from that they name.

mod budget;
mod collect;
mod fetch;
mod objects;

pub use budget::{Budget, DEFAULT_BYTES, DoesNotFit, Reserved};
pub use collect::{Collect, NotCollected};
pub use fetch::{ANYWHERE, Fetched, REMOTE, SourceError, Turn, check_url, fetch, parse_sha256};
pub use objects::{Beside, Folder, Held, Nowhere, Objects};

use arborist_core::block::{Block, BlockError};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// The folder beside a block file that its private proofs lie in, each named by its hash.
pub const OBJECTS: &str = "objects";

/// A block file, read and found right. Held until its block is in the books.
pub struct BlockFile {
    json: Bytes,
    block: Block,
    objects: Arc<dyn Objects>,
    _reserved: Option<Reserved>,
}

impl BlockFile {
    /// Reads the file's bytes: once, and never again. `objects` is where its private proofs are looked for that the
    /// artifact store has not; `reserved` is given back when the file is dropped. Takes a second for 200 MB.
    ///
    /// # Errors
    /// The first thing wrong with it, by field.
    pub fn read(
        json: Bytes,
        max_calls: u8,
        objects: Arc<dyn Objects>,
        reserved: Option<Reserved>,
    ) -> Result<Self, BlockError> {
        let block = Block::parse(&json, max_calls.into())?;
        Ok(Self { json, block, objects, _reserved: reserved })
    }

    /// The file's bytes.
    pub const fn json(&self) -> &Bytes {
        &self.json
    }

    /// What it says.
    pub const fn block(&self) -> &Block {
        &self.block
    }

    /// Where its private proofs are looked for.
    pub fn objects(&self) -> &Arc<dyn Objects> {
        &self.objects
    }
}

impl fmt::Debug for BlockFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockFile({} bytes, {} transactions)", self.json.len(), self.block.transactions.len())
    }
}
