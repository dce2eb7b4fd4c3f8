//! A bucket that can fall silent.

use super::mock_s3::{Manners, MockS3};
use tokio::runtime::Runtime;

/// The bucket `s3://b`, until dropped.
pub struct Bucket {
    mock: MockS3,
    _runtime: Runtime,
}

impl Bucket {
    /// One that answers.
    pub fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let mock = runtime.block_on(MockS3::start(Manners::default()));
        Self { mock, _runtime: runtime }
    }

    /// What a process needs in its environment to reach it.
    pub fn env(&self) -> Vec<(String, String)> {
        let named = |(name, value): (String, String)| (name.to_ascii_uppercase(), value);
        self.mock.settings().map(named).to_vec()
    }

    /// While it is silent it takes requests and answers none; afterwards also those that still wait.
    pub fn set_silent(&self, silent: bool) {
        self.mock.set_silent(silent);
    }
}
