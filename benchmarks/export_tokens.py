"""How fast tokens are exported and imported again, and in how much memory.

    python benchmarks/export_tokens.py 1e7
    python benchmarks/export_tokens.py 1e8 nanogpt text

Makes a tokens.h5 of that many tokens (6 layers of 512 codes, 10,000 clips with a caption each), then exports it and
imports that, each in a process of its own. Prints tokens a second and the peak of resident memory; of a file of a tenth
of the tokens in as many clips too, so that what grows with the tokens shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from vqtool.companions import Caption, Companions
from vqtool.token_formats import TOKEN_FORMATS
from vqtool.tokens import TokenHeader, create_tokens

LAYERS, SIZE, CLIPS = 6, 512, 10_000
SUFFIXES = {"text": ".jsonl", "motiongpt": ".jsonl", "parquet": ".parquet", "npy": "", "csv": ".csv"}

CHILD = """
import json, sys, time
from pathlib import Path
from vqtool.token_formats import SequenceOptions, export_tokens, import_tokens
from vqtool.tokens import TokenSet
what, source, out, format = sys.argv[1:]
begin = time.perf_counter()
if what == "export":
    with TokenSet(Path(source)) as tokens:
        export_tokens(tokens, Path(out), format, SequenceOptions(), force=True)
elif what == "open":
    TokenSet(Path(source)).close()
else:
    import_tokens([Path(source)], Path(out), force=True)
seconds = time.perf_counter() - begin
with open("/proc/self/status") as status:  # ru_maxrss would begin with that of the parent
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "peak": peak / 1024}))
"""


def make(path: Path, tokens: int) -> int:
    """A tokens.h5 of about that many tokens; returns how many."""
    random = np.random.default_rng(0)
    mean = max(2, tokens // LAYERS // CLIPS)
    lengths = random.integers(mean // 2, mean * 3 // 2 + 1, CLIPS)
    header = TokenHeader(
        dim=263,
        fps=20.0,
        downsample=4,
        bottleneck="rvq",
        layout="humanml3d",
        tokenizer_id="ab" * 32,
        numerics="stable",
        source="[]",
        codebook_sizes=(SIZE,) * LAYERS,
    )
    names = [f"clip_{number:07d}" for number in range(len(lengths))]
    captions = tuple(Caption(clip, f"a person walks in a circle {clip}") for clip in range(len(lengths)))
    books = [np.zeros((SIZE, 1))] * LAYERS
    with create_tokens(path, names, lengths * 4, header, books, companions=Companions(captions=captions)) as writer:
        for start in range(0, int(lengths.sum()), 1 << 20):
            rows = min(1 << 20, int(lengths.sum()) - start)
            writer.extend(codes=random.integers(0, SIZE, (rows, LAYERS)))
    return int(lengths.sum()) * LAYERS


def run(*words: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main(count: str, *formats: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for tokens in (int(float(count)) // 10, int(float(count))):
            path = Path(folder) / f"{tokens}.h5"
            files[path] = make(path, tokens)
            opened = run("open", str(path), "-", "-")
            print(f"{files[path]:,} tokens: opening the file takes {opened['peak']:.0f} MB", flush=True)
        for format in formats or TOKEN_FORMATS:
            for path, tokens in files.items():
                out = path.with_name(f"{format}{SUFFIXES.get(format, '.bin')}")
                again = path.with_name("again.h5")
                told = []
                for what, words in (("export", (str(path), str(out))), ("import", (str(out), str(again)))):
                    found = run(what, *words, format)
                    rate = tokens / found["seconds"] / 1e6
                    told.append(f"{what} {rate:6.2f} M tokens/s, {found['peak']:5.0f} MB")
                print(f"{format:10} {tokens:12,} tokens   {'   '.join(told)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
