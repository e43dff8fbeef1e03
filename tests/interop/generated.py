"""Python code that the Apache Thrift compiler makes of our IDL, and of original.thrift, for import.

Importing this puts the code on the module path: packages `locator`, `diststore`, `thrifty`, `original`.
"""

import shutil
import subprocess
import sys

from paths import GENERATED, IDL, TOP

SOURCES = [IDL / "locator.thrift", IDL / "diststore.thrift", IDL / "peer.thrift",
           TOP / "tests" / "interop" / "original.thrift"]

sys.path.insert(0, str(GENERATED))


def compile_idl(source, language, folder):
    """Runs the compiler; its complaints become the error's text."""
    if shutil.which("thrift") is None:
        raise SystemExit("interop: no Thrift compiler; install Debian's package thrift-compiler")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["thrift", "--strict", "-out", folder, "--gen", language, source],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"thrift --gen {language} {source}: {done.stdout}{done.stderr}")


def generate():
    """Makes all the code anew."""
    shutil.rmtree(GENERATED, ignore_errors=True)
    for source in SOURCES:
        compile_idl(source, "py", GENERATED)
