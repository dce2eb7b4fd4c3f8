//! The verification keys, pinned in `keys/mini-rollup-v1.json`.
//!
//! The file has every circuit's verifier key and the shapes ("common data") needed to verify without
//! building anything. So a worker builds only the circuits it proves, with its children's pinned keys as
//! constants. `cargo run --release -p arborist-circuits --example pin_keys` writes the file anew; with
//! `-- --check` it builds every circuit and fails if one differs from the file.

use crate::compile::{self, Compiled};
use crate::field::{Common, VerifierKey};
use crate::{kernel, merge, root};
use arborist_core::circuit::Circuit;
use arborist_core::profile::MINI_ROLLUP;
use plonky2::util::serialization::DefaultGateSerializer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The committed file.
const PINNED: &str = include_str!("../keys/mini-rollup-v1.json");

/// What is wrong with keys or with a circuit built from them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The profile has no such circuit.
    #[error("{MINI_ROLLUP} has no circuit {0}")]
    NoCircuit(Circuit),
    /// The key file has no such shape.
    #[error("the key file has no shape `{0}`")]
    NoShape(&'static str),
    /// A circuit built from the code is not the pinned one.
    #[error("{0} as built differs from its pinned key: the circuits changed, or the library did")]
    Drift(Circuit),
    /// Circuits that must share a shape do not.
    #[error("{0} does not have the shape of its kind")]
    Shape(Circuit),
    /// A child's public inputs are not as long as the layout says.
    #[error("public inputs of a child of {0} do not fit their layout")]
    Layout(Circuit),
    /// The key file can't be read.
    #[error("key file: {0}")]
    File(String),
}

/// Circuits that share their common data: gates, rows, number of public inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// `vm`.
    Vm,
    /// The private proof and all kernels.
    Kernel,
    /// `base` and all merges.
    Range,
    /// All roots.
    Root,
}

impl Shape {
    const ALL: [Shape; 4] = [Shape::Vm, Shape::Kernel, Shape::Range, Shape::Root];

    const fn name(self) -> &'static str {
        match self {
            Shape::Vm => "vm",
            Shape::Kernel => "kernel",
            Shape::Range => "range",
            Shape::Root => "root",
        }
    }

    /// The shape of a circuit.
    pub(crate) const fn of(circuit: Circuit) -> Self {
        match circuit {
            Circuit::Vm => Shape::Vm,
            Circuit::Kernel { .. } => Shape::Kernel,
            Circuit::Base | Circuit::Merge { .. } => Shape::Range,
            Circuit::Root { .. } => Shape::Root,
        }
    }
}

/// Keys and shapes of circuits.
#[derive(Default)]
pub(crate) struct Keys {
    shapes: BTreeMap<Shape, Common>,
    keys: BTreeMap<Circuit, (VerifierKey, [u8; 32])>,
}

/// The file's form. Byte strings in hexadecimal, as plonky2 writes them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    profile: String,
    shapes: BTreeMap<String, String>,
    keys: Vec<FileKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    circuit: String,
    /// BLAKE3 of shape and key: what a proof's `vk_hash` has to be.
    hash: String,
    key: String,
}

/// Every circuit of the profile, children before parents; `kernel/0` is the private proof.
pub fn circuits() -> Vec<Circuit> {
    let mut all = vec![Circuit::Vm];
    all.extend((0..=kernel::MAX_CALLS).map(|position| Circuit::Kernel { position }));
    all.push(Circuit::Base);
    all.extend((1..=merge::MAX_HEIGHT).map(|height| Circuit::Merge { height }));
    all.extend((0..=root::MAX_HEIGHT).map(|height| Circuit::Root { height }));
    all
}

/// The pinned hash of a circuit's verification key; `None` when the profile has no such circuit.
pub fn vk_hash(circuit: Circuit) -> Option<[u8; 32]> {
    Keys::pinned().hash(circuit).ok()
}

impl Keys {
    /// The keys of the committed file.
    ///
    /// # Panics
    /// When the file compiled into the program is broken; a test reads it.
    pub(crate) fn pinned() -> &'static Keys {
        static KEYS: LazyLock<Keys> =
            LazyLock::new(|| Keys::parse(PINNED).expect("the key file is part of the program"));
        &KEYS
    }

    /// The shape's common data.
    pub(crate) fn shape(&self, shape: Shape) -> Result<&Common, KeyError> {
        self.shapes.get(&shape).ok_or(KeyError::NoShape(shape.name()))
    }

    /// The circuit's verifier key.
    pub(crate) fn key(&self, circuit: Circuit) -> Result<&VerifierKey, KeyError> {
        self.keys.get(&circuit).map(|(key, _)| key).ok_or(KeyError::NoCircuit(circuit))
    }

    /// The hash of shape and key.
    pub(crate) fn hash(&self, circuit: Circuit) -> Result<[u8; 32], KeyError> {
        self.keys.get(&circuit).map(|(_, hash)| *hash).ok_or(KeyError::NoCircuit(circuit))
    }

    /// Whether a built circuit is the one these keys are of.
    pub(crate) fn check(&self, circuit: Circuit, built: &Compiled) -> Result<(), KeyError> {
        if *self.shape(Shape::of(circuit))? != built.data.common {
            return Err(KeyError::Shape(circuit));
        }
        (*self.key(circuit)? == built.data.verifier_only).then_some(()).ok_or(KeyError::Drift(circuit))
    }

    fn insert(&mut self, circuit: Circuit, key: VerifierKey) -> Result<(), KeyError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&shape_bytes(self.shape(Shape::of(circuit))?)?);
        hasher.update(&key_bytes(&key)?);
        self.keys.insert(circuit, (key, *hasher.finalize().as_bytes()));
        Ok(())
    }

    fn parse(text: &str) -> Result<Self, KeyError> {
        let bad = |what: &str| KeyError::File(what.to_owned());
        let file: File = serde_json::from_str(text).map_err(|e| bad(&e.to_string()))?;
        if file.profile != MINI_ROLLUP {
            return Err(bad("of another profile"));
        }
        let mut keys = Keys::default();
        for shape in Shape::ALL {
            let text = file.shapes.get(shape.name()).ok_or(KeyError::NoShape(shape.name()))?;
            let bytes = hex::decode(text).map_err(|e| bad(&e.to_string()))?;
            let common = Common::from_bytes(bytes, &DefaultGateSerializer).map_err(|_| bad("shape"))?;
            keys.shapes.insert(shape, common);
        }
        let circuits = circuits();
        if circuits.len() != file.keys.len() {
            return Err(bad("not as many keys as circuits"));
        }
        for (circuit, entry) in circuits.into_iter().zip(file.keys) {
            let bytes = hex::decode(&entry.key).map_err(|e| bad(&e.to_string()))?;
            let key = VerifierKey::from_bytes(bytes).map_err(|_| bad(&entry.circuit))?;
            keys.insert(circuit, key)?;
            if entry.circuit != circuit.to_string() || entry.hash != hex::encode(keys.hash(circuit)?) {
                return Err(bad(&format!("{} and its hash do not fit", entry.circuit)));
            }
        }
        Ok(keys)
    }

    fn to_json(&self) -> Result<String, KeyError> {
        let shapes = self
            .shapes
            .iter()
            .map(|(shape, common)| Ok((shape.name().to_owned(), hex::encode(shape_bytes(common)?))))
            .collect::<Result<_, KeyError>>()?;
        let keys = circuits()
            .into_iter()
            .map(|circuit| {
                Ok(FileKey {
                    circuit: circuit.to_string(),
                    hash: hex::encode(self.hash(circuit)?),
                    key: hex::encode(key_bytes(self.key(circuit)?)?),
                })
            })
            .collect::<Result<_, KeyError>>()?;
        let file = File { profile: MINI_ROLLUP.to_owned(), shapes, keys };
        let text = serde_json::to_string_pretty(&file).map_err(|e| KeyError::File(e.to_string()))?;
        Ok(text + "\n")
    }
}

fn shape_bytes(common: &Common) -> Result<Vec<u8>, KeyError> {
    common.to_bytes(&DefaultGateSerializer).map_err(|_| KeyError::File("shape not writable".into()))
}

fn key_bytes(key: &VerifierKey) -> Result<Vec<u8>, KeyError> {
    key.to_bytes().map_err(|_| KeyError::File("key not writable".into()))
}

/// Builds every circuit (about 100 CPU seconds) and returns the key file's text.
/// `progress` is told each circuit, its rows (log2) and its key's hash when it is built.
///
/// # Errors
/// When circuits that must share a shape do not.
pub fn generate(mut progress: impl FnMut(Circuit, usize, [u8; 32])) -> Result<String, KeyError> {
    let mut keys = Keys::default();
    for circuit in circuits() {
        let shape = Shape::of(circuit);
        if keys.shape(shape).is_err() {
            find_shape(&mut keys, shape)?;
        }
        let built = compile::build(&keys, circuit)?;
        if built.data.common != *keys.shape(shape)? {
            return Err(KeyError::Shape(circuit));
        }
        let row_bits = built.data.common.degree_bits();
        keys.insert(circuit, built.data.verifier_only)?;
        progress(circuit, row_bits, keys.hash(circuit)?);
    }
    keys.to_json()
}

/// Whether `text` is what the committed file says.
pub fn is_pinned(text: &str) -> bool {
    text == PINNED
}

/// How many rounds the search for a common shape may take; in practice it is 2 or 3.
const MAX_ROUNDS: usize = 8;

/// Finds the shape that a kind's circuits share although they verify proofs of that same shape: build with a
/// guess, take what comes out as the next guess, until it repeats. Keys play no part in a shape, so any stand in.
fn find_shape(keys: &mut Keys, shape: Shape) -> Result<(), KeyError> {
    let (first, probes): (Circuit, &[Circuit]) = match shape {
        Shape::Vm => (Circuit::Vm, &[]),
        Shape::Kernel => (kernel::PRIVATE, &[Circuit::Kernel { position: 1 }, kernel::PRIVATE]),
        Shape::Range => (Circuit::Base, &[Circuit::Merge { height: 1 }, Circuit::Base]),
        Shape::Root => (Circuit::Root { height: 1 }, &[Circuit::Root { height: 0 }]),
    };
    let guess = compile::build(keys, first)?.data;
    let mut trial = Keys { shapes: keys.shapes.clone(), keys: keys.keys.clone() };
    trial.shapes.insert(shape, guess.common);
    trial.insert(first, guess.verifier_only)?;
    for _ in 0..MAX_ROUNDS {
        let mut same = true;
        for probe in probes {
            let built = compile::build(&trial, *probe)?.data;
            same &= built.common == *trial.shape(shape)?;
            trial.shapes.insert(shape, built.common);
        }
        if same {
            keys.shapes.insert(shape, trial.shape(shape)?.clone());
            return Ok(());
        }
    }
    Err(KeyError::Shape(first))
}
