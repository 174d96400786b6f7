"""How many GPUs this machine has."""
import subprocess, sys


def count():
    try:
        return len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines())
    except FileNotFoundError:
        return 0


def at_least_two():
    """Their number; ends the script as skipped where there are fewer than two."""
    found = count()
    if found < 2:
        print(f"skipped: {found} of 2 GPUs")
        sys.exit(77)
    return found
