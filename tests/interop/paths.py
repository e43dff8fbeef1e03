"""Where things are in the repository."""

import os
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
DATA = TOP / "tests" / "data"
IDL = TOP / "idl"
GENERATED = TOP / "target" / "interop-gen"
BIN = Path(os.environ.get("THRIFTY_BIN", TOP / "target" / "release")).resolve()
