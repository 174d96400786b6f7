"""Unpacks a release archive into an empty root with nothing but the C library, and starts the program there: python3 scripts/release-test.py ARCHIVE.

Linux only; without root it needs user namespaces. Prints one line, and exits 1 where something fails."""

import fcntl
import os
import pathlib
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import termios
import time

C_LIBRARY = re.compile(r"(linux-vdso|ld-linux.*|libc|libm|libgcc_s|libdl|libpthread|librt)\.so.*")
SHARED = ["man/man1/grpo-tui.1", "bash-completion/completions/grpo-tui", "zsh/site-functions/_grpo-tui", "fish/vendor_completions.d/grpo-tui.fish"]
USER = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
ENTER = """mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && exec chroot "$@" """


def command(root, *arguments):
    program = ["/bin/grpo-tui", *arguments]
    return ["unshare", *USER, "--mount", "--pid", "--fork", "sh", "-c", ENTER, "sh", str(root), *program]


ENVIRONMENT = {"HOME": "/home", "PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}


def call(root, *arguments):
    done = subprocess.run(command(root, *arguments), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, f"grpo-tui {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()}"
    return done.stdout


def unpack(archive, root):
    """The archive as the root's own folders; returns the lowest C library that the program accepts."""
    with tarfile.open(archive) as files:
        files.extractall(root, filter="data")
    [folder] = root.iterdir()
    for path in folder.iterdir():
        path.rename(root / path.name)
    folder.rmdir()
    program = root / "bin/grpo-tui"
    for line in subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.splitlines():
        name = line.split()[0].rsplit("/", 1)[-1]
        assert C_LIBRARY.fullmatch(name), f"the program is bound to {name}, which a machine may lack"
        for path in re.findall(r"(/\S+)", line):
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    for folder in ["proc", "dev", "tmp", "home"]:
        (root / folder).mkdir()
    versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", program.read_bytes())
    return "{}.{}".format(*max((int(major), int(minor)) for major, minor in versions))


def opens(root):
    """The workbench in a terminal of 120 x 36: its first frame, then `q`."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe("unshare", command(root), ENVIRONMENT)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
    seen, end, has_left = b"", time.monotonic() + 60, False
    while time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            try:
                seen += os.read(terminal, 1 << 16)
            except OSError:
                break
        if b"Runs" in seen and not has_left:
            os.write(terminal, b"q")
            has_left = True
    os.close(terminal)  # one that has not ended ends by that
    assert has_left, f"the workbench drew no frame: {seen[-400:]!r}"
    assert os.waitpid(child, 0)[1] == 0, f"the workbench failed: {seen[-400:]!r}"


def test(archive):
    root = pathlib.Path(tempfile.mkdtemp())
    try:
        c_library = unpack(archive, root)
        version = call(root, "--version").strip()
        engine = re.search(r"^engine +(.*)", call(root, "doctor"), re.MULTILINE)[1]
        assert engine.startswith("CPU: "), f"an empty root has no GPU, but doctor says {engine}"
        for path in SHARED:
            text = (root / "share" / path).read_text()
            # What fish needs to ask the program for candidates is one line.
            assert len(text) > (100 if path.endswith(".fish") else 500), f"share/{path}"
            assert path.startswith("man/") or "grpo-tui" in text, f"share/{path}"
        assert "crates" in (root / "share/doc/grpo-tui/LICENSES-OF-DEPENDENCIES").read_text()
        call(root, "init", "/tmp/workspace")
        [task] = [path.parent for path in (root / "tmp/workspace").rglob("task.toml")]
        call(root, "train", "/" + str(task.relative_to(root)), "--set", "max_steps=2", "--runs", "/tmp/runs")
        opens(root)
        size = pathlib.Path(archive).stat().st_size / 1e6
        print(f"release: ok: {archive} ({size:.1f} MB): {version} starts in an empty root with glibc {c_library} or newer; engine {engine}")
    except (AssertionError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"release: FAILED: {archive}: {error}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    test(sys.argv[1])
