//! Tells whoever finds room for the job how many slots it takes: only the job knows its slot sharing groups, and only when
//! it has started.

use tidemill_core::slots::SlotDemand;
use tidemill_core::{Error, Result};

use super::settings::JobSettings;
use crate::graph::Graph;

/// The slots the job takes, by the parallelism it is started with.
pub(super) fn demand(graph: &Graph, settings: &JobSettings) -> SlotDemand {
    let started_with = settings.cluster.as_ref().and_then(|cluster| cluster.room).map(|room| room.parallelism);
    // Another parallelism than that is the program's own, whatever it is started with.
    graph.slot_demand(settings.parallelism.filter(|own| Some(*own) != started_with))
}

/// Writes the demand down where somebody has found room for the job, and refuses to start where it does not fit in.
pub(super) fn check(demand: &SlotDemand, workers: usize, settings: &JobSettings) -> Result<()> {
    let Some(cluster) = settings.cluster.as_ref().filter(|cluster| cluster.process == 0) else { return Ok(()) };
    let (Some(room), Some(dir)) = (cluster.room, &settings.job_dir) else { return Ok(()) };
    let path = dir.join(SlotDemand::FILE);
    let text = serde_json::to_vec(demand).map_err(|e| Error::bug(format!("the slots cannot be written down: {e}")))?;
    std::fs::write(&path, text).map_err(|e| Error::io(format!("write `{}`", path.display()), e))?;
    if workers > room.slots {
        let groups = demand.groups.len();
        return Err(Error::full(format!("the job takes {workers} slots, but has {}", room.slots))
            .hint(format!("it has {groups} slot sharing groups; the server starts it again where there are as many")));
    }
    Ok(())
}
