"""How the golden files of format version 1 were made. Never run it again for version 1.

Files of every released format version stay readable; tests/test_golden.py holds that on the files in v1/, whose bytes
are those of the vqtool that wrote them first. Made anew by a later vqtool they would prove nothing. A new format
version gets a folder and a script of its own, and v1/ stays.

    PYTHONPATH=. python tests/golden/make.py

What the files must give on reading is in expected.json, taken from them by h5py and safetensors, not by vqtool.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
from safetensors import safe_open

from vqtool.cli import main
from vqtool.companions import Caption, Companions
from vqtool.config import build_config
from vqtool.errors import InterruptedRun
from vqtool.nn import learner, trainer
from vqtool.signals import StopRequest
from vqtool.store import MotionSet, create_motion

V1 = Path(__file__).parent / "v1"
SETTINGS = {
    "model.width": 8,
    "model.depth": 1,
    "model.latent_dim": 4,
    "train.batch_size": 4,
    "train.window": 16,
    "train.lr": 0.01,
    "train.steps": 24,
    "train.eval_every": 2,
}
CODES = {"bottleneck.codebook_size": 16}
# name: motion it is trained on and encodes, settings
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vq": ("raw.h5", {"model.bottleneck": "vq", "model.downsample": 2, **CODES}),
    "rvq": (
        "joints.h5",
        {
            "model.bottleneck": "rvq",
            "model.downsampling": "strided",
            "model.downsample": 2,
            "bottleneck.num_quantizers": 2,
            "loss.columns.contacts": 0.5,
            **CODES,
        },
    ),
    "fsq": ("raw.h5", {"model.bottleneck": "fsq", "model.causal": True, "bottleneck.codebook_size": 256}),
    "vae": ("raw.h5", {"model.bottleneck": "vae", "bottleneck.dim": 3}),
}
UNFINISHED = {
    "model.bottleneck": "rvq",
    "model.depth": 0,
    "bottleneck.num_quantizers": 2,
    "bottleneck.quantizer_dropout": 0.5,
    "train.steps": 8,
    "train.continuous": 0.0,
    **CODES,
}
COMPACT = (",", ":")
STOP_AT = 4  # of those steps

BVH = """\
HIERARCHY
ROOT Hips
{{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT LeftFoot
  {{
    OFFSET 10 -{leg} 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {{
      OFFSET 0 0 15
    }}
  }}
  JOINT RightFoot
  {{
    OFFSET -10 -{leg} 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {{
      OFFSET 0 0 15
    }}
  }}
}}
MOTION
Frames: {frames}
Frame Time: 0.04
{rows}
"""


def bvh(frames: int, seed: int, leg: int) -> str:
    """A walk of three joints that swing slowly, in centimetres."""
    random = np.random.default_rng(seed)
    time = np.arange(frames)[:, None] / 25
    angles = 25 * np.sin(2 * np.pi * time * random.uniform(0.5, 1.0, 9) + random.uniform(0, 6, 9))
    path = np.concatenate([20 * time, leg + 2 * np.sin(5 * time), 60 * time + 10 * seed], axis=1)
    rows = "\n".join(" ".join(f"{number:.4f}" for number in row) for row in np.concatenate([path, angles], axis=1))
    return BVH.format(leg=leg, frames=frames, rows=rows)


def joints(folder: Path) -> None:
    """joints.h5: an import of BVH with two bodies and mirror images."""
    (folder / "walks").mkdir()
    for number, leg in enumerate((80, 80, 70)):
        (folder / "walks" / f"walk{number}.bvh").write_text(bvh(7 + number, number, leg))
    run(
        "import",
        "walks",
        "-o",
        "joints.h5",
        "--mirror",
        "--split",
        "0.5,0.25,0.25",
        "--facing",
        "LeftFoot,RightFoot",
        "--units",
        "cm",
    )


def humanml3d(folder: Path) -> None:
    """humanml3d.h5: an import of a HumanML3D folder with captions, split lists and its own statistics."""
    source = folder / "HumanML3D"
    random = np.random.default_rng(7)
    for name in ("new_joint_vecs", "texts"):
        (source / name).mkdir(parents=True)
    for stem, frames in {"000000": 1, "000001": 2, "M000001": 2}.items():
        np.save(source / "new_joint_vecs" / f"{stem}.npy", random.normal(size=(frames, 263)).astype(np.float32))
    text = "a man walks.#a/DET man/NOUN walk/VERB#0.0#0.0\nhe turns à gauche#he/PRON turn/VERB#0.1#0.25\n"
    (source / "texts" / "000001.txt").write_text(text, encoding="utf-8")
    (source / "train.txt").write_text("000001\nM000001\n")
    for name in ("Mean", "Std"):
        np.save(source / f"{name}.npy", random.uniform(0.5, 1, 263).astype(np.float32))
    run("import", "HumanML3D", "-o", "humanml3d.h5")


def raw() -> None:
    """raw.h5: four columns, one of which never moves; clips of 0 and 1 frames; names and captions beyond ASCII."""
    lengths = {"läufer/walk 1": 30, "empty": 0, "one": 1, "跑": 5, "held out": 16, "tested": 7}
    captions = (
        Caption(0, "a person läuft", words="a/DET person/NOUN läuft/VERB"),
        Caption(3, "走る", start_s=0.05, end_s=0.1),
    )
    with create_motion(
        Path("raw.h5"), dim=4, fps=29.97, units="m", source="make.py", total_frames=sum(lengths.values())
    ) as writer:
        for number, (name, frames) in enumerate(lengths.items()):
            random = np.random.default_rng(number)
            time = np.arange(frames)[:, None] / 30
            rows = np.sin(time * random.uniform(2, 9, 4) + random.uniform(0, 6, 4)) * [1, 20, 0.01, 0] + [
                0,
                -50,
                0,
                7.25,
            ]
            writer.append(name, rows, {"held out": 1, "tested": 2, "one": 255}.get(name, 0))
        writer.companions = Companions(captions=captions)


class Quiet:
    """A report of training to nobody; may send a SIGTERM after a step."""

    def __init__(self, stop_at: int = -1) -> None:
        self.stop_at = stop_at

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def evaluated(self, record: object) -> None: ...

    def logged(self, record: object) -> None: ...

    def stepped(self, step: int, steps: int, loss: float) -> None:
        if step == self.stop_at:
            signal.raise_signal(signal.SIGTERM)


def models() -> None:
    """NAME.safetensors of each model, and what it makes of its motion."""
    learner.INIT_SAMPLES = 1  # k-means on no more than it needs
    for name, (motion, settings) in MODELS.items():
        with MotionSet([motion]) as clips:
            trainer.train(build_config(SETTINGS, settings), clips, Path("run"), Quiet(), device="cpu")
        shutil.move("run/tokenizer.safetensors", f"{name}.safetensors")
        shutil.rmtree("run")
        tokens = f"{name}.{'latents' if name == 'vae' else 'tokens'}.h5"
        run("encode", f"{name}.safetensors", motion, "-o", tokens)


def unfinished() -> None:
    """unfinished/: a run that was stopped half-way, with its checkpoint."""
    config = build_config(SETTINGS, UNFINISHED)
    with MotionSet(["raw.h5"]) as clips, StopRequest(), contextlib.suppress(InterruptedRun):
        trainer.train(config, clips, Path("unfinished"), Quiet(STOP_AT), device="cpu")


def run(*words: str) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([*words, "--json"] if words[0] == "inspect-codebook" else [*words, "-q"])
    assert code == 0, words
    return out.getvalue()


def sha256(data: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def content(path: Path) -> dict[str, Any]:
    """All that an HDF5 file holds, in plain h5py: attributes, and type, shape and SHA-256 of each dataset."""
    arrays: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            value = item[()]
            arrays[name] = [value.dtype.str, list(value.shape), sha256(value.tobytes())]

    with h5py.File(path) as file:
        file.visititems(visit)
        attributes = {key: np.asarray(value).tolist() for key, value in file.attrs.items()}
        found: dict[str, Any] = {"arrays": arrays}
        found["attributes"] = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
        found["names"] = [name.decode() for name in file["names"][()]]
        lengths = file["num_frames"][()] if "num_frames" in file else np.diff(file["offsets"][()])
        found["lengths"] = lengths.tolist()
        found["splits"] = file["splits"][()].tolist() if "splits" in file else None
        if "captions" in file:
            captions = {key: file[f"captions/{key}"][()].tolist() for key in file["captions"]}
            texts = [[text.decode() for text in captions[key]] for key in ("text", "words")]
            rows = zip(captions["clip"], *texts, captions["start_s"], captions["end_s"], strict=True)
            found["captions"] = [list(row) for row in rows]
        if "codes" in file:
            found["codes"] = file["codes"][()].tolist()
    return found


def digest_of(values: dict[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and bytes of tensors."""
    lines = [f"{name} {values[name].dtype.str} {values[name].shape} ".encode() for name in sorted(values)]
    return sha256(b"".join(line + values[name].tobytes() for line, name in zip(lines, sorted(values), strict=True)))


def tensors(path: Path) -> dict[str, Any]:
    """All that a safetensors file holds, in plain safetensors."""
    with safe_open(path, "np") as file:
        header = json.loads(file.metadata()["vqtool"])
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {"header": header, "tensors": digest_of(values)}


def make() -> None:
    """All files of v1, in the current folder."""
    folder = Path.cwd()
    joints(folder)
    humanml3d(folder)
    raw()
    models()
    unfinished()
    shutil.rmtree("walks")
    shutil.rmtree("HumanML3D")
    expected: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        expected[name] = {"sha256": sha256(path.read_bytes())}
        if path.suffix == ".h5":
            expected[name] |= content(path)
        elif path.suffix == ".safetensors":
            expected[name] |= tensors(path)
    for model, (motion, _) in MODELS.items():
        tokens = f"{model}.{'latents' if model == 'vae' else 'tokens'}.h5"
        for name in (tokens, f"{model}.safetensors"):
            expected[name]["report"] = json.loads(run("inspect-codebook", name, "--top", "0"))
        run("decode", f"{model}.safetensors", tokens, "-o", "decoded.h5", "--force")
        with h5py.File("decoded.h5") as file:
            # Of joints the first clip: the whole would be larger than all else together.
            rows = file["frames"][: file["offsets"][1] if motion == "joints.h5" else None]
            expected[tokens]["decoded"] = [[float(f"{number:.6g}") for number in row] for row in rows.tolist()]
    Path("decoded.h5").unlink()
    finished = Path("finished")
    shutil.copytree("unfinished", finished)
    run("train", "raw.h5", "-o", str(finished), "--resume")
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    shutil.rmtree(finished)
    expected["unfinished/metrics.jsonl"]["last_line_when_finished"] = last
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, sort_keys=True, separators=COMPACT)}"
        for name, value in expected.items()
    ]
    (folder / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    if V1.exists():
        sys.exit(f"{V1} exists: golden files are made once. A new format version gets a folder of its own.")
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        make()
        shutil.copytree(place, V1)
