//! Whether a backend answers, and how fast: active probes, one task a backend.

mod board;
mod standing;
mod target;
#[cfg(test)]
mod tests;

pub use board::ProbeBoard;
