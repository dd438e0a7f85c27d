"""What the baselines load, made once and kept: `python -m benchmarks.serving.artifacts [NAME ...]`.

traced-N.pt       torch.jit.trace at [1, N] tokens
encoder.onnx      torch.onnx, dynamic rows and tokens
encoder.xml       OpenVINO's form of it, with encoder.bin; dynamic rows and tokens
hidden.onnx       the encoder without pooling and with the usual input names, as infinity-emb wants it
dynamic-DTYPE.pt2 AOTInductor, dynamic rows and tokens, weights frozen
image-HxW.pt      the image classifier traced at one size
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.paths import ENGINES, ROOT, WORK

if TYPE_CHECKING:
    import torch

ARTIFACTS = WORK / "artifacts"
MAX_ROWS = 64
MAX_TOKENS = 512


def artifact(name: str) -> Path:
    """The file of that name, made in a process of its own if it is not there yet."""
    path = ARTIFACTS / name
    if not path.exists():
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.serving.artifacts", name]
        env = dict(os.environ)
        if name.startswith(("encoder", "hidden")):
            env["PYTHONPATH"] = str(engines())
        made = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        if made.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{made.stderr[-2000:]}")
    return path


def engines() -> Path:
    """The folder with the baselines' own packages, filled on first use."""
    if not (ENGINES / "litserve").exists():
        pins = ROOT / "benchmarks" / "requirements-engines.txt"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
        subprocess.run([*install, "--upgrade", "--target", str(ENGINES), "-r", str(pins)], check=True)
    return ENGINES


def example(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    ids = torch.randint(1000, 20000, (rows, tokens), generator=torch.Generator().manual_seed(0))
    return ids, torch.ones_like(ids)


def traced(path: Path) -> None:
    import torch

    from benchmarks.serving.models import SentenceEncoder

    ids, mask = example(1, int(path.stem.split("-")[1]))
    mask[0, -2:] = 0  # so that the trace keeps the mask
    with torch.no_grad():
        model = torch.jit.trace(SentenceEncoder().eval(), (ids, mask), check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(model, path)


def onnx(path: Path) -> None:
    from benchmarks.serving.models import SentenceEncoder

    # Of the exporters and attention forms, this pair ran fastest (ONNX Runtime fuses what it knows).
    encoder = SentenceEncoder("eager").eval().requires_grad_(False)
    export_onnx(encoder, path, 2, ["ids", "mask"], "vector")


def export_onnx(model: torch.nn.Module, path: Path, inputs: int, names: list[str], output: str) -> None:
    import torch

    ids, mask = example(2, 32)
    mask[0, -2:] = 0
    axes = {0: "rows", 1: "tokens"}
    torch.onnx.export(
        model,
        (ids, mask, torch.zeros_like(ids))[:inputs],
        path,
        input_names=names,
        output_names=[output],
        dynamic_axes=dict.fromkeys([*names, output], axes),
        opset_version=17,
        dynamo=False,
    )


def hidden(path: Path) -> None:
    import torch

    from benchmarks.serving.models import SentenceEncoder

    encoder = SentenceEncoder("eager").eval().requires_grad_(False).model

    class Hidden(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = encoder(ids, mask, kinds).last_hidden_state
            return found

    names = ["input_ids", "attention_mask", "token_type_ids"]
    export_onnx(Hidden(), path, 3, names, "last_hidden_state")


def openvino(path: Path) -> None:
    import openvino

    from benchmarks.serving.models import SentenceEncoder

    # Straight from PyTorch: OpenVINO then keeps attention as one operation; faster than by way of ONNX.
    encoder = SentenceEncoder().eval().requires_grad_(False)
    model = openvino.convert_model(encoder, example_input=example(2, 32))
    openvino.save_model(model, path, compress_to_fp16=False)


def inductor(path: Path) -> None:
    import torch
    import torch._inductor

    from benchmarks.serving.models import SentenceEncoder

    model = SentenceEncoder().eval()
    if path.stem.endswith("bfloat16"):
        model = model.to(torch.bfloat16)
    rows = torch.export.Dim("rows", max=MAX_ROWS)
    tokens = torch.export.Dim("tokens", max=MAX_TOKENS)
    ids, mask = example(4, 64)
    mask[0, -2:] = 0
    torch.set_num_threads(1)
    # Without no_grad Inductor skips freezing, and with it oneDNN's packed weights, and says nothing.
    with torch.no_grad():
        program = torch.export.export(
            model, (ids, mask), dynamic_shapes=({0: rows, 1: tokens}, {0: rows, 1: tokens})
        )
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs={"freezing": True}
        )


def image_traced(path: Path) -> None:
    import torch

    from benchmarks.serving.models import image_classifier

    height, width = (int(side) for side in path.stem.split("-")[1].split("x"))
    with torch.no_grad():
        model = torch.jit.trace(image_classifier(), torch.rand(1, 3, height, width))  # type: ignore[no-untyped-call]
        model = torch.jit.freeze(model)  # folds the batch norms
    torch.jit.save(model, path)


MAKERS: dict[str, Callable[[Path], None]] = {
    "traced": traced,
    "encoder.onnx": onnx,
    "hidden.onnx": hidden,
    "encoder.xml": openvino,
    "dynamic": inductor,
    "image": image_traced,
}


def main(names: list[str]) -> None:
    for name in names:
        maker = MAKERS.get(name) or MAKERS[name.split("-")[0]]
        path = ARTIFACTS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        maker(path)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
