//! Workers as they log in, and whose tasks they prove.

use crate::circuit::KindSet;
use crate::profile::Needs;
use std::fmt;

/// The namespaces whose tasks a worker proves. Whoever checks its login says so; its own word does not count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Serves {
    /// Those of all.
    #[default]
    All,
    /// Those of these alone, sorted.
    Namespaces(Box<[String]>),
}

impl Serves {
    /// These namespaces alone.
    pub fn only(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.sort_unstable();
        names.dedup();
        Self::Namespaces(names.into())
    }

    /// None at all: what a worker serves before its login was checked.
    pub fn nobody() -> Self {
        Self::Namespaces(Box::default())
    }

    /// Whether tasks of this namespace are proven.
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(names) => names.binary_search_by(|name| name.as_str().cmp(namespace)).is_ok(),
        }
    }
}

/// Those that serve fewer come first, so that machines that serve many stay free for those who have no others.
impl Ord for Serves {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |serves: &Self| match serves {
            Self::All => usize::MAX,
            Self::Namespaces(names) => names.len(),
        };
        key(self).cmp(&key(other)).then_with(|| match (self, other) {
            (Self::Namespaces(own), Self::Namespaces(others)) => own.cmp(others),
            _ => std::cmp::Ordering::Equal,
        })
    }
}

impl PartialOrd for Serves {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Serves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Namespaces(names) => f.write_str(&names.join(",")),
        }
    }
}

/// A worker's login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSpec {
    /// Unique name.
    pub name: String,
    /// The machine it runs on.
    pub node: String,
    /// What it has in all.
    pub capacity: Needs,
    /// Kinds of proof that it takes.
    pub kinds: KindSet,
    /// Leases it takes beyond what it can run at once.
    pub prefetch: u16,
    /// Whose tasks it proves.
    pub serves: Serves,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_served_and_who_comes_first() {
        let some = Serves::only(["b", "a", "b"]);
        assert_eq!(some, Serves::Namespaces(["a".to_owned(), "b".to_owned()].into()));
        for (serves, namespace, served) in [
            (&Serves::All, "", true),
            (&Serves::All, "a", true),
            (&some, "a", true),
            (&some, "b", true),
            (&some, "", false),
            (&some, "ab", false),
            (&Serves::nobody(), "a", false),
        ] {
            assert_eq!(serves.contains(namespace), served, "{serves} {namespace:?}");
        }
        let sorted = [Serves::nobody(), Serves::only(["b"]), Serves::only(["c"]), some, Serves::All];
        assert!(sorted.is_sorted(), "those that serve fewer come first");
    }
}
