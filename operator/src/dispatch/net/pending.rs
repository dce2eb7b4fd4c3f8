//! Connections on their way to a login. There may be only so many at once, so that those under way get through; who
//! connects and says nothing gives way to others then, first where most of them come from.

use super::peer::Peer;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A client speaks first, and what it says comes along with its connection: who has not said a byte after so long is idle.
const FIRST_WORD: Duration = Duration::from_millis(250);
/// And so is who began and does not go on.
const NEXT_WORD: Duration = Duration::from_secs(1);

/// All of them, in the order in which they came.
pub(super) struct Pending {
    most: usize,
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    logins: BTreeMap<u64, Arc<PendingLogin>>,
}

/// One of them.
pub(super) struct PendingLogin {
    number: u64,
    from: IpAddr,
    /// When it was last heard of, in milliseconds since the origin.
    heard: AtomicU64,
    spoke: AtomicBool,
    /// Its hello is being looked at: it waits for us, not we for it.
    asked: AtomicBool,
    evicted: AtomicBool,
    peer: OnceLock<Arc<Peer>>,
}

impl PendingLogin {
    /// Whether it had to give way; its connection is closed.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    /// From now on it can be closed from elsewhere.
    pub(super) fn set_peer(&self, peer: &Arc<Peer>) {
        // it has one
        let _first = self.peer.set(peer.clone());
        if self.is_evicted() {
            peer.hang_up();
        }
    }

    /// Its hello is with the desk.
    pub(super) fn asks(&self) {
        self.asked.store(true, Ordering::Release);
    }

    fn is_idle(&self, now_millis: u64) -> bool {
        let patience = if self.spoke.load(Ordering::Acquire) { NEXT_WORD } else { FIRST_WORD };
        let silent = now_millis.saturating_sub(self.heard.load(Ordering::Acquire));
        !self.asked.load(Ordering::Acquire) && Duration::from_millis(silent) > patience
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

impl Pending {
    pub(super) fn new(most: usize) -> Self {
        Self { most, origin: Instant::now(), state: Mutex::default() }
    }

    /// Whether there is room for one more; an idle one makes it if there is none.
    pub(super) fn make_room(&self, now: Instant) -> bool {
        self.lock().logins.len() < self.most || self.evict(now)
    }

    /// Closes an idle one, if there is any.
    pub(super) fn evict(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let Some(number) = self.victim(&state, now) else { return false };
        if let Some(login) = state.logins.remove(&number) {
            login.evicted.store(true, Ordering::Release);
            if let Some(peer) = login.peer.get() {
                peer.hang_up();
            }
        }
        true
    }

    /// The longest idle one of the network that most come from.
    fn victim(&self, state: &State, now: Instant) -> Option<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for login in state.logins.values() {
            *counts.entry(login.from).or_default() += 1;
        }
        let now = self.millis(now);
        let idle = state.logins.values().filter(|login| login.is_idle(now));
        idle.max_by_key(|login| (counts[&login.from], std::cmp::Reverse(login.number)))
            .map(|login| login.number)
    }

    pub(super) fn add(&self, address: SocketAddr, now: Instant) -> Arc<PendingLogin> {
        let mut state = self.lock();
        let login = Arc::new(PendingLogin {
            number: state.next,
            from: network(address.ip()),
            heard: AtomicU64::new(self.millis(now)),
            spoke: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            peer: OnceLock::new(),
        });
        state.next += 1;
        state.logins.insert(login.number, login.clone());
        login
    }

    /// It said something.
    pub(super) fn hears(&self, login: &PendingLogin, now: Instant) {
        login.heard.store(self.millis(now), Ordering::Release);
        login.spoke.store(true, Ordering::Release);
    }

    /// It is logged in, or gone.
    pub(super) fn remove(&self, login: &PendingLogin) {
        self.lock().logins.remove(&login.number);
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 4;

    /// Logins from these addresses, a millisecond apart.
    fn pending(from: &[&str]) -> (Pending, Vec<Arc<PendingLogin>>, Instant) {
        let pending = Pending::new(MANY);
        let start = pending.origin;
        let at = |millis: usize| start + Duration::from_millis(millis as u64);
        let logins = from.iter().enumerate();
        let logins = logins.map(|(i, from)| pending.add(from.parse().unwrap(), at(i))).collect();
        (pending, logins, start)
    }

    fn evicted(logins: &[Arc<PendingLogin>]) -> Vec<usize> {
        logins.iter().enumerate().filter(|(_, login)| login.is_evicted()).map(|(i, _)| i).collect()
    }

    #[test]
    fn who_is_idle_gives_way_first_where_most_come_from() {
        let (v4, v6) = (
            ["1.1.1.1:1", "2.2.2.2:1", "2.2.2.2:2", "1.1.1.1:2"],
            ["[a::1]:1", "[b::1]:1", "[b::2]:1", "[c::1]:1"],
        );
        let lone = ["1.1.1.1:1", "2.2.2.2:1", "2.2.2.2:2", "2.2.2.2:3"];
        for (from, millis, wanted) in [
            (&v4[..3], 9000, vec![]),
            (&v4[..], 100, vec![]),
            (&v4[..], 9000, vec![0]),
            (&lone[..], 9000, vec![1]),
            (&v6[..], 9000, vec![1]),
        ] {
            let (pending, logins, start) = pending(from);
            let room = pending.make_room(start + Duration::from_millis(millis));
            assert_eq!(evicted(&logins), wanted, "{from:?}");
            assert_eq!(room, from.len() < MANY || !wanted.is_empty());
        }
    }

    #[test]
    fn who_goes_on_or_waits_for_an_answer_stays() {
        let (pending, logins, start) = pending(&["1.1.1.1:1", "1.1.1.1:2", "1.1.1.1:3", "1.1.1.1:4"]);
        let at = |millis| start + Duration::from_millis(millis);
        logins[0].asks();
        pending.hears(&logins[1], at(900));
        pending.hears(&logins[2], at(100));
        assert!(pending.make_room(at(1000)) && pending.make_room(at(1000)));
        assert_eq!(evicted(&logins), [3], "room was made once");
        pending.add("1.1.1.1:5".parse().unwrap(), at(1000));
        assert!(!pending.make_room(at(1050)), "it spoke a second ago");
        assert!(pending.make_room(at(1150)));
        assert_eq!(evicted(&logins), [2, 3]);
        pending.remove(&logins[0]);
        assert!(pending.make_room(at(1150)));
    }
}
