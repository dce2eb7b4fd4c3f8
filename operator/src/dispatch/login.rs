//! Who may log in, and whether a hello is one this dispatcher can work with.

use arborist_core::circuit::KindSet;
use arborist_core::engine::{Fence, Held, Mac, Serves, WorkerSpec};
use arborist_core::ids::TaskId;
use arborist_core::profile::Needs;
use arborist_core::system::ProofSystem;
use arborist_core::wire::{Hello, PROTOCOL, Refused};
use futures::future::BoxFuture;

/// The longest name of a worker or node, as in Kubernetes.
const MAX_NAME: usize = 253;
/// The most bytes that tell a worker's process from another.
const MAX_INSTANCE: usize = 64;
/// The most leases a worker may want beyond what it runs.
const MAX_PREFETCH: u32 = 1024;

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// For logs.
    pub subject: String,
    /// The only name the worker may use; `None` when the token says nothing about it.
    pub worker: Option<String>,
    /// The machine it runs on, where somebody else than the worker knows: what it says of itself does not
    /// count then.
    pub node: Option<String>,
    /// The most it can have, where somebody else than the worker knows: what it claims beyond that does not
    /// count.
    pub capacity: Option<Needs>,
    /// Whose tasks it proves.
    pub serves: Serves,
    /// It is about to go: it may hand in what it holds, and gets nothing new.
    pub draining: bool,
}

/// A worker that may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub worker: WorkerSpec,
    /// It gets nothing new.
    pub draining: bool,
}

impl Identity {
    /// The worker as it may log in.
    ///
    /// # Errors
    /// The name it wants is not its own, or it has nothing to prove with.
    pub(crate) fn admit(self, mut worker: WorkerSpec) -> Result<Admitted, Refusal> {
        if let Some(only) = self.worker.filter(|only| *only != worker.name) {
            let text = format!("the token is {only}'s, so the worker can't be named {}", worker.name);
            return Err(Refusal::permanent("name", text));
        }
        worker.node = self.node.unwrap_or(worker.node);
        worker.serves = self.serves;
        if let Some(most) = self.capacity {
            worker.capacity = bounded(&worker, most)?;
        }
        Ok(Admitted { worker, draining: self.draining })
    }
}

/// What a worker has of what it claims. More than it can have is a wrong setting or a lie.
fn bounded(worker: &WorkerSpec, most: Needs) -> Result<Needs, Refusal> {
    let claimed = worker.capacity;
    let real =
        Needs { cores: claimed.cores.min(most.cores), memory_mib: claimed.memory_mib.min(most.memory_mib) };
    if real.cores == 0 || real.memory_mib == 0 {
        let text = format!(
            "a pod with {} whole cores and {} MiB: a worker needs at least one of each",
            most.cores, most.memory_mib
        );
        return Err(Refusal::permanent("capacity", text));
    }
    if real != claimed {
        tracing::warn!(
            worker = worker.name,
            ?claimed,
            ?real,
            "a worker claims more than its pod has: it counts as what the pod has"
        );
    }
    Ok(real)
}

/// Why a login is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For the worker's log.
    pub text: String,
    /// Trying again without a change is of no use.
    pub permanent: bool,
    /// For metrics; from a fixed list.
    pub cause: &'static str,
}

impl Refusal {
    /// A refusal that trying again does not change.
    pub fn permanent(cause: &'static str, text: impl Into<String>) -> Self {
        Self { text: text.into(), permanent: true, cause }
    }

    /// A refusal that may be gone soon.
    pub fn for_now(cause: &'static str, text: impl Into<String>) -> Self {
        Self { text: text.into(), permanent: false, cause }
    }

    pub(crate) fn to_wire(&self) -> Refused {
        Refused { text: self.text.clone(), permanent: self.permanent }
    }
}

/// Checks tokens. May ask others, so it may take its time; it is polled outside any lock, first on a thread that has
/// no async runtime.
pub trait Login: Send + Sync + 'static {
    /// Whose token it is.
    ///
    /// # Errors
    /// Why it is refused.
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Refusal>>;
}

/// One token for all workers, as on a single machine.
pub struct StaticToken {
    hash: blake3::Hash,
}

impl StaticToken {
    /// Accepts this token only.
    pub fn new(token: &str) -> Self {
        Self { hash: blake3::hash(token.as_bytes()) }
    }
}

impl Login for StaticToken {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Refusal>> {
        // hashes compare in constant time, and say nothing about how alike the tokens are
        let good = blake3::hash(token.as_bytes()) == self.hash;
        let answer = match good {
            true => Ok(Identity { subject: "static token".into(), ..Identity::default() }),
            false => Err(Refusal::permanent("token", "the token is wrong")),
        };
        Box::pin(std::future::ready(answer))
    }
}

/// Checks everything about a hello but its token.
pub(crate) fn check_hello(hello: &Hello, expected: &ProofSystem) -> Result<(WorkerSpec, Vec<Held>), Refusal> {
    if hello.protocol != PROTOCOL {
        return Err(Refusal::permanent(
            "protocol",
            format!(
                "worker {} (version {}) speaks protocol {}, this dispatcher (version {}) speaks protocol {PROTOCOL}: \
                 run both from one release",
                printable(&hello.worker),
                printable(&hello.version),
                hello.protocol,
                env!("CARGO_PKG_VERSION"),
            ),
        ));
    }
    for (what, got, wanted) in
        [("circuits", &hello.circuits, &expected.circuits), ("backend", &hello.backend, &expected.backend)]
    {
        if got != wanted {
            return Err(Refusal::permanent(
                what,
                format!("{what}: the worker has `{}`, this dispatcher wants `{wanted}`", printable(got)),
            ));
        }
    }
    let wanted = expected.keys.map_or(vec![], |keys| keys.0.to_vec());
    if hello.backend_keys != wanted {
        let show = |keys: &[u8]| match keys {
            [] => "none".to_owned(),
            keys => hex::encode(&keys[..keys.len().min(8)]),
        };
        let text = format!(
            "keys: the worker's plug-in is bound to {}, this dispatcher's to {}: give both the same program, of one \
             version, and the same --plugin-keys",
            show(&hello.backend_keys),
            show(&wanted)
        );
        return Err(Refusal::permanent("keys", text));
    }
    name("worker", &hello.worker, 1)?;
    name("node", &hello.node, 0)?;
    if hello.instance.len() > MAX_INSTANCE {
        let text = format!("instance: {} bytes, at most {MAX_INSTANCE} are allowed", hello.instance.len());
        return Err(Refusal::permanent("hello", text));
    }
    let (capacity, kinds) = (capacity(hello)?, kinds(hello)?);
    let prefetch = u16::try_from(hello.prefetch.min(MAX_PREFETCH)).unwrap_or(u16::MAX);
    let held = hello.held.iter().map(held).collect::<Option<_>>();
    let held = held.ok_or_else(|| Refusal::permanent("hello", "held: a task id has 32 bytes"))?;
    // a worker without a node is a machine of its own
    let node = if hello.node.is_empty() { &hello.worker } else { &hello.node };
    let (name, node) = (hello.worker.clone(), node.clone());
    // that is for the token to say
    let serves = Serves::nobody();
    Ok((WorkerSpec { name, node, capacity, kinds, prefetch, serves }, held))
}

fn capacity(hello: &Hello) -> Result<Needs, Refusal> {
    match u16::try_from(hello.cores) {
        Ok(cores @ 1..) if hello.memory_mib > 0 => Ok(Needs { cores, memory_mib: hello.memory_mib }),
        _ => Err(Refusal::permanent(
            "hello",
            format!(
                "a worker with {} cores and {} MiB: allowed are 1 to {} cores and at least 1 MiB",
                hello.cores,
                hello.memory_mib,
                u16::MAX
            ),
        )),
    }
}

/// A worker that names no kinds takes all.
fn kinds(hello: &Hello) -> Result<KindSet, Refusal> {
    let kinds = KindSet::from_bits(hello.kinds).ok_or_else(|| {
        let text = format!(
            "kinds: {:#b}, allowed are {:#b} (all) and parts of it",
            hello.kinds,
            KindSet::ALL.bits()
        );
        Refusal::permanent("hello", text)
    })?;
    Ok(if kinds.is_empty() { KindSet::ALL } else { kinds })
}

fn held(held: &arborist_core::wire::Held) -> Option<Held> {
    Some(Held {
        task: TaskId::from_slice(&held.task)?,
        fence: Fence(held.fence),
        running: (held.running_millis > 0).then_some(held.running_millis.into()),
        // one of another length is nobody's
        mac: Mac(held.mac.as_slice().try_into().unwrap_or_default()),
    })
}

fn name(field: &str, name: &str, least: usize) -> Result<(), Refusal> {
    let good = (least..=MAX_NAME).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic());
    if good {
        return Ok(());
    }
    Err(Refusal::permanent(
        "hello",
        format!(
            "{field}: `{}`, allowed are {least} to {MAX_NAME} printable ASCII characters",
            printable(name)
        ),
    ))
}

/// A stranger's text for a log line.
fn printable(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL,
            worker: "w-1".into(),
            cores: 8,
            memory_mib: 1024,
            backend: "fake".into(),
            circuits: "c-v1".into(),
            ..Default::default()
        }
    }

    fn expected() -> ProofSystem {
        ProofSystem { circuits: "c-v1".into(), backend: "fake".into(), keys: None }
    }

    #[test]
    fn a_good_hello_is_taken() {
        let (worker, held) = check_hello(&hello(), &expected()).unwrap();
        assert_eq!((worker.name.as_str(), worker.node.as_str()), ("w-1", "w-1"));
        assert!(held.is_empty());
        for (bits, kinds) in [(0, "vm,kernel,base,merge,root"), (1, "vm"), (18, "kernel,root")] {
            let (worker, _) = check_hello(&Hello { kinds: bits, ..hello() }, &expected()).unwrap();
            assert_eq!(worker.kinds.to_string(), kinds);
        }
    }

    #[test]
    fn bad_hellos_are_refused_with_a_reason() {
        type Spoil = fn(&mut Hello);
        let cases: [(Spoil, &str, &str); 10] = [
            (|h| h.instance = vec![0; 65], "hello", "instance: 65 bytes, at most 64"),
            (|h| h.protocol = 9, "protocol", "speaks protocol 9"),
            (
                |h| h.circuits = "c-v2".into(),
                "circuits",
                "the worker has `c-v2`, this dispatcher wants `c-v1`",
            ),
            (|h| h.backend = "plonky2".into(), "backend", "wants `fake`"),
            (
                |h| h.backend_keys = vec![7; 32],
                "keys",
                "bound to 0707070707070707, this dispatcher's to none",
            ),
            (|h| h.worker = String::new(), "hello", "1 to 253 printable"),
            (|h| h.worker = "a\nb".into(), "hello", "a?b"),
            (|h| h.cores = 70_000, "hello", "70000 cores"),
            (|h| h.kinds = 33, "hello", "kinds: 0b100001, allowed are 0b11111"),
            (|h| h.held = vec![Default::default()], "hello", "32 bytes"),
        ];
        for (spoil, cause, text) in cases {
            let mut bad = hello();
            spoil(&mut bad);
            let refusal = check_hello(&bad, &expected()).unwrap_err();
            assert_eq!(refusal.cause, cause);
            assert!(refusal.text.contains(text) && refusal.permanent, "{}", refusal.text);
        }
    }

    #[test]
    fn a_worker_has_no_more_than_its_pod() {
        let needs = |cores, memory_mib| Needs { cores, memory_mib };
        let cases = [
            ("as its pod", needs(8, 1024), Some(needs(8, 1024)), Some(needs(8, 1024))),
            ("less than its pod", needs(4, 512), Some(needs(8, 1024)), Some(needs(4, 512))),
            ("more cores", needs(32, 1024), Some(needs(8, 1024)), Some(needs(8, 1024))),
            ("more memory", needs(8, 4096), Some(needs(8, 1024)), Some(needs(8, 1024))),
            ("more of one, less of the other", needs(32, 512), Some(needs(8, 1024)), Some(needs(8, 512))),
            ("its pod bounds nothing", needs(32, 4096), None, Some(needs(32, 4096))),
            ("its pod bounds memory only", needs(32, 4096), Some(needs(u16::MAX, 64)), Some(needs(32, 64))),
            ("a part of a core", needs(1, 64), Some(needs(0, 64)), None),
            ("less than a MiB", needs(1, 64), Some(needs(1, 0)), None),
        ];
        for (case, claimed, capacity, wanted) in cases {
            let (spec, _) = check_hello(&hello(), &expected()).unwrap();
            let identity = Identity { capacity, ..Identity::default() };
            let admitted = identity.admit(WorkerSpec { capacity: claimed, ..spec });
            match wanted {
                Some(wanted) => assert_eq!(admitted.unwrap().worker.capacity, wanted, "{case}"),
                None => assert_eq!(admitted.unwrap_err().cause, "capacity", "{case}"),
            }
        }
    }

    #[test]
    fn whom_a_worker_serves_is_not_its_to_say() {
        let (spec, _) = check_hello(&hello(), &expected()).unwrap();
        assert_eq!(spec.serves, Serves::nobody());
        for serves in [Serves::All, Serves::only(["a"])] {
            let identity = Identity { serves: serves.clone(), ..Identity::default() };
            assert_eq!(identity.admit(spec.clone()).unwrap().worker.serves, serves);
        }
    }

    #[test]
    fn only_the_token_itself_is_taken() {
        let login = StaticToken::new("secret");
        for (token, good) in [("secret", true), ("secreu", false), ("", false), ("secret ", false)] {
            assert_eq!(login.check(token).now_or_never().unwrap().is_ok(), good, "{token:?}");
        }
    }
}
