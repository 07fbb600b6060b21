"""A small causal transformer over motion tokens, with a clip's words as the prompt, in plain torch.

python text_to_motion.py train train.jsonl val.jsonl test.jsonl --vocab vocab.txt -o lm.safetensors
python text_to_motion.py sample lm.safetensors --prompt "walk elderly" -n 4 -o sampled.jsonl

A sequence is the words, <m_start>, the tokens of the clip, <m_end>. The loss is on what comes after <m_start>. The
words are those of the clip's first caption or else of its name, but for words that every clip has.
"""

import argparse
import json
import math
import re
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

START, END, PAD = "<m_start>", "<m_end>", "<m_pad>"


class Transformer(nn.Module):
    """Logits [B, L, V] of the next token for ids [B, L]."""

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.context = context
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        for table in (self.token, self.place):
            nn.init.normal_(table.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.drop(self.token(ids) + self.place.weight[: ids.shape[1]])
        before = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        return self.layers(x, mask=before, is_causal=True) @ self.token.weight.T


def words_in(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def read_clips(path: Path) -> list[tuple[list[str], list[str]]]:
    """(words, tokens) of each clip of an export of vqtool."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    said = [words_in((record.get("captions") or [record["name"]])[0]) for record in records]
    return [(words, re.findall(r"<\w+>", record["text"])) for words, record in zip(said, records, strict=True)]


def known(clips: list, words: list[str]) -> list:
    return [([word for word in said if word in words], tokens) for said, tokens in clips]


def batch_of(clips: list, ids: dict[str, int], context: int) -> tuple[Tensor, Tensor]:
    """Inputs [B, L] and what is to be predicted [B, L], -100 where nothing is: in the prompt and behind the end."""
    rows = [
        ([ids[word] for word in [*said, START]], [ids[token] for token in [*tokens, END]]) for said, tokens in clips
    ]
    length = max(len(prompt) + len(rest) - 1 for prompt, rest in rows)
    if length > context:
        raise SystemExit(f"a clip and its words are {length} tokens long; add --context {length}, or more")
    inputs, targets = torch.full((len(rows), length), ids[PAD]), torch.full((len(rows), length), -100)
    for row, (prompt, rest) in enumerate(rows):
        both = torch.tensor(prompt + rest)
        inputs[row, : len(both) - 1] = both[:-1]
        targets[row, len(prompt) - 1 : len(both) - 1] = both[len(prompt) :]
    return inputs, targets


@torch.no_grad()
def bits_per_token(model: Transformer, clips: list, ids: dict[str, int]) -> float:
    """Mean of -log2 p over all tokens of the clips and their <m_end>."""
    model.eval()
    total, count = 0.0, 0
    for first in range(0, len(clips), 64):
        inputs, targets = batch_of(clips[first : first + 64], ids, model.context)
        total += F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum").item()
        count += int((targets >= 0).sum())
    return total / count / math.log(2)


def bits_of_counts(train: list, clips: list, outcomes: int) -> tuple[float, float]:
    """Bits a token of what counts in `train` predict, for the same tokens: (unigram, bigram).

    Unigram: one is added to each count. Bigram: Witten and Bell's mixture with the unigram, which trusts the pairs of a
    token by n / (n + d), for n times seen with d different successors.
    """
    pairs = Counter(pair for _, tokens in train for pair in zip([START, *tokens], [*tokens, END], strict=True))
    before, after, kinds = Counter(), Counter(), Counter(one for one, _ in pairs)
    for (one, two), count in pairs.items():
        before[one] += count
        after[two] += count
    unigram = bigram = 0.0
    asked = [pair for _, tokens in clips for pair in zip([START, *tokens], [*tokens, END], strict=True)]
    for one, two in asked:
        p = (after[two] + 1) / (after.total() + outcomes)
        unigram -= math.log2(p)
        bigram -= math.log2((pairs[one, two] + kinds[one] * p) / (before[one] + kinds[one]) if before[one] else p)
    return unigram / len(asked), bigram / len(asked)


def train(args: argparse.Namespace) -> None:
    """Train, keep the epoch that is best on val, and measure that on test."""
    torch.manual_seed(args.seed)
    tokens, begin = args.vocab.read_text(encoding="utf-8").split(), time.monotonic()
    clips = read_clips(args.train)
    common = set.intersection(*(set(said) for said, _ in clips))
    words = sorted({word for said, _ in clips for word in said} - common)
    clips, val, test = (known(read_clips(path), words) for path in (args.train, args.val, args.test))
    ids = {token: number for number, token in enumerate([*tokens, *words])}
    size = {"context": args.context, "width": args.width, "depth": args.depth, "heads": args.heads}
    model = Transformer(len(ids), **size, dropout=0.2)
    steps = args.epochs * -(-len(clips) // args.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    best, kept = math.inf, {}
    for epoch in range(args.epochs):
        model.train()
        total = 0.0
        order = sorted(clips, key=lambda clip: len(clip[1]) + 4 * torch.rand(()).item())  # of about one length together
        for number in (torch.randperm(-(-len(clips) // args.batch)) * args.batch).tolist():
            inputs, targets = batch_of(order[number : number + args.batch], ids, args.context)
            loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            total += loss.item() * args.epochs / steps / math.log(2)
        bits = bits_per_token(model, val, ids)
        if bits < best:
            best, kept = bits, {name: value.clone() for name, value in model.state_dict().items()}
        print(f"epoch {epoch + 1:3}  train {total:.3f}  val {bits:.3f} bits a token", flush=True)
    model.load_state_dict(kept)
    unigram, bigram = bits_of_counts(clips, test, outcomes=len(tokens) - 2)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {time.monotonic() - begin:.0f} s")
    bits = bits_per_token(model, test, ids)
    print(f"test: unigram {unigram:.3f}, bigram {bigram:.3f}, transformer {bits:.3f} bits a token")
    about = json.dumps({"tokens": tokens, "words": words, "size": size})
    save_file({name: value.contiguous() for name, value in kept.items()}, args.output, metadata={"about": about})


@torch.no_grad()
def sample(args: argparse.Namespace) -> None:
    """Write a JSON line a sample: exactly what was drawn, up to <m_end> or to the end of the context."""
    torch.manual_seed(args.seed)
    with safe_open(args.model, "pt") as file:
        about = json.loads(file.metadata()["about"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    names = [*about["tokens"], *about["words"]]
    ids = {name: number for number, name in enumerate(names)}
    model = Transformer(len(names), **about["size"], dropout=0.0).eval()
    model.load_state_dict(weights)
    prompts = [words_in(text) for text in args.prompt]
    if unknown := {word for said in prompts for word in said} - set(about["words"]):
        raise SystemExit(f"no such words in training: {', '.join(sorted(unknown))}; it had {', '.join(about['words'])}")
    prompts += [said for path in args.prompts_of for said, _ in known(read_clips(path), about["words"])]
    with args.output.open("w", encoding="utf-8") as out:
        for number, said in enumerate([said for said in prompts for _ in range(args.n)], 1):
            row = [ids[word] for word in [*said, START]]
            while len(row) < model.context and row[-1] != ids[END]:
                logits = model(torch.tensor([row]))[0, -1] / args.temperature
                if args.top_k:
                    logits[logits < logits.topk(args.top_k).values[-1]] = -math.inf
                row.append(int(torch.multinomial(logits.softmax(0), 1)))
            text = "".join(names[number] for number in row[len(said) + 1 :])
            line = {"name": f"{'-'.join(said)}_{number:03}", "text": text, "captions": [" ".join(said)]}
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train")
    for name in ("train", "val", "test"):
        one.add_argument(name, type=Path)
    one.add_argument("--vocab", type=Path, required=True)
    for name, value in {"epochs": 15, "batch": 8, "width": 128, "depth": 3, "heads": 4, "context": 160}.items():
        one.add_argument(f"--{name}", type=int, default=value)
    two = commands.add_parser("sample")
    two.add_argument("model", type=Path)
    two.add_argument("--prompt", action="append", default=[])
    two.add_argument("--prompts-of", type=Path, action="append", default=[], help="the words of an export's clips")
    two.add_argument("-n", type=int, default=1, help="samples of each prompt")
    two.add_argument("--temperature", type=float, default=1.0)
    two.add_argument("--top-k", type=int, default=0, help="0: all")
    for command, run in ((one, train), (two, sample)):
        command.add_argument("-o", "--output", type=Path, required=True)
        command.add_argument("--seed", type=int, default=0)
        command.set_defaults(run=run)
    args = parser.parse_args()
    args.run(args)
