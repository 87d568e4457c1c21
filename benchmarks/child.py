"""The process of one contender: `python -m benchmarks.child module:function OWN SHARED SIZES`; prints its sample as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.measuring import Place, call


def main() -> None:
    """Call it; what it prints itself stands in lines before the last one."""
    target, own, shared, sizes = sys.argv[1:]
    sample = call(target, Place(Path(own), Path(shared), json.loads(sizes)))
    print()
    print(json.dumps(asdict(sample) if sample is not None else None), flush=True)


if __name__ == "__main__":
    main()
