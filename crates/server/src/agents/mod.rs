//! Agents: further hosts that run processes of jobs. An agent asks twice a second what it is to run and says what it runs;
//! the server never connects to it. Free of HTTP; `api/agents.rs` and the command `tidemill agent` carry the messages.
//!
//! | module | holds |
//! |---|---|
//! | [`message`] | what agents and server say, and the MAC that proves the join secret |
//! | [`place`] | which hosts the processes of a job go to |
//! | [`hub`] | the agents a server knows, and what they are to run |
//! | [`host`] | an agent's own side: its processes |

pub mod host;
pub mod hub;
pub mod message;
pub mod place;
