//! Proofs that prove nothing: hashes with a proof's shape, for tests of everything around proving.
//!
//! Layout: the magic `ARBFAKE1`, a 4-byte little-endian count of children, each child's BLAKE3 hash,
//! the hash of the inputs, a 32-byte tag over circuit, public inputs, size and all before it, then
//! filler expanded from the tag up to the wanted size. [`verify`] recomputes tag and filler, so every changed
//! byte and every changed public input is noticed. Anybody can make one.

use crate::backend::{Proof, VerifyError};
use crate::circuit::Circuit;

const MAGIC: &[u8; 8] = b"ARBFAKE1";
const MAX_CHILDREN: usize = 16;
const HEAD: usize = 12;

/// The "verification key" hash that fake proofs of a circuit carry.
pub fn vk_hash(circuit: Circuit) -> [u8; 32] {
    blake3::derive_key("arborist fake proof v1 verification key", circuit.to_string().as_bytes())
}

/// Makes a fake proof of about `bytes` bytes (never fewer than it needs: 76 and 32 for each child).
/// The same arguments give the same proof.
pub fn prove(
    circuit: Circuit,
    public_inputs: &[u64],
    inputs: &[Vec<u8>],
    children: &[&Proof],
    bytes: usize,
) -> Proof {
    let children = &children[..children.len().min(MAX_CHILDREN)];
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(children.len() as u32).to_le_bytes());
    for child in children {
        out.extend_from_slice(blake3::hash(&child.bytes).as_bytes());
    }
    let mut all_inputs = blake3::Hasher::new();
    for input in inputs {
        all_inputs.update(&(input.len() as u64).to_le_bytes());
        all_inputs.update(input);
    }
    out.extend_from_slice(all_inputs.finalize().as_bytes());
    let fill = out.len() + 32;
    let total = bytes.max(fill);
    let tag = tag(circuit, public_inputs, &out, total);
    out.extend_from_slice(&tag);
    out.resize(total, 0);
    fill_from(&tag, &mut out[fill..]);
    Proof { bytes: out, public_inputs: public_inputs.to_vec(), vk_hash: vk_hash(circuit) }
}

/// Checks that a proof came out of [`prove`] for this circuit and its public inputs.
///
/// # Errors
/// Another circuit's key, not a fake proof at all, or one with changed bytes or public inputs.
pub fn verify(circuit: Circuit, proof: &Proof) -> Result<(), VerifyError> {
    if proof.vk_hash != vk_hash(circuit) {
        return Err(VerifyError::WrongKey { circuit });
    }
    let malformed = |reason: &str| VerifyError::Malformed { circuit, reason: reason.to_owned() };
    let invalid = |reason: &str| VerifyError::Invalid { circuit, reason: reason.to_owned() };
    let rest = proof.bytes.strip_prefix(MAGIC).ok_or_else(|| malformed("no magic"))?;
    let count = rest.first_chunk::<4>().ok_or_else(|| malformed("cut off"))?;
    let count = u32::from_le_bytes(*count) as usize;
    if count > MAX_CHILDREN {
        return Err(malformed("too many children"));
    }
    let stated = HEAD + 32 * (count + 1);
    if proof.bytes.len() < stated + 32 {
        return Err(malformed("cut off"));
    }
    let (stated, rest) = proof.bytes.split_at(stated);
    let (found, filler) = rest.split_at(32);
    let tag = tag(circuit, &proof.public_inputs, stated, proof.bytes.len());
    if found != tag {
        return Err(invalid("the tag is not that of its public inputs and children"));
    }
    let mut expected = vec![0; filler.len()];
    fill_from(&tag, &mut expected);
    if filler != expected {
        return Err(invalid("the filler is not that of its tag"));
    }
    Ok(())
}

fn tag(circuit: Circuit, public_inputs: &[u64], stated: &[u8], total: usize) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("arborist fake proof v1 tag");
    hasher.update(&vk_hash(circuit));
    hasher.update(&(public_inputs.len() as u64).to_le_bytes());
    for input in public_inputs {
        hasher.update(&input.to_le_bytes());
    }
    hasher.update(&(total as u64).to_le_bytes());
    hasher.update(stated);
    *hasher.finalize().as_bytes()
}

fn fill_from(tag: &[u8; 32], out: &mut [u8]) {
    blake3::Hasher::new_keyed(tag).finalize_xof().fill(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MERGE: Circuit = Circuit::Merge { height: 2 };

    fn sample() -> Proof {
        let child = prove(Circuit::Base, &[1, 2], &[b"input".to_vec()], &[], 200);
        prove(MERGE, &[3, u64::MAX], &[], &[&child, &child], 400)
    }

    #[test]
    fn what_was_made_verifies_and_has_its_size() {
        let proof = sample();
        assert_eq!(proof.bytes.len(), 400);
        assert_eq!(verify(MERGE, &proof), Ok(()));
        assert_eq!(proof, sample());
        let least = prove(Circuit::Vm, &[], &[], &[], 0);
        assert_eq!((least.bytes.len(), verify(Circuit::Vm, &least)), (76, Ok(())));
    }

    #[test]
    fn every_change_is_noticed() {
        let proof = sample();
        for i in 0..proof.bytes.len() {
            let mut bad = proof.clone();
            bad.bytes[i] ^= 1;
            assert!(verify(MERGE, &bad).is_err(), "byte {i} changed");
        }
        for length in 0..proof.bytes.len() {
            let bad = Proof { bytes: proof.bytes[..length].to_vec(), ..proof.clone() };
            assert!(verify(MERGE, &bad).is_err(), "cut at {length}");
        }
        for public_inputs in [vec![], vec![3], vec![3, 4], vec![3, u64::MAX, 0]] {
            assert!(verify(MERGE, &Proof { public_inputs, ..proof.clone() }).is_err());
        }
        assert!(verify(Circuit::Merge { height: 3 }, &proof).is_err());
    }

    #[test]
    fn inputs_and_children_change_the_proof() {
        let a = prove(Circuit::Vm, &[], &[b"a".to_vec()], &[], 100);
        let b = prove(Circuit::Vm, &[], &[b"b".to_vec()], &[], 100);
        assert_ne!(a.bytes, b.bytes);
        let over_a = prove(Circuit::Base, &[], &[], &[&a], 200);
        let over_b = prove(Circuit::Base, &[], &[], &[&b], 200);
        assert_ne!(over_a.bytes, over_b.bytes);
    }
}
