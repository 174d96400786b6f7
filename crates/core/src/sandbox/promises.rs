//! What a sandbox prevents, as rows with statements that attempt it. Source of the table in
//! docs/programs.md, the tests and `doctor`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use parking_lot::Mutex;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde::Serialize;

use super::installed::{located, visible_paths};
use super::level::Level;
use super::machine::machine;
use super::process::{Process, Program, Sandbox, WaitOutcome};
use super::scratch::PrivateFolder;

/// Parallel attempts: most of them wait.
const AT_ONCE: usize = 8;

/// Something that a program may try.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    pub name: &'static str,
    /// Python statements that do it, or raise `OSError` or `AssertionError`.
    statements: &'static str,
    pub level: Level,
}

/// The attempt that kills the process which reports results.
pub const KILLS_PARENT: &str = "killing the parent process";

/// Prepended to all statements.
const HEAD: &str = r#"
import ctypes, mmap, os, resource, signal, socket, sys, threading, time
name, here, port, victim, large = sys.stdin.read(), *sys.argv[1:5]
large = large == "large"
number = lambda x86, arm: arm if os.uname().machine == "aarch64" else x86
def children(count, work):
    made = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            try: work(); time.sleep(20)
            finally: os._exit(0)
        made.append(child)
    return made
def filled(count, work):
    "So many processes have done their work, and still have what they have taken, for a while."
    done, says = os.pipe()
    children(count, lambda: work(lambda: os.write(says, b".")))
    for _ in range(count): os.read(done, 1)
    time.sleep(0.5)
def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as made: made.connect(address)
def most_descriptors():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
"#;

const fn promise(name: &'static str, level: Level, statements: &'static str) -> Promise {
    Promise {
        name,
        statements,
        level,
    }
}

pub const PROMISES: &[Promise] = &[
    promise(
        "reading a private key",
        Level::Limited,
        "assert 'secret' in open(here + '/home/.ssh/id_ed25519').read()",
    ),
    promise(
        "listing a folder of the user",
        Level::Limited,
        "assert 'home' in os.listdir(here)",
    ),
    promise(
        "writing outside its folder",
        Level::Limited,
        "open(here + '/home/outside', 'w').write('x')",
    ),
    promise(
        "truncating a file of the user",
        Level::Limited,
        "os.truncate(here + '/long', 0)",
    ),
    promise(
        "changing its own files",
        Level::Strong,
        "open(sys.argv[0], 'a').write('#')",
    ),
    promise(
        "changing the times of a device",
        Level::Strong,
        "os.utime('/dev/null')",
    ),
    promise(
        "connecting by IP",
        Level::Limited,
        "connect(socket.AF_INET, ('127.0.0.1', int(port)))",
    ),
    promise(
        "connecting to a Unix socket",
        Level::Limited,
        "connect(socket.AF_UNIX, here + '/socket')",
    ),
    promise(
        "connecting to a Unix socket in a folder of `read`",
        Level::Limited,
        "connect(socket.AF_UNIX, here + '/shown/socket')",
    ),
    promise(
        "connecting to an abstract Unix socket",
        Level::Limited,
        "connect(socket.AF_UNIX, '\\0' + here)",
    ),
    promise(
        "writing to a FIFO in a folder of `read`",
        Level::Limited,
        "os.write(os.open(here + '/shown/fifo', os.O_WRONLY | os.O_NONBLOCK), b'x')",
    ),
    promise(
        "reading from a FIFO in a folder of `read`",
        Level::Strong,
        "assert os.read(os.open(here + '/shown/fifo', os.O_RDONLY | os.O_NONBLOCK), 1)",
    ),
    promise(
        "reading the environment of another process",
        Level::Limited,
        "for path in [f'/proc/{victim}/environ', f'/proc/{os.getppid()}/environ']:\n    if b'MARK=secret' in open(path, 'rb').read(): os._exit(0)\nraise OSError('no secret')",
    ),
    promise(
        "seeing another process",
        Level::Strong,
        "assert os.path.exists(f'/proc/{victim}/stat')",
    ),
    promise(
        "tracing a process",
        Level::Limited,
        "child = children(1, lambda: None)[0]\nassert ctypes.CDLL(None, use_errno=True).ptrace(16, child, 0, 0) == 0",
    ),
    promise(
        "changing the limits of another process",
        Level::Limited,
        "resource.prlimit(int(victim), resource.RLIMIT_CORE, (0, 0))",
    ),
    promise(
        "signalling another process",
        Level::Limited,
        "os.kill(int(victim), signal.SIGCONT)",
    ),
    promise(
        "getting privileges",
        Level::Limited,
        "status = dict(line.split(':\\t', 1) for line in open('/proc/self/status'))\nassert int(status['NoNewPrivs']) == 0 or int(status['CapEff'], 16) or int(status['Seccomp']) == 0",
    ),
    promise(
        "more processes than `max_processes`",
        Level::None,
        "children(10_000 if large else 300, lambda: None)\ntime.sleep(0.5)",
    ),
    promise(
        "more memory than `memory_mib`, in several processes",
        Level::None,
        "def fill(done):\n    mine = bytearray(200 << 20)\n    done()\n    time.sleep(20)\nfilled(50 if large else 3, fill)",
    ),
    promise(
        "the same in processes whose first thread has ended",
        Level::None,
        "def fill(done):\n    def later():\n        time.sleep(0.2)\n        mine = bytearray(200 << 20)\n        done()\n        time.sleep(20)\n    threading.Thread(target=later).start()\n    ctypes.CDLL(None).syscall(number(60, 93), 0)\nfilled(50 if large else 3, fill)",
    ),
    promise(
        "memory in files",
        Level::Strong,
        "for number in range(100 if large else 3):\n    with open(f'file-{number}', 'wb') as file:\n        file.write(bytes(100 << 20))",
    ),
    promise(
        "memory that processes share without a file",
        Level::Limited,
        "mmap.mmap(-1, 1 << 20)",
    ),
    promise(
        "1,000 open files",
        Level::Limited,
        "most_descriptors()\nopened = [os.open('/dev/null', os.O_RDONLY) for _ in range(1_000)]",
    ),
    promise(
        "2,000 descriptors in messages that nobody receives",
        Level::Limited,
        "most_descriptors()\nends = socket.socketpair()\nfor _ in range(10):\n    socket.send_fds(ends[0], [b'x'], [0] * 200)",
    ),
    promise(
        "contexts of asynchronous I/O",
        Level::Limited,
        "context = ctypes.c_ulong(0)\nassert ctypes.CDLL(None).syscall(number(206, 0), 8, ctypes.byref(context)) == 0",
    ),
    // Nothing ends it then, and its answer is lost.
    promise(
        KILLS_PARENT,
        Level::Limited,
        "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(0.5)\nraise OSError('both live')",
    ),
];

/// A Python program that runs the statements on its input: exits with 0 on success, with 1 and the
/// reason if prevented. Arguments: the folder of [`Attacked`], a port and process of it, and
/// `small` or `large`.
pub fn probe_program() -> String {
    let each = PROMISES.iter().map(|promise| {
        let lines = promise.statements.lines();
        let body: String = lines.map(|line| format!("        {line}\n")).collect();
        format!("    if name == {:?}:\n{body}", promise.name)
    });
    format!(
        "{HEAD}try:\n{}except (OSError, AssertionError) as error:\n    print(type(error).__name__, error, flush=True)\n    os._exit(1)\nos._exit(0)\n",
        each.collect::<String>()
    )
}

/// Targets of the attempts: a folder with files, sockets and a FIFO, a port, a process with a
/// secret.
#[derive(Debug)]
pub struct Attacked {
    folder: PathBuf,
    port: u16,
    victim: Child,
    _sockets: [UnixListener; 3],
    _listener: std::net::TcpListener,
    _fifo: fs::File,
}

impl Attacked {
    pub fn new(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder.join("home/.ssh"))?;
        fs::create_dir_all(folder.join("shown"))?;
        fs::write(folder.join("home/.ssh/id_ed25519"), "secret")?;
        fs::write(folder.join("long"), "text")?;
        let fifo = folder.join("shown/fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let mut fifo = fs::OpenOptions::new().read(true).write(true).open(fifo)?;
        io::Write::write_all(&mut fifo, b"secret")?;
        let name = SocketAddr::from_abstract_name(folder.as_os_str().as_encoded_bytes())?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        Ok(Self {
            port: listener.local_addr()?.port(),
            victim: Command::new("sleep")
                .arg("600")
                .env("MARK", "secret")
                .stdin(Stdio::null())
                .spawn()?,
            _sockets: [
                UnixListener::bind(folder.join("socket"))?,
                UnixListener::bind(folder.join("shown/socket"))?,
                UnixListener::bind_addr(&name)?,
            ],
            _listener: listener,
            _fifo: fifo,
            folder: folder.to_owned(),
        })
    }

    pub fn shown(&self) -> PathBuf {
        self.folder.join("shown")
    }

    /// Arguments of [`probe_program`], without the size.
    pub fn arguments(&self) -> [String; 3] {
        [
            self.folder.display().to_string(),
            self.port.to_string(),
            self.victim.id().to_string(),
        ]
    }
}

impl Drop for Attacked {
    fn drop(&mut self) {
        _ = self.victim.kill();
        _ = self.victim.wait();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    pub name: &'static str,
    /// `None`: unknown.
    pub is_held: Option<bool>,
    /// Why it is not prevented, or unknown.
    pub why: Option<String>,
}

/// Tries the rows that this machine's level prevents, within `limit` plus one start of Python; the
/// others are possible by the table.
pub fn try_promises(limit: Duration) -> Vec<Tried> {
    let (until, level) = (Instant::now() + limit, machine().level);
    let untried = |promise: &Promise, why: &str| Tried {
        name: promise.name,
        is_held: None,
        why: Some(why.to_owned()),
    };
    let reason = machine().reason.as_deref().unwrap_or_default();
    let possible = |promise: &Promise| Tried {
        name: promise.name,
        is_held: Some(false),
        why: Some(format!(
            "needs isolation {}, this machine gives {}: {reason}",
            promise.level.name(),
            level.name()
        )),
    };
    let scene = match Scene::new(level) {
        Ok(scene) => scene,
        Err(why) => {
            return PROMISES
                .iter()
                .map(|promise| untried(promise, &why))
                .collect();
        }
    };
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((index, promise)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            PROMISES.get(index).map(|promise| (index, promise))
        } {
            let tried = match () {
                () if promise.level > level => possible(promise),
                () if Instant::now() > until => untried(promise, "the time is up"),
                () => scene.try_out(promise, until),
            };
            found.lock().push((index, tried));
        }
    };
    std::thread::scope(|scope| {
        (0..AT_ONCE).for_each(|_| _ = scope.spawn(work));
    });
    let mut found = found.into_inner();
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, tried)| tried).collect()
}

/// Resolves a `python3` script, such as pyenv's shim, which would take most of the time.
fn executable(python: &Path) -> Option<PathBuf> {
    let asked = ["-I", "-c", "import sys; print(sys.executable, end='')"];
    let answer = Command::new(python).args(asked).output().ok()?;
    let path = PathBuf::from(String::from_utf8(answer.stdout).ok()?);
    path.is_absolute().then_some(path)
}

struct Scene {
    attacked: Attacked,
    python: PathBuf,
    sandbox: Sandbox,
    _folder: PrivateFolder,
}

impl Scene {
    fn new(level: Level) -> Result<Self, String> {
        let python = located(Path::new("python3")).ok_or("python3 is not installed")?;
        let python = executable(&python).unwrap_or(python);
        let folder = PrivateFolder::new()?;
        let failed = |error: io::Error| format!("{}: {error}", folder.path().display());
        let path = folder.path().canonicalize().map_err(failed)?;
        let attacked = Attacked::new(&path).map_err(failed)?;
        let sandbox = Sandbox {
            level,
            visible: visible_paths([python.as_path()], &[attacked.shown()], Path::new("")),
            writable: None,
            memory_mib: 400,
            max_processes: None,
            has_port: false,
            block: "[score]",
        };
        Ok(Self {
            attacked,
            python,
            sandbox,
            _folder: folder,
        })
    }

    fn try_out(&self, promise: &Promise, until: Instant) -> Tried {
        let tried = |is_held, why| Tried {
            name: promise.name,
            is_held,
            why,
        };
        match self.run(promise, until) {
            Err(why) => tried(None, Some(why)),
            Ok((Some(1), _)) => tried(Some(true), None),
            // Killed by the sandbox for a limit.
            Ok((None, _)) if promise.name != KILLS_PARENT => tried(Some(true), None),
            Ok((Some(0) | None, _)) => tried(Some(false), Some("it succeeds".to_owned())),
            Ok((Some(_), words)) => tried(None, Some(words)),
        }
    }

    fn run(&self, promise: &Promise, until: Instant) -> Result<(Option<i32>, String), String> {
        const PROBE: &str = "probe.py";
        let folder = PrivateFolder::new()?;
        fs::write(folder.path().join(PROBE), probe_program()).map_err(|error| error.to_string())?;
        let mut arguments = vec![PROBE.to_owned()];
        arguments.extend(self.attacked.arguments());
        arguments.push("small".to_owned());
        let program = Program {
            program: self.python.clone().into(),
            arguments,
            folder: folder.path(),
            variables: &[],
            joins_output: false,
        };
        let mut process = Process::start(&self.sandbox, &program)?;
        process.send(promise.name.as_bytes());
        process.close_input();
        loop {
            match process.transfer(until, &|| true) {
                Ok(WaitOutcome::Some) => {}
                Ok(WaitOutcome::Ended) => return Ok((process.exit_code(), process.last_words())),
                Ok(WaitOutcome::Late) => return Err("the time is up".to_owned()),
                Err(error) => return Err(format!("its pipes: {error}")),
            }
        }
    }
}
