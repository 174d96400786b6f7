"""Prints the software bill of materials of the program, CycloneDX 1.6 as JSON: python3 scripts/sbom.py [--features cuda]. The arguments are cargo's."""

import datetime
import json
import subprocess
import sys

from licences import linked


def digests():
    """SHA-256 of each crate's archive, by name and version, as Cargo.lock has them."""
    found, fields = {}, {}
    with open("Cargo.lock") as lock:
        for line in lock:
            key, _, value = line.strip().partition(" = ")
            fields = {} if key == "[[package]]" else {**fields, key: value.strip('"')}
            if key == "checksum":
                found[fields["name"], fields["version"]] = fields["checksum"]
    return found


def component(package, digest):
    name, version = package["name"], package["version"]
    return {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "purl": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        **({"hashes": [{"alg": "SHA-256", "content": digest}]} if digest else {}),
        # Old manifests separate licences by a slash.
        "licenses": [{"expression": (package["license"] or "NOASSERTION").replace("/", " OR ")}],
    }


if __name__ == "__main__":
    known = digests()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    version = subprocess.run(["cargo", "pkgid"], check=True, capture_output=True, text=True).stdout.strip().rpartition("#")[2].rpartition("@")[2]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "component": {"type": "application", "name": "grpo-tui", "version": version, "properties": [{"name": "commit", "value": commit}, {"name": "features", "value": " ".join(sys.argv[1:])}]},
        },
        "components": [component(package, known.get((package["name"], package["version"]))) for package in linked()],
    }
    print(json.dumps(document, indent=1))
