//! The engine's time, and the wall clock's.
//!
//! The engine's time only goes on: leases, back-offs and durations are measured by it, and a restart goes on where the
//! journal ends, whatever the clock of the new machine shows. Deadlines, and what people are shown, are by the wall
//! clock, which may be set, or be another after a restart.

use super::{Command, Engine, Millis, Record};

/// The clock that is handed in was set back when it is behind by so much; by less its callers came in another order.
const SET_BACK: Millis = 1_000;

/// Eras remembered; before the first of them the wall clock is taken to have been as in it.
const ERAS: usize = 64;

/// How the engine's time, that which is handed in, and the wall clock's differ.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// What was handed in last.
    handed: Millis,
    /// The engine's time less that which is handed in.
    offset: i64,
    /// The wall clock's time less that which is handed in.
    correction: i64,
    /// The wall clock's time less the engine's, from which of the engine's times on, oldest first.
    eras: Vec<(Millis, i64)>,
}

impl Clock {
    /// The engine's time, which was `engine` before, when this is handed in.
    pub(crate) fn advance(&mut self, engine: Millis, handed: Millis) -> Millis {
        if handed.saturating_add(SET_BACK) < self.handed {
            self.go_on_from(engine, handed);
        }
        self.handed = handed.max(self.handed);
        handed.saturating_add_signed(self.offset).max(engine)
    }

    /// From now on the engine's time goes on from `engine` while the one handed in goes on from `handed`.
    pub(crate) fn go_on_from(&mut self, engine: Millis, handed: Millis) {
        (self.handed, self.offset) = (handed, signed(engine) - signed(handed));
    }

    /// The wall clock's time less the engine's.
    fn ahead(&self) -> i64 {
        self.correction - self.offset
    }

    /// The wall clock's time now, as people are shown a time that matters now.
    pub(crate) fn shown(&self, engine: Millis) -> Millis {
        engine.saturating_add_signed(self.ahead())
    }

    /// What the wall clock showed at a time of the past.
    pub(crate) fn wall(&self, engine: Millis) -> Millis {
        let place = self.eras.partition_point(|(from, _)| *from <= engine).saturating_sub(1);
        engine.saturating_add_signed(self.eras.get(place).map_or(self.ahead(), |(_, ahead)| *ahead))
    }

    /// When the wall clock will show this, by the engine's time, as the clocks go now.
    pub(crate) fn of_wall(&self, wall: Millis) -> Millis {
        wall.saturating_add_signed(-self.ahead())
    }

    /// When the engine's time will be this, by the one that is handed in.
    pub(crate) fn to_hand(&self, engine: Millis) -> Millis {
        engine.saturating_add_signed(-self.offset)
    }

    /// An era that began, as the journal says.
    pub(crate) fn remember(&mut self, from: Millis, ahead: i64) {
        self.eras.retain(|(known, _)| *known < from);
        self.eras.push((from, ahead));
        if self.eras.len() > ERAS {
            self.eras.remove(0);
        }
    }

    pub(crate) fn eras(&self) -> &[(Millis, i64)] {
        &self.eras
    }
}

fn signed(millis: Millis) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

impl Engine {
    /// The wall clock shows this now.
    pub(crate) fn set_wall(&mut self, wall: Millis) {
        self.clock.correction = signed(wall) - signed(self.clock.handed);
        self.note_era();
    }

    /// Writes down where the wall clock differs from the engine's time in another way than before.
    pub(crate) fn note_era(&mut self) {
        let ahead = self.clock.ahead();
        if self.clock.eras.last().map_or(0, |(_, last)| *last) == ahead {
            return;
        }
        if self.clock.eras.is_empty() {
            self.clock.remember(0, 0);
        }
        self.clock.remember(self.now, ahead);
        self.out.push(Command::Persist(Record::Clock { from: self.now, ahead }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_whatever_the_clock_shows() {
        let mut clock = Clock::default();
        let mut engine = 0;
        for (handed, expected) in [
            (1_000_000, 1_000_000),
            (1_000_010, 1_000_010),
            // another caller was faster
            (1_000_005, 1_000_010),
            (1_000_020, 1_000_020),
            // set back by some minutes
            (700_000, 1_000_020),
            (700_500, 1_000_520),
            // set back again
            (100, 1_000_520),
            (1_100, 1_001_520),
        ] {
            engine = clock.advance(engine, handed);
            assert_eq!(engine, expected, "{handed}");
            assert_eq!(clock.to_hand(engine).max(handed), clock.to_hand(engine), "{handed}");
        }
        clock.go_on_from(engine, 9_000_000);
        assert_eq!(clock.advance(engine, 9_000_050), 1_001_570, "another machine's clock is later");
        assert_eq!((clock.shown(1_001_570), clock.of_wall(9_000_050)), (9_000_050, 1_001_570));
    }

    #[test]
    fn times_of_the_past_are_shown_as_the_wall_clock_was_then() {
        let mut clock = Clock::default();
        clock.remember(0, 0);
        clock.remember(1_000, 500);
        clock.remember(2_000, -300);
        for (engine, wall) in [(10, 10), (999, 999), (1_000, 1_500), (1_999, 2_499), (2_000, 1_700)] {
            assert_eq!(clock.wall(engine), wall, "{engine}");
        }
        clock.remember(1_500, 0);
        assert_eq!(clock.wall(2_000), 2_000, "what was said of later is of a journal that was lost");
        (0..200).for_each(|n| clock.remember(10_000 + n, n as i64));
        assert_eq!(clock.eras().len(), ERAS);
    }
}
