# SPDX-License-Identifier: Apache-2.0
"""Fuzzes the bundle's checks: thousands of changed copies of a good bundle, each of which must be refused in one line
before torch sees it.

    ./qgf bench fuzz [--cases 10000] [--seed 0] [--json]

The kinds: bytes changed at random with the hash left wrong or mended, entries changed and packed anew, one bit of one
weight flipped, signatures by wrong keys, and, signed with the trusted key itself, manifests with a field of another
type, scripts with access to files, pickles that call, entries that do not belong. Exits with 1 if one gets through.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bundle_fuzz.cases import KINDS, Fuzz
from fault_injection.arm import export
from tqdm import tqdm


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="qgf bench fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000, help="in total (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each kind (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    options = parser.parse_args()
    if options.cases < 1:
        parser.error("--cases must be at least 1")
    plan = [(kind, options.seed + i) for kind, share in KINDS.items() for i in range(-(-options.cases * share // 100))]
    refused: Counter[str] = Counter()
    torch_saw: Counter[str] = Counter()
    cases: Counter[str] = Counter(kind for kind, _ in plan)
    seconds: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(folder / "bundle.pt")
        fuzz = Fuzz(folder / "bundle.pt", folder)
        fuzz.still_good()
        for kind, seed in tqdm(plan, unit="case", disable=None):
            case = fuzz.draw(kind, seed)
            begun = time.perf_counter()
            happened = fuzz.judge(case)
            seconds[kind] += time.perf_counter() - begun
            refused[kind] += not happened
            torch_saw[kind] += happened == "seen by torch"
            if happened:
                print(f"{kind}, seed {seed}: {case.what}: {happened}", file=sys.stderr)
        fuzz.still_good()
    if options.json:
        print(json.dumps({f"{kind}.{word}": count[kind] for kind in KINDS for word, count in
                          (("cases", cases), ("refused", refused), ("seen_by_torch", torch_saw))}))
    else:
        print(f"{'kind':<12}{'cases':>8}{'refused':>9}{'seen by torch':>15}{'otherwise':>11}{'ms a case':>11}")
        for kind in [*KINDS, "total"]:
            n, no, seen = (sum(c.values()) if kind == "total" else c[kind] for c in (cases, refused, torch_saw))
            spent = sum(seconds.values()) if kind == "total" else seconds[kind]
            print(f"{kind:<12}{n:8d}{no:9d}{seen:15d}{n - no - seen:11d}{1e3 * spent / n:11.2f}")
    return int(refused != cases)


if __name__ == "__main__":
    sys.exit(main())
