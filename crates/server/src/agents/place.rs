//! Which hosts the processes of a job go to. All processes of a job have the same number of workers; the server's own host
//! always has the first one, because the job is asked and told there.

use tidemill_core::slots::SlotDemand;

/// A host with room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The agent; the server's own host stands first and is not asked for its name.
    pub name: String,
    /// Workers it has room for now.
    pub free: usize,
}

/// What parallelism a job wants, and what each costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// It does not run with less.
    pub least: usize,
    /// It takes no more.
    pub most: usize,
    /// The slots it takes.
    pub demand: SlotDemand,
}

/// Hosts of a job: the first is the server's own, the others by their place in the list asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The job's parallelism there.
    pub parallelism: usize,
    /// Workers of each process; the last may leave some idle.
    pub workers: usize,
    /// Places in the list of rooms; the first is 0.
    pub hosts: Vec<usize>,
}

/// As few hosts as hold what is wanted at most; else those that hold the most, if that is enough.
pub fn place(rooms: &[Room], wanted: &Wanted) -> Option<Places> {
    let own = rooms.first()?.free;
    let mut others: Vec<usize> = (1..rooms.len()).filter(|&host| rooms[host].free > 0).collect();
    others.sort_by_key(|&host| std::cmp::Reverse(rooms[host].free));
    let mut best: Option<(usize, usize)> = None;
    for hosts in 1..=1 + others.len() {
        let smallest = others[..hosts - 1].last().map_or(own, |&host| rooms[host].free.min(own));
        let parallelism = wanted.demand.parallelism_within(hosts * smallest, wanted.most).unwrap_or(0);
        if best.is_none_or(|(most, _)| parallelism > most) {
            best = Some((parallelism, hosts));
        }
    }
    let (parallelism, hosts) = best.filter(|(parallelism, _)| *parallelism >= wanted.least.max(1))?;
    let workers = wanted.demand.slots(parallelism).div_ceil(hosts);
    Some(Places {
        parallelism,
        workers,
        hosts: std::iter::once(0).chain(others[..hosts - 1].iter().copied()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::slots::GroupDemand;

    #[test]
    fn a_job_takes_as_few_hosts_as_hold_it() {
        let placed = |free: &[usize], wanted: Wanted, expected: Option<(usize, usize, &[usize])>| {
            let rooms: Vec<Room> = free.iter().map(|&free| Room { name: String::new(), free }).collect();
            let expected =
                expected.map(|(parallelism, workers, hosts)| Places { parallelism, workers, hosts: hosts.to_vec() });
            assert_eq!(place(&rooms, &wanted), expected, "{free:?} {wanted:?}");
        };
        let check = |free: &[usize], least, most, expected: Option<(usize, usize, &[usize])>| {
            placed(free, Wanted { least, most, demand: SlotDemand::default() }, expected);
        };
        check(&[4], 2, 2, Some((2, 2, &[0])));
        check(&[2, 2, 2], 4, 4, Some((4, 2, &[0, 1])));
        check(&[2, 1, 2], 4, 4, Some((4, 2, &[0, 2])));
        check(&[2, 2, 2], 5, 5, Some((5, 2, &[0, 1, 2])));
        check(&[2, 2], 5, 5, None);
        check(&[2, 2], 1, usize::MAX, Some((4, 2, &[0, 1])));
        check(&[4, 1], 1, 128, Some((4, 4, &[0])));
        check(&[1, 1, 0], 1, 128, Some((2, 1, &[0, 1])));
        check(&[0, 4], 1, 4, None);
        check(&[], 1, 1, None);
        let groups = vec![GroupDemand { fixed: 0, follows_to: usize::MAX }, GroupDemand { fixed: 3, follows_to: 0 }];
        let two = |least, most| Wanted { least, most, demand: SlotDemand { groups: groups.clone() } };
        placed(&[4], two(1, 1), Some((1, 4, &[0])));
        placed(&[4], two(2, 2), None);
        placed(&[4, 4], two(2, 2), Some((2, 3, &[0, 1])));
        placed(&[4, 4], two(1, 9), Some((5, 4, &[0, 1])));
        placed(&[3], two(1, 9), None);
    }
}
