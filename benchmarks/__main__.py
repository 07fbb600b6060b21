"""Measure speed against peers and the machine's limits, and write docs/benchmarks.md.

    pip install -c constraints.txt -e '.[benchmark]'
    python -m benchmarks                         # all of it, about half an hour
    python -m benchmarks lookup startup --quick  # some of it, roughly, to the terminal

Every comparison is interleaved: in each round every job runs once, and the ratio is that of the round. A table tells
the median of the ratios and the smallest and largest of them.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

import torch

from benchmarks.machine import description
from benchmarks.measure import table
from vqtool.memory import keep_freed_memory

NAMES = ("lookup", "files", "training", "tokens", "startup", "growth")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = """# Speed

Made by `python -m benchmarks` on {date}; nothing here is edited by hand but what this script says.

How to read it: in every round each of two jobs ran once, one after the other, and the ratio of their times is that of
the round. *times* is the median over the rounds: with a goal ">=" how many times as fast ours is, with "<=" how many
times as long it takes. Motion is synthetic (251 columns, clips of 38 to 410 frames); networks are as large as in use.

The machine, and what it can do at best:
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="few rounds and small files; to the terminal only")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()  # as every command does, for the peers too
    page = [HEAD.format(date=time.strftime("%Y-%m-%d")), *description()]
    print("\n".join(page))
    for name in asked.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        begin = time.monotonic()
        part = [f"\n## {module.TITLE}\n", f"{module.__doc__.strip()}\n", table(module.measure(asked.quick))]
        if hasattr(module, "counts"):
            part.append(module.counts())
        print("\n".join(part), f"\n({time.monotonic() - begin:.0f} s)", flush=True)
        page += part
    if not asked.names and not asked.quick:
        PAGE.write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
