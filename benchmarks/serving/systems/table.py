"""Every system under test, with its settings; `NAME@workers=1,threads=2` tries others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.serving.systems.kinds import Bucketed, Infinity, LitServe, TorchServe
from benchmarks.serving.systems.system import System

ONNX = ("encoder.onnx",)
OPENVINO = ("encoder.xml",)
EAGER = ("tokenizer.json", "config.json", "model.safetensors")


def pair(build: Callable[..., System], name: str, about: str, **options: Any) -> list[System]:
    """One by one and padded to the longest of a hand-over of 8."""
    return [
        build(name, f"{about}, one by one", **options),
        build(f"{name}-longest", f"{about}, padded to the longest", together=True, **options),
    ]


def openvino(build: Callable[..., System], prefix: str, where: str, **options: Any) -> list[System]:
    systems = []
    for suffix, dtype in (("", "float32"), ("-bf16", "bfloat16")):
        about = f"{where}, OpenVINO {dtype}"
        systems += pair(build, f"{prefix}openvino{suffix}", about, dtype=dtype, **options)
    return systems


def text_systems() -> list[System]:
    return [
        Bucketed(
            "bucketed-torchscript",
            "this project, TorchScript",
            archive="minilm.mar",
            build="recipes/minilm.yaml",
            batch_size=16,
        ),
        Bucketed(
            "bucketed-torchscript-unpacked",
            "the same archive, calls in the order of arrival",
            archive="minilm.mar",
            build="recipes/minilm.yaml",
            batch_size=16,
            settings={"packing": "fifo"},
        ),
        Bucketed(
            "bucketed-inductor",
            "this project, AOTInductor",
            archive="minilm-inductor.mar",
            build="recipes/minilm-inductor.yaml",
        ),
        Bucketed(
            "bucketed-inductor-bf16",
            "this project, AOTInductor bfloat16",
            archive="minilm-inductor-bf16.mar",
            build="recipes/minilm-inductor-bf16.yaml",
            dtype="bfloat16",
        ),
        Bucketed(
            "bucketed-inductor-int8",
            "this project, AOTInductor int8",
            archive="minilm-inductor-int8.mar",
            build="recipes/minilm-inductor-int8.yaml",
            dtype="int8",
        ),
        Bucketed(
            "bucketed-openvino",
            "this project, OpenVINO",
            archive="minilm-openvino.mar",
            build="recipes/minilm-openvino.yaml",
        ),
        Bucketed(
            "bucketed-openvino-bf16",
            "this project, OpenVINO bfloat16",
            archive="minilm-openvino-bf16.mar",
            build="recipes/minilm-openvino-bf16.yaml",
            dtype="bfloat16",
        ),
        Bucketed(
            "bucketed-openvino-int8",
            "this project, OpenVINO int8",
            archive="minilm-openvino-int8.mar",
            build="recipes/minilm-openvino-int8.yaml",
            dtype="int8",
        ),
        TorchServe(
            "traced-512",
            "TorchServe, one trace padded to 512, one by one",
            handler="traced_max.py",
            files=("traced-512.pt",),
            padded_to=(512,),
        ),
        TorchServe(
            "first-fit",
            "TorchServe, traces of 64, 128, 256 and 512, first fit, one by one",
            handler="first_fit.py",
            files=tuple(f"traced-{n}.pt" for n in (64, 128, 256, 512)),
            padded_to=(64, 128, 256, 512),
        ),
        *pair(
            TorchServe,
            "eager",
            "TorchServe, eager Hugging Face model",
            handler="eager.py",
            model_files=EAGER,
        ),
        *pair(
            TorchServe,
            "onnx",
            "TorchServe, ONNX Runtime",
            handler="onnx_runtime.py",
            files=ONNX,
            needs_engines=True,
        ),
        *pair(
            LitServe,
            "litserve-onnx",
            "LitServe, ONNX Runtime",
            module="onnx_runtime",
            class_name="OnnxRuntime",
            files=ONNX,
        ),
        *openvino(
            TorchServe, "", "TorchServe", handler="openvino_dynamic.py", files=OPENVINO, needs_engines=True
        ),
        *openvino(
            LitServe,
            "litserve-",
            "LitServe",
            module="openvino_dynamic",
            class_name="OpenVino",
            files=OPENVINO,
        ),
        Infinity(
            "infinity",
            "infinity-emb, optimum engine, batches of 4",
            workers=1,
            threads=2,
            batch_size=4,
            together=True,
        ),
        *pair(
            TorchServe,
            "aoti",
            "TorchServe, AOTInductor fully dynamic float32",
            handler="aot_inductor.py",
            files=("dynamic-float32.pt2",),
        ),
        *pair(
            TorchServe,
            "aoti-bf16",
            "TorchServe, AOTInductor fully dynamic bfloat16",
            handler="aot_inductor.py",
            files=("dynamic-bfloat16.pt2",),
            dtype="bfloat16",
        ),
    ]


def image_systems() -> list[System]:
    return [
        Bucketed(
            "bucketed-images",
            "this project, MobileNetV2, TorchScript",
            kind="image",
            archive="mobilenet.mar",
            build="recipes/mobilenet.yaml",
        ),
        Bucketed(
            "bucketed-images-inductor",
            "this project, MobileNetV2, AOTInductor",
            kind="image",
            archive="mobilenet-inductor.mar",
            build="recipes/mobilenet-inductor.yaml",
        ),
        TorchServe(
            "image-traced-640",
            "TorchServe, one trace padded with zeros to 640×640",
            kind="image",
            handler="image_traced.py",
            shared="images.py",
            files=("image-640x640.pt",),
            model_files=(),
            padded_to=(640,),
        ),
        TorchServe(
            "image-eager",
            "TorchServe, eager MobileNetV2 at each picture's size, one by one",
            kind="image",
            handler="image_eager.py",
            shared="images.py",
            model_files=(),
            packages=("recipes/models",),
        ),
    ]


SYSTEMS: dict[str, System] = {system.name: system for system in [*text_systems(), *image_systems()]}
