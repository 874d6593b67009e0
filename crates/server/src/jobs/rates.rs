//! Turns two successive reports of a process into what people want to see: rates, ratios, the least watermark.

use std::collections::HashSet;

use tidemill_core::report::{Report, SubtaskReport, VertexReport};

use super::model::Vertex;

/// The vertices of `now`, with rates against `before` when that is an earlier report of the same process.
pub fn vertices(before: Option<&Report>, now: &Report) -> Vec<Vertex> {
    let before = before.filter(|before| same_process(before, now));
    let elapsed_ms = before.map_or(0, |before| now.now_ms - before.now_ms);
    now.vertices
        .iter()
        .map(|vertex| {
            let earlier = before.and_then(|report| report.vertices.iter().find(|other| other.id == vertex.id));
            one(earlier, vertex, elapsed_ms)
        })
        .collect()
}

/// Sums over a whole job.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Records the sources read, a second.
    pub records_in_per_s: f64,
    /// Records the sinks wrote, a second.
    pub records_out_per_s: f64,
    /// Records known to wait in the sources.
    pub lag_records: Option<u64>,
    /// The least watermark of all vertices.
    pub watermark_ms: Option<i64>,
}

/// The sums over the vertices: sources are those nothing flows into, sinks those nothing flows out of.
pub fn totals(report: &Report, vertices: &[Vertex]) -> Totals {
    let fed: HashSet<&str> = report.edges.iter().map(|edge| edge.to.as_str()).collect();
    let feeding: HashSet<&str> = report.edges.iter().map(|edge| edge.from.as_str()).collect();
    let sources = vertices.iter().filter(|vertex| !fed.contains(vertex.id.as_str()));
    let sinks = vertices.iter().filter(|vertex| !feeding.contains(vertex.id.as_str()));
    Totals {
        records_in_per_s: sources.map(|vertex| vertex.records_in_per_s).sum(),
        records_out_per_s: sinks.map(|vertex| vertex.records_out_per_s).sum(),
        lag_records: sum_known(vertices.iter().map(|vertex| vertex.pending_records)),
        watermark_ms: vertices.iter().filter_map(|vertex| vertex.watermark_ms).min(),
    }
}

fn same_process(before: &Report, now: &Report) -> bool {
    before.pid == now.pid && before.start_ms == now.start_ms && before.now_ms < now.now_ms
}

fn one(before: Option<&VertexReport>, now: &VertexReport, elapsed_ms: i64) -> Vertex {
    let sum = |vertex: &VertexReport, pick: fn(&SubtaskReport) -> u64| vertex.subtasks.iter().map(pick).sum::<u64>();
    let grown =
        |pick: fn(&SubtaskReport) -> u64| before.map_or(0, |before| sum(now, pick).saturating_sub(sum(before, pick)));
    let per_s = |count: u64| {
        if elapsed_ms > 0 { count as f64 * 1000.0 / elapsed_ms as f64 } else { 0.0 }
    };
    let subtasks = now.subtasks.len().max(1) as f64;
    let ratio = |ms: u64| {
        if elapsed_ms > 0 { (ms as f64 / elapsed_ms as f64 / subtasks).min(1.0) } else { 0.0 }
    };
    Vertex {
        id: now.id.clone(),
        name: now.name.clone(),
        operators: now.operators.iter().map(Into::into).collect(),
        parallelism: now.parallelism,
        records_in: sum(now, |s| s.records_in),
        records_out: sum(now, |s| s.records_out),
        records_in_per_s: per_s(grown(|s| s.records_in)),
        records_out_per_s: per_s(grown(|s| s.records_out)),
        late_dropped: sum(now, |s| s.late_dropped),
        dead_letters: sum(now, |s| s.dead_letters),
        watermark_ms: now.subtasks.iter().filter_map(|s| s.watermark_ms).min(),
        busy_ratio: ratio(grown(|s| s.busy_ms)),
        backpressured_ratio: ratio(grown(|s| s.backpressured_ms)),
        pending_records: sum_known(now.subtasks.iter().map(|s| s.pending_records)),
        fetch_lag_ms: now.subtasks.iter().filter_map(|s| s.fetch_lag_ms).max(),
        emit_lag_ms: now.subtasks.iter().filter_map(|s| s.emit_lag_ms).max(),
        watermark_lag_ms: now.subtasks.iter().filter_map(|s| s.watermark_lag_ms).max(),
        source_idle_ms: now.subtasks.iter().filter_map(|s| s.source_idle_ms).min(),
    }
}

/// The sum of what is known; `None` when nothing is.
fn sum_known(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    values.fold(None, |sum, value| match (sum, value) {
        (None, value) => value,
        (sum, None) => sum,
        (Some(sum), Some(value)) => Some(sum.saturating_add(value)),
    })
}

#[cfg(test)]
mod tests {
    use tidemill_core::report::EdgeReport;

    use super::*;

    fn report(now_ms: i64, read: u64, written: u64) -> Report {
        let subtask = |records_in, records_out| SubtaskReport {
            records_in,
            records_out,
            busy_ms: records_in / 2,
            watermark_ms: Some(now_ms + records_in as i64),
            pending_records: Some(7),
            emit_lag_ms: Some(records_in as i64),
            source_idle_ms: Some(records_in),
            ..SubtaskReport::default()
        };
        let vertex = |id: &str, subtasks| VertexReport { id: id.into(), subtasks, ..VertexReport::default() };
        Report {
            pid: 9,
            start_ms: 1,
            now_ms,
            vertices: vec![
                vertex("source", vec![subtask(read, read), subtask(read, read)]),
                vertex("sink", vec![SubtaskReport { records_out: written, ..SubtaskReport::default() }]),
            ],
            edges: vec![EdgeReport { from: "source".into(), to: "sink".into(), ship: "HASH".into() }],
            ..Report::default()
        }
    }

    #[test]
    fn rates_come_from_two_reports_of_one_process() {
        let (before, now) = (report(1000, 100, 10), report(1500, 600, 20));
        let seen = vertices(Some(&before), &now);
        assert_eq!((seen[0].records_in, seen[0].records_in_per_s), (1200, 2000.0));
        assert_eq!(seen[0].busy_ratio, 0.5);
        assert_eq!((seen[0].emit_lag_ms, seen[0].source_idle_ms, seen[1].emit_lag_ms), (Some(600), Some(600), None));
        let totals = totals(&now, &seen);
        assert_eq!((totals.records_in_per_s, totals.records_out_per_s), (2000.0, 20.0));
        assert_eq!((totals.lag_records, totals.watermark_ms), (Some(14), Some(2100)));

        let other = Report { pid: 10, ..before };
        assert_eq!(vertices(Some(&other), &now)[0].records_in_per_s, 0.0);
        assert_eq!(vertices(None, &now)[0].records_in_per_s, 0.0);
    }
}
