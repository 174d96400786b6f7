//! Runs in Slurm jobs, with stand-ins for Slurm's commands: what is submitted, what a run that waits shows, how it is
//! stopped, and what is said of jobs that fail. `scripts/cluster-check` does the same with Slurm itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::program::{PROGRAM, json, json_lines, small_task, started_by, stderr, stdout, until};

/// Each reads and writes the folder in which it stands: `squeue`'s answer is `queue`, the refusal of `sbatch` is
/// `refusal`, all calls are in `calls`.
const STAND_INS: [(&str, &str); 6] = [
    (
        "sbatch",
        r#"[ ! -f "$here/refusal" ] || { cat "$here/refusal" >&2; exit 1; }
[ -f "$here/queue" ] || echo '17|PENDING|Resources||N/A' >"$here/queue"
echo 17"#,
    ),
    (
        "squeue",
        r#"case "$*" in *=%T) cut -d '|' -f 2 "$here/queue" ;; *) cat "$here/queue" 2>/dev/null || true ;; esac"#,
    ),
    (
        "scancel",
        r#"echo '17|CANCELLED|None||2026-01-01T00:00:00' >"$here/queue""#,
    ),
    (
        "scontrol",
        r#"echo '17|PENDING|BeginTime||N/A' >"$here/queue""#,
    ),
    (
        "sinfo",
        "echo 'all|up|1/3/0/4|gpu:h100:8|64|infinite'; echo 'cpu|up|0/2/0/2|(null)|64|infinite'",
    ),
    ("srun", r#"shift; exec "$@""#),
];

struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    /// In a folder whose name a shell would take apart.
    fn new() -> Self {
        let cluster = Self {
            folder: tempfile::Builder::new()
                .prefix("it's $(a b) ")
                .tempdir()
                .unwrap(),
        };
        let bin = cluster.bin();
        fs::create_dir(&bin).unwrap();
        for (name, body) in STAND_INS {
            let text = format!(
                "#!/bin/sh\nhere=$(dirname \"$0\")\necho \"{name} $*\" >>\"$here/calls\"\n{body}\n"
            );
            fs::write(bin.join(name), text).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        small_task(cluster.path());
        cluster
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn bin(&self) -> PathBuf {
        self.path().join("bin")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.bin().join(name), text).unwrap();
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.bin().join("calls")).unwrap_or_default()
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = started_by(Command::new(program), self.path(), arguments);
        let path = format!(
            "{}:{}",
            self.bin().display(),
            std::env::var("PATH").unwrap()
        );
        command
            .env("PATH", path)
            .env_remove("SLURM_JOB_ID")
            .env("SBATCH_PARTITION", "another");
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.command(PROGRAM, arguments).output().unwrap()
    }

    fn train(&self, more: &[&str]) -> Output {
        let set = [
            "--set=max_steps=3",
            "--set=completions_per_prompt=4",
            "--set=prompt_groups_per_step=3",
        ];
        self.call(
            &[
                &["train", "task", "--runs", "runs", "--json"],
                &set[..],
                more,
            ]
            .concat(),
        )
    }

    /// On the CPUs of a node.
    fn submit(&self) -> PathBuf {
        PathBuf::from(
            json(&self.train(&["--slurm", "cpu", "--cpu"]))["path"]
                .as_str()
                .unwrap(),
        )
    }

    fn show(&self, run: &Path) -> Value {
        json(&self.call(&["runs", "show", run.to_str().unwrap(), "--json"]))
    }

    /// Status and cause.
    fn state(&self, run: &Path) -> (String, String) {
        let shown = self.show(run);
        let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
        (text("status"), text("cause"))
    }

    fn runs(&self) -> usize {
        fs::read_dir(self.path().join("runs")).map_or(0, |entries| entries.count())
    }

    /// As Slurm would start it on a node.
    fn job(&self, run: &Path) -> Command {
        let mut job = self.command("sh", &["job.sh"]);
        let log = fs::OpenOptions::new()
            .append(true)
            .open(run.join("worker.log"))
            .unwrap();
        job.current_dir(run)
            .env("SLURM_JOB_ID", "17")
            .env("SLURM_JOB_NODELIST", "n1");
        job.stdout(log.try_clone().unwrap()).stderr(log);
        job
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_run_waits_for_slurm_with_its_reason() {
    let cluster = Cluster::new();
    let document = json(&cluster.train(&[
        "--slurm",
        "all",
        "--nodes",
        "2",
        "--gpus-per-node",
        "4",
        "--time",
        "12:00:00",
    ]));
    let run = Path::new(document["path"].as_str().unwrap());
    assert_eq!(
        (document["job"].as_u64(), document["ready"].as_bool()),
        (Some(17), Some(false))
    );
    let calls = cluster.calls();
    let id = run.file_name().unwrap().to_str().unwrap();
    let expected = format!(
        "sbatch --parsable --job-name={id} --chdir {0} {0}/job.sh\n",
        run.display()
    );
    assert!(calls.contains(&expected), "{calls}");
    let script = fs::read_to_string(run.join("job.sh")).unwrap();
    for line in [
        "partition=all",
        "nodes=2",
        "ntasks-per-node=4",
        "gpus-per-node=4",
        "time=12:00:00",
        "requeue",
    ] {
        assert!(script.contains(&format!("#SBATCH --{line}\n")), "{script}");
    }
    assert!(
        script.contains("train --resume . --runs .. --ranks 8\n"),
        "{script}"
    );
    assert_eq!(
        [
            mode(run),
            mode(&run.join("job.sh")),
            mode(&run.join("worker.log"))
        ],
        [0o700, 0o600, 0o600]
    );
    let plan = [
        "--slurm",
        "all",
        "--nodes=2",
        "--gpus-per-node=4",
        "--time=12:00:00",
        "--plan",
    ];
    let plan = json(&cluster.train(&plan));
    assert_eq!(plan["script"], script);
    assert_eq!(
        (plan["device"].as_str(), plan["steps"].as_u64()),
        (Some("all: 2 nodes x 4 GPUs"), Some(3))
    );
    assert!(
        plan["memory"]["peak_bytes"].as_u64() > Some(0)
            && plan["memory"]["machine_bytes"].is_null(),
        "{plan}"
    );
    assert!(plan["pace"].is_null(), "{plan}");
    assert_eq!(cluster.runs(), 1);

    let shown = cluster.show(run);
    assert_eq!(shown["status"], "waiting");
    assert_eq!(
        shown["cause"],
        "Slurm job 17 in partition all, 2 nodes x 4 GPUs: Resources (not enough nodes are free)"
    );
    assert_eq!(
        (&shown["slurm"]["job"], &shown["slurm"]["reason"]),
        (&17.into(), &"Resources".into())
    );
    assert_eq!(shown["config"]["ranks"], 8);
    let listed = stdout(&cluster.call(&["runs", "list", "--runs", "runs"]));
    assert!(
        listed.contains("waiting (Resources)") && listed.contains("slurm_job"),
        "{listed}"
    );
    let fields = [
        "runs",
        "list",
        "--runs",
        "runs",
        "--json",
        "--where",
        "slurm_job=17 and nodes=2",
    ];
    assert_eq!(json_lines(&cluster.call(&fields)).len(), 1);

    // Nobody else computes it or takes it away, and it answers no request.
    for arguments in [
        vec!["train", "--resume"],
        vec!["train", "--slurm", "all", "--resume"],
        vec!["runs", "remove", "--yes"],
    ] {
        let refused = cluster.call(&[arguments, vec![run.to_str().unwrap()]].concat());
        assert!(
            stderr(&refused).contains("is in use by Slurm job 17"),
            "{}",
            stderr(&refused)
        );
    }
    let refused = cluster.call(&["runs", "pause", run.to_str().unwrap()]);
    assert!(
        stderr(&refused).contains("waits for Slurm job 17"),
        "{}",
        stderr(&refused)
    );

    // Without Slurm the last answer stays, with its time once that is old.
    let facts = fs::read_to_string(run.join("slurm.json")).unwrap();
    let asked = facts
        .lines()
        .find(|line| line.contains("asked_ms"))
        .unwrap();
    fs::write(
        run.join("slurm.json"),
        facts.replace(asked, "\"asked_ms\": 1000,"),
    )
    .unwrap();
    cluster.write(
        "squeue",
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n",
    );
    let shown = cluster.call(&["runs", "show", run.to_str().unwrap()]);
    assert!(
        stdout(&shown).contains("; as of 1970-01-01"),
        "{}",
        stdout(&shown)
    );
    assert!(
        stderr(&shown).contains("note: squeue: slurm_load_jobs error: Unable to contact"),
        "{}",
        stderr(&shown)
    );
}

#[test]
fn a_run_that_waits_for_slurm_is_stopped_and_submitted_again() {
    let cluster = Cluster::new();
    let run = cluster.submit();
    assert_eq!(cluster.state(&run).0, "waiting");
    let stopped = json(&cluster.call(&["runs", "stop", run.to_str().unwrap(), "--json"]));
    assert_eq!(
        (&stopped["text"], &stopped["done"]),
        (&"cancelled Slurm job 17".into(), &true.into())
    );
    assert!(
        cluster.calls().contains("scancel 17\n"),
        "{}",
        cluster.calls()
    );
    let stopped = (
        "interrupted".to_owned(),
        "stopped while it waited for Slurm (Slurm job 17 is cancelled)".to_owned(),
    );
    assert_eq!(cluster.state(&run), stopped);
    cluster.write("queue", "17|PENDING|Priority||N/A\n");
    let again = json(&cluster.call(&["runs", "resume", run.to_str().unwrap(), "--json"]));
    assert_eq!(again["job"], 17);
    assert!(
        cluster
            .state(&run)
            .1
            .contains("1 node x 1 rank: Priority (other jobs come first)")
    );
    // Somebody else cancels it.
    cluster.write("queue", "17|CANCELLED|None||2999-01-01T00:00:00\n");
    let (status, cause) = cluster.state(&run);
    assert_eq!(
        (status.as_str(), cause.as_str()),
        (
            "interrupted",
            "Slurm job 17 was cancelled before its worker started"
        )
    );
}

#[test]
fn what_cannot_be_submitted_leaves_no_run() {
    let cluster = Cluster::new();
    let check = |more: &[&str], expected: &str| {
        let refused = cluster.train(more);
        assert!(
            !refused.status.success() && stderr(&refused).contains(expected),
            "{}",
            stderr(&refused)
        );
        assert_eq!(cluster.runs(), 0, "{more:?}");
    };
    check(
        &["--slurm", "nope"],
        "there is no partition `nope`: use one of all, cpu",
    );
    check(
        &["--slurm", "cpu"],
        "partition cpu has no GPUs: name another with --slurm, or add --cpu",
    );
    check(
        &["--slurm", "all", "--nodes", "5", "--gpus-per-node", "1"],
        "--nodes: partition all has 4 nodes",
    );
    check(
        &["--slurm", "all", "--nodes", "2"],
        "1 rank on 2 nodes: each node takes the same number",
    );
    check(
        &["--slurm", "all", "--gpus-per-node", "2", "--ranks", "3"],
        "2 GPUs, one rank each, but --ranks 3",
    );
    check(
        &["--slurm", "all", "--time", "soon"],
        "--time: `soon` is not a valid Slurm time",
    );
    check(&["--nodes", "2"], "--slurm <PARTITION>");
    cluster.write(
        "refusal",
        "sbatch: error: Batch job submission failed: Invalid account or account/partition\n",
    );
    check(
        &["--slurm", "all"],
        "sbatch: error: Batch job submission failed: Invalid account",
    );
    check(
        &["--slurm", "all"],
        "set what the cluster asks for (SBATCH_ACCOUNT",
    );
    let down = "#!/bin/sh\necho 'slurm_load_partitions: Unable to contact slurm controller (connect failure)' >&2; exit 1\n";
    cluster.write("sinfo", down);
    check(
        &["--slurm", "all"],
        "sinfo: slurm_load_partitions: Unable to contact slurm controller (connect failure); check that `sinfo` answers",
    );
    fs::remove_file(cluster.bin().join("sbatch")).unwrap();
    fs::remove_file(cluster.bin().join("sinfo")).unwrap();
    let mut without = cluster.command(
        PROGRAM,
        &["train", "task", "--runs", "runs", "--slurm", "all"],
    );
    let output = without.env("PATH", cluster.bin()).output().unwrap();
    assert!(
        stderr(&output).contains("sinfo was not found: Slurm's commands are missing here"),
        "{}",
        stderr(&output)
    );
    assert_eq!(cluster.runs(), 0);
}

#[test]
fn a_job_that_ends_before_its_worker_says_why() {
    let cluster = Cluster::new();
    let check = |queue: &str, output: &str, expected: (&str, &str)| {
        let run = cluster.submit();
        fs::write(run.join("worker.log"), output).unwrap();
        cluster.write("queue", queue);
        let (status, cause) = cluster.state(&run);
        assert!(
            status == expected.0 && cause.contains(expected.1),
            "{status}: {cause}"
        );
        let asked = cluster.calls();
        assert_eq!(
            (cluster.state(&run).0.as_str(), cluster.calls()),
            (expected.0, asked),
            "asked again"
        );
    };
    let failed = "17|FAILED|NonZeroExitCode|n1|2999-01-01T00:00:00\n";
    let last =
        "(FAILED, NonZeroExitCode); last line of worker.log: srun: error: grpo-tui: No such file";
    let output = "hello\nsrun: error: grpo-tui: No such file\nsrun: error: n1: task 0: Exited with exit code 2\n\n";
    check(failed, output, ("failed", last));
    let unshared = "17|FAILED|JobLaunchFailure|n1|2999-01-01T00:00:00\n";
    check(
        unshared,
        "",
        (
            "failed",
            "could not be started on n1: does it see this folder? choose one that all nodes share",
        ),
    );
    check(
        "",
        "",
        (
            "failed",
            "Slurm job 17 is no longer known to Slurm, and its worker never started; worker.log is empty",
        ),
    );
    let run = cluster.submit();
    cluster.write("queue", "17|RUNNING|None|n1|2999-01-01T00:00:00\n");
    let (status, cause) = cluster.state(&run);
    assert_eq!(
        (&*status, &*cause),
        (
            "starting",
            "Slurm job 17 runs on n1; its worker has not started yet"
        )
    );
}

#[test]
fn a_job_with_gpus_that_cannot_be_used_does_not_compute_on_the_cpu() {
    let cluster = Cluster::new();
    let submitted = json(&cluster.train(&["--slurm", "all", "--gpus-per-node", "1"]));
    let run = PathBuf::from(submitted["path"].as_str().unwrap());
    let ended = cluster
        .job(&run)
        .env("CUDA_VISIBLE_DEVICES", "")
        .status()
        .unwrap();
    let log = fs::read_to_string(run.join("worker.log")).unwrap();
    assert!(
        ended.code() == Some(1) && log.contains("no GPU of the Slurm job can be used: "),
        "{log}"
    );
    cluster.write(
        "queue",
        "17|FAILED|NonZeroExitCode|n1|2999-01-01T00:00:00\n",
    );
    let (status, cause) = cluster.state(&run);
    assert!(
        status == "failed" && cause.contains("no GPU of the Slurm job can be used"),
        "{status}: {cause}"
    );
}

#[test]
fn a_job_computes_the_run_and_goes_on_after_it_was_ended() {
    let cluster = Cluster::new();
    let run = cluster.submit();
    let path = run.to_str().unwrap();
    cluster.write("queue", "17|RUNNING|None|n1|2026-01-01T00:00:00\n");
    // Slows the steps down, so that the signal comes within one.
    let mut first = cluster
        .job(&run)
        .env("GRPO_TUI_FAULT_DELAY", "line.before:250")
        .spawn()
        .unwrap();
    let log = || fs::read_to_string(run.join("worker.log")).unwrap();
    until("the first step is done", || log().contains("step 1/3"));
    assert_eq!(cluster.show(&run)["slurm"]["node_list"], "n1");
    // As Slurm does: the ranks, and the shell.
    let worker: Value = serde_json::from_slice(&fs::read(run.join("state.json")).unwrap()).unwrap();
    let worker = worker["pid"].as_u64().unwrap();
    // A preempted job gets it more than once.
    for pid in [worker, worker, first.id().into(), worker] {
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid.to_string()])
                .status()
                .unwrap()
                .success()
        );
    }
    assert_eq!(first.wait().unwrap().code(), Some(75), "{}", log());
    assert!(
        cluster.calls().contains("scontrol requeue 17\n"),
        "{}",
        cluster.calls()
    );
    let (status, cause) = cluster.state(&run);
    assert!(
        status == "waiting" && cause.contains("BeginTime (queued again"),
        "{status}: {cause}"
    );
    let steps = fs::read_dir(run.join("checkpoints")).unwrap().count();
    assert!(steps > 1, "{}", log());
    // Started again, from the checkpoint that was saved then.
    let mut second = cluster
        .job(&run)
        .env("SLURM_RESTART_COUNT", "1")
        .spawn()
        .unwrap();
    assert!(second.wait().unwrap().success(), "{}", log());
    assert!(log().contains("resumed from step"), "{}", log());
    let shown = json(&cluster.call(&["runs", "show", path, "--json"]));
    assert_eq!(
        (shown["status"].as_str(), shown["step"].as_u64()),
        (Some("finished"), Some(3))
    );
    // The next such run there may take as long.
    let plan = json(&cluster.train(&["--slurm", "cpu", "--cpu", "--plan"]));
    assert!(
        plan["pace"]["seconds_per_step"].as_f64() > Some(0.0),
        "{plan}"
    );
}
