//! Places for connections. There are only so many, so that those which are served get through; who connects and says
//! nothing gives way to others when all are taken, first where most of them come from.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A client speaks first, and what it says comes along with its connection: who has not said a byte after so long is idle.
const FIRST_WORD: Duration = Duration::from_millis(250);
/// And so is who began and does not go on.
const NEXT_WORD: Duration = Duration::from_secs(1);

/// Those that are taken, in the order in which they were.
pub(crate) struct Places {
    most: usize,
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    places: BTreeMap<u64, Arc<Place>>,
}

/// A connection's place.
pub(crate) struct Place {
    number: u64,
    from: IpAddr,
    /// When it was last heard of, in milliseconds since the origin.
    heard: AtomicU64,
    spoke: AtomicBool,
    /// It asks for something: it waits for us, not we for it.
    asks: AtomicBool,
    evicted: AtomicBool,
    close: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Place {
    /// Whether it had to give way; its connection is closed.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    /// From now on its connection can be closed from elsewhere.
    pub(crate) fn closes_by(&self, close: impl Fn() + Send + Sync + 'static) {
        // said once
        let _first = self.close.set(Box::new(close));
        if self.is_evicted() {
            self.close();
        }
    }

    fn close(&self) {
        if let Some(close) = self.close.get() {
            close();
        }
    }

    /// Whether it asks for something, and so is not idle however long it says nothing.
    pub(crate) fn set_asks(&self, asks: bool) {
        self.asks.store(asks, Ordering::Release);
    }

    fn is_idle(&self, now_millis: u64) -> bool {
        let patience = if self.spoke.load(Ordering::Acquire) { NEXT_WORD } else { FIRST_WORD };
        let silent = now_millis.saturating_sub(self.heard.load(Ordering::Acquire));
        !self.asks.load(Ordering::Acquire) && Duration::from_millis(silent) > patience
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, origin: Instant::now(), state: Mutex::default() }
    }

    /// Whether there is room for one more; an idle one makes it if there is none.
    pub(crate) fn make_room(&self, now: Instant) -> bool {
        self.lock().places.len() < self.most || self.evict(now)
    }

    /// Closes an idle one, if there is any.
    pub(crate) fn evict(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let Some(number) = self.victim(&state, now) else { return false };
        if let Some(place) = state.places.remove(&number) {
            place.evicted.store(true, Ordering::Release);
            place.close();
        }
        true
    }

    /// The longest idle one of the network that most come from.
    fn victim(&self, state: &State, now: Instant) -> Option<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for place in state.places.values() {
            *counts.entry(place.from).or_default() += 1;
        }
        let now = self.millis(now);
        let idle = state.places.values().filter(|place| place.is_idle(now));
        idle.max_by_key(|place| (counts[&place.from], std::cmp::Reverse(place.number)))
            .map(|place| place.number)
    }

    pub(crate) fn add(&self, address: SocketAddr, now: Instant) -> Arc<Place> {
        let mut state = self.lock();
        let place = Arc::new(Place {
            number: state.next,
            from: network(address.ip()),
            heard: AtomicU64::new(self.millis(now)),
            spoke: AtomicBool::new(false),
            asks: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            close: OnceLock::new(),
        });
        state.next += 1;
        state.places.insert(place.number, place.clone());
        place
    }

    /// It said something.
    pub(crate) fn hears(&self, place: &Place, now: Instant) {
        place.heard.store(self.millis(now), Ordering::Release);
        place.spoke.store(true, Ordering::Release);
    }

    /// It is free again.
    pub(crate) fn remove(&self, place: &Place) {
        self.lock().places.remove(&place.number);
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

    /// Places taken from these addresses, a millisecond apart.
    fn taken(from: &[&str]) -> (Places, Vec<Arc<Place>>, Instant) {
        let all = Places::new(MANY);
        let start = all.origin;
        let at = |millis: usize| start + Duration::from_millis(millis as u64);
        let places = from.iter().enumerate();
        let places = places.map(|(i, from)| all.add(from.parse().unwrap(), at(i))).collect();
        (all, places, start)
    }

    fn evicted(places: &[Arc<Place>]) -> Vec<usize> {
        places.iter().enumerate().filter(|(_, place)| place.is_evicted()).map(|(i, _)| i).collect()
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
            let (all, places, start) = taken(from);
            let room = all.make_room(start + Duration::from_millis(millis));
            assert_eq!(evicted(&places), wanted, "{from:?}");
            assert_eq!(room, from.len() < MANY || !wanted.is_empty());
        }
    }

    #[test]
    fn who_goes_on_or_waits_for_an_answer_stays() {
        let (all, places, start) = taken(&["1.1.1.1:1", "1.1.1.1:2", "1.1.1.1:3", "1.1.1.1:4"]);
        let at = |millis| start + Duration::from_millis(millis);
        places[0].set_asks(true);
        all.hears(&places[1], at(900));
        all.hears(&places[2], at(100));
        assert!(all.make_room(at(1000)) && all.make_room(at(1000)));
        assert_eq!(evicted(&places), [3], "room was made once");
        all.add("1.1.1.1:5".parse().unwrap(), at(1000));
        assert!(!all.make_room(at(1050)), "it spoke a second ago");
        assert!(all.make_room(at(1150)));
        assert_eq!(evicted(&places), [2, 3]);
        all.remove(&places[0]);
        assert!(all.make_room(at(1150)));
    }
}
