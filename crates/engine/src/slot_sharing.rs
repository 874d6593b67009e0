//! Slot sharing groups: which worker runs which subtask. A slot is a worker. Subtasks of one number share a slot when
//! their operators are of one group; operators of different groups never meet on a worker, and so neither wait for each
//! other nor slow each other down, as far as the cores go.

use std::collections::BTreeMap;

use tidemill_core::slots::{GroupDemand, SlotDemand};

use crate::graph::Plan;

/// The group of operators that were put nowhere.
pub(crate) const DEFAULT_GROUP: &str = "default";

/// The groups of a plan and the workers of each.
pub(crate) struct SlotSharing {
    names: Vec<String>,
    /// By node.
    group_of: Vec<usize>,
    /// By group, then number of the subtask.
    workers: Vec<Vec<usize>>,
}

impl SlotSharing {
    /// Each node's group by its name, and the parallelism of each.
    pub fn new(groups: &[String], parallelism: &[usize]) -> Self {
        let (names, group_of) = number(groups);
        let widths: Vec<usize> = (0..names.len()).map(|group| widest(group, &group_of, parallelism)).collect();
        // Subtasks lie side by side, so that those that forward to each other across groups, and parts of equal size of all
        // groups, come to be in one process. One group alone has its subtasks in order.
        let mut places: Vec<(usize, usize)> = widths
            .iter()
            .enumerate()
            .flat_map(|(group, width)| (0..*width).map(move |subtask| (group, subtask)))
            .collect();
        places.sort_by(|&(a, i), &(b, j)| (i * widths[b]).cmp(&(j * widths[a])).then(a.cmp(&b)));
        let mut workers: Vec<Vec<usize>> = widths.iter().map(|width| Vec::with_capacity(*width)).collect();
        for (worker, (group, _)) in places.into_iter().enumerate() {
            workers[group].push(worker);
        }
        SlotSharing { names, group_of, workers }
    }

    /// The name of a node's group.
    pub fn name(&self, node: usize) -> &str {
        &self.names[self.group_of[node]]
    }

    /// Whether two nodes share slots.
    pub fn shared(&self, one: usize, other: usize) -> bool {
        self.group_of[one] == self.group_of[other]
    }

    /// The workers of a node's group, by subtask.
    pub fn workers_of(&self, node: usize) -> &[usize] {
        &self.workers[self.group_of[node]]
    }

    /// The workers of all groups.
    pub fn workers(&self) -> usize {
        self.workers.iter().map(Vec::len).sum()
    }
}

/// Which process each subtask is at home in: who may speak for it.
pub(crate) struct Homes {
    /// By task, then subtask.
    tasks: Vec<Vec<usize>>,
    /// By operator, then subtask.
    operators: BTreeMap<String, Vec<usize>>,
    /// By slot of the board.
    pub slots: Vec<usize>,
}

impl Homes {
    /// In processes of so many workers each.
    pub fn new(plan: &Plan, workers: usize) -> Self {
        let of = |node: usize| plan.workers_of(node).iter().map(|worker| worker / workers).collect::<Vec<_>>();
        Homes {
            tasks: plan.heads.iter().map(|head| of(*head)).collect(),
            operators: plan.uids.iter().enumerate().map(|(node, uid)| (uid.clone(), of(node))).collect(),
            slots: plan.slot_workers().into_iter().map(|worker| worker / workers).collect(),
        }
    }

    /// The process of a task's subtask, if there is such a one.
    pub fn of_task(&self, task: usize, subtask: usize) -> Option<usize> {
        self.tasks.get(task)?.get(subtask).copied()
    }

    /// The process of an operator's subtask, if there is such a one.
    pub fn of_operator(&self, uid: &str, subtask: usize) -> Option<usize> {
        self.operators.get(uid)?.get(subtask).copied()
    }
}

/// What a job wants whose nodes have these groups, parallelism of their own or none, and most they could have.
pub(crate) fn demand(groups: &[String], fixed: &[Option<usize>], most: &[usize]) -> SlotDemand {
    let (names, group_of) = number(groups);
    let mut demands = vec![GroupDemand { fixed: 0, follows_to: 0 }; names.len()];
    for ((group, fixed), most) in group_of.iter().zip(fixed).zip(most) {
        let demand = &mut demands[*group];
        match fixed {
            Some(fixed) => demand.fixed = demand.fixed.max((*fixed).min(*most)),
            None => demand.follows_to = demand.follows_to.max(*most),
        }
    }
    SlotDemand { groups: demands }
}

/// Groups in the order in which they first come, and the number of each node's.
fn number(groups: &[String]) -> (Vec<String>, Vec<usize>) {
    let mut names: Vec<String> = Vec::new();
    let group_of = groups.iter().map(|name| {
        names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.clone());
            names.len() - 1
        })
    });
    let group_of = group_of.collect();
    (names, group_of)
}

fn widest(group: usize, group_of: &[usize], parallelism: &[usize]) -> usize {
    let of_group = group_of.iter().zip(parallelism).filter(|(of, _)| **of == group);
    of_group.map(|(_, parallelism)| *parallelism).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sharing(nodes: &[(&str, usize)]) -> SlotSharing {
        let (groups, parallelism): (Vec<String>, Vec<usize>) =
            nodes.iter().map(|(group, parallelism)| (group.to_string(), *parallelism)).unzip();
        SlotSharing::new(&groups, &parallelism)
    }

    #[test]
    fn groups_have_workers_of_their_own_side_by_side() {
        let alone = sharing(&[("default", 4), ("default", 2)]);
        assert_eq!((alone.workers(), alone.workers_of(1)), (4, [0, 1, 2, 3].as_slice()));
        let equal = sharing(&[("a", 2), ("b", 2), ("a", 1)]);
        assert_eq!(
            (equal.workers(), equal.workers_of(2), equal.workers_of(1)),
            (4, [0, 2].as_slice(), [1, 3].as_slice())
        );
        let uneven = sharing(&[("a", 4), ("b", 1), ("c", 2)]);
        let workers = [0, 1, 2].map(|node| uneven.workers_of(node).to_vec());
        assert_eq!(workers, [vec![0, 3, 4, 6], vec![1], vec![2, 5]]);
        assert!(alone.shared(0, 1) && !uneven.shared(0, 1));
    }

    #[test]
    fn each_worker_has_one_group_and_each_process_a_fair_part() {
        for widths in [vec![3, 3], vec![4, 1, 2], vec![5, 4, 3, 2, 1], vec![1, 1, 1, 7]] {
            let names: Vec<String> = (0..widths.len()).map(|group| format!("g{group}")).collect();
            let sharing = SlotSharing::new(&names, &widths);
            let mut all: Vec<usize> = (0..widths.len()).flat_map(|node| sharing.workers_of(node).to_vec()).collect();
            all.sort_unstable();
            assert_eq!(all, (0..widths.iter().sum()).collect::<Vec<_>>());
            for processes in 2..4 {
                let each = sharing.workers().div_ceil(processes);
                for (node, width) in widths.iter().enumerate() {
                    let most = (0..processes)
                        .map(|process| {
                            sharing.workers_of(node).iter().filter(|worker| *worker / each == process).count()
                        })
                        .max();
                    assert!(most <= Some(width.div_ceil(processes) + 1), "{widths:?} {processes} {node} {most:?}");
                }
            }
        }
    }
}
