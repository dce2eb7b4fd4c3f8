//! Reading a block file, streamed: nothing of its text is kept.

use super::expect::{Expect, FILE, Fields, List, Place, Plain, Reads, Scalar};
use super::{BLOCK_VERSION, Block, BlockError, Call, MAX_TRANSACTIONS, STATE_DEPTH, Transaction, Word};
use crate::ids::ArtifactHash;
use serde::de::{DeserializeSeed, Error, MapAccess};
use std::io::Read;

/// The longest name of a profile.
const MAX_PROFILE: usize = 64;

const WORD: &str = "a word: 64 hexadecimal digits, in lower case";

fn word(place: &Place) -> Plain<'_, fn(Scalar<'_>) -> Option<Word>> {
    Plain { place, wanted: WORD, read: of_text }
}

fn of_text(found: Scalar<'_>) -> Option<Word> {
    let Scalar::Text(text) = found else { return None };
    Word::parse(text)
}

fn hash(place: &Place) -> Plain<'_, fn(Scalar<'_>) -> Option<ArtifactHash>> {
    Plain {
        place,
        wanted: "the BLAKE3 hash of the private proof: 64 hexadecimal digits, in lower case",
        read: |found| of_text(found).map(|word| ArtifactHash(word.0)),
    }
}

fn number(place: &Place) -> Plain<'_, fn(Scalar<'_>) -> Option<u64>> {
    Plain {
        place,
        wanted: "a whole number from 0 to 2^64 - 2^32",
        read: |found| match found {
            Scalar::Whole(number) if number <= super::MAX_ELEMENT => Some(number),
            _ => None,
        },
    }
}

fn slot(place: &Place) -> Plain<'_, fn(Scalar<'_>) -> Option<u16>> {
    Plain {
        place,
        wanted: "a whole number from 0 to 65535",
        read: |found| match found {
            Scalar::Whole(number) => number.try_into().ok(),
            _ => None,
        },
    }
}

fn version(place: &Place) -> Plain<'_, fn(Scalar<'_>) -> Option<u32>> {
    Plain {
        place,
        wanted: "2, this version of the format",
        read: |found| match found {
            Scalar::Whole(number) if number == u64::from(BLOCK_VERSION) => Some(BLOCK_VERSION),
            _ => None,
        },
    }
}

fn profile(place: &Place) -> Plain<'_, fn(Scalar<'_>) -> Option<String>> {
    Plain {
        place,
        wanted: "the name of a circuit profile: a text of 1 to 64 characters",
        read: |found| match found {
            Scalar::Text(text) if (1..=MAX_PROFILE).contains(&text.chars().count()) => Some(text.to_owned()),
            _ => None,
        },
    }
}

/// What a field has to be by now: each stands exactly once.
fn there<T, E: Error>(value: Option<T>) -> Result<T, E> {
    value.ok_or_else(|| E::custom("a field is missing"))
}

struct ReadCall<'p>(&'p Place);

impl<'de> Expect<'de> for ReadCall<'_> {
    type Value = Call;

    fn place(&self) -> &Place {
        self.0
    }

    fn wanted(&self) -> String {
        "a public call: an object".into()
    }

    fn object<A: MapAccess<'de>>(self, access: A) -> Result<Call, A::Error> {
        let place = self.0;
        let (mut slot_, mut siblings) = (None, None);
        let [mut args, mut old_value, mut before, mut after] = [None; 4];
        let names = ["slot", "args", "old_value", "siblings", "state_before", "state_after"];
        Fields { place, names, access }.each(|field, access| {
            let one = match field {
                0 => {
                    slot_ = Some(access.next_value_seed(Reads(slot(place)))?);
                    return Ok(());
                }
                3 => {
                    siblings = Some(access.next_value_seed(Reads(ReadSiblings(place)))?);
                    return Ok(());
                }
                1 => &mut args,
                2 => &mut old_value,
                4 => &mut before,
                _ => &mut after,
            };
            *one = Some(access.next_value_seed(Reads(word(place)))?);
            Ok(())
        })?;
        Ok(Call {
            slot: there(slot_)?,
            args: there(args)?,
            old_value: there(old_value)?,
            siblings: there(siblings)?,
            state_before: there(before)?,
            state_after: there(after)?,
        })
    }
}

struct ReadSiblings<'p>(&'p Place);

impl<'de> Expect<'de> for ReadSiblings<'_> {
    type Value = Vec<Word>;

    fn place(&self) -> &Place {
        self.0
    }

    fn wanted(&self) -> String {
        format!("a list of {STATE_DEPTH} words")
    }

    fn list<A: serde::de::SeqAccess<'de>>(self, items: A) -> Result<Vec<Word>, A::Error> {
        let place = self.0;
        let list = List { place, wanted: "16 words", most: STATE_DEPTH, item: |place, _| word(place) };
        let siblings = list.list(items)?;
        if siblings.len() != STATE_DEPTH {
            return Err(place.refuse_here(format!("{} of them, allowed are {STATE_DEPTH}", siblings.len())));
        }
        Ok(siblings)
    }
}

struct ReadTransaction<'p> {
    place: &'p Place,
    max_calls: usize,
}

impl<'de> Expect<'de> for ReadTransaction<'_> {
    type Value = Transaction;

    fn place(&self) -> &Place {
        self.place
    }

    fn wanted(&self) -> String {
        "a transaction: an object".into()
    }

    fn object<A: MapAccess<'de>>(self, access: A) -> Result<Transaction, A::Error> {
        let place = self.place;
        let (mut hash_, mut private_proof, mut calls) = (None, None, None);
        Fields { place, names: ["hash", "private_proof", "calls"], access }.each(|field, access| {
            match field {
                0 => hash_ = Some(access.next_value_seed(Reads(word(place)))?),
                1 => private_proof = Some(access.next_value_seed(Reads(hash(place)))?),
                _ => {
                    let list = List {
                        place,
                        wanted: "public calls, no more than the profile allows",
                        most: self.max_calls,
                        item: |place, _| ReadCall(place),
                    };
                    calls = Some(access.next_value_seed(Reads(list))?);
                }
            }
            Ok(())
        })?;
        Ok(Transaction { hash: there(hash_)?, private_proof: there(private_proof)?, calls: there(calls)? })
    }
}

struct ReadBlock<'p> {
    place: &'p Place,
    max_calls: usize,
}

impl<'de> Expect<'de> for ReadBlock<'_> {
    type Value = Block;

    fn place(&self) -> &Place {
        self.place
    }

    fn wanted(&self) -> String {
        "a block: an object".into()
    }

    fn object<A: MapAccess<'de>>(self, access: A) -> Result<Block, A::Error> {
        let Self { place, max_calls } = self;
        let (mut version_, mut profile_, mut transactions) = (None, None, None);
        let [mut chain_id, mut block_number] = [None; 2];
        let [mut before, mut after] = [None; 2];
        let names =
            ["version", "profile", "chain_id", "block_number", "state_before", "state_after", "transactions"];
        Fields { place, names, access }.each(|field, access| {
            match field {
                0 => version_ = Some(access.next_value_seed(Reads(version(place)))?),
                1 => profile_ = Some(access.next_value_seed(Reads(profile(place)))?),
                2 => chain_id = Some(access.next_value_seed(Reads(number(place)))?),
                3 => block_number = Some(access.next_value_seed(Reads(number(place)))?),
                4 => before = Some(access.next_value_seed(Reads(word(place)))?),
                5 => after = Some(access.next_value_seed(Reads(word(place)))?),
                _ => {
                    let list = List {
                        place,
                        wanted: "1 to 65536 transactions",
                        most: MAX_TRANSACTIONS,
                        item: |place, _| ReadTransaction { place, max_calls },
                    };
                    transactions = Some(access.next_value_seed(Reads(list))?);
                }
            }
            Ok(())
        })?;
        Ok(Block {
            version: there(version_)?,
            profile: there(profile_)?,
            chain_id: there(chain_id)?,
            block_number: there(block_number)?,
            state_before: there(before)?,
            state_after: there(after)?,
            transactions: there(transactions)?,
        })
    }
}

fn read<'de, E: Expect<'de>, R: serde_json::de::Read<'de>>(
    place: &Place,
    expect: E,
    mut file: serde_json::Deserializer<R>,
) -> Result<E::Value, BlockError> {
    let value = Reads(expect).deserialize(&mut file).map_err(|error| place.fault(&error))?;
    match file.end() {
        Ok(()) => Ok(value),
        Err(error) => {
            let problem = format!("nothing may follow the last brace: {error}");
            Err(BlockError { field: FILE.into(), problem })
        }
    }
}

/// A block from a stream of its file's bytes, not yet validated.
pub(super) fn block_of(file: impl Read, max_calls: usize) -> Result<Block, BlockError> {
    let place = Place::default();
    let expect = ReadBlock { place: &place, max_calls };
    read(&place, expect, serde_json::Deserializer::from_reader(file))
}

/// A block from its file's bytes, not yet validated.
pub(super) fn block_in(json: &[u8], max_calls: usize) -> Result<Block, BlockError> {
    let place = Place::default();
    let expect = ReadBlock { place: &place, max_calls };
    read(&place, expect, serde_json::Deserializer::from_slice(json))
}

/// A call from its bytes in the artifact store.
pub(super) fn call_in(json: &[u8]) -> Result<Call, BlockError> {
    let place = Place::default();
    read(&place, ReadCall(&place), serde_json::Deserializer::from_slice(json))
}
