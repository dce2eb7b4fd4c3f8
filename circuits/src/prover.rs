//! Who proves a block, as people write it. Every way in (command line, HTTP, ProvingJob, files) reads it here.

use crate::field::prover_word;
use crate::verify::Published;
use arborist_core::block::Word;
use std::fmt;
use std::str::FromStr;

/// The most characters of a prover's name.
pub const MAX_PROVER_CHARS: usize = 128;

/// A prover: the word that the root proof states, and the name it is the hash of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prover {
    /// As the root proof states it.
    pub word: Word,
    /// The name; `None` when the word itself was given.
    pub name: Option<String>,
}

/// Why a text names no prover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadProver {
    /// Too long, empty, or with characters that can't be told apart or move a terminal's cursor.
    #[error("a name has 1 to {MAX_PROVER_CHARS} printable ASCII characters")]
    Name,
    /// Neither a name nor a word.
    #[error("it begins with 0x, so 64 hexadecimal digits must follow and nothing else")]
    Word,
    /// A word that no proof can state: it would fail only at the root, after all other proofs were made.
    #[error("each 8 bytes, little endian, must be below 2^64 - 2^32 + 1, the order of the circuits' field")]
    NotElements,
}

impl FromStr for Prover {
    type Err = BadProver;

    /// `0x` and 64 hexadecimal digits are the word itself; anything else is a name, of which the hash is taken.
    fn from_str(text: &str) -> Result<Self, BadProver> {
        let Some(digits) = text.strip_prefix("0x") else {
            let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            if !(1..=MAX_PROVER_CHARS).contains(&text.len()) || !printable {
                return Err(BadProver::Name);
            }
            return Ok(Self { word: prover_word(text), name: Some(text.to_owned()) });
        };
        let word = Word::try_from(digits.to_ascii_lowercase()).map_err(|_| BadProver::Word)?;
        let zero = Word([0; 32]);
        let stated = Published {
            chain_id: 0,
            block_number: 0,
            state_before: zero,
            state_after: zero,
            transactions_commitment: zero,
            transactions: 1,
            prover_id: word,
        };
        match stated.public_inputs() {
            Ok(_) => Ok(Self { word, name: None }),
            Err(_) => Err(BadProver::NotElements),
        }
    }
}

impl fmt::Display for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{}", self.word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_words_are_read_and_written_alike() {
        for text in ["alice", "Alice & Sons, 7", &"x".repeat(128), &format!("0x{}", "01".repeat(32))] {
            let prover: Prover = text.parse().unwrap();
            assert_eq!(prover.to_string(), text);
            assert_eq!(prover.name.is_none(), text.starts_with("0x"));
        }
        assert_eq!("alice".parse::<Prover>().unwrap().word, prover_word("alice"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for (text, expected) in [
            ("", BadProver::Name),
            ("a\nb", BadProver::Name),
            ("\u{1b}[2Ka", BadProver::Name),
            ("Bj\u{f6}rn", BadProver::Name),
            ("a\u{202e}b", BadProver::Name),
            (&"x".repeat(129), BadProver::Name),
            ("0x12", BadProver::Word),
            (&format!("0x{}", "g".repeat(64)), BadProver::Word),
            (&format!("0x{}", "f".repeat(64)), BadProver::NotElements),
        ] {
            assert_eq!(text.parse::<Prover>(), Err(expected), "{text:?}");
        }
    }
}
