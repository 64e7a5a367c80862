//! How many connections there may be.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{
    model::{ClientLimits, clients::client_key},
    signals::connections::{ConnectionMeter, TurnedAway},
};

/// Counts connections against their limits.
#[derive(Debug)]
pub(super) struct Caps {
    meter: Arc<ConnectionMeter>,
    /// Used only while there is a limit for each address.
    by_address: Mutex<HashMap<IpAddr, u32>>,
    /// Half of the files that may be open: the other half is for connections to backends.
    files_half: u64,
}

impl Caps {
    pub(super) fn new(meter: Arc<ConnectionMeter>) -> Caps {
        Caps { meter, by_address: Mutex::default(), files_half: files_max() / 2 }
    }

    /// A place for a connection, if there is one. Counted if not.
    pub(super) fn enter(self: &Arc<Caps>, limits: &ClientLimits) -> Option<Place> {
        let max = limits.connections_max.unwrap_or(self.files_half);
        self.meter.enter(max).then(|| Place { caps: self.clone(), address: None })
    }
}

/// A place for a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    caps: Arc<Caps>,
    address: Option<IpAddr>,
}

impl Place {
    /// Counts it for its client, too. `false`, and counted, if that one has as many as it may have.
    pub(super) fn take_for(&mut self, client: IpAddr, limits: &ClientLimits) -> bool {
        let Some(max) = limits.connections_per_ip_max else { return true };
        let client = client_key(client);
        let mut by_address = self.caps.by_address.lock();
        let count = by_address.entry(client).or_default();
        if *count >= max {
            drop(by_address);
            self.turn_away(TurnedAway::FullForAddress);
            return false;
        }
        *count += 1;
        self.address = Some(client);
        true
    }

    /// Counts that the connection is read more slowly than it sends.
    pub(super) fn hold_back(&self) {
        self.caps.meter.hold_back();
    }

    /// Counts that the connection is ended by us.
    pub(super) fn turn_away(&self, why: TurnedAway) {
        self.caps.meter.turn_away(why);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.caps.meter.leave();
        let Some(address) = self.address else { return };
        let mut by_address = self.caps.by_address.lock();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// How many files this process may have open. Many systems start processes with a low limit, for the sake of programs that
/// use `select`, and let them raise it.
fn files_max() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, limit).is_ok();
    let current = if raised { limit.current } else { before };
    current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_no_more_than_its_own_and_leaves_nothing_behind() {
        let caps = Arc::new(Caps::new(Arc::default()));
        let limits = ClientLimits { connections_per_ip_max: Some(2), ..ClientLimits::default() };
        let open = |address: &str| {
            let mut place = caps.enter(&limits).unwrap();
            place.take_for(address.parse().unwrap(), &limits).then_some(place)
        };
        let held = [open("2001:db8::1").unwrap(), open("2001:db8::2").unwrap()];
        assert!(open("2001:db8::3").is_none(), "it is the same /64");
        let other = open("192.0.2.1").unwrap();
        drop(held);
        let again = open("2001:db8::3").unwrap();
        assert_eq!(caps.meter.open(), 2);
        drop((other, again));
        assert!(caps.by_address.lock().is_empty());
        assert_eq!(caps.meter.open(), 0);
    }

    #[test]
    fn there_are_files_to_open() {
        assert!(files_max() >= 256);
    }
}
