//! A job of several processes, one a host: who they are, how they find each other and what they tell each other.
//!
//! All processes run the same program and build the same plan. Records and progress travel over timely's own network,
//! one connection for each pair of processes; everything else (epochs, acknowledgements, watermarks of sources, failure,
//! numbers for reports) over one control link from each process to the first, where the coordinator lives (ADR 4).
//!
//! | module | holds |
//! |---|---|
//! | `settings` | process, addresses, secret, deadlines |
//! | `handshake` | what opens a connection: identity, and proof of the secret |
//! | `channel` | a connection, plain or by TLS |
//! | `mesh` | connections to all others |
//! | `transport` | a connection as timely sees it: checked, and never a panic when it breaks |
//! | `message` | what is said on a control link |
//! | `leader` | the first process's end of the links |
//! | `member` | the other end |

pub(crate) mod channel;
mod handshake;
pub(crate) mod leader;
pub(crate) mod member;
mod mesh;
pub(crate) mod message;
mod settings;
pub(crate) mod transport;

pub(crate) use handshake::Identity;
pub(crate) use mesh::{Mesh, join};
pub use settings::{Cluster, Room, Secret};
