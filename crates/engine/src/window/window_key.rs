//! A key and one of its windows, as the key of timers and of state. It hashes like the key alone, so that it belongs to
//! the key's subtask under any parallelism; the few windows of one key may share a place in a table.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::Window;

/// A key and one of its windows; without one it stands for the key's state in all windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowKey<K> {
    /// The key.
    pub key: K,
    /// The window; `None` for all windows of the key.
    pub window: Option<Window>,
}

impl<K: Hash> Hash for WindowKey<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key_group;

    #[test]
    fn it_belongs_to_the_subtask_of_its_key() {
        for key in 0..1_000u32 {
            let window = Some(Window { start_ms: i64::from(key), end_ms: i64::from(key) + 10 });
            assert_eq!(key_group(&WindowKey { key, window }), key_group(&key));
        }
    }
}
