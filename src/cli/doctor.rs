//! `grpo-tui doctor`: what runs depend on here: logout, engine, GPUs, folders, disk, terminal.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use super::output::is_captured;
use super::{Outcome, print, print_indented};
use crate::plan::free_disk_bytes;
use crate::run::{Device, FileSystem, Gpu, RunFolders, holder, slots_folder};
use crate::sandbox::{Machine, Tried, machine, try_promises};
use crate::secrets::visible;

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
        print(&page(&findings))
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
fn view_page(found: &ViewReport) -> String {
    let letters = if found.ascii { "ASCII only" } else { "Unicode" };
    let mouse = if found.mouse { "mouse" } else { "no mouse" };
    let link = if found.low_bandwidth {
        ", low bandwidth"
    } else {
        ""
    };
    let mut text = format!(
        "workbench theme {}; colours {}; {letters}; {mouse}{link}; clipboard by {}\n",
        found.theme, found.colours, found.copies_through
    );
    for LookupResult { what, path, exists } in &found.looked_for {
        let state = if *exists { "" } else { " (none: defaults)" };
        let _ = writeln!(text, "          {what}: {}{state}", path.display());
    }
    for file in found
        .files
        .iter()
        .filter(|file| found.looked_for.iter().all(|looked| looked.path != **file))
    {
        let _ = writeln!(text, "          in use: {}", file.display());
    }
    for note in &found.notes {
        let _ = writeln!(text, "          wrong: {note}");
    }
    text
}

fn isolation_page(IsolationReport { machine, promises }: &IsolationReport) -> String {
    let Machine { level, reason } = machine;
    let mut text = format!(
        "isolation {}, of programs that score: {}\n",
        level.name(),
        level.summary()
    );
    if let Some(reason) = reason {
        let _ = writeln!(text, "          {reason}");
    }
    let names = |is_held| {
        let found = promises.iter().filter(|tried| tried.is_held == is_held);
        found.map(|tried| tried.name).collect::<Vec<_>>()
    };
    let refused = names(Some(true));
    let _ = writeln!(
        text,
        "          refused here, {} of {}:",
        refused.len(),
        promises.len()
    );
    for name in refused {
        let _ = writeln!(text, "            {name}");
    }
    for tried in promises.iter().filter(|tried| tried.is_held != Some(true)) {
        let what = if tried.is_held.is_none() {
            "not tried"
        } else {
            "possible here"
        };
        let why = tried.why.as_deref().unwrap_or_default();
        let _ = writeln!(text, "          {what}: {} ({why})", tried.name);
    }
    text
}

fn page(findings: &Findings) -> String {
    let EngineReport {
        uses,
        why,
        libraries,
        nccl,
    } = &findings.engine;
    let logout = match findings.kills_at_logout {
        Some(false) => "detached runs survive logout",
        Some(true) => {
            "detached runs end at logout (KillUserProcesses=yes): run `loginctl enable-linger`, then start them with\n\
             `systemd-run --user --scope grpo-tui train … --detach`"
        }
        None => "detached runs may end at logout: systemd-logind does not answer",
    };
    let mut text = format!("{logout}\n\nengine    {}: {why}\n", uses.to_uppercase());
    for file in libraries.iter().chain(nccl) {
        let _ = writeln!(text, "          {file}");
    }
    text.push_str(&isolation_page(&findings.isolation));
    text.push('\n');
    for slot in &findings.slots {
        let holder = slot
            .holder
            .as_ref()
            .map_or_else(|| "free".to_owned(), |holder| format!("in use by {holder}"));
        let is = if slot.is.is_empty() {
            String::new()
        } else {
            format!(" ({})", slot.is)
        };
        let in_use = slot
            .in_use
            .as_ref()
            .filter(|_| slot.holder.is_none())
            .map_or_else(String::new, |text| format!("; {text}"));
        let _ = writeln!(text, "{:<9} {holder}{is}{in_use}", slot.device);
    }
    text.push('\n');
    for folder in &findings.folders {
        let path = folder.path.as_ref().map_or_else(
            || "none".to_owned(),
            |path| visible(&path.to_string_lossy()).into_owned(),
        );
        let free = folder.free_bytes.map_or_else(String::new, |bytes| {
            format!(", {} free", crate::format::bytes(bytes))
        });
        let missing = if folder.exists {
            ""
        } else {
            ", created on demand"
        };
        let network = if folder.network {
            ", network file system: polled"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "{:<9} {path} ({}{free}{missing}{network})",
            folder.used_for, folder.file_system
        );
        if let Some(error) = &folder.error {
            let _ = writeln!(text, "          {error}");
        }
    }
    let Terminal {
        output_is_terminal,
        term,
        color_term,
        utf8,
        ssh,
        multiplexer,
    } = &findings.terminal;
    let mut facts = vec![if term.is_empty() {
        "TERM is not set".to_owned()
    } else {
        format!("TERM={term}")
    }];
    facts.extend((!color_term.is_empty()).then(|| format!("COLORTERM={color_term}")));
    facts.push(
        if *utf8 {
            "UTF-8"
        } else {
            "the locale is not UTF-8"
        }
        .to_owned(),
    );
    facts.extend(ssh.then(|| "over SSH".to_owned()));
    facts.extend(multiplexer.map(|name| format!("inside {name}")));
    facts.extend((!output_is_terminal).then(|| "output is not a terminal".to_owned()));
    let _ = writeln!(text, "\nterminal  {}", facts.join(", "));
    #[cfg(feature = "view")]
    text.push_str(&view_page(&findings.view));
    text
}
