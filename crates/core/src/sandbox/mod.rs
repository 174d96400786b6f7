//! Where programs run that score, and code that a model wrote: apart from the user's files, processes and network, with
//! limits, and together with all that they start until they end, their time is up, or this process ends, however that
//! happens.

mod init;
mod installed;
mod landlock;
mod level;
mod machine;
mod messages;
mod process;
mod program;
mod root;
mod scratch;
mod seccomp;
mod usage;

pub use init::launch_if_asked;
pub(crate) use installed::{is_installed, path_of, visible_paths};
pub use level::Level;
pub use machine::{Machine, machine};
pub(crate) use process::{Process, Program, Sandbox, WaitOutcome};
pub(crate) use scratch::PrivateFolder;
