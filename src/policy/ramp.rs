//! How fast shares follow their target: at once where they must leave, by the ramp where they may.

use super::{SHARE_EPSILON, site::Site, state::State};
use crate::model::Cause;

/// Gives pinned backends their share at once. The others keep their proportions: among them the ramp holds as ever.
pub(super) fn pin(state: &mut State, pins: &[Option<f64>]) {
    if pins.iter().all(Option::is_none) {
        return;
    }
    let left = 1.0 - pins.iter().flatten().sum::<f64>();
    let free = |shares: &[f64]| -> f64 {
        shares.iter().zip(pins).filter(|(_, pin)| pin.is_none()).map(|(share, _)| share).sum()
    };
    // Whoever serves nothing now has no proportion to keep: then the targets say how the rest is divided.
    let pattern = if free(&state.shares) > SHARE_EPSILON { &state.shares } else { &state.target };
    let others = free(pattern);
    let scale = if others > 0.0 { left / others } else { 0.0 };
    state.shares = pattern.iter().zip(pins).map(|(share, pin)| pin.unwrap_or(share * scale)).collect();
}

/// What a backend may still take in, by its share, its target, and the share that it had before.
type Room = fn(&Site, f64, f64, f64) -> f64;

/// Takes away at once what may not stay, and gives it to the others: first towards their targets within what is
/// ready, then to whoever is ready, then by the targets alone. A backend that is left because it is slow or full keeps what nobody
/// else is ready for: sending it there all the same would make the others slow as well.
pub(super) fn evacuate(sites: &[Site], state: &mut State) {
    let before = state.shares.clone();
    for ((share, target), site) in state.shares.iter_mut().zip(&state.target).zip(sites) {
        *share = share.min(site.limit.max(*target));
    }
    let mut homeless = 1.0 - state.shares.iter().sum::<f64>();
    // The last row always has room for the rest, since the targets sum to 1.
    let rooms: [Room; 4] = [
        |site, share, target, _| target.min(site.ready_share) - share,
        |site, share, _, _| site.ready_share - share,
        |site, share, _, before| match site.limited_by {
            Some(Cause::OverSlo | Cause::LatencyOutlier | Cause::Capacity) => before - share,
            _ => 0.0,
        },
        |_, share, target, _| target - share,
    ];
    for room in rooms {
        if homeless <= SHARE_EPSILON {
            return;
        }
        let room: Vec<f64> = (0..sites.len())
            .map(|i| room(&sites[i], state.shares[i], state.target[i], before[i]).max(0.0))
            .collect();
        homeless -= spread(&mut state.shares, &room, homeless);
    }
}

/// Gives out `amount` in proportion to `room`, never more than fits. Returns what was given.
fn spread(shares: &mut [f64], room: &[f64], amount: f64) -> f64 {
    let total: f64 = room.iter().sum();
    if total <= 0.0 {
        return 0.0;
    }
    let given = amount.min(total);
    shares.iter_mut().zip(room).for_each(|(share, room)| *share += given * room / total);
    given
}

/// Takes away at once what exceeds capacity that was seen to be ready, as far as others have room that is ready: it comes back
/// by the ramp. A queue is given room to go. The target stays, and with it what the autoscaler prepares for. What operators pin stays
/// where they want it. Of a backend that several routes share, each takes its part of the excess away. Says who lost some.
pub(super) fn spill(sites: &[Site], state: &mut State, pins: &[Option<f64>]) -> Vec<usize> {
    let amounts = |of: &dyn Fn(&Site, f64) -> f64| -> Vec<f64> {
        let amount = |(place, share): (usize, &f64)| match sites[place].may_serve && pins[place].is_none() {
            true => of(&sites[place], *share).max(0.0),
            false => 0.0,
        };
        state.shares.iter().enumerate().map(amount).collect()
    };
    let over = |site: &Site, share: f64| {
        site.ready_is_seen && (share > site.spill_share + SHARE_EPSILON || site.queue_share > 0.0)
    };
    let excess = amounts(&|site, share| match over(site, share) {
        true => {
            let own_rps = share * site.demand_rps;
            let part = own_rps / (own_rps + site.view.load_elsewhere_rps).max(f64::MIN_POSITIVE);
            (share - (site.ready_share - site.queue_share).max(0.0)) * part
        }
        false => 0.0,
    });
    // Where requests wait, or waited when that was last told, there is no room, whether or not it is seen what is ready.
    let room = amounts(&|site, share| match over(site, share) || site.queues {
        true => 0.0,
        false => site.ready_share.min(site.limit) - share,
    });
    let (free, total): (f64, f64) = (room.iter().sum(), excess.iter().sum());
    let moved = free.min(total);
    if moved <= SHARE_EPSILON {
        return Vec::new();
    }
    for (share, (room, excess)) in state.shares.iter_mut().zip(room.iter().zip(&excess)) {
        *share += moved * (room / free - excess / total);
    }
    (0..sites.len()).filter(|place| excess[*place] > SHARE_EPSILON).collect()
}

/// Moves the shares towards the target: no receiver grows by more than `step` or beyond what is ready there; givers shrink
/// by what the receivers took.
pub(super) fn advance(sites: &[Site], state: &mut State, step: f64) {
    let gains: Vec<f64> = sites
        .iter()
        .zip(state.shares.iter().zip(&state.target))
        .map(|(site, (share, target))| (target - share).min(step).min(site.ready_share - share).max(0.0))
        .collect();
    let surplus: Vec<f64> =
        state.shares.iter().zip(&state.target).map(|(share, target)| (share - target).max(0.0)).collect();
    let (gained, over): (f64, f64) = (gains.iter().sum(), surplus.iter().sum());
    let moved = gained.min(over);
    if moved <= 0.0 {
        return;
    }
    for i in 0..state.shares.len() {
        state.shares[i] += gains[i] * moved / gained - surplus[i] * moved / over;
        // Rounding must not leave a crumb on either side of a finished move.
        if (state.shares[i] - state.target[i]).abs() < SHARE_EPSILON {
            state.shares[i] = state.target[i];
        }
    }
}
