"""Measure speed against peers and the machine's limits, and write docs/benchmarks.md.

    pip install -c constraints.txt -e '.[benchmark]'
    python -m benchmarks                         # all of it, about a quarter of an hour
    python -m benchmarks training                # these sections of the page anew, on the same machine
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

NAMES = ("lookup", "files", "training", "tokens", "startup", "growth")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = """# Speed

Made by `python -m benchmarks`; nothing here is edited by hand.

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
    page = {HEAD: "\n".join(description())}
    if asked.names and not asked.quick:
        head, *sections = PAGE.read_text().split("\n## ")
        machine = "\n".join(line for line in head.splitlines() if line.startswith("- "))
        page = {HEAD: machine, **dict(section.split("\n", 1) for section in sections)}
    print(HEAD + page[HEAD])
    for name in asked.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        begin = time.monotonic()
        part = [f"\n{module.__doc__.strip()} Measured on {time.strftime('%Y-%m-%d')}.\n"]
        part.append(table(module.measure(asked.quick)))
        if hasattr(module, "counts"):
            part.append(module.counts())
        page[module.TITLE] = "\n".join(part)
        print(f"\n## {module.TITLE}\n{page[module.TITLE]}\n({time.monotonic() - begin:.0f} s)", flush=True)
    if not asked.quick:
        head = HEAD + page.pop(HEAD)
        PAGE.write_text(head + "".join(f"\n\n## {title}\n{text.rstrip()}" for title, text in page.items()) + "\n")


if __name__ == "__main__":
    main()
