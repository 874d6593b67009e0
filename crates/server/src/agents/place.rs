//! Which hosts the processes of a job go to. All processes of a job have the same number of workers; the server's own host
//! always has the first one, because the job is asked and told there.

/// A host with room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The agent; the server's own host stands first and is not asked for its name.
    pub name: String,
    /// Workers it has room for now.
    pub free: usize,
}

/// How many workers a job wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// It does not run with fewer.
    pub least: usize,
    /// It takes no more.
    pub most: usize,
}

/// Hosts of a job: the first is the server's own, the others by their place in the list asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Workers in all.
    pub parallelism: usize,
    /// Workers of each process; the last may leave some idle.
    pub workers: usize,
    /// Places in the list of rooms; the first is 0.
    pub hosts: Vec<usize>,
}

/// As few hosts as hold what is wanted at most; else those that hold the most, if that is enough.
pub fn place(rooms: &[Room], wanted: Wanted) -> Option<Places> {
    let own = rooms.first()?.free;
    let mut others: Vec<usize> = (1..rooms.len()).filter(|&host| rooms[host].free > 0).collect();
    others.sort_by_key(|&host| std::cmp::Reverse(rooms[host].free));
    let mut best: Option<(usize, usize)> = None;
    for hosts in 1..=1 + others.len() {
        let smallest = others[..hosts - 1].last().map_or(own, |&host| rooms[host].free.min(own));
        let capacity = (hosts * smallest).min(wanted.most);
        if best.is_none_or(|(most, _)| capacity > most) {
            best = Some((capacity, hosts));
        }
    }
    let (parallelism, hosts) = best.filter(|(capacity, _)| *capacity >= wanted.least.max(1))?;
    let workers = parallelism.div_ceil(hosts);
    Some(Places {
        parallelism,
        workers,
        hosts: std::iter::once(0).chain(others[..hosts - 1].iter().copied()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_takes_as_few_hosts_as_hold_it() {
        let check = |free: &[usize], least: usize, most: usize, expected: Option<(usize, usize, &[usize])>| {
            let rooms: Vec<Room> = free.iter().map(|&free| Room { name: String::new(), free }).collect();
            let placed = place(&rooms, Wanted { least, most });
            let expected =
                expected.map(|(parallelism, workers, hosts)| Places { parallelism, workers, hosts: hosts.to_vec() });
            assert_eq!(placed, expected, "{free:?} {least}..={most}");
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
    }
}
