//! The end-to-end tests: each story is one file of `stories/`, run on the cluster that KUBECONFIG names.
//!
//! Not a `#[test]`: the stories share one installation, run in an order, and want more than `cargo test` gives.

mod lab;
mod stories;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use lab::install::NAMESPACE;
use lab::{Flavour, Lab, Scene, Settings, dump};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use stories::{Needs, STORIES, Story};

/// Runs Arborist's end-to-end stories on the cluster that KUBECONFIG names. kubectl and helm must be on PATH.
#[derive(Debug, Parser)]
struct Args {
    /// Run only this story; may be repeated
    #[arg(long = "story", value_name = "NAME")]
    stories: Vec<String>,
    /// Run all so many times
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Name the stories, run none
    #[arg(long)]
    list: bool,
    /// Go on after a story that failed
    #[arg(long)]
    keep_going: bool,
    /// Leave everything installed at the end
    #[arg(long)]
    keep: bool,
    /// The repository
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."), env = "ARBORIST_E2E_REPOSITORY")]
    repository: PathBuf,
    /// The program arborist, of the same build as the images
    #[arg(long, env = "ARBORIST_E2E_PROGRAM")]
    arborist: PathBuf,
    /// Where the nodes pull the images `arborist` and `arborist-worker` from, as `registry.example/team` [default: the chart's own]
    #[arg(long, env = "ARBORIST_E2E_REGISTRY")]
    registry: Option<String>,
    /// Image of SeaweedFS whose entry point is `weed`, for the stories with two operators
    #[arg(long, env = "ARBORIST_E2E_S3_IMAGE", default_value = "localhost/weed:1")]
    s3_image: String,
    /// Tag of the images [default: the chart's own]
    #[arg(long, env = "ARBORIST_E2E_TAG")]
    tag: Option<String>,
    /// The tool of the local cluster, for faults of nodes and of the control plane
    #[arg(long, env = "ARBORIST_E2E_CLUSTER")]
    cluster: Option<PathBuf>,
    /// Address under which pods reach this process [default: the one the nodes are reached from]
    #[arg(long, env = "ARBORIST_E2E_ADDRESS")]
    address: Option<IpAddr>,
    /// Nodes and pods of the story `scale`
    #[command(flatten)]
    scale: lab::Scale,
}

/// How a story ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Passed,
    Skipped(&'static str),
    Failed(String),
}

struct Row {
    round: u32,
    story: &'static str,
    end: End,
    took: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for story in STORIES {
            println!("{:16} {}", story.name, story.about);
        }
        return ExitCode::SUCCESS;
    }
    match run(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> Result<bool> {
    // an error means that another provider is set already: then there is one
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chosen = choose(&args.stories)?;
    let lab = open(&args).await?;
    let mut rows = vec![];
    'rounds: for round in 1..=args.repeat {
        for (number, story) in chosen.iter().enumerate() {
            println!("== {} ({}/{}, round {round}): {}", story.name, number + 1, chosen.len(), story.about);
            let start = Instant::now();
            let end = tell(&lab, story, round, &chosen).await;
            let took = start.elapsed();
            println!("== {}: {} in {:.1} s", story.name, told(&end), took.as_secs_f64());
            let failed = matches!(end, End::Failed(_));
            rows.push(Row { round, story: story.name, end, took });
            if failed && !args.keep_going {
                break 'rounds;
            }
        }
        lab.spoiled().await;
    }
    let passed = summary(&rows);
    if passed && !args.keep {
        clean(&lab).await?;
    }
    Ok(passed)
}

fn choose(names: &[String]) -> Result<Vec<&'static Story>> {
    if let Some(unknown) = names.iter().find(|name| !STORIES.iter().any(|s| s.name == **name)) {
        bail!("there is no story `{unknown}`: --list names them");
    }
    let wanted = |story: &&Story| names.is_empty() || names.iter().any(|name| name == story.name);
    Ok(STORIES.iter().filter(wanted).collect())
}

async fn open(args: &Args) -> Result<Lab> {
    let repository = args.repository.canonicalize().context("the repository")?;
    let settings = Settings {
        out: repository.join("out/e2e"),
        repository,
        arborist: args.arborist.canonicalize().with_context(|| args.arborist.display().to_string())?,
        registry: args.registry.clone(),
        s3_image: args.s3_image.clone(),
        tag: args.tag.clone(),
        cluster_tool: args.cluster.clone(),
        address: args.address,
        scale: args.scale.clone(),
    };
    let lab = Lab::open(settings).await?;
    lab.refuse_others().await?;
    lab.namespaces_gone().await?;
    lab.install_crds().await?;
    Ok(lab)
}

/// Runs one story: installs what it needs, makes its namespace, and leaves a dump if it fails.
async fn tell(lab: &Lab, story: &'static Story, round: u32, chosen: &[&Story]) -> End {
    if story.needs_faults && lab.settings.cluster_tool.is_none() {
        return End::Skipped("takes processes or nodes away: only on the local cluster");
    }
    let mut hasher = DefaultHasher::new();
    (story.name, round, lab.run).hash(&mut hasher);
    let namespace = namespace_of(story);
    // below 2^53, so that no JSON reader rounds it
    let scene = Scene { lab, story: story.name, namespace, seed: hasher.finish() >> 12 };
    let told = tokio::time::timeout(story.limit, whole(&scene, story, chosen)).await;
    let result = told.unwrap_or_else(|_| Err(anyhow!("it was not over after {} s", story.limit.as_secs())));
    if let Err(error) = result {
        eprintln!("!! {}: {error:#}", story.name);
        if let Err(error) = dump::dump(&scene).await {
            eprintln!("   no dump: {error:#}");
        }
        lab.spoiled().await;
        return End::Failed(format!("{error:#}"));
    }
    End::Passed
}

/// A story with what is before and after it.
async fn whole(scene: &Scene<'_>, story: &Story, chosen: &[&Story]) -> Result<()> {
    prepare(scene, story, chosen).await.context("before the story")?;
    (story.tell)(scene).await?;
    leave(scene, story).await.context("after the story")
}

fn namespace_of(story: &Story) -> String {
    format!("e2e-{}", story.name)
}

async fn prepare(scene: &Scene<'_>, story: &Story, chosen: &[&Story]) -> Result<()> {
    let lab = scene.lab;
    match story.needs {
        Needs::Cluster => lab.make_namespace(&scene.namespace).await,
        Needs::Operator(Flavour::Pair) => {
            // the operators watch these namespaces alone: all of them exist before and until the end
            let pair = chosen.iter().filter(|s| s.needs == Needs::Operator(Flavour::Pair));
            let watched: Vec<String> = pair.map(|s| namespace_of(s)).collect();
            lab.ensure(Flavour::Pair, &watched).await
        }
        Needs::Operator(flavour) => {
            lab.ensure(flavour, &[]).await?;
            lab.make_namespace(&scene.namespace).await
        }
    }
}

async fn leave(scene: &Scene<'_>, story: &Story) -> Result<()> {
    scene.lab.clear(scene).await?;
    if story.needs != Needs::Operator(Flavour::Pair) {
        scene.lab.delete_namespace(&scene.namespace).await?;
    }
    Ok(())
}

async fn clean(lab: &Lab) -> Result<()> {
    lab.namespaces_gone().await?;
    lab.uninstall().await?;
    lab.stop_s3().await?;
    lab::shell::run("helm", &["uninstall", "arborist-crds", "-n", NAMESPACE, "--ignore-not-found"], "")
        .await?;
    Ok(())
}

fn told(end: &End) -> &str {
    match end {
        End::Passed => "passed",
        End::Skipped(_) => "skipped",
        End::Failed(_) => "FAILED",
    }
}

/// Prints what became of every story; whether none failed.
fn summary(rows: &[Row]) -> bool {
    println!("\n{:<6} {:<16} {:<8} {:>8}", "round", "story", "end", "seconds");
    for row in rows {
        let why = match &row.end {
            End::Passed => "",
            End::Skipped(why) => why,
            End::Failed(why) => why.lines().next().unwrap_or_default(),
        };
        let seconds = row.took.as_secs_f64();
        println!("{:<6} {:<16} {:<8} {seconds:>8.1}  {why}", row.round, row.story, told(&row.end));
    }
    let failed = rows.iter().filter(|r| matches!(r.end, End::Failed(_))).count();
    let total: f64 = rows.iter().map(|r| r.took.as_secs_f64()).sum();
    println!("{} stories, {failed} failed, {total:.0} s", rows.len());
    failed == 0
}
