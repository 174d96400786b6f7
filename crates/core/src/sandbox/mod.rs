//! Sandbox for scoring programs and model-written code: isolated from the user's files, processes
//! and network, limited, and ended with all children at their end, at a timeout, or with this
//! process, however it ends.

mod found_program;
mod init;
mod installed;
mod landlock;
mod level;
mod loopback;
mod machine;
mod messages;
mod priority;
mod process;
mod program;
mod program_files;
mod program_keys;
mod promises;
mod line_program;
mod root;
mod scratch;
mod seccomp;
mod trust_notes;
mod usage;

pub(crate) use found_program::FoundProgram;
pub use init::launch_if_asked;
pub(crate) use installed::{bytecode_note, installation_problem, path_of, visible_paths};
pub use level::Level;
pub(crate) use line_program::{LineProgram, Lost, START_TIMEOUT};
pub(crate) use loopback::PORT;
pub(crate) use machine::isolation_text;
pub use machine::{Machine, machine};
pub(crate) use process::{Process, Program, Sandbox, WaitOutcome};
pub(crate) use program_files::ProgramFiles;
pub(crate) use program_keys::{ProgramKeys, program_files};
pub use promises::{Attacked, KILLS_PARENT, PROMISES, Promise, Tried, probe_program, try_promises};
pub(crate) use scratch::PrivateFolder;
pub(crate) use trust_notes::{ProgramDigest, is_trusted, trust_folder};
