//! `grpo-tui doctor`: what runs depend on here: logout, engine, GPUs, folders, disk, terminal.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use super::output::is_captured;
use super::{Outcome, print, print_indented};
use crate::page::text::render;
use crate::page::{Block, Cell, Fact, Row, Table};
use crate::plan::free_disk_bytes;
use crate::run::{Device, FileSystem, Gpu, RunFolders, holder, slots_folder};
use crate::sandbox::{Machine, Tried, machine, try_promises};

/// For all sandbox probes together.
const PROMISES_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Runs folder to check [default: the workspace's runs/, else the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Findings {
    /// Whether systemd-logind kills a user's processes at logout; `None` if it does not answer.
    kills_at_logout: Option<bool>,
    engine: EngineReport,
    /// Isolation of scoring programs from the machine.
    isolation: IsolationReport,
    slots: Vec<SlotReport>,
    folders: Vec<Folder>,
    terminal: Terminal,
    #[cfg(feature = "view")]
    view: ViewReport,
}

#[derive(Serialize)]
struct IsolationReport {
    #[serde(flatten)]
    machine: &'static Machine,
    /// Sandbox probes with their results.
    promises: Vec<Tried>,
}

/// The default device and the reason for it.
#[derive(Serialize)]
struct EngineReport {
    /// `gpu`, `cpu`, or `none` without the engine.
    uses: &'static str,
    why: String,
    /// Files of the loaded NVIDIA libraries.
    libraries: Vec<String>,
    /// NCCL's file, or why it cannot be loaded. Absent if no GPU can be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    nccl: Option<String>,
}

/// Appearance of the workbench here, and the user's files that determine it.
#[cfg(feature = "view")]
#[derive(Serialize)]
struct ViewReport {
    theme: String,
    colours: &'static str,
    ascii: bool,
    mouse: bool,
    low_bandwidth: bool,
    copies_through: &'static str,
    looked_for: Vec<LookupResult>,
    files: Vec<PathBuf>,
    notes: Vec<String>,
}

#[cfg(feature = "view")]
#[derive(Serialize)]
struct LookupResult {
    what: &'static str,
    path: PathBuf,
    exists: bool,
}

#[derive(Serialize)]
struct SlotReport {
    device: String,
    /// Name, UUID and driver of a GPU.
    is: String,
    /// The run that holds the slot.
    holder: Option<String>,
    /// Other processes on a GPU.
    in_use: Option<String>,
}

#[derive(Serialize)]
struct Folder {
    used_for: &'static str,
    path: Option<PathBuf>,
    exists: bool,
    file_system: String,
    network: bool,
    free_bytes: Option<u64>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Terminal {
    output_is_terminal: bool,
    term: String,
    color_term: String,
    utf8: bool,
    ssh: bool,
    multiplexer: Option<&'static str>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let run_folders = RunFolders::discover(arguments.runs.as_deref(), &std::env::current_dir()?);
    let findings = look(&run_folders);
    if arguments.json {
        print_indented(&serde_json::to_value(&findings)?)
    } else {
        print(&render(&page(&findings)))
    }
}

fn look(run_folders: &RunFolders) -> Findings {
    let slots = slots_folder();
    let project = directories::ProjectDirs::from("", "", "grpo-tui");
    let of = |read: fn(&directories::ProjectDirs) -> &Path| {
        project.as_ref().map(|folders| read(folders).to_owned())
    };
    let folders = vec![
        folder("runs", Some(run_folders.for_new_runs().to_owned()), None),
        folder("data", of(directories::ProjectDirs::data_dir), None),
        folder("config", of(directories::ProjectDirs::config_dir), None),
        folder("cache", of(directories::ProjectDirs::cache_dir), None),
        folder(
            "slots",
            slots.as_ref().ok().cloned(),
            slots.as_ref().err().map(ToString::to_string),
        ),
    ];
    let slot = |device: Device, is: String, in_use: Option<String>| {
        let holder = slots
            .as_ref()
            .ok()
            .and_then(|folder| holder(folder, &device))
            .map(|holder| holder.to_string());
        SlotReport {
            device: device.described(),
            is,
            holder,
            in_use,
        }
    };
    let of_gpu = |(ordinal, gpu): (usize, Gpu)| {
        let is = format!("{} {}, driver {}", gpu.name, gpu.uuid, gpu.driver);
        slot(
            Device::Gpu {
                ordinal,
                uuid: gpu.uuid.clone(),
            },
            is,
            gpu.in_use(),
        )
    };
    Findings {
        kills_at_logout: kills_at_logout(),
        engine: engine(),
        isolation: IsolationReport {
            machine: machine(),
            promises: try_promises(PROMISES_TIMEOUT),
        },
        terminal: terminal(),
        #[cfg(feature = "view")]
        view: view(),
        slots: std::iter::once(slot(Device::Cpu, String::new(), None))
            .chain(gpus().enumerate().map(of_gpu))
            .collect(),
        folders,
    }
}

#[cfg(feature = "engine")]
fn engine() -> EngineReport {
    use crate::kernels::cuda_libraries::{CudaLibraries, version};
    let found = CudaLibraries::found();
    let (uses, why) = match crate::kernels::device::Engine::usable_gpus() {
        Err(why) => ("cpu", why),
        Ok(0) => ("cpu", "no GPU is visible to CUDA".to_owned()),
        Ok(count) => {
            let versions = [found.built_with, found.driver]
                .map(|number| number.map_or_else(|| "n/a".to_owned(), version));
            (
                "gpu",
                format!(
                    "{count} usable; built with CUDA {}, the driver supports {}",
                    versions[0], versions[1]
                ),
            )
        }
    };
    let libraries = found
        .files
        .iter()
        .filter_map(|(_, file)| file.clone())
        .collect();
    let nccl = crate::kernels::nccl::file().map(|file| file.unwrap_or_else(|missing| missing));
    EngineReport {
        uses,
        why,
        libraries,
        nccl,
    }
}

#[cfg(not(feature = "engine"))]
fn engine() -> EngineReport {
    let why = "built without the feature `engine`".to_owned();
    EngineReport {
        uses: "none",
        why,
        libraries: Vec::new(),
        nccl: None,
    }
}

fn gpus() -> impl Iterator<Item = Gpu> {
    (0..).map_while(Gpu::by_ordinal)
}

fn folder(used_for: &'static str, path: Option<PathBuf>, error: Option<String>) -> Folder {
    let existing = path.as_deref().and_then(|path| {
        path.ancestors()
            .find(|folder| folder.exists())
            .map(Path::to_owned)
    });
    let kind = existing.as_deref().map(FileSystem::for_path);
    Folder {
        used_for,
        exists: path.as_deref().is_some_and(Path::is_dir),
        file_system: kind.map_or_else(String::new, FileSystem::name),
        network: kind.is_some_and(FileSystem::is_network),
        free_bytes: existing.as_deref().and_then(free_disk_bytes),
        path,
        error,
    }
}

fn kills_at_logout() -> Option<bool> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Some(false);
    }
    let [name, path] = ["org.freedesktop.login1", "/org/freedesktop/login1"];
    let property = ["org.freedesktop.login1.Manager", "KillUserProcesses"];
    let asked = Command::new("busctl")
        .args(["--timeout=2", "get-property", name, path])
        .args(property)
        .output()
        .ok()?;
    match asked.stdout.trim_ascii() {
        b"b true" => Some(true),
        b"b false" => Some(false),
        _ => None,
    }
}

fn terminal() -> Terminal {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .map(variable)
        .into_iter()
        .find(|value| !value.is_empty())
        .unwrap_or_default()
        .to_lowercase();
    Terminal {
        output_is_terminal: !is_captured() && std::io::stdout().is_terminal(),
        term: variable("TERM"),
        color_term: variable("COLORTERM"),
        utf8: locale.contains("utf-8") || locale.contains("utf8"),
        ssh: std::env::var_os("SSH_CONNECTION").is_some(),
        multiplexer: [("TMUX", "tmux"), ("STY", "screen"), ("ZELLIJ", "zellij")]
            .into_iter()
            .find_map(|(name, program)| std::env::var_os(name).map(|_| program)),
    }
}

#[cfg(feature = "view")]
fn view() -> ViewReport {
    use crate::view::appearance::Appearance;
    use crate::view::options::AppearanceInput;
    let input = AppearanceInput::detect();
    let looks = Appearance::load(&input);
    let asks = Appearance::needs_background_query(&input);
    let of = |what, path: Option<PathBuf>| {
        path.map(|path| LookupResult {
            what,
            exists: path.exists(),
            path,
        })
    };
    let looked_for = [
        of("configuration", input.config_file()),
        of("keymap", input.keymap_file()),
        of("themes", input.themes_folder()),
    ];
    ViewReport {
        theme: if asks {
            "dark or light, by terminal background".to_owned()
        } else {
            looks.theme.name
        },
        colours: looks.depth.name(),
        ascii: looks.theme.ascii,
        mouse: looks.mouse,
        low_bandwidth: looks.low_bandwidth,
        copies_through: input
            .capability
            .multiplexer
            .map_or("OSC 52", |multiplexer| match multiplexer.name() {
                "tmux" => "OSC 52, through tmux (set-clipboard or allow-passthrough on)",
                "screen" => "OSC 52, through screen",
                _ => "OSC 52, through zellij",
            }),
        looked_for: looked_for.into_iter().flatten().collect(),
        files: looks.files,
        notes: looks.notes,
    }
}

#[cfg(feature = "view")]
fn view_facts(found: &ViewReport) -> Vec<Fact> {
    let letters = if found.ascii { "ASCII only" } else { "Unicode" };
    let mouse = if found.mouse { "mouse" } else { "no mouse" };
    let link = if found.low_bandwidth {
        ", low bandwidth"
    } else {
        ""
    };
    let looks = format!(
        "theme {}; colours {}; {letters}; {mouse}{link}; clipboard by {}",
        found.theme, found.colours, found.copies_through
    );
    let file = |LookupResult { what, path, exists }: &LookupResult| {
        let state = if *exists { "" } else { " (none: defaults)" };
        Fact::new(*what, format!("{}{state}", path.display()))
    };
    let is_other = |path: &&PathBuf| found.looked_for.iter().all(|looked| looked.path != **path);
    let others = found.files.iter().filter(is_other);
    let note = |note: &String| Fact {
        level: crate::page::Level::Warning,
        ..Fact::new("warning", note.as_str())
    };
    std::iter::once(Fact::new("workbench", looks))
        .chain(found.looked_for.iter().map(file))
        .chain(others.map(|file| Fact::new("in use", file.display().to_string())))
        .chain(found.notes.iter().map(note))
        .collect()
}

fn promise_row(tried: &Tried) -> Row {
    let result = match tried.is_held {
        Some(true) => "refused",
        Some(false) => "possible here",
        None => "not tried",
    };
    let why = tried.why.as_deref().unwrap_or_default();
    Row::new(tried.name, [result, why].map(Cell::from))
}

fn slot_row(slot: &SlotReport) -> Row {
    let holder = slot.holder.as_ref();
    let state = holder.map_or("free".into(), |holder| format!("in use by {holder}").into());
    let others = slot.in_use.as_deref().filter(|_| holder.is_none());
    let others = others.unwrap_or_default();
    Row::new(
        &slot.device,
        [state, slot.is.as_str().into(), others.into()],
    )
}

fn folder_row(folder: &Folder) -> Row {
    let path = folder.path.as_ref();
    let notes = [
        (!folder.exists).then_some("created on demand"),
        folder.network.then_some("network file system: polled"),
        folder.error.as_deref(),
    ];
    let notes: Vec<&str> = notes.into_iter().flatten().collect();
    let cells = [
        Cell::known(
            path.map(|path| path.to_string_lossy().into()),
            "no home directory",
        ),
        folder.file_system.as_str().into(),
        Cell::known(folder.free_bytes.map(Cell::Bytes), "not measured"),
        notes.join("; ").into(),
    ];
    Row::new(folder.used_for, cells)
}

fn terminal_text(terminal: &Terminal) -> String {
    let named = |name, value: &str| (!value.is_empty()).then(|| format!("{name}={value}"));
    let encoding = match terminal.utf8 {
        true => "UTF-8",
        false => "the locale is not UTF-8",
    };
    let facts = [
        named("TERM", &terminal.term).or(Some("TERM is not set".to_owned())),
        named("COLORTERM", &terminal.color_term),
        Some(encoding.to_owned()),
        terminal.ssh.then(|| "over SSH".to_owned()),
        terminal.multiplexer.map(|name| format!("inside {name}")),
        (!terminal.output_is_terminal).then(|| "output is not a terminal".to_owned()),
    ];
    facts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn page(findings: &Findings) -> Vec<Block> {
    let EngineReport {
        uses,
        why,
        libraries,
        nccl,
    } = &findings.engine;
    let IsolationReport { machine, promises } = &findings.isolation;
    let logout = match findings.kills_at_logout {
        Some(false) => "detached runs survive it".into(),
        Some(true) => "detached runs end (KillUserProcesses=yes): run `loginctl enable-linger`, then start them with `systemd-run --user --scope grpo-tui train … --detach`".into(),
        None => Cell::Unknown("systemd-logind does not answer: detached runs may end"),
    };
    let (level, summary) = (machine.level.name(), machine.level.summary());
    let more = |text: &String| Fact::new("", text.as_str());
    let mut facts = vec![
        Fact::new("logout", logout),
        Fact::new("engine", format!("{}: {why}", uses.to_uppercase())),
    ];
    facts.extend(libraries.iter().chain(nccl).map(more));
    facts.push(Fact::new(
        "isolation",
        format!("{level}, of programs that score: {summary}"),
    ));
    facts.extend(machine.reason.iter().map(more));
    facts.push(Fact::new("terminal", terminal_text(&findings.terminal)));
    #[cfg(feature = "view")]
    facts.extend(view_facts(&findings.view));
    let table = |head: &[&str], rows| Block::Table(Table::new(head, "lllrl", rows));
    let mut promises: Vec<&Tried> = promises.iter().collect();
    promises.sort_by_key(|tried| tried.is_held == Some(true));
    vec![
        Block::Facts(facts),
        Block::heading("devices"),
        table(&[], findings.slots.iter().map(slot_row).collect()),
        Block::heading("folders"),
        table(
            &["folder", "path", "file system", "free", ""],
            findings.folders.iter().map(folder_row).collect(),
        ),
        Block::heading("what a program that scores tries"),
        table(&[], promises.into_iter().map(promise_row).collect()),
    ]
}
