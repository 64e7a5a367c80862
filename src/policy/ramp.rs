//! How fast shares follow their target: at once where they must leave, by the ramp where they may.

use super::{SHARE_EPSILON, site::Site, state::State};

/// Takes away at once what may not stay, and gives it to the others: first towards their targets within what is
/// ready, then to whoever is ready, then by the targets alone. With `immediate` the target is taken up as a whole.
pub(super) fn evacuate(sites: &[Site], state: &mut State, immediate: bool) {
    if immediate {
        state.shares.clone_from(&state.target);
        return;
    }
    for ((share, target), site) in state.shares.iter_mut().zip(&state.target).zip(sites) {
        *share = share.min(site.limit.max(*target));
    }
    let mut homeless = 1.0 - state.shares.iter().sum::<f64>();
    // The last row always has room for the rest, since the targets sum to 1.
    let rooms: [fn(&Site, f64, f64) -> f64; 3] = [
        |site, share, target| target.min(site.ready_share) - share,
        |site, share, _| site.ready_share - share,
        |_, share, target| target - share,
    ];
    for room in rooms {
        if homeless <= SHARE_EPSILON {
            return;
        }
        let room: Vec<f64> = sites
            .iter()
            .zip(state.shares.iter().zip(&state.target))
            .map(|(site, (share, target))| room(site, *share, *target).max(0.0))
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
