//! The tables `arborist prove` ends with.

use super::finish::Bounds;
use arborist_core::circuit::Kind;
use arborist_core::engine::{PathStep, Report, Share};
use std::fmt::Write;

/// The critical path's steps beyond these are left out in the middle.
const MAX_STEPS: usize = 24;
/// Workers beyond these are summed up.
const MAX_WORKERS: usize = 12;

/// The report as text for people.
pub fn render(report: &Report, bounds: &Bounds) -> String {
    let mut out = String::new();
    // writing to a String can't fail
    let _ = kinds(&mut out, report)
        .and_then(|()| makespan(&mut out, report, bounds))
        .and_then(|()| path(&mut out, &report.critical_path))
        .and_then(|()| shares(&mut out, &report.shares));
    out
}

fn kinds(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "{:<8}{:>7}{:>8}{:>9}{:>9}{:>10}{:>12}{:>9}",
        "kind", "count", "reused", "mean s", "p95 s", "CPU s", "bytes", "retries"
    )?;
    let mut total = (0, 0, 0.0, 0, 0);
    for kind in report.kinds.iter().filter(|kind| kind.count > 0) {
        writeln!(
            out,
            "{:<8}{:>7}{:>8}{:>9.2}{:>9.2}{:>10.1}{:>12}{:>9}",
            kind.kind,
            kind.count,
            kind.reused,
            kind.mean_seconds,
            kind.p95_seconds,
            kind.cpu_seconds,
            kind.bytes,
            kind.retries
        )?;
        total.0 += kind.count;
        total.1 += kind.reused;
        total.2 += kind.cpu_seconds;
        total.3 += kind.bytes;
        total.4 += kind.retries;
    }
    let (count, reused, cpu, bytes, retries) = total;
    writeln!(out, "{:<8}{count:>7}{reused:>8}{:>9}{:>9}{cpu:>10.1}{bytes:>12}{retries:>9}", "all", "", "")
}

fn makespan(out: &mut String, report: &Report, bounds: &Bounds) -> std::fmt::Result {
    let (makespan, bound) = (report.makespan_seconds, bounds.measured_seconds);
    write!(out, "\nmakespan {makespan:.2} s")?;
    if bound > 0.0 {
        write!(out, "; lower bound of these proofs {bound:.2} s: {:.3} times", makespan / bound)?;
    }
    if let Some(at_means) = bounds.at_means_seconds.filter(|bound| *bound > 0.0) {
        write!(out, "; if each took its kind's mean {at_means:.2} s: {:.3} times", makespan / at_means)?;
    }
    writeln!(out)
}

fn path(out: &mut String, steps: &[PathStep]) -> std::fmt::Result {
    if steps.is_empty() {
        return Ok(());
    }
    writeln!(out, "\ncritical path\n{:<12}{:>10}{:>10}  worker", "circuit", "waited s", "proved s")?;
    let skipped = steps.len().saturating_sub(MAX_STEPS);
    let head = if skipped > 0 { MAX_STEPS / 2 } else { steps.len() };
    for (i, step) in steps.iter().enumerate() {
        if i >= head && i < head + skipped {
            if i == head {
                writeln!(out, "… {skipped} steps …")?;
            }
            continue;
        }
        writeln!(
            out,
            "{:<12}{:>10.2}{:>10.2}  {}",
            step.circuit,
            step.waited_millis as f64 / 1e3,
            step.millis as f64 / 1e3,
            step.worker
        )?;
    }
    Ok(())
}

fn shares(out: &mut String, shares: &[Share]) -> std::fmt::Result {
    if shares.is_empty() {
        return Ok(());
    }
    write!(out, "\n{:<24}", "who proved what")?;
    for kind in Kind::ALL {
        write!(out, "{kind:>8}")?;
    }
    writeln!(out, "{:>10}", "s")?;
    for share in shares.iter().take(MAX_WORKERS) {
        row(out, &share.worker, &share.proofs, share.millis)?;
    }
    let rest = shares.get(MAX_WORKERS..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    let mut sum = [0; 5];
    for share in rest {
        sum.iter_mut().zip(share.proofs).for_each(|(sum, n)| *sum += n);
    }
    row(out, &format!("{} others", rest.len()), &sum, rest.iter().map(|s| s.millis).sum())
}

fn row(out: &mut String, who: &str, proofs: &[u32; 5], millis: u64) -> std::fmt::Result {
    write!(out, "{who:<24}")?;
    for n in proofs {
        write!(out, "{n:>8}")?;
    }
    writeln!(out, "{:>10.1}", millis as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_core::engine::KindReport;
    use arborist_core::ids::TaskId;

    const BOUNDS: Bounds = Bounds { measured_seconds: 2.0, at_means_seconds: Some(2.5) };

    fn report() -> Report {
        let vm = KindReport {
            kind: "vm".into(),
            count: 2,
            reused: 1,
            mean_seconds: 0.5,
            p95_seconds: 0.75,
            cpu_seconds: 1.5,
            bytes: 200_000,
            retries: 1,
        };
        let step = |circuit: &str| PathStep {
            circuit: circuit.into(),
            task: TaskId([0; 32]),
            worker: "w-1".into(),
            waited_millis: 20,
            millis: 500,
        };
        Report {
            kinds: vec![vm, KindReport { kind: "merge".into(), ..Default::default() }],
            makespan_seconds: 3.0,
            shares: vec![Share { worker: "w-1".into(), proofs: [2, 0, 1, 0, 1], millis: 1500 }],
            critical_path: vec![step("vm"), step("root/0")],
        }
    }

    #[test]
    fn the_whole_summary() {
        let expected = "\
kind      count  reused   mean s    p95 s     CPU s       bytes  retries
vm            2       1     0.50     0.75       1.5      200000        1
all           2       1                         1.5      200000        1

makespan 3.00 s; lower bound of these proofs 2.00 s: 1.500 times; if each took its kind's mean 2.50 s: 1.200 times

critical path
circuit       waited s  proved s  worker
vm                0.02      0.50  w-1
root/0            0.02      0.50  w-1

who proved what               vm  kernel    base   merge    root         s
w-1                            2       0       1       0       1       1.5
";
        assert_eq!(render(&report(), &BOUNDS), expected);
    }

    #[test]
    fn long_lists_are_cut() {
        let mut long = report();
        long.critical_path = vec![long.critical_path[0].clone(); MAX_STEPS + 5];
        long.shares = vec![long.shares[0].clone(); MAX_WORKERS + 3];
        let text = render(&long, &BOUNDS);
        assert!(text.contains("… 5 steps …") && text.contains("3 others"), "{text}");
    }
}
