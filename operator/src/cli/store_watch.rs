//! Tells people that the artifact store is full, fails or does not answer, and when that is over.

use arborist_artifacts::{ArtifactStore, Trouble};
use std::mem::{Discriminant, discriminant};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often a look is taken.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often trouble that lasts is told again.
const REMIND_EVERY: Duration = Duration::from_secs(60);
/// A folder that takes longer is one that does not answer.
const SILENCE: Duration = Duration::from_secs(5);
/// The most characters of what the store said.
const MAX_TEXT: usize = 400;

/// Watches a store until dropped.
pub struct StoreWatch(JoinHandle<()>);

impl Drop for StoreWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Watches a store from now on. Must be called within a runtime.
pub fn watch(store: ArtifactStore, tell: impl Fn(&str) + Send + 'static) -> StoreWatch {
    StoreWatch(tokio::spawn(async move {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut told = Told::default();
        loop {
            look.tick().await;
            if let Some(text) = told.news(store.trouble(), Instant::now()) {
                tell(&text);
            }
        }
    }))
}

/// Waits for `opening`, and tells people when `place` does not answer meanwhile.
pub async fn told_if_late<T>(place: &str, tell: impl Fn(&str), opening: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut opening = std::pin::pin!(opening);
    let mut pause = SILENCE;
    loop {
        tokio::select! {
            opened = &mut opening => return opened,
            () = tokio::time::sleep(pause) => {
                let waited = began.elapsed().as_secs();
                tell(&format!("{place} has not answered for {waited} s; see to it that it answers: work goes on by itself then"));
            }
        }
        pause = REMIND_EVERY;
    }
}

/// What was told last, and when.
#[derive(Default)]
struct Told(Option<(Discriminant<Trouble>, Instant)>);

impl Told {
    /// The line to tell now, if any.
    fn news(&mut self, trouble: Option<Trouble>, now: Instant) -> Option<String> {
        match (&self.0, trouble) {
            (None, None) => None,
            (Some(_), None) => {
                self.0 = None;
                Some("the artifact store works again".to_owned())
            }
            (Some((kind, at)), Some(trouble))
                if *kind == discriminant(&trouble) && now.duration_since(*at) < REMIND_EVERY =>
            {
                None
            }
            (_, Some(trouble)) => {
                self.0 = Some((discriminant(&trouble), now));
                Some(text(&trouble))
            }
        }
    }
}

/// What is wrong, where, and what to do, as one line.
pub fn text(trouble: &Trouble) -> String {
    let said: String = trouble.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
    let what_to_do = match trouble {
        Trouble::Full(_) => "make room there",
        Trouble::Failing(_) | Trouble::Silent { .. } => "see to it that it answers",
    };
    format!("{said}; {what_to_do}: work goes on by itself then")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_artifacts::StoreError;

    #[tokio::test(start_paused = true)]
    async fn a_place_that_answers_late_is_told_after_a_while_and_each_minute() {
        let said = std::cell::RefCell::new(vec![]);
        let tell = |text: &str| said.borrow_mut().push(text.split(';').next().unwrap_or_default().to_owned());
        let answers_after = |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            seconds
        };
        assert_eq!(told_if_late("the folder", tell, answers_after(4)).await, 4);
        assert!(said.borrow().is_empty());
        assert_eq!(told_if_late("the folder", tell, answers_after(70)).await, 70);
        let wanted = ["the folder has not answered for 5 s", "the folder has not answered for 65 s"];
        assert_eq!(*said.borrow(), wanted);
    }

    #[test]
    fn each_sort_of_trouble_is_told_once_a_minute_and_its_end_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let full = || {
            Some(Trouble::Full(StoreError::Full {
                action: "create a in s".into(),
                reason: "no\n space".into(),
            }))
        };
        let silent = || Some(Trouble::Silent { action: "get a in s".into(), waited: Duration::from_secs(7) });
        let mut told = Told::default();
        assert_eq!(told.news(None, at(0)), None);
        let line = told.news(full(), at(1)).unwrap();
        assert_eq!(
            line,
            "the artifact store is full (create a in s): no space; make room there: work goes on by itself then"
        );
        assert_eq!(told.news(full(), at(2)), None);
        assert!(told.news(silent(), at(3)).unwrap().contains("has not answered for 7 s (get a in s)"));
        assert!(told.news(silent(), at(63)).is_some());
        assert_eq!(told.news(None, at(64)).as_deref(), Some("the artifact store works again"));
        assert_eq!(told.news(None, at(65)), None);
    }
}
