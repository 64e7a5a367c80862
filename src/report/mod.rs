//! What the journal adds up to, and whether its decisions can be made again. Pure: it is given entries, oldest first, and knows
//! no file and no clock.

pub mod replay;
