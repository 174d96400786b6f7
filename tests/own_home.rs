//! No test reads the home of whoever runs it: a test binary has one beside itself, which the programs that it starts
//! inherit. Programs that score are launched by the test binary itself.

use std::path::{Path, PathBuf};

/// Runs before `main`, when nothing has read the environment yet.
#[used]
#[unsafe(link_section = ".init_array")]
static LEAVE_HOME: extern "C" fn() = leave_home;

extern "C" fn leave_home() {
    super::launch_if_asked();
    let home = std::env::current_exe().unwrap().with_extension("home");
    std::fs::create_dir_all(&home).unwrap();
    let names: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .collect();
    // SAFETY: the process has one thread yet.
    unsafe {
        for name in names
            .iter()
            .filter(|name| name.starts_with("HF_") || name.starts_with("XDG_"))
        {
            std::env::remove_var(name);
        }
        for (name, folder) in variables(&home, &home.join("slots")) {
            std::env::set_var(name, folder);
        }
        // Else snapshots ask cargo, and cargo its home. A machine with a GPU may have the tests alone.
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .find(|folder| folder.join("Cargo.lock").exists());
        if let Some(workspace) = workspace {
            std::env::set_var("INSTA_WORKSPACE_ROOT", workspace);
        }
    }
}

pub(crate) fn variables(home: &Path, slots: &Path) -> [(&'static str, PathBuf); 5] {
    [
        ("HOME", home.to_owned()),
        ("XDG_CONFIG_HOME", home.join("config")),
        ("XDG_DATA_HOME", home.join("data")),
        ("XDG_CACHE_HOME", home.join("cache")),
        ("GRPO_TUI_SLOTS", slots.to_owned()),
    ]
}
