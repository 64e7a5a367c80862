//! The request path: match a route, pick a backend from the table, forward, count. Reads one `ArcSwap`, takes no lock,
//! knows no price and no rule.
//!
//! Read in this order: [`table`] (what it reads), `strict` (whether a request's head leaves no doubt), [`incoming`] (what it says), [`matcher`] (which route), [`tenant`] (who asks, and what that one may), `receive` (both in order), [`peek`]
//! and `body` (which model a body asks for), [`pick`] (which backend), [`gate`] (whether it has a place), `context` and [`handler`] (the phases of a request), `hedge` (two requests for one answer), [`usage`] (how many tokens an answer took), `signing` (for AWS), `settle` (what the request came to), `conventions` (what OpenTelemetry calls that), [`answers`] (what Tradewind itself says to clients), [`door`] (connections of clients) and [`front`] (sockets
//! and threads).

pub mod answers;
mod body;
mod context;
mod conventions;
pub mod door;
mod forwarded;
pub mod front;
pub mod gate;
mod grpc;
pub mod handler;
mod hedge;
pub mod incoming;
pub mod matcher;
pub mod peek;
pub mod pick;
mod receive;
mod settle;
mod signing;
mod strict;
pub mod table;
pub mod tenant;
mod trace;
pub mod usage;

pub use door::Door;
pub use front::{Front, FrontOptions};
pub use table::{Common, Publisher, Table};
