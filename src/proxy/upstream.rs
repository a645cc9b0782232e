//! Which of an upstream's targets gets a request (RFC 3263 §4.3 with the priorities and weights of
//! RFC 2782). Absent on purpose: what is known of their health, and time.

use crate::base::config::UpstreamTarget;

/// The positions of targets that a request was sent to, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried(u64);

impl Tried {
    /// The same and one more.
    #[must_use]
    pub fn and(self, target: usize) -> Tried {
        Tried(self.0 | 1 << target)
    }

    /// Whether it was tried.
    pub fn has(self, target: usize) -> bool {
        self.0 >> target & 1 == 1
    }
}

/// The target that is next: of those not tried the lowest priority, and there by weight as `random`
/// falls. Targets that rest are taken when no other is left. `None` when all were tried.
pub fn choose(
    targets: &[UpstreamTarget],
    tried: Tried,
    rests: impl Fn(&UpstreamTarget) -> bool,
    random: u64,
) -> Option<usize> {
    let left = |may_rest: bool| {
        let list = targets.iter().enumerate();
        list.filter(move |(at, _)| !tried.has(*at)).filter({
            let rests = &rests;
            move |(_, target)| may_rest || !rests(target)
        })
    };
    let of_best = |may_rest: bool| {
        let best = left(may_rest).map(|(_, target)| target.priority).min()?;
        let class = || left(may_rest).filter(move |(_, target)| target.priority == best);
        by_weight(class, random)
    };
    of_best(false).or_else(|| of_best(true))
}

/// RFC 2782: those of weight 0 first, then the first one whose running sum of weights reaches a
/// number from 0 to the whole sum. Where all weigh nothing all are alike.
fn by_weight<'a, I>(class: impl Fn() -> I, random: u64) -> Option<usize>
where
    I: Iterator<Item = (usize, &'a UpstreamTarget)>,
{
    let sum: u64 = class().map(|(_, target)| u64::from(target.weight)).sum();
    if sum == 0 {
        let count = class().count() as u64;
        return class().nth((random % count.max(1)) as usize).map(|(at, _)| at);
    }
    let mark = random % (sum + 1);
    let light = class().filter(|(_, target)| target.weight == 0);
    let heavy = class().filter(|(_, target)| target.weight != 0);
    let mut reached = 0;
    light.chain(heavy).find_map(|(at, target)| {
        reached += u64::from(target.weight);
        (reached >= mark).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Transport;

    fn targets(of: &[(u16, u16)]) -> Vec<UpstreamTarget> {
        let target = |(at, (priority, weight)): (usize, &(u16, u16))| UpstreamTarget {
            transport: Transport::Udp,
            address: ([192, 0, 2, at as u8 + 1], 5060).into(),
            host: String::new(),
            priority: *priority,
            weight: *weight,
        };
        of.iter().enumerate().map(target).collect()
    }

    /// Every target in the order in which one request would try them.
    fn order(targets: &[UpstreamTarget], resting: &[usize], random: u64) -> Vec<usize> {
        let rests = |target: &UpstreamTarget| resting.iter().any(|at| targets[*at] == *target);
        let (mut tried, mut order) = (Tried::default(), Vec::new());
        while let Some(next) = choose(targets, tried, rests, random) {
            order.push(next);
            tried = tried.and(next);
        }
        order
    }

    #[test]
    fn the_lowest_priority_goes_first_and_every_target_once() {
        let targets = targets(&[(20, 0), (10, 0), (30, 0)]);
        for random in 0..50 {
            assert_eq!(order(&targets, &[], random), [1, 0, 2]);
        }
    }

    #[test]
    fn targets_that_rest_come_last_in_their_own_order() {
        let targets = targets(&[(1, 0), (2, 0), (3, 0)]);
        assert_eq!(order(&targets, &[0], 0), [1, 2, 0]);
        assert_eq!(order(&targets, &[0, 1], 0), [2, 0, 1]);
        assert_eq!(order(&targets, &[0, 1, 2], 0), [0, 1, 2]);
    }

    #[test]
    fn requests_are_shared_by_weight() {
        let targets = targets(&[(0, 1), (0, 3), (0, 0)]);
        let mut shares = [0; 3];
        for random in 0..500 {
            shares[choose(&targets, Tried::default(), |_| false, random).unwrap()] += 1;
        }
        assert_eq!(shares, [100, 300, 100], "0 to 4 inclusive: one part for those of no weight");
    }

    #[test]
    fn targets_without_weights_are_alike() {
        let targets = targets(&[(0, 0), (0, 0), (0, 0), (0, 0)]);
        let mut shares = [0; 4];
        for random in 0..400 {
            shares[choose(&targets, Tried::default(), |_| false, random).unwrap()] += 1;
        }
        assert_eq!(shares, [100; 4]);
        assert_eq!(choose(&[], Tried::default(), |_| false, 1), None);
    }

    #[test]
    fn as_many_targets_as_there_may_be() {
        let targets = targets(&[(0, 1); crate::base::limits::UPSTREAM_TARGETS_MAX]);
        let mut order = order(&targets, &[], 17);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..targets.len()));
    }
}
